import gzip
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from reskill_jax.worlds import alfworld
from reskill_jax.worlds.alfworld import AlfworldMissing, EngineError
from reskill_jax.worlds.alfworld_games import GameRecord, game_record
from reskill_jax.worlds.household.generator import SMALL, generate
from reskill_jax.worlds.playing import (
    Comparison,
    Episode,
    RandomPlayer,
    ScriptedPlayer,
    compare,
    open_compiled,
    play,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
needs_engine = pytest.mark.skipif(not alfworld.installed(), reason="needs the extra alfworld")
RECORD = GameRecord("made", "counting", "pick_and_place_simple", "count", "")


class Counting:
    """Won by the third `up`; `crash` is an engine that dies."""

    intro = "Zero."

    def __init__(self):
        self.count = 0
        self.closed = False

    def step(self, command):
        if command == "crash":
            raise EngineError("died")
        self.count += command == "up"
        return f"{self.count}.", self.count == 3

    def admissible(self):
        return ["down", "up"]

    def close(self):
        self.closed = True


def test_an_episode_ends_with_the_first_win():
    game = Counting()
    episode = play(RECORD, lambda _: game, ScriptedPlayer(["up", "x"] + ["up"] * 9), max_turns=9)
    assert episode == Episode(
        "counting", ("up", "x", "up", "up"), ("Zero.", "1.", "1.", "2.", "3."), True
    )
    assert episode.valid and game.closed


def test_an_episode_ends_at_the_limit():
    episode = play(RECORD, lambda _: Counting(), ScriptedPlayer(["up"] * 9), max_turns=2)
    assert episode.commands == ("up", "up") and not episode.won and episode.valid
    with pytest.raises(ValueError, match="max_turns must be at least 1"):
        play(RECORD, lambda _: Counting(), ScriptedPlayer([]), max_turns=0)


def test_an_engine_that_dies_makes_the_episode_invalid():
    game = Counting()
    episode = play(RECORD, lambda _: game, ScriptedPlayer(["up", "crash", "up"]), max_turns=9)
    assert not episode.valid and not episode.won
    assert episode.error == "EngineError: died" and game.closed
    refused = play(
        RECORD._replace(pddl_problem="("), open_compiled, ScriptedPlayer([]), max_turns=1
    )
    assert refused.error.startswith("PddlError: ") and refused.commands == ()


def test_other_errors_are_raised():
    class Confused:
        def act(self, observation, admissible):
            raise RuntimeError("no idea")

    game = Counting()
    with pytest.raises(RuntimeError, match="no idea"):
        play(RECORD, lambda _: game, Confused(), max_turns=1)
    assert game.closed

    def missing(record):
        raise AlfworldMissing("not there")

    with pytest.raises(AlfworldMissing):
        play(RECORD, missing, ScriptedPlayer([]), max_turns=1)


def test_the_random_player_follows_its_seed():
    def choices(seed):
        player = RandomPlayer(seed)
        return [player.act("", list("abcdef")) for _ in range(20)]

    assert choices(1) == choices(1) != choices(2)
    assert set(choices(1)) <= set("abcdef") and len(set(choices(1))) > 2


def test_differences_are_named():
    def episode(commands=("go",), observations=("a", "b"), won=False):
        return Episode("g", commands, observations, won)

    def difference(**changes):
        return Comparison(RECORD, episode(), episode(**changes)).difference

    assert difference() is None
    assert difference(commands=("stay",)) == "command 0: 'go' against 'stay'"
    assert difference(observations=("a", "c")) == "observation 1: 'b' against 'c'"
    assert difference(observations=("a",)) == "2 against 1 observations"
    assert difference(won=True) == "won False against True"
    invalid = Episode("g", (), (), False, "died")
    assert not Comparison(RECORD, episode(), invalid).valid


@needs_engine
def test_both_engines_agree_on_a_game_of_our_generator():
    game = jax.tree.map(np.asarray, jax.jit(generate, static_argnames=("spec", "split"))(
        jax.random.key(5), spec=SMALL, split="unseen"
    ))  # fmt: skip
    record = game_record(game, name="unseen-5", split="unseen")
    assert record.pddl_problem.count("(:goal") == 1 and record.task.islower()
    found = compare(record, lambda r: RandomPlayer(r.game), max_turns=25)
    assert found.valid and found.difference is None
    assert f"Your task is to: {record.task}." in found.second.observations[0]
    assert len(found.first.commands) == 25 or found.first.won


@needs_engine
def test_a_won_game_is_won_in_both():
    with gzip.open(GOLDEN / "alfworld_transcripts.json.gz", "rt") as file:
        game = next(g for g in json.load(file) if g["game_id"] == "public-002")
    record = GameRecord("public", "2", game["task_type"], game["task"], game["pddl_problem"])
    script = [step["command"] for step in game["steps"]]
    found = compare(record, lambda _: ScriptedPlayer(script), max_turns=50)
    assert found.difference is None and found.first.won and found.second.won
    assert list(found.first.observations[1:]) == [step["observation"] for step in game["steps"]]
