"""The training loop: compiled steps, the life of the skills between them, logs and checkpoints."""

import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from rich.console import Console

from reskill_jax.core.trial import start_trial
from reskill_jax.policy import decoder, weights
from reskill_jax.policy.decoder import DecoderConfig
from reskill_jax.skills.skill import Skill
from reskill_jax.training.config import MeshShape, TrainConfig, program_of
from reskill_jax.training.evaluate import Evaluation, evaluate
from reskill_jax.training.lifecycle import (
    Life,
    begin_life,
    episodes_of,
    learn,
    make_bank,
    settle,
    suggest,
)
from reskill_jax.training.preemption import StopSignal, ended_by
from reskill_jax.training.processes import greatest, is_first
from reskill_jax.training.progress import TrainingProgress
from reskill_jax.training.run_folder import RunFolder
from reskill_jax.training.sharding import (
    make_mesh,
    on_mesh,
    place,
    row_sharding,
    state_shardings,
)
from reskill_jax.training.state import TrainState, init_state
from reskill_jax.training.step import StepMetrics, train_step
from reskill_jax.training.storage import Storage, open_storage
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.household.world import HouseholdWorld

# Fields of StepMetrics that a line of metrics.jsonl tells in another form, or not at all.
_TOLD_OTHERWISE = (
    *("arm_successes", "posterior", "horizon", "contrast"),
    *("trial_successes", "trial_trials"),
)


class TrainingError(ValueError):
    """A run that cannot go on; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    folder: Path
    steps: int
    skills: tuple[Skill, ...]  # in use at the end


@dataclasses.dataclass(frozen=True)
class Parts:
    """What stays the same during a run."""

    config: TrainConfig
    world: HouseholdWorld
    policy: DecoderConfig
    step: Callable[..., Any]  # compiled train_step
    shardings: TrainState | None = None  # of the state; None on a single device
    rows: NamedSharding | None = None  # of rollouts

    def placed(self, state: TrainState) -> TrainState:
        """The state, every array on the devices where it belongs."""
        return state if self.shardings is None else place(state, self.shardings)

    def games(self, numbers: np.ndarray) -> jax.Array:
        """[B] int32: numbers of games, on every device."""
        if self.rows is None:
            return jnp.asarray(numbers)
        return place(numbers, NamedSharding(self.rows.mesh, PartitionSpec()))


@functools.lru_cache(maxsize=8)
def _compiled(world: HouseholdWorld, policy: DecoderConfig, config: TrainConfig):
    """The compiled step, the shardings of the state, that of rows."""
    program = functools.partial(train_step, world=world, policy=policy, config=config)
    if config.mesh == MeshShape() and jax.process_count() == 1:
        return jax.jit(program, donate_argnums=0), None, None
    mesh = make_mesh(config.mesh)
    bank = make_bank(config, [()])
    like = jax.eval_shape(lambda: init_state(config, decoder.init(jax.random.key(0), policy), bank))
    shardings, rows = state_shardings(like, mesh, policy, config), row_sharding(mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        on_mesh(program, mesh),
        donate_argnums=0,
        in_shardings=(shardings, whole),
        out_shardings=(shardings, whole, whole),
    )
    return step, shardings, rows


def make_parts(config: TrainConfig, policy: DecoderConfig) -> Parts:
    """Builds the world and the compiled step of a configuration.

    Runs that differ in seed, name and the like share one compiled step, see `program_of`.

    Raises:
      TrainingError: policy, world and settings do not fit together.
    """
    world = HouseholdWorld(spec=config.rooms)
    if policy.vocabulary != world.vocabulary:
        raise TrainingError(
            f"the policy {config.policy} has {policy.vocabulary} tokens, but the language of the "
            f"household world has {world.vocabulary}; choose another --policy"
        )
    least = world.intro_symbols + 1 + world.command_length
    if config.capacity < least:
        raise TrainingError(
            f"a context of {config.capacity} tokens has no room for the introduction and a "
            f"command; --capacity must be at least {least}"
        )
    return Parts(config, world, policy, *_compiled(world, policy, program_of(config)))


def load_policy(name: str) -> tuple[Any, DecoderConfig]:
    """Shipped weights by name, or a .safetensors file by path."""
    if name.endswith(".safetensors"):
        if not Path(name).is_file():
            raise TrainingError(f"the policy {name}: there is no such file")
        params, policy, _ = weights.load(name)
    else:
        params, policy, _ = weights.load_pretrained(name)
    return params, policy


def games_of_step(config: TrainConfig, step: int) -> np.ndarray:
    """[B] int32 numbers of the games of a step: every game once per pass, each pass shuffled.

    A function of the step alone, so the position in the stream is the step's number.
    """
    first = step * config.groups
    numbers = np.arange(first, first + config.groups)
    passes, places = np.divmod(numbers, config.train_games)
    orders = {
        p: np.random.default_rng((config.seed, int(p))).permutation(config.train_games)
        for p in np.unique(passes)
    }
    return np.asarray([orders[p][i] for p, i in zip(passes, places, strict=True)], np.int32)


def put_on_trial(state: TrainState, life: Life, config: TrainConfig) -> TrainState:
    """The state in which arm 1 is the proposed version."""
    if life.proposal is None:
        raise ValueError("there is no proposal to put on trial")
    mask = np.arange(config.arms) < 2
    margin = config.retire_margin if life.proposal.kind == "retirement" else 0.0
    trial = start_trial(config.arms, mask, margin=margin, max_steps=config.max_trial_steps)
    trial = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), trial, state.trial)
    bank = make_bank(config, [life.skills, life.proposal.version])
    return state._replace(bank=jax.tree.map(jnp.asarray, bank), trial=trial)


def adopt(state: TrainState, life: Life, config: TrainConfig) -> TrainState:
    """The state in which every arm holds the skills in use."""
    bank = make_bank(config, [life.skills])
    return state._replace(bank=jax.tree.map(jnp.asarray, bank))


Observer = Callable[[int, TrainState, Life, Parts], None]


def train(
    config: TrainConfig,
    *,
    resume: bool = False,
    console: Console | None = None,
    observer: Observer | None = None,
) -> RunSummary:
    """Trains a policy and its skills; writes <root>/<name>/.

    Args:
      config: of the run.
      resume: go on from the last good checkpoint of this run.
      console: where to report.
      observer: called with (steps done, state, life, parts) before the first step of this call and
        after every step, for measurements of one's own. It must keep no array of the state: the
        next step takes their memory. Nothing it does is part of a checkpoint.

    Returns:
      RunSummary.

    Raises:
      RunFolderError, CheckpointError, WeightsError, TrainingError, MeshError, MirrorError: with one
        clear line; OtherProcessError in the processes that wait for the first, when it has one.
      Preempted, Interrupted: SIGTERM or Ctrl-C came; the checkpoint of the last step is complete.
    """
    console = (console or Console()) if is_first() else Console(quiet=True)
    params, policy = load_policy(config.policy)
    parts = make_parts(config, policy)
    life = begin_life(config)
    state = parts.placed(init_state(config, params, make_bank(config, [life.skills])))

    def notify(line: str) -> None:  # as it is: it may name files, and errors of others
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    storage = open_storage(config, resume=resume, notify=notify)
    if (idle := jax.device_count() - config.mesh.devices) > 0:
        storage.notify(f"{idle} of {jax.device_count()} devices are idle; --mesh.data uses more")
    with storage.folder:
        found = storage.restore(state, config) if resume else None
        state, life = found or (state, life)
        start = int(state.step)
        with StopSignal(tell=storage.notify) as stop:
            try:
                with TrainingProgress(console, total=config.steps, start=start) as progress:
                    unseen = None
                    if found is None:
                        unseen = _begin(state, life, parts, storage, progress)
                    if observer is not None:
                        observer(start, state, life, parts)
                    if start < config.steps and (asked := greatest(stop.received)):
                        raise ended_by(asked, start)
                    progress.status("compiling the training step")
                    state, life = _run(
                        state, life, parts, storage, progress, stop, unseen, observer
                    )
            finally:  # interrupted or not: who goes on at once finds the checkpoint complete
                stop.only_saving()
                storage.wait()
        storage.check_mirror()
        return RunSummary(storage.folder.path, int(state.step), life.skills)


def _begin(
    state: TrainState, life: Life, parts: Parts, storage: Storage, progress: TrainingProgress
) -> float:
    """What precedes the first step: how well the policy starts (unseen games), a checkpoint."""
    progress.status("evaluating the starting policy (compiling first)")
    unseen = _evaluate(state, parts, storage.folder, 0, (_mode(parts.config),))[1].success
    storage.folder.export_skills(life.skills)
    storage.save(state, life, parts.config, unseen=unseen)
    return unseen


def _mode(config: TrainConfig) -> str:
    """How a run is evaluated while it trains."""
    return "bank" if config.skills else "none"


def _run(
    state: TrainState,
    life: Life,
    parts: Parts,
    storage: Storage,
    progress: TrainingProgress,
    stop: StopSignal,
    unseen: float | None,
    observer: Observer | None = None,
) -> tuple[TrainState, Life]:
    config, folder = parts.config, storage.folder
    mode = _mode(config)
    modes_at_end = ("bank", "none") if config.skills else ("none",)
    skipped = int(state.skipped)
    for step in range(int(state.step), config.steps):
        began = time.perf_counter()
        games = games_of_step(config, step)
        names = [[skill.name for skill in life.skills]] * config.arms
        if life.proposal is not None:
            names = [names[0], [s.name for s in life.proposal.version], *names[2:]]
        trial = None if life.proposal is None else life.proposal.id
        state, metrics, evidence = parts.step(state, parts.games(games))
        metrics = jax.device_get(metrics)
        done = step + 1
        _check_finite(metrics, done, skipped, config.minibatches)
        if config.skills and (life.proposal is not None or config.will_propose(done)):
            episodes = episodes_of(jax.device_get(evidence), games, step, names, config.group_size)
            life = learn(life, episodes)
            state, life = _live(state, life, metrics, done, parts, folder, progress)
        folder.write_metrics(
            metrics_line(metrics, done, trial) | {"seconds": time.perf_counter() - began}
        )
        skipped = int(metrics.skipped)
        evaluated = done == config.steps or _is_due(config.eval_every, done)
        if done == config.steps:
            progress.status("evaluating the trained policy")
            unseen = _evaluate(state, parts, folder, done, modes_at_end)[1].success
        elif evaluated:
            unseen = _evaluate(state, parts, folder, done, (mode,))[1].success
        asked = greatest(stop.received) if done < config.steps else 0
        due = _is_due(config.checkpoint_every, done) or (config.keep_best and evaluated)
        if asked or due or done == config.steps:
            storage.save(state, life, config, unseen=unseen if evaluated else None)
        if observer is not None:
            observer(done, state, life, parts)
        progress.update(
            done, success=float(metrics.success), unseen=unseen, trial=_trial_words(metrics, life)
        )
        if asked:
            raise ended_by(asked, done)
    return state, life


def _live(
    state: TrainState,
    life: Life,
    metrics: StepMetrics,
    step: int,
    parts: Parts,
    folder: RunFolder,
    progress: TrainingProgress,
) -> tuple[TrainState, Life]:
    """What happens to the skills after a step: a decision is noted, a proposal goes on trial."""
    config = parts.config
    decision = int(metrics.decision)
    if decision >= 0:
        reason = _reason(metrics, config)
        life, lines = settle(life, decision, step=step, config=config, reason=reason)
        for line in lines:
            folder.write_lifecycle(line | _evidence_of(metrics))
            progress.note(_event_words(line))
        if decision > 0:
            folder.export_skills(life.skills)
    if step >= config.steps:
        return state, life
    life, suggestion = suggest(life, step=step, config=config)
    if suggestion is None:
        return state, life
    folder.write_lifecycle(suggestion)
    progress.note(_event_words(suggestion))
    if life.proposal is None:
        return state, life
    if config.auto_accept:
        life, lines = settle(life, 1, step=step, config=config, reason="adopted without a trial")
        for line in lines:
            folder.write_lifecycle(line)
        folder.export_skills(life.skills)
        return parts.placed(adopt(state, life, config)), life
    return parts.placed(put_on_trial(state, life, config)), life


def _reason(metrics: StepMetrics, config: TrainConfig) -> str:
    """What decided a trial, in words."""
    if config.trial_rule == "means":
        mean = metrics.posterior.alpha / (metrics.posterior.alpha + metrics.posterior.beta)
        return f"posterior mean {mean[1]:.3f} of the candidate against {mean[0]:.3f}"
    contrast = metrics.contrast
    error = np.sqrt(contrast.variance[1]) / np.maximum(contrast.weight[1], 1e-9)
    return (
        f"success {contrast.difference[1]:+.3f} (standard error {error:.3f}) within groups, in the "
        "tasks where the versions differ"
    )


def _evaluate(
    state: TrainState,
    parts: Parts,
    folder: RunFolder,
    step: int,
    modes: tuple[str, ...],
) -> list[Evaluation]:
    config = parts.config
    found = []
    for mode in modes:
        for split in ("seen", "unseen"):
            found.append(
                evaluate(
                    state.params,
                    state.bank,
                    world=parts.world,
                    policy=parts.policy,
                    split=split,
                    mode=mode,  # type: ignore[arg-type]
                    horizon=config.horizon,
                    capacity=config.capacity,
                    games=config.eval_tasks,
                    temperature=config.temperature,
                    task_types=TASK_TYPES,
                    rows=parts.rows,
                )
            )
            folder.write_eval({"step": step} | found[-1].to_json())
    return found


def _is_due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _check_finite(metrics: StepMetrics, step: int, skipped_before: int, updates: int) -> None:
    """A single update that is not finite is left out; a step without any other is the end."""
    if int(metrics.skipped) - skipped_before >= updates:
        raise TrainingError(
            f"step {step}: no update was finite; train again with a lower --learning-rate"
        )


def metrics_line(metrics: StepMetrics, step: int, trial: int | None) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in metrics._asdict().items()
        if name not in _TOLD_OTHERWISE
    }
    tried = np.maximum(metrics.arm_trials, 1)
    return {
        "step": step,
        "trial": trial,
        **plain,
        "arm_success": np.where(
            metrics.arm_trials > 0, metrics.arm_successes / tried, np.nan
        ).tolist(),
        "horizon": float(metrics.horizon),
        "posterior": {
            "alpha": metrics.posterior.alpha.tolist(),
            "beta": metrics.posterior.beta.tolist(),
        },
        "difference": metrics.contrast.difference.tolist(),
    }


def _evidence_of(metrics: StepMetrics) -> dict[str, Any]:
    return {
        "successes": metrics.trial_successes.tolist(),
        "trials": metrics.trial_trials.tolist(),
        "posterior": {
            "alpha": metrics.posterior.alpha.tolist(),
            "beta": metrics.posterior.beta.tolist(),
        },
        "horizon": float(metrics.horizon),
    }


def _event_words(line: dict[str, Any]) -> str:
    told = "; ".join(
        f"{o['operation']} {o['name']}" + (f' "{o["skill"]["action"]}"' if o.get("skill") else "")
        for o in line["operations"]
    )
    return f"step {line['step']}: {line['event'].replace('_', ' ')} {told or line['reason']}"


def _trial_words(metrics: StepMetrics, life: Life) -> str | None:
    if life.proposal is None:
        return None
    if int(metrics.arm_trials[1:].sum()) == 0:
        return f"trial {life.proposal.id}"
    rates = metrics.arm_successes / np.maximum(metrics.arm_trials, 1)
    return f"trial {life.proposal.id}: {rates[1]:.0%} new, {rates[0]:.0%} old"
