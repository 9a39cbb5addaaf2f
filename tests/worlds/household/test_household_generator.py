"""Generated games: solvable, named by the engine's rules, the same for the same key."""

import dataclasses

import jax
import numpy as np
import pytest

from reskill_jax.worlds.household import pddl, tables
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.commands import command_text
from reskill_jax.worlds.household.families import SPLITS, is_held_out
from reskill_jax.worlds.household.generator import LARGE, SMALL, RoomSpec, generate
from reskill_jax.worlds.household.text_game import TextGame
from reskill_jax.worlds.household.types import MAX_SHARED
from reskill_jax.worlds.settings import FLAWLESS


def one(games, i):
    return jax.tree.map(lambda x: x[i], games)


def room_of(game):
    """What tells one room from another: its things, and what lies where."""
    return tuple(
        np.asarray(x).tobytes() for x in (game.recep_stem, game.object_stem, game.start.inside)
    )


def parsed(game):
    return pddl.ParsedGame(jax.tree.map(np.asarray, game), (), sy.text(game.task))


@pytest.mark.parametrize("split", SPLITS)
def test_every_game_can_be_won_and_none_is_at_the_start(play, split):
    played = play(FLAWLESS, split)
    assert played.active[:, 0].all()  # not won before the first command
    assert played.won.mean() >= 0.99


@pytest.mark.parametrize("split", SPLITS)
def test_every_room_and_task_type_occurs(make_games, split):
    games = make_games(split)
    assert set(games.task_type) == set(range(6))
    devices = [games.microwave.any(1), (games.recep_type == index("ToiletPaperHanger")).any(1)]
    devices += [
        (games.recep_type == index("Bed")).any(1),
        (games.recep_type == index("Sofa")).any(1),
    ]
    for has in devices:  # of a kitchen, a bathroom, a bedroom, a living room
        assert has.any()


def index(name):
    return tables.RECEPTACLE_TYPES.index(name)


def test_names_and_order(make_games):
    games = make_games("train")
    for kind, types in (("recep", tables.RECEPTACLE_TYPES), ("object", tables.OBJECT_TYPES)):
        kinds, numbers = getattr(games, f"{kind}_type"), getattr(games, f"{kind}_number")
        stems = getattr(games, f"{kind}_stem")
        for row, number, stem in zip(kinds, numbers, stems, strict=True):
            count = int((row >= 0).sum())
            assert (row[count:] == -1).all() and not stem[count:].any() and not number[count:].any()
            names = [types[t].lower() for t in row[:count]]
            assert names == sorted(names)
            assert [sy.SYMBOLS[s] for s in stem[:count]] == [" " + name for name in names]
            expected = [names[i:].count(name) for i, name in enumerate(names)]  # n, ..., 2, 1
            assert [sy.SYMBOLS[n] for n in number[:count]] == [f" {n}" for n in expected]


def test_sizes_and_contents(make_games):
    games = make_games("train")
    receptacles, objects = (games.recep_stem > 0).sum(1), (games.object_stem > 0).sum(1)
    assert receptacles.min() >= SMALL.min_receptacles and receptacles.max() == SMALL.receptacles
    assert objects.min() >= SMALL.min_objects and objects.max() == SMALL.objects
    inside = games.start.inside
    present = games.object_stem > 0
    np.testing.assert_array_equal(inside.sum(2), present)  # each in exactly one receptacle
    assert not (inside & (games.recep_stem == 0)[:, None, :]).any()
    lamp = games.object_type == tables.OBJECT_TYPES.index("DeskLamp")
    assert not (inside & ~games.can_hold & ~lamp[:, :, None]).any()
    assert not (inside & games.goal_object[:, :, None] & games.goal_recep[:, None, :]).any()
    two = games.task_type == tables.TASK_TYPES.index("pick_two_obj_and_place")
    assert (games.goal_object.sum(1) >= 1 + two).all()
    light = games.task_type == tables.TASK_TYPES.index("look_at_obj_in_light")
    np.testing.assert_array_equal(games.goal_recep.any(1), ~light)
    np.testing.assert_array_equal(games.goal_lamp.any(1), light)


def test_shared_places_are_those_of_neighbours_of_one_type(make_games):
    games = make_games("train")
    place, number = games.recep_place, np.arange(SMALL.receptacles)
    shares = (place != number) & (games.recep_stem > 0)
    assert 0.005 < shares.mean() < 0.1
    rows, columns = np.nonzero(shares)
    same = games.recep_type[rows, place[rows, columns]] == games.recep_type[rows, columns]
    assert same.all()
    at = np.zeros_like(games.start.at)
    for n, o, r in np.argwhere(games.start.inside):
        at[n, o, place[n, r]] = True
    np.testing.assert_array_equal(games.start.at, at)


def test_splits_share_no_pair_with_unseen_and_no_room_with_each_other(make_games):
    pairs, rooms = {}, {}
    for split in SPLITS:
        games = make_games(split)
        pairs[split] = {
            (one(games, i).task[games.task[i] > 0].tobytes()) for i in range(len(games.task))
        }
        rooms[split] = {room_of(one(games, i)) for i in range(len(games.task))}
        assert len(rooms[split]) == len(games.task)
    assert not pairs["unseen"] & (pairs["train"] | pairs["seen"])
    assert pairs["train"] & pairs["seen"]
    assert not rooms["train"] & rooms["seen"]


@pytest.mark.parametrize("split", SPLITS)
def test_pairs_of_games_belong_to_their_split(make_games, split):
    games = make_games(split)
    for i in range(len(games.task)):
        goal = tables.OBJECT_TYPES[games.object_type[i][games.goal_object[i]][0]]
        target = "DeskLamp"
        if games.goal_recep[i].any():
            target = tables.RECEPTACLE_TYPES[games.recep_type[i][games.goal_recep[i]][0]]
        assert is_held_out(goal, target) == (split == "unseen")


@pytest.mark.slow
def test_same_key_same_game_alone_without_jit_and_in_a_batch(make_games):
    keys = jax.random.split(jax.random.key(7), len(make_games("train").task))
    for split in ("train", "unseen"):  # the games made were asked for by the index of the split
        alone = generate(keys[3], split=split)
        jax.tree.map(np.testing.assert_array_equal, alone, one(make_games(split), 3))
    assert room_of(one(make_games("train"), 3)) != room_of(one(make_games("train"), 4))


def same_play(game, *, bucket, moves, seed):
    """Plays the game and its problem file side by side, any admissible command."""
    mine = TextGame(pddl.pad(parsed(game), receptacles=bucket[0], objects=bucket[1]))
    copy = TextGame.from_pddl(pddl.write(game), task=mine.task)
    assert copy.intro == mine.intro
    random = np.random.default_rng(seed)
    for _ in range(moves):
        listed = mine.admissible()
        assert copy.admissible() == listed
        command = str(random.choice([c for c in listed if c not in ("help", "look")]))
        assert copy.step(command) == mine.step(command)
    return mine


def test_problem_file_plays_the_same(make_games, play):
    games, played = make_games("train"), play(FLAWLESS)
    for i in (0, 1, 2):
        same_play(one(games, i), bucket=(16, 24), moves=8, seed=i)
    # The expert's commands win the written game in the same turn.
    for i in range(3, 6):
        game = one(games, i)
        copy = TextGame.from_pddl(pddl.write(game), task=sy.text(game.task))
        turns = int(played.active[i].sum())
        for t in range(turns):
            assert not copy.won
            copy.step(command_text(game, one(one(played.commands, i), t)))
        assert copy.won == played.won[i]


@jax.jit
def make_large(keys):
    spec = dataclasses.replace(LARGE, share_place=1.0)
    return jax.vmap(lambda key: generate(key, spec=spec, split="seen"))(keys)


@pytest.mark.slow
def test_large_rooms_are_large_and_writable():
    games = jax.tree.map(np.asarray, make_large(jax.random.split(jax.random.key(3), 32)))
    kitchens = games.microwave.any(1)
    receptacles = (games.recep_stem > 0).sum(1)
    assert receptacles[kitchens].min() >= LARGE.min_receptacles
    assert (games.object_stem > 0).sum(1)[kitchens].min() >= LARGE.min_objects
    crowds = []
    for i in range(len(kitchens)):
        game = one(games, i)
        pddl.parse(pddl.write(game))  # names and order are the engine's
        crowds.append(np.bincount(game.recep_place[game.recep_stem > 0]).max())
    assert max(crowds) == MAX_SHARED  # however many neighbours share
    same_play(one(games, int(np.argmax(kitchens))), bucket=(56, 80), moves=6, seed=0)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"min_receptacles": 3}, "min_receptacles"),
        ({"receptacles": 6}, "min_receptacles"),
        ({"min_objects": 2}, "min_objects"),
        ({"objects": 5}, "min_objects"),
        ({"share_place": 1.5}, "share_place"),
    ],
)
def test_impossible_sizes(sizes, complaint):
    with pytest.raises(ValueError, match=complaint):
        RoomSpec(**sizes)


def test_unknown_split():
    with pytest.raises(ValueError, match="split must be one of train, seen, unseen, got 'test'"):
        generate(jax.random.key(0), split="test")
