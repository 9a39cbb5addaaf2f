"""Tables and figures of the main comparison: every condition against plain GRPO."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import table

from . import figures
from .results import (
    BASELINE,
    METHOD,
    NAMES,
    SPLITS,
    Results,
    bootstrap,
    by_condition,
    context_tokens,
    curve,
    final,
    mean_curve,
    mode_of,
    over_seeds,
    percent,
    processor,
    ratio,
    step_seconds,
)
from .statistics import Estimate, area, estimate, paired, steps_to

_NOTES = (
    "Success in per cent with 95 % intervals over seeds (Student's t; the bootstrap's percentiles "
    "are too narrow for so few runs and stand beside). *Along training*: area under the curve, "
    "divided by its length. *Steps to GRPO's end*: where the mean unseen curve first reaches "
    "GRPO's final success. Context and step time relative to GRPO; step times only of pairs that "
    "were run on the same kind of processor."
)


def success_table(results: Results) -> str:
    """Success and costs of every condition."""
    base = results.get(BASELINE, {})
    goal = float(np.mean([final(one, "unseen") for one in base.values()])) if base else None
    head = ["condition", "runs", "seen", "unseen", "seen, along training", "unseen, along training"]
    return table(
        [*head, "steps to GRPO's end", "context", "step time"],
        [
            [
                NAMES[condition],
                str(len(runs)),
                *(percent(estimate([final(r, s) for r in runs.values()])) for s in SPLITS),
                *(f"{100 * _mean_area(runs, split):.1f}" for split in SPLITS),
                "–" if goal is None else _reached(runs, goal),
                ratio(over_seeds(runs, context_tokens), over_seeds(base, context_tokens)),
                _step_ratio(runs, base),
            ]
            for condition, runs in results.items()
        ],
    )


def _mean_area(runs: Mapping[int, Mapping[str, Any]], split: str) -> float:
    return float(np.mean([area(*curve(one, split)) for one in runs.values()]))


def _reached(runs: Mapping[int, Mapping[str, Any]], goal: float) -> str:
    steps, means = mean_curve(runs, "unseen")
    at = steps_to(steps, [one.mean for one in means], goal)
    return "never" if at == float("inf") else f"{at:.0f}"


def _step_ratio(runs: Mapping[int, Mapping[str, Any]], base: Mapping[int, Mapping]) -> str:
    alike = {
        seed: run
        for seed, run in runs.items()
        if seed in base and processor(run) == processor(base[seed])
    }
    return ratio(over_seeds(alike, step_seconds), over_seeds(base, step_seconds))


def difference_table(results: Results) -> str:
    """Every condition less GRPO, and the full method less every condition; "" without GRPO."""
    base, method = results.get(BASELINE, {}), results.get(METHOD, {})
    rows = []
    for condition, runs in results.items():
        if condition == BASELINE or not base:
            continue
        seen, unseen = (_difference(runs, base, split) for split in SPLITS)
        areas = paired(
            over_seeds(runs, lambda r: area(*curve(r, "unseen"))),
            over_seeds(base, lambda r: area(*curve(r, "unseen"))),
        )
        row = [NAMES[condition], str(unseen.runs if unseen else 0)]
        row += [percent(seen, signed=True), percent(unseen, signed=True), bootstrap(unseen)]
        row += [percent(areas, signed=True)]
        other = None if condition == METHOD else _difference(method, runs, "unseen")
        rows.append([*row, percent(other, signed=True)])
    if not rows:
        return ""
    head = ["less GRPO, paired", "pairs", "seen", "unseen", "unseen, bootstrap"]
    return table([*head, "unseen, along training", "ReSkill less it, unseen"], rows)


def _difference(
    one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]], split: str
) -> Estimate | None:
    return paired(
        over_seeds(one, lambda r: final(r, split)), over_seeds(other, lambda r: final(r, split))
    )


def by_task_type(results: Results) -> str:
    """Where the difference to GRPO comes from: unseen success at the end by kind of task."""
    base, method = results.get(BASELINE, {}), results.get(METHOD, {})
    seeds = sorted(set(base) & set(method))
    if not seeds:
        return ""

    def rates(result: Mapping[str, Any]) -> dict[str, float]:
        steps = [line["step"] for line in result["evaluations"]]
        return {
            kind: won / played
            for line in result["evaluations"]
            if (line["step"], line["split"], line["mode"])
            == (max(steps), "unseen", mode_of(result))
            for kind, (won, played) in line["by_task_type"].items()
            if played
        }

    ends = {seed: (rates(base[seed]), rates(method[seed])) for seed in seeds}
    rows = []
    for kind in ends[seeds[0]][0]:
        if not all(kind in one for pair in ends.values() for one in pair):
            continue  # too few games to have met it in every run
        grpo = {seed: ends[seed][0][kind] for seed in seeds}
        ours = {seed: ends[seed][1][kind] for seed in seeds}
        told = [percent(estimate(list(one.values()))) for one in (grpo, ours)]
        rows.append([kind.replace("_", " "), *told, percent(paired(ours, grpo), signed=True)])
    return table(["kind of task (unseen, at the end)", "GRPO", "ReSkill", "difference"], rows)


def forest(results: Results) -> dict[str, dict[str, Estimate]]:
    """Condition -> split -> paired difference to GRPO at the end."""
    base = results.get(BASELINE, {})
    found: dict[str, dict[str, Estimate]] = {}
    for condition, runs in results.items():
        for split in SPLITS:
            difference = _difference(runs, base, split)
            if condition != BASELINE and difference is not None:
                found.setdefault(NAMES[condition], {})[f"{split} tasks, at the end"] = difference
    return found


def write_main(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """Draws the figures into a folder; returns the tables and the figures' names."""
    found = by_condition(results)
    shown = [c for c in (BASELINE, METHOD) if c in found]
    curves = {
        split: {NAMES[c]: mean_curve(found[c], split) for c in shown or list(found)}
        for split in SPLITS
    }
    names = [figures.learning_curves(curves, folder / "household_study_curves.svg")]
    differences = forest(found)
    if differences:
        names.append(figures.forest(differences, folder / "household_study_differences.svg"))
    parts = [success_table(found), difference_table(found), _NOTES, by_task_type(found)]
    return "\n\n".join(part for part in parts if part), names
