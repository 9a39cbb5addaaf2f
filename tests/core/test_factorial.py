"""Factorial designs: arms by the parts they hold, and what decisions do to them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.core.arms import assign_arms
from reskill_jax.core.contrast import within_group_contrast
from reskill_jax.core.factorial import arm_of_parts, arms_after, num_arms, parts_of_arms


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_arms_are_the_bits_of_their_parts(wrap):
    held = jnp.array([[0, 1, 0, 1, 0, 1], [0, 0, 1, 1, 0, 1], [0, 0, 0, 0, 1, 1]])
    arms = wrap(arm_of_parts)(held)
    chex.assert_type(arms, jnp.int32)
    np.testing.assert_array_equal(arms, [0, 1, 2, 3, 4, 7])
    np.testing.assert_array_equal(wrap(arm_of_parts)(held.astype(bool)), arms)
    back = wrap(lambda arms: parts_of_arms(arms, parts=3))(arms)
    np.testing.assert_array_equal(back, held)


def test_arms_of_groups():
    held = jax.random.bernoulli(jax.random.key(0), 0.5, (4, 3, 8))
    arms = arm_of_parts(held)
    assert arms.shape == (3, 8) and int(arms.max()) < num_arms(4) == 16
    np.testing.assert_array_equal(parts_of_arms(arms, parts=4), held)
    one_by_one = jax.vmap(arm_of_parts, in_axes=1)(held)
    np.testing.assert_array_equal(one_by_one, arms)


@pytest.mark.parametrize(
    ("decisions", "expected"),
    [
        ([-1, -1], [0, 1, 2, 3]),
        ([1, -1], [1, 1, 3, 3]),  # part 0 is in every version
        ([0, -1], [0, 0, 2, 2]),  # and here in none
        ([-1, 1], [2, 3, 2, 3]),
        ([1, 0], [1, 1, 1, 1]),
        ([0, 0], [0, 0, 0, 0]),
        ([1], [1, 1]),
        ([], [0]),
    ],
)
def test_what_is_decided_holds_in_every_version(decisions, expected):
    decisions = jnp.array(decisions, jnp.int32)
    np.testing.assert_array_equal(arms_after(decisions), expected)
    np.testing.assert_array_equal(jax.jit(arms_after)(decisions), expected)


@given(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=5), st.data())
def test_deciding_one_after_the_other_is_deciding_at_once(decisions, data):
    whole = np.asarray(arms_after(jnp.array(decisions)))
    version = np.arange(len(whole))
    for part in data.draw(st.permutations(range(len(decisions)))):
        alone = [-1] * len(decisions)
        alone[part] = decisions[part]
        version = version[np.asarray(arms_after(jnp.array(alone)))]
    np.testing.assert_array_equal(version, whole)


def test_effects_of_parts_are_told_apart():
    """Part 0 helps, part 1 harms as much, part 2 does nothing; all are tried at once."""
    groups, size, effect = 4000, 8, jnp.array([0.2, -0.2, 0.0])
    keys = jax.random.split(jax.random.key(3), 4)

    def assign(key):
        half = jnp.array([0.5, 0.5])
        return assign_arms(key, half, num_groups=groups, group_size=size, scheme="stratified")

    held = jax.vmap(assign)(keys[:3])
    chance = 0.5 + jnp.tensordot(effect, held, axes=1)
    success = jax.random.uniform(keys[3], chance.shape) < chance
    valid = jnp.ones_like(success)
    contrast = jax.vmap(lambda h: within_group_contrast(h, success, valid, num_arms=2))(held)
    # The standard error is 0.5 / sqrt(4000 * 2) = 0.0056.
    np.testing.assert_allclose(contrast.difference[:, 1], effect, atol=0.02)
