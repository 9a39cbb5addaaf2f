"""Stage 2, diagnosis: findings into clusters, and assertions that we grade, not the model."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.assertions import Assertion, AssertionSpecError, grade

from .call import Request
from .contrast import Finding
from .evidence import DUTY, answer_as, data_field, told_bank
from .reading import numbers_in, one_line
from .schemas import DIAGNOSIS
from .state import Brief, Check

MAX_CHECKS = 15
TEMPERATURE = 0.2
_MOST_CLUSTERS = 8
_PRIORITIES = 5
_SYSTEM = (
    f"{DUTY}\n\nYou get what was found in single tasks, numbered; the skills in use; and "
    "assertions about episodes with the share of all recorded successes and failures that pass "
    "them, counted by us. 1. Group findings that say the same into 3 to 8 clusters and name the "
    "most telling finding of each. 2. Change the assertions: add those that would tell successes "
    "from failures, delete those that do not. We count them; never state a rate yourself. "
    "Patterns are regular expressions (RE2), searched in single actions or observations. "
    "action_before needs pattern and second; action_count pattern with min or max; min_steps and "
    "max_steps n; no_consecutive_repeat at most prefix; observation_contains pattern and at most "
    "after_action; the others pattern. Everything else is null. 3. Say what is wrong with the "
    "agent, the worst first.\n\n"
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Findings that say the same."""

    label: str
    findings: tuple[int, ...]
    representative: int


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What is wrong."""

    summary: str
    priorities: tuple[str, ...]
    clusters: tuple[Cluster, ...]
    checks: tuple[Check, ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self) | {"checks": [check.to_dict() for check in self.checks]}


def diagnosis_request(
    brief: Brief, findings: Sequence[Finding], *, share: float, max_tokens: int
) -> Request:
    """The question about the findings, or about a share of them: the first ones."""
    some = findings[: math.ceil(share * len(findings))]
    shown = {
        "findings": {number: told_finding(one) for number, one in enumerate(some)},
        "assertions": [told_check(check) for check in brief.checks],
        "skills": told_bank(brief),
    }
    return Request(
        f"{brief.number}/diagnosis",
        "diagnosis",
        _SYSTEM + answer_as(DIAGNOSIS),
        f"What is wrong with the agent?\n{data_field(shown)}",
        DIAGNOSIS,
        max_tokens,
        TEMPERATURE,
    )


def told_finding(finding: Finding) -> dict[str, Any]:
    """A finding in short, as data."""
    return {
        "task": finding.task,
        "finding": finding.text,
        "moment": finding.moment,
        "skills": dict(finding.skills),
        "confidence": finding.confidence,
    }


def told_check(check: Check) -> dict[str, Any]:
    """An assertion with its rates, as data."""
    return {
        "id": check.id,
        "kind": check.assertion.kind,
        **dict(check.assertion.parameters),
        "successes_that_pass": round(check.success_rate, 2),
        "failures_that_pass": round(check.failure_rate, 2),
        "why": check.why,
    }


def read_diagnosis(
    answer: Mapping[str, Any], brief: Brief, findings: Sequence[Finding]
) -> Diagnosis:
    """What an answer says; of it, whatever names something that is not there is left out."""
    clusters = []
    for told in answer["clusters"]:
        members = numbers_in(told["insights"], len(findings))
        if members:
            best = told["representative"]
            label = one_line(told["label"], 100)
            clusters.append(Cluster(label, members, best if best in members else members[0]))
    return Diagnosis(
        one_line(answer["summary"]),
        tuple(one_line(text, 300) for text in answer["priorities"][:_PRIORITIES]),
        tuple(clusters[:_MOST_CLUSTERS]) or clusters_without(findings),
        changed_checks(brief.checks, answer["assertions"], brief.evidence.reservoir.episodes),
    )


def without_diagnosis(brief: Brief, findings: Sequence[Finding]) -> Diagnosis:
    """What is known where the stage brought nothing."""
    checks = changed_checks(brief.checks, (), brief.evidence.reservoir.episodes)
    return Diagnosis("", (), clusters_without(findings), checks)


def clusters_without(findings: Sequence[Finding]) -> tuple[Cluster, ...]:
    """Findings that nobody has grouped: each for itself, the most confident first."""
    order = ("high", "medium", "low")
    ranked = sorted(range(len(findings)), key=lambda n: order.index(findings[n].confidence))
    return tuple(Cluster("", (n,), n) for n in ranked[:_MOST_CLUSTERS])


# --- assertions ---------------------------------------------------------------------------------


def changed_checks(
    checks: Sequence[Check], operations: Sequence[Mapping[str, Any]], episodes: Sequence[Episode]
) -> tuple[Check, ...]:
    """The assertions after some operations, all graded over all episodes.

    An operation that is not valid is left out. Of more than MAX_CHECKS those stay that tell
    successes from failures best.
    """
    kept = {check.id: (check.assertion, check.why) for check in checks}
    number = max([int(name[1:]) for name in kept], default=0)
    for told in operations:
        if told["op"] != "add" and told["id"] not in kept:
            continue
        if told["op"] == "delete":
            del kept[told["id"]]
            continue
        assertion = assertion_of(told)
        if assertion is None or any(assertion == one for one, _ in kept.values()):
            continue
        if told["op"] == "add":
            number += 1
            kept[f"a{number}"] = assertion, one_line(told["why"], 200)
        else:
            kept[told["id"]] = assertion, one_line(told["why"], 200)
    graded = [Check(name, one, why, *_rates(one, episodes)) for name, (one, why) in kept.items()]
    graded.sort(key=lambda check: -abs(check.success_rate - check.failure_rate))
    return tuple(graded[:MAX_CHECKS])


def assertion_of(told: Mapping[str, Any]) -> Assertion | None:
    """The assertion that an operation describes; None = it is none."""
    names = {"pattern": "first"} if told["kind"] == "action_before" else {}
    parameters = {
        names.get(name, name): told[name]
        for name in ("pattern", "second", "after_action", "prefix", "n", "min", "max")
        if told[name] is not None
    }
    if told["kind"] is None:
        return None
    try:
        return Assertion.of(told["kind"], **parameters)
    except AssertionSpecError:
        return None


def _rates(assertion: Assertion, episodes: Sequence[Episode]) -> tuple[float, float]:
    """Shares of the successes and of the failures that pass; 0 without any."""
    passed: dict[bool, list[bool]] = {True: [], False: []}
    for one in episodes:
        passed[one.success].append(grade(assertion, one.actions, one.observations))
    won, lost = (sum(side) / max(len(side), 1) for side in (passed[True], passed[False]))
    return won, lost
