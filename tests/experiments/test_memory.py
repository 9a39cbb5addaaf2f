"""The formula of memory per device, where it can be counted."""

import math

import jax
import memory
import pytest

from reskill_jax.devices.mesh import make_mesh
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.placing import state_shardings
from reskill_jax.training.sections import AlgorithmConfig
from reskill_jax.training.state import init_state
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()


@pytest.mark.parametrize("mesh", [(1, 1, 1), (1, 4, 1), (2, 2, 2)])
def test_what_is_held_is_what_the_formula_says(mesh):
    shape = memory.Shape(
        vocabulary=96, width=64, layers=3, heads=8, kv_heads=4, head=16, mlp=128, divergence=True
    )
    model = Decoder(
        DecoderConfig(
            vocabulary=96,
            width=64,
            layers=3,
            heads=8,
            kv_heads=4,
            head_width=16,
            mlp=128,
            qk_norm=True,
        )
    )
    config = TrainConfig(algorithm=AlgorithmConfig(kl_weight=0.1), mesh=MeshShape(*mesh))
    bank = loop.make_bank(config, WORLD, [()])
    like = jax.eval_shape(lambda: init_state(config, model.init(jax.random.key(0)), bank))
    assert sum(leaf.size for leaf in jax.tree.leaves(like.params)) == shape.parameters
    shardings = state_shardings(like, make_mesh(config.mesh), model, config)
    trees = [(t.params, t.opt_state, t.reference) for t in (like, shardings)]
    held = sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(*map(jax.tree.leaves, trees), strict=True)
    )
    # Norms are split in fewer parts than matrices; the optimizer also counts its steps.
    assert held == pytest.approx(memory.estimate(shape, mesh)["held"], rel=0.02)
    if mesh == (1, 1, 1):
        assert held == memory.estimate(shape, mesh)["held"] + 2 * 4


SMOLLM2 = memory.Shape(
    vocabulary=49_152, width=576, layers=30, heads=9, kv_heads=3, head=64, mlp=1536
)


@pytest.mark.parametrize("shape", [SMOLLM2, memory.Shape()], ids=["SmolLM2-135M", "Qwen3-4B"])
@pytest.mark.parametrize("mesh", [(1, 8, 1), (2, 4, 1)])
def test_what_is_held_of_real_shapes(shape, mesh):
    model = Decoder(
        DecoderConfig(
            vocabulary=shape.vocabulary,
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_width=shape.head,
            mlp=shape.mlp,
            qk_norm=True,
        )
    )
    config = TrainConfig(mesh=MeshShape(*mesh))
    bank = loop.make_bank(config, WORLD, [()])
    like = jax.eval_shape(lambda: init_state(config, model.init(jax.random.key(0)), bank))
    assert sum(leaf.size for leaf in jax.tree.leaves(like.params)) == shape.parameters
    shardings = state_shardings(like, make_mesh(config.mesh), model, config)
    trees = [(t.params, t.opt_state) for t in (like, shardings)]
    held = sum(
        math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf, place in zip(*map(jax.tree.leaves, trees), strict=True)
    )
    assert held == pytest.approx(memory.estimate(shape, mesh)["held"], rel=0.01)
    assert held == pytest.approx(12 * shape.parameters / mesh[1], rel=0.01)


def test_a_larger_mesh_needs_less_of_each_device():
    shape = memory.Shape()
    peaks = [memory.peak(memory.estimate(shape, (1, fsdp, 1))) for fsdp in (1, 4, 16)]
    assert peaks == sorted(peaks, reverse=True)
    assert memory.Shape().parameters == pytest.approx(4.02e9, rel=0.01)
    parts = memory.estimate(shape, (1, 16, 1))
    assert parts["held"] == pytest.approx(12 * shape.parameters / 16)
    assert memory.estimate(shape, (4, 4, 1))["held"] == 4 * parts["held"]


def test_the_quick_way_prints_the_table(capsys):
    assert memory.main(["--quick"]) == 0
    assert "| v5e-16, 16 x 16 GB | 1x8x2 |" in capsys.readouterr().out
