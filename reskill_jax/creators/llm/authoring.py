"""Stage 4, authoring: a recommendation becomes an operation, in exact words.

What comes back is data: names become kebab case, patterns run on automata alone, every character
is checked. Whether it is worth a trial, the gate decides (`gate.refused`).
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import (
    MAX_NAME,
    BundleError,
    Operation,
    Skill,
    SkillError,
    Trigger,
)
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .call import Request
from .contrast import Finding
from .evidence import DUTY, answer_as, data_field, how_to_write, told_bank, told_skill, told_world
from .reading import ReplyError, one_line, unseen_in
from .recommendation import Recommendation
from .schemas import AUTHORING
from .state import Brief

TEMPERATURE = 0.3
_SYSTEM = (
    f"{DUTY}\n\nYou get one recommended change of the skills with its evidence. Write it as "
    "exactly one operation. 'name' is two to five lower-case words with hyphens; of a skill in use "
    "it is its name. 'when_to_use' is one sentence for readers. A pattern is a regular expression "
    "(RE2 syntax, case does not matter, at most 200 characters, no lookarounds); it must occur in "
    "actions or observations of at least half of the episodes. general and beginning take no "
    "pattern. 'task_pattern' restricts a skill to tasks in whose text it occurs; null for all. "
    "When you modify, null keeps what the skill has. When you delete, all texts are null.\n\n"
)


def authoring_request(
    brief: Brief,
    recommendation: Recommendation,
    findings: Sequence[Finding],
    vocabulary: ActionVocabulary,
    refused: Sequence[str],
    place: str,
    *,
    restricted: bool,
    share: float,
    max_tokens: int,
) -> Request:
    """The question for the words.

    Args:
      brief, findings, vocabulary: of the pipeline.
      recommendation: the change.
      refused: what was wrong with earlier attempts.
      place: see `Request`.
      restricted: whether the agent knows no other words.
      share: of the findings that are shown: the first ones.
      max_tokens: of the answer.
    """
    target = next((s for s in brief.library.skills if s.name == recommendation.target), None)
    numbers = recommendation.findings[: math.ceil(share * len(recommendation.findings))]
    shown = {
        "recommendation": recommendation.to_dict(),
        "skill": None if target is None else told_skill(target),
        "findings": [findings[n].to_dict() for n in numbers],
        "skills": told_bank(brief),
        "world": told_world(vocabulary, restricted),
        "refused_attempts": list(refused),
    }
    return Request(
        place,
        "authoring",
        f"{_SYSTEM}{how_to_write(vocabulary, restricted)}\n\n{answer_as(AUTHORING)}",
        f"Write the change.\n{data_field(shown)}",
        AUTHORING,
        max_tokens,
        TEMPERATURE,
    )


def read_operation(
    answer: Mapping[str, Any],
    brief: Brief,
    recommendation: Recommendation,
    taken: Sequence[str] = (),
) -> Operation:
    """The operation that an answer holds.

    Args:
      answer: as its schema says.
      brief: of the pipeline.
      recommendation: what was asked for.
      taken: names that no new skill can have, beside those in use and under test.

    Raises:
      ReplyError: it is none, or another than was recommended.
    """
    if not answer["operations"]:
        raise ReplyError("'operations' is empty.")
    told = answer["operations"][0]
    if told["op"] != recommendation.operation:
        raise ReplyError(f"op must be {recommendation.operation}, as recommended.")
    try:
        if recommendation.operation == "delete":
            return Operation("DELETE", str(recommendation.target))
        if recommendation.operation == "modify":
            old = next(s for s in brief.library.skills if s.name == recommendation.target)
            return Operation("MODIFY", old.name, _modified(old, told))
        skill = _added(told, _taken(brief) | set(taken))
        return Operation("ADD", skill.name, skill)
    except (SkillError, TriggerError, BundleError) as error:
        raise ReplyError(one_line(str(error), 300)) from None


def kebab(text: str) -> str:
    """A text as the name of a skill: letters and digits with hyphens; "skill" if there are none."""
    words = "-".join(re.findall("[a-z0-9]+", text[: 4 * MAX_NAME].lower()))
    return words[: MAX_NAME - 4].strip("-") or "skill"


def _taken(brief: Brief) -> set[str]:
    """Names that a new skill cannot have."""
    library = brief.library
    tested = [skill.name for skill in library.under_test.values() if skill is not None]
    return {skill.name for skill in library.skills} | set(library.under_test) | set(tested)


def _added(told: Mapping[str, Any], taken: set[str]) -> Skill:
    name = base = kebab(told["name"])
    for number in range(2, len(taken) + 3):
        if name not in taken:
            break
        name = f"{base}-{number}"
    if told["trigger"] is None:
        raise ReplyError("a new skill needs a trigger.")
    return Skill(
        name,
        _text(told, "when_to_use"),
        _text(told, "action"),
        Trigger(told["trigger"], _pattern(told, told["trigger"]), told["task_pattern"] or None),
        _examples(told),
    )


def _modified(old: Skill, told: Mapping[str, Any]) -> Skill:
    kind = told["trigger"] or old.trigger.kind
    pattern = _pattern(told, kind)
    if pattern is None and kind == old.trigger.kind:
        pattern = old.trigger.pattern
    task = told["task_pattern"] if told["task_pattern"] is not None else old.trigger.task_pattern
    return Skill(
        old.name,
        _text(told, "when_to_use", old.when_to_use),
        _text(told, "action", old.action),
        Trigger(kind, pattern, task or None),
        _examples(told) or old.examples,
    )


def _pattern(told: Mapping[str, Any], kind: str) -> str | None:
    """A pattern where the trigger takes one; models give one that always occurs to the others."""
    return told["pattern"] or None if kind.endswith("_pattern") else None


def _text(told: Mapping[str, Any], name: str, old: str | None = None) -> str:
    text = told[name] or old
    if not text:
        raise ReplyError(f"'{name}' is missing.")
    return _seen(name, text)


def _examples(told: Mapping[str, Any]) -> tuple[str, ...]:
    pair = told["do"], told["do_not"]
    if not any(pair):
        return ()
    if not all(pair):
        raise ReplyError("give both 'do' and 'do_not', or neither.")
    return tuple(_seen(name, text) for name, text in zip(("do", "do_not"), pair, strict=True))


def _seen(name: str, text: str) -> str:
    """A text on one line, if a reader sees all of it."""
    if (letter := unseen_in(text)) is not None:
        raise ReplyError(f"'{name}' holds the invisible character {letter}.")
    return " ".join(text.split())
