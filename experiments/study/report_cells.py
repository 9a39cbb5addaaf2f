"""Tables and figures of the studies frozen and map."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import table

from . import figures
from .results import (
    BASELINE,
    METHOD,
    SPLITS,
    by_condition,
    curve,
    early,
    final,
    mean_curve,
    over_seeds,
    percent,
)
from .statistics import Estimate, estimate, paired

_ROOMS = ("tiny", "small", "medium", "large")


def _group(results: Sequence[dict[str, Any]], *keys: str) -> dict[tuple[str, ...], list]:
    found: dict[tuple[str, ...], list] = {}
    for one in sorted(results, key=lambda result: _ROOMS.index(result["variant"]["world"])):
        found.setdefault(tuple(one["variant"][key] for key in keys), []).append(one)
    return dict(sorted(found.items(), key=lambda item: item[0][:-1]))  # stable: rooms by size


def write_frozen(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """Draws the figures into a folder; returns the tables and the figures' names."""
    rows, curves = [], {}
    for (world,), runs in _group(results, "world").items():
        by_seed = {one["seed"]: one for one in runs}
        for split in SPLITS:
            with_skills = over_seeds(by_seed, lambda r, s=split: final(r, s, "bank"))
            without = over_seeds(by_seed, lambda r, s=split: final(r, s, "none"))
            rows.append(
                [
                    f"{world}, {split}",
                    str(len(runs)),
                    percent(estimate(list(without.values()))),
                    percent(estimate(list(with_skills.values()))),
                    percent(paired(with_skills, without), signed=True),
                ]
            )
            curves.setdefault(world, {})[split] = mean_curve(by_seed, split)
    head = ["rooms, split", "runs", "frozen policy", "with its skills", "difference"]
    text = table(head, rows)
    text += "\n\nThe weights never change; only the skills do. Success in per cent, with 95 % t "
    text += "intervals over seeds (they tell how runs differ; the games are the same in all)."
    return text, [figures.frozen(curves, folder / "household_study_frozen.svg")]


def write_map(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """Draws the figures into a folder; returns the tables and the figures' names."""
    rows: list[list[str]] = []
    found: dict[str, dict[str, Estimate]] = {}
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        by_cell.setdefault(one["variant"]["cell"], []).append(one)
    for cell in sorted(by_cell, key=lambda name: (name != "default", name)):
        runs = by_condition(by_cell[cell])
        base, method = runs.get(BASELINE, {}), runs.get(METHOD, {})
        start = [curve(one, "unseen")[1][0] for one in base.values()]
        end = [final(one, "unseen") for one in base.values()]
        row = [cell.replace("-", " ", 1).replace("_", " ")]
        row += [f"{100 * np.mean(values):.0f}" if values else "–" for values in (start, end)]
        for when, measure in (("early", early), ("end", final)):
            for split in SPLITS:
                difference = paired(
                    over_seeds(method, lambda r, m=measure, s=split: m(r, s)),
                    over_seeds(base, lambda r, m=measure, s=split: m(r, s)),
                )
                row.append(percent(difference, signed=True))
                if difference is not None and split == "unseen":
                    found.setdefault(row[0], {})[f"unseen, {when}"] = difference
        rows.append([*row, str(len(set(base) & set(method)))])
    head = ["what is changed", "start", "GRPO's end", "seen, early", "unseen, early"]
    text = table([*head, "seen, end", "unseen, end", "pairs"], rows)
    text += "\n\nReSkill less GRPO, paired over seeds, in points. *Start* and *GRPO's end*: its "
    text += "unseen success, per cent. *Early*: area under the first third of the curve."
    if not found:
        return text, []
    return text, [figures.forest(found, folder / "household_study_map.svg")]
