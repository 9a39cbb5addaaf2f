"""Commands: spelling under a mask reaches exactly the admissible ones."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.worlds.household import commands, engine, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.types import Command

PROBLEM = """
(define (problem p) (:domain alfred)
(:objects agent1 - agent
  Cabinet_bar_1 Cabinet_bar_2 Desk_bar_1 Microwave_bar_1 Fridge_bar_1 Sink_bar_1_bar_SinkBasin
    - receptacle
  Apple_bar_1 Apple_bar_2 Knife_bar_1 Mug_bar_1 DeskLamp_bar_1 - object
  l0 l1 l2 l3 - location)
(:init
 (receptacleType Cabinet_bar_1 CabinetType) (receptacleAtLocation Cabinet_bar_1 l1)
 (openable Cabinet_bar_1)
 (receptacleType Cabinet_bar_2 CabinetType) (receptacleAtLocation Cabinet_bar_2 l1)
 (openable Cabinet_bar_2) (opened Cabinet_bar_2)
 (receptacleType Desk_bar_1 DeskType) (receptacleAtLocation Desk_bar_1 l1)
 (receptacleType Microwave_bar_1 MicrowaveType) (receptacleAtLocation Microwave_bar_1 l2)
 (openable Microwave_bar_1)
 (receptacleType Fridge_bar_1 FridgeType) (receptacleAtLocation Fridge_bar_1 l2)
 (receptacleType Sink_bar_1_bar_SinkBasin SinkBasinType)
 (receptacleAtLocation Sink_bar_1_bar_SinkBasin l3)
 (objectType Apple_bar_1 AppleType) (inReceptacle Apple_bar_1 Desk_bar_1)
 (inReceptacle Apple_bar_1 Cabinet_bar_2) (objectAtLocation Apple_bar_1 l1)
 (pickupable Apple_bar_1) (sliceable Apple_bar_1) (heatable Apple_bar_1) (coolable Apple_bar_1)
 (cleanable Apple_bar_1)
 (objectType Apple_bar_2 AppleType) (inReceptacle Apple_bar_2 Desk_bar_1)
 (objectAtLocation Apple_bar_2 l1) (pickupable Apple_bar_2) (sliceable Apple_bar_2)
 (objectType Knife_bar_1 KnifeType) (inReceptacle Knife_bar_1 Desk_bar_1)
 (objectAtLocation Knife_bar_1 l1) (pickupable Knife_bar_1) (cleanable Knife_bar_1)
 (objectType Mug_bar_1 MugType) (inReceptacle Mug_bar_1 Fridge_bar_1)
 (objectAtLocation Mug_bar_1 l2) (pickupable Mug_bar_1) (isReceptacleObject Mug_bar_1)
 (objectType DeskLamp_bar_1 DeskLampType) (inReceptacle DeskLamp_bar_1 Desk_bar_1)
 (objectAtLocation DeskLamp_bar_1 l1) (toggleable DeskLamp_bar_1)
 (canContain DeskType AppleType) (canContain DeskType KnifeType) (canContain DeskType MugType)
 (canContain CabinetType MugType) (canContain CabinetType AppleType)
 (canContain FridgeType AppleType) (canContain MicrowaveType AppleType)
 (canContain SinkBasinType AppleType)
 (atLocation agent1 l0))
(:goal (and (exists (?r - receptacle) (exists (?o - object)
  (and (heatable ?o) (objectType ?o AppleType) (receptacleType ?r DeskType) (isHot ?o)
       (inReceptacle ?o ?r)))))))
"""
# Leads through states with many kinds of commands.
SCRIPT = (
    "go to desk 1",
    "take apple 2 from desk 1",
    "move apple 2 to cabinet 1",
    "take knife 1 from desk 1",
    "slice apple 1 with knife 1",
    "move knife 1 to desk 1",
    "take apple 2 from cabinet 1",
    "go to microwave 1",
    "heat apple 2 with microwave 1",
    "open microwave 1",
    "go to sinkbasin 1",
)
allowed = jax.jit(commands.allowed)
advance = jax.jit(commands.advance)
step = jax.jit(functools.partial(engine.step, max_symbols=80))


@pytest.fixture(scope="module")
def game():
    return jax.tree.map(jnp.asarray, pddl.parse(PROBLEM).game)


@pytest.fixture(scope="module")
def states(game):
    found = [game.start]
    for text in SCRIPT:
        command = commands.parse(game, text)
        assert commands.is_admissible(game, found[-1], command), text
        found.append(step(game, found[-1], Command(*map(jnp.int32, command)))[0])
    return found


def test_all_spellings_are_the_admissible_commands(game, states):
    for state in states:
        reached = {}
        open_ends = [(jax.jit(commands.begin)(game, state), ())]
        while open_ends:
            cursor, spelled = open_ends.pop()
            for symbol in np.flatnonzero(allowed(game, cursor)):
                moved = advance(game, state, cursor, jnp.int32(symbol))
                path = (*spelled, int(symbol))
                if not moved.done:
                    assert len(path) < commands.COMMAND_LENGTH
                    open_ends.append((moved, path))
                    continue
                command = commands.to_command(moved)
                text = commands.command_text(game, command)
                left, count = commands.rest(game, moved, jnp.int32(len(path)))
                assert sy.text((*path, *np.asarray(left))) == text
                assert int(count) == np.count_nonzero(left)
                assert commands.is_admissible(game, state, command)
                assert text not in reached, "two spellings of one command"
                reached[text] = path
        assert sorted(reached) == commands.enumerate_commands(game, state)


def test_stops_as_soon_as_the_command_is_unique(game, states):
    def spell(state, *texts):
        cursor = commands.begin(game, state)
        for text in texts:
            assert not cursor.done
            symbol = sy.symbol(text)
            assert allowed(game, cursor)[symbol]
            cursor = advance(game, state, cursor, jnp.int32(symbol))
        return cursor

    start, at_desk, holding_apple = states[0], states[1], states[2]
    assert spell(start, " look").done
    assert not spell(start, " go to").done
    assert spell(start, " go to", " fridge").done  # the only fridge
    assert not spell(start, " go to", " cabinet").done
    assert spell(start, " go to", " cabinet", " 2").done
    assert spell(at_desk, " open").done  # one closed door here
    assert spell(at_desk, " use").done
    assert spell(at_desk, " take", " knife").done
    two_places = spell(at_desk, " take", " apple", " 2")  # on the desk and in a cabinet
    assert not two_places.done
    assert np.flatnonzero(allowed(game, two_places)).tolist() == [sy.symbol(" from")]
    assert spell(at_desk, " take", " apple", " 2", " from", " desk").done
    move = spell(holding_apple, " move")  # one thing in hand, two open places
    assert not move.done
    assert spell(holding_apple, " move", " apple", " 2", " to", " desk").done


def test_a_symbol_that_does_not_fit_ends_as_no_command(game):
    cursor = commands.begin(game, game.start)
    for bad in (sy.symbol(" desk"), sy.symbol(" take"), sy.PROMPT):
        moved = advance(game, game.start, cursor, jnp.int32(bad))
        assert moved.done
        assert int(commands.to_command(moved).verb) == -1
        assert np.flatnonzero(allowed(game, moved)).tolist() == [sy.PAD]
        assert int(commands.rest(game, moved, jnp.int32(1))[1]) == 0
    going = advance(game, game.start, cursor, jnp.int32(sy.symbol(" go to")))
    lost = advance(game, game.start, going, jnp.int32(sy.symbol(" apple")))
    assert lost.done
    again = advance(game, game.start, lost, jnp.int32(sy.symbol(" desk")))
    chex.assert_trees_all_equal(again, lost)


def test_random_spelling_in_a_batch_is_always_admissible(game, states):
    batch = jax.tree.map(lambda *x: jnp.stack(x), *(states * 20))
    size = len(states) * 20

    @jax.jit
    def spell(key):
        def one(key, state):
            def body(i, cursor):
                mask = commands.allowed(game, cursor)
                logits = jnp.where(mask, 0.0, -jnp.inf)
                symbol = jax.random.categorical(jax.random.fold_in(key, i), logits)
                return commands.advance(game, state, cursor, symbol)

            cursor = jax.lax.fori_loop(0, 6, body, commands.begin(game, state))
            command = commands.to_command(cursor)
            return cursor.done, commands.is_admissible(game, state, command), command.verb

        return jax.vmap(one)(jax.random.split(key, size), batch)

    done, understood, verb = spell(jax.random.key(0))
    assert np.all(done)
    assert np.all(understood)
    assert len(np.unique(verb)) >= 9


def test_parse_is_exact(game):
    def verb(text):
        return commands.parse(game, text).verb

    assert commands.parse(game, "  look ") == (sy.LOOK, -1, -1)
    assert commands.parse(game, "go to cabinet 2") == (sy.GO_TO, 0, -1)  # numbers fall
    assert commands.parse(game, "take apple 1 from desk 1") == (sy.TAKE, 7, 2)
    wrong = (
        "",
        "Look",
        "look around",
        "go  to desk 1",
        "go to desk",
        "go to desk 01",
        "go to desk 1 now",
        "go to desk 9",
        "take apple 1",
        "take apple 1 to desk 1",
        "take apple 1 from  desk 1",
        "take apple 1 from desk 1 now",
        "put apple 1 in desk 1",
        "open",
        "look desk 1",
    )
    assert [text for text in wrong if verb(text) != -1] == []


def test_every_command_reads_back(game, states):
    for state in states:
        for text in commands.enumerate_commands(game, state):
            command = commands.parse(game, text)
            assert commands.command_text(game, command) == text
            written, length = commands.command_symbols(game, Command(*map(jnp.int32, command)))
            assert sy.text(np.asarray(written)) == text
            assert int(length) == np.count_nonzero(written)


@pytest.mark.parametrize(
    "command",
    [
        (-1, -1, -1),
        (99, 0, 0),
        (sy.LOOK, 0, -1),
        (sy.GO_TO, 2, 2),
        (sy.GO_TO, 8, -1),
        (sy.GO_TO, -1, -1),
        (sy.GO_TO, 10_000, -1),
        (sy.TAKE, 2, 8),
        (sy.USE, 2, -1),
        (sy.SLICE, 6, -1),
    ],
)
def test_nonsense_is_answered_and_changes_nothing(game, states, command):
    state = states[1]
    command = Command(*map(jnp.int32, command))
    after, seen, length = step(game, state, command)
    assert sy.text(np.asarray(seen)) == "Nothing happens."
    assert int(length) == 1
    chex.assert_trees_all_equal(after, state)


def test_masks_agree_with_each_other(game, states):
    entities = jnp.arange(game.can_hold.shape[0] + game.can_hold.shape[1], dtype=jnp.int32)

    @jax.jit
    def every(state):
        def understood(verb, first, second):
            return commands.is_admissible(game, state, Command(verb, first, second))

        verbs = jnp.arange(14, dtype=jnp.int32)
        padded = jnp.concatenate([jnp.array([-1], jnp.int32), entities])
        grid = jax.vmap(
            lambda v: jax.vmap(lambda a: jax.vmap(lambda b: understood(v, a, b))(padded))(padded)
        )(verbs)
        second = jax.vmap(
            lambda v: jax.vmap(lambda e: commands.second_arguments(game, state, v, e))(entities)
        )(verbs)
        return grid, second, commands.admissible(game, state)

    for state in states:
        grid, second, admissible = jax.tree.map(np.asarray, every(state))
        np.testing.assert_array_equal(grid[:, 1:, 1:], second)
        expected = grid[:, 1:, :].any(axis=2)
        expected[:3, 0] |= grid[:3, 0, 0]
        np.testing.assert_array_equal(admissible.first, expected)
        np.testing.assert_array_equal(admissible.verbs, expected.any(axis=1))
