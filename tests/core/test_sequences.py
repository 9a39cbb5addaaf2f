from math import exp, log

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import aggregate, grpo_loss, gspo_loss, sequence_log_ratios

from .against_float64 import check, ragged


def test_ratios_by_hand():
    log_probs = jnp.log(jnp.array([[0.5, 0.5, 0.9], [0.2, 0.3, 0.4], [1.0, 1.0, 1.0]]))
    old = jnp.log(jnp.array([[0.25, 0.25, 0.1], [0.1, 0.3, 0.4], [0.5, 0.5, 0.5]]))
    mask = jnp.array([[True, True, False], [True, True, True], [False, False, False]])
    got = jax.jit(sequence_log_ratios)(log_probs, old, mask)
    # (2 * 2)^(1/2), 2^(1/3), no token
    np.testing.assert_allclose(jnp.exp(got), [2.0, 2 ** (1 / 3), 1.0], rtol=1e-6)


def test_gspo_by_hand():
    # ratios 1.5 and 1.5, the advantages 1 (clipped at 1.25) and -2 (not)
    log_probs = jnp.full((3, 2), log(1.5))
    mask = jnp.array([[True, True], [True, False], [False, False]])
    parts = gspo_loss(
        log_probs, jnp.zeros((3, 2)), jnp.array([1.0, -2.0, 5.0]), mask, clip_high=0.25
    )
    np.testing.assert_allclose(parts.loss, (-1.25 + 3.0) / 2, rtol=1e-6)
    assert parts.clipped == 0.5 and parts.kl == 0


def test_a_sequence_is_clipped_as_a_whole():
    log_probs = jnp.array([[0.3, -0.2, 0.1], [0.3, -0.3, 0.0]])
    slope = jax.grad(
        lambda x: gspo_loss(x, jnp.zeros((2, 3)), jnp.ones(2), jnp.ones((2, 3), bool)).loss
    )(log_probs)
    np.testing.assert_array_equal(slope[0], 0)  # mean 0.2 / 3: above
    np.testing.assert_allclose(slope[1], -1 / 6, rtol=1e-5)  # ratio 1


def surrogate(ratio, advantage, low, high):
    return -np.minimum(ratio * advantage, np.clip(ratio, 1 - low, 1 + high) * advantage)


def k3(difference):
    return np.exp(difference) - difference - 1


def test_gspo_against_numpy():
    rng = np.random.default_rng(0)
    mask = ragged(rng, 6, 5)
    x, old, reference = rng.normal(size=(3, 6, 5)) * 0.2
    advantages = rng.normal(size=6)
    count = mask.sum(1)
    some = count > 0

    def theirs(x):
        rows = np.where(mask, x - old, 0).sum(1)[some] / count[some]
        losses = surrogate(np.exp(rows), advantages[some], 0.05, 0.1)
        spread = np.where(mask, k3(reference - x), 0).sum(1)[some] / count[some]
        return losses.mean() + 0.3 * spread.mean()

    def ours(x):
        parts = gspo_loss(
            x,
            old,
            advantages,
            mask,
            reference_log_probs=reference,
            kl_weight=0.3,
            clip_low=0.05,
            clip_high=0.1,
        )
        return parts.loss

    check(ours, theirs, x)


@pytest.mark.parametrize("mode", ["token", "sequence", "constant"])
def test_token_ratios_against_numpy(mode):
    rng = np.random.default_rng(1)
    mask = ragged(rng, 6, 5)
    x, old, reference, advantages = rng.normal(size=(4, 6, 5)) * 0.3
    count = mask.sum(1)

    def mean(values):
        values = np.where(mask, values, 0)
        if mode == "token":
            return values.sum() / mask.sum()
        length = np.maximum(count, 1) if mode == "sequence" else 5
        return (values.sum(1) / length)[count > 0].mean()

    def theirs(x):
        losses = surrogate(np.exp(x - old), advantages, 0.2, 0.28)
        return mean(losses) + 0.1 * mean(k3(reference - x))

    def ours(x):
        return grpo_loss(
            x,
            old,
            advantages,
            mask,
            reference_log_probs=reference,
            kl_weight=0.1,
            clip_high=0.28,
            mode=mode,
        ).loss

    check(ours, theirs, x)


def test_the_constant_of_dr_grpo_by_hand():
    values = jnp.array([[1.0, 2.0, 3.0], [6.0, 9.0, 9.0], [7.0, 7.0, 7.0]])
    mask = jnp.array([[True, True, True], [True, False, False], [False, False, False]])
    # (6 / 3 + 6 / 3) / 2: a token counts the same wherever it is
    assert aggregate(values, mask, mode="constant") == 2.0
    assert aggregate(values, jnp.zeros((3, 3), bool), mode="constant") == 0
    assert aggregate(jnp.zeros((2, 0)), jnp.zeros((2, 0), bool), mode="constant") == 0


def test_devices_add_up_to_one():
    rng = np.random.default_rng(2)
    mask = ragged(rng, 8, 4)
    x, old = (rng.normal(size=(2, 8, 4)) * 0.2).astype(np.float32)
    advantages = rng.normal(size=8).astype(np.float32)
    whole = gspo_loss(x, old, advantages, mask)
    shares = jax.pmap(lambda *a: gspo_loss(*a, axis_name="data"), axis_name="data")(
        *(a.reshape(4, 2, *a.shape[1:]) for a in (x, old, advantages, mask))
    )
    for share, one in zip(shares, whole, strict=True):
        np.testing.assert_allclose(jnp.sum(share), one, atol=1e-6)


def test_padding_has_no_influence():
    mask = jnp.array([[True, False], [False, False]])
    x = np.array([[0.1, np.nan], [np.inf, 0.0]], np.float32)
    with jax.debug_nans(False):
        loss, slope = jax.value_and_grad(
            lambda x: gspo_loss(x, jnp.zeros((2, 2)), -jnp.ones(2), mask).loss
        )(x)
    np.testing.assert_allclose(loss, exp(0.1), rtol=1e-6)
    np.testing.assert_allclose(slope, [[exp(0.1), 0.0], [0.0, 0.0]], rtol=1e-6)


def test_nothing_to_learn_from():
    parts = gspo_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(2), jnp.zeros((2, 3), bool))
    assert all(x == 0 for x in parts)


def test_wrong_shapes_are_refused():
    with pytest.raises(AssertionError, match="shape"):
        gspo_loss(jnp.ones((2, 3)), jnp.ones((2, 3)), jnp.ones(3), jnp.ones((2, 3), bool))
    with pytest.raises(AssertionError, match="rank"):
        sequence_log_ratios(jnp.ones(3), jnp.ones(3), jnp.ones(3, bool))
