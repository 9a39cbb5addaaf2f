"""Stage 3, recommendation: which changes of the skills are worth a trial?"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.skills.skill import MAX_OPERATIONS
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .call import Request
from .contrast import Finding
from .diagnosis import Diagnosis, told_check
from .evidence import DUTY, answer_as, data_field, told_bank, told_history, told_world
from .reading import ReplyError, numbers_in, one_line
from .schemas import RECOMMENDATION
from .state import Brief

TEMPERATURE = 0.3
_FINDINGS = 3  # that a recommendation may rest on
_SYSTEM = (
    f"{DUTY}\n\nYou get a diagnosis, the findings it rests on, the skills in use and under test, "
    "and what became of earlier suggestions and why. Recommend one to three changes: add a skill, "
    "modify one in use (its text, its trigger or both), or delete one in use that hurts. Each is "
    "tested on its own, so let them be about different things, the most valuable first. Do not "
    "touch what is under test, and do not repeat what was rejected unless you see why it would "
    "work now. A trigger is general (every turn), beginning (the first turn), action_pattern (a "
    "pattern occurs in the last action) or observation_pattern (it occurs in the latest "
    "observation); a skill that is shown only when it helps costs less and hurts less.\n\n"
)


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """One change."""

    operation: str  # "add" | "modify" | "delete"
    target: str | None  # name of a skill in use; None for an addition
    intent: str
    evidence: str
    findings: tuple[int, ...]
    trigger: str | None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


def recommendation_request(
    brief: Brief,
    findings: Sequence[Finding],
    diagnosis: Diagnosis,
    vocabulary: ActionVocabulary,
    *,
    restricted: bool,
    share: float,
    max_tokens: int,
) -> Request:
    """The question what to change.

    Args:
      brief, findings, diagnosis, vocabulary: of the pipeline.
      restricted: whether the agent knows no other words.
      share: of the clusters that are shown, with their findings: the first ones.
      max_tokens: of the answer.
    """
    clusters = diagnosis.clusters[: math.ceil(share * len(diagnosis.clusters))]
    shown = {
        "summary": diagnosis.summary,
        "priorities": list(diagnosis.priorities),
        "clusters": [
            {"label": one.label, "findings": list(one.findings), "most_telling": one.representative}
            for one in clusters
        ],
        "findings": {
            one.representative: findings[one.representative].to_dict() for one in clusters
        },
        "assertions": [told_check(check) for check in diagnosis.checks],
        "skills": told_bank(brief),
        "history": told_history(brief),
        "world": told_world(vocabulary, restricted),
    }
    return Request(
        f"{brief.number}/recommendation",
        "recommendation",
        _SYSTEM + answer_as(RECOMMENDATION),
        f"Which changes are worth a trial?\n{data_field(shown)}",
        RECOMMENDATION,
        max_tokens,
        TEMPERATURE,
    )


def read_recommendations(
    answer: Mapping[str, Any], brief: Brief, findings: Sequence[Finding]
) -> tuple[Recommendation, ...]:
    """The changes that an answer recommends.

    Raises:
      ReplyError: one names a skill that is not in use, or there is none.
    """
    known = [skill.name for skill in brief.library.skills]
    found: list[Recommendation] = []
    for told in answer["operations"][:MAX_OPERATIONS]:
        target = told["target"]
        if told["op"] == "add":
            target = None
        elif target not in known:
            raise ReplyError(
                f"target: no skill in use is called {one_line(str(target), 64)!r} "
                f"(in use: {', '.join(known) or 'none'})."
            )
        elif target in brief.library.under_test:
            raise ReplyError(f"target: {target} is under test already.")
        if target is not None and any(target == one.target for one in found):
            continue
        found.append(
            Recommendation(
                told["op"],
                target,
                one_line(told["intent"], 400),
                one_line(told["evidence"], 400),
                numbers_in(told["insights"], len(findings))[:_FINDINGS],
                told["trigger"],
            )
        )
    if not found:
        raise ReplyError("'operations' is empty.")
    return tuple(found)
