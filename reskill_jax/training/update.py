"""The update of the policy: the GRPO loss, its gradient a few rows at a time, optimizer steps.

N rows, D decisions per row, V vocabulary, M minibatches.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.core.losses import grpo_loss
from reskill_jax.devices.placement import keep_rows
from reskill_jax.models import decoder
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.models.sampling import NO_TOKEN, masked_log_probs
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.state import TrainState, make_optimizer

_EIGHTHS = (5, 6, 8)  # of the capacity that rows are cut to; each is a program of its own


class Batch(NamedTuple):
    """Rows the loss is computed from."""

    transcript: Transcript
    advantages: chex.Array  # [N] float
    valid: chex.Array  # [N] bool
    internalized: chex.Array  # [N] bool; its decisions were sampled with skills that it lacks


def internalized(batch: Batch, of_skills: chex.Array, keys: chex.PRNGKey, *, share: float) -> Batch:
    """Successes with skills in the prompt, some of them as if they had come about without.

    What skills make the policy do becomes its own: its next update makes the same decisions more
    likely in the same episode without the skills' lines (context distillation: C. Snell, D. Klein
    and R. Zhong, Learning by Distilling Context, arXiv:2209.15189, here of the better half of each
    group alone, weighted by the advantage). There is no ratio to clip: nobody sampled from the
    policy in this context.

    Args:
      batch: of the step.
      of_skills: [N, L] bool, tokens that are lines of skills.
      keys: [N] random keys, one a row.
      share: of these successes that is taken so; the others keep their lines (static).

    Returns:
      The batch with other transcripts in the rows chosen.
    """
    chosen = (batch.advantages > 0) & jnp.any(of_skills, axis=1)
    chosen = chosen & (jax.vmap(jax.random.uniform)(keys) < share)
    alone = jax.vmap(transcripts.without)(batch.transcript, of_skills & chosen[:, None])
    return batch._replace(transcript=alone, internalized=chosen)


def decision_logits(params, transcript: Transcript, *, config: DecoderConfig) -> chex.Array:
    """Logits of the candidates at every recorded decision: [N, D, K]."""
    hidden = decoder.forward(params, transcript.tokens, config=config)
    at = jnp.take_along_axis(hidden, transcript.position[:, :, None], axis=1)
    return decoder.logits(params, at, transcript.support, config=config)


def chosen_log_probs(
    logits: chex.Array, transcript: Transcript, used: chex.Array, *, temperature: float
) -> chex.Array:
    """Log-probabilities of the tokens that were chosen: [N, D], 0 where a decision is not used.

    Args:
      logits: [N, D, K] of the candidates.
      transcript: of [N, ...] arrays.
      used: [N, D] bool.
      temperature: they were sampled at.
    """
    support = transcript.support
    allowed = (support != NO_TOKEN) | ~used[:, :, None]
    log_probs = masked_log_probs(logits, allowed, temperature=temperature)
    choice = support == jax.vmap(transcripts.choices)(transcript)[:, :, None]
    return jnp.sum(jnp.where(choice & used[:, :, None], log_probs, 0.0), axis=-1)


def policy_loss(params, reference, batch: Batch, *, policy: DecoderConfig, config: TrainConfig):
    """The GRPO loss of some rows, and what is worth logging about it: means over decisions.

    Policy and reference are those that rollouts sample from, at the temperature they sample at.
    """
    rows = batch.transcript
    used = decisions_used(batch)

    def chosen(params):
        logits = decision_logits(params, rows, config=policy)
        return chosen_log_probs(logits, rows, used, temperature=config.temperature)

    log_probs = chosen(params)
    own = jax.lax.stop_gradient(log_probs)
    old = jnp.where(batch.internalized[:, None], own, rows.log_prob)
    reference_log_probs = None
    if config.kl_weight > 0:
        reference_log_probs = chosen(reference)
    parts = grpo_loss(
        log_probs,
        jnp.where(used, old, 0.0),
        jnp.broadcast_to(batch.advantages[:, None], used.shape),
        used,
        reference_log_probs=reference_log_probs,
        kl_weight=config.kl_weight,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
    )
    return parts.loss, (parts.loss, parts.kl, parts.clipped)


def decisions_used(batch: Batch) -> chex.Array:
    """Decisions to learn from: [N, D] bool."""
    rows = batch.transcript
    used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
    return used & batch.valid[:, None] & (rows.weight > 0)


def policy_gradient(
    params,
    reference,
    batch: Batch,
    *,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
    parts: int = 1,
    rows_at_once: int = 4,
    cut_above: int = 256,
):
    """Gradient of the GRPO loss of a minibatch, a few rows at a time.

    The gradient of `policy_loss` of the whole, for a third of the work. Rows without advantage
    have none and are left out (but with a divergence every row has one); the others are sorted by
    length, and each few are cut to a length that holds them. Small temporaries also spare a CPU
    the page faults.

    Args:
      params, reference: of the policy and of the one it started from (() without a divergence).
      batch: N rows of this device.
      policy, config: static.
      axis_name: mapped axis (data parallel).
      parts: devices that rows are split over by sharding; each works on a few of its own at once.
      rows_at_once: at most, per device; the largest number that divides its rows is taken.
      cut_above: rows with a capacity up to this stay whole: with so few tokens, cutting saves
        less than its programs take to compile.

    Returns:
      (gradient, (loss, kl, clipped)): over all devices, the same on every one. `clipped` is the
      share of decisions without gradient because of the clipping.
    """
    decisions = jnp.sum(decisions_used(batch), axis=1)
    total = jnp.sum(decisions)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    learned = decisions > 0
    if config.kl_weight == 0:
        learned = learned & (batch.advantages != 0)
    capacity = batch.transcript.tokens.shape[1]
    needed = jnp.where(learned, jnp.minimum(batch.transcript.length, capacity), 0)
    batch = batch._replace(valid=batch.valid & learned)

    rows = decisions.shape[0] // parts
    size = max(k for k in range(1, rows_at_once + 1) if rows % k == 0)
    order = jnp.argsort(-needed.reshape(parts, rows), axis=1)

    def in_turns(x):
        """[N, ...] -> [turns, parts * size, ...]: in every turn some rows of every device."""
        x = x.reshape(parts, rows, *x.shape[1:])
        x = jax.vmap(lambda x, order: x[order])(x, order)
        x = jnp.swapaxes(x.reshape(parts, rows // size, size, *x.shape[2:]), 0, 1)
        return keep_rows(x.reshape(rows // size, parts * size, *x.shape[3:]), axis=1)

    few = jax.tree.map(in_turns, (batch, needed, decisions * learned))
    eighths = _EIGHTHS if capacity > cut_above else (8,)
    lengths = sorted({-(-capacity * n // 8) for n in eighths})
    zeros = (jax.tree.map(jnp.zeros_like, params), (jnp.float32(0),) * 3)

    def cut_to(length: int):
        def gradient(part: Batch):
            row = part.transcript
            row = row._replace(
                tokens=row.tokens[:, :length],
                # Of rows that are left out; an index outside would be filled with NaN.
                position=jnp.minimum(row.position, length - 1),
            )
            grad_fn = jax.grad(policy_loss, has_aux=True)
            return grad_fn(
                params, reference, part._replace(transcript=row), policy=policy, config=config
            )

        return gradient

    branches = [lambda part: zeros, *[cut_to(length) for length in lengths]]

    def add(sums, few):
        part, needed, decisions = few
        branch = jnp.sum(jnp.max(needed) > jnp.array((0, *lengths[:-1])))
        found = jax.lax.switch(branch, branches, part)  # means over these decisions
        share = jnp.sum(decisions) / jnp.maximum(total, 1)
        return jax.tree.map(lambda s, x: s + share * x, sums, found), None

    found, _ = jax.lax.scan(add, zeros, few)
    return found if axis_name is None else jax.lax.psum(found, axis_name)


def maybe_update_policy(
    state: TrainState,
    batch: Batch,
    *,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
):
    """`update_policy` in the steps that `config.policy_steps` names; in others nothing changes.

    A policy that is never trained costs nothing, not even the compilation of its update.

    Returns:
      As `update_policy`; loss, kl, clipped and norm are 0 where nothing was updated.
    """
    trained = config.policy_steps

    def update(state):
        return update_policy(state, batch, policy=policy, config=config, axis_name=axis_name)

    def rest(state):
        spread, zero = entropy(batch, axis_name=axis_name), jnp.float32(0)
        return state, (zero, zero, zero, spread, zero)

    if not trained:
        return rest(state)
    if config.policy_from == 0 and config.policy_until is None:  # also past the last step
        return update(state)
    now = (state.step >= trained.start) & (state.step < trained.stop)
    return jax.lax.cond(now, update, rest, state)


def entropy(batch: Batch, *, axis_name: str | None = None) -> chex.Array:
    """Nats per decision of the distribution sampled from, estimated from what was sampled."""
    used = decisions_used(batch)
    sums = (jnp.sum(jnp.where(used, -batch.transcript.log_prob, 0.0)), jnp.sum(used))
    spread, decisions = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    return spread / jnp.maximum(decisions, 1)


def update_policy(
    state: TrainState,
    batch: Batch,
    *,
    policy: DecoderConfig,
    config: TrainConfig,
    axis_name: str | None = None,
):
    """One optimizer step per minibatch.

    Minibatch m takes rows m, m + M, m + 2M, ...: the same rows whatever the number of devices.
    An update whose gradient is not finite is left out and counted.

    Returns:
      The state, and (loss, kl, clipped, `entropy`, gradient norm), means over minibatches.
    """
    optimizer = make_optimizer(config)
    count = config.minibatches

    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def minibatch(carry, part):
        params, opt_state, skipped = carry
        grads, aux = policy_gradient(
            params,
            state.reference,
            part,
            policy=policy,
            config=config,
            axis_name=axis_name,
            parts=1 if axis_name else config.mesh.rows,
        )
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
    loss, kl, clipped, norm = jax.tree.map(jnp.mean, logs)
    state = state._replace(params=params, opt_state=opt_state, skipped=skipped)
    return state, (loss, kl, clipped, entropy(batch, axis_name=axis_name), norm)
