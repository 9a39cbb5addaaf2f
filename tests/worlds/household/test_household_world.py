"""The interface of a compiled world: spelling a command and playing it is the engine's step."""

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.worlds.household import commands, engine
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.expert import BEGINNER
from reskill_jax.worlds.household.generator import RoomSpec
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()


@jax.jit
@jax.vmap
def _spelled(game, state, command):
    spelled, _ = commands.command_symbols(game, command)
    cursor, legal, choices = WORLD.begin(game, state), jnp.bool_(True), jnp.int32(0)
    for i in range(WORLD.command_length):
        mask = WORLD.allowed(game, cursor)
        legal &= cursor.done | mask[spelled[i]]
        choices += ~cursor.done & (mask.sum() > 1)
        cursor = WORLD.advance(game, state, cursor, spelled[i])
    by_world = WORLD.play(game, state, cursor)
    moved, seen, length = engine.step(game, state, command, max_symbols=WORLD.max_symbols)
    by_engine = moved, commands.command_symbols(game, command), (seen, length)
    return legal, cursor.done, choices, by_world, (*by_engine, engine.won(game, moved))


def test_a_spelled_command_is_the_engines_step(make_games, play):
    played = play(BEGINNER)
    for turn in (0, 3, 8):
        states, chosen = jax.tree.map(lambda x, t=turn: x[:, t], (played.states, played.commands))
        legal, done, choices, by_world, by_engine = _spelled(make_games("train"), states, chosen)
        assert legal.all() and done.all()
        assert choices.max() <= WORLD.decisions_per_turn
        jax.tree.map(np.testing.assert_array_equal, by_world, by_engine)


def test_introduction_fits_and_names_everything(make_games):
    state, intros, lengths = jax.jit(jax.vmap(WORLD.reset))(make_games("train"))
    jax.tree.map(np.testing.assert_array_equal, state, make_games("train").start)
    assert intros.shape[1] == WORLD.intro_symbols >= lengths.max()
    games = make_games("train")
    for i in (0, 1, 2):
        said = sy.text(intros[i])
        assert said.endswith(f"Your task is to: {sy.text(games.task[i])}.")
        for stem, number in zip(games.recep_stem[i], games.recep_number[i], strict=True):
            assert not stem or f"a {sy.text((stem, number))}" in said


def test_made_games_are_those_of_the_generator(make_games):
    made = WORLD.make(jax.random.split(jax.random.key(7), len(make_games("seen").task))[0], "seen")
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[0]), made, make_games("seen"))


def test_worlds_are_equal_by_their_settings():
    assert HouseholdWorld() == WORLD and hash(HouseholdWorld()) == hash(WORLD)
    small = RoomSpec(receptacles=6, min_receptacles=5, objects=5, min_objects=4)
    assert HouseholdWorld(spec=small) != WORLD
    assert WORLD.vocabulary == len(WORLD.language) == 259
    assert WORLD.language[WORLD.prompt] == "\n>"
