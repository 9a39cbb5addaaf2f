import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import (
    BetaPosterior,
    arm_outcomes,
    assign_arms,
    assignment_probabilities,
    init_posterior,
    probability_best,
)

SCHEMES = ("independent", "stratified")
best = jax.jit(probability_best)
assignment = jax.jit(lambda p, m, f: assignment_probabilities(p, m, floor=f))


def assign(key, probabilities, scheme, num_groups=64, group_size=8):
    return assign_arms(
        key, probabilities, num_groups=num_groups, group_size=group_size, scheme=scheme
    )


outcomes = jax.jit(arm_outcomes, static_argnames="num_arms")
assign_jit = jax.jit(assign, static_argnums=(2, 3, 4))


def beta(alpha, beta_):
    return BetaPosterior(jnp.asarray(alpha, jnp.float32), jnp.asarray(beta_, jnp.float32))


# ---------------------------------------------------------------- probabilities


def test_two_arms_are_clipped():
    both = jnp.ones(2, bool)
    np.testing.assert_allclose(assignment(init_posterior(2), both, 0.15), [0.5, 0.5], atol=1e-6)
    np.testing.assert_allclose(
        assignment(beta([1, 99], [99, 1]), both, 0.15), [0.15, 0.85], atol=1e-6
    )
    posterior = beta([10, 12], [12, 10])
    np.testing.assert_allclose(assignment(posterior, both, 0.15), best(posterior, both), atol=1e-6)


def test_half_is_uniform_and_zero_is_thompson():
    mask = jnp.array([True, True, True, False, True])
    posterior = beta([1, 5, 3, 7, 2], [9, 5, 7, 3, 2])
    np.testing.assert_allclose(
        assignment(posterior, mask, 0.5), [0.25, 0.25, 0.25, 0, 0.25], atol=1e-6
    )
    np.testing.assert_allclose(assignment(posterior, mask, 0.0), best(posterior, mask), atol=1e-6)


def test_one_arm_gets_everything():
    np.testing.assert_array_equal(assignment(init_posterior(1), jnp.ones(1, bool), 0.15), [1])
    mask = jnp.array([False, True, False])
    np.testing.assert_allclose(assignment(init_posterior(3), mask, 0.15), [0, 1, 0])


LOG_PARAMETER = st.floats(-3, 3.5).map(lambda x: 10.0**x)


@given(
    st.lists(st.tuples(LOG_PARAMETER, LOG_PARAMETER), min_size=5, max_size=5),
    st.integers(1, 31),
    st.sampled_from([0.0, 0.15, 0.4, 0.5]),
)
def test_floor_and_total(parameters, bits, floor):
    alpha, beta_ = np.array(parameters, np.float32).T
    mask = np.array([bits >> i & 1 for i in range(5)], bool)
    posterior = beta(alpha, beta_)
    got = np.asarray(assignment(posterior, jnp.asarray(mask), jnp.float32(floor)))
    np.testing.assert_allclose(got.sum(), 1, atol=1e-5)
    assert not np.any(got[~mask])
    if mask.sum() > 1:
        assert got[mask].min() >= 2 * floor / mask.sum() - 1e-6
    # the order of the arms is kept
    thompson = np.asarray(best(posterior, jnp.asarray(mask)))
    order = np.argsort(thompson[mask])
    assert np.all(np.diff(got[mask][order]) >= -1e-6)


def test_floor_out_of_range():
    with pytest.raises(ValueError, match=r"floor must lie in \[0, 0.5\]"):
        assignment_probabilities(init_posterior(2), jnp.ones(2, bool), floor=0.6)


# ---------------------------------------------------------------- assignment


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("probabilities", [[1.0], [0.3, 0.7], [0.2, 0.0, 0.45, 0.35, 0.0]])
def test_shares_follow_the_probabilities(scheme, probabilities):
    arms = assign_jit(jax.random.key(0), jnp.array(probabilities), scheme, 2000, 8)
    chex.assert_shape(arms, (2000, 8))
    assert arms.dtype == jnp.int32
    for member in (np.asarray(arms), np.asarray(arms)[:, 0], np.asarray(arms)[:, 7]):
        shares = np.bincount(member.ravel(), minlength=len(probabilities)) / member.size
        bound = 4.5 * np.sqrt(0.25 / member.size)
        np.testing.assert_allclose(shares, probabilities, atol=bound)
        assert not np.any(shares[np.array(probabilities) == 0])


@given(
    hnp.arrays(np.float32, 5, elements=st.floats(0, 1, width=32)).filter(lambda p: p.sum() > 0.1),
    st.integers(0, 2**31 - 1),
)
def test_stratified_counts_are_as_even_as_they_can_be(weights, seed):
    arms = np.asarray(assign_jit(jax.random.key(seed), jnp.asarray(weights), "stratified"))
    share = 8 * weights.astype(np.float64) / weights.astype(np.float64).sum()
    for group in arms:
        counts = np.bincount(group, minlength=5)
        assert np.all(counts >= np.floor(share - 1e-4)) and np.all(counts <= np.ceil(share + 1e-4))


def test_groups_and_keys_differ():
    for scheme in SCHEMES:
        one = np.asarray(assign_jit(jax.random.key(0), jnp.array([0.5, 0.5]), scheme))
        two = np.asarray(assign_jit(jax.random.key(1), jnp.array([0.5, 0.5]), scheme))
        assert np.any(one != two)
        assert len({tuple(row) for row in one}) > 20
        again = assign_jit(jax.random.key(0), jnp.array([0.5, 0.5]), scheme)
        np.testing.assert_array_equal(one, again)


def test_vmap_over_keys_equals_single_calls():
    keys = jax.random.split(jax.random.key(3), 4)
    probabilities = jnp.array([0.4, 0.6])
    for scheme in SCHEMES:

        def f(key, scheme=scheme):
            return assign(key, probabilities, scheme, 2, 8)

        single = jnp.stack([assign_jit(k, probabilities, scheme, 2, 8) for k in keys])
        np.testing.assert_array_equal(jax.jit(jax.vmap(f))(keys), single)
        np.testing.assert_array_equal(jax.pmap(f)(keys), single)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "wrong", [[0.0, 0.0], [np.nan, 1.0], [0.5, np.inf], [-0.1, 1.0], [-1.0, -1.0]]
)
def test_what_is_no_distribution(scheme, wrong):
    wrong = np.array(wrong, np.float32)
    with jax.debug_nans(False):
        with pytest.raises(ValueError, match="probabilities must be >= 0 and not all 0"):
            assign(jax.random.key(0), wrong, scheme)
        # Unseen: the bank in use.
        assert not np.any(assign_jit(jax.random.key(0), wrong, scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_scale_of_the_probabilities_does_not_matter(scheme):
    shares = np.array([0.2, 0.0, 0.8], np.float32)
    expected = assign_jit(jax.random.key(0), shares, scheme)
    for scale in (2.0**-100, 2.0**120):
        scaled = assign_jit(jax.random.key(0), shares * np.float32(scale), scheme)
        np.testing.assert_array_equal(scaled, expected)


def test_unknown_scheme():
    with pytest.raises(ValueError, match="'independent' or 'stratified'"):
        assign(jax.random.key(0), jnp.ones(2), "even")
    with pytest.raises(AssertionError, match="rank"):
        assign(jax.random.key(0), jnp.ones((2, 2)), "independent")


# ---------------------------------------------------------------- outcomes


def test_outcomes_by_hand():
    arms = jnp.array([[0, 1, 1, 0], [1, 1, 0, 4]])
    success = jnp.array([[True, True, False, False], [True, True, True, True]])
    valid = jnp.array([[True, True, True, True], [True, False, True, True]])
    successes, trials = arm_outcomes(arms, success, valid, num_arms=5)
    np.testing.assert_array_equal(successes, [2, 2, 0, 0, 1])
    np.testing.assert_array_equal(trials, [3, 3, 0, 0, 1])
    assert successes.dtype == trials.dtype == jnp.int32


@given(
    hnp.arrays(np.int32, (4, 6), elements=st.integers(0, 4)),
    hnp.arrays(bool, (4, 6)),
    hnp.arrays(bool, (4, 6)),
)
def test_counts_are_conserved(arms, success, valid):
    successes, trials = outcomes(arms, success, valid, num_arms=5)
    assert trials.sum() == valid.sum() and successes.sum() == (success & valid).sum()
    assert np.all(np.asarray(successes) <= np.asarray(trials))
    floats = outcomes(arms, success.astype(np.float32), valid.astype(np.int32), num_arms=5)
    chex.assert_trees_all_equal(floats, (successes, trials))


@pytest.mark.parametrize("num_arms", [1, 2, 5])
def test_summed_over_devices(num_arms):
    keys = jax.random.split(jax.random.key(0), 3)
    arms = jax.random.randint(keys[0], (4, 3, 5), 0, num_arms)
    success, valid = (jax.random.bernoulli(k, 0.6, (4, 3, 5)) for k in keys[1:])

    def count(arms, success, valid):
        return arm_outcomes(arms, success, valid, num_arms=num_arms, axis_name="data")

    spread = jax.pmap(count, axis_name="data")(arms, success, valid)
    whole = outcomes(arms, success, valid, num_arms=num_arms)
    for ours, expected in zip(spread, whole):
        np.testing.assert_array_equal(ours, np.broadcast_to(expected, ours.shape))


def test_outcomes_refuse_wrong_input():
    with pytest.raises(AssertionError, match="shape"):
        arm_outcomes(jnp.zeros((2, 2), int), jnp.zeros(4), jnp.zeros((2, 2)), num_arms=2)
    with pytest.raises(AssertionError, match="type"):
        arm_outcomes(jnp.zeros(4), jnp.zeros(4), jnp.zeros(4), num_arms=2)
