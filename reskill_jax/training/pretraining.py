"""Pretraining: any model learns to play from demonstrations that are made on the device.

Any compiled world may offer demonstrations. Those of the household are of a player with habits (its
mistakes leave something to learn afterwards) who mostly obeys directives. Each wave generates fresh
episodes, sorts them by length, so that short ones are not padded to the longest, and takes one
optimizer step per batch. Every wave's randomness follows from the seed and its number alone.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import chex
import jax
import numpy as np
import optax
from rich.console import Console

from reskill_jax.devices.preemption import StopSignal, ended_by
from reskill_jax.models import weights
from reskill_jax.models.checkpoint import save_model
from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.lora import init_adapters, merge
from reskill_jax.models.model import Decoder
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.storage import checkpoint
from reskill_jax.storage.provenance import provenance
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training.demonstrations import Demonstration, demonstrate
from reskill_jax.training.imitation import demonstration_loss
from reskill_jax.training.pretrain_config import PRESETS, PretrainConfig, SmallShape, small
from reskill_jax.training.progress import TrainingProgress
from reskill_jax.training.sections import ModelConfig
from reskill_jax.training.settings import Policy, TrainingError, load_policy
from reskill_jax.worlds.host_worlds import MadeWorld
from reskill_jax.worlds.language import symbol_language
from reskill_jax.worlds.registry import COMPILED, make_named_world, make_world
from reskill_jax.worlds.world import CompiledWorld, DemonstratedWorld, lacks

__all__ = ["PRESETS", "PretrainConfig", "SmallShape", "pretrain", "small"]

MAY_DIFFER = ("name", "root", "waves", "save_every", "model.attention")


class Learner(NamedTuple):
    """What pretraining changes."""

    params: Any
    opt_state: Any


def starting_policy(config: PretrainConfig, world: CompiledWorld) -> Policy:
    """The model of the first wave.

    Raises:
      TrainingError, WeightsError, ModelError: it cannot be read.
    """
    if not config.fresh:
        policy = load_policy(config.model, world)
        return policy._replace(params=_as_before_sharpening(config.model.path, policy.params))
    shape = dataclasses.asdict(config.shape)
    model = Decoder(DecoderConfig(vocabulary=len(world.language), **shape))
    return Policy(model.init(jax.random.key(config.seed + 1)), model, symbol_language(world))


def _as_before_sharpening(path: str, params: Any) -> Any:
    """A small policy that was written with `sharpen` has it folded into its last norm."""
    if ModelConfig(path).is_folder:
        return params
    load = weights.load if path.endswith(".safetensors") else weights.load_pretrained
    settings = load(path)[2].get("settings", {})
    sharpened = settings.get("sharpen", 1.0) if isinstance(settings, dict) else 1.0
    return params | {"final_norm": params["final_norm"] * sharpened}


def world_of(config: PretrainConfig) -> CompiledWorld:
    """The world that a configuration names.

    Raises:
      TrainingError: it is on the host. WorldError, WorldNameError: it cannot be made.
    """
    if config.world in COMPILED:
        return make_world(config.world, rooms=config.rooms, habits=config.habits)
    opened = make_named_world(config.world, rooms=config.rooms, seed=config.seed, games=None)
    if isinstance(opened, MadeWorld):
        raise TrainingError(
            f"the world {config.world} is on the host: models are pretrained on what compiled "
            "worlds show (docs/worlds.md)"
        )
    return opened


def demonstrated(world: CompiledWorld) -> DemonstratedWorld:
    """The world, if it offers demonstrations.

    Raises:
      TrainingError: it does not.
    """
    own = vars(DemonstratedWorld)  # what it asks for beyond a compiled world
    if missing := [name for name in lacks(world, DemonstratedWorld) if name in own]:
        raise TrainingError(
            f"the world {type(world).__name__} offers no demonstrations to learn from: it has no "
            f"{', '.join(missing)} (docs/worlds.md)"
        )
    return cast(DemonstratedWorld, world)


class Programs(NamedTuple):
    """The compiled functions."""

    init: Any  # params -> (Learner, frozen)
    episodes: Any  # wave -> Demonstration of [episodes, ...] arrays
    train: Any  # (Learner, frozen, rows) -> (Learner, [3])


def make_programs(config: PretrainConfig, world: DemonstratedWorld, policy: Policy) -> Programs:
    """Compiles for a configuration; programs of `train` come with the shapes of its rows."""
    steps = config.waves * (config.episodes // config.batch)
    rising = optax.linear_schedule(0.0, config.learning_rate, max(1, config.warmup))
    falling = optax.linear_schedule(
        config.learning_rate, config.final_learning_rate, max(1, steps - config.warmup)
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm),
        optax.adamw(
            optax.join_schedules([rising, falling], [config.warmup]),
            b2=0.98,
            weight_decay=config.weight_decay,
        ),
    )
    rank, scale = config.model.lora_rank, config.model.lora_alpha / max(1, config.model.lora_rank)

    def init(params: Any) -> tuple[Learner, Any]:
        frozen: Any = ()
        if rank:
            key = jax.random.fold_in(jax.random.key(config.seed), 1 << 30)
            params, frozen = init_adapters(key, params, rank=rank), params
        return Learner(params, optimizer.init(params)), frozen

    @jax.jit
    def episodes(wave: chex.Array) -> Any:
        play = functools.partial(
            demonstrate,
            world=world,
            language=policy.language,
            max_turns=config.max_turns,
            context_length=config.context_length,
        )
        key = jax.random.fold_in(jax.random.key(config.seed), wave)
        return jax.vmap(play)(jax.random.split(key, config.episodes))

    def loss(params: Any, frozen: Any, rows: Transcript) -> tuple[chex.Array, chex.Array]:
        whole = merge(frozen, params, scale=scale) if rank else params
        return demonstration_loss(
            whole, rows, model=policy.model, unmasked_share=config.unmasked_share
        )

    @functools.partial(jax.jit, donate_argnums=0)
    def train(learner: Learner, frozen: Any, rows: Transcript) -> tuple[Learner, chex.Array]:
        grads, told = jax.grad(loss, has_aux=True)(learner.params, frozen, rows)
        updates, opt_state = optimizer.update(grads, learner.opt_state, learner.params)
        return Learner(optax.apply_updates(learner.params, updates), opt_state), told

    return Programs(init, episodes, train)


def batches(
    rows: Transcript, config: PretrainConfig, wave: int, *, buckets: int
) -> Iterator[Transcript]:
    """The rows of a wave in batches of about the same length, in random order.

    Args:
      rows: of [episodes, ...] numpy arrays.
      config: of the run. wave: its number.
      buckets: how many lengths there can be; each compiles a program.
    """
    order = np.argsort(rows.length, kind="stable").reshape(-1, config.batch)
    wide = -(-config.context_length // buckets)
    many = -(-rows.position.shape[1] // buckets)
    for chosen in np.random.default_rng((config.seed, wave)).permutation(order):
        part = Transcript(*(field[chosen] for field in rows))
        width = min(config.context_length, -(-int(part.length.max()) // wide) * wide)
        count = max(1, int(part.count.max()))
        decisions = min(part.position.shape[1], -(-count // many) * many)
        yield part._replace(
            tokens=part.tokens[:, :width],
            position=np.minimum(part.position[:, :decisions], width - 1),
            support=part.support[:, :decisions],
            turn=part.turn[:, :decisions],
            log_prob=part.log_prob[:, :decisions],
            weight=part.weight[:, :decisions],
        )


def pretrain(
    config: PretrainConfig,
    *,
    world: CompiledWorld | None = None,
    resume: bool = False,
    console: Console,
) -> Path:
    """Runs all waves, from the last checkpoint on if it is resumed, and writes the model.

    Args:
      config: settings.
      world: a compiled world that offers demonstrations; None = the one that the settings name.
      resume: go on from the last checkpoint.
      console: where to report.

    Returns:
      Where the model lies: a folder as the Hub has it, or a .safetensors file of a small policy.

    Raises:
      RunFolderError, CheckpointError, TrainingError, WeightsError, ModelError: in one line.
      WorldError, WorldNameError: in one line.
      Preempted, Interrupted: SIGTERM or Ctrl-C came; the last wave is in a checkpoint.
    """
    shown = demonstrated(world_of(config) if world is None else world)
    policy = starting_policy(config, shown)
    programs = make_programs(config, shown, policy)
    learner, frozen = programs.init(policy.params)
    stored = told(config)
    if resume:
        folder = RunFolder.reopen(config.root, config.name)
    else:
        folder = RunFolder.create(config.root, config.name, stored)
    with folder, StopSignal(tell=console.print) as stop:
        first = 0
        if resume:
            found = checkpoint.restore(
                folder.checkpoints, learner, stored, may_differ=MAY_DIFFER, notify=console.print
            )
            learner, first = found.arrays, found.step
            folder.truncate_to(found.host["sizes"])
        folder.add_provenance(provenance(step=first))

        def save(done: int) -> None:
            host = {"sizes": folder.sizes()}
            checkpoint.save(folder.checkpoints, done, learner, host, stored, keep=1, block=True)

        with TrainingProgress(console, total=config.waves, start=first) as progress:
            progress.status("compiling")
            for wave in range(first, config.waves):
                learner, line = _wave(config, programs, policy, learner, frozen, wave)
                folder.write_metrics(line)
                progress.update(wave + 1, success=line["player_success"])
                progress.note(
                    f"wave {wave + 1}: loss {line['masked']:.3f}, "
                    f"{line['agreement']:.0%} of the decisions as demonstrated"
                )
                asked = stop.received if wave + 1 < config.waves else 0
                if asked or (wave + 1) % config.save_every == 0 or wave + 1 == config.waves:
                    save(wave + 1)
                if asked:
                    raise ended_by(asked, wave + 1)
        return _write(config, policy, learner, frozen, folder.path, data=shown.demonstrations)


def _wave(
    config: PretrainConfig,
    programs: Programs,
    policy: Policy,
    learner: Learner,
    frozen: Any,
    wave: int,
) -> tuple[Learner, dict[str, Any]]:
    """One wave; the learner after it, and its line of the log."""
    began = time.perf_counter()
    played: Demonstration = jax.device_get(programs.episodes(wave))
    if not played.admissible.all():
        raise TrainingError(f"wave {wave}: the world demonstrated an action that it does not allow")
    rows, sums = played.transcript, np.zeros(3)
    buckets = 8 if policy.language.identity else 4
    for part in batches(rows, config, wave, buckets=buckets):
        learner, figures = programs.train(learner, frozen, part)
        sums += np.asarray(figures)
    masked, unmasked, agreement = sums / (config.episodes // config.batch)
    if not np.isfinite(masked):
        raise TrainingError(f"wave {wave}: the loss is not finite; use a lower --learning-rate")
    return learner, {
        "step": wave + 1,
        "masked": round(float(masked), 4),
        "unmasked": round(float(unmasked), 4),
        "agreement": round(float(agreement), 4),
        "player_success": round(float(played.won.mean()), 3),
        "tokens": round(float(rows.length.mean()), 1),
        "longest": int(rows.length.max()),
        "cut": int((rows.length > config.context_length).sum()),
        "seconds": round(time.perf_counter() - began, 2),
    }


def _write(
    config: PretrainConfig,
    policy: Policy,
    learner: Learner,
    frozen: Any,
    folder: Path,
    *,
    data: str,
) -> Path:
    """The trained model, as others read it."""
    params = learner.params
    if config.model.lora_rank:
        params = merge(frozen, params, scale=config.model.lora_alpha / config.model.lora_rank)
    if policy.loaded is not None:
        save_model(folder / "model", policy.loaded._replace(params=params))
        return folder / "model"
    params = dict(params) | {"final_norm": params["final_norm"] / config.sharpen}
    about = {
        "settings": told(config),
        "data": data,
        "start": "random parameters" if config.fresh else config.model.path,
        "episodes": config.waves * config.episodes,
        **provenance(step=config.waves),
    }
    path = folder / "model.safetensors"
    assert isinstance(policy.model, Decoder)
    weights.save(path, params, about, policy.model.config)
    return path


def told(config: PretrainConfig) -> dict[str, Any]:
    """A configuration as plain JSON values."""
    return dataclasses.asdict(config) | {"habits": config.habits._asdict()}
