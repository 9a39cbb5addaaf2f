"""An algorithm and a creator as a user would write them, and some that cannot be used."""

import dataclasses

import jax.numpy as jnp

from reskill_jax.algorithms.algorithm import Targets
from reskill_jax.algorithms.grpo import GRPO
from reskill_jax.creators.creator import Proposal, Refusal
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger


@dataclasses.dataclass(frozen=True)
class Upwards(GRPO):
    """Every decision is made more likely."""

    push: float = 1.0

    def targets(self, batch, *, group_size, axis_name=None):
        return Targets(jnp.where(batch.mask, self.push, 0.0))


@dataclasses.dataclass(frozen=True)
class Empty(Upwards):
    """False as a condition, as containers are that hold nothing."""

    def __len__(self):
        return 0


class Needy(Upwards):
    """Not to be made without an argument."""

    def __init__(self, rate):
        super().__init__(push=rate)


class Fours(Upwards):
    """Learns from four rollouts together."""

    rows_together = 4


class Halfway:
    """Has a few of the members of an algorithm, and of a creator."""

    uses_reference, values, needs_groups = False, None, True

    def init(self, seed):
        return {}


class Mutable(GRPO):
    """Not hashable."""

    __hash__ = None


class Persistent:
    """Proposes the same skill again and again, under another name."""

    def init(self, seed):
        return {"asked": 0, "seed": seed, "seen": 0}

    def observe(self, memory, episodes):
        return memory | {"seen": memory["seen"] + len(episodes)}

    def propose(self, memory, library, *, step):
        if library.under_test:
            return memory, Refusal("one at a time", looked=False)
        number = memory["asked"]
        skill = Skill(f"look-{number}", "At the start.", "look.", Trigger("beginning"))
        bundle = Bundle((Operation("ADD", skill.name, skill),))
        version = bundle.apply(library.skills, capacity=library.slots)
        return memory | {"asked": number + 1}, Proposal(number, "bundle", bundle, version, "why", 1)

    def conclude(self, memory, trial, accepted, *, step, reason):
        return memory

    def notes(self, memory):
        return {}

    def tell(self, memory):
        return memory, ()

    def figures(self, memory):
        return {}

    def dump(self, memory):
        return dict(memory)

    def load(self, data):
        return dict(data)
