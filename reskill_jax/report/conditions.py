"""Several runs: which belong together, their means with intervals, how their settings differ."""

import dataclasses
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from scipy.special import stdtrit

from reskill_jax.report.reading import Run

T = TypeVar("T")

# Settings that do not make another condition.
_SAME = frozenset({"name", "root", "seed", "keep", "checkpoint_every", "provenance"})


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A value with an interval.

    One run: the Wilson interval over its episodes. Two: the lower and the higher of them. Three or
    more: Student's 95 % interval of the mean over runs.
    """

    value: float
    low: float | None  # None = there is no interval
    high: float | None
    runs: int = 1


@dataclasses.dataclass(frozen=True)
class Condition:
    """Runs that differ in nothing but the seed."""

    letter: str
    name: str
    runs: tuple[Run, ...]
    index: int

    @property
    def label(self) -> str:
        """Letter and name."""
        return f"{self.letter} {self.name}"

    @property
    def seeds(self) -> list[Any]:
        """Of the runs, in their order."""
        return [run.config.get("seed") for run in self.runs]


def group_runs(runs: Sequence[Run]) -> list[Condition]:
    """Puts runs of equal settings together, in the order of their first run.

    A run without a readable configuration stays alone.
    """
    groups: dict[str, list[Run]] = {}
    for number, run in enumerate(runs):
        settings = {key: value for key, value in run.config.items() if key not in _SAME}
        key = json.dumps(settings, sort_keys=True, default=str) if run.config else f"#{number}"
        groups.setdefault(key, []).append(run)
    conditions: list[Condition] = []
    for index, members in enumerate(groups.values()):
        letter = chr(ord("A") + index) if index < 26 else str(index + 1)
        name = _common_name([run.name for run in members])
        taken = {condition.name for condition in conditions}
        if name in taken:
            name = next(f"{name} ({n})" for n in range(2, 10**6) if f"{name} ({n})" not in taken)
        conditions.append(Condition(letter, name, tuple(members), index))
    return conditions


def _common_name(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    prefix = os.path.commonprefix(list(names))
    return re.sub(r"([-_. ]+(seed|s)?[-_.]?\d*|\d+)$", "", prefix).rstrip("-_. ") or names[0]


def mean_estimate(
    values: Sequence[float], *, within: tuple[float, float] | None = None
) -> Estimate:
    """The mean over runs; `within` holds the interval inside of what is possible."""
    mean, count = statistics.fmean(values), len(values)
    if count == 1:
        return Estimate(mean, None, None)
    if count == 2:
        return Estimate(mean, min(values), max(values), 2)
    half = float(stdtrit(count - 1, 0.975)) * statistics.stdev(values) / math.sqrt(count)
    low, high = mean - half, mean + half
    if within is not None:
        low, high = max(low, within[0]), min(high, within[1])
    return Estimate(mean, low, high, count)


def success_curve(
    condition: Condition, split: str, mode: str = "bank"
) -> list[tuple[int, Estimate]]:
    """Success by step. Runs that stopped early are left out if that keeps more evaluations."""
    lines = _comparable(condition, split, mode)
    out = []
    for step in sorted(lines[0]) if lines else ():
        if len(lines) == 1:
            line = lines[0][step]
            out.append((step, Estimate(line["success"], *line["interval"])))
        else:
            rates = [by_step[step]["success"] for by_step in lines]
            out.append((step, mean_estimate(rates, within=(0.0, 1.0))))
    return out


def _comparable(condition: Condition, split: str, mode: str) -> list[dict[int, dict[str, Any]]]:
    """Evaluations by step of the runs that a mean is taken of."""
    return most_data([{e["step"]: e for e in r.evaluations(split, mode)} for r in condition.runs])


def most_data(curves: Sequence[dict[int, T]]) -> list[dict[int, T]]:
    """Curves over common steps: those curves and steps that leave most values.

    A run that stopped early would cut all others short; one that is ahead would stand alone. Of
    equals the choice with more curves.
    """
    best: list[dict[int, T]] = []
    for last in sorted({max(curve) for curve in curves if curve}, reverse=True):
        kept = [curve for curve in curves if curve and max(curve) >= last]
        common = set.intersection(*({s for s in curve if s <= last} for curve in kept))
        if common and len(kept) * len(common) >= len(best) * (len(best[0]) if best else 0):
            best = [{step: curve[step] for step in common} for curve in kept]
    return best


def metric_curve(
    condition: Condition,
    key: str,
    smooth: Callable[[list[tuple[int, float]]], list[tuple[int, float]]],
) -> list[tuple[int, Estimate]]:
    """A figure of metrics.jsonl by step, smoothed per run; runs are chosen as in success_curve."""
    curves = most_data([dict(smooth(series(run, key))) for run in condition.runs])
    within = (0.0, 1.0) if key == "success" else None
    return [
        (step, mean_estimate([curve[step] for curve in curves], within=within))
        for step in (sorted(curves[0]) if curves else ())
    ]


def series(run: Run, key: str) -> list[tuple[int, float]]:
    """(step, value) where the metrics have one; of a step told twice the last."""
    return sorted({m["step"]: m[key] for m in run.metrics if m.get(key) is not None}.items())


def along_training(condition: Condition, split: str) -> Estimate | None:
    """Success averaged over training (area under the curve by its length)."""
    lines = _comparable(condition, split, "bank")
    if not lines or len(lines[0]) < 2:
        return None
    areas = [_area([(step, by[step]["success"]) for step in sorted(by)]) for by in lines]
    return mean_estimate(areas, within=(0.0, 1.0))


def _area(points: Sequence[tuple[int, float]]) -> float:
    pairs = list(zip(points, points[1:], strict=False))
    total = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in pairs)
    span = points[-1][0] - points[0][0]
    return total / span if span else points[-1][1]


def difference(first: Condition, other: Condition, split: str) -> tuple[int, Estimate] | None:
    """Success of `other` minus `first` at the last step both have, paired by seed.

    With one pair the interval is Newcombe's for two independent proportions, made of the two
    Wilson intervals; else as in Estimate, over the differences of the pairs.
    """
    curves = [dict(success_curve(condition, split)) for condition in (first, other)]
    steps = set(curves[0]) & set(curves[1])
    if not steps:
        return None
    step = max(steps)
    by_seed = [_at_step(condition, split, step) for condition in (first, other)]
    pairs = [(by_seed[0][seed], by_seed[1][seed]) for seed in by_seed[0] if seed in by_seed[1]]
    if not pairs and len(first.runs) == len(other.runs) == 1:
        pairs = [(a, b) for a in by_seed[0].values() for b in by_seed[1].values()]
    if not pairs:
        return None
    gains = [_rate(b) - _rate(a) for a, b in pairs]
    if len(pairs) > 1:
        return step, mean_estimate(gains, within=(-1.0, 1.0))
    a, b = pairs[0][0][-1], pairs[0][1][-1]
    down = math.hypot(b["success"] - b["interval"][0], a["interval"][1] - a["success"])
    up = math.hypot(b["interval"][1] - b["success"], a["success"] - a["interval"][0])
    return step, Estimate(gains[0], gains[0] - down, gains[0] + up)


def _at_step(condition: Condition, split: str, step: int) -> dict[str, list[dict[str, Any]]]:
    """Seed -> the evaluations of its runs at a step."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in condition.runs:
        for line in run.evaluations(split):
            if line["step"] == step:
                found.setdefault(json.dumps(run.config.get("seed")), []).append(line)
    return found


def _rate(lines: Sequence[dict[str, Any]]) -> float:
    return statistics.fmean(line["success"] for line in lines)


def settings(run: Run) -> dict[str, str]:
    """The configuration with nested names joined by dots."""
    return dict(_flat({k: v for k, v in run.config.items() if k != "provenance"}))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def differing_settings(
    conditions: Sequence[Condition],
) -> tuple[list[tuple[str, list[str]]], list[tuple[str, str]]]:
    """(settings that differ: name and a value per condition; settings that all share)."""
    tables = [settings(condition.runs[0]) for condition in conditions]
    names = list(dict.fromkeys(name for table in tables for name in table))
    differing, shared = [], []
    for name in names:
        if name in _SAME:
            continue
        values = [table.get(name, "–") for table in tables]
        if len(set(values)) > 1:
            differing.append((name, values))
        else:
            shared.append((name, values[0]))
    return differing, shared
