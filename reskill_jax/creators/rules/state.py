"""All that the creator remembers, exactly as JSON."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.reservoir import Reservoir
from reskill_jax.skills.skill import Bundle

from .diagnosis import TrackedAssertion

_HISTORY = 500
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Record:
    """One proposal and what became of it."""

    id: int
    step: int
    kind: str  # "bundle" | "retirement"
    bundle: Bundle
    keys: tuple[str, ...]  # what each operation amounts to, names aside
    deeds: tuple[tuple[str, str | None, bool], ...]  # behaviours it wanted to change
    score: float
    seen: int  # episodes ever seen when it was proposed
    outcome: str = "pending"  # | "accepted" | "rejected" | "withdrawn"
    decided: int | None = None  # step
    reason: str = ""
    traits: tuple[float, ...] = ()  # of its evidence, see `experience`

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "bundle": self.bundle.to_dict(),
            "keys": list(self.keys),
            "deeds": [list(deed) for deed in self.deeds],
            "traits": list(self.traits),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Record":
        """Reads `to_dict`."""
        return cls(
            **{
                **data,
                "bundle": Bundle.from_dict(data["bundle"]),
                "keys": tuple(data["keys"]),
                "deeds": tuple((v, n, bool(x)) for v, n, x in data["deeds"]),
                "traits": tuple(data.get("traits", ())),
            }
        )


@dataclasses.dataclass(frozen=True)
class CreatorState:
    """Evidence, assertions, history, randomness and pauses. Never changed in place."""

    reservoir: Reservoir
    random: dict[str, Any]  # state of a numpy PCG64
    assertions: tuple[TrackedAssertion, ...] = ()
    history: tuple[Record, ...] = ()
    next_id: int = 0
    next_attempt: int = 0  # no proposal before this step
    refusals: int = 0  # in a row

    def generator(self) -> np.random.Generator:
        """A generator that continues where the last one stopped."""
        bits = np.random.PCG64()
        bits.state = self.random  # type: ignore[assignment]
        return np.random.Generator(bits)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "format": _FORMAT,
            "reservoir": self.reservoir.to_dict(),
            "random": self.random,
            "assertions": [one.to_dict() for one in self.assertions],
            "history": [record.to_dict() for record in self.history],
            "next_id": self.next_id,
            "next_attempt": self.next_attempt,
            "refusals": self.refusals,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "CreatorState":
        """Reads `to_dict`. Raises ValueError for another format."""
        if data.get("format") != _FORMAT:
            raise ValueError(f"creator state of format {data.get('format')!r}, expected {_FORMAT}")
        return cls(
            reservoir=Reservoir.from_dict(data["reservoir"]),
            random=dict(data["random"]),
            assertions=tuple(TrackedAssertion.from_dict(one) for one in data["assertions"]),
            history=tuple(Record.from_dict(one) for one in data["history"]),
            next_id=data["next_id"],
            next_attempt=data["next_attempt"],
            refusals=data["refusals"],
        )

    def to_json(self) -> str:
        """One line of JSON; `from_json` gives back an equal state."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "CreatorState":
        """Reads `to_json`."""
        return cls.from_dict(json.loads(text))


def init_state(seed: int, *, capacity: int = 200) -> CreatorState:
    """A creator that has seen nothing yet.

    Args:
      seed: of all its randomness.
      capacity: episodes in the reservoir.
    """
    return CreatorState(
        reservoir=Reservoir(capacity=capacity), random=dict(np.random.PCG64(seed).state)
    )


def observe(state: CreatorState, episodes: Iterable[Episode]) -> CreatorState:
    """Adds finished, valid episodes to the reservoir."""
    return dataclasses.replace(state, reservoir=state.reservoir.add(episodes))


def remember(state: CreatorState, record: Record) -> CreatorState:
    """Adds a proposal to the history; the oldest are forgotten."""
    return dataclasses.replace(
        state, history=(*state.history, record)[-_HISTORY:], next_id=state.next_id + 1
    )


def conclude(
    state: CreatorState, proposal_id: int, outcome: str, *, step: int, reason: str = ""
) -> CreatorState:
    """Records what became of a proposal.

    Args:
      state: the state whose history holds the proposal as pending.
      proposal_id: `Proposal.id`.
      outcome: "accepted", "rejected", or "withdrawn" (never tested).
      step: the training step.
      reason: for the log.

    Raises:
      ValueError: an unknown outcome, or no such pending proposal.
    """
    if outcome not in ("accepted", "rejected", "withdrawn"):
        raise ValueError(f"unknown outcome {outcome!r}")
    pending = [r for r in state.history if r.id == proposal_id and r.outcome == "pending"]
    if not pending:
        raise ValueError(f"no pending proposal {proposal_id}")
    done = dataclasses.replace(pending[0], outcome=outcome, decided=step, reason=reason)
    history = tuple(done if r is pending[0] else r for r in state.history)
    return dataclasses.replace(state, history=history)
