"""Generated games and whole episodes of the scripted player, compiled once for all tests here."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from reskill_jax.worlds.household import commands, engine
from reskill_jax.worlds.household.expert import habitual
from reskill_jax.worlds.household.families import SPLITS
from reskill_jax.worlds.household.generator import SMALL, generate
from reskill_jax.worlds.settings import Habits

EPISODES = 256
TURNS = 2 * SMALL.receptacles + 10
SYMBOLS = 48


class Played(NamedTuple):
    """N episodes of T turns, numpy arrays."""

    won: Any  # [N] bool
    active: Any  # [N, T] bool: the turn was played
    admissible: Any  # [N, T] bool
    commands: Any  # of [N, T]
    states: Any  # of [N, T, ...], before the command
    lengths: Any  # [N, T] symbols of the observation, were it not cut


@jax.jit
def _games(keys, split):
    return jax.vmap(lambda key: generate(key, split=split))(keys)


@jax.jit
def _play(keys, games, habits):
    def play(key, game):
        def turn(carry, key):
            state, active = carry
            command = habitual(key, game, state, habits=habits)
            admissible = commands.is_admissible(game, state, command)
            moved, _, length = engine.step(game, state, command, max_symbols=SYMBOLS)
            still = active & ~engine.won(game, moved)
            return (moved, still), (active, admissible, command, state, length)

        start = (game.start, ~engine.won(game, game.start))
        (_, active), history = jax.lax.scan(turn, start, jax.random.split(key, TURNS))
        return Played(~active, *history)

    return jax.vmap(play)(keys, games)


@pytest.fixture(scope="session")
def make_games():
    """split -> EPISODES games of that split (numpy)."""

    @functools.cache
    def make(split="train"):
        keys = jax.random.split(jax.random.key(7), EPISODES)
        return jax.tree.map(np.asarray, _games(keys, SPLITS.index(split)))

    return make


@pytest.fixture(scope="session")
def play(make_games):
    """(habits, split) -> Played."""

    @functools.cache
    def play(habits: Habits, split="train"):
        keys = jax.random.split(jax.random.key(8), EPISODES)
        habits = Habits(*(np.float32(p) for p in habits))
        return jax.tree.map(np.asarray, _play(keys, make_games(split), habits))

    return play
