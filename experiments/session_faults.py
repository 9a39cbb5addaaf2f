"""Kills and stops workers in training; compares with leaving the same episodes out.

    python experiments/session_faults.py                       # 50 killed, 20 hung
    python experiments/session_faults.py --killed 5 --hung 2   # fewer

A session of a training run ends its own process (SIGKILL) or stops answering, at a random turn.
What its worker held is lost with it. Each step is then taken once more, from the same state, in a
world without faults, and the episodes that were lost are left out by hand: success, counts of the
arms and the new parameters must be the same. Prints one JSON line.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np

from reskill_jax.rollouts.host import HostRollouts
from reskill_jax.training import host, loop
from reskill_jax.training.config import TrainConfig, replace, smallest
from reskill_jax.training.lifecycle import begin_library, versions
from reskill_jax.training.settings import make_bank
from reskill_jax.training.state import init_state
from reskill_jax.worlds.text_games import TextGames
from reskill_jax.worlds.world import Outcome, TaskSpec

FOLDER = "SESSION_FAULTS"  # environment variable: where faults that are still to come are kept
RATE = 0.005  # chance of a fault in a turn


class Whole(TextGames):
    """The household as text."""

    def __init__(self) -> None:
        super().__init__(engine="household")

    def __reduce__(self) -> tuple:
        return type(self), ()


class Faulty(Whole):
    """The same, but some of its sessions end badly."""

    def open(self, task: TaskSpec) -> Any:
        return Session(super().open(task))


class Session:
    """A session that may take one of the faults that are left, at a random turn."""

    def __init__(self, inner: Any):
        self.inner, self.random = inner, random.Random(os.urandom(8))
        self.reset, self.choices, self.close = inner.reset, inner.choices, inner.close

    def step(self, action: str) -> Outcome:
        if (folder := os.environ.get(FOLDER)) and self.random.random() < RATE:
            self.fail(Path(folder))
        return self.inner.step(action)

    def fail(self, folder: Path) -> None:
        left = sorted(folder.glob("*.left"))
        if not left:
            return
        fault = self.random.choice(left)
        with contextlib.suppress(FileNotFoundError):  # another worker was quicker
            fault.rename(fault.with_suffix(".done"))
            if fault.name.startswith("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(3600)


def settings() -> TrainConfig:
    """Small groups in small rooms."""
    return replace(
        smallest(),
        world="session_faults:Faulty", groups=8, group_size=8, max_turns=8, context_length=240,
        sessions=dict(workers=6, time_limit=10.0, max_invalid=1.0),
    )  # fmt: skip


def left_out(played: HostRollouts, valid: np.ndarray) -> HostRollouts:
    """The same episodes, of which those that are not valid are left out."""
    return played._replace(rollouts=played.rollouts._replace(valid=valid))


def differences(first: Any, second: Any) -> dict[str, float]:
    """The largest difference of each array in two trees that are not equal."""
    found = {}
    pairs = zip(jax.tree.leaves_with_path(first), jax.tree.leaves(second), strict=True)
    for (path, a), b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        if not np.array_equal(a, b, equal_nan=True):
            found[jax.tree_util.keystr(path, simple=True)] = float(np.nanmax(np.abs(a - b)))
    return found


def compare(folder: Path, steps: int) -> dict[str, Any]:
    """Trains until no fault is left, each step beside the same one without faults."""
    config = settings()
    causes: Counter = Counter()
    counts: Counter = Counter()
    played: list[HostRollouts] = []
    play_host = host.play_host

    def remember(*arguments: Any, **options: Any) -> HostRollouts:
        played.append(play_host(*arguments, **options))
        return played[-1]

    def by_hand(*arguments: Any, **options: Any) -> HostRollouts:
        return left_out(play_host(*arguments, **options), played[-1].rollouts.valid)

    faulty, policy = loop.open_runner(config)
    clean, _ = loop.open_runner(
        replace(config, world="session_faults:Whole", sessions=dict(workers=0))
    )
    library = begin_library(config, faulty.world)
    bank = versions(library, config)
    unequal: dict[str, float] = {}
    with contextlib.closing(faulty), contextlib.closing(clean):
        arrays = make_bank(config, faulty.world, [library.skills])
        state = faulty.placed(init_state(config, policy.params, arrays))
        for step in range(steps):
            copy = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, state)
            numbers = faulty.numbers(step)
            with mock.patch.object(host, "play_host", remember):
                state, metrics, _ = faulty.advance(state, numbers, bank)
            with mock.patch.object(host, "play_host", by_hand):
                same, expected, _ = clean.advance(copy, numbers, bank)
            found = differences((state.params, metrics), (same.params, expected))
            unequal = {k: max(found.get(k, 0.0), unequal.get(k, 0.0)) for k in {*found, *unequal}}
            causes.update(played[-1].causes)
            counts["steps"] += 1
            counts["episodes"] += len(played[-1].conversations)
            counts["invalid"] += int(np.sum(~played[-1].rollouts.valid))
            if not list(folder.glob("*.left")):
                break
        done = Counter(path.name.split("-")[0] for path in folder.glob("*.done"))
        return {
            "killed": done["kill"], "hung": done["hang"], "restarts": faulty.pool.restarts,
            **counts, "causes": dict(causes), "unequal": unequal,
        }  # fmt: skip


def main() -> None:
    """Plants the faults, trains, prints what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--killed", type=int, default=50)
    parser.add_argument("--hung", type=int, default=20)
    parser.add_argument("--steps", type=int, default=60, help="at most; the last fault ends it")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in (("kill", options.killed), ("hang", options.hung)):
            for n in range(count):
                (Path(folder) / f"{kind}-{n}.left").touch()
        os.environ[FOLDER] = folder
        print(json.dumps(compare(Path(folder), options.steps)))


if __name__ == "__main__":
    main()
