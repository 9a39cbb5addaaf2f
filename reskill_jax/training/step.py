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
from reskill_jax.core.factorial import arm_of_parts, arms_after
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
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.rollouts.compiled import Rollout, rollout
from reskill_jax.skills.bank import differs
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.state import TrainState, games_key
from reskill_jax.training.update import Batch, internalized, maybe_update_policy


class StepMetrics(NamedTuple):
    """What one step reports. Scalars unless a shape is given."""

    success: chex.Array  # share of the valid rollouts
    arm_successes: chex.Array  # [K, 2] int32: of rollouts without and with each part
    arm_trials: chex.Array  # [K, 2] int32
    assignment: chex.Array  # [K, 2] float, probabilities the parts were drawn with
    posterior: BetaPosterior  # [K, 2], after this step's counts, before a decision resets it
    contrast: Contrast  # [K, 2], of the trial so far
    trial_successes: chex.Array  # [K, 2] int32, over the trial so far; 0 when there is none
    trial_trials: chex.Array  # [K, 2] int32
    decision: chex.Array  # [K] int32: -1 none, 0 rejected, 1 accepted
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


def decide_part(
    trial: Trial, history, counts, contrast: Contrast | None, *, horizon, config: TrainConfig
):
    """Counts of a step -> posterior and decision of one part under test.

    Returns:
      The trial to go on with; the history; the trial as it stood when decided; the decision.
    """
    if config.discount == "last_step":  # every step's counts are added to the prior alone
        trial = trial._replace(posterior=init_posterior(2))
    trial = observe_trial(trial, *counts, horizon=horizon, contrast=contrast)
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
        idle = idle_trial(2, max_steps=config.max_trial_steps)
        idle = jax.tree.map(lambda a, b: a.astype(b.dtype), idle, trial)
        return idle, finish_trial(history, trial, decision)

    after, history = jax.lax.cond(decision >= 0, finished, lambda t: (t, history), trial)
    return after, history, trial, decision


def decide(
    state: TrainState, successes, trials, *, config: TrainConfig, contrast: Contrast | None = None
):
    """Counts of a step -> posteriors, decisions, bank and horizon.

    Args:
      state: the state.
      successes: [K, 2] int. trials: [K, 2] int. config: static.
      contrast: [K, 2] differences within the step's groups; the sequential rule decides by them.

    Returns:
      The state; the trials as they stood when decided; the decisions [K]; the horizon used.
    """
    horizon = jnp.float32(jnp.inf)
    if config.discount == "adaptive":
        horizon = estimate_horizon(state.history.log_likelihood, state.history.completed)

    def part(history, of_part):
        trial, counts, contrast = of_part
        trial, history, seen, decision = decide_part(
            trial, history, counts, contrast, horizon=horizon, config=config
        )
        return history, (trial, seen, decision)

    history, (after, seen, decisions) = jax.lax.scan(
        part, state.history, (state.trials, (successes, trials), contrast)
    )
    arm = arms_after(decisions)
    bank = jax.lax.cond(
        jnp.any(decisions >= 0),
        lambda bank: jax.tree.map(lambda x: x[arm], bank),
        lambda bank: bank,
        state.bank,
    )
    return state._replace(bank=bank, trials=after, history=history), seen, decisions, horizon


def assign(
    keys: chex.PRNGKey, trials: Trial, *, num_groups: int, config: TrainConfig
) -> tuple[chex.Array, chex.Array]:
    """Which parts under test each rollout reads.

    Args:
      keys: [K] random keys, one a part.
      trials: [K, ...] of two arms each, without the part and with it.
      num_groups: B. config: static.

    Returns:
      [K, 2] the probabilities drawn with; [K, B, G] int32, 1 where a rollout holds the part.
    """
    floor = 0.5 if config.assignment == "uniform" else config.floor

    def part(key, trial):
        assignment = assignment_probabilities(trial.posterior, trial.arm_mask, floor=floor)
        return assignment, assign_arms(
            key,
            assignment,
            num_groups=num_groups,
            group_size=config.group_size,
            scheme=config.scheme,
        )

    return jax.vmap(part)(keys, trials)


def compare(
    held: chex.Array,
    success: chex.Array,
    valid: chex.Array,
    differ: chex.Array,
    *,
    axis_name: str | None = None,
) -> tuple[chex.Array, chex.Array, Contrast]:
    """Rollouts without each part against those with it, whatever other parts they hold.

    Args:
      held: [K, B, G] 1 where a rollout holds the part.
      success: [B, G] bool. valid: [B, G] bool.
      differ: [K, B] bool, whether the part changes what can be read in the group's task; where it
        does not, a difference would be noise.
      axis_name: mapped axis over which groups are split.

    Returns:
      Successes [K, 2], trials [K, 2] and the contrast within groups [K, 2].
    """

    def part(held, differ):
        counted = arm_outcomes(held, success, valid, num_arms=2, axis_name=axis_name)
        compared = valid & ((held == 0) | differ[:, None])
        return *counted, within_group_contrast(
            held, success, compared, num_arms=2, axis_name=axis_name
        )

    return jax.vmap(part)(held, differ)


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
    step_key = jax.random.fold_in(state.key, state.step)
    arm_key, row_key = jax.random.split(step_key)
    own_key = jax.random.fold_in(step_key, 2)

    # Arms: which parts under test each rollout reads. No two draws share a key: 0 and 1 are those
    # of the split above, 2 is `own_key`.
    further = [jax.random.fold_in(step_key, 2 + k) for k in range(1, config.concurrent_trials)]
    assignment, held = assign(
        jnp.stack([arm_key, *further]),
        state.trials,
        num_groups=local_groups * devices,
        config=config,
    )
    held = jax.lax.dynamic_slice_in_dim(held, device * local_groups, local_groups, axis=1)
    arms = arm_of_parts(held)

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
    valid = jnp.all(jnp.isfinite(played.transcript.log_prob), axis=1) & ~played.crowded
    counts = valid.reshape(local_groups, group_size)
    success = played.success.reshape(counts.shape) & counts
    several = jnp.any(success, axis=1) & jnp.any(~success & counts, axis=1)
    advantages = group_relative_advantages(
        success, mask=counts, scale_by_std=config.scale_by_std
    ).reshape(-1)
    if config.whiten:
        mixed = jnp.repeat(several, group_size) & valid
        advantages = whiten(advantages, mixed, axis_name=axis_name) * mixed
    batch = Batch(played.transcript, advantages, valid, jnp.zeros_like(valid))
    if config.skills and config.internalize > 0:
        keys = jax.vmap(lambda row: jax.random.fold_in(own_key, row))(rows)
        batch = internalized(batch, played.of_skills, keys, share=config.internalize)
    state, (loss, kl, clipped, spread, norm) = maybe_update_policy(
        state, batch, policy=policy, config=config, axis_name=axis_name
    )

    # Versions of the skills: rollouts without a part against those with it.
    alone = [1 << part for part in range(config.concurrent_trials)]  # arms that hold one part
    successes, trials, contrast = compare(
        held, success, counts, jnp.stack([differ[:, arm] for arm in alone]), axis_name=axis_name
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
        trial_successes=jnp.sum(trial.successes, axis=1),
        trial_trials=jnp.sum(trial.trials, axis=1),
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
        skill_tokens=mean(jnp.sum(played.of_skills, axis=1)),
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
