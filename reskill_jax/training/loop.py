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

from reskill_jax.algorithms.grpo import GRPO
from reskill_jax.creators.creator import Creator
from reskill_jax.devices.mesh import make_mesh, on_mesh, place, row_sharding
from reskill_jax.devices.preemption import StopSignal, ended_by
from reskill_jax.devices.processes import greatest, is_first
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models.checkpoint import LoadedModel
from reskill_jax.models.model import Model
from reskill_jax.skills.skill import Skill
from reskill_jax.storage.provenance import provenance
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training.config import TrainConfig, program_of
from reskill_jax.training.evaluate import Evaluation, evaluate
from reskill_jax.training.lifecycle import (
    SkillLibrary,
    begin_library,
    creator_of,
    episodes_of,
    learn,
    make_bank,
    versions,
)
from reskill_jax.training.placing import state_shardings
from reskill_jax.training.progress import TrainingProgress
from reskill_jax.training.proposals import after_step
from reskill_jax.training.settings import Policy, TrainingError, check_fit, load_policy
from reskill_jax.training.state import TrainState, init_state
from reskill_jax.training.step import StepMetrics, train_step
from reskill_jax.training.step_log import (
    metrics_line,
    trial_lines,
    trial_words,
)
from reskill_jax.training.storage import Storage, open_storage
from reskill_jax.training.update import rollout_params
from reskill_jax.worlds.language import Language
from reskill_jax.worlds.registry import make_world
from reskill_jax.worlds.world import CompiledWorld


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    folder: Path
    steps: int
    skills: tuple[Skill, ...]  # in use at the end


@dataclasses.dataclass(frozen=True)
class Runner:
    """What stays the same during a run."""

    config: TrainConfig
    world: CompiledWorld
    policy: Policy  # without its parameters
    creator: Creator  # of the skills
    step: Any  # compiled train_step
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


def algorithm_of(config: TrainConfig) -> GRPO:
    """The algorithm that a configuration names."""
    return GRPO(
        scale_by_std=config.algorithm.scale_by_std,
        whiten=config.algorithm.whiten,
        clip_low=config.algorithm.clip_low,
        clip_high=config.algorithm.clip_high,
        kl_weight=config.algorithm.kl_weight,
    )


@functools.lru_cache(maxsize=8)
def _compiled(world: CompiledWorld, model: Model, language: Language, config: TrainConfig):
    """The compiled step, the shardings of the state, that of rows."""
    program = functools.partial(
        train_step,
        world=world,
        model=model,
        language=language,
        algorithm=algorithm_of(config),
        config=config,
    )
    if config.mesh == MeshShape() and jax.process_count() == 1:
        return jax.jit(program, donate_argnums=0), None, None
    mesh = make_mesh(config.mesh)
    bank = make_bank(config, world, [()])
    like = jax.eval_shape(lambda: init_state(config, model.init(jax.random.key(0)), bank))
    shardings, rows = state_shardings(like, mesh, model, config), row_sharding(mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        on_mesh(program, mesh),
        donate_argnums=0,
        in_shardings=(shardings, whole),
        out_shardings=(shardings, whole, whole),
    )
    return step, shardings, rows


def make_runner(config: TrainConfig, world: CompiledWorld, policy: Policy) -> Runner:
    """Builds the compiled step of a configuration.

    Runs that differ in seed, name and the like share one compiled step, see `program_of`.

    Raises:
      TrainingError: policy, world and settings do not fit together.
    """
    check_fit(config, policy, world)
    compiled = _compiled(world, policy.model, policy.language, program_of(config))
    creator = creator_of(config, world)
    return Runner(config, world, policy._replace(params=()), creator, *compiled)


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


Observer = Callable[[int, TrainState, SkillLibrary, Runner], None]


def train(
    config: TrainConfig,
    *,
    world: CompiledWorld | None = None,
    model: LoadedModel | None = None,
    resume: bool = False,
    console: Console | None = None,
    observer: Observer | None = None,
) -> RunSummary:
    """Trains a policy and its skills; writes <root>/<name>/.

    Args:
      config: of the run.
      world: to play; None = the one that `config.world` names.
      model: to train, of `load_model`; None = the one that `config.model` names. A run that others
        are to read (`reskill eval`, `export`) has to name it there, too.
      resume: go on from the last good checkpoint of this run.
      console: where to report.
      observer: called with (steps done, state, life, runner) before the first step of this call and
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
    world = make_world(config.world, rooms=config.rooms) if world is None else world
    mesh = None if config.mesh == MeshShape() else make_mesh(config.mesh)
    policy = load_policy(config.model, world, loaded=model, mesh=mesh)
    runner = make_runner(config, world, policy)
    params = policy.params
    # A run that goes on has its skills in the checkpoint: the folder they came from may be gone.
    without_bank = dataclasses.replace(config, bank=None)
    state, life = _start(without_bank if resume else config, params, runner)
    storage = open_storage(
        config, runner.creator, resume=resume, notify=functools.partial(_notify, console)
    )
    for note in policy.notes:
        storage.notify(note)
    if (idle := jax.device_count() - config.mesh.devices) > 0:
        storage.notify(f"{idle} of {jax.device_count()} devices are idle; --mesh.data uses more")
    with storage.folder:
        found = storage.restore(state, config) if resume else None
        if resume and found is None:  # it ended before its first checkpoint
            state, life = _start(config, params, runner)
        state, life = found or (state, life)
        start = int(state.step)
        if start < config.steps:
            storage.folder.add_provenance(provenance(step=start))
        with StopSignal(tell=storage.notify) as stop:
            try:
                with TrainingProgress(console, total=config.steps, start=start) as progress:
                    unseen = None
                    if found is None:
                        unseen = _begin(state, life, runner, storage, progress)
                    if observer is not None:
                        observer(start, state, life, runner)
                    if start < config.steps and (asked := greatest(stop.received)):
                        raise ended_by(asked, start)
                    compiled = _compile(state, runner, progress) if start < config.steps else 0.0
                    state, life = _run(
                        state, life, runner, storage, progress, stop, unseen, observer, compiled
                    )
            finally:  # interrupted or not: who goes on at once finds the checkpoint complete
                stop.only_saving()
                storage.wait()
        storage.check_mirror()
        return RunSummary(storage.folder.path, int(state.step), life.skills)


def _start(config: TrainConfig, params: Any, runner: Runner) -> tuple[TrainState, SkillLibrary]:
    """What a run begins with."""
    life = begin_library(config, runner.world)
    bank = make_bank(config, runner.world, [life.skills])
    return runner.placed(init_state(config, params, bank)), life


def _notify(console: Console, line: str) -> None:
    """Prints a line as it is; only a terminal has it wrapped."""
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _begin(
    state: TrainState,
    life: SkillLibrary,
    runner: Runner,
    storage: Storage,
    progress: TrainingProgress,
) -> float:
    """What precedes the first step: how well the policy starts (unseen games), a checkpoint."""
    progress.status("evaluating the starting policy (compiling first)")
    unseen = _evaluate(state, runner, storage.folder, 0, (_mode(runner.config),))[1].success
    storage.folder.export_skills(life.skills)
    storage.save(state, life, runner.config, unseen=unseen)
    return unseen


def _compile(state: TrainState, runner: Runner, progress: TrainingProgress) -> float:
    """Compiles the step before the first one, whose time is then its own; returns the seconds."""
    if not hasattr(runner.step, "lower"):  # a function that somebody put around the compiled one
        return 0.0
    progress.status("compiling the training step")
    began = time.perf_counter()
    runner.step.lower(state, runner.games(games_of_step(runner.config, int(state.step)))).compile()
    seconds = time.perf_counter() - began
    progress.compiled("the training step", seconds)
    return seconds


def _mode(config: TrainConfig) -> str:
    """How a run is evaluated while it trains."""
    return "bank" if config.skills else "none"


def _run(
    state: TrainState,
    life: SkillLibrary,
    runner: Runner,
    storage: Storage,
    progress: TrainingProgress,
    stop: StopSignal,
    unseen: float | None,
    observer: Observer | None = None,
    compiled: float = 0.0,
) -> tuple[TrainState, SkillLibrary]:
    """The steps; `compiled` is what compiling took before the first, in seconds."""
    config, folder = runner.config, storage.folder
    mode = _mode(config)
    modes_at_end = ("bank", "none") if config.skills else ("none",)
    skipped, start = int(state.skipped), int(state.step)
    for step in range(start, config.steps):
        began = time.perf_counter()
        games = games_of_step(config, step)
        names = [[skill.name for skill in version] for version in versions(life, config)]
        state, metrics, evidence = runner.step(state, runner.games(games))
        # Computing does not hold this call up, compiling does: the first time.
        waited = time.perf_counter() - began if step == start else 0.0
        metrics = jax.device_get(metrics)
        done = step + 1
        line = metrics_line(metrics, life, done)
        tested = trial_lines(metrics, life, done, config)
        _check_finite(metrics, done, skipped, config)
        if config.skills and (any(life.proposals) or config.will_propose(done)):
            episodes = episodes_of(
                jax.device_get(evidence),
                games,
                step,
                names,
                group_size=config.group_size,
                world=runner.world,
            )
            life = learn(life, episodes, runner.creator)
            new, life = after_step(
                state, life, metrics, done, config, runner.world, runner.creator, folder, progress
            )
            state = state if new is state else runner.placed(new)
        line["seconds"] = time.perf_counter() - began - waited
        if step == start:
            line["compile_seconds"] = compiled + waited
        folder.write_metrics(line)
        for one in tested:
            folder.write_trial(one)
        skipped = int(metrics.skipped)
        evaluated = done == config.steps or _is_due(config.eval_every, done)
        if done == config.steps:
            progress.status("evaluating the trained policy")
            unseen = _evaluate(state, runner, folder, done, modes_at_end)[1].success
        elif evaluated:
            unseen = _evaluate(state, runner, folder, done, (mode,))[1].success
        asked = greatest(stop.received) if done < config.steps else 0
        due = _is_due(config.checkpoint_every, done) or (config.keep_best and evaluated)
        if asked or due or done == config.steps:
            storage.save(state, life, config, unseen=unseen if evaluated else None)
        if observer is not None:
            observer(done, state, life, runner)
        progress.update(
            done, success=float(metrics.success), unseen=unseen, trial=trial_words(metrics, life)
        )
        if asked:
            raise ended_by(asked, done)
    return state, life


def _evaluate(
    state: TrainState,
    runner: Runner,
    folder: RunFolder,
    step: int,
    modes: tuple[str, ...],
) -> list[Evaluation]:
    config = runner.config
    found = []
    for mode in modes:
        for split in ("seen", "unseen"):
            found.append(
                evaluate(
                    rollout_params(state, config),
                    state.bank,
                    world=runner.world,
                    model=runner.policy.model,
                    language=runner.policy.language,
                    split=split,
                    mode=mode,  # type: ignore[arg-type]
                    max_turns=config.max_turns,
                    context_length=config.context_length,
                    games=config.eval_tasks,
                    temperature=config.temperature,
                    rows=runner.rows,
                    at_once=runner.policy.games_at_once(config),
                )
            )
            folder.write_eval({"step": step} | found[-1].to_json())
    return found


def _is_due(every: int, step: int) -> bool:
    return every > 0 and step % every == 0


def _check_finite(
    metrics: StepMetrics, step: int, skipped_before: int, config: TrainConfig
) -> None:
    """Episodes and updates that are not finite are left out; a step of nothing else is the end."""
    if int(metrics.invalid) == config.groups * config.group_size:
        raise TrainingError(
            f"step {step}: no episode is valid, the policy's log-probabilities are not finite; "
            "train again with other weights or a lower --learning-rate"
        )
    if int(metrics.skipped) - skipped_before >= config.optimizer.minibatches:
        raise TrainingError(
            f"step {step}: no update was finite; train again with a lower --learning-rate"
        )
