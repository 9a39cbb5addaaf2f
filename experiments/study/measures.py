"""What a study measures during a run beside the run's own logs: observers of the training loop.

An observer appends to a file in the run's folder. When an interrupted run goes on from a
checkpoint, lines of steps that will be played again are dropped first.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reskill_jax.creators.rules.state import Record
from reskill_jax.models import weights
from reskill_jax.skills.skill import Skill
from reskill_jax.skills.skillmd import export_skill
from reskill_jax.training.evaluate import play_games
from reskill_jax.training.lifecycle import SkillLibrary, make_bank
from reskill_jax.training.ranges import MAX_SKILLS
from reskill_jax.training.runner import Runner
from reskill_jax.training.state import TrainState

FINAL, VERSIONS = "final.jsonl", "versions.jsonl"
MEMORY = "memory.json"
_FIRST_SEED = 1_000  # of games that no evaluation plays
_PER_RUN = 1_000  # seeds that each run has for games of its own, beyond all others


class _Log:
    """A file of measurements. It is known which step comes first, so that old lines can go."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._open = False

    def begin(self, step: int) -> None:
        if self._open:
            return
        self._open = True
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [line for line in lines if json.loads(line)["step"] < step]
            self._path.write_text("".join(kept), encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")


def _won(
    params: Any, skills: Sequence[Skill], runner: Runner, *, split: str, seed: int
) -> np.ndarray:
    """[eval_tasks] bool: games won with these skills; the program of the run's evaluations."""
    config = runner.config
    return play_games(
        params,
        make_bank(config, runner.world, [skills]),
        world=runner.world,
        model=runner.policy.model,
        language=runner.policy.language,
        split=split,
        arm=0 if config.skills else -1,
        max_turns=config.max_turns,
        context_length=config.context_length,
        games=config.eval_tasks,
        seed=seed,
        temperature=config.temperature,
    ).won


class FinalGames:
    """Further games at the end, beside those of the run's last evaluation, or games of its own."""

    def __init__(self, folder: Path, games: int, *, own: bool = False) -> None:
        """Measures until `games` have been played per split and mode.

        The run's last evaluation is one part of them; with `own` none is shared with another seed.
        """
        self._log = _Log(folder / FINAL)
        self._games, self._own = games, own

    def __call__(self, step: int, state: TrainState, library: SkillLibrary, runner: Runner) -> None:
        """As `loop.train` calls it."""
        config = runner.config
        self._log.begin(step)
        if step != config.steps:
            return
        blocks = range(-(-self._games // config.eval_tasks))
        # Block 0 of all seeds is the run's own evaluation.
        blocks = [_PER_RUN * (1 + config.seed) + b for b in blocks] if self._own else blocks[1:]
        modes = {"bank": library.skills, "none": ()} if config.skills else {"none": ()}
        for mode, skills in modes.items():
            for split in ("seen", "unseen"):
                won = [_won(state.params, skills, runner, split=split, seed=b) for b in blocks]
                episodes = len(blocks) * config.eval_tasks
                line = {"step": step, "split": split, "mode": mode, "episodes": episodes}
                self._log.write(line | {"successes": int(np.sum(won))})


class Memory:
    """The bytes that the compiled step holds at most, and how many of them are temporaries."""

    def __init__(self, folder: Path) -> None:
        """Measures when the run ends."""
        self._path = folder / MEMORY

    def __call__(self, step: int, state: TrainState, library: SkillLibrary, runner: Runner) -> None:
        """As `loop.train` calls it."""
        if step != runner.config.steps:
            return
        games = runner.games(runner.numbers(0))
        analysis = runner.step.lower(state, games).compile().memory_analysis()
        told = {}
        if analysis:
            temporaries = int(analysis.temp_size_in_bytes)
            given = analysis.argument_size_in_bytes - analysis.alias_size_in_bytes
            peak = temporaries + int(given + analysis.output_size_in_bytes)
            told = {"temporaries": temporaries, "peak": peak}
        self._path.write_text(json.dumps(told), encoding="utf-8")


class Trained:
    """Keeps what a run has trained: policy.safetensors, policy.json and skills/."""

    def __init__(self, folder: Path) -> None:
        """Writes into a folder when the run ends."""
        self._folder = folder

    def __call__(self, step: int, state: TrainState, library: SkillLibrary, runner: Runner) -> None:
        """As `loop.train` calls it."""
        if step != runner.config.steps:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        params, about = jax.device_get(state.params), {"made by": "experiments/household_study.py"}
        weights.save(self._folder / "policy.safetensors", params, about, runner.policy.model.config)
        for skill in library.skills:
            export_skill(skill, self._folder / "skills")


class Versions:
    """What proposed versions and the skills in the bank are worth, on the same games each time.

    Lines of kind "proposal": the bank in use with the proposal against the bank without, before it
    is tested (or when it has just been adopted without a test), however many others are under test
    beside it. Lines of kind "skill": every so many steps, the
    bank against the bank without one of its skills, for each of them. `gained` counts games that
    only the first of the two won, `lost` games that only the second won.
    """

    def __init__(self, folder: Path, *, every: int, games: int, version_games: int) -> None:
        """Measures versions in `version_games`, skills in `games` every `every` steps (0: no)."""
        self._log = _Log(folder / VERSIONS)
        self._every, self._games, self._version_games = every, games, version_games
        self._before: tuple[Skill, ...] | None = None  # unknown
        self._measured = -1  # number of the last proposal
        self._played: dict[tuple, np.ndarray] = {}  # in this step: one bank is compared often

    def __call__(self, step: int, state: TrainState, library: SkillLibrary, runner: Runner) -> None:
        """As `loop.train` calls it."""
        first = self._measured < 0 and step == 0
        self._log.begin(step)
        self._played.clear()
        for record in library.creator.history:
            if record.id > self._measured:
                self._measured = record.id
                self._measure(record, step, state, library, runner)
        self._before = library.skills
        if self._every and not first and step % self._every == 0:
            for skill in library.skills:
                without = [one for one in library.skills if one is not skill]
                told = {"kind": "skill", "skill": skill.name, "action": skill.action}
                told |= {"age": library.served.get(skill.name, 0)}
                self._compare(step, state, runner, library.skills, without, self._games, told)

    def _measure(
        self, record: Record, step: int, state, library: SkillLibrary, runner: Runner
    ) -> None:
        """Compares the bank with a new proposal to the bank without it."""
        adopted = all(one is None or one.id != record.id for one in library.proposals)
        new, old = library.skills, self._before
        if not adopted:
            new, old = record.bundle.apply(library.skills, capacity=MAX_SKILLS), library.skills
        # Else it was measured before an interruption (or can no longer be).
        if record.step == step and old is not None:
            told = {"kind": "proposal", "trial": record.id, "type": record.kind}
            operations = [
                {"operation": o["operation"], "name": o["name"]}
                for o in record.bundle.to_dict()["operations"]
            ]
            told |= {"operations": operations, "reason": record.reason}
            self._compare(step, state, runner, new, old, self._version_games, told)

    def _compare(self, step, state, runner, one, other, games: int, told: dict[str, Any]) -> None:
        blocks = range(_FIRST_SEED, _FIRST_SEED + -(-games // runner.config.eval_tasks))

        def outcomes(skills: Sequence[Skill]) -> np.ndarray:
            won = []
            for block in blocks:
                key = (step, tuple(skills), block)
                if key not in self._played:
                    self._played[key] = _won(state.params, skills, runner, split="seen", seed=block)
                won.append(self._played[key])
            return np.concatenate(won)

        first, second = outcomes(one), outcomes(other)
        self._log.write(
            {"step": step}
            | told
            | {
                "games": len(first),
                "won": [int(first.sum()), int(second.sum())],
                "gained": int((first & ~second).sum()),
                "lost": int((second & ~first).sum()),
            }
        )
