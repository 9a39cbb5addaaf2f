"""Trains on all devices of several processes: a TPU pod slice, or machines with GPUs.

    python experiments/tpu_pod.py --name pod --root /shared/runs --mesh.data 4 --mesh.fsdp 4

The same command runs in every process; on a Cloud TPU slice nothing else is needed. Elsewhere the
processes have to be told of each other:

    python experiments/tpu_pod.py --coordinator HOST:PORT --processes 2 --process 0 -- --name ...

All other options are those of `reskill train`, --resume among them. The folder of the runs must be
one that every process sees. docs/scale.md tells the rest.
"""

import argparse
import sys
from collections.abc import Sequence

import jax

from reskill_jax import cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Joins the processes, then trains."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Everything else is given to `reskill train`; see reskill train --help.",
        allow_abbrev=False,
    )
    parser.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0; not on TPUs")
    parser.add_argument("--processes", type=int, help="how many; not on TPUs")
    parser.add_argument("--process", type=int, help="the number of this one; not on TPUs")
    options, rest = parser.parse_known_args(arguments)
    jax.distributed.initialize(options.coordinator, options.processes, options.process)
    if jax.process_index() == 0:
        told = f"{jax.process_count()} processes, {jax.device_count()} devices"
        print(f"{told} ({jax.devices()[0].device_kind})", flush=True)
    return cli.main(["train", *(word for word in rest if word != "--")])


if __name__ == "__main__":
    sys.exit(main())
