"""Episodes that are not valid do not count, and are counted."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.training import loop
from reskill_jax.training import step as steps

BAD = np.array([[0, 0, 0, 1], [0, 1, 1, 0]], bool).reshape(-1)
WON = np.array([[1, 0, 0, 1], [1, 1, 1, 1]], bool).reshape(-1)


@pytest.fixture(scope="module")
def outcome(lab):
    """A step of a policy that is not trained, some of whose episodes are made invalid."""
    config = dataclasses.replace(lab.config, policy_until=0, groups=2, group_size=4)
    taught = {}

    def unplayed(*arguments, **options):
        like = jax.eval_shape(functools.partial(play, **options), *arguments)  # nothing is played
        played, record = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
        reward = played.reward.at[:, 0].set(WON)
        return played._replace(reward=reward, success=jnp.asarray(WON), valid=~BAD), record

    def update(state, batch, **options):
        taught["batch"] = batch.batch.valid, batch.targets.advantages
        return maybe_update(state, batch, **options)

    play, maybe_update = steps.play, steps.maybe_update_policy
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "play", unplayed)
        patch.setattr(steps, "maybe_update_policy", update)

        @jax.jit
        def run(state, games):
            program = lab.program(config, lab.world)
            return *program(state, games), taught["batch"]

        return jax.device_get(run(lab.state(), jnp.arange(2)))


def test_they_are_counted_and_do_not_count(outcome, lab):
    _, metrics, evidence, batch = outcome
    assert metrics.invalid == 3
    assert metrics.success == pytest.approx(3 / 5)
    # Nothing is under test: no rollout has any of the parts.
    np.testing.assert_array_equal(metrics.arm_trials, [[5, 0]] * lab.config.trial.concurrent)
    np.testing.assert_array_equal(metrics.arm_successes, [[3, 0]] * lab.config.trial.concurrent)
    np.testing.assert_array_equal(evidence.valid, ~BAD)
    np.testing.assert_array_equal(batch[0], ~BAD)
    assert metrics.mixed_groups == 0.5  # of the second group only successes are left


def test_advantages_are_those_of_the_valid_ones(outcome):
    advantages = outcome[3][1][:, 0]
    expected = np.array([2 / 3, -1 / 3, -1 / 3, 0]) / np.sqrt(1 / 3)
    np.testing.assert_allclose(advantages[:4], expected, rtol=1e-5)
    np.testing.assert_array_equal(advantages[4:], 0)


def test_a_step_without_a_valid_episode_ends_the_run(outcome, lab):
    config = types.SimpleNamespace(
        groups=2, group_size=4, optimizer=types.SimpleNamespace(minibatches=1)
    )
    metrics = outcome[1]
    loop._check_finite(metrics, 7, 0, config)
    with pytest.raises(loop.TrainingError, match="step 7: no episode is valid"):
        loop._check_finite(metrics._replace(invalid=np.int32(8)), 7, 0, config)
