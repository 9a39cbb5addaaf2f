"""The scripted player: always admissible, flawless without habits, slips as often as stated."""

import jax
import numpy as np
import pytest

from reskill_jax.worlds.household import commands
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.expert import expert, matching_command
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.settings import BEGINNER, FLAWLESS

TREATED = [i for i, t in enumerate(TASK_TYPES) if "_then_" in t]


def share(events, among):
    return events[among].mean()


@pytest.mark.parametrize("habits", [FLAWLESS, BEGINNER], ids=["flawless", "beginner"])
def test_every_command_is_admissible(play, habits):
    played = play(habits)
    assert played.admissible[played.active].all()
    assert (played.lengths[played.active] <= 48).all()


def test_slips_cost_games(play):
    assert 0.05 < play(BEGINNER).won.mean() < 0.9 < play(FLAWLESS).won.mean()


def test_expert_is_the_player_without_slips(make_games, play):
    played = play(FLAWLESS)
    states = jax.tree.map(lambda x: x[:, 3], played.states)
    best = jax.jit(jax.vmap(expert))(make_games("train"), states)
    for a, b in zip(best, played.commands, strict=True):
        np.testing.assert_array_equal(a, b[:, 3])


def test_idles_as_often_as_stated(play):
    played = play(FLAWLESS._replace(idle=0.3))
    idle = np.isin(played.commands.verb, [sy.LOOK, sy.INVENTORY, sy.EXAMINE])
    assert share(idle, played.active) == pytest.approx(0.3, abs=0.03)
    flawless = play(FLAWLESS)
    assert not np.isin(flawless.commands.verb, [sy.LOOK, sy.INVENTORY, sy.EXAMINE])[
        flawless.active
    ].any()


def test_takes_something_else_as_often_as_stated(make_games, play):
    games = make_games("train")
    receptacles = games.recep_stem.shape[1]
    takes = {}
    for chance in (0.0, 0.5):
        played = play(FLAWLESS._replace(distracted=chance))
        took = played.active & (played.commands.verb == sy.TAKE)
        rows, turns = np.nonzero(took)
        goal = games.goal_object[rows, played.commands.first[rows, turns] - receptacles]
        takes[chance] = 1 - goal.mean()
    assert takes[0.0] == 0
    assert 0.15 < takes[0.5] <= 0.55  # at most as often: there must be something else


def test_passes_closed_places_by(play):
    searching = {}
    for chance in (0.0, 1.0):
        played = play(FLAWLESS._replace(pass_by=chance))
        empty = played.active & (played.states.held < 0)
        searching[chance] = (played.commands.verb == sy.OPEN)[empty]
    assert searching[0.0].any() and not searching[1.0].any()


def test_forgets_the_treatment(make_games, play):
    treated = np.isin(make_games("train").task_type, TREATED)
    forgetful = play(FLAWLESS._replace(forget=1.0, content=1.0))
    assert forgetful.won[~treated].mean() > 0.95
    assert forgetful.won[treated].mean() < 0.6


def test_closes_and_undoes(play):
    closing, undoing = play(FLAWLESS._replace(close=1.0)), play(FLAWLESS._replace(undo=1.0))
    assert (closing.commands.verb == sy.CLOSE)[closing.active].any()
    flawless = play(FLAWLESS)
    assert not (flawless.commands.verb == sy.CLOSE)[flawless.active].any()
    assert undoing.won.mean() < flawless.won.mean()


def test_matching_command_names_what_was_asked(make_games, play):
    games = make_games("train")
    states = jax.tree.map(lambda x: x[:, 4], play(BEGINNER).states)

    @jax.jit
    @jax.vmap
    def match(game, state):
        best = expert(game, state)
        masks = commands.admissible(game, state)
        first = game.recep_stem[0]
        return matching_command(game, state, masks, sy.GO_TO, first, best), first

    (command, found), first = match(games, states)
    chosen = games.recep_stem[np.arange(len(first)), np.maximum(command.first, 0)]
    assert found.any()
    assert (command.verb[found] == sy.GO_TO).all()
    assert (chosen[found] == first[found]).all()
    here = games.recep_place == states.place[:, None]
    elsewhere = ((games.recep_stem == first[:, None]) & ~here).any(1)
    np.testing.assert_array_equal(found, elsewhere)
