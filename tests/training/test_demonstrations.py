"""Demonstrations are real play, written down as the policy would have written it."""

import re

import jax
import numpy as np
import pytest

from reskill_jax.training.demonstrations import demonstrate
from reskill_jax.worlds.household import pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.generator import generate
from reskill_jax.worlds.household.text_game import TextGame
from reskill_jax.worlds.household.world import HouseholdWorld

pytestmark = pytest.mark.slow  # the program takes half a minute to compile

EPISODES, TURNS = 32, 8
WORLD = HouseholdWorld()
CAPACITY = 150  # about half of the episodes are longer
KEYS = jax.random.split(jax.random.key(11), EPISODES)


@jax.jit
@jax.vmap
def _episodes(key):
    return demonstrate(key, world=WORLD, max_turns=TURNS, context_length=CAPACITY)


@pytest.fixture(scope="module")
def played():
    return jax.tree.map(np.asarray, _episodes(KEYS))


def test_every_command_is_admissible(played):
    assert played.admissible.all()
    cut = played.transcript.length > CAPACITY
    assert 3 < cut.sum() < EPISODES - 3
    room = played.transcript.length < CAPACITY
    assert (played.turns[~played.won & room] == TURNS).all()


def test_decisions_are_of_the_tokens(played):
    transcript = played.transcript
    for i in range(EPISODES):
        count = int(transcript.count[i])
        assert count > 0
        position, support = transcript.position[i, :count], transcript.support[i, :count]
        choice = transcript.tokens[i][position + 1]
        assert (np.diff(position) > 0).all()
        assert (support == choice[:, None]).any(1).all()
        assert ((support >= 0).sum(1) > 1).all()
        assert (np.diff(transcript.turn[i, :count]) >= 0).all()
        assert not transcript.position[i, count:].any()


def test_all_but_random_commands_are_learned_from(played):
    row = played.transcript
    used = np.arange(row.weight.shape[1]) < row.count[:, None]
    assert set(np.unique(row.weight)) == {0.0, 1.0, 3.0}  # random, by habit, obeying a directive
    assert 0.01 < np.mean(row.weight[used] == 0) < 0.15
    assert 0.1 < np.mean(row.weight[used] == 3) < 0.9
    # Every turn begins with a choice of verb, right behind the prompt, if there is room for it.
    behind = np.take_along_axis(row.tokens, row.position, axis=1)
    begun = ((behind == sy.PROMPT) & used).sum(1)
    np.testing.assert_array_equal(begun, (row.tokens[:, :-1] == sy.PROMPT).sum(1))
    whole = row.length <= CAPACITY
    np.testing.assert_array_equal(begun[whole], played.turns[whole])


def test_text_is_what_the_game_says_up_to_the_end_of_the_row(played):
    spoken = 0
    cut = played.transcript.length > CAPACITY
    for i in [*np.flatnonzero(cut)[:4], *np.flatnonzero(~cut)[:4]]:
        text = sy.text(played.transcript.tokens[i, : played.transcript.length[i]])
        spoken += text.count("\nSkill:")
        said, *turns = re.sub(r"\nSkill:[^\n]*", "", text).split("\n>")
        game = jax.tree.map(np.asarray, _game(KEYS[i]))
        parsed = pddl.ParsedGame(game, (), sy.text(game.task))
        replay = TextGame(pddl.pad(parsed, receptacles=16, objects=24))
        assert said == replay.intro
        assert cut[i] or len(turns) == played.turns[i]
        won = False
        for turn in turns[: -1 if cut[i] else None]:
            command, observation = turn.split("\n", 1)
            assert not won
            answer, won = replay.step(command)
            assert observation == answer
        if cut[i]:
            command, whole, begun = turns[-1].partition("\n")
            assert not whole or replay.step(command)[0].startswith(begun)
        else:
            assert won == played.won[i]
    assert spoken > 3


@jax.jit
def _game(key):
    return generate(jax.random.split(key, 3)[0])


def test_players_are_told_something_by_rates(played):
    skills = (played.transcript.tokens == sy.SKILL).sum(1)
    assert (skills == 0).any()  # some are never spoken to
    assert (skills >= played.turns).any()  # some at every turn


def test_same_key_same_episode(played):
    again = _episodes(KEYS[::-1])
    np.testing.assert_array_equal(again.transcript.tokens[::-1], played.transcript.tokens)
