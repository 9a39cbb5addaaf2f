"""One training step in a compiled world: assignment, rollout, update, counts, decision.

`train_step` is one pure function and becomes ONE compiled program: nothing leaves the device
between the assignment of arms and the decision about a trial. B groups, G rollouts per group,
N = B * G rows, A arms, D decisions per row.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.core.advantages import group_relative_advantages, whiten
from reskill_jax.core.arms import arm_outcomes, assign_arms, assignment_probabilities
from reskill_jax.core.contrast import Contrast, within_group_contrast
from reskill_jax.core.horizon import estimate_horizon
from reskill_jax.core.posterior import BetaPosterior, init_posterior
from reskill_jax.core.trial import (
    Trial,
    decide_sequentially,
    decide_trial,
    finish_trial,
    idle_trial,
    observe_trial,
)
from reskill_jax.policy.decoder import DecoderConfig
from reskill_jax.skills.bank import differs, swap
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.rollout import Rollout, rollout
from reskill_jax.training.state import TrainState, games_key
from reskill_jax.training.update import Batch, maybe_update_policy


class StepMetrics(NamedTuple):
    """What one step reports. Scalars unless a shape is given."""

    success: chex.Array  # share of the valid rollouts
    arm_successes: chex.Array  # [A] int32
    arm_trials: chex.Array  # [A] int32
    assignment: chex.Array  # [A] float, probabilities the arms were drawn with
    posterior: BetaPosterior  # [A], after this step's counts, before a decision resets it
    contrast: Contrast  # [A], of the trial so far
    trial_successes: chex.Array  # [A] int32, over the trial so far; 0 when there is none
    trial_trials: chex.Array  # [A] int32
    decision: chex.Array  # int32: -1 none, 0 rejected, a > 0 arm a accepted
    horizon: chex.Array  # memory M the posterior was updated with; inf = no discount
    loss: chex.Array
    kl: chex.Array
    clipped: chex.Array
    entropy: chex.Array  # nats per decision, estimated from what was sampled
    grad_norm: chex.Array
    mixed_groups: chex.Array  # share of groups with both outcomes, the only ones with a gradient
    turns: chex.Array
    context_tokens: chex.Array  # mean length of a row
    skill_tokens: chex.Array  # of which skill lines
    truncated: chex.Array  # int32 rows
    invalid: chex.Array  # int32 rows that do not count: a reward or log-probability not finite
    skipped: chex.Array  # int32, updates left out so far


class Evidence(NamedTuple):
    """What the creator sees of a step's rollouts. N rows, T turns."""

    arms: chex.Array  # [N] int32
    success: chex.Array  # [N] bool
    valid: chex.Array  # [N] bool; what is False is no evidence
    turns: chex.Array  # [N] int32
    intros: chex.Array  # [N, Li] int32
    actions: chex.Array  # [N, T, La] int32
    observations: chex.Array  # [N, T, Lo] int32
    possible: chex.Array  # [N, T, K] bool, verbs
    fired: chex.Array  # [N, T, S] bool


def decide(
    state: TrainState, successes, trials, *, config: TrainConfig, contrast: Contrast | None = None
):
    """Counts of a step -> posterior, decision, bank and horizon.

    Args:
      state: the state.
      successes: [A] int. trials: [A] int. config: static.
      contrast: differences within the step's groups; the sequential rule decides by them.

    Returns:
      The state; the trial as it stood when decided; the decision; the horizon used.
    """
    horizon = jnp.float32(jnp.inf)
    if config.discount == "last_step":  # every step's counts are added to the prior alone
        state = state._replace(trial=state.trial._replace(posterior=init_posterior(config.arms)))
    elif config.discount == "adaptive":
        horizon = estimate_horizon(state.history.log_likelihood, state.history.completed)
    trial = observe_trial(state.trial, successes, trials, horizon=horizon, contrast=contrast)
    least = {"min_steps": config.min_trial_steps, "min_episodes": config.min_trial_episodes}
    if config.trial_rule == "means":
        decision = decide_trial(trial, **least)
    else:
        decision = decide_sequentially(
            trial,
            gain=config.trial_gain,
            false_accept=config.trial_false_accept,
            false_reject=config.trial_false_reject,
            **least,
        )

    def finished(trial: Trial):
        idle = idle_trial(config.arms, max_steps=config.max_trial_steps)
        return (
            swap(state.bank, decision),
            jax.tree.map(lambda a, b: a.astype(b.dtype), idle, trial),
            finish_trial(state.history, trial, decision),
        )

    bank, next_trial, history = jax.lax.cond(
        decision >= 0, finished, lambda trial: (state.bank, trial, state.history), trial
    )
    return state._replace(bank=bank, trial=next_trial, history=history), trial, decision, horizon


def train_step(
    state: TrainState,
    games: chex.Array,
    *,
    world: Any,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
) -> tuple[TrainState, StepMetrics, Evidence]:
    """One step of GRPO with the comparison of skill versions inside its groups.

    Args:
      state: the state.
      games: [B] int32 numbers of the games to play (of this device's groups, with an axis_name).
      world: a compiled world (static). policy: the decoder's shape (static). config: static.
      axis_name: mapped axis over which groups are split (data parallel); every device draws the
        arms of all groups from the same key and takes its own.

    Returns:
      The next state, metrics (the same on every device) and evidence (of this device's rows).
    """
    local_groups, group_size = games.shape[0], config.group_size
    devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    device = 0 if axis_name is None else jax.lax.axis_index(axis_name)
    arm_key, row_key = jax.random.split(jax.random.fold_in(state.key, state.step))

    # Arms.
    floor = 0.5 if config.assignment == "uniform" else config.floor
    assignment = assignment_probabilities(state.trial.posterior, state.trial.arm_mask, floor=floor)
    arms = assign_arms(
        arm_key,
        assignment,
        num_groups=local_groups * devices,
        group_size=group_size,
        scheme=config.scheme,
    )
    arms = jax.lax.dynamic_slice_in_dim(arms, device * local_groups, local_groups)

    # Rollouts.
    made = jax.vmap(lambda g: world.make(jax.random.fold_in(state.games, g), "train"))(games)
    differ = jax.vmap(differs, in_axes=(None, 0))(state.bank, jax.vmap(world.task)(made))
    made = jax.tree.map(lambda x: jnp.repeat(x, group_size, axis=0), made)
    first_row = device * local_groups * group_size
    rows = first_row + jnp.arange(local_groups * group_size)
    played: Rollout = rollout(
        jax.vmap(lambda row: jax.random.fold_in(row_key, row))(rows),
        state.params,
        made,
        state.bank,
        arms.reshape(-1) if config.skills else jnp.full(rows.shape, -1),
        world=world,
        config=policy,
        horizon=config.horizon,
        capacity=config.capacity,
        temperature=config.temperature,
    )

    # Advantages over whole groups, all arms together.
    valid = jnp.all(jnp.isfinite(played.transcript.log_prob), axis=1)
    counts = valid.reshape(local_groups, group_size)
    success = played.success.reshape(counts.shape) & counts
    advantages = group_relative_advantages(
        success, mask=counts, scale_by_std=config.scale_by_std
    ).reshape(-1)
    several = jnp.any(success, axis=1) & jnp.any(~success & counts, axis=1)
    if config.whiten:
        mixed = jnp.repeat(several, group_size) & valid
        advantages = whiten(advantages, mixed, axis_name=axis_name) * mixed
    batch = Batch(played.transcript, advantages, valid)
    state, (loss, kl, clipped, spread, norm) = maybe_update_policy(
        state, batch, policy=policy, config=config, axis_name=axis_name
    )

    # Versions of the skills.
    successes, trials = arm_outcomes(
        arms, success, counts, num_arms=config.arms, axis_name=axis_name
    )
    # Where two versions read the same, their difference would be noise.
    compared = counts & ((arms == 0) | jnp.take_along_axis(differ, arms, axis=1))
    contrast = within_group_contrast(
        arms, success, compared, num_arms=config.arms, axis_name=axis_name
    )
    state, trial, decision, horizon = decide(
        state, successes, trials, config=config, contrast=contrast
    )
    state = state._replace(step=state.step + 1)

    def mean(x):
        average = jnp.mean(x.astype(jnp.float32))
        return average if axis_name is None else jax.lax.pmean(average, axis_name)

    def total(x):
        count = jnp.sum(x.astype(jnp.int32))
        return count if axis_name is None else jax.lax.psum(count, axis_name)

    metrics = StepMetrics(
        success=total(success) / jnp.maximum(total(valid), 1),
        arm_successes=successes,
        arm_trials=trials,
        assignment=assignment,
        posterior=trial.posterior,
        contrast=trial.contrast,
        trial_successes=jnp.sum(trial.successes, axis=0),
        trial_trials=jnp.sum(trial.trials, axis=0),
        decision=decision,
        horizon=horizon,
        loss=loss,
        kl=kl,
        clipped=clipped,
        entropy=spread,
        grad_norm=norm,
        mixed_groups=mean(several),
        turns=mean(played.turns),
        context_tokens=mean(played.transcript.length),
        skill_tokens=mean(played.skill_tokens),
        truncated=total(played.truncated),
        invalid=total(~valid),
        skipped=state.skipped,
    )
    evidence = Evidence(
        arms=arms.reshape(-1),
        success=played.success,
        valid=valid,
        turns=played.turns,
        intros=played.intros,
        actions=played.actions,
        observations=played.observations,
        possible=played.possible,
        fired=played.fired,
    )
    return state, metrics, evidence


def game_key(seed: int, number: chex.Array) -> chex.PRNGKey:
    """The key from which game `number` of the run with this seed is made."""
    return jax.random.fold_in(games_key(seed), number)
