"""The interface of a compiled world: spelling a command and playing it is the engine's step."""

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.worlds.household import commands, engine
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.generator import RoomSpec
from reskill_jax.worlds.household.types import Command
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.settings import BEGINNER
from reskill_jax.worlds.world import Step

WORLD = HouseholdWorld()


@jax.jit
@jax.vmap
def _spelled(game, state, command):
    spelled, _ = commands.command_symbols(game, command)
    cursor, legal, choices = WORLD.begin(game, state), jnp.bool_(True), jnp.int32(0)
    for i in range(WORLD.action_length):
        mask = WORLD.allowed(game, cursor)
        legal &= cursor.done | mask[spelled[i]]
        choices += ~cursor.done & (mask.sum() > 1)
        cursor = WORLD.advance(game, state, cursor, spelled[i])
    by_world = (*WORLD.step(game, state, cursor), WORLD.action(game, cursor))
    moved, seen, length = engine.step(game, state, command, max_symbols=WORLD.observation_length)
    seen = jnp.where(jnp.arange(seen.shape[0]) < length, seen, sy.PAD)
    won = engine.won(game, moved)
    by_engine = moved, Step(seen, won.astype(jnp.float32), won, won), spelled
    return legal, cursor.done, choices, by_world, by_engine


def test_a_spelled_command_is_the_engines_step(make_games, play):
    played = play(BEGINNER)
    for turn in (0, 3, 8):
        states, chosen = jax.tree.map(lambda x, t=turn: x[:, t], (played.states, played.commands))
        legal, done, choices, by_world, by_engine = _spelled(make_games("train"), states, chosen)
        assert legal.all() and done.all()
        assert choices.max() <= WORLD.decisions_per_turn
        jax.tree.map(np.testing.assert_array_equal, by_world, by_engine)


def test_introduction_fits_and_names_everything(make_games):
    state, intros = jax.jit(jax.vmap(WORLD.reset))(make_games("train"))
    lengths = (np.asarray(intros) != sy.PAD).sum(axis=1)
    jax.tree.map(np.testing.assert_array_equal, state, make_games("train").start)
    assert intros.shape[1] == WORLD.introduction_length >= lengths.max()
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
    assert len(WORLD.language) == 259 and WORLD.prompt in WORLD.language


def test_no_answer_is_cut():
    """Many things in few places give the longest answers to arriving there and to looking."""
    spec = RoomSpec(receptacles=4, min_receptacles=4, objects=40, min_objects=40, share_place=0.9)
    world = HouseholdWorld(spec=spec)

    @jax.jit
    @jax.vmap
    def lengths(key):
        game = world.make(key, "train")
        elsewhere = game.start._replace(place=jnp.int32(-1), opened=jnp.full_like(game.openable, 1))

        def answers(index, width):
            go = Command(jnp.int32(sy.GO_TO), index, jnp.int32(-1))
            look = Command(jnp.int32(sy.LOOK), jnp.int32(-1), jnp.int32(-1))
            there, _, arriving = engine.step(game, elsewhere, go, max_symbols=width)
            return arriving, engine.step(game, there, look, max_symbols=width)[2]

        places = jnp.arange(spec.receptacles, dtype=jnp.int32)
        at = jax.vmap(answers, in_axes=(0, None))
        return at(places, world.observation_length), at(places, 1000)

    fitting, whole = lengths(jax.random.split(jax.random.key(2), 64))
    jax.tree.map(np.testing.assert_array_equal, fitting, whole)
    assert 48 < whole[0].max() <= world.observation_length


def test_rooms_without_shared_places_need_less():
    apart = HouseholdWorld(spec=RoomSpec(share_place=0.0))
    assert apart.observation_length < WORLD.observation_length
