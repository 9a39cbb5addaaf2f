"""The compiled functions as functions: batches, one trace, capacities, single rules by hand."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.worlds.household import commands, engine, generator
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.sentences import Sentence, write_sentence
from reskill_jax.worlds.household.types import Command

SIZE, STEPS, WIDTH = 16, 24, 64
SPEC = generator.RoomSpec(share_place=0.5)


def random_command(key, game, state):
    """A random admissible command, or none one time in ten."""
    keys = jax.random.split(key, 4)
    admissible = commands.admissible(game, state)
    verb = jax.random.categorical(keys[0], jnp.where(admissible.verbs, 0.0, -jnp.inf))
    first = jax.random.categorical(keys[1], jnp.where(admissible.first[verb], 0.0, -jnp.inf))
    second = commands.second_arguments(game, state, verb, first)
    drawn = jax.random.categorical(keys[2], jnp.where(second, 0.0, -jnp.inf))
    command = Command(
        verb,
        jnp.where(verb <= sy.HELP, -1, first),
        jnp.where(jnp.any(second), drawn, -1),
    )
    known = jax.random.bernoulli(keys[3], 0.9)
    return jax.tree.map(lambda x: jnp.where(known, x, -1).astype(jnp.int32), command)


@pytest.fixture(scope="module")
def played():
    """Games, and per step the command, its admissibility, state before and after, and answer."""
    keys = jax.random.split(jax.random.key(3), SIZE)

    def play(key):
        game = generator.generate(key, spec=SPEC)

        def step(state, key):
            command = random_command(key, game, state)
            understood = commands.is_admissible(game, state, command)
            after, seen, length = engine.step(game, state, command, max_symbols=WIDTH)
            won = engine.won(game, after)
            return after, (command, understood, state, after, seen, length, won)

        return game, jax.lax.scan(step, game.start, jax.random.split(key, STEPS))[1]

    return jax.jit(jax.vmap(play))(keys)


def test_a_batch_is_its_members(played):
    games, (command, _, before, after, seen, length, won) = played
    step = jax.jit(functools.partial(engine.step, max_symbols=WIDTH))
    for i, t in ((0, 0), (3, 11), (15, 23)):
        game = jax.tree.map(lambda x, i=i: x[i], games)

        def pick(tree, i=i, t=t):
            return jax.tree.map(lambda x: x[i, t], tree)

        alone = step(game, pick(before), pick(command))
        chex.assert_trees_all_equal(alone, (pick(after), pick(seen), pick(length)))
        assert engine.won(game, pick(after)) == won[i, t]


def test_every_drawn_command_was_understood(played):
    _, (command, understood, before, after, seen, _, _) = played
    np.testing.assert_array_equal(understood, np.asarray(command.verb) >= 0)
    nothing = np.asarray(seen)[..., 0] == sy.symbol("\nNothing happens.")
    np.testing.assert_array_equal(nothing, ~np.asarray(understood))
    idle = ~np.asarray(understood)
    assert idle.any()
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(np.asarray(old)[idle], np.asarray(new)[idle])


def test_what_never_changes(played):
    """Nobody is in two minds: a held object is gone from where it was; treatments last."""
    games, (command, understood, before, after, _, _, _) = played
    before, after = jax.tree.map(np.asarray, (before, after))
    verb = np.where(understood, command.verb, -1)
    assert set(np.unique(verb)) >= {sy.GO_TO, sy.OPEN, sy.TAKE, sy.MOVE, sy.EXAMINE}
    moved = (before.inside != after.inside).sum(axis=(2, 3))
    assert np.all(moved[(verb != sy.TAKE) & (verb != sy.MOVE)] == 0)
    assert np.all(moved[verb == sy.TAKE] == 1)
    assert np.all(moved <= 1)
    assert np.all(after.clean >= before.clean)
    assert np.all(after.toggled >= before.toggled)
    assert not np.any(after.hot & after.cool & ~(before.hot & before.cool))
    np.testing.assert_array_equal((after.held >= 0) & (before.held < 0), verb == sy.TAKE)
    np.testing.assert_array_equal(after.place != before.place, verb == sy.GO_TO)


def test_one_program_for_any_game_and_command(played):
    games, (command, _, before, _, _, _, _) = played

    def play(game, state, command):
        return engine.step(game, state, command, max_symbols=WIDTH)

    step = jax.jit(chex.assert_max_traces(play, n=1))
    for i in range(4):
        game, state, act = (
            jax.tree.map(lambda x, i=i: x[i], games),
            jax.tree.map(lambda x, i=i: x[i, 5], before),
            jax.tree.map(lambda x, i=i: x[i, 5], command),
        )
        step(game, state, act)
    text = str(jax.make_jaxpr(play)(game, state, act))
    assert "callback" not in text


def test_answers_fit_and_are_packed(played):
    games, (_, _, _, _, seen, length, _) = played
    capacity = engine.observation_capacity(SPEC.receptacles, SPEC.objects)
    assert capacity >= 8 + 3 * SPEC.objects
    assert engine.observation_capacity(54, 72, shared=1) == 2 + 3 * 74
    seen, length = np.asarray(seen), np.asarray(length)
    filled = np.arange(WIDTH) < length[..., None]
    np.testing.assert_array_equal(seen != sy.PAD, filled)


def test_too_small_a_width_cuts_the_end(played):
    games, (command, _, before, _, seen, length, _) = played
    i, t = np.unravel_index(np.argmax(length), length.shape)

    def pick(tree):
        return jax.tree.map(lambda x: x[i, t], tree)

    game = jax.tree.map(lambda x: x[i], games)
    _, cut, cut_length = engine.step(game, pick(before), pick(command), max_symbols=9)
    assert int(length[i, t]) > 9
    assert int(cut_length) == 9  # this call is not jitted: the same without a compiler
    np.testing.assert_array_equal(cut, seen[i, t, :9])


def test_intro_ends_with_the_goal(played):
    games, _ = played
    width = engine.intro_capacity(SPEC.receptacles, games.task.shape[1])
    intro, length = jax.jit(jax.vmap(functools.partial(engine.intro, max_symbols=width)))(games)
    for i in range(SIZE):
        text = sy.text(np.asarray(intro[i]))
        assert text.startswith("-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of")
        assert text.endswith(f".\n\nYour task is to: {sy.text(np.asarray(games.task[i]))}.")
        assert int(length[i]) == np.count_nonzero(intro[i])


def test_how_a_held_object_looks(played):
    """The sixteen looks, from the list of sentences in the order the grammar tries them."""
    expected = {
        "": "There's nothing special about",
        "clean": "This is a clean",
        "hot": "This is a hot",
        "cool": "This is a cold",
        "sliced": "This is a sliced",
        "clean hot": "This is a hot and clean",
        "clean cool": "This is a cool and clean",
        "clean sliced": "This is a clean sliced",
        "hot sliced": "This is a hot sliced",
        "cool sliced": "This is a cool sliced",
        "clean hot sliced": "This is a hot and clean sliced",
        "clean cool sliced": "This is a cool and clean sliced",
    }
    game = jax.tree.map(lambda x: np.array(x[0]), played[0])
    held = int(np.flatnonzero((game.object_stem > 0) & ~game.container)[0])
    name = sy.text([game.object_stem[held], game.object_number[held]])
    examine = Command(
        jnp.int32(sy.EXAMINE), jnp.int32(game.recep_stem.shape[0] + held), jnp.int32(-1)
    )
    look = jax.jit(functools.partial(engine.step, max_symbols=WIDTH))
    for words, sentence in expected.items():
        one = np.arange(game.object_stem.shape[0]) == held
        flags = {k: one & (k in words.split()) for k in ("clean", "hot", "cool", "sliced")}
        state = game.start._replace(held=np.int32(held), **flags)
        assert sy.text(np.asarray(look(game, state, examine)[1])) == f"{sentence} {name}."
    container = game._replace(container=np.ones_like(game.container))
    seen = sy.text(np.asarray(look(container, state, examine)[1]))
    assert seen == f"This is a normal {name}. In it, you see nothing."


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_lists(played, count):
    """nothing; a; a, and b; a, b, and c - and the full stop that ends each."""
    game = jax.tree.map(lambda x: np.array(x[1]), played[0])
    counts = jnp.zeros(game.object_stem.shape[0], jnp.int32).at[:count].set(1)
    stop = sy.symbol(".")
    sentence = Sentence(
        opening=sy.symbol(", you see a") if count else sy.symbol(", you see nothing"),
        head=jnp.zeros(2, jnp.int32),
        follows=jnp.zeros(2, jnp.int32),
        num_head=jnp.int32(0),
        counts=counts,
        has_list=jnp.array(True),
    )
    symbols, length = write_sentence(game, sentence, max_symbols=30)
    words = [
        sy.text(pair) for pair in zip(game.object_stem[:count], game.object_number, strict=False)
    ]
    listing = {
        0: ", you see nothing",
        1: ", you see a {}",
        2: ", you see a {}, and a {}",
        5: ", you see a {}, a {}, a {}, a {}, and a {}",
    }[count].format(*words)
    assert sy.text(np.asarray(symbols)) == listing + "."
    assert int(length) == max(2, 1 + 3 * count)
    assert int(symbols[int(length) - 1]) == stop
