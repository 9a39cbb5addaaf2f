"""How often does a trial of two versions of the skills end wrongly? Decision rules by simulation.

    python experiments/bandit_study.py [--quick] [--trials 10000]     # goes on where it was stopped

Simulates trials inside GRPO groups: B groups of G rollouts a step, group difficulties that vary,
a bank in use and a candidate whose success rates differ by a known amount, constant or drifting.
Trials, posteriors, contrasts and decisions are those of reskill_jax.core, vmapped over trials.
Writes experiments/results/bandit_study.json, the figures docs/figures/decision_*.svg and the
tables of docs/decision_rule.md. Two things are not the library's own, for speed: rollouts of a
group are drawn at once, from the exact distribution of its counts (so the library's contrast is
looked up, not added up again), and P(new > old) is a normal approximation of
`probability_best`; the tests compare both with the real ones.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bandit.outcomes import WINDOW, World
from bandit.report import figures, tables_text
from bandit.rules import CHOSEN, MAIN, MEANS, RULES
from bandit.sequences import measured_effects, sequences
from bandit.simulation import DESIGNS, DIFFERENCES, cell, horizons_of
from results_page import write_section

from reskill_jax.devices.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ROOT / "experiments" / "results" / "household_study" / "versions"


def plan(quick: bool) -> list[tuple[str, World, str, tuple[str, ...]]]:
    """(name of the world, world, design, rules) of every row of cells."""
    worlds = {
        f"base {base:.0%}, drift {drift}, spread {spread:g}": World(base, drift, spread)
        for base in (0.3, 0.6)
        for drift in ("none", "rising", "crossing")
        for spread in (0.0, 1.5, 3.0)
    }
    worlds["unequal effects"] = World(unequal=0.1)
    worlds["256 groups of 5"] = World(groups=256, group_size=5)
    usual = [f"base 30%, drift {drift}, spread 1.5" for drift in ("none", "rising", "crossing")]
    if quick:
        worlds = {name: worlds[name] for name in usual}
    rows = []
    for name, world in worlds.items():
        for design in DESIGNS if name in usual else ("reference", "ours"):
            all_rules = name == usual[0] and design in ("reference", "ours")
            many = (*MAIN, "sequential, gain 3") if world.groups > 100 else MAIN
            rows.append((name, world, design, tuple(RULES) if all_rules else many))
    return rows


def study(
    *, trials: int, quick: bool, seed: int = 0, kept: dict | None = None, say: Callable = print
) -> Iterator[dict[str, Any]]:
    """The results after every row of the plan; rows that are in `kept` are not simulated again."""
    memories: dict[tuple, dict] = {}
    fresh = {
        "trials": trials,
        "seed": seed,
        "window": WINDOW,
        "machine": describe_machine(),
        "seconds": 0,
    }
    found = fresh | {"horizons": {}, "cells": []}
    same = ("trials", "seed", "window")
    if kept is not None and all(kept[name] == found[name] for name in same):
        found = kept
    done = {(c["world"], c["design"]) for c in found["cells"]}
    started = time.perf_counter() - found["seconds"]
    rows = plan(quick)
    for number, (name, world, design, rules) in enumerate(rows):
        if (name, design) in done:
            continue
        kind = (world.drift, world.group_size)
        if kind not in memories:
            usual = World(drift=world.drift, groups=world.groups, group_size=world.group_size)
            memories[kind] = horizons_of(usual, seed=seed, trials=36 if quick else 160)
            found["horizons"][f"{world.drift}, groups of {world.group_size}"] = {
                "adaptive": np.quantile(memories[kind]["adaptive"], [0.1, 0.5, 0.9]).tolist(),
                "exact": memories[kind]["exact"],
            }
        for at, difference in enumerate(DIFFERENCES):
            values = cell(
                world,
                difference,
                DESIGNS[design],
                trials=trials,
                rules=rules,
                seed=seed + 1000 * number + at,
                horizons=memories[kind],
            )
            place = {"world": name, "design": design, "difference": difference}
            found["cells"] += [place | {"rule": rule} | values[rule] for rule in rules]
        found["seconds"] = round(time.perf_counter() - started)
        say(f"{number + 1}/{len(rows)} rows, {found['seconds']} s: {name}; {design}", flush=True)
        yield found
    if "sequences" not in found:
        found["sequences"] = sequence_cell(trials, quick=quick, seed=seed)
        found["seconds"] = round(time.perf_counter() - started)
        yield found


def sequence_cell(trials: int, *, quick: bool, seed: int) -> dict[str, Any]:
    """Ten proposals one after another, with the effects that proposals of stored runs had."""
    effects = measured_effects(VERSIONS)
    rules = {"reference": (MEANS,), "ours": (CHOSEN, "sequential, gain 6", "sequential, gain 10")}
    found: dict[str, Any] = {"effects": effects, "rows": []}
    for drift in ("none", "rising"):
        world = World(drift=drift)
        memory = horizons_of(world, seed=seed, trials=36 if quick else 160)
        for design, names in rules.items():
            told = sequences(
                world,
                effects,
                DESIGNS[design],
                trials=trials,
                rules=names,
                seed=seed + 500_000,
                horizons=memory,
            )
            found["rows"] += [
                {"drift": drift, "design": design, "rule": rule} | told[rule] for rule in names
            ]
    return found


def write(path: Path, found: dict) -> None:
    """Replaces the results as a whole, so that a run that is stopped can go on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = [
        {k: [float(f"{x:.5g}") for x in v] if isinstance(v, list) else v for k, v in cell.items()}
        for cell in found["cells"]
    ]
    lines = ",\n".join(json.dumps(cell) for cell in rounded)
    head = json.dumps({k: v for k, v in found.items() if k != "cells"})[:-1]
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head}, "cells": [\n{lines}\n]}}\n')
    partial.replace(path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few trials, three worlds, no files")
    parser.add_argument("--trials", type=int, help="per cell; default 10000, quick 500")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="do not go on from kept results")
    parser.add_argument("--draw", action="store_true", help="tables and figures of kept results")
    arguments = parser.parse_args()
    path = ROOT / "experiments" / "results" / "bandit_study.json"
    if arguments.draw:
        found = json.loads(path.read_text())
    else:
        trials = arguments.trials or (500 if arguments.quick else 10_000)
        kept = None
        if path.exists() and not (arguments.quick or arguments.fresh):
            kept = json.loads(path.read_text())
        found = kept
        for found in study(trials=trials, quick=arguments.quick, seed=arguments.seed, kept=kept):
            if not arguments.quick:
                write(path, found)
    text = tables_text(found)
    print(text)
    if arguments.quick:
        return
    figures(found, ROOT / "docs" / "figures")
    write_section(ROOT / "docs" / "decision_rule.md", "tables", text)


if __name__ == "__main__":
    main()
