"""The household world behind the interface that rollouts use: a language, games, prefix decoding.

A compiled world is any object with these members; its methods take ONE game and are vmapped by the
caller. Commands are spelled symbol by symbol under a mask (`begin`, `allowed`, `advance`), and
`play` carries out the finished one.
"""

import dataclasses

import chex
import jax.numpy as jnp

from . import commands, engine
from .families import SPLITS
from .generator import SMALL, RoomSpec, generate
from .symbols import PROMPT, SYMBOLS, VERBS, VOCABULARY_SIZE
from .types import MAX_SHARED, TASK_LENGTH, Game, State


@dataclasses.dataclass(frozen=True)
class HouseholdWorld:
    """Sizes of a household world. Hashable, so it can be static under jit.

    Attributes:
      spec: room sizes.
    """

    spec: RoomSpec = SMALL

    language = SYMBOLS
    vocabulary = VOCABULARY_SIZE
    prompt = PROMPT
    verbs = VERBS
    splits = SPLITS
    command_length = commands.COMMAND_LENGTH
    decisions_per_turn = 5  # verb, word, number, second word, second number

    @property
    def intro_symbols(self) -> int:
        """Width of the introduction."""
        return engine.intro_capacity(self.spec.receptacles, TASK_LENGTH)

    @property
    def max_symbols(self) -> int:
        """Width of an observation: that of the longest that rooms of these sizes can show."""
        shared = MAX_SHARED if self.spec.share_place > 0 else 1
        return engine.observation_capacity(self.spec.receptacles, self.spec.objects, shared=shared)

    def make(self, key: chex.PRNGKey, split: str | chex.Array) -> Game:
        """Makes one game of a split: its name, or its index in `splits`, which may be traced."""
        return generate(key, spec=self.spec, split=split)

    def reset(self, game: Game) -> tuple[State, chex.Array, chex.Array]:
        """Returns the first state and the introduction ([intro_symbols] int32, length)."""
        intro, length = engine.intro(game, max_symbols=self.intro_symbols)
        return game.start, intro, length

    def task(self, game: Game) -> chex.Array:
        """[TASK_LENGTH] int32: symbols of the task, PAD behind."""
        return game.task

    def possible(self, game: Game, state: State) -> chex.Array:
        """[len(verbs)] bool: verbs that some admissible command begins with."""
        return commands.admissible(game, state).verbs

    def begin(self, game: Game, state: State) -> commands.Cursor:
        """Starts a command."""
        return commands.begin(game, state)

    def allowed(self, game: Game, cursor: commands.Cursor) -> chex.Array:
        """[V] bool: symbols that can come next."""
        return commands.allowed(game, cursor)

    def advance(self, game: Game, state: State, cursor: commands.Cursor, symbol) -> commands.Cursor:
        """Spells one symbol."""
        return commands.advance(game, state, cursor, symbol)

    def play(self, game: Game, state: State, cursor: commands.Cursor):
        """Carries out the spelled command.

        Returns:
          state; the command ([command_length] int32, length); the observation ([max_symbols] int32,
          length); won ([] bool).
        """
        command = commands.to_command(cursor)
        written, command_length = commands.command_symbols(game, command)
        state, seen, length = engine.step(game, state, command, max_symbols=self.max_symbols)
        won = engine.won(game, state)
        return state, (written, command_length), (seen, length), jnp.asarray(won)
