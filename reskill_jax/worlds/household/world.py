"""The household world as a `CompiledWorld`: a language, tasks, actions spelled symbol by symbol.

It shows how it is played, and reads games that are given as text, too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import chex
import jax.numpy as jnp

from reskill_jax.skills.skill import Skill
from reskill_jax.worlds.alfworld_games import GameRecord, game_record
from reskill_jax.worlds.settings import BEGINNER, SMALL, Habits, RoomSpec
from reskill_jax.worlds.vocabulary import ActionVocabulary
from reskill_jax.worlds.world import LoadedGames, Shown, Step

from . import commands, demonstrations, engine, symbols
from .families import SPLITS
from .generator import generate
from .handwritten import GOOD
from .reading import text_symbols
from .recorded import read_records
from .tables import TASK_TYPES
from .types import MAX_SHARED, TASK_LENGTH, Game, State
from .vocabulary import household_vocabulary

__all__ = ["HouseholdWorld"]

# Words of a task that tell its kind; the first kind has none.
_TELLING = (
    {"look", "examine"},
    {"clean"},
    {"hot", "heat"},
    {"cool"},
    {"two"},
)


@dataclasses.dataclass(frozen=True)
class HouseholdWorld:
    """Sizes of a household world. Hashable, so it can be static under jit.

    Attributes:
      spec: room sizes.
      habits: of the player that it shows.
      task_width: symbols that a goal text has room for.
    """

    spec: RoomSpec = SMALL
    habits: Habits = BEGINNER
    task_width: int = TASK_LENGTH

    language = symbols.SYMBOLS
    spoken = symbols.SPOKEN
    instruction = (
        "You are in a household and solve a task by giving one short command at a time, such as: "
        "go to cabinet 1, open drawer 2, take mug 1 from shelf 1, move mug 1 to sinkbasin 1, "
        "clean mug 1 with sinkbasin 1. Answer with the next command and nothing else."
    )
    prompt = symbols.SYMBOLS[symbols.PROMPT]
    skill_header = symbols.SYMBOLS[symbols.SKILL]
    unknown = symbols.UNKNOWN
    splits = SPLITS
    task_types = TASK_TYPES
    affordances = symbols.VERBS
    action_length = commands.COMMAND_LENGTH
    decisions_per_turn = 5  # verb, word, number, second word, second number

    @property
    def introduction_length(self) -> int:
        """Width of the introduction."""
        return engine.intro_capacity(self.spec.receptacles, self.task_width)

    @property
    def observation_length(self) -> int:
        """Width of an observation: that of the longest that rooms of these sizes can show."""
        shared = MAX_SHARED if self.spec.share_place > 0 else 1
        return engine.observation_capacity(self.spec.receptacles, self.spec.objects, shared=shared)

    def make(self, key: chex.PRNGKey, split: str | chex.Array) -> Game:
        """Makes one game of a split: its name, or its index in `splits`, which may be traced."""
        return generate(key, spec=self.spec, split=split)

    def task_text(self, task: Game) -> chex.Array:
        """[task_width] int32: symbols of the task, PAD behind."""
        return task.task

    def task_type(self, task: Game) -> chex.Array:
        """[] int32, index into `task_types`."""
        return task.task_type

    def reset(self, task: Game) -> tuple[State, chex.Array]:
        """Returns the first state and the introduction ([introduction_length] int32)."""
        intro, _ = engine.intro(task, max_symbols=self.introduction_length)
        return task.start, intro

    def affords(self, task: Game, state: State) -> chex.Array:
        """[len(affordances)] bool: verbs that some admissible command begins with."""
        return commands.admissible(task, state).verbs

    def begin(self, task: Game, state: State) -> commands.Cursor:
        """Starts a command."""
        return commands.begin(task, state)

    def allowed(self, task: Game, cursor: commands.Cursor) -> chex.Array:
        """[V] bool: symbols that can come next."""
        return commands.allowed(task, cursor)

    def advance(
        self, task: Game, state: State, cursor: commands.Cursor, symbol: chex.Array
    ) -> commands.Cursor:
        """Spells one symbol."""
        return commands.advance(task, state, cursor, symbol)

    def action(self, task: Game, cursor: commands.Cursor) -> chex.Array:
        """[action_length] int32 symbols of the finished command."""
        return commands.command_symbols(task, commands.to_command(cursor))[0]

    def step(self, task: Game, state: State, cursor: commands.Cursor) -> tuple[State, Step]:
        """Carries out the finished command; the first moment at which the goal holds ends it."""
        state, seen, _ = engine.step(
            task, state, commands.to_command(cursor), max_symbols=self.observation_length
        )
        won = jnp.asarray(engine.won(task, state))
        return state, Step(seen, won.astype(jnp.float32), won, won)

    def text(self, symbols_: Sequence[int]) -> str:
        """The text of symbols, without white space in front."""
        return symbols.text(symbols_)

    def words(self, sentence: str) -> list[int]:
        """See `symbols.words`."""
        return symbols.words(sentence)

    def read(self, text: str) -> list[int]:
        """See `reading.text_symbols`."""
        return text_symbols(text)

    def lacking(self, sentence: str) -> list[str]:
        """See `symbols.lacking`."""
        return symbols.lacking(sentence)

    def task_of(self, introduction: str) -> str:
        """The task in the text of an introduction."""
        return symbols.task_of(introduction)

    def type_of(self, task: str) -> str:
        """The kind of task as its words tell it."""
        words = set(task.split())
        for task_type, telling in zip(TASK_TYPES[1:], _TELLING, strict=True):
            if words & telling:
                return task_type
        return TASK_TYPES[0]

    @property
    def actions(self) -> ActionVocabulary:
        """The words of commands."""
        return household_vocabulary()

    @property
    def banks(self) -> Mapping[str, tuple[Skill, ...]]:
        """The hand-written skills."""
        return {"good": GOOD}

    @property
    def demonstrations(self) -> str:
        """What is shown."""
        return demonstrations.ABOUT

    def player(self, key: chex.PRNGKey) -> chex.Array:
        """[] float32: how often the player of an episode is spoken to."""
        return demonstrations.draw_rate(key)

    def demonstrate(self, key: chex.PRNGKey, task: Game, state: State, player: chex.Array) -> Shown:
        """See `demonstrations.demonstrate`."""
        return demonstrations.demonstrate(key, task, state, player, habits=self.habits)

    def load_games(self, records: Sequence[GameRecord]) -> LoadedGames:
        """Reads games into arrays of common capacities, see `recorded.read_records`.

        Raises:
          GamesError: none of them can be played.
        """
        found = read_records(records)
        world = dataclasses.replace(self, spec=found.spec, task_width=found.task_width)
        return LoadedGames(world, found.games, found.record, found.words, found.errors)

    def game_record(self, task: Any, *, name: str, split: str) -> GameRecord:
        """See `alfworld_games.game_record`."""
        return game_record(task, name=name, split=split)
