"""Two real processes train one policy: one decides like two, and one goes on where two ended."""

import dataclasses
import io
import json
import signal

import pytest
from rich.console import Console

from reskill_jax.devices.processes import exchange, from_first, greatest, is_first
from reskill_jax.devices.shape import MeshShape
from reskill_jax.storage import checkpoint
from reskill_jax.training import loop
from reskill_jax.worlds import registry
from tests.devices.two_processes import ends_of, free_port, start


def test_alone_nothing_is_asked_of_others():
    assert is_first() and from_first(lambda: 7) == 7
    assert greatest(15) == 15 and greatest(0) == 0
    assert exchange(lambda: b"mine") == [b"mine"]
    with pytest.raises(KeyError):
        from_first(lambda: {}["x"])


TOGETHER = """
import sys
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from reskill_jax.storage import checkpoint
from reskill_jax.devices import processes
from reskill_jax.devices.mesh import fetch, place

process, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, process)
assert processes.is_first() == (process == 0)
assert processes.from_first(lambda: 7 + process) == 7
assert processes.greatest(2 + 3 * process) == 5 and processes.greatest(0) == 0
halves = NamedSharding(jax.make_mesh((2,), ("data",)), PartitionSpec("data"))
value = place(np.arange(6.0), halves)
assert [s.data.tolist() for s in value.addressable_shards] == [[[0, 1, 2], [3, 4, 5]][process]]
checkpoint.save(folder, 3, {"x": value}, {}, {}, block=True)
found = checkpoint.restore(folder, {"x": place(np.zeros(6), halves)}, {})
assert found.step == 3 and found.arrays["x"].sharding == halves
assert fetch(found.arrays)["x"].tolist() == [0, 1, 2, 3, 4, 5]
assert processes.exchange(lambda: b"x" * 5 * process) == [b"", b"xxxxx"]
try:
    processes.exchange(lambda: b"" if process == 0 else b"" + {}["x"])
except (KeyError, processes.OtherProcessError) as error:
    print(type(error).__name__, error, flush=True)
try:
    processes.from_first(lambda: {}["x"])
except (KeyError, processes.OtherProcessError) as error:
    print(type(error).__name__, flush=True)
"""


def test_two_processes_agree_and_share_a_checkpoint(tmp_path):
    port = free_port()
    children = [start("-c", TOGETHER, process, port, tmp_path) for process in (0, 1)]
    try:
        ends = [child.communicate(timeout=300) for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], ends
    told = [out.strip().splitlines()[-2:] for out, _ in ends]
    assert told[0] == ["OtherProcessError process 1 cannot go on: 'x'", "KeyError"]
    assert told[1] == ["KeyError 'x'", "OtherProcessError"]
    # Written by both: each brought the half of the array that lay with it.
    arrays = tmp_path / "step_00000003" / "arrays"
    assert len({p.name for p in arrays.rglob("ocdbt.process_*")}) == 2


@pytest.mark.slow
def test_two_processes_are_preempted_and_one_goes_on(lab, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "make_world", lab.make_world)
    config = dataclasses.replace(
        lab.config, root=str(tmp_path), name="two", checkpoint_every=100, eval_every=0
    )
    settings = tmp_path / "settings.json"
    together = dataclasses.replace(config, mesh=MeshShape(fsdp=2))
    settings.write_text(json.dumps(dataclasses.asdict(together)))
    port = free_port()
    words = "-m", "tests.devices.two_processes"
    children = [start(*words, process, port, settings) for process in (0, 1)]
    try:
        for line in children[1].stdout:
            if line.startswith("after step 4"):
                break
        children[1].send_signal(signal.SIGTERM)  # one of them is told: both end after the same step
        ends = ends_of(children, seconds=500)
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [143, 143], ends
    (last,) = {out.strip().splitlines()[-1] for out, _ in ends}
    assert last.startswith("ended by SIGTERM after step ")

    # Written by both: each brought the half of the parameters that lay with it.
    folder = tmp_path / "two"
    step = checkpoint.latest_step(folder / "checkpoints")
    assert 4 <= step < config.steps and last.endswith(f"step {step}, everything is saved")
    arrays = folder / "checkpoints" / f"step_{step:08d}" / "arrays"
    assert len({p.name for p in arrays.rglob("ocdbt.process_*")}) == 2

    def train(name, **changes):
        settings = dataclasses.replace(config, name=name)
        return loop.train(settings, console=Console(file=io.StringIO()), **changes)

    alone, resumed = train("alone"), train("two", resume=True)
    assert alone.skills == resumed.skills
    for log in ("lifecycle.jsonl", "eval.jsonl"):
        assert (alone.folder / log).read_text() == (resumed.folder / log).read_text()
    told = {
        "metrics.jsonl": ("step", "success", "trials"),
        "trials.jsonl": ("step", "trial", "arm_trials", "arm_success"),
    }
    for log, names in told.items():
        counts = [
            [
                {name: json.loads(line)[name] for name in names}
                for line in (run.folder / log).read_text().splitlines()
            ]
            for run in (alone, resumed)
        ]
        assert counts[0] == counts[1] != []
