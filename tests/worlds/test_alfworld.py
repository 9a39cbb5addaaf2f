import gzip
import json
import sys
from pathlib import Path

import pytest

from reskill_jax.worlds import alfworld
from reskill_jax.worlds.alfworld import AlfworldGame, AlfworldMissing, EngineError
from reskill_jax.worlds.household import TextGame

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
needs_engine = pytest.mark.skipif(not alfworld.installed(), reason="needs the extra alfworld")


def golden(name):
    with gzip.open(GOLDEN / f"{name}.json.gz", "rt") as file:
        return {game["game_id"]: game for game in json.load(file)}


@pytest.fixture(scope="module")
def short():
    return golden("alfworld_transcripts")["public-002"]


@pytest.fixture(scope="module")
def long():
    return golden("alfworld_transcripts")["public-044"]


def compare(game, commands):
    """Plays the same commands in the real engine and in ours; everything must agree."""
    theirs = AlfworldGame.from_pddl(game["pddl_problem"], task=game["task"])
    ours = TextGame.from_pddl(game["pddl_problem"], task=game["task"])
    assert ours.intro == theirs.intro
    assert ours.admissible() == theirs.admissible()
    for command in commands:
        assert ours.step(command) == theirs.step(command), command
        assert ours.admissible() == theirs.admissible(), command
    theirs.close()


@needs_engine
@pytest.mark.parametrize("name", ["public-002", "public-044"])
def test_a_recording_replays_in_both(name):
    game = golden("alfworld_transcripts")[name]
    compare(game, [step["command"] for step in game["steps"]])


@needs_engine
def test_an_edge_case_replays_in_both():
    game = golden("alfworld_edge_cases")["edge-two"]
    odd = ["  look ", "Look", "", "go  to x", "help", "inventory"]
    compare(game, [step["command"] for step in game["steps"]] + odd)


@needs_engine
def test_the_engine_says_what_was_recorded(short):
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as game:
        assert game.intro == short["intro"]
        assert game.admissible() == short["initial_admissible"]
        for step in short["steps"]:
            assert game.step(step["command"]) == (step["observation"], step["won"])
            assert game.admissible() == step["admissible"]


@needs_engine
def test_reset_starts_again(short):
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as game:
        before = game.admissible()
        observation, won = game.step(before[0])
        assert game.admissible() != before
        assert game.reset() == short["intro"]
        assert game.admissible() == before and not game.won
        assert game.step(before[0]) == (observation, won)
        game.admissible().clear()  # a copy: the game keeps its own list
        assert game.admissible()


@needs_engine
def test_games_at_the_same_time_do_not_disturb_each_other(short, long):
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as one:
        with AlfworldGame(long["pddl_problem"], task=long["task"]) as two:
            for step, other in zip(short["steps"], long["steps"]):
                assert one.step(step["command"])[0] == step["observation"]
                assert two.step(other["command"])[0] == other["observation"]


@needs_engine
def test_engines_are_used_again(short, monkeypatch):
    monkeypatch.setattr(alfworld, "_engine_cache", [alfworld._load_engine()])
    made = []
    engine = alfworld._engine()
    alfworld._engine_cache[0] = engine._replace(
        new_environment=lambda: made.append(1) or engine.new_environment()
    )
    for _ in range(3):
        AlfworldGame(short["pddl_problem"], task=short["task"]).close()
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as game:
        assert made == [1]
        AlfworldGame(short["pddl_problem"], task=short["task"]).close()
        assert made == [1, 1] and game.step("look")[0]


@needs_engine
@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[:3000],
        lambda text: text.replace("alfred", "another"),
        lambda text: text.replace("KeyChainType - otype", ""),
    ],
    ids=["empty", "cut", "domain", "undeclared"],
)
def test_a_problem_the_engine_cannot_load_is_an_engine_error(short, damage, capsys):
    arguments = list(sys.argv)
    with pytest.raises(EngineError, match="the ALFWorld engine failed to load the problem: "):
        AlfworldGame(damage(short["pddl_problem"]), task=short["task"])
    assert sys.argv == arguments
    assert capsys.readouterr().out == ""
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as game:
        assert game.intro == short["intro"]


@needs_engine
def test_a_crash_in_play_is_an_engine_error(short):
    with AlfworldGame(short["pddl_problem"], task=short["task"]) as game:

        def crash(command):
            raise KeyError("lost")

        game._environment.step = crash
        with pytest.raises(EngineError, match="failed to play 'look': KeyError 'lost'"):
            game.step("look")
        with pytest.raises(EngineError, match="the game is closed"):
            game.step("look")


@needs_engine
def test_a_closed_game_says_so(short):
    game = AlfworldGame(short["pddl_problem"], task=short["task"])
    game.close()
    game.close()
    with pytest.raises(EngineError, match="cannot play 'look': the game is closed"):
        game.step("look")


@pytest.mark.parametrize(
    "task", ["{__import__('os').abort()}", "put #intro#", 'say "x"', "a|b", "a\nb", "a\\b"]
)
def test_text_the_engine_would_interpret_is_refused(task):
    with pytest.raises(ValueError, match="the goal text contains .* would interpret as grammar"):
        AlfworldGame("(define (problem p))", task=task)
    with pytest.raises(ValueError, match="the PDDL problem contains '{'"):
        AlfworldGame("(define (problem {p}))", task="put a mug in shelf")


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(alfworld, "_engine_cache", [])
    monkeypatch.setitem(sys.modules, "textworld", None)
    with pytest.raises(AlfworldMissing, match=r'pip install "reskill-jax\[alfworld\]"'):
        AlfworldGame("(define (problem p))", task="put a mug in shelf")


def test_an_empty_goal_text_is_refused():
    with pytest.raises(ValueError, match="the goal text of an ALFWorld game is empty"):
        AlfworldGame("(define (problem p))", task=" ")
