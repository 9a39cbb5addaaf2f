"""Low-rank adapters: nothing at first, then a change of low rank that training finds."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models import decoder
from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.lora import init_adapters, merge

PLAIN = DecoderConfig(vocabulary=23, width=12, layers=2, heads=4, kv_heads=2, mlp=20, head_width=4)
DEEP = dataclasses.replace(PLAIN, layers=6)  # a stack


def made(config, **options):
    params = decoder.init(jax.random.key(0), config)
    return params, init_adapters(jax.random.key(1), params, **{"rank": 2} | options)


@pytest.mark.parametrize("config", [PLAIN, DEEP], ids=["alone", "stacked"])
def test_fresh_adapters_change_nothing(config):
    params, adapters = made(config)
    chex.assert_trees_all_equal(merge(params, adapters), params)
    shapes = {leaf.shape[-2:] for leaf in jax.tree.leaves(adapters)}
    # Inputs by rank, rank by outputs: of qkv, out, gate_up, down.
    assert shapes == {(12, 2), (2, 32), (16, 2), (2, 12), (2, 40), (20, 2)}
    assert len(jax.tree.leaves(adapters)) == 8 * (1 if config is DEEP else 2)
    keys = [leaf for leaf in jax.tree.leaves(adapters) if leaf.any()]
    assert len({float(leaf.ravel()[0]) for leaf in keys}) == len(keys)  # no two share noise


@pytest.mark.parametrize("config", [PLAIN, DEEP], ids=["alone", "stacked"])
def test_a_merged_kernel_by_hand(config):
    params, adapters = made(config, targets=("out",))
    adapters = jax.tree.map(lambda x: x + 0.5, adapters)
    merged = merge(params, adapters, scale=0.25)
    root = ("stack", "0") if config is DEEP else ("layer_1",)
    old, new, adapter = params, merged, adapters
    for key in (*root, "attention", "out"):
        old, new, adapter = old[key], new[key], adapter[key]
    at = (3,) if config is DEEP else ()
    change = np.asarray(adapter["a"])[at] @ np.asarray(adapter["b"])[at]
    expected = np.asarray(old)[at] + 0.25 * change.reshape(2, 2, 4, 12)
    np.testing.assert_allclose(np.asarray(new)[at], expected, rtol=1e-5)
    for name in ("embedding", "final_norm"):
        assert merged[name] is params[name]


def test_gradients_reach_the_adapters_alone():
    params, adapters = made(PLAIN)
    tokens = jnp.asarray([[1, 2, 3, 4]])

    def loss(adapters, params):
        hidden = decoder.forward(merge(params, adapters), tokens, config=PLAIN)
        return jnp.mean(decoder.logits(params, hidden, config=PLAIN) ** 2)

    grads, of_params = jax.grad(loss, argnums=(0, 1))(adapters, params)
    for block in ("layer_0", "layer_1"):
        for room, name in (("attention", "qkv"), ("mlp", "down")):
            assert np.abs(grads[block][room][name]["b"]).max() > 0
            assert not np.asarray(of_params[block][room][name]).any()
    lower = jax.tree.map(lambda x, g: x - 0.1 * g, adapters, grads)
    assert loss(lower, params) < loss(adapters, params)


def test_types_stay():
    params, adapters = made(PLAIN)
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    chex.assert_trees_all_equal_dtypes(merge(half, adapters), half)


def test_mistakes():
    params, _ = made(PLAIN)
    with pytest.raises(ValueError, match="no kernel is called 'query'; qkv, out"):
        init_adapters(jax.random.key(0), params, rank=2, targets=("query",))
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        init_adapters(jax.random.key(0), params, rank=0)
