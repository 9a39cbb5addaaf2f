"""One training step in a compiled world: assignment, rollout, update, counts, decision.

`train_step` is one pure function and becomes ONE compiled program: nothing leaves the device
between the assignment of arms and the decision about a trial. B groups, G rollouts per group,
N = B * G rows, A arms, D decisions per row.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.core.advantages import group_relative_advantages, whiten
from reskill_jax.core.arms import arm_outcomes, assign_arms, assignment_probabilities
from reskill_jax.core.horizon import estimate_horizon
from reskill_jax.core.losses import entropy, grpo_loss, masked_mean
from reskill_jax.core.posterior import BetaPosterior
from reskill_jax.core.trial import (
    Trial,
    decide_trial,
    finish_trial,
    idle_trial,
    observe_trial,
)
from reskill_jax.policy import decoder
from reskill_jax.policy.decoder import DecoderConfig
from reskill_jax.policy.sampling import masked_log_probs
from reskill_jax.policy.transcript import Transcript
from reskill_jax.skills.bank import swap
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.rollout import Rollout, rollout
from reskill_jax.training.state import TrainState, make_optimizer


class StepMetrics(NamedTuple):
    """What one step reports. Scalars unless a shape is given."""

    success: chex.Array  # share of all rollouts
    arm_successes: chex.Array  # [A] int32
    arm_trials: chex.Array  # [A] int32
    assignment: chex.Array  # [A] float, probabilities the arms were drawn with
    posterior: BetaPosterior  # [A], after this step's counts, before a decision resets it
    trial_successes: chex.Array  # [A] int32, over the trial so far; 0 when there is none
    trial_trials: chex.Array  # [A] int32
    decision: chex.Array  # int32: -1 none, 0 rejected, a > 0 arm a accepted
    horizon: chex.Array  # memory M the posterior was updated with; inf = no discount
    loss: chex.Array
    kl: chex.Array
    clipped: chex.Array
    entropy: chex.Array  # nats per decision
    grad_norm: chex.Array
    mixed_groups: chex.Array  # share of groups with both outcomes, the only ones with a gradient
    turns: chex.Array
    context_tokens: chex.Array  # mean length of a row
    skill_tokens: chex.Array  # of which skill lines
    truncated: chex.Array  # int32 rows
    skipped: chex.Array  # int32, updates left out so far


class Evidence(NamedTuple):
    """What the creator sees of a step's rollouts. N rows, T turns."""

    arms: chex.Array  # [N] int32
    success: chex.Array  # [N] bool
    turns: chex.Array  # [N] int32
    intros: chex.Array  # [N, Li] int32
    actions: chex.Array  # [N, T, La] int32
    observations: chex.Array  # [N, T, Lo] int32
    possible: chex.Array  # [N, T, K] bool, verbs
    fired: chex.Array  # [N, T, S] bool


class _Batch(NamedTuple):
    """Rows the loss is computed from."""

    transcript: Transcript
    advantages: chex.Array  # [N] float
    valid: chex.Array  # [N] bool


def decision_logits(params, transcript: Transcript, *, config: DecoderConfig) -> chex.Array:
    """Logits at every recorded decision: [N, D, V]."""
    hidden = decoder.forward(params, transcript.tokens, config=config)
    at = jnp.take_along_axis(hidden, transcript.position[:, :, None], axis=1)
    return decoder.unembed(params, at, config=config)


def policy_loss(
    params,
    reference,
    batch: _Batch,
    *,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
):
    """The GRPO loss of a minibatch, and what is worth logging about it."""
    rows = batch.transcript
    used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
    used = used & batch.valid[:, None] & (rows.weight > 0)
    allowed = rows.allowed | ~used[:, :, None]

    def chosen(logits):
        log_probs = masked_log_probs(logits, allowed)
        return jnp.take_along_axis(log_probs, rows.choice[:, :, None], axis=-1)[..., 0]

    logits = decision_logits(params, rows, config=policy)
    log_probs = jnp.where(used, chosen(logits), 0.0)
    reference_log_probs = None
    if config.kl_weight > 0:
        reference_logits = decision_logits(reference, rows, config=policy)
        reference_log_probs = jnp.where(used, chosen(reference_logits), 0.0)
    parts = grpo_loss(
        log_probs,
        jnp.where(used, rows.log_prob, 0.0),
        jnp.broadcast_to(batch.advantages[:, None], used.shape),
        used,
        reference_log_probs=reference_log_probs,
        kl_weight=config.kl_weight,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        axis_name=axis_name,
    )
    spread = masked_mean(jax.lax.stop_gradient(entropy(logits, allowed)), used, axis_name=axis_name)
    return parts.loss, (parts.loss, parts.kl, parts.clipped, spread)


def update_policy(
    state: TrainState,
    batch: _Batch,
    *,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
):
    """One optimizer step per minibatch.

    Minibatch m takes rows m, m + M, m + 2M, ...: the same rows whatever the number of devices.
    An update whose gradient is not finite is left out and counted.

    Returns:
      The state, and the means over minibatches of (loss, kl, clipped, entropy, gradient norm).
    """
    optimizer = make_optimizer(config)
    count = config.minibatches

    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def minibatch(carry, part):
        params, opt_state, skipped = carry
        grad_fn = jax.value_and_grad(policy_loss, has_aux=True)
        (_, aux), grads = grad_fn(
            params, state.reference, part, policy=policy, config=config, axis_name=axis_name
        )
        if axis_name is not None:
            grads, aux = jax.lax.psum((grads, aux), axis_name)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(aux[0])
        grads = jax.tree.map(lambda g: jnp.where(finite, g, 0.0), grads)
        updates, new_opt_state = optimizer.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        carry = (keep(new_params, params), keep(new_opt_state, opt_state), skipped + ~finite)
        return carry, (*aux, norm)

    start = (state.params, state.opt_state, state.skipped)
    (params, opt_state, skipped), logs = jax.lax.scan(minibatch, start, jax.tree.map(split, batch))
    means = jax.tree.map(jnp.mean, logs)
    return state._replace(params=params, opt_state=opt_state, skipped=skipped), means


def decide(state: TrainState, successes, trials, *, config: TrainConfig):
    """Counts of a step -> posterior, decision, bank and horizon.

    Returns:
      The state; the trial as it stood when decided; the decision; the horizon used.
    """
    horizon = jnp.float32(jnp.inf)
    if config.discount == "adaptive":
        horizon = estimate_horizon(state.history.log_likelihood, state.history.completed)
    trial = observe_trial(state.trial, successes, trials, horizon=horizon)
    decision = decide_trial(
        trial, min_steps=config.min_trial_steps, min_episodes=config.min_trial_episodes
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
    made = jax.vmap(lambda g: world.make(game_key(config.seed, g), "train"))(games)
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
    success = played.success.reshape(local_groups, group_size)
    rewards = success.astype(jnp.float32)
    advantages = group_relative_advantages(rewards, scale_by_std=config.scale_by_std).reshape(-1)
    valid = jnp.ones_like(played.success)
    if config.whiten:
        mixed = jnp.repeat(jnp.any(success, 1) & ~jnp.all(success, 1), group_size)
        advantages = whiten(advantages, mixed, axis_name=axis_name) * mixed
    batch = _Batch(played.transcript, advantages, valid)
    state, (loss, kl, clipped, spread, norm) = update_policy(
        state, batch, policy=policy, config=config, axis_name=axis_name
    )

    # Versions of the skills.
    successes, trials = arm_outcomes(
        arms, success, valid.reshape(success.shape), num_arms=config.arms, axis_name=axis_name
    )
    state, trial, decision, horizon = decide(state, successes, trials, config=config)
    state = state._replace(step=state.step + 1)

    def mean(x):
        average = jnp.mean(x.astype(jnp.float32))
        return average if axis_name is None else jax.lax.pmean(average, axis_name)

    def total(x):
        count = jnp.sum(x.astype(jnp.int32))
        return count if axis_name is None else jax.lax.psum(count, axis_name)

    metrics = StepMetrics(
        success=mean(played.success),
        arm_successes=successes,
        arm_trials=trials,
        assignment=assignment,
        posterior=trial.posterior,
        trial_successes=jnp.sum(trial.successes, axis=0),
        trial_trials=jnp.sum(trial.trials, axis=0),
        decision=decision,
        horizon=horizon,
        loss=loss,
        kl=kl,
        clipped=clipped,
        entropy=spread,
        grad_norm=norm,
        mixed_groups=mean(jnp.any(success, axis=1) & ~jnp.all(success, axis=1)),
        turns=mean(played.turns),
        context_tokens=mean(played.transcript.length),
        skill_tokens=mean(played.skill_tokens),
        truncated=total(played.truncated),
        skipped=state.skipped,
    )
    evidence = Evidence(
        arms=arms.reshape(-1),
        success=played.success,
        turns=played.turns,
        intros=played.intros,
        actions=played.actions,
        observations=played.observations,
        possible=played.possible,
        fired=played.fired,
    )
    return state, metrics, evidence


def game_key(seed: int, number: chex.Array) -> chex.PRNGKey:
    """The key from which game `number` of a run's world is made."""
    return jax.random.fold_in(jax.random.key(seed + 1), number)
