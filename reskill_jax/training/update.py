"""The update of the policy: the loss, its gradient a few rows at a time, optimizer steps.

N rows, D decisions per row, V vocabulary, M minibatches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.algorithms.algorithm import Algorithm, Batch, Scores, Targets
from reskill_jax.devices.placement import keep_rows
from reskill_jax.models.lora import merge
from reskill_jax.models.model import Model
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.episodes import Rollouts
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.scoring import decision_log_probs
from reskill_jax.training.state import TrainState, make_optimizer

# Eighths of the context that rows are cut to; each is a program of its own. In a long context rows
# differ more.
_EIGHTHS, _EIGHTHS_OF_LONG = (3, 4, 5, 6, 8), (2, 3, 4, 5, 6, 8)
_LONG = 1024  # tokens


class Learned(NamedTuple):
    """Rows the loss is computed from."""

    transcript: Transcript
    batch: Batch
    targets: Targets
    internalized: chex.Array  # [N] bool; its decisions were sampled with skills that it lacks


def batch_of(played: Rollouts) -> Batch:
    """What an algorithm needs to know of rollouts."""
    rows = played.transcript
    used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
    mask = used & played.valid[:, None] & (rows.weight > 0)
    return Batch(played.reward, played.valid, rows.turn, mask, rows.log_prob)


def whole_params(params: Any, frozen: Any, config: TrainConfig) -> Any:
    """The parameters of the model: those that are trained, or with adapters what they add to."""
    if config.model.lora_rank == 0:
        return params
    return merge(frozen, params, scale=config.model.lora_alpha / config.model.lora_rank)


def rollout_params(state: TrainState, config: TrainConfig) -> Any:
    """The parameters that a step's rollouts sample from."""
    return whole_params(state.params, state.frozen, config)


def internalized(
    lessons: Learned, of_skills: chex.Array, keys: chex.PRNGKey, *, share: float
) -> Learned:
    """Successes with skills in the prompt, some of them as if they had come about without.

    What skills make the policy do becomes its own: its next update makes the same decisions more
    likely in the same episode without the skills' lines (context distillation: C. Snell, D. Klein
    and R. Zhong, Learning by Distilling Context, arXiv:2209.15189, here of the better half of each
    group alone, weighted by the advantage). There is no ratio to clip: nobody sampled from the
    policy in this context.

    Args:
      lessons: of the step.
      of_skills: [N, L] bool, tokens that are lines of skills.
      keys: [N] random keys, one a row.
      share: of these successes that is taken so; the others keep their lines (static).

    Returns:
      The lessons with other transcripts in the rows chosen.
    """
    gained = jnp.any(lessons.targets.advantages > 0, axis=1)
    chosen = gained & jnp.any(of_skills, axis=1)
    chosen = chosen & (jax.vmap(jax.random.uniform)(keys) < share)
    alone = jax.vmap(transcripts.without)(lessons.transcript, of_skills & chosen[:, None])
    return lessons._replace(transcript=alone, internalized=chosen)


def policy_loss(
    params,
    frozen,
    reference,
    lessons: Learned,
    *,
    model: Model,
    algorithm: Algorithm,
    config: TrainConfig,
    free_text: bool = False,
):
    """The algorithm's loss of some rows, and what is worth logging about it: means over decisions.

    Policy and reference are those that rollouts sample from, at the temperature they sample at.

    Args:
      params, frozen, reference, lessons, model, algorithm, config: as of `policy_gradient`.
      free_text: whether tokens may have been chosen from the whole vocabulary (static).
    """
    rows, batch = lessons.transcript, lessons.batch

    def chosen(params):
        return decision_log_probs(
            params,
            rows,
            batch.mask,
            model=model,
            temperature=config.temperature,
            free_text=free_text,
        )

    log_probs = chosen(whole_params(params, frozen, config))
    own = jax.lax.stop_gradient(log_probs)
    old = jnp.where(lessons.internalized[:, None], own, batch.old)
    batch = batch._replace(old=jnp.where(batch.mask, old, 0.0))
    if algorithm.uses_reference:
        batch = batch._replace(reference=chosen(reference))
    loss, logs = algorithm.loss(Scores(log_probs), batch, lessons.targets)
    return loss, {"loss": loss, **logs}


def policy_gradient(
    params,
    frozen,
    reference,
    lessons: Learned,
    *,
    model: Model,
    algorithm: Algorithm,
    config: TrainConfig,
    axis_name: str | None = None,
    parts: int = 1,
    rows_at_once: int = 4,
    cut_above: int = 256,
    free_text: bool = False,
):
    """Gradient of the loss of a minibatch, a few rows at a time.

    The gradient of `policy_loss` of the whole, for a third of the work. Rows without advantage
    have none and are left out (but with a divergence every row has one); the others are sorted by
    length, and each few are cut to a length that holds them. Small temporaries also spare a CPU
    the page faults.

    Args:
      params: that are trained. frozen: what adapters add to, or ().
      reference: of the policy it started from (() without a divergence).
      lessons: N rows of this device.
      model, algorithm, config: static.
      axis_name: mapped axis (data parallel).
      parts: devices that rows are split over by sharding; each works on a few of its own at once.
      rows_at_once: at most, per device; the largest number that divides its rows is taken.
      cut_above: rows with a context up to this stay whole: with so few tokens, cutting saves
        less than its programs take to compile.
      free_text: as of `policy_loss`.

    Returns:
      (gradient, logs): over all devices, the same on every one.
    """
    total = jnp.sum(lessons.batch.mask)
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    lessons, needed, decisions = _with_a_gradient(lessons, algorithm)
    capacity = lessons.transcript.tokens.shape[1]
    few = _in_turns((lessons, needed, decisions), parts=parts, rows_at_once=rows_at_once)
    lengths = _lengths(capacity, cut_above)

    def cut_to(length: int):
        def gradient(part: Learned):
            row = part.transcript
            row = row._replace(
                tokens=row.tokens[:, :length],
                # Of rows that are left out; an index outside would be filled with NaN.
                position=jnp.minimum(row.position, length - 1),
            )
            return jax.grad(policy_loss, has_aux=True)(
                params,
                frozen,
                reference,
                part._replace(transcript=row),
                model=model,
                algorithm=algorithm,
                config=config,
                free_text=free_text,
            )

        return gradient

    zeros = _zeros_of(cut_to(lengths[-1]), jax.tree.map(lambda x: x[0], few[0]))
    branches = [lambda part: zeros, *[cut_to(length) for length in lengths]]

    def add(sums, few):
        part, needed, decisions = few
        branch = jnp.sum(jnp.max(needed) > jnp.array((0, *lengths[:-1])))
        found = jax.lax.switch(branch, branches, part)  # means over these decisions
        share = jnp.sum(decisions) / jnp.maximum(total, 1)
        return jax.tree.map(lambda s, x: s + share * x, sums, found), None

    found, _ = jax.lax.scan(add, zeros, few)
    return found if axis_name is None else jax.lax.psum(found, axis_name)


def _zeros_of(function: Any, part: Any) -> Any:
    """Zeros like what a function would return."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(function, part))


def _lengths(capacity: int, cut_above: int) -> list[int]:
    """What rows are cut to, ascending."""
    if capacity <= cut_above:
        return [capacity]
    eighths = _EIGHTHS_OF_LONG if capacity > _LONG else _EIGHTHS
    return sorted({-(-capacity * n // 8) for n in eighths})


def _with_a_gradient(
    lessons: Learned, algorithm: Algorithm
) -> tuple[Learned, chex.Array, chex.Array]:
    """Leaves out rows without a gradient.

    Returns:
      The lessons; [N] int32 tokens of a row that matter; [N] int32 decisions to learn from.
    """
    batch, rows = lessons.batch, lessons.transcript
    decisions = jnp.sum(batch.mask, axis=1)
    learned = decisions > 0
    if not algorithm.uses_reference:
        learned = learned & jnp.any(lessons.targets.advantages != 0, axis=1)
    needed = jnp.where(learned, jnp.minimum(rows.length, rows.tokens.shape[1]), 0)
    batch = batch._replace(mask=batch.mask & learned[:, None])
    return lessons._replace(batch=batch), needed, decisions * learned


def _in_turns(x: Any, *, parts: int, rows_at_once: int) -> Any:
    """(lessons, needed [N], decisions [N]) -> the same in turns, the longest rows first.

    [N, ...] becomes [turns, parts * size, ...]: in every turn some rows of every device.
    """
    needed = x[1]
    rows = needed.shape[0] // parts
    size = max(k for k in range(1, rows_at_once + 1) if rows % k == 0)
    order = jnp.argsort(-needed.reshape(parts, rows), axis=1)

    def in_turns(x):
        x = x.reshape(parts, rows, *x.shape[1:])
        x = jax.vmap(lambda x, order: x[order])(x, order)
        x = jnp.swapaxes(x.reshape(parts, rows // size, size, *x.shape[2:]), 0, 1)
        return keep_rows(x.reshape(rows // size, parts * size, *x.shape[3:]), axis=1)

    return jax.tree.map(in_turns, x)


Logs = Mapping[str, chex.Array]


def maybe_update_policy(
    state: TrainState,
    lessons: Learned,
    *,
    model: Model,
    algorithm: Algorithm,
    config: TrainConfig,
    axis_name: str | None = None,
    free_text: bool = False,
) -> tuple[TrainState, Logs]:
    """`update_policy` in the steps that `config.policy_steps` names; in others nothing changes.

    A policy that is never trained costs nothing, not even the compilation of its update.

    Returns:
      As `update_policy`; all but the entropy is 0 where nothing was updated.
    """
    trained = config.policy_steps

    def update(state):
        return update_policy(
            state,
            lessons,
            model=model,
            algorithm=algorithm,
            config=config,
            axis_name=axis_name,
            free_text=free_text,
        )

    def rest(state):
        zero = jnp.float32(0)
        spread = entropy(lessons.batch, axis_name=axis_name)
        idle = dict.fromkeys(("loss", "kl", "clipped", "grad_norm"), zero)
        return state, {**idle, "entropy": spread}

    if not trained:
        return rest(state)
    if config.policy_from == 0 and config.policy_until is None:  # also past the last step
        return update(state)
    now = (state.step >= trained.start) & (state.step < trained.stop)
    return jax.lax.cond(now, update, rest, state)


def entropy(batch: Batch, *, axis_name: str | None = None) -> chex.Array:
    """Nats per decision of the distribution sampled from, estimated from what was sampled."""
    sums = (jnp.sum(jnp.where(batch.mask, -batch.old, 0.0)), jnp.sum(batch.mask))
    spread, decisions = sums if axis_name is None else jax.lax.psum(sums, axis_name)
    return spread / jnp.maximum(decisions, 1)


def update_policy(
    state: TrainState,
    lessons: Learned,
    *,
    model: Model,
    algorithm: Algorithm,
    config: TrainConfig,
    axis_name: str | None = None,
    free_text: bool = False,
) -> tuple[TrainState, Logs]:
    """One optimizer step per minibatch.

    Minibatch m takes rows m, m + M, m + 2M, ...: the same rows whatever the number of devices.
    An update whose gradient is not finite is left out and counted.

    Returns:
      The state; loss, kl, clipped and grad_norm as means over minibatches, and `entropy`.
    """
    optimizer = make_optimizer(config)
    count = config.optimizer.minibatches

    def split(x):
        return jnp.swapaxes(x.reshape(x.shape[0] // count, count, *x.shape[1:]), 0, 1)

    def minibatch(carry, part):
        params, opt_state, skipped = carry
        grads, logs = policy_gradient(
            params,
            state.frozen,
            state.frozen if config.model.lora_rank else state.reference,
            part,
            model=model,
            algorithm=algorithm,
            config=config,
            axis_name=axis_name,
            parts=1 if axis_name else config.mesh.rows,
            rows_at_once=config.optimizer.microbatch,
            free_text=free_text,
        )
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(logs["loss"])
        grads = jax.tree.map(lambda g: jnp.where(finite, g, 0.0), grads)
        updates, new_opt_state = optimizer.update(grads, opt_state, params)
        new_params = optax.apply_updates(params, updates)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        carry = (keep(new_params, params), keep(new_opt_state, opt_state), skipped + ~finite)
        return carry, {**logs, "grad_norm": norm}

    start = (state.params, state.opt_state, state.skipped)
    (params, opt_state, skipped), logs = jax.lax.scan(
        minibatch, start, jax.tree.map(split, lessons)
    )
    logs = jax.tree.map(jnp.mean, logs)
    state = state._replace(params=params, opt_state=opt_state, skipped=skipped)
    return state, {**logs, "entropy": entropy(lessons.batch, axis_name=axis_name)}
