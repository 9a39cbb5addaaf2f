"""Planted failures as episodes of text, with both truths: what was planted, and what decided."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attribution.planting import DIRECTIVES, NONE, TURNS, Planted, plant
from reskill_jax.core.attribution import decisive_step
from reskill_jax.creators.attribution.features import StepFeatures, step_features
from reskill_jax.creators.attribution.models import KINDS
from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.household.symbols import VERBS
from reskill_jax.worlds.household.vocabulary import household_vocabulary
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()
VOCABULARY = household_vocabulary()
SKILLS = tuple(
    Skill(f"planted-{VERBS[verb]}", "Planted.", f"{VERBS[verb]}.", Trigger("action_pattern", "^go"))
    for verb in DIRECTIVES
)
_AT_ONCE = 512


class Failures(NamedTuple):
    """E failed episodes, cut off at their budgets. T steps."""

    planted: Planted  # [E, ...]
    episodes: list[Episode]
    features: StepFeatures  # [E, T, F]
    causes: np.ndarray  # [E] int: planted step * Z + kind
    decisive: np.ndarray  # [E] int: planted kind at the step that decided (0 for "none")
    actor: np.ndarray  # [E, T] int: 0 finds, 1 carries

    def take(self, rows: np.ndarray) -> "Failures":
        """Some of them."""
        return Failures(
            jax.tree.map(lambda x: x[rows], self.planted),
            [self.episodes[row] for row in rows],
            StepFeatures(*(x[rows] for x in self.features)),
            self.causes[rows],
            self.decisive[rows],
            self.actor[rows],
        )


class Made(NamedTuple):
    """Failures, the successes of the same making, and how many plants failed."""

    failures: Failures
    successes: list[Episode]
    failed: dict[str, float]  # of each kind, the share of plants that failed


@functools.cache
def _program():
    def one(key, split):
        return plant(key, world=WORLD, split=split)

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


def make(seed: int, count: int, split: str, *, successes: int = 0) -> Made:
    """Plants until there are enough failures.

    Args:
      seed: of everything. count: E. split: of the games. successes: to keep as well.
    """
    kept: list[Planted] = []
    won: list[Episode] = []
    tried, lost, found = np.zeros(len(KINDS)), np.zeros(len(KINDS)), 0
    for batch in range(1000):
        if found >= count and len(won) >= successes:
            break
        key = jax.random.fold_in(jax.random.key(seed), batch)
        keys = jax.random.split(key, _AT_ONCE)
        planted = jax.device_get(_program()(keys, jnp.int32(WORLD.splits.index(split))))
        happened = (planted.step >= 0) & np.isfinite(planted.distance[:, 0])
        happened &= planted.budget <= TURNS
        failed = happened & ~planted.won & (planted.step < planted.budget)
        tried += np.bincount(planted.kind[happened], minlength=len(KINDS))
        lost += np.bincount(planted.kind[failed], minlength=len(KINDS))
        rows = np.flatnonzero(failed)
        kept.append(jax.tree.map(lambda x, rows=rows: x[rows], planted))
        found += len(rows)
        for row in np.flatnonzero(happened & planted.won)[: max(successes - len(won), 0)]:
            won.append(_episode(jax.tree.map(lambda x, row=row: x[row], planted), str(len(won))))
    planted = jax.tree.map(lambda *x: np.concatenate(x)[:count], *kept)
    shares = dict(zip(KINDS, (lost / np.maximum(tried, 1)).round(3).tolist(), strict=True))
    return Made(_failures(planted), won, shares)


def _failures(planted: Planted) -> Failures:
    count = len(planted.kind)
    episodes = [_episode(jax.tree.map(lambda x, e=e: x[e], planted), str(e)) for e in range(count)]
    lengths = np.minimum(planted.turns, planted.budget)
    decided = np.asarray(
        decisive_step(planted.distance, planted.budget.astype(np.float32), lengths.astype(np.int32))
    )
    none = planted.kind == NONE
    kinds = len(KINDS)
    return Failures(
        planted,
        episodes,
        step_features(episodes, VOCABULARY, SKILLS, turns=TURNS),
        planted.step * kinds + planted.kind,
        np.where(none, 0, np.maximum(decided, 0)) * kinds + planted.kind,
        planted.carried.astype(np.int32),
    )


@functools.lru_cache(maxsize=1 << 16)
def _text(symbols: bytes) -> str:
    return WORLD.text(np.frombuffer(symbols, np.int32).tolist())


def _episode(one: Planted, task: str) -> Episode:
    length = int(min(one.turns, one.budget))
    name = SKILLS[int(one.directive)].name
    goal = WORLD.text(one.game.task.tolist())
    seen = [observation.tobytes().rstrip(b"\0").hex() for observation in one.observations[:length]]
    return Episode(
        task=task,
        goal=goal,
        family=WORLD.type_of(goal),
        arm=0,
        success=bool(one.won),
        step=0,
        actions=tuple(_text(row.astype(np.int32).tobytes()) for row in one.spelled[:length]),
        observations=("", *seen),  # only whether two are the same is looked at
        skills_fired=tuple((name,) if fired else () for fired in one.fired[:length]),
    )
