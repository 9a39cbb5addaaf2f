"""From the evidence to written operations: contrast, diagnosis, recommendation, authoring, gate.

Pure given the replies: whoever answers the same gets the same outcome, however long it takes and
in whatever order the answers about single groups come.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .asking import Spent
from .authoring import authoring_request, read_operation
from .call import CallError, Request
from .contrast import Finding, contrast_request, read_finding
from .diagnosis import Diagnosis, diagnosis_request, read_diagnosis, without_diagnosis
from .evidence import EPISODE_CHARACTERS, choose_groups
from .gate import draft_of, refused
from .recommendation import Recommendation, read_recommendations, recommendation_request
from .state import Brief, Check, Written

T = TypeVar("T")
_SCALES = (1.0, 0.5, 0.25)  # of the evidence, while a server asks for less
_AFTER_CONTRAST = 5  # calls that a budget keeps for the later stages
_TOLD = 12  # findings and drafts that an outcome keeps for the page


class Ask(Protocol):
    """Asks one question; `Asker.ask` with the costs counted."""

    def __call__(self, request: Request, read: Callable[[dict[str, Any]], T], /) -> T:
        """The answer as `read` reads it. Raises CallError: there is none."""
        ...


class Together(Protocol):
    """Does several things at once."""

    def __call__(self, jobs: Sequence[Callable[[], T]], /) -> list[T]:
        """What each returns, in their order."""
        ...


@dataclasses.dataclass(frozen=True)
class Plan:
    """How a pipeline goes about it.

    Attributes:
      rules: the offline creator, whose vocabulary and gate count here, too.
      contrasts: task groups that are contrasted.
      attempts: at the words of a recommendation.
      max_tokens: of an answer.
    """

    rules: RulesCreator
    contrasts: int = 12
    attempts: int = 3
    max_tokens: int = 2000

    @property
    def restricted(self) -> bool:
        """Whether the agent reads nothing but the symbols of its world."""
        return bool(self.rules.language)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a pipeline brought.

    Attributes:
      written: what may be tested, the most valuable first.
      checks: assertions to keep.
      refused: drafts that may not, with the reason: "name: action: reason".
      failure: why it brought nothing, where that was the server's fault; None = it was not.
      account: what happened, for the log and the page: plain JSON types.
      spent: by the run so far, this pipeline included.
    """

    written: tuple[Written, ...]
    checks: tuple[Check, ...]
    refused: tuple[str, ...]
    failure: str | None
    account: Mapping[str, Any]
    spent: Spent = Spent()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "written": [one.to_dict() for one in self.written],
            "checks": [check.to_dict() for check in self.checks],
            "refused": list(self.refused),
            "failure": self.failure,
            "account": dict(self.account),
            "spent": self.spent.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Outcome":
        """Reads `to_dict`."""
        return cls(
            tuple(Written.from_dict(one) for one in data["written"]),
            tuple(Check.from_dict(check) for check in data["checks"]),
            tuple(data["refused"]),
            data["failure"],
            data["account"],
            Spent(**data["spent"]),
        )


def run_pipeline(
    brief: Brief, plan: Plan, ask: Ask, together: Together, *, calls_left: float
) -> Outcome:
    """Goes through the stages.

    Args:
      brief: what it works from.
      plan: how it goes about it.
      ask: asks the model.
      together: asks about several groups at once.
      calls_left: calls that the budget of the run still allows.

    Returns:
      The outcome, without its costs.
    """
    account: dict[str, Any] = {}
    checks = brief.checks
    vocabulary = plan.rules.vocabulary_for(brief.evidence)
    try:
        findings = _contrast(brief, plan, ask, together, calls_left, account)
        diagnosis = _diagnose(brief, plan, findings, ask, account)
        checks = diagnosis.checks
        recommended = _recommend(brief, plan, vocabulary, findings, diagnosis, ask, account)
    except CallError as error:
        return Outcome((), checks, (), str(error), account)
    written: list[Written] = []
    refusals: list[str] = []
    drafts: list[dict[str, Any]] = []
    failure = None
    for number, one in enumerate(recommended):
        place = f"{brief.number}/authoring/{number}"
        try:
            taken = [operation.name for w in written for operation in w.operations]
            made = _author(
                brief, plan, vocabulary, one, findings, ask, place, taken, refusals, drafts
            )
        except CallError as error:
            failure = str(error)
            drafts.append({"intent": one.intent, "refused": failure})
            continue
        if made is not None:
            written.append(made)
    account["drafts"] = drafts[: 2 * _TOLD]
    return Outcome(
        tuple(written), checks, tuple(refusals[-_TOLD:]), None if written else failure, account
    )


def _or_less(
    ask: Ask, request: Callable[[float], Request], read: Callable[[dict[str, Any]], T]
) -> T:
    """Asks with all of the evidence, and with less of it where that is too much.

    Raises:
      CallError: there is no answer.
    """
    asked: Request | None = None
    failure: CallError | None = None
    for scale in _SCALES:
        question = request(scale)
        if question == asked:  # nothing was left out
            continue
        try:
            return ask(question, read)
        except CallError as error:
            if error.remedy != "less":
                raise
            asked, failure = question, error
    assert failure is not None
    raise failure


def _contrast(
    brief: Brief,
    plan: Plan,
    ask: Ask,
    together: Together,
    calls_left: float,
    account: dict[str, Any],
) -> list[Finding]:
    """Stage 1: the findings of all groups that brought one."""
    groups = choose_groups(brief, int(max(1, min(plan.contrasts, calls_left - _AFTER_CONTRAST))))
    failures: list[str] = []

    def contrast(number: int, group: Sequence[Episode]) -> Finding | CallError:
        def request(scale: float) -> Request:
            return contrast_request(
                group,
                f"{brief.number}/insight/{number}",
                characters=int(scale * EPISODE_CHARACTERS),
                max_tokens=plan.max_tokens,
            )

        try:
            return _or_less(ask, request, lambda answer: read_finding(answer, group))
        except CallError as error:
            return error

    jobs = [functools.partial(contrast, n, group) for n, group in enumerate(groups)]
    findings: list[Finding] = []
    for found in together(jobs):
        if isinstance(found, Finding):
            findings.append(found)
        else:
            failures.append(str(found))
    account["groups"] = len(groups)
    account["findings"] = [
        {"task": f.task, "finding": f.text, "confidence": f.confidence} for f in findings[:_TOLD]
    ]
    if failures:
        account["groups_without_answer"] = {"number": len(failures), "first": failures[0]}
    if not findings:
        raise CallError("later", failures[0] if failures else "there are no episodes to contrast")
    return findings


def _diagnose(
    brief: Brief,
    plan: Plan,
    findings: Sequence[Finding],
    ask: Ask,
    account: dict[str, Any],
) -> Diagnosis:
    """Stage 2; where it brings nothing the others go on without."""
    try:
        diagnosis = _or_less(
            ask,
            lambda share: diagnosis_request(
                brief, findings, share=share, max_tokens=plan.max_tokens
            ),
            lambda answer: read_diagnosis(answer, brief, findings),
        )
    except CallError as error:
        diagnosis = without_diagnosis(brief, findings)
        account["diagnosis_failed"] = str(error)
    account["diagnosis"] = {
        "summary": diagnosis.summary,
        "priorities": list(diagnosis.priorities),
        "clusters": len(diagnosis.clusters),
        "assertions": [
            {
                "assertion": str(check.assertion),
                "success_rate": round(check.success_rate, 3),
                "failure_rate": round(check.failure_rate, 3),
            }
            for check in diagnosis.checks
        ],
    }
    return diagnosis


def _recommend(
    brief: Brief,
    plan: Plan,
    vocabulary: ActionVocabulary,
    findings: Sequence[Finding],
    diagnosis: Diagnosis,
    ask: Ask,
    account: dict[str, Any],
) -> tuple[Recommendation, ...]:
    """Stage 3."""

    def request(share: float) -> Request:
        return recommendation_request(
            brief,
            findings,
            diagnosis,
            vocabulary,
            restricted=plan.restricted,
            share=share,
            max_tokens=plan.max_tokens,
        )

    found = _or_less(ask, request, lambda told: read_recommendations(told, brief, findings))
    account["recommendations"] = [
        {"op": one.operation, "target": one.target, "intent": one.intent} for one in found
    ]
    return found


def _author(
    brief: Brief,
    plan: Plan,
    vocabulary: ActionVocabulary,
    one: Recommendation,
    findings: Sequence[Finding],
    ask: Ask,
    place: str,
    taken: Sequence[str],
    refusals: list[str],
    drafts: list[dict[str, Any]],
) -> Written | None:
    """Stage 4 and the gate, with what was wrong told to the next attempt; None = nothing passes."""
    wrong: list[str] = []

    def request(share: float) -> Request:
        return authoring_request(
            brief,
            one,
            findings,
            vocabulary,
            wrong,
            f"{place}/{len(wrong)}",
            restricted=plan.restricted,
            share=share,
            max_tokens=plan.max_tokens,
        )

    for _ in range(plan.attempts):
        operation = _or_less(ask, request, lambda told: read_operation(told, brief, one, taken))
        written = Written(brief.number, (operation,), one.intent or one.operation)
        draft = draft_of(written, vocabulary)
        reason = refused(draft, brief.evidence, brief.library, plan.rules, vocabulary)
        said = operation.skill.action if operation.skill is not None else operation.operation
        drafts.append({"name": operation.name, "action": said, "refused": reason})
        if reason is None:
            return written
        wrong.append(f"{operation.name} ({said}): {reason}")
        if operation.skill is None:  # no other words would change that
            break
    refusals += wrong[-1:]
    return None
