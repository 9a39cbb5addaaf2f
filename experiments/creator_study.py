"""Does the trial keep what a creator's skills are worth, when half of them are harmful?

    python experiments/creator_study.py                # 4 seeds, 40 steps, three conditions
    python experiments/creator_study.py --quick        # 16 steps in small rooms, results apart
    python experiments/creator_study.py --report       # the table alone
    python experiments/creator_study.py --delay 30     # step times with a server that takes 30 s

The creator is a language model as far as the code knows; behind the address is a script
(`scripted_expert`) that answers from the evidence alone, and whose every second skill says the
opposite of what it found. Conditions: the offline rules; the script, its proposals tried; the
script, every proposal adopted (auto-accept). Every run is one JSON file in
experiments/results/creator_study; those that exist are not made again.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from scripted_expert import ScriptedExpert, is_harmful
from study.statistics import t_interval

from reskill_jax.storage.intervals import wilson_interval
from reskill_jax.training import config as configs
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig, replace

RESULTS = Path(__file__).resolve().parent / "results" / "creator_study"
SEEDS = (2000, 2001, 2002, 2003)
CONDITIONS = ("rules", "expert", "auto_accept")
DECIDED = {"accepted": True, "rejected": False}


def config_of(condition: str, seed: int, url: str, *, quick: bool) -> TrainConfig:
    """The settings of a run."""
    config = configs.tiny() if quick else configs.household()
    changes: dict[str, Any] = dict(seed=seed, eval_every=0, checkpoint_every=10**6)
    if quick:
        changes |= dict(steps=16, eval_tasks=64)
    else:
        changes["steps"] = 40
    if condition != "rules":
        # With a lag the results do not depend on how busy the machine is.
        changes["creator"] = dict(kind="llm", url=url, model="scripted", lag=1)
    if condition == "auto_accept":
        changes["trial"] = dict(auto_accept=True)
    return replace(config, **changes)


def run(condition: str, seed: int, *, quick: bool) -> dict[str, Any]:
    """Trains once, and says what came of it."""
    with tempfile.TemporaryDirectory() as root, ScriptedExpert() as expert:
        config = config_of(condition, seed, expert.url, quick=quick)
        config = dataclasses.replace(config, root=root, name="run")
        done = loop.train(config, console=Console(quiet=True))
        return {"condition": condition, "seed": seed} | figures_of(done.folder)


def lines(path: Path) -> list[dict[str, Any]]:
    """Of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def figures_of(folder: Path) -> dict[str, Any]:
    """What the logs of a run tell."""
    evals, metrics = lines(folder / "eval.jsonl"), lines(folder / "metrics.jsonl")
    versions = versions_of(lines(folder / "lifecycle.jsonl"))
    last = max(line["step"] for line in evals)
    return {
        "success": {
            f"{line['split']}/{line['mode']}": [
                round(line["success"] * line["episodes"]),
                line["episodes"],
            ]
            for line in evals
            if line["step"] == last
        },
        "start": {
            line["split"]: [round(line["success"] * line["episodes"]), line["episodes"]]
            for line in evals
            if line["step"] == 0
        },
        "versions": versions,
        "seconds": [line["seconds"] for line in metrics],
        "calls": metrics[-1].get("creator_calls", 0),
        "tokens": metrics[-1].get("creator_input_tokens", 0)
        + metrics[-1].get("creator_output_tokens", 0),
    }


def versions_of(events: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every proposal that was decided: its text, whether it was adopted, what its trial found."""
    found = []
    for event in events:
        if event["event"] not in DECIDED:
            continue
        texts = [one["skill"]["action"] for one in event["operations"] if one.get("skill")]
        difference = event.get("difference")
        found.append(
            {
                "texts": texts,
                "adopted": DECIDED[event["event"]],
                "opposite": any(is_harmful(text) for text in texts),
                "difference": difference[1] if difference else None,
            }
        )
    return found


def table(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a condition."""
    told = [
        f"{'condition':<13}{'runs':>5}  {'unseen [95 % over runs]':<26}{'seen':<8}"
        f"{'as found: adopted':<20}{'opposite: adopted':<20}{'calls':>7}"
    ]
    for condition in CONDITIONS:
        of_it = [one for one in results if one["condition"] == condition]
        if not of_it:
            continue
        unseen, seen = ([_rate(one, split) for one in of_it] for split in ("unseen", "seen"))
        low, high = t_interval(unseen)
        versions = [version for one in of_it for version in one["versions"]]
        kinds = [
            [v["adopted"] for v in versions if v["opposite"] is kind] for kind in (False, True)
        ]
        told.append(
            f"{condition:<13}{len(of_it):>5}  "
            f"{f'{statistics.fmean(unseen):.1%} [{low:.1%}, {high:.1%}]':<26}"
            f"{statistics.fmean(seen):<8.1%}"
            f"{_share(kinds[0]):<20}{_share(kinds[1]):<20}"
            f"{statistics.fmean(one['calls'] for one in of_it):>7.0f}"
        )
    return told


def _rate(one: Mapping[str, Any], split: str) -> float:
    won, played = one["success"][f"{split}/bank"]
    return won / played


def _share(adopted: Sequence[bool]) -> str:
    if not adopted:
        return "none"
    low, high = wilson_interval(sum(adopted), len(adopted))
    return f"{sum(adopted)} of {len(adopted)} [{low:.0%}, {high:.0%}]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Makes the runs that are missing, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="16 steps in small rooms")
    parser.add_argument("--report", action="store_true", help="no runs")
    parser.add_argument("--seeds", help="separated by commas")
    parser.add_argument("--only", help="conditions, separated by commas")
    parser.add_argument("--results", type=Path, help="folder of the results")
    parser.add_argument("--delay", type=float, default=0.0, help="step times: seconds of a reply")
    parsed = parser.parse_args(arguments)
    if parsed.delay:
        return step_times(parsed.delay, quick=parsed.quick)
    results = parsed.results or (
        RESULTS.with_name("creator_study_quick") if parsed.quick else RESULTS
    )
    seeds = [int(word) for word in parsed.seeds.split(",")] if parsed.seeds else SEEDS
    chosen = parsed.only.split(",") if parsed.only else CONDITIONS
    if unknown := set(chosen) - set(CONDITIONS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(CONDITIONS)}")
    for seed in () if parsed.report else seeds:
        for condition in chosen:
            path = results / f"{condition}-{seed}.json"
            if path.exists():
                continue
            told = run(condition, seed, quick=parsed.quick)
            results.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_text(json.dumps(told, indent=1) + "\n")
            path.with_suffix(".partial").rename(path)
            print(f"{condition} {seed}: unseen {_rate(told, 'unseen'):.1%}", flush=True)
    made = [json.loads(path.read_text()) for path in sorted(results.glob("*.json"))]
    print("\n".join(table(made)))
    return 0


def step_times(delay: float, *, quick: bool, rounds: int = 3) -> int:
    """Steps with a pipeline under way all the time, against steps without one, in one process.

    Both kinds of run have the same compiled step, no trial and the same evidence to keep; they take
    turns. Told are the medians of the wall clock and of the processor time of all threads.
    """
    taken: dict[str, list[tuple[float, float]]] = {"with": [], "without": []}
    with tempfile.TemporaryDirectory() as root, ScriptedExpert(delay=delay) as expert:
        for number in range(2 * rounds + 1):
            name = "with" if number % 2 else "without"
            config = config_of("expert", SEEDS[0], expert.url, quick=quick)
            if name == "without":
                config = replace(config, skills_from=config.steps - 1)
            config = replace(config, root=root, name=f"run-{number}", creator=dict(lag=None))
            marks: list[tuple[float, float]] = []

            def mark(*_: Any, marks: list[tuple[float, float]] = marks) -> None:
                marks.append((time.perf_counter(), time.process_time()))

            loop.train(config, console=Console(quiet=True), observer=mark)
            if number:  # the first one compiles
                # The last steps are followed by an evaluation, the first brings no evidence yet.
                spans = zip(marks[2:-2], marks[3:-1], strict=True)
                taken[name] += [(b[0] - a[0], b[1] - a[1]) for a, b in spans]
    for kind, what in enumerate(("wall clock", "processor time")):
        medians = {name: statistics.median(x[kind] for x in taken[name]) for name in taken}
        print(
            f"{what}: {medians['with']:.4f} s a step with, {medians['without']:.4f} without, ratio "
            f"{medians['with'] / medians['without']:.3f} ({len(taken['with'])} steps each)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
