"""The same run on one device, under pmap, on a mesh and in two processes: what differs?

    python experiments/devices.py            # about a quarter of an hour on two cores
    python experiments/devices.py --quick    # one device and the mesh, few steps

Every way trains the shipped policy with its skills from the same start, on simulated CPU devices.
Compared with one device: the arms and every token of every rollout, the counts and decisions of
every step, the life of the skills, and the parameters at the end. Writes
experiments/results/devices.json and the table in docs/scale.md.
"""

import argparse
import dataclasses
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from results_page import table, write_section

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results" / "devices.json"
PAGE = ROOT / "docs" / "scale.md"


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run; `second` is how the same run goes on in its middle, if it moves."""

    title: str
    processes: int = 1
    devices: int = 1  # of each process
    pmap: int = 0
    mesh: tuple[int, int, int] = (1, 1, 1)
    second: "Way | None" = None


MESH = Way("mesh 2x2x2", devices=8, mesh=(2, 2, 2))
ONE = Way("one device")
WAYS = {
    "one": ONE,
    "pmap-2": Way("pmap, 2 devices", devices=2, pmap=2),
    "pmap-8": Way("pmap, 8 devices", devices=8, pmap=8),
    "mesh": MESH,
    "processes": Way("2 processes, mesh 2x2x2", processes=2, devices=4, mesh=(2, 2, 2)),
    "to-one": Way(
        "2 processes, then one device", processes=2, devices=4, mesh=(2, 2, 2), second=ONE
    ),
    "to-mesh": Way(
        "2 processes, then mesh 4x1x2", processes=2, devices=4, mesh=(2, 2, 2),
        second=Way("", devices=8, mesh=(4, 1, 2)),
    ),
}  # fmt: skip
QUICK = ("one", "mesh")
DECISIONS = ("accepted", "rejected", "retired", "kept")  # events of the lifecycle, one a decision


# --- a child: one process of a run ----------------------------------------------------------------


def child(told: dict[str, Any]) -> None:
    """Trains, and writes a digest of every step's rollouts beside the run."""
    import jax

    if told["processes"] > 1:
        jax.distributed.initialize(told["address"], told["processes"], told["process"])
    from rich.console import Console

    from reskill_jax.devices.shape import MeshShape
    from reskill_jax.training import loop
    from reskill_jax.training.config import replace, smallest

    config = replace(
        smallest(), name=told["name"], root=told["root"], steps=told["steps"], max_turns=12,
        context_length=320, groups=8, eval_every=0, eval_tasks=16,
        trial=dict(rule="means", min_steps=2, min_episodes=32, max_steps=4),
        creator=dict(reservoir=32, cooldown=0),
        checkpoint_every=max(told["steps"] // 2, 1), mesh=MeshShape(*told["mesh"]),
    )  # fmt: skip
    digests = Path(told["root"]) / f"{told['name']}.rollouts"
    make_runner = loop.make_runner

    def runner_that_tells(*arguments: Any) -> Any:
        runner = make_runner(*arguments)
        step = pmapped(runner, told["pmap"]) if told["pmap"] else runner.step

        def telling(state: Any, games: Any) -> Any:
            state, metrics, evidence = step(state, games)
            if jax.process_index() == 0:
                with open(digests, "a") as log:
                    log.write(digest(jax.device_get(evidence)) + "\n")
            return state, metrics, evidence

        return dataclasses.replace(runner, step=telling)

    def stop(step: int, *_: Any) -> None:
        if step == told["stop"]:
            raise KeyboardInterrupt

    loop.make_runner = runner_that_tells
    try:
        loop.train(
            config, resume=told["resume"], console=Console(file=io.StringIO()), observer=stop
        )
    except KeyboardInterrupt:
        if told["stop"] is None:
            raise


def pmapped(runner: Any, devices: int) -> Callable[..., Any]:
    """`train_step` under pmap, with the signature of the compiled step."""
    import functools

    import jax
    import numpy as np

    from reskill_jax.training.runner import algorithm_of
    from reskill_jax.training.step import train_step

    program = jax.pmap(
        functools.partial(
            train_step,
            world=runner.world,
            model=runner.policy.model,
            language=runner.policy.language,
            algorithm=algorithm_of(runner.config),
            config=runner.config,
            axis_name="devices",
        ),
        axis_name="devices",
        in_axes=(None, 0),
    )

    def step(state: Any, games: Any) -> Any:
        found = program(state, np.asarray(games).reshape(devices, -1))
        one, metrics = jax.tree.map(lambda x: x[0], found[:2])  # the same on every device
        return one, metrics, jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found[2])

    return step


def digest(evidence: Any) -> str:
    """Of all arrays that the creator sees."""
    import numpy as np

    found = hashlib.sha256()
    told = evidence._asdict()
    for name, array in sorted((told | told.pop("record")._asdict()).items()):
        found.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


# --- the parent -----------------------------------------------------------------------------------


def run(name: str, way: Way, *, root: Path, steps: int) -> Path:
    """Runs a way to its end, unless that was done before; returns the folder of the run."""
    if (root / name / "checkpoints" / f"step_{steps:08d}").exists():
        return root / name
    shutil.rmtree(root / name, ignore_errors=True)
    (root / f"{name}.rollouts").unlink(missing_ok=True)
    parts = [way] if way.second is None else [way, way.second]
    for number, part in enumerate(parts):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        children = []
        for process in range(part.processes):
            told = dataclasses.asdict(part) | {
                "name": name,
                "root": str(root),
                "steps": steps,
                "process": process,
                "address": f"localhost:{port}",
                "resume": number > 0,
                "stop": steps // 2 + 1 if number + 1 < len(parts) else None,
            }
            flags = f"--xla_force_host_platform_device_count={part.devices}"
            environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            words = [sys.executable, __file__, "--child", json.dumps(told)]
            children.append(subprocess.Popen(words, env=environment, stderr=subprocess.PIPE))
        errors = [process.communicate()[1].decode() for process in children]
        if any(process.returncode for process in children):
            raise RuntimeError("\n".join(errors))
    return root / name


def outcome(folder: Path) -> dict[str, Any]:
    """What is compared."""
    import jax

    from reskill_jax.evaluation import replay

    def lines(name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]

    last, first = (
        {
            jax.tree_util.keystr(path): value
            for path, value in jax.tree_util.tree_flatten_with_path(params)[0]
        }
        for params in (replay.load_run(folder).params, replay.load_run(folder, step=0).params)
    )
    counted = ("step", "success", "trials", "trial", "arm_trials", "arm_success")
    counts = [*lines("metrics"), *lines("trials")]
    rollouts = folder.with_name(f"{folder.name}.rollouts").read_text().splitlines()
    return {
        "steps": len(lines("metrics")),
        "rollouts": rollouts,
        "counts": [{k: v for k, v in line.items() if k in counted} for line in counts],
        "lifecycle": lines("lifecycle"),
        "params": last,
        "start": first,
    }


def compared(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """The same or not, and how far apart the parameters are."""
    import numpy as np

    def largest(left: dict[str, Any], right: dict[str, Any]) -> float:
        return max(float(np.abs(np.asarray(left[k]) - np.asarray(right[k])).max()) for k in left)

    # A run that moved made the step after its checkpoint twice.
    rollouts = dict.fromkeys(one["rollouts"])
    return {
        "steps": one["steps"],
        "rollouts": all(digest in rollouts for digest in other["rollouts"])
        and len(set(other["rollouts"])) == len(rollouts),
        "counts": one["counts"] == other["counts"],
        "lifecycle": one["lifecycle"] == other["lifecycle"],
        "events": len(one["lifecycle"]),
        "decisions": sum(line["event"] in DECISIONS for line in one["lifecycle"]),
        "difference": largest(one["params"], other["params"]),
        "moved": largest(one["params"], one["start"]),
    }


def report(found: dict[str, Any]) -> str:
    """The table."""

    def word(same: bool) -> str:
        return "same" if same else "DIFFERENT"

    rows = [
        [
            WAYS[name].title,
            *(word(told[key]) for key in ("rollouts", "counts", "lifecycle")),
            f"{told['difference']:.1e}",
        ]
        for name, told in found["ways"].items()
    ]
    any_way = next(iter(found["ways"].values()))
    head = ["", "rollouts", "counts and decisions", "life of skills", "largest difference"]
    told = (
        f"Against one device, seed 0, {any_way['steps']} steps of 32 rollouts with "
        f"{any_way['decisions']} decisions and {any_way['events']} events in the life of the "
        f"skills; the largest change of a parameter in training is {any_way['moved']:.1e}. "
        f"{found['machine']}."
    )
    return f"{told}\n\n{table(head, rows)}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all ways and compares; the exit code tells whether all decided alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two ways, few steps, no files")
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--only", choices=WAYS, action="append", help="these ways; no files")
    parser.add_argument("--folder", type=Path, help="of the runs; those that are done there stay")
    options = parser.parse_args(arguments)
    from reskill_jax.devices.machine import describe_machine

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
    names = ["one", *(options.only or (QUICK if options.quick else WAYS))]
    steps = 4 if options.quick else options.steps
    root = options.folder or Path(tempfile.mkdtemp(prefix="devices-"))
    found: dict[str, Any] = {"machine": describe_machine(), "steps": steps, "ways": {}}
    one: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        outcome_of_way = outcome(run(name, WAYS[name], root=root, steps=steps))
        one = one or outcome_of_way
        if name != "one":
            found["ways"][name] = compared(one, outcome_of_way)
            print(name, found["ways"][name], flush=True)
    print(report(found))
    if not options.quick and not options.only:
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        write_section(PAGE, "devices", report(found))
    kept = ("rollouts", "counts", "lifecycle")
    return int(not all(told[key] for told in found["ways"].values() for key in kept))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]))
    else:
        sys.exit(main())
