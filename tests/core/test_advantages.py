import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import group_relative_advantages, leave_one_out_advantages, whiten
from reskill_jax.core.advantages import token_advantages

from .against_float64 import check

REWARDS = hnp.arrays(np.float32, (3, 4), elements=st.sampled_from([0.0, 1.0, 0.1, -0.5, 2.25]))
MASKS = hnp.arrays(bool, (3, 4))
MANY = np.random.default_rng(1).random((6, 6)) < 0.7

advantages = jax.jit(group_relative_advantages)
unscaled = jax.jit(lambda r, m: group_relative_advantages(r, mask=m, scale_by_std=False))
scaled = jax.jit(lambda r, m: group_relative_advantages(r, mask=m))
others = jax.jit(lambda r, m: leave_one_out_advantages(r, mask=m))
tokens = jax.jit(token_advantages, static_argnames="whitening")


@pytest.mark.parametrize("function", [group_relative_advantages, advantages], ids=["plain", "jit"])
def test_hand_computed(function):
    # mean 1/4, deviations -1/4 three times and 3/4, sample variance (3/16 + 9/16) / 3 = 1/4
    rewards = jnp.array([[0.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]])
    expected = np.array([[-0.5, -0.5, -0.5, 1.5], [0.0, 0.0, 0.0, 0.0]])
    np.testing.assert_allclose(function(rewards), expected, atol=1e-5)


def test_without_the_standard_deviation():
    rewards, mask = jnp.array([[0.0, 0.0, 0.0, 1.0]]), jnp.ones((1, 4), bool)
    np.testing.assert_allclose(unscaled(rewards, mask), [[-0.25, -0.25, -0.25, 0.75]], atol=1e-7)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e-8, 1e8])
def test_equal_rewards_give_exactly_zero(value):
    # 0.1 * 3 / 3 is not 0.1 in float32: the group must still count as one without variance
    assert not np.any(advantages(jnp.full((2, 3), value)))


def test_a_single_valid_member_keeps_its_reward():
    rewards = jnp.array([[3.0, jnp.inf, 7.0], [0.5, 1.0, 2.0]])
    mask = jnp.array([[True, False, False], [False, False, False]])
    np.testing.assert_array_equal(scaled(rewards, mask), [[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(group_relative_advantages(jnp.array([[4.0]])), [[4.0]])


def test_integers_and_bools_are_rewards_too():
    expected = advantages(jnp.array([[0.0, 1.0, 1.0]]))
    np.testing.assert_array_equal(advantages(jnp.array([[0, 1, 1]])), expected)
    np.testing.assert_array_equal(advantages(jnp.array([[False, True, True]])), expected)


@given(REWARDS, MASKS, st.permutations(range(4)))
def test_order_within_a_group_does_not_matter(rewards, mask, order):
    order = np.array(order)
    straight = np.asarray(scaled(rewards, mask))[:, order]
    np.testing.assert_allclose(
        scaled(rewards[:, order], mask[:, order]), straight, rtol=1e-4, atol=1e-4
    )


@given(REWARDS, MASKS)
def test_masked_rewards_have_no_influence(rewards, mask):
    result = np.asarray(scaled(rewards, mask))
    assert not np.any(result[~mask])
    np.testing.assert_array_equal(result, scaled(np.where(mask, rewards, 99), mask))


@given(REWARDS, MASKS)
def test_groups_are_centred(rewards, mask):
    result = np.asarray(scaled(rewards, mask))
    several = mask.sum(1) > 1
    np.testing.assert_allclose(result.sum(1)[several], 0, atol=1e-4)


def test_gradients_are_finite_and_right():
    rewards = jnp.array([[0.0, 1.0, 3.0], [1.0, 1.0, 1.0], [1.0, 5.0, 2.0]])
    mask = jnp.array([[True, True, True], [True, True, True], [True, False, False]])
    weights = jnp.arange(9.0).reshape(3, 3)
    gradient = jax.grad(lambda r: jnp.sum(weights * scaled(r, mask)))(rewards)
    assert np.all(np.isfinite(gradient))
    np.testing.assert_array_equal(gradient[1], 0)
    step = 1e-2
    moved = [jnp.sum(weights * scaled(rewards.at[0, 1].add(s), mask)) for s in (step, -step)]
    np.testing.assert_allclose(gradient[0, 1], (moved[0] - moved[1]) / (2 * step), rtol=1e-2)


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError, match="rank"):
        group_relative_advantages(jnp.ones(3))
    with pytest.raises(AssertionError, match="shape"):
        group_relative_advantages(jnp.ones((2, 3)), mask=jnp.ones((3, 2), bool))
    with pytest.raises(AssertionError, match="shape"):
        whiten(jnp.ones(3), jnp.ones(4, bool))
    with pytest.raises(AssertionError):
        token_advantages(jnp.ones(3), jnp.ones((4, 2), bool))


def test_whiten_by_hand():
    # 1, 2, 3: mean 2, variance 2/3; the 9 is masked
    result = whiten(jnp.array([1.0, 2.0, 9.0, 3.0]), jnp.array([True, True, False, True]))
    np.testing.assert_allclose(result, np.sqrt(1.5) * np.array([-1.0, 0.0, 0.0, 1.0]), atol=1e-6)


def test_whiten_of_nothing_and_of_one():
    np.testing.assert_array_equal(whiten(jnp.ones((2, 2)), jnp.zeros((2, 2), bool)), 0)
    np.testing.assert_array_equal(whiten(jnp.array([5.0, 1.0]), jnp.array([True, False])), 0)


def test_whiten_over_devices_equals_one_device():
    values = jax.random.normal(jax.random.key(0), (4, 2, 3))
    mask = jax.random.bernoulli(jax.random.key(1), 0.6, (4, 2, 3))
    spread = jax.pmap(lambda v, m: whiten(v, m, axis_name="data"), axis_name="data")(values, mask)
    whole = whiten(values.reshape(8, 3), mask.reshape(8, 3))
    np.testing.assert_allclose(spread.reshape(8, 3), whole, atol=1e-6)


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("whitening", [True, False])
def test_against_the_reference(reference_numbers, scale, whitening):
    for case in reference_numbers["advantages"]:
        rewards = jnp.array(case["rewards"])
        mask = np.array(case["response_mask"]) > 0
        per_rollout = (scaled if scale else unscaled)(rewards, jnp.ones(rewards.shape, bool))
        ours = np.asarray(tokens(per_rollout.reshape(-1), mask, whitening=whitening))
        theirs = np.array(case["advantages"][f"std={scale},whiten={whitening}"]) * mask
        flat = np.repeat(np.ptp(case["rewards"], axis=1) == 0, rewards.shape[1])
        np.testing.assert_allclose(ours[~flat], theirs[~flat], rtol=3e-4, atol=3e-4)
        assert not np.any(ours[flat])
        if not whitening:
            np.testing.assert_allclose(theirs[flat], 0, atol=3e-4)


@pytest.mark.parametrize("num_devices", [2, 4])
def test_pmap_equals_one_device(num_devices):
    rewards = jax.random.normal(jax.random.key(2), (num_devices, 2, 5))
    spread = jax.pmap(group_relative_advantages)(rewards)
    np.testing.assert_allclose(spread.reshape(-1, 5), advantages(rewards.reshape(-1, 5)), atol=1e-6)
    stacked = jax.jit(jax.vmap(group_relative_advantages))(rewards)
    np.testing.assert_allclose(stacked, spread, atol=1e-6)


def test_one_trace():
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(lambda r: group_relative_advantages(r), n=1))
    for seed in range(3):
        traced(jax.random.normal(jax.random.key(seed), (2, 3)))


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_leave_one_out_by_hand(jit):
    # 1 less the mean of 0 and 2; 0 less 3/2; 2 less 1/2
    rewards = jnp.array([[1.0, 0.0, 2.0], [0.1, 0.1, 0.1]])
    got = jit(leave_one_out_advantages)(rewards)
    np.testing.assert_allclose(got[0], [0.0, -1.5, 1.5], atol=1e-6)
    assert not np.any(got[1])


@given(REWARDS, MASKS)
def test_leave_one_out_leaves_one_out(rewards, mask):
    got = np.asarray(others(rewards, mask))
    for b in range(3):
        for g in range(4):
            rest = rewards[b][mask[b] & (np.arange(4) != g)].astype(np.float64)
            expected = rewards[b, g] - rest.mean() if mask[b, g] and len(rest) else 0
            np.testing.assert_allclose(got[b, g], expected, atol=1e-6)


def test_leave_one_out_of_a_group_of_one_and_of_none():
    assert not np.any(leave_one_out_advantages(jnp.array([[4.0], [2.0]])))
    mask = jnp.array([[True, False], [False, False]])
    assert not np.any(others(jnp.array([[3.0, jnp.inf], [1.0, 2.0]]), mask))
    assert leave_one_out_advantages(jnp.zeros((2, 0))).shape == (2, 0)


def test_leave_one_out_shows_what_is_not_finite():
    rewards = np.array([[np.nan, 1.0], [np.inf, 1.0], [1.0, 2.0]])
    with jax.debug_nans(False):
        got = others(rewards, jnp.array([[True, True], [True, False], [True, True]]))
    np.testing.assert_array_equal(np.isnan(got), [[True, True], [True, False], [False, False]])


def test_leave_one_out_against_numpy():
    rng = np.random.default_rng(0)
    rewards, weights, mask = rng.normal(size=(4, 5)), rng.normal(size=(4, 5)), MANY[:4, :5]

    def theirs(r):
        total, count = np.where(mask, r, 0).sum(1, keepdims=True), mask.sum(1, keepdims=True)
        rest = (total - r) / np.maximum(count - 1, 1)
        return np.sum(weights * np.where(mask & (count > 1), r - rest, 0))

    check(lambda r: jnp.sum(weights * leave_one_out_advantages(r, mask=mask)), theirs, rewards)


def test_leave_one_out_on_devices():
    rewards = jax.random.normal(jax.random.key(2), (4, 2, 5))
    whole = leave_one_out_advantages(rewards.reshape(8, 5))
    for spread in (jax.vmap(leave_one_out_advantages), jax.pmap(leave_one_out_advantages)):
        np.testing.assert_allclose(spread(rewards).reshape(8, 5), whole, atol=1e-6)
    with pytest.raises(AssertionError, match="rank"):
        leave_one_out_advantages(jnp.ones(3))
