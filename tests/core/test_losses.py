from math import exp, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from reskill_jax.core.losses import (
    aggregate,
    clipped_surrogate,
    entropy,
    grpo_loss,
    k3_divergence,
    masked_mean,
)


def test_surrogate_by_hand():
    ratios = jnp.array([1.0, 1.5, 1.5, 0.5, 0.5, 1.25])
    advantages = jnp.array([2.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    losses, clipped = clipped_surrogate(
        jnp.log(ratios), jnp.zeros(6), advantages, clip_low=0.2, clip_high=0.3
    )
    np.testing.assert_allclose(losses, [-2.0, -1.3, 1.5, -0.5, 0.8, -1.25], rtol=1e-6)
    np.testing.assert_array_equal(clipped, [False, True, False, False, True, False])


def test_tokens_without_gradient_are_told():
    # far outside, where the ratio itself is bounded; without advantage there is nothing to lose
    log_probs = jnp.array([0.0, 0.0, -60.0, 0.0, 0.0])
    old, advantages = jnp.array([-25.0, -25, 0, -25, -19]), jnp.array([-1.0, 1, 1, 0, -1])

    def total(log_probs):
        losses, clipped = clipped_surrogate(log_probs, old, advantages)
        return losses.sum(), clipped

    gradient, clipped = jax.grad(total, has_aux=True)(log_probs)
    np.testing.assert_array_equal(clipped, [True, True, True, False, False])
    np.testing.assert_array_equal(gradient == 0, [True, True, True, True, False])


def test_gradient_of_the_surrogate():
    def total(log_probs):
        losses, _ = clipped_surrogate(log_probs, jnp.zeros(3), jnp.array([1.0, 1.0, -2.0]))
        return losses.sum()

    # on policy: -advantage; clipped: nothing; falling ratio of a bad token: still pushed down
    gradient = jax.grad(total)(jnp.array([0.0, log(2.0), log(1.5)]))
    np.testing.assert_allclose(gradient, [-1.0, 0.0, 3.0], rtol=1e-6)


def test_k3_by_hand():
    got = k3_divergence(jnp.log(jnp.array([0.5, 0.25])), jnp.log(jnp.array([0.5, 0.5])))
    np.testing.assert_allclose(got, [0.0, 2 - log(2) - 1], atol=1e-6)


@given(hnp.arrays(np.float32, 5, elements=st.floats(-30, 0, width=32)))
def test_k3_is_never_negative_nor_huge(log_probs):
    got = k3_divergence(jnp.asarray(log_probs), jnp.full(5, -3.0))
    assert np.all(np.asarray(got) >= 0) and np.all(np.asarray(got) <= 10)


def test_k3_of_policies_that_nearly_agree():
    # d^2 / 2 + d^3 / 6 + d^4 / 24: of exp(d) and d nothing would be left
    d = np.float32(10.0) ** np.arange(-12.0, -1.0)
    d = np.concatenate([-d, d]).astype(np.float32)
    wide = d.astype(np.float64)
    got = k3_divergence(jnp.zeros(len(d)), jnp.asarray(d))
    np.testing.assert_allclose(got, wide**2 / 2 + wide**3 / 6 + wide**4 / 24, rtol=1e-6)


def test_k3_is_unbiased():
    policy, reference = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.4, 0.2])
    k3 = k3_divergence(jnp.log(policy), jnp.log(reference))
    expected = float(np.sum(policy * np.log(policy / reference)))
    np.testing.assert_allclose(np.sum(policy * np.asarray(k3)), expected, rtol=1e-5)


def test_entropy():
    logits = jnp.array([[0.0, 0.0, 0.0, 0.0], [0.0, 5.0, log(3.0), 9.0], [1.0, 2.0, 3.0, 4.0]])
    allowed = jnp.array([[True] * 4, [True, False, True, False], [False] * 4])
    quarter = 0.25 * log(4) + 0.75 * log(4 / 3)
    got = entropy(logits, allowed)
    np.testing.assert_allclose(got, [log(4), quarter, 0.0], rtol=1e-6)
    gradient = jax.grad(lambda x: entropy(x, allowed).sum())(logits)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[~np.asarray(allowed)])
    np.testing.assert_allclose(entropy(logits)[0], log(4), rtol=1e-6)


def test_entropy_of_impossible_entries():
    inf = jnp.inf
    logits = jnp.array([[0.0, -inf, 0.0], [-inf, -inf, -inf], [-inf, 5.0, -inf], [inf, 0.0, 0.0]])
    allowed = jnp.array([[True] * 3, [True] * 3, [True] * 3, [False, True, True]])
    for function in (entropy, jax.jit(entropy)):
        np.testing.assert_allclose(function(logits, allowed), [log(2), 0, 0, log(2)], atol=1e-6)
    gradient = jax.grad(lambda x: entropy(x, allowed).sum())(logits)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_entropy_in_half_precision(dtype):
    logits = (jax.random.normal(jax.random.key(0), (2, 4000)) * 3).astype(dtype)
    got = entropy(logits)
    assert got.dtype == jnp.float32
    p = np.exp(np.asarray(logits, np.float64))
    p /= p.sum(1, keepdims=True)
    np.testing.assert_allclose(got, -(p * np.log(p)).sum(1), rtol=1e-5)


def test_means_by_hand():
    values = jnp.array([[1.0, 2.0, 3.0], [4.0, 100.0, 100.0], [7.0, 7.0, 7.0]])
    mask = jnp.array([[True, True, True], [True, False, False], [False, False, False]])
    assert masked_mean(values, mask) == 2.5
    assert aggregate(values, mask, mode="token") == 2.5
    assert aggregate(values, mask, mode="sequence") == 3.0
    assert masked_mean(values, jnp.zeros((3, 3), bool)) == 0
    with pytest.raises(ValueError, match="'token', 'sequence' or 'constant'"):
        aggregate(values, mask, mode="mean")


def batch(shape):
    keys = jax.random.split(jax.random.key(0), 5)
    log_probs, old, reference = (-jax.random.uniform(k, shape) for k in keys[:3])
    advantages = jax.random.normal(keys[3], shape[:-1])
    mask = jax.random.bernoulli(keys[4], 0.7, shape).at[..., 0].set(True)
    return log_probs, old, advantages, mask, reference


def loss_of(log_probs, old, advantages, mask, reference, **options):
    result = grpo_loss(
        log_probs, old, advantages, mask, reference_log_probs=reference, kl_weight=0.1, **options
    )
    return result.loss, result


def test_loss_by_hand():
    # two sequences of one token: ratios 1 and e^-0.1, advantages 1 and -1, k3 with d = 0.5 and 0
    result = grpo_loss(
        jnp.array([[-1.0], [-1.1]]),
        jnp.array([[-1.0], [-1.0]]),
        jnp.array([1.0, -1.0]),
        jnp.ones((2, 1), bool),
        reference_log_probs=jnp.array([[-0.5], [-1.1]]),
        kl_weight=0.2,
    )
    surrogate, kl = (-1 + exp(-0.1)) / 2, (exp(0.5) - 1.5) / 2
    np.testing.assert_allclose(result.surrogate, surrogate, rtol=1e-5)
    np.testing.assert_allclose(result.kl, kl, rtol=1e-5)
    np.testing.assert_allclose(result.loss, surrogate + 0.2 * kl, rtol=1e-5)
    assert result.clipped == 0


@pytest.mark.parametrize("mode", ["token", "sequence"])
def test_shares_of_devices_add_up(mode):
    arrays = batch((4, 2, 6))
    whole = tuple(x.reshape(8, *x.shape[2:]) for x in arrays)
    value = jax.jit(jax.value_and_grad(lambda *a: loss_of(*a, mode=mode), has_aux=True))

    def device(*arrays):
        f = jax.value_and_grad(lambda *a: loss_of(*a, mode=mode, axis_name="data"), has_aux=True)
        (_, result), gradient = f(*arrays)
        return jax.lax.psum(result, "data"), gradient

    (_, expected), expected_gradient = value(*whole)
    result, gradient = jax.pmap(device, axis_name="data")(*arrays)
    for ours, theirs in zip(result, expected):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(gradient.reshape(8, 6), expected_gradient, rtol=1e-4, atol=1e-7)


def test_padding_has_no_influence():
    log_probs, old, advantages, mask, reference = batch((3, 6))
    value = jax.jit(jax.value_and_grad(lambda *a: loss_of(*a)[0]))
    loss, gradient = value(log_probs, old, advantages, mask, reference)
    assert not np.any(gradient[~np.asarray(mask)])
    noisy = [jnp.where(mask, x, jnp.inf) for x in (log_probs, old, reference)]
    again, gradient_again = value(noisy[0], noisy[1], advantages, mask, noisy[2])
    np.testing.assert_array_equal(loss, again)
    np.testing.assert_array_equal(gradient, gradient_again)


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        grpo_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3), jnp.ones((2, 3), bool))
    with pytest.raises(AssertionError, match="shape"):
        clipped_surrogate(jnp.ones(3), jnp.ones(3), jnp.ones(2))
