"""The table of the published games: success of the study's policies by split, against GRPO."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results_page import table

from .published import START
from .results import BASELINE, NAMES, over_seeds, percent
from .statistics import estimate, paired

_ALL = "all"
_NOTES = (
    "Success in per cent, each game once, greedily, at most {turns} turns; differences in points, "
    "paired over seeds, with Student's 95 % intervals over seeds: all policies play the same "
    "games, so the intervals say how runs differ, and not how another set of games would."
)


def success(result: Mapping[str, Any], split: str, mode: str) -> float:
    """Success of a policy on a split, or on all games."""
    lines = [
        line for line in result["lines"] if line["mode"] == mode and split in (_ALL, line["split"])
    ]
    return sum(line["successes"] for line in lines) / sum(line["episodes"] for line in lines)


def write_published(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """The tables; there is no figure."""
    runs: dict[str, dict[int, dict[str, Any]]] = {}
    for one in results:
        runs.setdefault(one["condition"], {})[one["seed"]] = one
    base = runs.get(BASELINE, {})
    lines = results[0]["lines"]
    games = {line["split"]: line["episodes"] for line in lines if line["mode"] == "none"}
    splits = [*games, _ALL]
    games[_ALL] = sum(games.values())
    rows, gains = [], []
    for condition in (START, *NAMES):
        for mode, words in (("bank", ""), ("none", ", without its skills")):
            found = runs.get(condition, {})
            if not found or (mode == "bank" and condition in (START, BASELINE)):
                continue
            name = "at the start" if condition == START else NAMES[condition]
            name += words if condition not in (START, BASELINE) else ""
            reached = {
                split: over_seeds(found, lambda r, s=split, m=mode: success(r, s, m))
                for split in splits
            }
            cells = [percent(estimate(list(reached[split].values()))) for split in splits]
            rows.append([name, str(len(found)), *cells])
            if condition in (START, BASELINE):
                continue
            less = [
                paired(reached[split], over_seeds(base, lambda r, s=split: success(r, s, "none")))
                for split in splits
            ]
            if less[0] is not None:
                told = [percent(one, signed=True) for one in less]
                gains.append([name, str(less[0].runs), *told])
    head = [f"{split} ({games[split]} games)" for split in splits]
    tables = [table(["", "policies", *head], rows)]
    if gains:
        tables.append(table(["less GRPO", "pairs", *head], gains))
    return "\n\n".join([*tables, _NOTES.format(turns=results[0]["turns"])]), []
