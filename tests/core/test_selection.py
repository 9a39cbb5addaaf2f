import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import (
    mixed_groups,
    overlong_penalty,
    truncated_importance_weights,
    without_overlong,
)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_mixed_groups_by_hand(jit):
    rewards = jnp.array([[0.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.1, 0.2]])
    mask = jnp.array([[True, True], [True, True], [True, False], [False, False], [True, True]])
    np.testing.assert_array_equal(
        jit(mixed_groups)(rewards, mask), [True, False, False, False, True]
    )


def test_mixed_groups_without_numbers():
    nan = np.array([[np.nan, 0.0, 1.0], [np.nan, 0.0, 1.0]])
    mask = jnp.array([[True, True, True], [False, True, True]])
    with jax.debug_nans(False):
        np.testing.assert_array_equal(mixed_groups(nan, mask), [False, True])
    assert not np.any(mixed_groups(jnp.zeros((2, 0)), jnp.zeros((2, 0), bool)))


def test_overlong_sequences_are_left_out():
    mask = jnp.array([[True, True], [True, False], [False, True]])
    got = jax.jit(without_overlong)(mask, jnp.array([False, True, False]))
    np.testing.assert_array_equal(got, [[True, True], [False, False], [False, True]])
    with pytest.raises(AssertionError, match="shape"):
        without_overlong(mask, jnp.zeros(2, bool))


def test_overlong_penalty_by_hand():
    got = overlong_penalty(jnp.array([0, 12, 13, 14, 16, 17]), limit=16, buffer=4)
    np.testing.assert_allclose(got, [0.0, 0.0, -0.25, -0.5, -1.0, -1.0])
    for buffer in (0, 17):
        with pytest.raises(ValueError, match="from 1 to limit = 16"):
            overlong_penalty(jnp.array([1]), limit=16, buffer=buffer)


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_importance_weights_by_hand(jit):
    learner = jnp.log(jnp.array([0.5, 0.6, 0.1, 0.3]))
    sampler = jnp.log(jnp.array([0.25, 0.1, 0.4, 0.3]))
    mask = jnp.array([True, True, True, False])
    got = jit(truncated_importance_weights)(learner, sampler, mask)
    np.testing.assert_allclose(got, [2.0, 2.0, 0.25, 0.0], rtol=1e-6)


def test_importance_weights_stay_finite_and_have_no_gradient():
    learner, mask = np.array([0, -200, np.nan], np.float32), np.array([True, True, False])
    sampler = np.array([-200.0, 0.0, np.inf])
    with jax.debug_nans(False):
        got = truncated_importance_weights(learner, sampler, mask, cap=3.0)
        slope = jax.grad(lambda x: truncated_importance_weights(x, sampler, mask).sum())(learner)
        seen = np.asarray(truncated_importance_weights(learner, sampler, jnp.ones(3, bool)))
    np.testing.assert_allclose(got, [3.0, 0.0, 0.0], rtol=1e-6)
    assert not np.any(slope) and np.isnan(seen[2])


def test_importance_weights_are_unbiased_below_the_cap():
    learner, sampler = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.3, 0.3])
    value = np.array([1.0, 5.0, -2.0])
    weights = truncated_importance_weights(
        jnp.log(learner), jnp.log(sampler), jnp.ones(3, bool), cap=2.0
    )
    np.testing.assert_allclose(
        np.sum(sampler * np.asarray(weights) * value), np.sum(learner * value), rtol=1e-5
    )
    with pytest.raises(ValueError, match="cap must be positive"):
        truncated_importance_weights(jnp.zeros(1), jnp.zeros(1), jnp.ones(1, bool), cap=0.0)
