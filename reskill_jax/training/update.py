"""The update of the policy: the loss, its gradient a few rows at a time, optimizer steps.

N rows, D decisions per row, V vocabulary, M minibatches.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.algorithms.algorithm import Algorithm, Batch, Scores
from reskill_jax.models.lora import merge
from reskill_jax.models.model import Model
from reskill_jax.models.value_head import value_of
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lessons import Learned
from reskill_jax.training.microbatches import (
    few_at_a_time,
    in_turns,
    row_lengths,
    with_a_gradient,
    zeros_of,
)
from reskill_jax.training.scoring import decision_log_probs, decision_states
from reskill_jax.training.state import (
    Critic,
    TrainState,
    make_optimizer,
    make_value_optimizer,
)


class ActorCritic(NamedTuple):
    """What is trained where an algorithm wants values; else it is the policy's parameters alone."""

    policy: Any
    critic: Any


def decision_values(
    params: Any,
    critic: Any,
    rows: Transcript,
    told: chex.Array | None,
    *,
    model: Model,
    parts: int,
    rows_at_once: int,
    context_length: int | None = None,
) -> chex.Array:
    """Values [N, D] before an update, a few rows at a time.

    Args:
      params: of the whole model. critic: of the value head.
      rows: of [N, ...] arrays. told: as of `value_of`.
      model: static. parts, rows_at_once: as of `policy_gradient`. context_length: as of
        `decision_states`.
    """

    def some(part: Any) -> tuple[chex.Array, chex.Array]:
        rows, told = part
        at = decision_states(params, rows, model=model, context_length=context_length)
        return value_of(critic, at, told)

    found = jax.lax.map(some, few_at_a_time((rows, told), parts=parts, rows_at_once=rows_at_once))
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


def policy_loss(
    params: Any,
    frozen: Any,
    reference: Any,
    lessons: Learned,
    *,
    model: Model,
    algorithm: Algorithm,
    config: TrainConfig,
    free_text: bool = False,
) -> tuple[chex.Array, dict[str, chex.Array]]:
    """The algorithm's loss of some rows, and what is worth logging about it: means over decisions.

    Policy and reference are those that rollouts sample from, at the temperature they sample at.

    Args:
      params, frozen, reference, lessons, model, algorithm, config: as of `policy_gradient`.
      free_text: whether tokens may have been chosen from the whole vocabulary (static).
    """
    rows, batch, targets = lessons.transcript, lessons.batch, lessons.targets

    def chosen(params: Any, at: chex.Array | None = None) -> chex.Array:
        return decision_log_probs(
            params,
            rows,
            batch.mask,
            model=model,
            temperature=config.temperature,
            free_text=free_text,
            at=at,
            context_length=config.context_length,
        )

    without_lines = lessons.internalized[:, None]
    if algorithm.values is None:
        scores = Scores(chosen(whole_params(params, frozen, config)))
    else:
        whole = whole_params(params.policy, frozen, config)
        at = decision_states(whole, rows, model=model, context_length=config.context_length)
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


def _cut(lessons: Learned, length: int) -> Learned:
    """The first tokens of every row."""
    rows = lessons.transcript
    rows = rows._replace(
        tokens=rows.tokens[:, :length],
        # Of rows that are left out; an index outside would be filled with NaN.
        position=jnp.minimum(rows.position, length - 1),
    )
    return lessons._replace(transcript=rows)


def policy_gradient(
    params: Any,
    frozen: Any,
    reference: Any,
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
) -> tuple[Any, dict[str, chex.Array]]:
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
    lessons, needed, weights = with_a_gradient(lessons, algorithm)
    capacity = lessons.transcript.tokens.shape[1]
    few = in_turns(
        (lessons, needed, weights),
        parts=parts,
        rows_at_once=rows_at_once,
        together=algorithm.rows_together,
    )
    lengths = row_lengths(capacity, cut_above, config.context_length)

    def cut_to(length: int) -> Callable[..., Any]:
        return lambda part: jax.grad(policy_loss, has_aux=True)(
            params,
            frozen,
            reference,
            _cut(part, length),
            model=model,
            algorithm=algorithm,
            config=config,
            free_text=free_text,
        )

    zeros = zeros_of(cut_to(lengths[-1]), jax.tree.map(lambda x: x[0], few[0]))
    branches = [lambda part: zeros, *[cut_to(length) for length in lengths]]

    def add(sums: Any, few: Any) -> tuple[Any, None]:
        part, needed, weights = few
        branch = jnp.sum(jnp.max(needed) > jnp.array((0, *lengths[:-1])))
        found = jax.lax.switch(branch, branches, part)  # means over these rows
        share = jnp.sum(weights) / jnp.maximum(total, 1)
        return jax.tree.map(lambda s, x: s + share * x, sums, found), None

    found, _ = jax.lax.scan(add, zeros, few)
    return found if axis_name is None else jax.lax.psum(found, axis_name)


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

    def update(state: TrainState) -> Any:
        return update_policy(
            state,
            lessons,
            model=model,
            algorithm=algorithm,
            config=config,
            axis_name=axis_name,
            free_text=free_text,
        )

    def rest(state: TrainState) -> Any:
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

    def split(x: chex.Array) -> chex.Array:
        size = x.shape[0] // count
        units = x.reshape(size // together, count, together, *x.shape[1:])
        return jnp.swapaxes(units, 0, 1).reshape(count, size, *x.shape[1:])

    def minibatch(carry: Any, part: Any) -> tuple[Any, Any]:
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

        def or_zero(grads: Any) -> Any:
            return jax.tree.map(lambda g: jnp.where(finite, g, 0.0), grads)

        def keep(new: Any, old: Any) -> Any:
            return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)

        updates, new_opt_state = optimizer.update(or_zero(grads), opt_state, params)
        new_params = optax.apply_updates(params, updates)
        if has_values:
            critic = keep(_critic_after(critic, or_zero(of_values), algorithm), critic)
        carry = (keep(new_params, params), keep(new_opt_state, opt_state), critic)
        return (*carry, skipped + ~finite), {**logs, "grad_norm": norm}

    start = (state.params, state.opt_state, state.critic, state.skipped)
    (params, opt_state, critic, skipped), logs = jax.lax.scan(
        minibatch, start, jax.tree.map(split, lessons)
    )
    logs = jax.tree.map(jnp.mean, logs)
    state = state._replace(params=params, opt_state=opt_state, critic=critic, skipped=skipped)
    return state, {**logs, "entropy": entropy(lessons.batch, axis_name=axis_name)}


def _critic_after(critic: Critic, grads: Any, algorithm: Algorithm) -> Critic:
    """The value function after one step of its own optimizer."""
    updates, opt_state = make_value_optimizer(algorithm).update(grads, critic.opt_state)
    return Critic(optax.apply_updates(critic.params, updates), opt_state)
