"""Everything a training run changes on the device, in one pytree."""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.core.trial import Trial, TrialHistory, idle_trial, start_history
from reskill_jax.models.lora import init_adapters
from reskill_jax.models.value_head import init_value_head
from reskill_jax.skills.bank import Bank
from reskill_jax.training.config import TrainConfig

__all__ = [
    "Critic",
    "TrainState",
    "init_state",
    "learning_rate",
    "make_optimizer",
    "make_value_optimizer",
    "played_state",
]


class Critic(NamedTuple):
    """A value function that learns beside the policy."""

    params: Any  # float32, see `models.value_head`
    opt_state: Any


class TrainState(NamedTuple):
    """Policy and skills together. A arms, S slots."""

    params: Any  # float32 master weights that are trained: all of them, or low-rank adapters
    opt_state: Any
    reference: Any  # the starting policy's parameters; () without a divergence or with adapters
    key: chex.PRNGKey  # [] typed key, never used twice: each step folds its number in
    games: chex.PRNGKey  # [] typed key of the training games, see `step.game_key`
    step: chex.Array  # [] int32, completed training steps
    bank: Bank  # [A, S, ...], every arm
    trials: Trial  # [K, ...], one a part, each of two arms: without it, with it
    history: TrialHistory
    skipped: chex.Array  # [] int32, updates left out because something was not finite
    frozen: Any = ()  # what adapters add to, which no checkpoint holds; () without adapters
    critic: Any = ()  # a Critic; () where the algorithm has no value function


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """The optimizer of a run: gradients clipped by their norm, a rate that changes over the steps
    that update the policy. One that is never updated needs no moments."""
    if not config.policy_steps:
        return optax.identity()
    settings = config.optimizer
    rate = learning_rate(config)
    made = {
        "adam": lambda: optax.adam(rate, b2=0.99),
        "adamw": lambda: optax.adamw(rate, b2=0.99, weight_decay=settings.weight_decay),
        "adafactor": lambda: optax.adafactor(rate),
        "muon": lambda: optax.contrib.muon(
            rate,
            adam_b2=0.99,
            weight_decay=settings.weight_decay,
            muon_weight_dimension_numbers=_matrices,
        ),
    }
    return optax.chain(optax.clip_by_global_norm(settings.max_grad_norm), made[settings.name]())


def make_value_optimizer(algorithm: Algorithm) -> optax.GradientTransformation:
    """The optimizer of the value function: Adam at a constant rate."""
    head = algorithm.values
    assert head is not None
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(head.learning_rate, b2=0.99))


def _start_critic(
    config: TrainConfig, algorithm: Algorithm, width: int | None
) -> Critic | tuple[()]:
    """The value function before the first step, on hidden states of this width."""
    head = algorithm.values
    if head is None:
        return ()
    if width is None:
        raise ValueError(f"algorithm {config.algorithm.kind} needs the width of the model")
    key = jax.random.fold_in(jax.random.key(config.seed), (1 << 30) + 1)  # no step has this number
    told = config.trial.concurrent if head.sees_arms else 0  # about the arm of a row
    params = init_value_head(key, width + told, width=head.width)
    return Critic(params, make_value_optimizer(algorithm).init(params))


# Of the decoder's matrices what comes in and what goes out; all other axes (layers, heads, gate and
# up) hold matrices side by side, each made orthogonal on its own.
_AXES = {"qkv": (-4, -1), "out": (-2, -1), "gate_up": (-3, -1), "down": (-2, -1)}


def _matrices(params: Any) -> Any:
    """Which parameters Muon is for, a pytree like them; None = Adam."""

    def axes(path: Any, leaf: Any) -> Any:
        found = _AXES.get(getattr(path[-1], "key", ""))
        if found is None:
            return None
        return optax.contrib.MuonDimensionNumbers(*found)

    return jax.tree_util.tree_map_with_path(axes, params)


def learning_rate(config: TrainConfig) -> optax.Schedule:
    """The optimizer's count of updates (M of them a training step) -> rate."""
    settings = config.optimizer
    first, last = settings.learning_rate, settings.final_learning_rate
    warmup = settings.warmup_steps * settings.minibatches
    updates = len(config.policy_steps) * settings.minibatches - warmup
    if settings.schedule == "linear":
        main = optax.linear_schedule(first, last, updates)
    else:
        main = optax.cosine_decay_schedule(first, max(1, updates), alpha=last / first)
    if warmup == 0:
        return main
    return optax.join_schedules([optax.linear_schedule(0.0, first, warmup), main], [warmup])


def games_key(seed: int) -> chex.PRNGKey:
    """The key of a run's training games."""
    return jax.random.key(seed + 1)


def idle_trials(config: TrainConfig) -> Trial:
    """No part is under test: [K, ...]."""
    idle = idle_trial(2, max_steps=config.trial.max_steps)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (config.trial.concurrent, *x.shape)), idle)


def _trained(config: TrainConfig, params: Any) -> tuple[Any, Any]:
    """What is trained at the start, and what adapters add to; () without adapters."""
    params = jax.tree.map(jnp.asarray, params)
    if config.model.lora_rank == 0:
        return params, ()
    key = jax.random.fold_in(jax.random.key(config.seed), 1 << 30)  # no step has this number
    return init_adapters(key, params, rank=config.model.lora_rank), params


def played_state(config: TrainConfig, params: Any, bank: Bank) -> TrainState:
    """The part of a state that playing needs, whatever it learns with; all else is ()."""
    trained, _ = _trained(config, params)
    rest = dict.fromkeys(TrainState._fields, ())
    return TrainState(**{**rest, "params": trained, "bank": jax.tree.map(jnp.asarray, bank)})


def init_state(
    config: TrainConfig,
    params: Any,
    bank: Bank,
    *,
    width: int | None = None,
    algorithm: Algorithm | None = None,
) -> TrainState:
    """The state before the first step.

    Args:
      config: of the run.
      params: of the policy to start from.
      bank: skills of every arm, usually none.
      width: of the model's hidden states; needed where the algorithm has a value function.
      algorithm: that learns; None = the one that `config.algorithm` names.

    Raises:
      ValueError: the width is needed and missing.
    """
    params, frozen = _trained(config, params)
    algorithm = config.algorithm.make() if algorithm is None else algorithm
    starts_elsewhere = algorithm.uses_reference and config.model.lora_rank == 0
    starts_elsewhere = starts_elsewhere and bool(config.policy_steps)
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
        critic=_start_critic(config, algorithm, width),
    )
