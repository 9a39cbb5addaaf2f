"""A mesh of devices: what lies where, and that it does what one device does."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from reskill_jax.devices.mesh import (
    MeshError,
    MeshShape,
    fetch,
    make_mesh,
    on_mesh,
    place,
    row_sharding,
)
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.models.sharding import param_specs
from reskill_jax.training import loop
from reskill_jax.training import runner as runners
from reskill_jax.training.config import TrainConfig, replace

MODEL = Decoder(DecoderConfig(vocabulary=259, width=64, layers=1, heads=4, kv_heads=2, mlp=192))
MESH = MeshShape(data=2, fsdp=2, tensor=2)


def test_parameters_are_split_by_the_names_of_their_axes():
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0)))
    specs = param_specs(MODEL, shapes, make_mesh(MESH))
    block = specs["layer_0"]
    assert specs["embedding"] == P(None, "fsdp")  # 259 words do not split in two
    assert block["attention"]["qkv"] == P("fsdp", "tensor", None, None)
    assert block["attention"]["out"] == P("tensor", None, None, "fsdp")
    assert block["mlp"]["gate_up"] == P("fsdp", None, "tensor")
    assert block["mlp"]["down"] == P("tensor", "fsdp")
    assert specs["final_norm"] == P("fsdp")
    wide = param_specs(MODEL, shapes, make_mesh(MeshShape(tensor=4)))["layer_0"]
    assert wide["attention"]["qkv"] == P("fsdp", None, None, None)  # two heads, four devices
    assert wide["mlp"]["down"] == P("tensor", "fsdp")


def test_rows_stay_on_their_devices():
    """Else the partitioner brings all rows everywhere, where the width of a matrix is split."""
    mesh = make_mesh(MeshShape(fsdp=4))
    shapes = jax.eval_shape(lambda: MODEL.init(jax.random.key(0)))
    params = jax.tree.map(lambda spec: NamedSharding(mesh, spec), param_specs(MODEL, shapes, mesh))
    tokens = jax.ShapeDtypeStruct((8, 16), jnp.int32)

    def forward(params, tokens):
        return MODEL.forward(params, tokens)

    program = jax.jit(on_mesh(forward, mesh), in_shardings=(params, row_sharding(mesh)))
    compiled = program.lower(shapes, tokens).compile()
    assert compiled.output_shardings.shard_shape((8, 16, 64)) == (2, 16, 64)
    text = compiled.as_text()  # of one device
    assert "f32[2,16,64]" in text and "f32[8,16,64]" not in text
    assert "sharding_constraint" not in str(jax.make_jaxpr(forward)(shapes, tokens))


def test_arrays_come_to_their_place_and_stay_there():
    mesh = make_mesh(MeshShape(data=4))
    rows = row_sharding(mesh)
    values = {"x": np.arange(8.0), "key": jax.random.split(jax.random.key(3), 8)}
    placed = place(values, rows)
    assert all(leaf.sharding.is_equivalent_to(rows, 1) for leaf in placed.values())
    np.testing.assert_array_equal(placed["x"], values["x"])
    assert (placed["key"] == values["key"]).all()
    assert [s.data.shape for s in placed["x"].addressable_shards] == [(2,)] * 4
    assert place(placed, rows)["x"] is placed["x"]
    np.testing.assert_array_equal(fetch(placed)["x"], values["x"])


def test_a_step_that_takes_placed_memory_leaves_the_source_alone():
    """Eight copies of one host array must not share its memory once a step may write to it."""
    whole = NamedSharding(make_mesh(MESH), P())
    step = jax.jit(lambda x: x * 0 - 1, donate_argnums=0, out_shardings=whole)
    for source in (np.full(4096, 7.0, np.float32), jnp.full(4096, 7.0)):
        after = step(place(source, whole))
        assert (np.asarray(after) == -1).all() and (np.asarray(source) == 7).all()


def test_meshes_that_do_not_fit():
    with pytest.raises(MeshError, match="3 x 1 x 3 needs 9 devices, there are 8"):
        make_mesh(MeshShape(data=3, tensor=3))
    with pytest.raises(ValueError, match=r"mesh.fsdp must be at least 1, got 0"):
        MeshShape(fsdp=0)
    with pytest.raises(ValueError, match="32 rollouts of .* cannot be split over .* = 3 devices"):
        TrainConfig(mesh=MeshShape(data=3))
    with pytest.raises(ValueError, match="255 games of an evaluation cannot be split"):
        TrainConfig(eval_tasks=255, mesh=MeshShape(fsdp=2))
    with pytest.raises(ValueError, match="12 rollouts of a minibatch cannot be split"):
        TrainConfig(groups=16, group_size=3, mesh=MeshShape(data=8))


@pytest.mark.slow
def test_a_mesh_does_what_one_device_does(lab, monkeypatch):
    traces, program = [], runners.train_step
    monkeypatch.setattr(runners, "train_step", lambda *a, **k: traces.append(1) or program(*a, **k))
    config = lab.config
    runner = loop.make_runner(dataclasses.replace(config, mesh=MESH), lab.world, lab.policy)
    parts_held = [lab.skill("look", "look.")], [], [lab.skill("help", "help.")]
    arms = [sum((parts_held[k] for k in range(3) if arm >> k & 1), []) for arm in range(8)]
    one = lab.on_trial(lab.state(arms), 0, 2)
    many = runner.placed(jax.tree.map(jnp.copy, one))
    decided = []
    for step in range(4):
        games = np.arange(2, dtype=np.int32) + 2 * step
        one, metrics, evidence = jax.device_get(lab.step(one, jnp.asarray(games)))
        many, metrics2, evidence2 = runner.step(many, runner.games(games))
        chex.assert_trees_all_equal(evidence, jax.device_get(evidence2))
        for name in ("arm_successes", "arm_trials", "trial_trials", "decision", "skipped"):
            np.testing.assert_array_equal(getattr(metrics, name), getattr(metrics2, name), name)
        # Sums over rows and over the width are taken in another order.
        chex.assert_trees_all_close(metrics, jax.device_get(metrics2), atol=1e-5, rtol=1e-4)
        chex.assert_trees_all_close(one.params, jax.device_get(many.params), atol=1e-5)
        chex.assert_trees_all_equal(one.bank, jax.device_get(many.bank))
        chex.assert_trees_all_equal(one.trials.active, jax.device_get(many.trials.active))
        decided.append(metrics.decision)
        if step == 0:  # one more while the others are under test, as the loop puts it there
            one = lab.on_trial(jax.tree.map(jnp.asarray, one), 1)
            many = runner.placed(lab.on_trial(many, 1))
    decided = np.array(decided)
    assert (decided.max(axis=0) >= 0).all() and len(set(decided.argmax(axis=0))) == 2
    assert all(
        leaf.sharding == place
        for leaf, place in zip(
            jax.tree.leaves(many.params), jax.tree.leaves(runner.shardings.params), strict=True
        )
    )
    assert len(traces) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ppo", "dpo", "gigpo"])
def test_other_algorithms_do_the_same_on_a_mesh(lab, kind):
    config = replace(lab.config, algorithm=dict(kind=kind))
    mesh = dataclasses.replace(config, mesh=MeshShape(data=2))
    runner = loop.make_runner(mesh, lab.world, lab.policy)
    step = jax.jit(lab.program(config, lab.world), donate_argnums=0)
    one = lab.state(config=config)
    many = runner.placed(jax.tree.map(jnp.copy, one))
    for number in range(2):
        games = np.arange(2, dtype=np.int32) + 2 * number
        one, metrics, evidence = step(one, jnp.asarray(games))
        many, metrics2, evidence2 = runner.step(many, runner.games(games))
        chex.assert_trees_all_equal(*jax.device_get((evidence, evidence2)))
        chex.assert_trees_all_close(*jax.device_get((metrics, metrics2)), atol=1e-5, rtol=1e-4)
        for of in ("params", "critic"):
            wanted, found = jax.device_get((getattr(one, of), getattr(many, of)))
            chex.assert_trees_all_close(wanted, found, atol=1e-5)
    assert float(metrics.grad_norm) > 0
