from math import log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import dpo_loss, preference_losses, rank_pairs

from .against_float64 import check

pairs = jax.jit(lambda rewards, mask: rank_pairs(rewards, mask=mask))


@pytest.mark.parametrize("function", [dpo_loss, jax.jit(dpo_loss)], ids=["plain", "jit"])
def test_hand_computed(function):
    # log ratios log 2 and log 1/2, and equal ones; beta 1: margins log 4 and 0, the loss is
    # -log(4/5) and log 2
    chosen, rejected = jnp.array([log(0.5), -1.0]), jnp.array([log(0.25), -2.0])
    reference = jnp.array([log(0.25), -1.0]), jnp.array([log(0.5), -2.0])
    loss, margins = function(chosen, rejected, *reference, beta=1.0)
    np.testing.assert_allclose(margins, [log(4), 0.0], atol=1e-6)
    np.testing.assert_allclose(loss, (log(5 / 4) + log(2)) / 2, rtol=1e-6)


def test_no_pair_is_no_loss():
    loss, margins = dpo_loss(*[jnp.zeros(0)] * 4)
    assert loss == 0 and margins.shape == (0,)
    gradient = jax.grad(lambda c: dpo_loss(c, *[jnp.zeros(0)] * 3)[0])(jnp.zeros(0))
    assert gradient.shape == (0,)


def test_large_margins_keep_a_finite_loss():
    far = jnp.array([-1e4, 1e4, 3e38])
    losses, margins = preference_losses(far, *[jnp.zeros(3)] * 3, beta=0.1)
    np.testing.assert_allclose(losses, [1e3, 0.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(margins, 0.1 * far, rtol=1e-6)
    slope = jax.grad(lambda c: preference_losses(c, *[jnp.zeros(3)] * 3)[0].sum())(far)
    np.testing.assert_allclose(slope, [-0.1, 0.0, 0.0], atol=1e-7)


def test_a_nan_is_seen():
    nan = np.array([0.0, np.nan])
    with jax.debug_nans(False):
        loss, margins = dpo_loss(nan, *[jnp.zeros(2)] * 3)
    assert np.isnan(loss) and np.isnan(margins).tolist() == [False, True]


def test_against_numpy():
    rng = np.random.default_rng(0)
    given = rng.normal(size=(4, 6)) * 5

    def theirs(x):
        margins = 0.3 * ((x[0] - given[2]) - (x[1] - given[3]))
        return np.mean(np.log1p(np.exp(-margins)))

    fixed = jnp.asarray(given[2:], jnp.float32)
    check(lambda x: dpo_loss(x[0], x[1], *fixed, beta=0.3)[0], theirs, given[:2])


def test_no_gradient_into_the_reference():
    ones = jnp.ones(3)
    slopes = jax.grad(lambda *x: dpo_loss(*x)[0], argnums=(2, 3))(ones, -ones, ones, ones)
    assert not np.any(slopes[0]) and not np.any(slopes[1])


def test_vmap_equals_one_after_the_other():
    x = jax.random.normal(jax.random.key(0), (4, 3, 5))
    losses, _ = jax.vmap(dpo_loss)(*x)
    for n in range(3):
        np.testing.assert_allclose(losses[n], dpo_loss(*x[:, n])[0], rtol=1e-6)


def test_what_is_refused():
    with pytest.raises(AssertionError, match="shape"):
        dpo_loss(jnp.zeros(2), jnp.zeros(3), jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(AssertionError, match="rank"):
        dpo_loss(*[jnp.zeros((2, 2))] * 4)
    with pytest.raises(ValueError, match="beta must lie in"):
        dpo_loss(*[jnp.zeros(2)] * 4, beta=-1.0)
    with pytest.raises(ValueError, match="group of 3 cannot be split into pairs"):
        rank_pairs(jnp.zeros((1, 3)))


def test_pairs_by_hand():
    rewards = jnp.array([[1.0, 0.0, 2.0, 0.0], [1.0, 1.0, 1.0, 1.0], [0.0, 9.0, 1.0, 0.5]])
    mask = jnp.array([[True] * 4, [True] * 4, [True, False, True, True]])
    order, paired = pairs(rewards, mask)
    # best 2 with the later of the two worst, then 0 with 1
    np.testing.assert_array_equal(order[0], [2, 3, 0, 1])
    np.testing.assert_array_equal(paired, [[True, True], [False, False], [True, False]])
    np.testing.assert_array_equal(order[2, :2], [2, 0])  # 1 and 0, the 9 does not count
    assert order.dtype == jnp.int32 and paired.dtype == bool


def test_nothing_to_pair():
    for mask in ([False] * 4, [True, False, False, False]):
        _, paired = pairs(jnp.arange(4.0)[None], jnp.array([mask]))
        assert not np.any(paired)
    with jax.debug_nans(False):
        _, paired = pairs(np.array([[np.nan, 1.0, 1.0, np.inf]]), jnp.ones((1, 4), bool))
    assert not np.any(paired)


@given(
    hnp.arrays(np.float32, (3, 6), elements=st.sampled_from([0.0, 1.0, 0.1, -0.5])),
    hnp.arrays(bool, (3, 6)),
)
def test_pairs_are_of_valid_members_with_different_rewards(rewards, mask):
    order, paired = (np.asarray(x) for x in pairs(rewards, mask))
    for b in range(3):
        assert sorted(order[b]) == list(range(6))  # everybody once
        valid = rewards[b][mask[b]]
        ranked = np.sort(valid)[::-1]
        expected = sum(ranked[k] > ranked[-1 - k] for k in range(len(valid) // 2))
        assert paired[b].sum() == expected
        for p in np.flatnonzero(paired[b]):
            better, worse = order[b, 2 * p], order[b, 2 * p + 1]
            assert mask[b, better] and mask[b, worse]
            assert rewards[b, better] > rewards[b, worse]
