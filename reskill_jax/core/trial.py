"""A trial: versions of the skills compared while the policy trains, as a state machine.

start -> observe, once per training step -> decide -> finish. Everything is traced: no branch
depends on a value on the host, so a trial runs inside a compiled train step.

Source: ReSkill, arXiv:2606.01619, section 3 (accept after enough steps and episodes if the
posterior mean is higher).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.core.horizon import relative_horizon_log_likelihood
from reskill_jax.core.posterior import BetaPosterior, init_posterior, update_posterior

UNDECIDED = -1


class Trial(NamedTuple):
    """A comparison of arms. A arms, K the largest number of steps."""

    active: chex.Array  # [] bool
    arm_mask: chex.Array  # [A] bool, the arms that exist; arm 0 is the bank in use
    margin: chex.Array  # [] float, by how much a candidate may be worse and still be accepted
    steps: chex.Array  # [] int32, steps observed
    successes: chex.Array  # [K, A] int32, per step
    trials: chex.Array  # [K, A] int32, per step
    posterior: BetaPosterior  # alpha, beta [A] float


class TrialHistory(NamedTuple):
    """What finished trials say about the memory horizon."""

    log_likelihood: chex.Array  # [grid] float, relative to that of the largest horizon
    completed: chex.Array  # [] int32, finished trials


def start_history(*, grid_size: int = 2000) -> TrialHistory:
    """No finished trial yet; horizons 1..grid_size."""
    return TrialHistory(jnp.zeros(grid_size, float), jnp.zeros((), jnp.int32))


def start_trial(
    num_arms: int,
    arm_mask: chex.Array,
    *,
    margin: chex.Array | float = 0.0,
    max_steps: int,
) -> Trial:
    """A trial at its first step: Beta(1, 1) for every arm, an empty log.

    Args:
      num_arms: A, the capacity.
      arm_mask: [A] bool, the arms that exist; arm 0, the bank in use, always should.
      margin: a candidate is accepted iff mean(candidate) > mean(arm 0) - margin. 0 for a new
        version; > 0 when the candidate is the simpler one (a skill retired).
      max_steps: K, after which a decision is forced.

    Returns:
      An active Trial.

    Raises:
      AssertionError: `arm_mask` is not [A].
      ValueError: `max_steps` < 1.
    """
    arm_mask = jnp.asarray(arm_mask).astype(bool)
    chex.assert_shape(arm_mask, (num_arms,))
    if max_steps < 1:
        raise ValueError(f"max_steps must be at least 1, got {max_steps}")
    return Trial(
        active=jnp.ones((), bool),
        arm_mask=arm_mask,
        margin=jnp.asarray(margin, float),
        steps=jnp.zeros((), jnp.int32),
        successes=jnp.zeros((max_steps, num_arms), jnp.int32),
        trials=jnp.zeros((max_steps, num_arms), jnp.int32),
        posterior=init_posterior(num_arms),
    )


def idle_trial(num_arms: int, *, max_steps: int) -> Trial:
    """Nothing under test: only arm 0 exists, so assignment gives every rollout the bank in use."""
    only_first = jnp.arange(num_arms) == 0
    trial = start_trial(num_arms, only_first, max_steps=max_steps)
    return trial._replace(active=jnp.zeros((), bool))


def observe_trial(
    trial: Trial, successes: chex.Array, trials: chex.Array, *, horizon: chex.Array | float
) -> Trial:
    """Adds the counts of one training step. An inactive or full trial is returned unchanged.

    Args:
      trial: the trial.
      successes: [A] int.
      trials: [A] int.
      horizon: memory M in episodes, see `estimate_horizon`.

    Returns:
      The trial after the step.

    Raises:
      AssertionError: wrong shapes.
    """
    successes = jnp.asarray(successes).astype(jnp.int32)
    trials = jnp.asarray(trials).astype(jnp.int32)
    chex.assert_equal_shape([trial.arm_mask, successes, trials])
    counted = trial.active & (trial.steps < trial.trials.shape[0])
    taken = counted & trial.arm_mask
    successes, trials = jnp.where(taken, successes, 0), jnp.where(taken, trials, 0)
    # Counts of 0 leave a posterior as it is, so only the log's position needs the condition.
    row = jnp.where(counted, trial.steps, trial.trials.shape[0])
    return trial._replace(
        steps=trial.steps + counted.astype(jnp.int32),
        successes=trial.successes.at[row].set(successes, mode="drop"),
        trials=trial.trials.at[row].set(trials, mode="drop"),
        posterior=update_posterior(trial.posterior, successes, trials, horizon=horizon),
    )


def decide_trial(
    trial: Trial, *, min_steps: chex.Array | int = 5, min_episodes: chex.Array | int = 50
) -> chex.Array:
    """Which arm goes on.

    A decision is due after `min_steps` steps and `min_episodes` episodes over all arms, or when
    the log is full. The candidate with the highest posterior mean wins if its mean lies above that
    of arm 0 less the margin, strictly; a candidate that was never tried cannot win.

    Args:
      trial: the trial.
      min_steps: fewest steps, at most K.
      min_episodes: fewest episodes.

    Returns:
      [] int32: -1 no decision yet, 0 arm 0 stays (reject), a > 0 arm a is accepted.
    """
    episodes = jnp.sum(trial.trials)
    full = trial.steps >= trial.trials.shape[0]
    due = trial.active & (full | ((trial.steps >= min_steps) & (episodes >= min_episodes)))

    mean = trial.posterior.mean
    index = jnp.arange(mean.shape[0])
    candidate = trial.arm_mask & (index > 0) & (jnp.sum(trial.trials, axis=0) > 0)
    scores = jnp.where(candidate, mean, -jnp.inf)
    best = jnp.argmax(scores).astype(jnp.int32)
    better = scores[best] > mean[0] - trial.margin
    return jnp.where(due, jnp.where(better, best, 0), UNDECIDED).astype(jnp.int32)


def finish_trial(history: TrialHistory, trial: Trial, decision: chex.Array) -> TrialHistory:
    """Adds the evidence of a decided trial about the horizon; nothing while it is undecided.

    Args:
      history: evidence so far.
      trial: the trial, with the log of all its steps.
      decision: [] int32 from `decide_trial`.

    Returns:
      The history, with one more finished trial if `decision` >= 0.
    """
    decision = jnp.asarray(decision)
    chex.assert_rank([decision, history.log_likelihood], [0, 1])
    grid_size = history.log_likelihood.shape[0]

    def add(history):
        relative = relative_horizon_log_likelihood(
            trial.successes, trial.trials, grid_size=grid_size
        )
        return TrialHistory(history.log_likelihood + relative, history.completed + 1)

    return jax.lax.cond(decision >= 0, add, lambda history: history, history)
