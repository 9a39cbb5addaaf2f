"""Two real processes train one policy: one decides like two, and one goes on where two ended."""

import dataclasses
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console

from reskill_jax.training import checkpoint, loop
from reskill_jax.training.config import MeshShape
from reskill_jax.training.processes import from_first, greatest, is_first

ROOT = Path(__file__).resolve().parents[2]


def test_alone_nothing_is_asked_of_others():
    assert is_first() and from_first(lambda: 7) == 7
    assert greatest(15) == 15 and greatest(0) == 0
    with pytest.raises(KeyError):
        from_first(lambda: {}["x"])


def start(settings: Path, process: int, port: int) -> subprocess.Popen:
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
        "PYTHONPATH": str(ROOT),
    }
    words = [sys.executable, "-m", "tests.training.two_processes", str(process), str(port)]
    return subprocess.Popen(
        [*words, str(settings)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_are_preempted_and_one_goes_on(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "HouseholdWorld", lab.world_type)
    config = dataclasses.replace(
        lab.config, root=str(tmp_path), name="two", steps=10, checkpoint_every=100, eval_every=0
    )
    settings = tmp_path / "settings.json"
    together = dataclasses.replace(config, mesh=MeshShape(fsdp=2))
    settings.write_text(json.dumps(dataclasses.asdict(together)))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    children = [start(settings, process, port) for process in (0, 1)]
    try:
        for line in children[1].stdout:
            if line.startswith("after step 4"):
                break
        children[1].send_signal(signal.SIGTERM)  # one of them is told: both end after the same step
        ends = [None, None]
        readers = [
            threading.Thread(target=lambda i=i: ends.__setitem__(i, children[i].communicate()))
            for i in (0, 1)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout=500)
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [143, 143], ends
    (last,) = {out.strip().splitlines()[-1] for out, _ in ends}
    assert last.startswith("ended by SIGTERM after step ")

    # Written by both: each brought the half of the parameters that lay with it.
    folder = tmp_path / "two"
    step = checkpoint.latest_step(folder / "checkpoints")
    assert 4 <= step < 10 and last.endswith(f"step {step}, everything is saved")
    arrays = folder / "checkpoints" / f"step_{step:08d}" / "arrays"
    assert len({p.name for p in arrays.rglob("ocdbt.process_*")}) == 2

    def train(name, **changes):
        settings = dataclasses.replace(config, name=name)
        return loop.train(settings, console=Console(file=io.StringIO()), **changes)

    alone, resumed = train("alone"), train("two", resume=True)
    assert alone.skills == resumed.skills
    for log in ("lifecycle.jsonl", "eval.jsonl"):
        assert (alone.folder / log).read_text() == (resumed.folder / log).read_text()
    counts = [
        [
            {k: json.loads(line)[k] for k in ("step", "arm_trials", "success", "trial")}
            for line in (run.folder / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (alone, resumed)
    ]
    assert counts[0] == counts[1]
