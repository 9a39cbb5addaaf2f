from math import erf

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax import (
    BetaPosterior,
    discount_weight,
    init_posterior,
    probability_best,
    update_posterior,
)

best = jax.jit(probability_best)
update = jax.jit(lambda p, s, n, h: update_posterior(p, s, n, horizon=h))


def beta(alpha, beta_):
    return BetaPosterior(jnp.asarray(alpha, jnp.float32), jnp.asarray(beta_, jnp.float32))


def exists(num_arms):
    return jnp.ones(num_arms, bool)


# ---------------------------------------------------------------- updates


def test_discount_weight_by_hand():
    np.testing.assert_allclose(discount_weight(jnp.array([0, 10, 30]), 30.0), [1, 0.75, 0.5])
    np.testing.assert_array_equal(discount_weight(jnp.array([0, 7]), jnp.inf), [1, 1])
    gradient = jax.grad(lambda m: discount_weight(jnp.array(10.0), m))(30.0)
    np.testing.assert_allclose(gradient, 10 / 40**2, rtol=1e-5)
    assert jax.grad(lambda m: discount_weight(jnp.array(10.0), m))(jnp.inf) == 0


def test_update_by_hand():
    posterior = update(init_posterior(2), jnp.array([3, 0]), jnp.array([4, 0]), 4.0)
    np.testing.assert_allclose(posterior.alpha, [3.5, 1.0])  # 1/2 + 3; untouched
    np.testing.assert_allclose(posterior.beta, [1.5, 1.0])


def test_memory_tends_to_horizon_plus_trials():
    def step(posterior, _):
        return update_posterior(posterior, jnp.array([2]), jnp.array([8]), horizon=100.0), None

    posterior, _ = jax.lax.scan(step, init_posterior(1), length=300)
    np.testing.assert_allclose(posterior.alpha + posterior.beta, 108.0, rtol=1e-4)


def test_against_the_reference(reference_numbers):
    for run in reference_numbers["posterior"]:
        for test in run["tests"]:
            posterior = init_posterior(2)
            for record in test["steps"]:
                if run["strategy"] == "last_step":
                    posterior = init_posterior(2)
                horizon = jnp.inf if record["horizon"] is None else record["horizon"]
                trials = jnp.array([record["old_trials"], record["new_trials"]])
                successes = jnp.array([record["old_successes"], record["new_successes"]])
                if run["strategy"] == "dynamic":
                    weight = discount_weight(trials, horizon)
                    np.testing.assert_allclose(weight, [record["w_old"], record["w_new"]], 2e-5)
                posterior = update(posterior, successes, trials, jnp.float32(horizon))
                expected = [record["alpha_old"], record["alpha_new"]]
                np.testing.assert_allclose(posterior.alpha, expected, rtol=2e-5)
                expected = [record["beta_old"], record["beta_new"]]
                np.testing.assert_allclose(posterior.beta, expected, rtol=2e-5)
            means = [test["old_mean"], test["new_mean"]]
            np.testing.assert_allclose(posterior.mean, means, rtol=2e-5)


# ---------------------------------------------------------------- probability of being best


def test_probability_against_four_million_draws(reference_numbers):
    for case in reference_numbers["prob_new_better"]:
        posterior = beta(
            [case["alpha_old"], case["alpha_new"]], [case["beta_old"], case["beta_new"]]
        )
        tolerance = 5 * case["standard_error"] + 1e-3
        assert abs(best(posterior, exists(2))[1] - case["p_new_better"]) <= tolerance


def test_closed_forms():
    # Beta(1, 1) against Beta(a, 1): P(X < Y) = E[Y] = a / (a + 1)
    for a in (1e-3, 0.5, 3.0, 99.0, 1e4):
        got = best(beta([1, a], [1, 1]), exists(2))
        np.testing.assert_allclose(got, [1 / (a + 1), a / (a + 1)], rtol=1e-5, atol=1e-6)
    # maximum of uniforms: density A x^(A - 1), and three Beta(k, 1): k / sum of k
    got = best(beta([1, 2, 5, 10, 2], [1, 1, 1, 1, 1]), exists(5))
    np.testing.assert_allclose(got, np.array([1, 2, 5, 10, 2]) / 20, atol=2e-6)


@pytest.mark.parametrize("num_arms", [1, 2, 5])
@pytest.mark.parametrize(
    "alpha,beta_", [(1e-6, 1e-6), (1e-6, 1e4), (1e4, 1e-6), (1e4, 1e4), (7, 2)]
)
def test_equal_arms_share_equally(num_arms, alpha, beta_):
    got = best(beta([alpha] * num_arms, [beta_] * num_arms), exists(num_arms))
    np.testing.assert_allclose(got, np.full(num_arms, 1 / num_arms), atol=2e-6)


def test_sharp_peaks():
    # Normal limit: means .5 and .51, standard deviations sqrt(.25 / 20001) and sqrt(.2499 / 20001)
    got = best(beta([10000, 10200], [10000, 9800]), exists(2))
    z = 0.01 / np.sqrt((0.25 + 0.2499) / 20001)
    np.testing.assert_allclose(got[1], 0.5 * (1 + erf(z / np.sqrt(2))), atol=2e-4)
    # far apart: certain, and no NaN
    np.testing.assert_allclose(best(beta([1e4, 1], [1, 1e4]), exists(2)), [1, 0], atol=1e-6)


# The exact probabilities of these were computed in float64 with 200 times as many nodes.
@pytest.mark.parametrize(
    "alpha,beta_,expected",
    [
        ([238.50550842, 775.37658691], [3.88946462, 13.28875351], [0.57460179, 0.42539821]),
        ([5.85151863, 1.8607794], [1238.96313477, 1927.10961914], [0.98398737, 0.01601263]),
        ([0.37899998, 0.08496615], [9.88605213, 3.75680852], [0.76814457, 0.23185543]),
        (
            [1.25238585, 1.21251118, 1.27826893],
            [258.35180664, 258.35180664, 258.35180664],
            [0.33522295, 0.31847224, 0.34630482],
        ),
    ],
)
def test_recorded_quadratures(alpha, beta_, expected):
    np.testing.assert_allclose(best(beta(alpha, beta_), exists(len(alpha))), expected, atol=2e-5)


def log_density(alpha, beta_, logit):
    """Of a Beta's logit, relative to its mode, in extended precision."""
    alpha, beta_, logit = map(np.longdouble, (alpha, beta_, logit))

    def at(y):
        return -alpha * np.logaddexp(0, -y) - beta_ * np.logaddexp(0, y)

    return at(logit) - at(np.log(alpha) - np.log(beta_))


def edges(alpha, beta_, count=120):
    """Cells that cover all but e^-45 of a density, finer towards its mode."""
    mode = np.log(np.longdouble(alpha)) - np.log(np.longdouble(beta_))
    steps, found = np.linspace(0, 1, count, dtype=np.longdouble) ** 2, []
    for side in (-1, 1):
        low = high = np.longdouble(1)
        while log_density(alpha, beta_, mode + side * high) > -45:
            high *= 2
        while log_density(alpha, beta_, mode + side * low) < -45:
            low /= 2
        for _ in range(30):
            middle = np.sqrt(low * high)
            outside = log_density(alpha, beta_, mode + side * middle) < -45
            low, high = (low, middle) if outside else (middle, high)
        found.append(mode + side * high * steps)
    return np.concatenate(found)


def integral(alpha, beta_):
    """P(best) by Gauss-Legendre quadrature in extended precision, ten times as fine as ours."""
    ends = np.unique(np.concatenate([edges(a, b) for a, b in zip(alpha, beta_)]))
    nodes, weights = np.polynomial.legendre.leggauss(6)
    half, middle = np.diff(ends)[:, None] / 2, (ends[1:] + ends[:-1])[:, None] / 2
    logits, powers = middle + half * nodes, np.arange(6)
    to_node = (nodes[:, None] ** (powers + 1) - (-1.0) ** (powers + 1)) / (powers + 1)
    to_node = to_node @ np.linalg.inv(nodes[:, None] ** powers)
    density = np.stack([np.exp(log_density(a, b, logits)) for a, b in zip(alpha, beta_)])
    mass = half[:, 0] * (density @ weights)
    density, mass = (x / mass.sum(1)[(...,) + (None,) * (x.ndim - 1)] for x in (density, mass))
    below = (np.cumsum(mass, 1) - mass)[:, :, None] + half * (density @ to_node.T)
    others = [np.prod(np.delete(below, k, axis=0), axis=0) for k in range(len(alpha))]
    return np.array([np.sum(half * d * o * weights) for d, o in zip(density, others)], float)


SKEWED = [
    ([10, 12], [1e6, 1.1e6]),
    ([1e6, 1.1e6], [10, 12]),
    ([30, 2], [5e6, 1e5]),
    ([1e6, 1.0005e6], [1e7, 1e7]),
    ([1e7, 1.0003e7], [1e6, 1e6]),
    ([1e6, 1.001e6], [1e7, 1.002e7]),
    ([1e12 - 2e6, 1e12 - 1e6], [1e12, 1e12 - 2e6]),
    ([1e-6, 1e12, 3e-6], [1e12, 2e-6, 1e-6]),
    ([1.25e6, 1.21e6, 0.5], [2.5e8, 2.4e8, 90]),
]


@pytest.mark.parametrize(
    "function",
    [best, pytest.param(probability_best, marks=pytest.mark.slow)],
    ids=["jit", "eager"],
)
def test_skewed_and_large_parameters_against_the_integral(function):
    for parameters in SKEWED:
        alpha, beta_ = (np.array(x, np.float32) for x in parameters)
        found = function(beta(alpha, beta_), exists(len(alpha)))
        np.testing.assert_allclose(found, integral(alpha, beta_), atol=5e-6)


def test_the_integral_itself():
    np.testing.assert_allclose(integral([1, 5], [1, 1]), [1 / 6, 5 / 6], atol=1e-9)
    np.testing.assert_allclose(integral([1, 2, 5], [1, 1, 1]), np.array([1, 2, 5]) / 8, atol=1e-9)


ANY_PARAMETER = st.floats(-6, 12).map(lambda x: float(np.float32(10.0**x)))


@given(ANY_PARAMETER, ANY_PARAMETER, st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_the_promised_accuracy_over_the_whole_range(alpha, beta_, apart):
    """Three arms whose modes lie a few standard deviations apart."""
    spread = min(np.sqrt(1 / alpha + 1 / beta_), 2.0)
    shift = np.exp(spread * np.array(apart) / 2)
    alphas = np.clip(alpha * shift, 1e-6, 1e12).astype(np.float32)
    betas = np.clip(beta_ / shift, 1e-6, 1e12).astype(np.float32)
    found = best(beta(alphas, betas), exists(3))
    np.testing.assert_allclose(found, integral(alphas, betas), atol=5e-6)


PARAMETER = st.floats(-6, 4).map(lambda x: 10.0**x)


@given(st.lists(st.tuples(PARAMETER, PARAMETER), min_size=5, max_size=5), st.permutations(range(5)))
def test_permuting_arms_permutes_probabilities(parameters, order):
    alpha, beta_ = np.array(parameters, np.float32).T
    order = np.array(order)
    straight = np.asarray(best(beta(alpha, beta_), exists(5)))
    assert abs(straight.sum() - 1) < 1e-5 and straight.min() >= 0
    np.testing.assert_allclose(
        best(beta(alpha[order], beta_[order]), exists(5)), straight[order], atol=1e-5
    )


@given(st.lists(st.tuples(PARAMETER, PARAMETER), min_size=5, max_size=5), st.integers(1, 31))
def test_arms_that_do_not_exist_change_nothing(parameters, bits):
    alpha, beta_ = np.array(parameters, np.float32).T
    mask = np.array([bits >> i & 1 for i in range(5)], bool)
    got = np.asarray(best(beta(alpha, beta_), jnp.asarray(mask)))
    assert not np.any(got[~mask])
    garbage = np.where(mask, alpha, 1234.5)
    np.testing.assert_array_equal(got, best(beta(garbage, beta_), jnp.asarray(mask)))
    few = best(beta(alpha[mask], beta_[mask]), exists(int(mask.sum())))
    np.testing.assert_allclose(got[mask], few, atol=2e-5)


@given(PARAMETER, PARAMETER, st.floats(1.05, 3.0))
def test_more_successes_never_hurt(alpha, beta_, factor):
    before = best(beta([alpha, 2.0], [beta_, 3.0]), exists(2))[0]
    after = best(beta([alpha * factor, 2.0], [beta_, 3.0]), exists(2))[0]
    assert after >= before - 1e-6


def test_no_arm_at_all():
    np.testing.assert_array_equal(best(init_posterior(2), jnp.zeros(2, bool)), [0, 0])


def test_gradient_is_that_of_the_closed_form():
    # Beta(1, 1) against Beta(a, 1): d/da a / (a + 1) = 1 / (a + 1)^2
    def probability(a):
        return probability_best(BetaPosterior(jnp.array([1.0, a]), jnp.ones(2)), exists(2))[1]

    np.testing.assert_allclose(jax.jit(jax.grad(probability))(3.0), 1 / 16, rtol=1e-3)


def test_vmap_and_pmap_equal_the_single_call():
    keys = jax.random.split(jax.random.key(0), 2)
    alpha, beta_ = (jnp.exp(2 * jax.random.normal(k, (4, 5))) for k in keys)
    mask = jnp.ones((4, 5), bool)
    posteriors = BetaPosterior(alpha, beta_)
    single = jnp.stack([best(BetaPosterior(alpha[i], beta_[i]), mask[i]) for i in range(4)])
    np.testing.assert_allclose(
        jax.jit(jax.vmap(probability_best))(posteriors, mask), single, atol=1e-5
    )
    np.testing.assert_allclose(jax.pmap(probability_best)(posteriors, mask), single, atol=1e-5)


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        probability_best(init_posterior(2), exists(3))
    with pytest.raises(AssertionError, match="shape"):
        update_posterior(init_posterior(2), jnp.ones(3, int), jnp.ones(3, int))
    with pytest.raises(AssertionError, match="rank"):
        probability_best(BetaPosterior(jnp.float32(1), jnp.float32(1)), jnp.array(True))
    with pytest.raises(ValueError, match="at least 1"):
        init_posterior(0)


def test_one_trace():
    chex.clear_trace_counter()
    traced = jax.jit(chex.assert_max_traces(lambda p, m: probability_best(p, m), n=1))
    for a in (1.0, 1e-6, 1e4):
        traced(beta([a, 1], [1, a]), exists(2))
