"""ALFWorld's games as a world on the host: in the real engine, or in the compiled one as text."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, overload

import jax
import numpy as np

from .alfworld import AlfworldGame
from .alfworld_games import GameRecord, game_record, read_games
from .household import TextGame
from .household.generator import generate
from .household.world import HouseholdWorld
from .settings import SMALL, RoomSpec
from .world import Outcome, TaskSpec

__all__ = ["GameSession", "TextGames", "task_of"]

Engine = Literal["alfworld", "household"]
_ENDLESS = 1 << 20  # games of a split that are made as they are asked for
# A split of ours is played on the published games that serve the same purpose.
PUBLISHED = {"seen": "valid_seen", "unseen": "valid_unseen"}


class TextGames:
    """Games of our generator, or of a file, in an engine that is played with texts.

    The same seed gives the games that training in the compiled world plays.

    Attributes:
      compiled: the compiled world that says the same in symbols.
      instruction: what a language model is told first.
    """

    overflow_is_invalid = False  # as in the compiled world: a full context is a lost episode

    def __init__(
        self,
        *,
        engine: Engine = "alfworld",
        rooms: RoomSpec = SMALL,
        seed: int = 0,
        games: str | Path | None = None,
    ):
        """Chooses the games.

        Args:
          engine: the real one, or the compiled household.
          rooms: sizes of generated rooms.
          seed: of the run, which the generated games of its training follow from.
          games: a games file, a folder of ALFWorld data, or a problem; None = generated games.

        Raises:
          GamesError: there are no games that can be read.
        """
        self._engine, self._rooms, self._seed, self._games = engine, rooms, seed, games
        self.compiled = HouseholdWorld(spec=rooms)
        self.instruction = self.compiled.instruction
        self._records = None if games is None else read_games(games)

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process opens games that it is sent; it needs none of its own."""
        made = functools.partial(TextGames, engine=self._engine, rooms=self._rooms, seed=self._seed)
        return made, ()

    def tasks(self, split: str) -> Sequence[TaskSpec]:
        """The games of a split; those of our generator are made as they are asked for.

        Raises:
          ValueError: a file has no games of this split.
        """
        if self._records is None:
            return _Generated(split, self._rooms, self._seed)
        names = (split, PUBLISHED.get(split, split))
        found = [task_of(record) for record in self._records if record.split in names]
        if not found:
            known = ", ".join(sorted({record.split for record in self._records}))
            raise ValueError(f"{self._games} has no games of the split {split}; it has {known}")
        return found

    def open(self, task: TaskSpec) -> "GameSession":
        """A session of one game."""
        return GameSession(task.data, self._engine)


class GameSession:
    """One game, played with texts."""

    def __init__(self, record: GameRecord, engine: Engine):
        """Opens the game."""
        opened: Any = AlfworldGame if engine == "alfworld" else TextGame
        self._game = opened.from_pddl(record.pddl_problem, task=record.task)

    def reset(self) -> str:
        """The opening."""
        return self._game.intro

    def step(self, action: str) -> Outcome:
        """Plays a command; the first moment at which the goal holds ends the game."""
        observation, won = self._game.step(action)
        return Outcome(observation, success=won, done=won)

    def choices(self) -> list[str]:
        """The admissible commands."""
        return self._game.admissible()

    def close(self) -> None:
        """Gives a real engine back."""
        if isinstance(self._game, AlfworldGame):
            self._game.close()


def task_of(record: GameRecord) -> TaskSpec:
    """A game as a task."""
    return TaskSpec(f"{record.split}/{record.game}", record.task, record.task_type, record)


class _Generated(Sequence[TaskSpec]):
    """Games that are made when they are asked for."""

    def __init__(self, split: str, rooms: RoomSpec, seed: int):
        self._split, self._rooms, self._seed = split, rooms, seed

    def __len__(self) -> int:
        return _ENDLESS

    @overload
    def __getitem__(self, index: int) -> TaskSpec: ...

    @overload
    def __getitem__(self, index: slice) -> list[TaskSpec]: ...

    def __getitem__(self, index: int | slice) -> TaskSpec | list[TaskSpec]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return _generated(self._split, self._rooms, self._seed, index)


@functools.lru_cache(maxsize=4096)
def _generated(split: str, rooms: RoomSpec, seed: int, index: int) -> TaskSpec:
    # The keys of training's games and of evaluation's are those of the compiled world.
    key = jax.random.key(seed + 1 if split == "train" else 0)
    made = _make(jax.random.fold_in(key, index), spec=rooms, split=split)
    name = f"{split}-{index}"
    return task_of(game_record(jax.tree.map(np.asarray, made), name=name, split=split))


_make = jax.jit(generate, static_argnames=("spec", "split"))
