"""Playing what a run has learned: in its own world, in another engine, on games of a file.

`evaluate_run` is behind `reskill eval`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from rich.console import Console

from reskill_jax.devices.shape import MeshShape
from reskill_jax.evaluation.compiled_play import ReplayError, play_compiled
from reskill_jax.evaluation.figures import Trial, figures
from reskill_jax.evaluation.given_games import own_games, published
from reskill_jax.models.params import Params
from reskill_jax.models.sharding import gather_for_rollout
from reskill_jax.skills.bank import Bank
from reskill_jax.skills.skill import Skill
from reskill_jax.storage import checkpoint
from reskill_jax.training import evaluate
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.config_file import read_stored_config
from reskill_jax.training.host import make_host_runner
from reskill_jax.training.lifecycle import SkillLibrary, make_bank, versions
from reskill_jax.training.settings import Policy, load_policy, open_world
from reskill_jax.training.state import played_state
from reskill_jax.training.storage import MAY_DIFFER, check_base
from reskill_jax.training.update import whole_params
from reskill_jax.worlds.alfworld_games import GameRecord
from reskill_jax.worlds.host_worlds import MadeWorld, eval_tasks
from reskill_jax.worlds.registry import COMPILED
from reskill_jax.worlds.text_games import TextGames, task_of
from reskill_jax.worlds.world import CompiledWorld, GameReader, TaskSpec, compiled_of

__all__ = ["ChoiceError", "LoadedRun", "evaluate_run", "load_run"]

ALFWORLDS = (*COMPILED, "household_text", "alfworld")  # whose games may be those published
REAL_TURNS = 50  # what ALFWorld's own evaluation allows
REAL_CAPACITY = 1536  # symbols: most of the published rooms, for 30 to 50 turns


class ChoiceError(ReplayError):
    """A checkpoint or a mode was asked for that the run does not have."""


class LoadedRun(NamedTuple):
    """A run at one of its checkpoints."""

    config: TrainConfig
    step: int
    params: Params  # of the whole model
    trained: Params  # what was trained: the same, or low-rank adapters
    policy: Policy
    world: Any  # compiled, or on the host
    bank: Bank  # every arm
    skills: tuple[Skill, ...]  # in use
    candidate: tuple[Skill, ...] | None  # the version under test, if there is one

    def skills_of(self, mode: str) -> tuple[Skill, ...]:
        """The skills of a mode of evaluation.

        Raises:
          ChoiceError: there is no candidate, or no such mode.
        """
        if mode not in evaluate.MODES:
            raise ChoiceError(f"mode must be one of {', '.join(evaluate.MODES)}, got {mode!r}")
        if mode == "candidate":
            if self.candidate is None:
                raise ChoiceError(f"no candidate is under test at step {self.step}")
            return self.candidate
        return self.skills if mode == "bank" else ()


Step = int | Literal["best"] | None


def load_run(
    folder: str | Path, *, step: Step = None, notify: Callable[[str], None] = print
) -> LoadedRun:
    """Reads a run from its folder.

    Args:
      folder: <root>/<name>.
      step: a certain checkpoint; None = the newest good one; "best" = of those that were evaluated
        the one with the highest success on unseen tasks.
      notify: called with one line per damaged checkpoint that was passed over.

    Raises:
      ChoiceError: no checkpoint is the best, or there is none of this step.
      ConfigError, CheckpointError, WeightsError, WorldError: with one clear line.
    """
    folder = Path(folder)
    stored = folder / "config.json"
    config = read_stored_config(stored, TrainConfig())
    # It may have been trained on other devices.
    config = replace(config, model=dict(attention="auto"))
    opened = open_world(config)
    world = opened.world if isinstance(opened, MadeWorld) else opened
    policy = load_policy(config.model, world, prompt=config.prompt)
    checkpoints = folder / "checkpoints"
    if step == "best":
        step = checkpoint.best_step(checkpoints, "unseen")
        if step is None:
            raise ChoiceError(f"no checkpoint in {checkpoints} was evaluated")
    elif step is not None and step not in (there := checkpoint.steps(checkpoints)):
        known = ", ".join(map(str, there)) or "none"
        raise ChoiceError(f"there is no checkpoint of step {step}; there are: {known}")
    bank = make_bank(config, world, [()])
    like = jax.eval_shape(lambda: played_state(config, policy.params, bank))
    restored = checkpoint.restore(
        checkpoints,
        like,
        config,
        step,
        may_differ=MAY_DIFFER,
        partly=True,
        notify=notify,
    )
    check_base(restored.host, policy.params if config.model.lora_rank else (), config)
    library = SkillLibrary.from_dict(restored.host["life"], None)
    return LoadedRun(
        config=config,
        step=restored.step,
        trained=restored.arrays.params,
        params=whole_params(restored.arrays.params, policy.params, config),
        policy=policy._replace(params=()),
        world=world,
        bank=restored.arrays.bank,
        skills=library.skills,
        candidate=versions(library, config)[-1] if any(library.proposals) else None,
    )


def evaluate_run(
    folder: str | Path,
    *,
    step: Step = None,
    world: str | None = None,
    splits: Sequence[str] = ("seen", "unseen"),
    modes: Sequence[str] = ("bank", "none"),
    games: Path | None = None,
    tasks: int | None = None,
    trials: int = 1,
    temperature: float | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Plays the policy of a run; every task once in each trial, and no episode mixes versions.

    Args:
      folder: of the run.
      step: of the checkpoint; None = the newest good one.
      world: to play in: "household" (compiled), another one by its name, or MODULE:CLASS; None =
        that of the run.
      splits: "seen", "unseen".
      modes: "bank", "none", "candidate".
      games: where to read ALFWorld's games; "seen" then means the split valid_seen and "unseen"
        valid_unseen, and all splits are played where it has neither. None = games of our generator.
        To another world it is what --games is to it.
      tasks: tasks per split; None = as many as the run evaluates on.
      trials: times that every task is played.
      temperature: of sampling, 0 is greedy. None = greedy on games of a file and in another world
        than the run's, if there is one trial; else as in training.
      workers: processes of a world on the host; None = as the run says.
      console: where to report.

    Returns:
      One line per split and mode, as in eval.jsonl, with the number of invalid episodes if there
      are any, with several trials pass^k for every k, and in worlds with a user who that was.

    Raises:
      ReplayError: the games cannot be played. Besides, the errors of `load_run`, `read_games`,
        worlds and their workers.
    """
    console = console or Console()
    run = load_run(
        folder, step=step, notify=lambda line: console.print(line, highlight=False, markup=False)
    )
    config, world = run.config, world or run.config.world
    tasks = config.eval_tasks if tasks is None else tasks
    versions = {mode: run.skills_of(mode) for mode in modes}
    elsewhere = games is not None or world != config.world
    if temperature is None:
        temperature = 0.0 if elsewhere and trials == 1 else config.temperature
    compiled = not hasattr(run.world, "open")
    if compiled and world == config.world and games is None and trials == 1:
        return [
            _play_compiled(run, mode, split, tasks, temperature)
            for mode in modes
            for split in splits
        ]
    if games is not None and world in ALFWORLDS:
        # A language model spells a symbol in one to four tokens.
        longer = 1 if run.policy.language.identity else 4
        room = longer * REAL_CAPACITY
        config = replace(config, max_turns=REAL_TURNS, context_length=room)
    plan = _Plan(world, tasks, trials, temperature, workers, config)
    return _play_apart(run, plan, versions, splits, games, console)


class _Plan(NamedTuple):
    """What `evaluate_run` is to play."""

    world: str
    tasks: int
    trials: int
    temperature: float
    workers: int | None
    config: TrainConfig  # with the limits of this evaluation


def _play_apart(
    run: LoadedRun,
    plan: _Plan,
    versions: dict[str, tuple[Skill, ...]],
    splits: Sequence[str],
    games: Path | None,
    console: Console,
) -> list[dict[str, Any]]:
    """Lines of games of a file, or of another world than the compiled one."""
    lines = []
    about: dict[str, Any] = {}
    config = replace(
        plan.config, world=plan.world, sessions=dict(max_invalid=1.0), mesh=MeshShape()
    )
    if plan.workers is not None:
        config = replace(config, sessions=dict(workers=plan.workers))
    if games is not None:
        config = replace(config, games=str(games))
    opened = open_world(config)
    finish: Callable[[], None] = lambda: None  # noqa: E731
    if isinstance(opened, MadeWorld):
        play, of_split, finish, about = _on_host(run, plan, config, opened, splits, games)
    else:
        play, of_split = _as_text(run, plan, opened, splits, games)
    try:
        for mode, skills in versions.items():
            for split, tasks in of_split.items():
                found: list[list[Trial]] = [
                    play(mode, skills, tasks, trial) for trial in range(plan.trials)
                ]
                line = figures(found)
                if line.get("invalid"):
                    reason = next(one.cause for trial in found for one in trial if one.cause)
                    console.print(
                        f"{split}, {mode}: {line['invalid']} of {plan.trials * len(tasks)} "
                        f"episodes are invalid and left out; the first: {reason}",
                        highlight=False,
                        markup=False,
                    )
                lines.append({"step": run.step, "mode": mode} | line | {"split": split} | about)
    finally:
        finish()
    return lines


def _as_text(
    run: LoadedRun,
    plan: _Plan,
    world: CompiledWorld,
    splits: Sequence[str],
    games: Path | None,
) -> tuple[Any, dict[str, Any]]:
    """How games given as text are played in a compiled world: (play, games of each split)."""
    if not isinstance(world, GameReader):
        raise ReplayError(
            f"the world {plan.world} has no games that can be given as text; without --games and "
            "--trials a run in it plays tasks that it makes"
        )
    own = compiled_of(run.world)
    if own is None or own.language != world.language or run.policy.prompt is not None:
        raise ReplayError(f"the policy of this run does not speak as the world {plan.world} does")
    records = published(games, splits, plan.tasks) if games else {}
    records = records or {split: own_games(world, split, plan.tasks) for split in splits}
    return functools.partial(_recorded, run, plan, world), records


def _on_host(
    run: LoadedRun,
    plan: _Plan,
    config: TrainConfig,
    opened: MadeWorld,
    splits: Sequence[str],
    games: Path | None,
) -> tuple[Any, ...]:
    """How a world on the host is played: (play, tasks of each split, what ends it, what belongs to
    its figures)."""
    policy = run.policy
    if plan.world != run.config.world and not isinstance(opened.world, TextGames):
        policy = load_policy(
            config.model, opened.world, read_params=False, prompt=config.prompt
        )._replace(params=())
    if games is not None and isinstance(opened.world, TextGames):
        found = published(games, splits, plan.tasks)
        of_split = {split: [task_of(one) for one in records] for split, records in found.items()}
    else:
        of_split = {split: eval_tasks(opened.world, split, plan.tasks) for split in splits}
        of_split = {split: tasks for split, tasks in of_split.items() if tasks}
    if not of_split:
        raise ReplayError(f"the world {plan.world} has no tasks of {', '.join(splits)}")
    runner = make_host_runner(config, opened, policy, trains=False)
    params = jax.jit(lambda params: gather_for_rollout(params, policy.model))(run.params)

    def play(
        mode: str, skills: tuple[Skill, ...], tasks: Sequence[TaskSpec], trial: int
    ) -> list[Trial]:
        played = runner.play(params, tasks, skills, temperature=plan.temperature, trial=trial)
        return [
            Trial(
                one.task.id,
                one.task.kind,
                one.success,
                len(one.actions),
                f"{one.cause}: {one.detail}" if one.cause else "",
            )
            for one in played.conversations
        ]

    user = getattr(opened.world, "user", None)  # who talks to the agent
    return play, of_split, runner.close, {} if user is None else {"user": user}


def _recorded(
    run: LoadedRun,
    plan: _Plan,
    world: GameReader,
    mode: str,
    skills: tuple[Skill, ...],
    records: Sequence[GameRecord],
    trial: int,
) -> list[Trial]:
    """Games given as text, in the compiled world."""
    bank = make_bank(replace(run.config, trial=dict(concurrent=1)), run.world, [skills])
    episodes = play_compiled(
        run.params,
        run.policy.model,
        run.policy.language,
        bank,
        records,
        world=world,
        max_turns=plan.config.max_turns,
        context_length=plan.config.context_length,
        arm=-1 if mode == "none" else 0,
        temperature=plan.temperature,
        seed=trial,
    )
    return [
        Trial(f"{r.split}/{r.game}", r.task_type, e.won, len(e.commands), e.error or "")
        for r, e in zip(records, episodes, strict=True)
    ]


def _play_compiled(
    run: LoadedRun, mode: str, split: str, tasks: int, temperature: float
) -> dict[str, Any]:
    """A line of eval.jsonl, of games in the compiled world."""
    config = run.config
    found = evaluate.evaluate(
        run.params,
        run.bank,
        world=run.world,
        model=run.policy.model,
        language=run.policy.language,
        split=split,
        mode=mode,  # type: ignore[arg-type]
        max_turns=config.max_turns,
        context_length=config.context_length,
        games=tasks,
        temperature=temperature,
        at_once=run.policy.games_at_once(config),
    )
    return {"step": run.step} | found.to_json()
