import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import discounted_returns, group_relative_advantages, step_group_advantages

from .against_float64 import check

steps = jax.jit(step_group_advantages, static_argnames="scale_by_std")


def test_returns_by_hand():
    rewards = np.array([[1.0, np.nan, 4.0, 8.0]])
    mask = np.array([[True, False, True, True]])
    with jax.debug_nans(False):
        got = jax.jit(discounted_returns)(rewards, mask, discount=0.5)
        later = discounted_returns(rewards, mask & (rewards > 3))
    np.testing.assert_allclose(got, [[5.0, 0.0, 8.0, 8.0]])
    np.testing.assert_allclose(later, [[0.0, 0.0, 12.0, 8.0]])
    with pytest.raises(ValueError, match="discount must lie in"):
        discounted_returns(jnp.zeros((1, 4)), mask, discount=2.0)


@pytest.mark.parametrize("function", [step_group_advantages, steps], ids=["plain", "jit"])
def test_hand_computed(function):
    # seen 7: returns 0 and 1; seen 3: three times 2; seen 5 once; one step was not taken
    returns = jnp.array([[0.0, 2.0, 1.0, 2.0, 4.0, 2.0, 99.0]])
    observation = jnp.array([[7, 3, 7, 3, 5, 3, 7]])
    mask = jnp.array([[True] * 6 + [False]])
    got = function(returns, observation, mask, scale_by_std=False)
    np.testing.assert_allclose(got, [[-0.5, 0, 0.5, 0, 0, 0, 0]])
    root = np.sqrt(0.5)
    np.testing.assert_allclose(
        function(returns, observation, mask), [[-root, 0, root, 0, 0, 0, 0]], rtol=1e-5
    )


@given(
    hnp.arrays(np.float32, (2, 9), elements=st.sampled_from([0.0, 1.0, 0.1, -0.5, 2.25])),
    hnp.arrays(np.int32, (2, 9), elements=st.sampled_from([-(2**31), -1, 0, 2**31 - 1])),
    hnp.arrays(bool, (2, 9)),
    st.booleans(),
)
def test_every_step_group_is_a_group(returns, observation, mask, scale):
    got = np.asarray(steps(returns, observation, mask, scale_by_std=scale))
    assert not np.any(got[~mask])
    for b in range(2):
        for seen in np.unique(observation[b]):
            members = (observation[b] == seen) & mask[b]
            alone = members.sum() < 2
            expected = np.zeros(members.sum())
            if not alone:
                group = jnp.asarray(returns[b][members])[None]
                expected = group_relative_advantages(group, scale_by_std=scale)[0]
            np.testing.assert_allclose(got[b][members], expected, rtol=1e-4, atol=1e-5)


def test_against_numpy():
    rng = np.random.default_rng(0)
    observation, mask = rng.integers(0, 3, (2, 12)), rng.random((2, 12)) < 0.8
    returns, weights = rng.normal(size=(2, 2, 12))

    def theirs(x):
        out = np.zeros(x.shape)
        for b in range(2):
            for seen in range(3):
                members = (observation[b] == seen) & mask[b]
                if members.sum() > 1:
                    r = x[b][members]
                    out[b, members] = (r - r.mean()) / (r.std(ddof=1) + 1e-6)
        return np.sum(weights * out)

    ours = functools.partial(step_group_advantages, observation=observation, mask=mask)
    check(lambda x: jnp.sum(weights * ours(x)), theirs, returns, rtol=1e-3, atol=1e-4)


def test_nothing_was_done():
    for shape in ((2, 3), (0, 3), (2, 0)):
        got = steps(jnp.ones(shape), jnp.zeros(shape, jnp.int32), jnp.zeros(shape, bool))
        assert got.shape == shape and not np.any(got)


def test_a_nan_stays_in_its_step_group():
    returns, seen = np.array([[np.nan, 1.0, 2.0, 3.0]]), jnp.array([[0, 0, 1, 1]])
    with jax.debug_nans(False):
        got = steps(returns, seen, jnp.ones((1, 4), bool))
    np.testing.assert_array_equal(np.isnan(got), [[True, True, False, False]])


def test_wrong_shapes_are_refused():
    ones = jnp.ones((2, 3))
    with pytest.raises(AssertionError, match="shape"):
        step_group_advantages(ones, jnp.zeros((2, 4), jnp.int32), jnp.ones((2, 3), bool))
    with pytest.raises(AssertionError, match="type"):
        step_group_advantages(ones, ones, jnp.ones((2, 3), bool))
