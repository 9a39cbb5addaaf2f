"""Several runs: which belong together, their means with intervals, how their settings differ."""

import dataclasses
import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from scipy.special import stdtrit

from reskill_jax.report.reading import Run

# Settings that do not make another condition.
_SAME = frozenset({"name", "root", "seed", "keep", "checkpoint_every"})


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
    """Success by step, at the steps that all runs with such evaluations have."""
    lines = [{e["step"]: e for e in run.evaluations(split, mode)} for run in condition.runs]
    lines = [by_step for by_step in lines if by_step]
    if not lines:
        return []
    steps = sorted(set.intersection(*(set(by_step) for by_step in lines)))
    out = []
    for step in steps:
        if len(lines) == 1:
            line = lines[0][step]
            out.append((step, Estimate(line["success"], *line["interval"])))
        else:
            rates = [by_step[step]["success"] for by_step in lines]
            out.append((step, mean_estimate(rates, within=(0.0, 1.0))))
    return out


def metric_curve(
    condition: Condition,
    key: str,
    smooth: Callable[[list[tuple[int, float]]], list[tuple[int, float]]],
) -> list[tuple[int, Estimate]]:
    """A figure of metrics.jsonl by step, smoothed per run, at the steps that all runs have."""
    curves = [dict(smooth(points)) for run in condition.runs if (points := series(run, key))]
    if not curves:
        return []
    within = (0.0, 1.0) if key == "success" else None
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [
        (step, mean_estimate([curve[step] for curve in curves], within=within)) for step in steps
    ]


def series(run: Run, key: str) -> list[tuple[int, float]]:
    """(step, value) where the metrics have one; of a step told twice the last."""
    return sorted({m["step"]: m[key] for m in run.metrics if m.get(key) is not None}.items())


def along_training(condition: Condition, split: str) -> Estimate | None:
    """Success averaged over training (area under the curve by its length)."""
    curve = success_curve(condition, split)
    if len(curve) < 2:
        return None
    last = curve[-1][0]
    areas = []
    for run in condition.runs:
        points = [(e["step"], e["success"]) for e in run.evaluations(split) if e["step"] <= last]
        if points:
            areas.append(_area(points))
    return mean_estimate(areas, within=(0.0, 1.0)) if areas else None


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
    return dict(_flat(run.config))


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
