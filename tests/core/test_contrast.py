import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import group_relative_advantages
from reskill_jax.core.contrast import Contrast, no_contrast, within_group_contrast

contrast = jax.jit(within_group_contrast, static_argnames="num_arms")


def made(arms, success, valid=None, num_arms=2):
    arms, success = np.asarray(arms), np.asarray(success)
    valid = np.ones_like(success) if valid is None else np.asarray(valid)
    return contrast(arms, success, valid, num_arms=num_arms)


def test_by_hand():
    # Group 0: arm 1 wins 2 of 2, arm 0 wins 1 of 2. Of 3 wins among 4 it would expect 1.5.
    # Group 1: one of each, both fail: only a weight. Group 2: arm 0 alone: nothing.
    arms = [[0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]]
    success = [[1, 0, 1, 1], [0, 0, 0, 0], [1, 0, 1, 0]]
    found = made(arms, success)
    np.testing.assert_allclose(found.score, [0, 0.5])
    np.testing.assert_allclose(found.weight, [0, 1 + 0.75])
    # hypergeometric: 2 * 2 * 3 * 1 / (16 * 3)
    np.testing.assert_allclose(found.variance, [0, 0.25])
    np.testing.assert_allclose(found.difference, [0, 0.5 / 1.75], rtol=1e-6)


def test_the_variance_is_that_of_shuffled_arms():
    arms = np.array([0, 0, 0, 1, 1, 0, 1, 0])
    success = np.array([1, 0, 1, 1, 0, 0, 0, 0])
    rng = np.random.default_rng(0)
    shuffled = np.stack([rng.permutation(arms) for _ in range(20000)])[:, None]
    ones = np.ones((1, 8))
    scores = jax.vmap(lambda a: contrast(a, success[None], ones, num_arms=2).score[1])(shuffled)
    assert abs(np.mean(scores)) < 0.02
    assert np.var(scores) == pytest.approx(float(made(arms[None], success[None]).variance[1]), 0.05)


def test_the_score_is_the_sum_of_group_centred_rewards():
    rng = np.random.default_rng(1)
    arms, success = rng.integers(0, 2, (6, 8)), rng.integers(0, 2, (6, 8))
    advantages = group_relative_advantages(success.astype(np.float32), scale_by_std=False)
    expected = np.sum(np.asarray(advantages) * (arms == 1))
    np.testing.assert_allclose(made(arms, success).score[1], expected, rtol=1e-4, atol=1e-5)


def test_each_candidate_is_compared_with_arm_0_alone():
    rng = np.random.default_rng(2)
    arms, success = rng.integers(0, 3, (5, 9)), rng.integers(0, 2, (5, 9))
    found = made(arms, success, num_arms=3)
    for arm in (1, 2):
        alone = made((arms == arm).astype(int), success, np.isin(arms, (0, arm)))
        for all_arms, pair in zip(found, alone, strict=True):
            np.testing.assert_allclose(all_arms[arm], pair[1], rtol=1e-5)


def test_invalid_episodes_do_not_count():
    arms, success = [[0, 0, 1, 1, 1]], [[1, 0, 1, 1, 0]]
    found = made(arms, success, [[1, 1, 1, 1, 0]])
    expected = made([[0, 0, 1, 1]], [[1, 0, 1, 1]])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other)


def test_the_difficulty_of_groups_does_not_matter():
    """Half of the groups always succeed, half never: no evidence, however the arms fall."""
    success = np.repeat([[1], [0]], 8, axis=1)
    found = made([[1] * 6 + [0] * 2, [1] * 2 + [0] * 6], success)
    assert found.score[1] == 0 and found.variance[1] == 0 and found.weight[1] == 3


def test_sums_over_devices():
    rng = np.random.default_rng(3)
    arms, success = rng.integers(0, 2, (4, 8)), rng.integers(0, 2, (4, 8)).astype(bool)

    def part(a, s):
        return within_group_contrast(a, s, jnp.ones_like(s), num_arms=2, axis_name="data")

    halves = jax.vmap(part, axis_name="data")(arms.reshape(2, 2, 8), success.reshape(2, 2, 8))
    for one, other in zip(halves, made(arms, success), strict=True):
        np.testing.assert_allclose(one, np.stack([other, other]), rtol=1e-6)


def test_nothing_compared():
    nothing = no_contrast(3)
    assert isinstance(nothing, Contrast)
    np.testing.assert_array_equal(nothing.difference, [0, 0, 0])


def test_wrong_input_is_refused():
    ones = jnp.ones((2, 4), int)
    with pytest.raises(AssertionError):
        within_group_contrast(ones, ones[:1], ones, num_arms=2)
    with pytest.raises(AssertionError):
        within_group_contrast(ones[0], ones[0], ones[0], num_arms=2)
    with pytest.raises(AssertionError):
        within_group_contrast(ones * 1.0, ones, ones, num_arms=2)
