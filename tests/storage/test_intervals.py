"""Wilson's interval."""

import pytest

from reskill_jax.storage.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "episodes", "low", "high"),
    [
        (0, 10, 0.0, 0.277533),  # z^2 / (n + z^2)
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (1, 4, 0.045587, 0.699358),
        (64, 128, 0.414652, 0.585348),
    ],
)
def test_wilson_interval(successes, episodes, low, high):
    assert wilson_interval(successes, episodes) == pytest.approx((low, high), abs=2e-6)


@pytest.mark.parametrize(("successes", "episodes"), [(-1, 3), (4, 3), (1, 0)])
def test_wilson_interval_of_no_proportion(successes, episodes):
    with pytest.raises(ValueError, match="no proportion"):
        wilson_interval(successes, episodes)


def test_without_episodes_nothing_is_known():
    assert wilson_interval(0, 0) == (0.0, 1.0)
