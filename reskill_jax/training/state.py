"""Everything a training run changes on the device, in one pytree."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.core.trial import Trial, TrialHistory, idle_trial, start_history
from reskill_jax.models.lora import init_adapters
from reskill_jax.skills.bank import Bank
from reskill_jax.training.config import TrainConfig


class TrainState(NamedTuple):
    """Policy and skills together. A arms, S slots."""

    params: Any  # float32 master weights that are trained: all of them, or low-rank adapters
    opt_state: Any
    reference: Any  # the starting policy's parameters; () without a divergence, or with adapters
    key: chex.PRNGKey  # [] typed key, never used twice: each step folds its number in
    games: chex.PRNGKey  # [] typed key of the training games, see `step.game_key`
    step: chex.Array  # [] int32, completed training steps
    bank: Bank  # [A, S, ...], every arm
    trials: Trial  # [K, ...], one a part, each of two arms: without it, with it
    history: TrialHistory
    skipped: chex.Array  # [] int32, updates left out because something was not finite
    frozen: Any = ()  # what adapters add to, which no checkpoint holds; () without adapters


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Adam with a rate that falls linearly over its steps, gradients clipped by their norm."""
    updates = len(config.policy_steps) * config.optimizer.minibatches
    rate = optax.linear_schedule(
        config.optimizer.learning_rate, config.optimizer.final_learning_rate, updates
    )
    return optax.chain(
        optax.clip_by_global_norm(config.optimizer.max_grad_norm),
        optax.adam(rate, b2=0.99),
    )


def games_key(seed: int) -> chex.PRNGKey:
    """The key of a run's training games."""
    return jax.random.key(seed + 1)


def idle_trials(config: TrainConfig) -> Trial:
    """No part is under test: [K, ...]."""
    idle = idle_trial(2, max_steps=config.trial.max_steps)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.trial.concurrent, *x.shape)), idle)


def init_state(config: TrainConfig, params, bank: Bank) -> TrainState:
    """The state before the first step.

    Args:
      config: of the run.
      params: of the policy to start from.
      bank: skills of every arm, usually none.
    """
    params, frozen = jax.tree.map(jnp.asarray, params), ()
    if config.model.lora_rank > 0:
        key = jax.random.fold_in(jax.random.key(config.seed), 1 << 30)  # no step has this number
        params, frozen = init_adapters(key, params, rank=config.model.lora_rank), params
    starts_elsewhere = config.algorithm.kl_weight > 0 and config.model.lora_rank == 0
    return TrainState(
        params=params,
        opt_state=make_optimizer(config).init(params),
        reference=jax.tree.map(jnp.copy, params) if starts_elsewhere else (),
        key=jax.random.key(config.seed),
        games=games_key(config.seed),
        step=jnp.int32(0),
        bank=jax.tree.map(jnp.asarray, bank),
        trials=idle_trials(config),
        history=start_history(),
        skipped=jnp.int32(0),
        frozen=frozen,
    )
