from math import exp, lgamma, log

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax import estimate_horizon, horizon_log_likelihood
from reskill_jax.core.horizon import relative_horizon_log_likelihood

absolute = jax.jit(horizon_log_likelihood, static_argnames="grid_size")
relative = jax.jit(relative_horizon_log_likelihood, static_argnames="grid_size")


def exact(successes, trials, memory):
    """The definition, in Python floats."""

    def log_beta(a, b):
        return lgamma(a) + lgamma(b) - lgamma(a + b)

    total = 0.0
    for arm in range(successes.shape[1]):
        alpha = beta = 1.0
        for m, n in zip(successes[:, arm].tolist(), trials[:, arm].tolist()):
            if n == 0:
                continue
            w = memory / (memory + n)
            alpha, beta = w * alpha, w * beta
            a, b = max(alpha, 1e-6), max(beta, 1e-6)
            total += lgamma(n + 1) - lgamma(m + 1) - lgamma(n - m + 1)
            total += log_beta(a + m, b + n - m) - log_beta(a, b)
            alpha, beta = alpha + m, beta + n - m
    return total


def pad(rows, length=12):
    rows = np.asarray(rows, np.int32)
    return np.pad(rows, ((0, length - len(rows)), (0, 0)))


def log_of(test):
    steps = test["steps"]
    successes = [[s["old_successes"], s["new_successes"]] for s in steps]
    trials = [[s["old_trials"], s["new_trials"]] for s in steps]
    return pad(successes), pad(trials)


def test_first_step_by_hand():
    # Beta(1, 1) halved (M = n = 2): BetaBin(1 | 2, 1/2, 1/2) = 1/4;
    # M = 1: w = 1/3, BetaBin(1 | 2, 1/3, 1/3) = 2 (1/3)(1/3) / ((2/3)(5/3)) = 1/5
    got = absolute(jnp.array([[1]]), jnp.array([[2]]), grid_size=4)
    np.testing.assert_allclose(got[:2], [log(1 / 5), log(1 / 4)], rtol=1e-5)


def test_against_the_reference(reference_numbers):
    checked = 0
    for run in reference_numbers["posterior"]:
        if run["strategy"] != "dynamic":
            continue
        total, evidence = np.zeros(2000), jnp.zeros(2000)
        for finished, test in enumerate(run["tests"], start=1):
            counts = log_of(test)
            total = total + np.asarray(absolute(*counts))
            evidence = evidence + relative(*counts)
            for memory, value in test["log_likelihood_at"].items():
                np.testing.assert_allclose(total[int(memory) - 1], value, rtol=1e-5)
            horizon = float(estimate_horizon(evidence, finished))
            assert horizon == (test["horizon_after"] or np.inf)
            if np.isfinite(horizon):
                # Rounded to float32 the sum ties around its flat maximum, nothing worse.
                best = int(estimate_horizon(jnp.asarray(total, jnp.float32), finished))
                assert total.max() - total[best - 1] < 3e-5
            checked += 1
    assert checked == 14


@pytest.mark.parametrize("rate", [0.0, 0.03, 0.5, 1.0])
@pytest.mark.parametrize("largest", [4, 1280])
def test_against_the_definition(rate, largest):
    rng = np.random.default_rng(int(rate * 100) + largest)
    trials = rng.integers(0, largest + 1, (12, 2))
    trials[rng.random(trials.shape) < 0.2] = 0
    successes = rng.binomial(trials, rate)
    got = np.asarray(absolute(successes, trials))
    for memory in (1, 2, 7, 100, 1999, 2000):
        np.testing.assert_allclose(got[memory - 1], exact(successes, trials, memory), rtol=1e-4)


@given(hnp.arrays(np.int32, (12, 2), elements=st.integers(0, 40)), st.data())
def test_relative_is_the_absolute_shifted(trials, data):
    successes = data.draw(hnp.arrays(np.int32, (12, 2), elements=st.integers(0, 40)))
    successes = np.minimum(successes, trials)
    whole, shifted = absolute(successes, trials), relative(successes, trials)
    assert shifted[-1] == 0
    tolerance = 1e-6 * np.abs(whole).max() + 1e-6
    np.testing.assert_allclose(shifted, whole - whole[-1], atol=2 * tolerance)
    # arms and outcomes are exchangeable
    np.testing.assert_allclose(
        relative(successes[:, ::-1], trials[:, ::-1]), shifted, atol=1e-4, rtol=1e-5
    )
    np.testing.assert_allclose(relative(trials - successes, trials), shifted, atol=1e-4, rtol=1e-5)


def test_empty_steps_and_arms_add_nothing():
    successes, trials = np.array([[3], [0], [9]]), np.array([[8], [0], [10]])
    dense = relative(successes[[0, 2]], trials[[0, 2]])
    np.testing.assert_array_equal(relative(successes, trials), dense)
    padded = relative(pad(successes), pad(trials))
    np.testing.assert_array_equal(padded, dense)
    wide = [np.concatenate([x, np.zeros((3, 4), int)], 1) for x in (successes, trials)]
    np.testing.assert_allclose(relative(*wide), dense, atol=1e-6)
    np.testing.assert_array_equal(absolute(pad(np.zeros((2, 2))), pad(np.zeros((2, 2)))), 0)


def test_one_likelihood_sums_to_one_over_outcomes():
    for memory in (1, 30):
        total = sum(
            exp(absolute(jnp.array([[2], [m]]), jnp.array([[4], [6]]), grid_size=30)[memory - 1])
            for m in range(7)
        )
        first = exp(
            absolute(jnp.array([[2], [0]]), jnp.array([[4], [0]]), grid_size=30)[memory - 1]
        )
        np.testing.assert_allclose(total, first, rtol=1e-5)


@pytest.mark.parametrize("num_arms", [1, 2, 5])
def test_vmap_and_pmap_equal_the_single_call(num_arms):
    rng = np.random.default_rng(num_arms)
    trials = rng.integers(0, 20, (3, 4, num_arms))
    successes = rng.binomial(trials, 0.4)

    def function(s, n):
        return relative_horizon_log_likelihood(s, n, grid_size=50)

    single = jnp.stack([relative(s, n, grid_size=50) for s, n in zip(successes, trials)])
    np.testing.assert_allclose(jax.jit(jax.vmap(function))(successes, trials), single, atol=1e-5)
    if num_arms == 2:  # compiled once per device, which takes a while
        np.testing.assert_allclose(jax.pmap(function)(successes, trials), single, atol=1e-5)


def test_estimate():
    flat = jnp.array([-3.0, -1.0, -1.0, -2.0])
    assert estimate_horizon(flat, 2) == 2  # the smallest of equals
    assert estimate_horizon(flat, jnp.int32(7)) == 2
    assert np.isposinf(estimate_horizon(flat, 1)) and np.isposinf(estimate_horizon(flat, 0))


def test_wrong_input_is_refused():
    with pytest.raises(AssertionError, match="rank"):
        horizon_log_likelihood(jnp.ones(3, int), jnp.ones(3, int))
    with pytest.raises(AssertionError, match="shape"):
        horizon_log_likelihood(jnp.ones((3, 2), int), jnp.ones((3, 1), int))
    with pytest.raises(ValueError, match="grid_size"):
        horizon_log_likelihood(jnp.ones((3, 2), int), jnp.ones((3, 2), int), grid_size=0)
    with pytest.raises(AssertionError, match="rank"):
        estimate_horizon(jnp.float32(1), 2)


def test_one_trace_for_trials_of_any_length():
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(lambda s, n: absolute(s, n, grid_size=20), n=1))
    for length in (1, 5, 12):
        traced(pad(np.ones((length, 2))), pad(np.full((length, 2), 3)))
