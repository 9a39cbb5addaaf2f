"""Checkpoints: bit-exact round trips, completeness, damage, retention, refusals."""

import dataclasses
import json
import shutil
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from reskill_jax.storage import checkpoint
from reskill_jax.storage.checkpoint import CheckpointError

CONFIG = {"name": "test", "optimizer": {"rate": 1e-3, "steps": 60}}
HOST = {"lifecycle": [{"step": 3, "reason": "é \u2028"}], "sizes": {"metrics": 1234}, "x": 0.1}


class State(NamedTuple):
    params: dict
    key: jax.Array
    old_key: jax.Array
    optimizer: tuple
    step: int


def make_state(scale: float = 1.0) -> State:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x80000000, 1, 0x3F800001], np.uint32)
    return State(
        params={
            "float": jnp.asarray(bits.view(np.float32)),  # NaN payloads, -0, a denormal
            "minus_zero": jnp.full((3,), -0.0),
            "half": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3) * scale,
            "int8": jnp.arange(-3, 3, dtype=jnp.int8),
            "bool": jnp.array([True, False]),
            "scalar": jnp.float32(scale),
            "empty": jnp.zeros((0, 4), jnp.int32),
            "host64": np.array([2**60 + 1, -1]),
            "host_float8": np.arange(4).astype(ml_dtypes.float8_e4m3fn),
        },
        key=jax.random.split(jax.random.key(7), 3),
        old_key=jax.random.PRNGKey(3),
        optimizer=((), {"count": jnp.int32(5)}, None),
        step=12,
    )


def bits_of(leaf):
    if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return array.dtype, array.shape, array.tobytes()


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert isinstance(a, np.ndarray) == isinstance(b, np.ndarray)
        assert isinstance(a, jax.Array) == isinstance(b, jax.Array)
        assert bits_of(a) == bits_of(b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two steps, written once; tests that damage them copy the folder."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoint.save(folder, 10, make_state(), HOST, CONFIG)
    checkpoint.save(folder, 20, make_state(2.0), HOST | {"x": 0.2}, CONFIG)
    checkpoint.wait_for_saves(folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def test_round_trip_is_bit_exact(saved):
    step, arrays, host = checkpoint.restore(saved, make_state(), CONFIG)
    assert (step, host) == (20, HOST | {"x": 0.2})
    assert_same(arrays, make_state(2.0))
    assert checkpoint.latest_step(saved) == 20
    step, arrays, host = checkpoint.restore(saved, make_state(), CONFIG, step=10)
    assert (step, host) == (10, HOST)
    assert_same(arrays, make_state())


def test_restores_into_shapes_alone(saved):
    like = jax.eval_shape(lambda: {k: v for k, v in make_state()._asdict().items() if k != "step"})
    like = State(step=0, **like)
    like.params["host64"] = np.zeros(2, np.int64)  # eval_shape would cut it to 32 bits
    _, arrays, _ = checkpoint.restore(saved, like, CONFIG)
    assert isinstance(arrays.params["float"], jax.Array)
    assert bits_of(arrays.params["float"]) == bits_of(make_state().params["float"])
    # The keys are usable and go on with the same stream.
    np.testing.assert_array_equal(
        jax.random.uniform(arrays.key[1]), jax.random.uniform(make_state().key[1])
    )


def test_save_lets_go_of_donated_buffers(tmp_path):
    value = jnp.arange(1000.0)
    pending = checkpoint.save(tmp_path, 1, {"x": value}, {}, {})
    jax.jit(lambda x: x * 0 - 1, donate_argnums=0)(value).block_until_ready()
    assert pending.wait() == tmp_path / "step_00000001"
    assert pending.done
    _, arrays, _ = checkpoint.restore(tmp_path, {"x": jnp.zeros(1000)}, {})
    np.testing.assert_array_equal(arrays["x"], np.arange(1000.0, dtype=np.float32))


def test_restored_arrays_do_not_retrace(tmp_path):
    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        return jax.tree.map(lambda x: x + 1, state)

    state = step({"x": jnp.zeros(3), "n": jnp.int32(0)})
    checkpoint.save(tmp_path, 1, state, {}, {}, block=True)
    step(checkpoint.restore(tmp_path, state, {}).arrays)
    assert len(traces) == 1


def test_a_tree_without_arrays(tmp_path):
    checkpoint.save(tmp_path, 0, {}, {"a": None}, {}, block=True)
    assert checkpoint.restore(tmp_path, {}, {}) == (0, {}, {"a": None})


def files_of(step_folder):
    return sorted(p for p in step_folder.rglob("*") if p.is_file() and p.stat().st_size)


@pytest.mark.parametrize("harm", ["delete", "truncate", "noise"])
def test_every_damaged_file_is_found(copy, harm):
    last = copy / "step_00000020"
    for file in files_of(last):
        content = file.read_bytes()
        if harm == "delete":
            file.unlink()
        elif harm == "truncate":
            file.write_bytes(content[: len(content) // 2])
        else:
            noisy = bytearray(content)
            noisy[len(content) // 2] ^= 4
            file.write_bytes(noisy)
        assert checkpoint.damage(last) is not None, file
        file.write_bytes(content)
    assert checkpoint.damage(last) is None


def test_damaged_steps_are_skipped_with_a_message(copy):
    (copy / "step_00000020" / "host.json").write_text("{}")
    (copy / "step_00000030").mkdir()
    (copy / "step_00000040.partial").mkdir()
    (copy / "step_00000050").write_text("a file")
    before = sorted(copy.rglob("*"))
    lines = []
    step, arrays, host = checkpoint.restore(copy, make_state(), CONFIG, notify=lines.append)
    assert (step, host) == (10, HOST)
    assert_same(arrays, make_state())
    assert len(lines) == 2
    assert "step 30" in lines[0] and "MANIFEST.json is missing" in lines[0]
    assert "step 20" in lines[1] and "host.json has 2 bytes instead of" in lines[1]
    assert sorted(copy.rglob("*")) == before  # nothing was touched


def test_a_step_under_another_name_is_not_believed(copy):
    (copy / "step_00000020").rename(copy / "step_00000099")
    assert checkpoint.latest_step(copy, notify=lambda _: None) == 10


def test_nothing_usable(copy, tmp_path):
    for name in ("step_00000010", "step_00000020"):
        (copy / name / "leaves.json").unlink()
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints .* all are damaged"):
        checkpoint.restore(copy, make_state(), CONFIG, notify=lambda _: None)
    with pytest.raises(CheckpointError, match="step 20 .* leaves.json is missing"):
        checkpoint.restore(copy, make_state(), CONFIG, step=20)
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        checkpoint.restore(tmp_path / "nowhere", make_state(), CONFIG)
    assert checkpoint.latest_step(tmp_path / "nowhere") is None


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_configuration_is_refused(saved):
    other = {"name": "test", "optimizer": {"rate": 0.002, "steps": 60}, "extra": 1}
    with pytest.raises(CheckpointError, match="another configuration") as error:
        checkpoint.restore(saved, make_state(), other)
    assert "optimizer.rate (checkpoint 0.001, now 0.002)" in one_line(error)
    assert "extra (not in the checkpoint, now 1)" in str(error.value)
    assert "steps" not in str(error.value)
    longer = {"name": "test", "optimizer": {"rate": 1e-3, "steps": 90}}
    allowed = ["optimizer.steps"]
    assert checkpoint.restore(saved, make_state(), longer, may_differ=allowed).step == 20
    with pytest.raises(CheckpointError, match="optimizer.steps"):
        checkpoint.restore(saved, make_state(), longer, may_differ=["optimizer.step"])


def test_configuration_may_be_a_dataclass(tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Inner:
        sizes: tuple[int, ...] = (1, 2)

    @dataclasses.dataclass(frozen=True)
    class Config:
        rate: float = 0.1
        inner: Inner = Inner()

    checkpoint.save(tmp_path, 1, {"x": np.ones(2)}, {}, Config(), block=True)
    assert checkpoint.restore(tmp_path, {"x": np.ones(2)}, Config()).step == 1
    with pytest.raises(CheckpointError, match=r"inner.sizes \(checkpoint \[1, 2\], now \[1, 3\]\)"):
        checkpoint.restore(tmp_path, {"x": np.ones(2)}, Config(inner=Inner((1, 3))))


def test_another_state_is_refused(saved):
    state = make_state()
    wider = state._replace(params=state.params | {"half": jnp.zeros((2, 5), jnp.bfloat16)})
    with pytest.raises(CheckpointError, match="another state") as error:
        checkpoint.restore(saved, wider, CONFIG)
    assert "params/half is bfloat16[2, 3] in the checkpoint, bfloat16[2, 5] here" in one_line(error)
    retyped = state._replace(old_key=state.old_key.astype(jnp.int32))
    with pytest.raises(CheckpointError, match=r"old_key is uint32\[2\] .* int32\[2\] here"):
        checkpoint.restore(saved, retyped, CONFIG)
    more = state._replace(params=state.params | {"bias": jnp.zeros(2)})
    with pytest.raises(CheckpointError, match="params/bias is missing in the checkpoint"):
        checkpoint.restore(saved, more, CONFIG)
    less = state._replace(params={k: v for k, v in state.params.items() if k != "int8"})
    with pytest.raises(CheckpointError, match="params/int8 is not part of this state"):
        checkpoint.restore(saved, less, CONFIG)
    other_key = state._replace(key=jax.random.split(jax.random.key(0, impl="rbg"), 3))
    with pytest.raises(CheckpointError, match="key is key<fry>"):
        checkpoint.restore(saved, other_key, CONFIG)


def test_a_good_step_is_never_overwritten(copy):
    before = {p: p.read_bytes() for p in files_of(copy)}
    with pytest.raises(CheckpointError, match="exists already"):
        checkpoint.save(copy, 20, make_state(), HOST, CONFIG)
    assert {p: p.read_bytes() for p in files_of(copy)} == before


def test_a_damaged_step_is_set_aside(copy):
    (copy / "step_00000020" / "host.json").write_text("noise")
    checkpoint.save(copy, 20, make_state(3.0), HOST, CONFIG, block=True)
    assert (copy / "step_00000020.damaged1" / "host.json").read_text() == "noise"
    assert_same(checkpoint.restore(copy, make_state(), CONFIG).arrays, make_state(3.0))


def test_retention_keeps_the_last_and_the_best(tmp_path):
    scores = [0.1, 0.9, 0.3, 0.2, 0.4]
    for step, score in enumerate(scores):
        checkpoint.save(
            tmp_path, step, {"x": np.full(2, step)}, {}, {},
            metrics={"success": score}, keep=2, best_by="success",
        )  # fmt: skip
    checkpoint.wait_for_saves(tmp_path)
    assert checkpoint.steps(tmp_path) == [1, 3, 4]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step_00000001", "step_00000003", "step_00000004",
    ]  # fmt: skip
    assert checkpoint.restore(tmp_path, {"x": np.zeros(2, int)}, {}, step=1).arrays["x"][0] == 1


def test_retention_after_a_damaged_step_keeps_what_was_just_written(copy):
    (copy / "step_00000020" / "host.json").write_text("noise")  # its manifest is still whole
    checkpoint.save(copy, 15, make_state(), HOST, CONFIG, keep=1, block=True)
    assert checkpoint.steps(copy) == [15, 20]
    assert checkpoint.latest_step(copy, notify=lambda _: None) == 15


def test_what_cannot_be_stored_is_named(tmp_path):
    def failing(arrays, host, config, match):
        with pytest.raises(CheckpointError, match=match):
            checkpoint.save(tmp_path / "c", 1, arrays, host, config)
        assert checkpoint.steps(tmp_path / "c") == []

    failing({"a": {"text": "x"}}, {}, {}, "leaf 'a/text' of type str")
    failing({"a": np.array(["x"])}, {}, {}, "dtype <U1")
    failing({}, {"a": [1, {2: 3}]}, {}, r"host.a\[1\] has the key 2")
    failing({}, {"a": np.float64(1)}, {}, "host.a is a float64")
    failing({}, {"a": {1, 2}}, {}, "host.a is a set")
    failing({}, {}, {"f": len}, "config.f is a builtin")
    failing({"a/b": np.ones(1), "a": {"b": np.ones(1)}}, {}, {}, "share the name 'a/b'")


def test_a_failed_save_is_reported_and_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_manifest", full)
    pending = checkpoint.save(tmp_path, 5, {"x": np.ones(3)}, {}, {})
    with pytest.raises(CheckpointError, match="step 5 could not be .*No space left") as error:
        pending.wait()
    one_line(error)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CheckpointError, match="No space left"):  # not swallowed by the next one
        checkpoint.save(tmp_path, 6, {"x": np.ones(3)}, {}, {})
    monkeypatch.undo()
    checkpoint.save(tmp_path, 7, {"x": np.ones(3)}, {}, {}, block=True)
    assert checkpoint.latest_step(tmp_path) == 7


def test_a_disk_without_room_is_found_out_before(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=7_000_000))
    checkpoint.save(tmp_path, 1, {"x": np.zeros(1000)}, {}, {}, block=True)
    with pytest.raises(CheckpointError, match="step 2 needs 8.0 MB, but .* 7.0 MB left"):
        checkpoint.save(tmp_path, 2, {"x": np.zeros(1_000_000)}, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_a_process_that_died_in_mid_write_does_no_harm(copy):
    partial = copy / "step_00000030.partial"
    (partial / "arrays").mkdir(parents=True)
    (partial / "host.json").write_text("{")
    assert checkpoint.latest_step(copy) == 20
    checkpoint.save(copy, 30, make_state(), HOST, CONFIG, block=True)
    assert not partial.exists()
    assert checkpoint.latest_step(copy) == 30


def test_files_are_readable_json(saved):
    folder = saved / "step_00000010"
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert json.loads((folder / "host.json").read_text()) == HOST


KILLED = """
import sys, numpy as np
from reskill_jax.storage import checkpoint
step = 0
while True:
    step += 1
    checkpoint.save(sys.argv[1], step, {"x": np.full(400_000, step)}, {"step": step}, {}, keep=2)
    print(step, flush=True)
"""


def test_a_process_killed_in_mid_write_leaves_a_good_step(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    for _ in range(4):
        process.stdout.readline()
    process.kill()  # the save of the last number is under way now
    started = int(["4", *process.stdout.read().split()][-1])
    process.wait()
    like = {"x": np.zeros(400_000, int)}
    step, arrays, host = checkpoint.restore(tmp_path, like, {}, notify=pytest.fail)
    assert step in (started - 1, started, started + 1) and host == {"step": step}
    assert (arrays["x"] == step).all()
