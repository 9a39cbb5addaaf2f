"""What do versions cost to compare, and how often wrongly, with groups and without? By simulation.

    python experiments/evidence_study.py --quick      # a minute: is everything in place?
    python experiments/evidence_study.py              # goes on where it was stopped
    python experiments/evidence_study.py --report     # the table in docs/algorithms.md alone

Simulates trials of one candidate with the sequential rule of the library and its defaults, for each
kind of `--trial.evidence`: within groups (as GRPO and DPO compare), in pairs (PPO without groups)
and by evaluation batches. A step has 128 rollouts to learn from; difficulties of tasks vary. The
rollouts of an evaluation batch have the same noise in both arms: for how much of their luck that
holds is not known, so there are two rows. Writes experiments/results/evidence_study.json.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from bandit.outcomes import World, rates
from bandit.rules import CHOSEN
from bandit.simulation import Design, horizons_of, results, run_trials
from results_page import table, write_section

ROOT = Path(__file__).resolve().parent.parent
ROLLOUTS = 128  # of a step, to learn from
DIFFERENCES = (-0.1, 0.0, 0.05, 0.1)
STEPS = 16


class Mode(NamedTuple):
    """A kind of evidence."""

    told: str
    groups: int  # tasks that are compared in a step
    group_size: int  # rollouts of each
    extra: int = 0  # of them, rollouts that are not learned from
    coupled: float = 0.0
    floor: float = 0.5  # of assignment; 0.5 = either arm alike


MODES = {
    "within_group": Mode("within groups (GRPO, DPO)", 16, 8, floor=0.3),
    "paired": Mode("in pairs (PPO, groups of one)", 64, 2),
    "evaluation 64, luck apart": Mode("evaluation batch of 64 tasks", 64, 2, 128),
    "evaluation 64, luck shared": Mode("the same, half of the luck shared", 64, 2, 128, 0.5),
    "evaluation 32, luck apart": Mode("evaluation batch of 32 tasks", 32, 2, 64),
}
WORLDS = {
    "30 %, constant": World(0.3, "none", 1.5),
    "30 %, rising by 30 points": World(0.3, "rising", 1.5),
    "60 %, constant": World(0.6, "none", 1.5),
    "30 %, tasks alike": World(0.3, "none", 0.0),
}


def simulate(mode: Mode, world: World, difference: float, *, trials: int, seed: int) -> dict:
    """Share accepted, steps and rollouts of a decision, each with its standard error."""
    world = world._replace(groups=mode.groups, group_size=mode.group_size, coupled=mode.coupled)
    horizons, discount = None, "none"
    if mode.floor < 0.5:  # else the posterior steers nothing
        horizons, discount = horizons_of(world, seed=seed, trials=36), "adaptive"
    design = Design("stratified", mode.floor, discount)
    tried, said, _ = run_trials(world, difference, design, trials, STEPS, (CHOSEN,), seed, horizons)
    found = results(tried, said, rates(world, difference))
    accepted, steps = found["accepted"][0] > 0, found["steps"][0]
    values = {"accepted": accepted, "steps": steps, "extra": mode.extra * steps}
    return {
        name: [float(np.mean(x)), float(np.std(x) / math.sqrt(trials))]
        for name, x in values.items()
    }


def study(path: Path | None, *, trials: int, seed: int) -> dict[str, Any]:
    """All cells; those that the file holds with as many trials are not simulated again."""
    found: dict[str, Any] = {"trials": trials, "seed": seed, "cells": []}
    if path is not None and path.exists():
        kept = json.loads(path.read_text())
        if (kept["trials"], kept["seed"]) == (trials, seed):
            found = kept
    done = {(c["mode"], c["world"], c["difference"]) for c in found["cells"]}
    for number, (world_name, world) in enumerate(WORLDS.items()):
        for mode_name, mode in MODES.items():
            for at, difference in enumerate(DIFFERENCES):
                place = {"mode": mode_name, "world": world_name, "difference": difference}
                if tuple(place.values()) in done:
                    continue
                of_cell = seed + 100 * number + at
                told = simulate(mode, world, difference, trials=trials, seed=of_cell)
                found["cells"].append(place | told)
                print(place, told, flush=True)
                if path is not None:
                    write(path, found)
    return found


def write(path: Path, found: dict[str, Any]) -> None:
    """Replaces the results as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(cell) for cell in found["cells"])
    head = json.dumps({name: value for name, value in found.items() if name != "cells"})[:-1]
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head}, "cells": [\n{lines}\n]}}\n')
    partial.replace(path)


def report(found: dict[str, Any]) -> str:
    """The table, as Markdown."""
    cells = {(c["mode"], c["world"], c["difference"]): c for c in found["cells"]}
    rows = []
    for world in WORLDS:
        for name, mode in MODES.items():
            of = {d: cells.get((name, world, d)) for d in DIFFERENCES}
            if not all(of.values()):
                continue
            accepted = {d: f"{100 * cell['accepted'][0]:.1f}" for d, cell in of.items()}
            share = 100 * mode.extra / ROLLOUTS
            rows.append(
                [
                    f"{world}: {mode.told}",
                    *(accepted[d] for d in DIFFERENCES),
                    *(f"{of[d]['steps'][0]:.1f}" for d in (0.0, 0.1)),
                    *(f"{of[d]['extra'][0]:.0f}" for d in (0.0, 0.1)),
                    f"{share:.0f} %" if share else "none",
                ]
            )
    heads = ["success of the bank in use: evidence"]
    heads += [f"accepts at {round(100 * d):+d}" if d else "at 0" for d in DIFFERENCES]
    heads += ["steps at 0", "at +10", "extra rollouts at 0", "at +10", "share of training's"]
    error = 50 / found["trials"] ** 0.5
    told = (
        f"{found['trials']:,} simulated trials a cell, seed {found['seed']}; standard error of a "
        f"share at most {error:.1f} points. Accepted, in %, by the difference in points."
    )
    return f"{told}\n\n{table(heads, rows)}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few trials, no files")
    parser.add_argument("--trials", type=int, default=10_000, help="of each cell")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", action="store_true", help="only the table of kept results")
    arguments = parser.parse_args()
    path = ROOT / "experiments" / "results" / "evidence_study.json"
    if arguments.report:
        found = json.loads(path.read_text())
    else:
        trials = min(arguments.trials, 200) if arguments.quick else arguments.trials
        found = study(None if arguments.quick else path, trials=trials, seed=arguments.seed)
    text = report(found)
    print(text)
    if not arguments.quick:
        write_section(ROOT / "docs" / "algorithms.md", "evidence", text)


if __name__ == "__main__":
    main()
