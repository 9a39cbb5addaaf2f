"""All that a creator with a language model remembers, exactly as JSON."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from reskill_jax.creators.creator import Library
from reskill_jax.creators.rules.state import CreatorState
from reskill_jax.skills.assertions import Assertion
from reskill_jax.skills.skill import Operation, Skill

from .asking import Spent

_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Check:
    """An assertion that the model wants to be kept, with how often it holds, as we count it."""

    id: str
    assertion: Assertion
    why: str
    success_rate: float  # share of successes that pass
    failure_rate: float  # share of failures that pass

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**dataclasses.asdict(self), "assertion": self.assertion.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Check":
        """Reads `to_dict`."""
        return cls(**{**data, "assertion": Assertion.from_dict(data["assertion"])})


@dataclasses.dataclass(frozen=True)
class Written:
    """Operations that a pipeline has written and that wait for their turn."""

    pipeline: int
    operations: tuple[Operation, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        operations = [one.to_dict() for one in self.operations]
        return {"pipeline": self.pipeline, "operations": operations, "reason": self.reason}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Written":
        """Reads `to_dict`."""
        operations = tuple(Operation.from_dict(one) for one in data["operations"])
        return cls(data["pipeline"], operations, data["reason"])


@dataclasses.dataclass(frozen=True)
class Brief:
    """What a pipeline works from: everything as it was when it was begun.

    Attributes:
      number: of the pipeline, from 0.
      step: at which it was begun.
      evidence: reservoir and history.
      library: the skills.
      checks: assertions that are kept.
      refused: drafts of earlier pipelines that were not worth a trial, and why.
      spent: by earlier pipelines.
    """

    number: int
    step: int
    evidence: CreatorState
    library: Library
    checks: tuple[Check, ...]
    refused: tuple[str, ...]
    spent: Spent

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "number": self.number,
            "step": self.step,
            "evidence": self.evidence.to_dict(),
            "library": {
                "skills": [skill.to_dict() for skill in self.library.skills],
                "under_test": {
                    name: None if skill is None else skill.to_dict()
                    for name, skill in self.library.under_test.items()
                },
                "served": dict(self.library.served),
                "slots": self.library.slots,
            },
            "checks": [check.to_dict() for check in self.checks],
            "refused": list(self.refused),
            "spent": self.spent.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Brief":
        """Reads `to_dict`."""
        library = data["library"]
        return cls(
            number=data["number"],
            step=data["step"],
            evidence=CreatorState.from_dict(data["evidence"]),
            library=Library(
                tuple(Skill.from_dict(skill) for skill in library["skills"]),
                {
                    name: None if skill is None else Skill.from_dict(skill)
                    for name, skill in library["under_test"].items()
                },
                dict(library["served"]),
                library["slots"],
            ),
            checks=tuple(Check.from_dict(check) for check in data["checks"]),
            refused=tuple(data["refused"]),
            spent=Spent(**data["spent"]),
        )


@dataclasses.dataclass(frozen=True)
class LLMState:
    """What is remembered. Never changed in place.

    Attributes:
      rules: reservoir, history and pauses, shared with the offline rules.
      checks: assertions that are kept.
      pending: what the pipeline under way works from; None = there is none.
      written: operations that wait for their turn.
      refused: drafts that were not worth a trial, and why; the latest.
      begun: pipelines so far.
      next_attempt: no pipeline before this step.
      failures: pipelines in a row that brought nothing, for whatever reason.
      failing: whether the latest pipeline brought nothing because of the server.
      spent: by all pipelines that ended.
      untold: lines about pipelines for the log.
      latest: what the log should keep of the latest proposal.
    """

    rules: CreatorState
    checks: tuple[Check, ...] = ()
    pending: Brief | None = None
    written: tuple[Written, ...] = ()
    refused: tuple[str, ...] = ()
    begun: int = 0
    next_attempt: int = 0
    failures: int = 0
    failing: bool = False
    spent: Spent = Spent()
    untold: tuple[Mapping[str, Any], ...] = ()
    latest: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "llm_format": _FORMAT,
            "rules": self.rules.to_dict(),
            "checks": [check.to_dict() for check in self.checks],
            "pending": None if self.pending is None else self.pending.to_dict(),
            "written": [one.to_dict() for one in self.written],
            "refused": list(self.refused),
            "begun": self.begun,
            "next_attempt": self.next_attempt,
            "failures": self.failures,
            "failing": self.failing,
            "spent": self.spent.to_dict(),
            "untold": [dict(line) for line in self.untold],
            "latest": dict(self.latest),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "LLMState":
        """Reads `to_dict`. Raises ValueError for another format."""
        if data.get("llm_format") != _FORMAT:
            raise ValueError("this is no state of a creator with a language model")
        return cls(
            rules=CreatorState.from_dict(data["rules"]),
            checks=tuple(Check.from_dict(check) for check in data["checks"]),
            pending=None if data["pending"] is None else Brief.from_dict(data["pending"]),
            written=tuple(Written.from_dict(one) for one in data["written"]),
            refused=tuple(data["refused"]),
            begun=data["begun"],
            next_attempt=data["next_attempt"],
            failures=data["failures"],
            failing=data.get("failing", False),
            spent=Spent(**data["spent"]),
            untold=tuple(data["untold"]),
            latest=dict(data["latest"]),
        )
