"""One of two processes that train together, and how tests start them."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import jax
from rich.console import Console

from reskill_jax.devices.preemption import Preempted
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import apply_config, read_config
from reskill_jax.worlds import registry
from tests.conftest import looking_at

ROOT = Path(__file__).resolve().parents[2]


def start(*words: object, devices: int = 1, paths: Sequence[Path] = ()) -> subprocess.Popen:
    """A process with one device, or more; `paths` are where it finds modules, too."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths))),
    }
    return subprocess.Popen(
        [sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ends_of(children: Sequence[subprocess.Popen], *, seconds: float) -> list[tuple[str, str]]:
    """What each has printed (stdout, stderr) when it ended; all are read at once, so none waits
    for room to print in. None of one that did not end in time."""
    ends: list = [None] * len(children)
    readers = [
        threading.Thread(target=lambda i=i: ends.__setitem__(i, children[i].communicate()))
        for i in range(len(children))
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(timeout=seconds)
    return ends


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def main(process: int, port: int, path: str, resume: bool = False) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    config = apply_config(TrainConfig(), read_config(path), where=path)
    registry.make_world = looking_at

    def told(step, *_):
        print(f"after step {step}", flush=True)

    try:
        loop.train(config, resume=resume, console=Console(), observer=told)
    except Preempted as end:
        print(end, flush=True)
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], "resume" in sys.argv)
