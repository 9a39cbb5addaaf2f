"""What tests of rollouts share."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def assert_same():
    """(rollouts, rollouts): asserts that they hold the same episodes."""
    return same_rollouts


def same_rollouts(found, rollouts):
    expected, rows = rollouts.transcript, found.transcript
    used = np.arange(expected.position.shape[1]) < np.asarray(expected.count)[:, None]
    for name in ("tokens", "length", "count"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(expected, name), name)
    for name in ("position", "support", "turn", "weight"):
        one, other = (np.asarray(getattr(t, name))[used] for t in (rows, expected))
        np.testing.assert_array_equal(one, other, name)
    np.testing.assert_allclose(rows.log_prob[used], expected.log_prob[used], atol=1e-4)
    for name in ("reward", "success", "valid", "turns", "fired", "of_skills", "truncated"):
        one, other = getattr(found, name), np.asarray(getattr(rollouts, name))
        np.testing.assert_array_equal(one, other, name)
        assert one.shape == other.shape and one.dtype == other.dtype, name
    taken = np.arange(found.observation.shape[1]) < np.asarray(rollouts.turns)[:, None]
    one, other = (np.asarray(of.observation)[taken] for of in (found, rollouts))
    np.testing.assert_array_equal(
        one[:, None] == one, other[:, None] == other
    )  # numbers may differ
