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
from reskill_jax.models.value_head import value_of
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.episodes import Rollouts
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.scoring import decision_log_probs, decision_states
from reskill_jax.training.state import (
    Critic,
    TrainState,
    make_optimizer,
    make_value_optimizer,
)

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
    told: chex.Array | None = None  # [N, F] float: what values are told beside the text


class ActorCritic(NamedTuple):
    """What is trained where an algorithm wants values; else it is the policy's parameters alone."""

    policy: Any
    critic: Any


def batch_of(played: Rollouts) -> Batch:
    """What an algorithm needs to know of rollouts."""
    rows = played.transcript
    used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
    mask = used & played.valid[:, None] & (rows.weight > 0)
    return Batch(
        played.reward,
        played.valid,
        rows.turn,
        mask,
        rows.log_prob,
        turns=played.turns,
        observation=played.observation,
        overlong=played.truncated,
    )


def lessons_of(played: Rollouts, batch: Batch, targets: Targets, told: Any = None) -> Learned:
    """Rollouts as rows to learn from, in the order that the targets ask for."""
    # What targets alone needed is not carried into the loss.
    batch = batch._replace(turns=None, observation=None, overlong=None)
    if targets.counted is not None:
        batch = batch._replace(mask=batch.mask & targets.counted[:, None])
    order = targets.order
    targets = targets._replace(counted=None, order=None)
    lessons = Learned(played.transcript, batch, targets, jnp.zeros_like(played.valid), told)
    return lessons if order is None else in_order(lessons, order)


def in_order(rows: Any, order: chex.Array) -> Any:
    """The rows of arrays [N, ...] in another order [N]."""
    return keep_rows(jax.tree.map(lambda x: x[order], rows))


def decision_values(
    params: Any,
    critic: Any,
    rows: Transcript,
    told: chex.Array | None,
    *,
    model: Model,
    parts: int,
    rows_at_once: int,
) -> chex.Array:
    """Values [N, D] before an update, a few rows at a time.

    Args:
      params: of the whole model. critic: of the value head.
      rows: of [N, ...] arrays. told: as of `value_of`.
      model: static. parts, rows_at_once: as of `policy_gradient`.
    """

    def some(part):
        rows, told = part
        return value_of(critic, decision_states(params, rows, model=model), told)

    found = jax.lax.map(some, _few_at_a_time((rows, told), parts=parts, rows_at_once=rows_at_once))
    turns, size = found.shape[0], found.shape[1] // parts
    found = jnp.swapaxes(found.reshape(turns, parts, size, *found.shape[2:]), 0, 1)
    return found.reshape(parts * turns * size, *found.shape[3:])


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
    batch, targets = lessons.batch, lessons.targets
    gained = jnp.sum(jnp.where(batch.mask, targets.advantages, 0.0), axis=1) > 0
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
    rows, batch, targets = lessons.transcript, lessons.batch, lessons.targets

    def chosen(params, at=None):
        return decision_log_probs(
            params,
            rows,
            batch.mask,
            model=model,
            temperature=config.temperature,
            free_text=free_text,
            at=at,
        )

    without_lines = lessons.internalized[:, None]
    if algorithm.values is None:
        scores = Scores(chosen(whole_params(params, frozen, config)))
    else:
        whole = whole_params(params.policy, frozen, config)
        at = decision_states(whole, rows, model=model)
        scores = Scores(chosen(whole, at), value_of(params.critic, at, lessons.told))
        # What came of a row with skills says nothing about its worth without them.
        own = jax.lax.stop_gradient(scores.values)
        assert own is not None and targets.returns is not None and batch.values is not None
        targets = targets._replace(returns=jnp.where(without_lines, own, targets.returns))
        batch = batch._replace(values=jnp.where(without_lines, own, batch.values))
    own = jax.lax.stop_gradient(scores.log_probs)
    old = jnp.where(without_lines, own, batch.old)
    batch = batch._replace(old=jnp.where(batch.mask, old, 0.0))
    if algorithm.uses_reference:
        batch = batch._replace(reference=chosen(reference))
    loss, logs = algorithm.loss(scores, batch, targets)
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
      params: that are trained: of the policy, or an `ActorCritic`. frozen: what adapters add to,
        or ().
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
    total = jnp.sum(algorithm.weights(lessons.batch.mask))
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    lessons, needed, weights = _with_a_gradient(lessons, algorithm)
    capacity = lessons.transcript.tokens.shape[1]
    few = _in_turns(
        (lessons, needed, weights),
        parts=parts,
        rows_at_once=rows_at_once,
        together=algorithm.rows_together,
    )
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
        part, needed, weights = few
        branch = jnp.sum(jnp.max(needed) > jnp.array((0, *lengths[:-1])))
        found = jax.lax.switch(branch, branches, part)  # means over these rows
        share = jnp.sum(weights) / jnp.maximum(total, 1)
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
      The lessons; [N] int32 tokens of a row that matter; [N] int32 how much it counts.
    """
    batch, rows = lessons.batch, lessons.transcript
    learned = jnp.any(batch.mask, axis=1)
    if not algorithm.uses_reference and algorithm.values is None:
        learned = learned & jnp.any(lessons.targets.advantages != 0, axis=1)
    needed = jnp.where(learned, jnp.minimum(rows.length, rows.tokens.shape[1]), 0)
    batch = batch._replace(mask=batch.mask & learned[:, None])
    return lessons._replace(batch=batch), needed, algorithm.weights(batch.mask)


def _in_turns(x: Any, *, parts: int, rows_at_once: int, together: int) -> Any:
    """(lessons, needed [N], weights [N]) -> the same in turns, the longest rows first.

    [N, ...] becomes [turns, parts * size, ...]: in every turn some rows of every device. Of rows
    that stay together the longest counts.
    """
    needed = jnp.max(x[1].reshape(parts, -1, together), axis=2)
    order = jnp.argsort(-needed, axis=1)

    def sort(x):
        units = x.reshape(parts, -1, together, *x.shape[1:])
        return jax.vmap(lambda x, order: x[order])(units, order).reshape(x.shape)

    ordered = jax.tree.map(sort, x)
    return _few_at_a_time(ordered, parts=parts, rows_at_once=rows_at_once, together=together)


def _few_at_a_time(x: Any, *, parts: int, rows_at_once: int, together: int = 1) -> Any:
    """Arrays [N, ...] as [turns, parts * size, ...], with some rows of every part in every turn."""
    rows = jax.tree.leaves(x)[0].shape[0] // parts
    most = max(rows_at_once, together)
    size = max(k for k in range(together, most + 1, together) if rows % k == 0)

    def in_turns(x):
        x = x.reshape(parts, rows // size, size, *x.shape[1:])
        x = jnp.swapaxes(x, 0, 1)
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
        idle = dict.fromkeys(("loss", "kl", "clipped", "grad_norm", *algorithm.logs), zero)
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
    (Where rows stay together, as many of them in the place of each.) An update whose gradient is
    not finite is left out and counted.

    Returns:
      The state; loss, kl, clipped, grad_norm (of the policy) and what else the algorithm logs as
      means over minibatches, and `entropy`.
    """
    optimizer = make_optimizer(config)
    count, together = config.optimizer.minibatches, algorithm.rows_together
    has_values = algorithm.values is not None

    def split(x):
        size = x.shape[0] // count
        units = x.reshape(size // together, count, together, *x.shape[1:])
        return jnp.swapaxes(units, 0, 1).reshape(count, size, *x.shape[1:])

    def minibatch(carry, part):
        params, opt_state, critic, skipped = carry
        grads, logs = policy_gradient(
            ActorCritic(params, critic.params) if has_values else params,
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
        of_values, grads = (grads.critic, grads.policy) if has_values else ((), grads)
        norm = optax.tree.norm(grads)
        finite = jnp.isfinite(norm) & jnp.isfinite(logs["loss"])
        if has_values:
            finite = finite & jnp.isfinite(optax.tree.norm(of_values))

        def or_zero(grads):
            return jax.tree.map(lambda g: jnp.where(finite, g, 0.0), grads)

        def keep(new, old):
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        updates, new_opt_state = optimizer.update(or_zero(grads), opt_state, params)
        new_params = optax.apply_updates(params, updates)
        if has_values:
            critic = keep(_critic_after(critic, or_zero(of_values), config), critic)
        carry = (keep(new_params, params), keep(new_opt_state, opt_state), critic)
        return (*carry, skipped + ~finite), {**logs, "grad_norm": norm}

    start = (state.params, state.opt_state, state.critic, state.skipped)
    (params, opt_state, critic, skipped), logs = jax.lax.scan(
        minibatch, start, jax.tree.map(split, lessons)
    )
    logs = jax.tree.map(jnp.mean, logs)
    state = state._replace(params=params, opt_state=opt_state, critic=critic, skipped=skipped)
    return state, {**logs, "entropy": entropy(lessons.batch, axis_name=axis_name)}


def _critic_after(critic: Critic, grads: Any, config: TrainConfig) -> Critic:
    """The value function after one step of its own optimizer."""
    updates, opt_state = make_value_optimizer(config).update(grads, critic.opt_state)
    return Critic(optax.apply_updates(critic.params, updates), opt_state)
