"""Sampling under a mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.core.losses import clipped_surrogate
from reskill_jax.models.sampling import (
    NO_TOKEN,
    masked_log_probs,
    sample,
    sample_candidates,
)

LOGITS = jnp.log(jnp.array([1.0, 2.0, 3.0, 4.0]))
ALLOWED = jnp.array([True, False, True, False])


def test_log_probs_are_those_of_the_allowed_tokens_alone():
    found = masked_log_probs(LOGITS, ALLOWED)
    np.testing.assert_allclose(np.exp(found), [0.25, 0.0, 0.75, 0.0], atol=1e-6)
    assert np.isfinite(found).all()


def test_everything_allowed_is_log_softmax():
    found = masked_log_probs(LOGITS, jnp.ones(4, bool))
    np.testing.assert_allclose(found, np.log([0.1, 0.2, 0.3, 0.4]), atol=1e-6)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap])
def test_frequencies_follow_the_masked_distribution(wrap):
    n = 20_000
    keys = jax.random.split(jax.random.key(0), 2)
    logits = jnp.broadcast_to(LOGITS, (2, n, 4))
    allowed = jnp.broadcast_to(ALLOWED, (2, n, 4))
    if wrap is jax.vmap:
        token, log_prob = jax.vmap(lambda k, x, a: sample(k, x, a, temperature=1.0))(
            keys, logits, allowed
        )
    else:
        token, log_prob = wrap(lambda k, x, a: sample(k, x, a, temperature=1.0))(
            keys[0], logits, allowed
        )
    counts = np.bincount(np.asarray(token).ravel(), minlength=4) / (2 * n)
    # 5 standard errors of 0.25 from 40,000 draws
    np.testing.assert_allclose(counts, [0.25, 0.0, 0.75, 0.0], atol=0.011)
    np.testing.assert_allclose(log_prob, np.log(np.where(token == 0, 0.25, 0.75)), atol=1e-5)


def test_the_log_probability_is_that_of_the_distribution_sampled_from():
    n = 40_000
    token, log_prob = sample(
        jax.random.key(1),
        jnp.broadcast_to(LOGITS, (n, 4)),
        jnp.broadcast_to(ALLOWED, (n, 4)),
        temperature=2.0,
    )
    expected = 1 / (1 + np.sqrt(3.0))  # p ~ exp(logit / 2)
    assert abs(np.mean(token == 0) - expected) < 0.0125
    told = np.log(np.where(token == 0, expected, 1 - expected))
    np.testing.assert_allclose(log_prob, told, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_expected_gradient_of_a_constant_advantage_is_zero(temperature):
    """Over all tokens, each as often as it is drawn: with other log-probabilities it is not."""

    def surrogate(logits):
        log_probs = masked_log_probs(logits, ALLOWED, temperature=temperature)
        drawn = jax.lax.stop_gradient(log_probs)
        losses, _ = clipped_surrogate(log_probs, drawn, jnp.ones(4))
        return jnp.sum(jnp.where(ALLOWED, jnp.exp(drawn) * losses, 0))

    np.testing.assert_allclose(jax.grad(surrogate)(LOGITS), 0, atol=1e-6)
    token, recorded = sample(jax.random.key(0), LOGITS, ALLOWED, temperature=temperature)
    again = masked_log_probs(LOGITS, ALLOWED, temperature=temperature)[token]
    np.testing.assert_allclose(recorded, again, rtol=1e-6)


def test_temperature_zero_is_greedy_static_traced_and_per_row():
    logits = jnp.array([[0.0, 9.0, 3.0, 3.0]] * 50)
    allowed = jnp.array([[True, False, True, True]] * 50)
    draw = jax.jit(lambda t: sample(jax.random.key(2), logits, allowed, temperature=t))
    for token, log_prob in (
        draw(0.0),
        draw(jnp.float32(0.0)),
        sample(jax.random.key(2), logits, allowed, temperature=0.0),
    ):
        np.testing.assert_array_equal(token, 2)  # the first of two equals
        np.testing.assert_array_equal(log_prob, 0)  # there was no other choice
    per_row = jnp.where(jnp.arange(50) < 25, 0.0, 1.0)
    token, _ = draw(per_row)
    np.testing.assert_array_equal(token[:25], 2)
    assert len(set(np.asarray(token[25:]).tolist())) > 1


@pytest.mark.parametrize("temperature", [0.0, 1e-6, 0.1, 1.0, 1e4])
def test_forbidden_tokens_are_never_drawn_however_likely(temperature):
    key = jax.random.key(3)
    logits = jax.random.normal(key, (2000, 30)) * 50
    allowed = jax.random.bernoulli(jax.random.key(4), 0.1, (2000, 30)).at[:, 7].set(True)
    logits = jnp.where(allowed, logits - 1000.0, logits + 1000.0)
    token, log_prob = sample(jax.random.key(5), logits, allowed, temperature=temperature)
    assert np.take_along_axis(np.asarray(allowed), np.asarray(token)[:, None], 1).all()
    assert np.isfinite(log_prob).all() and (log_prob <= 0).all()


def test_impossible_tokens():
    """Of -inf among the allowed ones, of a forbidden one above them, of nothing but -inf."""
    inf = jnp.inf
    logits = jnp.array([[-inf, 0.0, 2.0, 1.0], [-inf, 0.0, -3e30, -inf], [-inf, 0.0, -inf, -inf]])
    allowed = jnp.array([[True, False, True, True]] * 3)
    found = masked_log_probs(logits, allowed)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found[0]), [0, 0, 0.7310586, 0.2689414], atol=1e-6)
    np.testing.assert_array_equal(np.exp(found[1:]), [[0, 0, 1, 0], [0, 0, 0, 0]])
    gradient = jax.grad(lambda x: jnp.sum(jnp.exp(masked_log_probs(x, allowed)) ** 2))(logits)
    assert np.isfinite(gradient).all() and not np.any(gradient[2])
    for seed in range(5):
        token, _ = sample(jax.random.key(seed), logits, allowed)
        assert token[0] in (2, 3) and token[1] == 2


def test_logits_that_are_not_finite_are_told():
    logits = jnp.array(
        [[0.0, jnp.nan, 1.0, 2.0], [0.0, 3.0, jnp.inf, 2.0], [0.0, jnp.nan, 1.0, 2.0]]
    )
    allowed = jnp.array([[False, True, True, True]] * 2 + [[True, False, True, False]])
    for temperature in (0.0, 0.5, 1.0):
        token, log_prob = sample(jax.random.key(0), logits, allowed, temperature=temperature)
        np.testing.assert_array_equal(token[:2], 1)
        np.testing.assert_array_equal(np.isnan(log_prob), [True, True, False])


def test_rows_that_allow_nothing_are_harmless():
    logits = jnp.stack([LOGITS, LOGITS])
    allowed = jnp.stack([ALLOWED, jnp.zeros(4, bool)])

    def loss(logits, weight):
        token, log_prob = sample(jax.random.key(0), logits, allowed, temperature=1.0)
        log_probs = masked_log_probs(logits, allowed)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return jnp.sum(weight * (log_prob + entropy)), (token, log_prob, entropy)

    with jax.debug_nans(True), jax.debug_infs(True):
        (_, (token, log_prob, entropy)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
            logits, jnp.ones(2)
        )
    assert token[1] == 0 and log_prob[1] == 0 and entropy[1] == 0
    np.testing.assert_array_equal(gradient[1], 0)
    np.testing.assert_array_equal(gradient[0, ~np.asarray(ALLOWED)], 0)
    assert np.abs(gradient[0]).max() > 0


def test_gradient_of_a_log_probability_is_one_hot_minus_probability():
    gradient = jax.grad(lambda x: masked_log_probs(x, ALLOWED)[0])(LOGITS)
    np.testing.assert_allclose(gradient, [0.75, 0.0, -0.75, 0.0], atol=1e-6)


def test_keys_decide_and_rows_differ():
    logits, allowed = jnp.zeros((64, 50)), jnp.ones((64, 50), bool)
    first, _ = sample(jax.random.key(0), logits, allowed, temperature=1.0)
    again, _ = sample(jax.random.key(0), logits, allowed, temperature=1.0)
    other, _ = sample(jax.random.key(1), logits, allowed, temperature=1.0)
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.8
    assert len(set(np.asarray(first).tolist())) > 25


# --- candidates instead of masks ------------------------------------------------------------------


@pytest.mark.parametrize("vocab_size", [9, 5000])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_candidates_are_drawn_as_under_a_mask(vocab_size, temperature):
    """In a small vocabulary it is the very same draw, wherever the candidates stand."""
    logits = jax.random.normal(jax.random.key(0), (vocab_size,))
    allowed = jnp.zeros(vocab_size, bool).at[jnp.asarray([1, 4, 6, 7])].set(True)
    for padding in (0, 3):
        support = jnp.asarray([1, 4, 6, 7] + [NO_TOKEN] * padding, jnp.int32)

        def one(key, support=support):
            picked = logits[jnp.maximum(support, 0)]
            return sample_candidates(
                key, picked, support, vocab_size=vocab_size, temperature=temperature
            )

        keys = jax.random.split(jax.random.key(1), 2000)
        token, log_prob = jax.jit(jax.vmap(one))(keys)
        masked, expected = jax.vmap(
            lambda key: sample(key, logits, allowed, temperature=temperature)
        )(keys)
        if vocab_size == 9:
            np.testing.assert_array_equal(token, masked)
            np.testing.assert_allclose(log_prob, expected, atol=1e-6)
        shares = [(np.asarray(token) == t).mean() for t in (1, 4, 6, 7)]
        others = [(np.asarray(masked) == t).mean() for t in (1, 4, 6, 7)]
        assert sum(shares) == pytest.approx(1)
        np.testing.assert_allclose(shares, others, atol=0.05)


def test_no_candidate_is_told_by_token_0():
    support = jnp.full(3, NO_TOKEN, jnp.int32)
    token, log_prob = sample_candidates(
        jax.random.key(0), jnp.asarray([1.0, jnp.nan, 2.0]), support, vocab_size=9
    )
    assert (int(token), float(log_prob)) == (0, 0.0)
    token, log_prob = sample_candidates(
        jax.random.key(0), jnp.asarray([jnp.nan, 1.0]), jnp.asarray([3, 5]), vocab_size=9
    )
    assert int(token) in (3, 5) and np.isnan(log_prob)
