import subprocess
import sys

import chex
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from reskill_jax.worlds.household import dataset
from reskill_jax.worlds.household.generator import SMALL
from reskill_jax.worlds.household.types import Game, State

RECEPTACLES, OBJECTS, TASK_WIDTH = 2, 3, 4


def made_up_games(split: str, seeds: np.ndarray) -> Game:
    """Arrays that tell split and seed apart; every field of every game differs in some place."""
    salt = {"train": 0, "seen": 1, "unseen": 2}[split]

    def one(seed):
        random = np.random.default_rng([int(seed), salt])

        def flags(*shape):
            return random.random(shape) < 0.5

        def numbers(*shape):
            return random.integers(-1, 250, shape, dtype=np.int32)

        shapes = {"recep": (RECEPTACLES,), "object": (OBJECTS,)}
        state = State(
            place=numbers(),
            held=numbers(),
            opened=flags(RECEPTACLES),
            inside=flags(OBJECTS, RECEPTACLES),
            gone=flags(OBJECTS, RECEPTACLES),
            at=flags(OBJECTS, RECEPTACLES + 1),
            **{name: flags(OBJECTS) for name in ("hot", "cool", "clean", "sliced", "toggled")},
        )
        fields = {}
        for name in Game._fields:
            if name.endswith(("_stem", "_number", "_type", "_place")) and name != "task_type":
                fields[name] = numbers(*shapes[name.split("_")[0]])
            elif name in ("openable", "sink", "microwave", "fridge", "goal_recep"):
                fields[name] = flags(RECEPTACLES)
            else:
                fields[name] = flags(OBJECTS)
        fields |= {
            "can_hold": flags(OBJECTS, RECEPTACLES),
            "inner": flags(OBJECTS, OBJECTS),
            "task_type": numbers(),
            "task": numbers(TASK_WIDTH),
            "start": state,
        }
        return Game(**fields)

    return jax.tree.map(lambda *x: np.stack(x), *[one(seed) for seed in seeds])


def config(**changes):
    values = dict(name="made-up", train=5, seen=3, unseen=2, seed=7, make_games=made_up_games)
    return dataset.GamesConfig(**(values | changes))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    dataset.write_dataset(folder, config=config())
    return folder


@pytest.mark.parametrize("split,count", [("train", 5), ("seen", 3), ("unseen", 2)])
def test_games_come_back_as_they_were_made(data_dir, split, count):
    games, seeds = dataset.load_games(data_dir, split, config="made-up")
    np.testing.assert_array_equal(seeds, 7 + np.arange(count))
    expected = made_up_games(split, seeds)
    chex.assert_trees_all_equal(games, expected)
    chex.assert_trees_all_equal_shapes_and_dtypes(games, expected)


def test_limit_reads_the_first_games(data_dir):
    games, seeds = dataset.load_games(data_dir, "train", config="made-up", limit=2)
    assert seeds.tolist() == [7, 8]
    chex.assert_trees_all_equal(games, made_up_games("train", seeds))


def test_random_access_through_tfds(data_dir):
    source = tfds.data_source("household_games/made-up", split="train", data_dir=data_dir)
    assert len(source) == 5
    assert source[3]["seed"] == 10
    np.testing.assert_array_equal(
        source[3]["start"]["inside"], made_up_games("train", np.asarray([10])).start.inside[0]
    )


def test_chunks_do_not_change_the_games(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "_CHUNK", 2)
    dataset.write_dataset(tmp_path, config=config())
    games, seeds = dataset.load_games(tmp_path, "train", config="made-up")
    chex.assert_trees_all_equal(games, made_up_games("train", 7 + np.arange(5)))
    assert seeds.tolist() == [7, 8, 9, 10, 11]


def test_writing_again_keeps_the_files_and_refuses_other_games(data_dir):
    folder = dataset.write_dataset(data_dir, config=config())
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert dataset.write_dataset(data_dir, config=config()) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.iterdir()} == before
    with pytest.raises(dataset.DatasetError, match="train 5 instead of 6"):
        dataset.write_dataset(data_dir, config=config(train=6))


def test_errors_say_what_is_missing(data_dir, tmp_path):
    with pytest.raises(dataset.DatasetError, match="no household games at"):
        dataset.load_games(tmp_path, "train")
    with pytest.raises(dataset.DatasetError, match="split must be one of train, seen, unseen"):
        dataset.load_games(data_dir, "test", config="made-up")
    with pytest.raises(dataset.DatasetError, match="limit must be positive"):
        dataset.load_games(data_dir, "train", config="made-up", limit=0)
    with pytest.raises(dataset.DatasetError, match="no configuration 'huge'"):
        dataset.write_dataset(tmp_path, config="huge")


def test_damaged_files_are_one_clear_error(tmp_path):
    folder = dataset.write_dataset(tmp_path, config=config())
    [record_file] = folder.glob("*-train.array_record*")
    record_file.write_bytes(b"damaged" * 100)
    with pytest.raises(dataset.DatasetError, match="cannot be read"):
        dataset.load_games(tmp_path, "train", config="made-up")


def test_generated_games_depend_on_their_seed_and_split_alone():
    make = dataset.generated_games(SMALL)
    games, swapped = make("seen", np.uint32([3, 9])), make("seen", np.uint32([9, 3]))
    chex.assert_trees_all_equal(games, jax.tree.map(lambda x: x[::-1], swapped))
    assert isinstance(games.task, np.ndarray)
    assert not np.array_equal(games.start.inside[0], games.start.inside[1])
    assert games.recep_stem.shape == (2, SMALL.receptacles)


def test_the_generator_fills_the_features_of_its_configuration():
    # The builder's features come from abstract evaluation, so they must be those of real games.
    builder = dataset.HouseholdGames(config="small", data_dir="/nonexistent")
    games = dataset.generated_games(SMALL)("seen", np.uint32([3, 9]))
    features = builder.info.features
    for name in dataset.Game._fields:
        if name != "start":
            assert features[name].shape == getattr(games, name).shape[1:], name
    for name in State._fields:
        assert features["start"][name].shape == getattr(games.start, name).shape[1:], name


def test_tensorflow_is_never_imported(tmp_path):
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_dataset as t\n"
        "t.dataset.write_dataset(sys.argv[2], config=t.config())\n"
        "t.dataset.load_games(sys.argv[2], 'seen', config='made-up')\n"
        "assert 'tensorflow' not in sys.modules, 'tensorflow was imported'\n"
    )
    here = str(__file__).rsplit("/", 1)[0]
    subprocess.run([sys.executable, "-c", code, here, str(tmp_path)], check=True)
