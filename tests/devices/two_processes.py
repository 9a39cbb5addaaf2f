"""One of two processes that train together; run by test_processes.py."""

import sys

import jax
from rich.console import Console

from reskill_jax.devices.preemption import Preempted
from reskill_jax.training import loop, settings
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import apply_config, read_config
from tests.conftest import looking_at


def main(process: int, port: int, path: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    config = apply_config(TrainConfig(), read_config(path), where=path)
    settings.make_world = looking_at

    def told(step, *_):
        print(f"after step {step}", flush=True)

    try:
        loop.train(config, console=Console(), observer=told)
    except Preempted as end:
        print(end, flush=True)
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
