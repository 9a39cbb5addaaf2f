"""The training loop: compiled steps, the life of the skills between them, logs and checkpoints."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import jax
from rich.console import Console
from rich.text import Text

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.creators.creator import Creator
from reskill_jax.devices.mesh import make_mesh
from reskill_jax.devices.preemption import StopSignal, ended_by
from reskill_jax.devices.processes import greatest, is_first
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models.checkpoint import LoadedModel
from reskill_jax.skills.skill import Skill
from reskill_jax.storage.checkpoint_config import plain_config
from reskill_jax.storage.provenance import provenance
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.storage.sampled import write_sampled
from reskill_jax.storage.writers import open_writers
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.creators import at_work, lacks
from reskill_jax.training.evaluate import Mode
from reskill_jax.training.host import HostEvidence, HostRunner, make_host_runner
from reskill_jax.training.lifecycle import (
    SkillLibrary,
    Versions,
    begin_library,
    learn,
    make_bank,
    versions,
)
from reskill_jax.training.looks import look_at
from reskill_jax.training.monitor import ALARMS, alarm_words, watch
from reskill_jax.training.own import algorithm_for, naming
from reskill_jax.training.progress import TrainingProgress
from reskill_jax.training.proposals import after_step
from reskill_jax.training.runner import Runner, make_runner
from reskill_jax.training.settings import Policy, TrainingError, load_policy, open_to_train
from reskill_jax.training.state import TrainState, init_state
from reskill_jax.training.step import Evidence
from reskill_jax.training.step_log import (
    metrics_line,
    trial_lines,
    trial_words,
)
from reskill_jax.training.step_metrics import StepMetrics
from reskill_jax.training.storage import Storage, open_storage
from reskill_jax.worlds.host_worlds import MadeWorld
from reskill_jax.worlds.world import CompiledWorld, HostWorld

__all__ = ["RunSummary", "train"]


@dataclasses.dataclass(frozen=True)
class RunSummary:
    """How a run ended."""

    folder: Path
    steps: int
    skills: tuple[Skill, ...]  # in use at the end


AnyRunner: TypeAlias = Runner | HostRunner
Observer = Callable[[int, TrainState, SkillLibrary, AnyRunner], None]


def train(
    config: TrainConfig,
    *,
    world: CompiledWorld | HostWorld | None = None,
    model: LoadedModel | None = None,
    algorithm: Algorithm | None = None,
    creator: Creator[Any] | None = None,
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
      algorithm: of one's own, hashable, instead of `config.algorithm` (see `own.naming`).
      creator: of one's own, instead of the one that `config.creator.kind` names.
      resume: go on from the last good checkpoint of this run, with the same algorithm and creator.
      console: where to report.
      observer: called with (steps done, state, library, runner) before the first step of this call
        and after every step, for measurements of one's own. It must keep no array of the state: the
        next step takes their memory. Nothing it does is part of a checkpoint.

    Returns:
      RunSummary.

    Raises:
      RunFolderError, CheckpointError, WeightsError, TrainingError, MeshError, MirrorError: with one
        clear line, as OwnPartError; OtherProcessError in the processes that wait for the first.
      Preempted, Interrupted: SIGTERM or Ctrl-C came; the checkpoint of the last step is complete.
    """
    console = (console or Console()) if is_first() else Console(quiet=True)
    runner, policy = open_runner(
        config, world=world, model=model, algorithm=algorithm, creator=creator
    )
    with contextlib.closing(runner):
        return _train(runner.config, runner, policy, resume, console, observer)


def open_runner(
    config: TrainConfig,
    *,
    world: CompiledWorld | HostWorld | None = None,
    model: LoadedModel | None = None,
    algorithm: Algorithm | None = None,
    creator: Creator[Any] | None = None,
) -> tuple[AnyRunner, Policy]:
    """What plays and learns, for whatever world; who opens it closes it.

    Args:
      config, world, model, algorithm, creator: as of `train`.

    Returns:
      The runner, whose configuration names algorithm and creator; the policy with its parameters.

    Raises:
      TrainingError, WeightsError, WorldError, WorldNameError, OwnPartError, PoolError: with one
        clear line.
    """
    config = naming(config, algorithm, creator)
    algorithm = algorithm_for(config, algorithm)
    if (lack := lacks(config.creator)) is not None:
        raise TrainingError(lack)
    mesh = None if config.mesh == MeshShape() else make_mesh(config.mesh)
    opened = open_to_train(config, world)
    if not isinstance(opened, MadeWorld):
        policy = load_policy(config.model, opened, loaded=model, mesh=mesh)
        return make_runner(config, opened, policy, algorithm=algorithm, creator=creator), policy
    policy = load_policy(config.model, opened.world, loaded=model, mesh=mesh, prompt=config.prompt)
    runner = make_host_runner(config, opened, policy, algorithm=algorithm, creator=creator)
    return runner, policy


def _train(
    config: TrainConfig,
    runner: AnyRunner,
    policy: Policy,
    resume: bool,
    console: Console,
    observer: Observer | None,
) -> RunSummary:
    """`train`, with everything opened."""
    params = policy.params
    # A run that goes on has its skills in the checkpoint: the folder they came from may be gone.
    without_bank = dataclasses.replace(config, bank=None)
    state, library = _start(without_bank if resume else config, params, runner)
    storage = open_storage(
        config,
        runner.creator,
        resume=resume,
        notify=functools.partial(_notify, console),
        algorithm=runner.algorithm,
    )
    for note in policy.notes:
        storage.notify(note)
    if (idle := jax.device_count() - config.mesh.devices) > 0:
        storage.notify(f"{idle} of {jax.device_count()} devices are idle; --mesh.data uses more")
    with storage.folder, at_work(runner, storage.folder, policy) as runner:
        found = storage.restore(state, config) if resume else None
        if resume and found is None:  # it ended before its first checkpoint
            state, library = _start(config, params, runner)
        state, library = found or (state, library)
        start = int(state.step)
        if is_first() and config.log:
            told = plain_config(config)
            storage.folder.writers = open_writers(
                config.log, storage.folder.path, told, resume=resume, notify=storage.notify
            )
        if start < config.steps:
            storage.folder.add_provenance(provenance(step=start))
        with StopSignal(tell=storage.notify) as stop:
            try:
                with TrainingProgress(console, total=config.steps, start=start) as progress:
                    unseen = None
                    if found is None:
                        unseen = _begin(state, library, runner, storage, progress)
                    if observer is not None:
                        observer(start, state, library, runner)
                    if start < config.steps and (asked := greatest(stop.received)):
                        raise ended_by(asked, start)
                    compiled = _compile(state, runner, progress) if start < config.steps else 0.0
                    state, library = _run(
                        state, library, runner, storage, progress, stop, unseen, observer, compiled
                    )
            finally:  # interrupted or not: who goes on at once finds the checkpoint complete
                stop.only_saving()
                storage.wait()
        storage.check_mirror()
        return RunSummary(storage.folder.path, int(state.step), library.skills)


def _start(config: TrainConfig, params: Any, runner: AnyRunner) -> tuple[TrainState, SkillLibrary]:
    """What a run begins with."""
    library = begin_library(config, runner.world, runner.creator)
    bank = make_bank(config, runner.world, [library.skills])
    width = runner.policy.model.width
    state = init_state(config, params, bank, width=width, algorithm=runner.algorithm)
    return runner.placed(state), library


def _notify(console: Console, line: str) -> None:
    """Prints a line as it is; only a terminal has it wrapped."""
    console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)


def _begin(
    state: TrainState,
    library: SkillLibrary,
    runner: AnyRunner,
    storage: Storage,
    progress: TrainingProgress,
) -> float | None:
    """What precedes the first step: how well the policy starts (unseen games), a checkpoint."""
    progress.status("evaluating the starting policy (compiling first)")
    unseen = _evaluate(state, library, runner, storage.folder, 0, (_mode(runner.config),))
    storage.folder.export_skills(library.skills)
    storage.save(state, library, runner.config, unseen=unseen)
    return unseen


def _compile(state: TrainState, runner: AnyRunner, progress: TrainingProgress) -> float:
    """Compiles the step before the first one; returns the seconds."""
    if not runner.compiles:
        return 0.0
    progress.status("compiling the training step")
    seconds = runner.compile(state)
    progress.compiled("the training step", seconds)
    return seconds


def _mode(config: TrainConfig) -> Mode:
    """How a run is evaluated while it trains."""
    return "bank" if config.skills else "none"


def _run(
    state: TrainState,
    library: SkillLibrary,
    runner: AnyRunner,
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
    modes_at_end: tuple[Mode, ...] = ("bank", "none") if config.skills else ("none",)
    check = _check_updates if isinstance(runner, HostRunner) else _check_finite
    skipped, start = int(state.skipped), int(state.step)
    for step in range(start, config.steps):
        began = time.perf_counter()
        numbers, arms = runner.numbers(step), versions(library, config)
        state, metrics, evidence = runner.advance(state, numbers, arms)
        # Computing does not hold this call up, compiling does: the first time. Episodes on the host
        # do, so what is compiled on the way stays in the time of the first step there.
        compiling = step == start and not isinstance(runner, HostRunner)
        waited = time.perf_counter() - began if compiling else 0.0
        metrics = jax.device_get(metrics)
        done = step + 1
        line = metrics_line(metrics, library, done) | dict(runner.figures(evidence))
        tested = trial_lines(metrics, library, done, config)
        check(metrics, done, skipped, config)
        if config.looks(done):
            library, told = _look(library, evidence, arms, done, config, progress)
            line |= told
        if config.skills and (any(library.proposals) or config.will_propose(done)):
            library = learn(library, runner.episodes(evidence, step, arms), runner.creator)
            new, library = after_step(
                state,
                library,
                metrics,
                done,
                config,
                runner.world,
                runner.creator,
                folder,
                progress,
            )
            state = state if new is state else runner.placed(new)
        line |= {**runner.creator.figures(library.creator), **library.worth.figures}
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
            unseen = _evaluate(state, library, runner, folder, done, modes_at_end)
        elif evaluated:
            unseen = _evaluate(state, library, runner, folder, done, (mode,))
        asked = greatest(stop.received) if done < config.steps else 0
        due = _is_due(config.checkpoint_every, done) or (config.keep_best and evaluated)
        if asked or due or done == config.steps:
            storage.save(state, library, config, unseen=unseen if evaluated else None)
        if observer is not None:
            observer(done, state, library, runner)
        progress.update(
            done,
            success=float(metrics.success),
            unseen=unseen,
            trial=trial_words(metrics, library),
            alarm=alarm_words(library.monitor),
        )
        if asked:
            raise ended_by(asked, done)
    return state, library


def _look(
    library: SkillLibrary,
    evidence: Evidence | HostEvidence,
    arms: Versions,
    step: int,
    config: TrainConfig,
    progress: TrainingProgress,
) -> tuple[SkillLibrary, dict[str, Any]]:
    """What the policy says of its skills goes to the monitor; new alarms are told."""
    names = [[skill.name for skill in version] for version in arms]
    look = look_at(jax.device_get(evidence), names, group_size=config.group_size, step=step)
    monitor = watch(library.monitor, look, seed=config.seed)
    for alarm in monitor.alarms:
        if alarm not in library.monitor.alarms:
            progress.note(Text(f"step {step}: alarm, {alarm}: {ALARMS[alarm]}", style="red"))
    told = {"evidence": monitor.figures, "alarms": list(monitor.alarms)}
    return dataclasses.replace(library, monitor=monitor), told


def _evaluate(
    state: TrainState,
    library: SkillLibrary,
    runner: AnyRunner,
    folder: RunFolder,
    step: int,
    modes: tuple[Mode, ...],
) -> float | None:
    """Plays both splits in each mode; the success on unseen tasks in the first, or None."""
    rates = []
    for mode in modes:
        for split in ("seen", "unseen"):
            found = runner.evaluate(state, split, mode, versions(library, runner.config))
            if found is not None:
                folder.write_eval({"step": step} | found.to_json())
                if is_first():
                    write_sampled(folder.path, step, split, mode, found.sampled)
            rates.append(None if found is None else found.success)
    return rates[1]


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
    _check_updates(metrics, step, skipped_before, config)


def _check_updates(
    metrics: StepMetrics, step: int, skipped_before: int, config: TrainConfig
) -> None:
    """Alone, of a world on the host: how many episodes may be lost there is a setting."""
    if int(metrics.skipped) - skipped_before >= config.optimizer.minibatches:
        raise TrainingError(
            f"step {step}: no update was finite; train again with a lower --learning-rate"
        )
