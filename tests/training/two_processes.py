"""One of two processes that train together; run by test_processes.py."""

import dataclasses
import json
import sys

import jax
from rich.console import Console

from reskill_jax.training import loop
from reskill_jax.training.config import MeshShape, TrainConfig
from reskill_jax.training.preemption import Preempted
from reskill_jax.worlds.household.generator import RoomSpec
from tests.conftest import LookingWorld


def main(process: int, port: int, path: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, process)
    settings = json.loads(open(path).read())
    config = TrainConfig(
        **settings | {"rooms": RoomSpec(**settings["rooms"]), "mesh": MeshShape(**settings["mesh"])}
    )
    loop.HouseholdWorld = LookingWorld

    def told(step, *_):
        print(f"after step {step}", flush=True)

    try:
        loop.train(dataclasses.replace(config), console=Console(), observer=told)
    except Preempted as end:
        print(end, flush=True)
        raise


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
