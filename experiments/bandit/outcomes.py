"""Worlds of the bandit study, as tables of what a group of rollouts can show, with chances."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.core.contrast import within_group_contrast

WINDOW = 40  # steps over which regret is counted: the trial, then the version chosen
DRIFT = 16  # steps a drift takes


class World(NamedTuple):
    """What is to be found out about. Rates are means over groups."""

    base: float = 0.3  # success rate with the bank in use, at the first step
    drift: str = "none"  # "rising": both rates by 30 points; "crossing": from -difference to it
    spread: float = 1.5  # standard deviation of the logit of a group's success rate
    unequal: float = 0.0  # the difference is this much larger in half of the groups, or smaller
    groups: int = 16
    group_size: int = 8
    coupled: float = 0.0  # of pairs: chance that the two meet the same luck, not luck of their own


def rates(world: World, difference: float, steps: int = WINDOW) -> np.ndarray:
    """[steps, 2] mean success rates of the bank in use and the candidate."""
    passed = np.minimum(np.arange(steps) / DRIFT, 1)
    old = np.full(steps, world.base)
    if world.drift == "rising":
        old = old + 0.3 * passed
    elif world.drift == "crossing":
        difference = difference * (2 * passed - 1)
    return np.stack([old, np.clip(old + difference, 0.005, 0.995)], axis=1)


class Outcomes(NamedTuple):
    """What a group can show, n1 of its G rollouts having the candidate. At most M outcomes."""

    chance: np.ndarray  # [G + 1, M] float: of the alias method, to keep the outcome drawn
    alias: np.ndarray  # [G + 1, M] int, the outcome otherwise


@functools.cache
def group_outcomes(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(s1, s0) of every outcome [G + 1, M, 2], whether it exists [G + 1, M], statistics [., ., 5].

    The statistics: s1, s0, and the score, weight and variance of the library's contrast.
    """
    width = max((n + 1) * (size - n + 1) for n in range(size + 1))
    wins = np.zeros((size + 1, width, 2), int)
    exists = np.zeros((size + 1, width), bool)
    for new in range(size + 1):
        pairs = [(a, b) for a in range(new + 1) for b in range(size - new + 1)]
        wins[new, : len(pairs)] = pairs
        exists[new, : len(pairs)] = True
    place = np.arange(size)
    arms = np.broadcast_to((place < np.arange(size + 1)[:, None]).astype(int), (size + 1, size))
    arms = np.broadcast_to(arms[:, None], (size + 1, width, size))
    nth = np.where(arms == 1, place, place - np.arange(size + 1)[:, None, None])
    success = nth < np.where(arms == 1, wins[..., :1], wins[..., 1:])
    compare = functools.partial(within_group_contrast, num_arms=2)
    each = jax.jit(jax.vmap(lambda a, s: compare(a[None], s[None], jnp.ones_like(s)[None])))
    found = each(arms.reshape(-1, size), success.reshape(-1, size))
    found = np.stack([np.asarray(x)[:, 1].reshape(exists.shape) for x in found], axis=-1)
    return wins, exists, np.concatenate([wins, found], axis=-1).astype(np.float32)


def _binomial(size: int, rate: np.ndarray) -> np.ndarray:
    """[..., n, k] probabilities of k of n = 0..size."""
    coefficients = np.array([[math.comb(n, k) for k in range(size + 1)] for n in range(size + 1)])
    k = np.arange(size + 1)
    failures = np.maximum(k[:, None] - k[None, :], 0)
    rate = np.asarray(rate)[..., None, None]
    return coefficients * rate**k * (1 - rate) ** failures


def _same_luck(old: np.ndarray, new: np.ndarray, wins: np.ndarray) -> np.ndarray:
    """[points, M] chances of (s1, s0) [M, 2] where one draw decides both rollouts of a pair."""
    both, either = np.minimum(old, new), np.maximum(old, new)
    only_new, only_old = either - old, either - new
    of_wins = np.stack([np.stack([1 - either, only_old], 1), np.stack([only_new, both], 1)], 1)
    return of_wins[:, np.minimum(wins[:, 0], 1), np.minimum(wins[:, 1], 1)]


def outcome_probabilities(world: World, old: float, new: float) -> np.ndarray:
    """[G + 1, M] exact probabilities of a group's outcomes, its difficulty averaged over."""
    points, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    grid = np.linspace(-20, 20, 2001)
    means = (weights / (1 + np.exp(-(grid[:, None] + world.spread * points)))).sum(1)
    size = world.group_size
    wins, exists, _ = group_outcomes(size)
    n = np.arange(size + 1)[:, None]
    total = np.zeros(exists.shape)
    for sign in (-1, 1) if world.unequal else (0,):
        other = np.clip(new + sign * world.unequal, 0.005, 0.995)
        logits = (np.interp(rate, means, grid) + world.spread * points for rate in (old, other))
        a, b = (_binomial(size, 1 / (1 + np.exp(-logit))) for logit in logits)
        chance = b[:, n, wins[..., 0]] * a[:, size - n, wins[..., 1]]  # [points, G + 1, M]
        if world.coupled:
            together = _same_luck(a[:, 1, 1], b[:, 1, 1], wins[1])
            chance[:, 1] += world.coupled * (together - chance[:, 1])
        total += np.tensordot(weights, chance, 1) / (2 if world.unequal else 1)
    return np.where(exists, total, 0)


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method: draw a place uniformly, keep it with `chance`, else take `alias`."""
    size = len(probabilities)
    left = probabilities / probabilities.sum() * size
    chance, alias = np.ones(size), np.arange(size)
    small = [i for i in range(size) if left[i] < 1]
    large = [i for i in range(size) if left[i] >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        chance[low], alias[low] = left[low], high
        left[high] -= 1 - left[low]
        if left[high] < 1:
            small.append(large.pop())
    return chance, alias


def tables(world: World, difference: float, steps: int) -> Outcomes:
    """[steps, G + 1, M]: outcomes at every step."""
    of_step = rates(world, difference, steps)
    made: dict[tuple, tuple] = {}
    for old, new in of_step:
        if (old, new) not in made:
            rows = [alias_table(row) for row in outcome_probabilities(world, old, new)]
            made[old, new] = tuple(np.stack(x) for x in zip(*rows))
    chance, alias = zip(*(made[old, new] for old, new in of_step))
    return Outcomes(np.stack(chance).astype(np.float32), np.stack(alias).astype(np.int32))
