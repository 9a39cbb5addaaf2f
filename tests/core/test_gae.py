import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import generalized_advantages, rewards_of_decisions, value_losses

from .against_float64 import check, ragged

gae = jax.jit(generalized_advantages)


@pytest.mark.parametrize("function", [generalized_advantages, gae], ids=["plain", "jit"])
def test_hand_computed(function):
    # discount 1/2, lambda 1/2: deltas 1 + 2/2 - 1 = 1, 0 + 4/2 - 2 = 0, 8 + 0 - 4 = 4,
    # advantages 4, 0 + 4/4 = 1, 1 + 1/4
    got = function(
        jnp.array([[1.0, 0.0, 8.0]]),
        jnp.array([[1.0, 2.0, 4.0]]),
        jnp.ones((1, 3), bool),
        discount=0.5,
        trace_decay=0.5,
    )
    np.testing.assert_allclose(got[0], [[1.25, 1.0, 4.0]])
    np.testing.assert_allclose(got[1], [[2.25, 3.0, 8.0]])


def test_steps_outside_the_mask_do_not_exist():
    # the same three steps, with others in between that may hold anything
    nan = np.nan
    rewards = np.array([[nan, 1.0, 9.0, 0.0, 8.0, np.inf]], np.float32)
    values = np.array([[3.0, 1.0, nan, 2.0, 4.0, 7.0]], np.float32)
    mask = np.array([[False, True, False, True, True, False]])
    with jax.debug_nans(False):
        advantages, returns = gae(rewards, values, mask, discount=0.5, trace_decay=0.5)
        slope = jax.grad(lambda v: gae(rewards, v, mask, discount=0.5)[0].sum())(values)
    np.testing.assert_allclose(advantages, [[0, 1.25, 0, 1.0, 4.0, 0]])
    np.testing.assert_allclose(returns, [[0, 2.25, 0, 3.0, 8.0, 0]])
    assert np.all(np.isfinite(slope)) and not np.any(slope[~mask])


def test_both_ends_of_lambda():
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 3, 5)).astype(np.float32)
    mask = np.ones((3, 5), bool)
    advantages, _ = gae(rewards, values, mask, discount=0.9, trace_decay=0.0)
    following = np.concatenate([values[:, 1:], np.zeros((3, 1))], axis=1)
    np.testing.assert_allclose(advantages, rewards + 0.9 * following - values, atol=1e-6)
    _, returns = gae(rewards, values, mask, discount=1.0, trace_decay=1.0)
    np.testing.assert_allclose(returns, np.cumsum(rewards[:, ::-1], axis=1)[:, ::-1], atol=1e-5)


def test_nothing_was_done():
    for mask in (np.zeros((2, 3), bool), np.zeros((2, 0), bool), np.zeros((0, 3), bool)):
        for x in gae(np.ones(mask.shape), np.ones(mask.shape), mask):
            assert x.shape == mask.shape and not np.any(x)


def test_a_nan_reaches_what_came_before_it_in_its_row():
    values = np.array([[0.0, np.nan, 0.0], [0.0, 0.0, 0.0]])
    with jax.debug_nans(False):
        advantages, _ = gae(jnp.ones((2, 3)), values, jnp.ones((2, 3), bool))
    np.testing.assert_array_equal(np.isnan(advantages), [[True, True, False], [False] * 3])


def in_float64(rewards, values, mask, discount, decay):
    """One row after the other, from the end."""
    out = np.zeros(mask.shape)
    for n in range(mask.shape[0]):
        next_value = next_advantage = 0.0
        for t in reversed(range(mask.shape[1])):
            if mask[n, t]:
                delta = rewards[n, t] + discount * next_value - values[n, t]
                next_advantage = out[n, t] = delta + discount * decay * next_advantage
                next_value = values[n, t]
    return out


def test_against_numpy():
    rng = np.random.default_rng(1)
    mask = ragged(rng, 5, 7)
    rewards, values, weights = rng.normal(size=(3, *mask.shape))
    check(
        lambda v: jnp.sum(
            weights * generalized_advantages(rewards.astype(np.float32), v, mask, discount=0.9)[0]
        ),
        lambda v: np.sum(weights * in_float64(rewards, v, mask, 0.9, 0.95)),
        values,
    )


def test_vmap_and_pmap():
    rng = np.random.default_rng(2)
    rewards, values = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    mask = rng.random((4, 3, 5)) < 0.7
    whole = gae(*(x.reshape(12, 5) for x in (rewards, values, mask)))
    for spread in (jax.vmap(gae), jax.pmap(generalized_advantages)):
        for got, expected in zip(spread(rewards, values, mask), whole, strict=True):
            np.testing.assert_allclose(got.reshape(12, 5), expected, atol=1e-6)


def test_what_is_refused():
    ones, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
    with pytest.raises(AssertionError, match="rank"):
        generalized_advantages(ones[0], ones[0], mask[0])
    with pytest.raises(AssertionError, match="shape"):
        generalized_advantages(ones, ones[:, :2], mask)
    for name in ("discount", "trace_decay"):
        with pytest.raises(ValueError, match=f"{name} must lie in"):
            generalized_advantages(ones, ones, mask, **{name: 1.5})


def test_rewards_of_decisions_by_hand():
    # turn 0 has two decisions, turn 1 none, turn 2 one, turn 3 one that does not count
    rewards = jnp.array([[1.0, 2.0, 4.0, 8.0], [1.0, 2.0, 4.0, 8.0]])
    turn = jnp.array([[0, 0, 2, 3, 0], [1, 2, 0, 0, 0]])
    mask = jnp.array([[True, True, True, False, False], [True, True, False, False, False]])
    got = jax.jit(rewards_of_decisions)(rewards, turn, mask)
    # in the second row turn 0 was decided by nobody
    np.testing.assert_array_equal(got, [[0.0, 3.0, 12.0, 0.0, 0.0], [2.0, 12.0, 0.0, 0.0, 0.0]])


@given(
    hnp.arrays(np.int32, (3, 6), elements=st.integers(0, 4)),
    hnp.arrays(bool, (3, 6)),
    hnp.arrays(np.float32, (3, 5), elements=st.sampled_from([0.0, 1.0, -0.5])),
)
def test_no_reward_is_lost_behind_the_first_decision(turn, mask, rewards):
    turn = np.sort(turn, axis=1)
    got = np.asarray(jax.jit(rewards_of_decisions)(rewards, turn, mask))
    for n in range(3):
        expected = rewards[n, turn[n][mask[n]][0] :].sum() if mask[n].any() else 0
        np.testing.assert_allclose(got[n].sum(), expected)
    assert not np.any(got[~mask])


def test_value_losses_by_hand():
    values, returns = jnp.array([1.0, 3.0, 3.0]), jnp.array([2.0, 1.0, 4.0])
    np.testing.assert_allclose(value_losses(values, returns), [0.5, 2.0, 0.5])
    # moved from 2 to 3 with a clip of 1/2, i.e. to 2.5: 1.5^2 / 2 is more than 1 / 2
    clipped = functools.partial(value_losses, old_values=jnp.array([1.0, 3.0, 2.0]), clip=0.5)
    np.testing.assert_allclose(clipped(values, returns), [0.5, 2.0, 1.125])
    slope = jax.grad(lambda v: clipped(v, returns).sum())(values)
    np.testing.assert_allclose(slope, [-1.0, 2.0, 0.0])
    with pytest.raises(ValueError, match="needs old_values"):
        value_losses(values, returns, clip=0.5)
    with pytest.raises(ValueError, match="must be positive"):
        value_losses(values, returns, old_values=values, clip=0.0)


def test_value_losses_against_numpy():
    rng = np.random.default_rng(3)
    mask = ragged(rng, 4, 6)
    values, old, returns = rng.normal(size=(3, *mask.shape))

    def theirs(v):
        near = np.clip(v, old - 0.2, old + 0.2)
        return np.sum(np.where(mask, np.maximum((v - returns) ** 2, (near - returns) ** 2) / 2, 0))

    check(
        lambda v: jnp.sum(jnp.where(mask, value_losses(v, returns, old_values=old, clip=0.2), 0.0)),
        theirs,
        values,
    )
