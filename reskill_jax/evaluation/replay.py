"""Playing what a run has learned: in the compiled world, and in the real ALFWorld engine.

`evaluate_run` is behind `reskill eval`.
"""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from rich.console import Console
from rich.progress import track

from reskill_jax.evaluation.act import PolicyPlayer
from reskill_jax.evaluation.compiled_play import ReplayError
from reskill_jax.models.params import Params
from reskill_jax.skills.bank import Bank
from reskill_jax.skills.skill import Skill
from reskill_jax.storage import checkpoint
from reskill_jax.storage.intervals import wilson_interval
from reskill_jax.training import evaluate
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import read_stored_config
from reskill_jax.training.lifecycle import SkillLibrary, creator_of, make_bank, versions
from reskill_jax.training.settings import Policy, load_policy
from reskill_jax.training.state import init_state
from reskill_jax.training.storage import MAY_DIFFER, kept
from reskill_jax.training.update import whole_params
from reskill_jax.worlds.alfworld_games import GameRecord, game_record, read_games
from reskill_jax.worlds.household.generator import generate
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.playing import Episode, open_alfworld, play
from reskill_jax.worlds.registry import make_world
from reskill_jax.worlds.world import CompiledWorld

REAL_TURNS = 50  # what ALFWorld's own evaluation allows
REAL_CAPACITY = 1536  # symbols: most of the published rooms, for 30 to 50 turns
# A split of ours is played on the published games that serve the same purpose.
_PUBLISHED = {"seen": "valid_seen", "unseen": "valid_unseen"}


class ChoiceError(ReplayError):
    """A checkpoint or a mode was asked for that the run does not have."""


class LoadedRun(NamedTuple):
    """A run at one of its checkpoints."""

    config: TrainConfig
    step: int
    params: Params  # of the whole model
    trained: Params  # what was trained: the same, or low-rank adapters
    policy: Policy
    world: CompiledWorld
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
      ConfigError, CheckpointError, WeightsError: with one clear line.
    """
    folder = Path(folder)
    stored = folder / "config.json"
    config = read_stored_config(stored, TrainConfig())
    world = make_world(config.world, rooms=config.rooms)
    policy = load_policy(config.model, world)
    checkpoints = folder / "checkpoints"
    if step == "best":
        step = checkpoint.best_step(checkpoints, "unseen")
        if step is None:
            raise ChoiceError(f"no checkpoint in {checkpoints} was evaluated")
    elif step is not None and step not in (there := checkpoint.steps(checkpoints)):
        known = ", ".join(map(str, there)) or "none"
        raise ChoiceError(f"there is no checkpoint of step {step}; there are: {known}")
    bank = make_bank(config, world, [()])
    like = jax.eval_shape(lambda: init_state(config, policy.params, bank))  # no second optimizer
    restored = checkpoint.restore(
        checkpoints,
        kept(like),
        config,
        step,
        may_differ=MAY_DIFFER,
        notify=notify,
    )
    life = SkillLibrary.from_dict(restored.host["life"], creator_of(config, world))
    return LoadedRun(
        config=config,
        step=restored.step,
        trained=restored.arrays.params,
        params=whole_params(restored.arrays.params, policy.params, config),
        policy=policy._replace(params=()),
        world=world,
        bank=restored.arrays.bank,
        skills=life.skills,
        candidate=_candidate(life, config),
    )


def _candidate(life: SkillLibrary, config: TrainConfig) -> tuple[Skill, ...] | None:
    """The bank with all that is under test; None if nothing is."""
    return versions(life, config)[-1] if any(life.proposals) else None


def evaluate_run(
    folder: str | Path,
    *,
    step: Step = None,
    world: str = "household",
    splits: Sequence[str] = ("seen", "unseen"),
    modes: Sequence[str] = ("bank", "none"),
    games: Path | None = None,
    tasks: int | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Plays the policy of a run.

    Args:
      folder: of the run.
      step: of the checkpoint; None = the newest good one.
      world: "household" (compiled, sampled at the run's temperature, as in training) or "alfworld"
        (the real engine, greedily; invalid episodes are left out and counted).
      splits: "seen", "unseen".
      modes: "bank", "none", "candidate".
      games: alfworld: where to read games; "seen" then means the split valid_seen and "unseen"
        valid_unseen, and all splits are played where it has neither. None = games of our generator.
      tasks: games per split; None = as many as the run evaluates on.
      console: where to report.

    Returns:
      One line per split and mode, as in eval.jsonl; in alfworld with the number of invalid games.

    Raises:
      ReplayError, and the errors of `load_run`, `read_games` and the real engine.
    """
    console = console or Console()
    run = load_run(
        folder, step=step, notify=lambda line: console.print(line, highlight=False, markup=False)
    )
    config = run.config
    tasks = config.eval_tasks if tasks is None else tasks
    versions = {mode: run.skills_of(mode) for mode in modes}
    if world == "household":
        return [_play_compiled(run, mode, split, tasks) for mode in modes for split in splits]
    if world != "alfworld":
        raise ReplayError(f"world must be household or alfworld, got {world!r}")
    if games is None:
        of_split = {split: own_games(config, split, tasks) for split in splits}
        max_turns, context_length = config.max_turns, config.context_length
    else:
        of_split = _published(games, splits, tasks)
        # A language model spells a symbol in one to four tokens.
        longer = 1 if run.policy.language.identity else 4
        max_turns, context_length = REAL_TURNS, longer * REAL_CAPACITY
    return [
        {"step": run.step, "mode": mode}
        | play_alfworld(
            run,
            records,
            skills=skills,
            max_turns=max_turns,
            context_length=context_length,
            console=console,
            label=f"{split}, {mode}",
        )
        | {"split": split}
        for mode, skills in versions.items()
        for split, records in of_split.items()
    ]


def _play_compiled(run: LoadedRun, mode: str, split: str, tasks: int) -> dict[str, Any]:
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
        temperature=config.temperature,
        at_once=run.policy.games_at_once(config),
    )
    return {"step": run.step} | found.to_json()


def own_games(config: TrainConfig, split: str, count: int, *, seed: int = 0) -> list[GameRecord]:
    """The games that the evaluation of a split plays in the compiled world, as text."""
    make = jax.jit(functools.partial(generate, spec=config.rooms, split=split))
    return [
        game_record(
            jax.tree.map(np.asarray, make(jax.random.fold_in(jax.random.key(seed), i))),
            name=f"{split}-{i}",
            split=split,
        )
        for i in range(count)
    ]


def _published(path: Path, splits: Sequence[str], tasks: int) -> dict[str, list[GameRecord]]:
    """At most `tasks` games of each split, evenly spaced."""
    by_split: dict[str, list[GameRecord]] = {}
    for record in read_games(path):
        by_split.setdefault(record.split, []).append(record)
    wanted = {name for split in splits for name in (split, _PUBLISHED.get(split, split))}
    kept = {name: found for name, found in by_split.items() if name in wanted} or by_split
    return {
        name: [found[i * len(found) // n] for n in [min(tasks, len(found))] for i in range(n)]
        for name, found in kept.items()
    }


def play_alfworld(
    run: LoadedRun,
    records: Sequence[GameRecord],
    *,
    skills: Sequence[Skill],
    max_turns: int,
    context_length: int,
    console: Console,
    label: str,
) -> dict[str, Any]:
    """Plays games greedily in the real engine.

    Returns:
      success, episodes (the valid ones), interval, turns, by_task_type, invalid.

    Raises:
      ReplayError: not one episode was valid.
      AlfworldMissing: the real engine is not installed.
    """
    episodes = []
    shown = track(
        records,
        description=label,
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    for record in shown:
        player = PolicyPlayer(
            run.params, run.policy.model, run.policy.language, skills, context_length=context_length
        )
        episodes.append(play(record, open_alfworld, player, max_turns=max_turns))
    figures = summarise(records, episodes)
    if figures["invalid"]:
        reason = next(e.error for e in episodes if not e.valid)
        console.print(
            f"{label}: {figures['invalid']} of {len(episodes)} episodes are invalid and left out; "
            f"the first: {reason}",
            highlight=False,
            markup=False,
        )
    return figures


def summarise(records: Sequence[GameRecord], episodes: Sequence[Episode]) -> dict[str, Any]:
    """Figures of some episodes; invalid ones are left out of all but their own count.

    Raises:
      ReplayError: not one episode was valid.
    """
    played = [(r, e) for r, e in zip(records, episodes, strict=True) if e.valid]
    if not played:
        reason = episodes[0].error if episodes else "there were no games"
        raise ReplayError(f"no episode is valid: {reason}")
    wins = sum(e.won for _, e in played)
    by_type = {name: [e.won for r, e in played if r.task_type == name] for name in TASK_TYPES}
    return {
        "success": wins / len(played),
        "episodes": len(played),
        "interval": list(wilson_interval(wins, len(played))),
        "turns": sum(len(e.commands) for _, e in played) / len(played),
        "by_task_type": {name: [sum(won), len(won)] for name, won in by_type.items()},
        "invalid": len(episodes) - len(played),
    }
