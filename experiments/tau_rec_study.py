"""Does skill evolution beside GRPO pay in tau-Rec's menu? Compared at equal rollouts and steps.

    python experiments/tau_rec_study.py                       # trains, evaluates, tells
    python experiments/tau_rec_study.py --data FOLDER         # ... on the benchmark's tasks as well
    python experiments/tau_rec_study.py --report              # tells what there is

Three conditions, the same model at the start and the same tasks for runs of one seed: GRPO alone,
GRPO and skills, and skills with the policy frozen. Every run is evaluated on unseen tasks of our
own (another catalog), and on the benchmark's 60 tasks, four trials each, with the scripted user:
figures that do not compare with the benchmark's leaderboard. The model at the start, which is also
`frozen` without its skills, is played once. The settings were chosen on seed 0. Each run is a JSON
file; those that exist are not made again, and a run that was interrupted goes on.
"""

import argparse
import json
import math
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from study.statistics import t_interval
from tau_rec_model import make_model

from reskill_jax.devices.compilation_cache import keep_compiled_programs
from reskill_jax.evaluation.replay import evaluate_run, load_run
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig, replace

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results" / "tau_rec_study"
MODEL = ROOT / "policies" / "tau_rec"  # which tau_rec_model.py made
CONDITIONS: dict[str, dict[str, Any]] = {
    "start": {"skills": False, "policy_until": 0, "steps": 1},
    "grpo": {"skills": False},
    "reskill": {},
    "frozen": {"policy_until": 0},
}
MODES = {"reskill": ("bank", "none"), "frozen": ("bank",)}  # with skills, and without
TRIALS = 4


def config_of(
    condition: str, seed: int, *, model: Path, folder: Path, steps: int, rate: float = 5e-5
) -> TrainConfig:
    """The run of a condition."""
    base = replace(
        TrainConfig(),
        name=f"{condition}-{seed}",
        root=str(folder),
        seed=seed,
        steps=steps,
        world="tau_rec",
        model=dict(path=str(model)),
        max_turns=12,
        context_length=384,
        groups=8,
        group_size=8,
        eval_every=0,
        eval_tasks=8,  # it is evaluated below
        optimizer=dict(learning_rate=rate, final_learning_rate=rate, microbatch=16),
        prompt=dict(answer_tokens=4),
        creator=dict(trigger_rate=0.1),
        sessions=dict(workers=0),
    )
    return replace(base, **CONDITIONS[condition])


def run(
    config: TrainConfig, condition: str, data: Path | None, *, tasks: int = 60
) -> dict[str, Any]:
    """Trains, or goes on, and evaluates."""
    folder, began = Path(config.root) / config.name, time.perf_counter()
    with open(os.devnull, "w") as nowhere:
        quiet = Console(file=nowhere)
        resume = any((folder / "checkpoints").glob("*"))
        if not resume and folder.exists():
            shutil.rmtree(folder)
        loop.train(config, resume=resume, console=quiet)
        played = {"unseen": None} | ({} if data is None else {"benchmark": data})
        lines = {}
        for where, games in played.items():
            found = evaluate_run(
                folder,
                splits=("unseen",),
                modes=MODES.get(condition, ("none",)),
                games=games,
                tasks=tasks,
                trials=TRIALS,
                console=quiet,
            )
            lines[where] = {line["mode"]: line for line in found}
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    events = [json.loads(line) for line in (folder / "lifecycle.jsonl").read_text().splitlines()]
    skills = load_run(folder).skills
    return {
        "condition": condition,
        "seed": config.seed,
        "steps": config.steps,
        "rate": config.optimizer.learning_rate,
        "user": "scripted user",
        "evaluations": lines,
        "success": [round(line["success"], 4) for line in metrics],
        "skills": [[one.action, one.when_to_use] for one in skills],
        "events": {
            kind: sum(one["event"] == kind for one in events)
            for kind in {e["event"] for e in events}
        },
        "seconds": round(time.perf_counter() - began),
    }


def report_runs(found: Sequence[dict[str, Any]]) -> None:
    """Each run on its own; intervals over its tasks (BCa), as `reskill eval` tells them."""
    for one in found:
        for where, lines in one["evaluations"].items():
            for mode, line in lines.items():
                told = [f"{where:<10}{one['condition']}-{one['seed']} {mode:<5}"]
                intervals = line.get("pass_hat_k_interval", [(math.nan, math.nan)] * TRIALS)
                for k in (1, 4):
                    low, high = (100 * x for x in intervals[k - 1])
                    chance = 100 * line["pass_hat_k"][k - 1]
                    told.append(f"pass^{k} {chance:5.1f} [{low:.1f}, {high:.1f}] over tasks")
                won, played = line.get("by_task_type", {}).get("no solution", (0, 0))
                told.append(f"no solution: {won} of {played}")
                if invalid := line.get("invalid", 0):
                    told.append(f"{invalid} invalid, left out")
                print("  ".join(told))


def chances_of(found: Sequence[dict[str, Any]], where: str) -> dict[tuple[str, str], dict]:
    """(condition, mode) -> seed -> pass^1 ... pass^4 on some tasks, of 100."""
    scores: dict[tuple[str, str], dict[int, np.ndarray]] = {}
    for one in found:
        for mode, line in one["evaluations"].get(where, {}).items():
            of_seed = scores.setdefault((one["condition"], mode), {})
            of_seed[one["seed"]] = 100 * np.asarray(line["pass_hat_k"])
    return scores


def over_seeds(values: Sequence[float], *, sign: str = "") -> str:
    """Mean, interval over seeds (Student's t) and the lowest; of one seed its value alone."""
    if len(values) < 2:
        return f"{values[0]:{sign}.1f}"
    low, high = t_interval(values)
    return (
        f"{np.mean(values):{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}], {min(values):{sign}.1f}"
    )


def report(results: Path) -> None:
    """Every run; tables of means over seeds and of paired differences; the skills."""
    found = [json.loads(path.read_text()) for path in sorted(results.glob("*-*.json"))]
    report_runs(found)
    for where in ("unseen", "benchmark"):
        scores = chances_of(found, where)
        games = {
            line.get("episodes", 0)
            for one in found
            for line in one["evaluations"].get(where, {}).values()
        }
        print(f"\n{where}, {max(games, default=0)} games a seed; mean, 95 % over seeds, worst seed")
        print("| condition | skills shown | seeds | pass^1 | pass^4 |\n|---|---|---|---|---|")
        for (condition, mode), of_seed in sorted(scores.items()):
            told = [over_seeds([of_seed[s][k - 1] for s in of_seed]) for k in (1, 4)]
            print(f"| {condition} | {mode} | {len(of_seed)} | {' | '.join(told)} |")
        one = scores.get(("reskill", "bank"), {})
        for other in (("grpo", "none"), ("frozen", "bank"), ("reskill", "none")):
            two = scores.get(other, {})
            both = [seed for seed in one if seed in two]
            if both:
                pairs = [one[seed] - two[seed] for seed in both]
                told = [over_seeds([pair[k - 1] for pair in pairs], sign="+") for k in (1, 4)]
                name = f"reskill - {other[0]}" + " without skills" * (other == ("reskill", "none"))
                print(f"| {name} | | {len(both)} | {' | '.join(told)} |")
    for one in found:
        if one["skills"]:
            print(f"{one['condition']}-{one['seed']}: {one.get('events', {})}")
            for action, when in one["skills"]:
                print(f"    {action:<24}{when}")


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[2000, 2001, 2002, 2003])
    parser.add_argument("--conditions", nargs="*", default=list(CONDITIONS), choices=CONDITIONS)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rate", type=float, default=5e-5, help="with --results of its own")
    parser.add_argument("--data", type=Path, help="folder of the benchmark's data")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--runs", type=Path, default=Path("runs/tau_rec_study"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        keep_compiled_programs()
        if not (options.model / "config.json").is_file():
            make_model(options.model)
        options.results.mkdir(parents=True, exist_ok=True)
        for seed in options.seeds:
            for condition in options.conditions:
                target = options.results / f"{condition}-{seed}.json"
                once = condition == "start" and seed != options.seeds[0]
                if once or target.is_file():
                    continue
                config = config_of(
                    condition,
                    seed,
                    model=options.model,
                    folder=options.runs,
                    steps=options.steps,
                    rate=options.rate,
                )
                found = run(config, condition, options.data)
                target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
                print(f"{config.name}: {found['seconds']} s", flush=True)
    report(options.results)


if __name__ == "__main__":
    main()
