"""Statistics of repeated runs: pure functions of numpy arrays.

Runs of one seed play the same games under every condition, so conditions are compared by paired
differences. With eight seeds the percentiles of a bootstrap are too narrow (a resample of n values
has n - 1 of n of their variance, and no heavier tails), so the t interval is the one to read; the
bootstrap is given beside it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 10_000
LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean over runs with its 95 % intervals; nan where one run says nothing of the spread."""

    mean: float
    low: float  # t interval
    high: float
    bootstrap_low: float
    bootstrap_high: float
    runs: int


def bootstrap_interval(
    values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Percentile interval of the mean over resampled runs; the same seed gives the same interval.

    Raises:
      ValueError: no values.
    """
    sample = np.asarray(values, float)
    if not sample.size:
        raise ValueError("no runs to resample")
    drawn = np.random.default_rng(seed).integers(0, sample.size, (resamples, sample.size))
    low, high = np.quantile(sample[drawn].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def t_interval(values: Sequence[float], *, level: float = LEVEL) -> tuple[float, float]:
    """Student's interval of the mean; (nan, nan) for a single run."""
    sample = np.asarray(values, float)
    if sample.size < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf((1 + level) / 2, sample.size - 1) * sample.std(ddof=1) / sample.size**0.5
    return float(sample.mean() - half), float(sample.mean() + half)


def estimate(values: Sequence[float]) -> Estimate:
    """The mean over runs, with both intervals."""
    return Estimate(
        float(np.mean(values)), *t_interval(values), *bootstrap_interval(values), len(values)
    )


def paired(one: Mapping[int, float], other: Mapping[int, float]) -> Estimate | None:
    """`one` - `other` over the seeds that both have; None if there is none."""
    seeds = sorted(set(one) & set(other))
    return estimate([one[s] - other[s] for s in seeds]) if seeds else None


def area(steps: Sequence[float], values: Sequence[float], *, until: float | None = None) -> float:
    """The mean height of a curve by the trapezoid rule: area under it / its length.

    Args:
      steps: increasing.
      values: one for each step.
      until: where to stop, between steps by interpolation; the last step if not given.

    Raises:
      ValueError: fewer than two points, or `until` not inside.
    """
    x, y = np.asarray(steps, float), np.asarray(values, float)
    if x.size < 2 or x.shape != y.shape:
        raise ValueError(f"a curve needs two points or more, got {x.size}")
    end = x[-1] if until is None else float(until)
    if not x[0] < end <= x[-1]:
        raise ValueError(f"{end} does not lie in ({x[0]}, {x[-1]}]")
    y = np.append(y[x < end], np.interp(end, x, y))
    x = np.append(x[x < end], end)
    return float(np.sum((y[1:] + y[:-1]) / 2 * np.diff(x)) / (x[-1] - x[0]))


def steps_to(steps: Sequence[float], values: Sequence[float], level: float) -> float:
    """The first step at which a curve reaches a level, interpolated; inf if it never does."""
    x, y = np.asarray(steps, float), np.asarray(values, float)
    reached = np.flatnonzero(y >= level)
    if not reached.size:
        return float("inf")
    i = int(reached[0])
    if i == 0:
        return float(x[0])
    share = (level - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


class GameDifference(NamedTuple):
    """Two versions on the same games: the difference in success rate, and its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """`helpful`, `harmful`, or `neutral` where the interval holds 0."""
        return "helpful" if self.low > 0 else "harmful" if self.high < 0 else "neutral"


def game_difference(gained: int, lost: int, games: int) -> GameDifference:
    """The difference of two versions that played the same games.

    Wald's interval of paired proportions, with half a game added to `gained` and `lost` each (a
    difference of nothing at all is not known with certainty).

    Args:
      gained: games that only the new version won.
      lost: games that only the old version won.
      games: played.

    Raises:
      ValueError: more games decided than played, or none.
    """
    if games < 1 or min(gained, lost) < 0 or gained + lost > games:
        raise ValueError(f"{gained} games gained and {lost} lost of {games}")
    difference = (gained - lost) / games
    spread = (gained + lost + 1 - (gained - lost) ** 2 / games) ** 0.5 / games
    z = float(stats.norm.ppf((1 + LEVEL) / 2))
    return GameDifference(difference, difference - z * spread, difference + z * spread)
