"""Kills training runs at random moments, resumes them, and compares with a run left alone.

    python experiments/kill_and_resume.py                # 100 kills; goes on where it was stopped
    python experiments/kill_and_resume.py --kills 10     # fewer

A run is killed (SIGKILL) several times on its way; after each kill it is resumed, and when it has
come to its end everything it wrote must be what the undisturbed run wrote: parameters, optimizer,
keys, bank, posteriors and the creator's memory bit for bit, the logs line for line (but for
seconds). A child process tells by one byte in a file what it is doing, so that every phase can be
aimed at: half of the kills come at a moment after so many steps, the others in a phase.
Writes experiments/results/kill_and_resume.json and the table in docs/scale.md.
"""

import argparse
import dataclasses
import functools
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results_page import table, write_section

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "kill_and_resume.json"
PAGE = ROOT / "docs" / "scale.md"
PHASES = ("starting", "in a step", "in the creator", "in an evaluation", "in a save", "elsewhere")
STEPS, CHECKPOINT_EVERY, EVAL_EVERY = 24, 3, 4


# --- the child: one training run that tells its phase ---------------------------------------------


def child(root: str, name: str, resume: bool) -> None:
    """Trains (or goes on), with its phase in <root>/<name>.phase."""
    import jax
    from rich.console import Console

    from reskill_jax.training import loop, proposals
    from reskill_jax.training.config import replace, smallest
    from reskill_jax.training.storage import Storage
    from reskill_jax.worlds import registry
    from reskill_jax.worlds.household import symbols
    from reskill_jax.worlds.household.world import HouseholdWorld

    class LookingWorld(HouseholdWorld):
        """Looking around wins: in short episodes there is something to learn and to propose."""

        def step(self, task: Any, state: Any, cursor: Any) -> Any:
            looked = self.action(task, cursor)[0] == symbols.symbol(" look")
            state, step = super().step(task, state, cursor)
            reward = looked.astype("float32")
            return state, step._replace(reward=reward, success=looked, done=looked)

    told = os.open(Path(root) / f"{name}.phase", os.O_RDWR | os.O_CREAT)

    def tell(phase: str) -> None:
        os.pwrite(told, bytes([PHASES.index(phase)]), 0)

    def during(phase: str, function: Any) -> Any:
        @functools.wraps(function)
        def wrapped(*arguments: Any, **options: Any) -> Any:
            tell(phase)
            try:
                return function(*arguments, **options)
            finally:
                tell("elsewhere")

        return wrapped

    tell("starting")
    make_runner = loop.make_runner

    def runner_that_tells(*arguments: Any, **options: Any) -> Any:
        runner = make_runner(*arguments, **options)

        def whole_step(*arguments: Any) -> Any:
            return jax.block_until_ready(runner.step(*arguments))

        return dataclasses.replace(runner, step=during("in a step", whole_step))

    registry.make_world = lambda name, *, rooms: LookingWorld(spec=rooms)
    loop.make_runner = runner_that_tells
    proposals.suggest = during("in the creator", proposals.suggest)
    loop.learn = during("in the creator", loop.learn)
    loop._evaluate = during("in an evaluation", loop._evaluate)
    save_now = Storage.save

    def save_and_wait(self: Storage, *arguments: Any, **options: Any) -> None:
        save_now(self, *arguments, **options)
        self.wait()  # else it is over before it is hit

    Storage.save = during("in a save", save_and_wait)
    config = replace(
        smallest(),
        root=root, name=name, steps=STEPS, max_turns=6, context_length=160, groups=4,
        trial=dict(rule="means", min_steps=2, min_episodes=20, max_steps=4),
        creator=dict(reservoir=8, cooldown=0),
        checkpoint_every=CHECKPOINT_EVERY, eval_every=EVAL_EVERY, keep=2,
    )  # fmt: skip
    loop.train(config, resume=resume, console=Console(file=io.StringIO()))


def start(root: Path, name: str, *, resume: bool) -> subprocess.Popen:
    """A child process."""
    words = [sys.executable, __file__, "--child", str(root), name, *(["--resume"] * resume)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


# --- the parent -----------------------------------------------------------------------------------


def steps_done(root: Path, name: str) -> int:
    """Lines of metrics.jsonl."""
    path = root / name / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def phase_of(root: Path, name: str) -> str | None:
    """What the child says it is doing."""
    try:
        told = (root / f"{name}.phase").read_bytes()
    except FileNotFoundError:
        return None
    return PHASES[told[0]] if told else None


def kill_once(root: Path, name: str, aim: str | None, draw: random.Random) -> dict[str, Any] | None:
    """Starts or resumes a run and kills it; None if it came to its end before."""
    resume = (root / name / "config.json").exists()
    (root / f"{name}.phase").unlink(missing_ok=True)
    process = start(root, name, resume=resume)
    first = steps_done(root, name)
    after = first + draw.randint(1, 6)
    try:
        while process.poll() is None:
            phase = phase_of(root, name)
            if aim == "starting" and phase == "starting":
                time.sleep(draw.uniform(0, 8))
                break
            if aim not in (None, "starting") and phase == aim and steps_done(root, name) > first:
                time.sleep(draw.uniform(0, 0.003 if aim == "in the creator" else 0.02))
                break
            if aim is None and steps_done(root, name) >= after:
                time.sleep(draw.uniform(0, 0.3))
                break
            time.sleep(0.0005)
        if process.poll() is not None:
            if process.returncode:
                raise RuntimeError(process.stderr.read().decode())
            return None
        process.send_signal(signal.SIGKILL)
        process.wait()
    finally:
        process.kill()
        process.wait()
    return {"phase": phase_of(root, name), "step": steps_done(root, name)}


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run left behind, comparable."""

    def lines(name: str) -> list[dict[str, Any]]:
        told = [json.loads(line) for line in (folder / name).read_text().splitlines()]
        timed = ("seconds", "compile_seconds")
        return [{k: v for k, v in line.items() if k not in timed} for line in told]

    saved = sorted((folder / "checkpoints").glob("step_*"))[-1]
    manifest = json.loads((saved / "MANIFEST.json").read_text())["body"]
    host = json.loads((saved / "host.json").read_text())
    host["sizes"] = None  # the lengths of the logs, in which seconds have more or fewer digits
    return {
        "metrics": lines("metrics.jsonl"),
        "trials": lines("trials.jsonl"),
        "evaluations": lines("eval.jsonl"),
        "lifecycle": lines("lifecycle.jsonl"),
        "step": manifest["step"],
        "arrays": arrays_of(saved),
        "host": host,
        "skills": {p.parent.name: p.read_text() for p in sorted(folder.glob("skills/*/SKILL.md"))},
    }


def arrays_of(saved: Path) -> dict[str, str]:
    """Name -> digest of the bytes of every array of a checkpoint."""
    import hashlib

    import numpy as np
    from orbax.checkpoint import v1

    loaded = v1.load(saved / "arrays")
    return {
        name: hashlib.sha256(np.asarray(value).tobytes()).hexdigest()
        for name, value in loaded.items()
    }


def different(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What is not the same."""
    return [name for name in one if one[name] != other[name]]


def report(found: list[dict[str, Any]], seed: int) -> str:
    """Where the kills struck, and whether the runs ended alike."""
    count = Counter(kill["phase"] or "before anything" for run in found for kill in run["kills"])
    kills = sum(count.values())
    exact = sum(len(run["kills"]) for run in found if not run["different"])
    rows = [[phase, str(number)] for phase, number in count.most_common()]
    trials = found[0]["trials"]
    told = (
        f"{kills} kills of {len(found)} runs of {STEPS} steps with {trials} trials of skills, "
        f"{exact} followed by an exact resume (seed {seed})."
    )
    return f"{told}\n\n{table(['struck', 'kills'], rows)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Kills and compares; the exit code tells whether every run ended as it should."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--per-run", type=int, default=6, help="kills of a run at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="of the runs; a temporary one if not given")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    root = options.folder or Path(tempfile.mkdtemp(prefix="kills-"))
    root.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    found = json.loads(options.results.read_text())["runs"] if options.results.exists() else []
    shutil.rmtree(root / "whole", ignore_errors=True)
    process = start(root, "whole", resume=False)
    _, error = process.communicate()
    if process.returncode:
        raise RuntimeError(error.decode())
    wanted = outcome(root / "whole")
    while (done := sum(len(run["kills"]) for run in found)) < options.kills:
        draw = random.Random(f"{options.seed} {len(found)}")
        name, kills = f"killed-{len(found)}", []
        shutil.rmtree(root / name, ignore_errors=True)
        while len(kills) < min(options.per_run, options.kills - done):
            # "elsewhere" is where files are written between the phases.
            aim = draw.choice([None] * len(PHASES) + list(PHASES))
            kill = kill_once(root, name, aim, draw)
            if kill is None:
                break
            kills.append(kill)
        else:
            process = start(root, name, resume=(root / name / "config.json").exists())
            _, error = process.communicate()
            if process.returncode:
                raise RuntimeError(error.decode())
        problems = different(wanted, outcome(root / name))
        trials = sum(event["event"] == "proposed" for event in wanted["lifecycle"])
        found.append({"kills": kills, "different": problems, "trials": trials})
        shutil.rmtree(root / name)
        told = f"{name}: {len(kills)} kills, " + (", ".join(problems) or "exact")
        print(told, flush=True)
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(
            json.dumps({"seed": options.seed, "runs": found}, indent=1) + "\n"
        )
    print(report(found, options.seed))
    if options.results == RESULTS:
        write_section(PAGE, "kills", report(found, options.seed))
    return int(any(run["different"] for run in found))


if __name__ == "__main__":
    if "--child" in sys.argv:
        child(sys.argv[2], sys.argv[3], "--resume" in sys.argv)
    else:
        sys.exit(main())
