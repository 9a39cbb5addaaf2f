"""Every recorded step of the real engine, replayed by the compiled functions: no differences."""

import gzip
import json
import os
import re
from collections import Counter, defaultdict
from pathlib import Path

import jax
import numpy as np
import pytest

from reskill_jax.worlds.household import TextGame, commands, engine, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.types import Command

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
RECEPTACLES, OBJECTS = 32, 48  # one bucket of TextGame, so that its programs are shared


def load(name):
    with gzip.open(GOLDEN / f"alfworld_{name}.json.gz", "rt", encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module")
def recordings():
    return load("edge_cases") + load("transcripts")


@pytest.fixture(scope="module")
def parsed(recordings):
    return [
        pddl.parse(
            game["pddl_problem"], task=game["task"], receptacles=RECEPTACLES, objects=OBJECTS
        )
        for game in recordings
    ]


@pytest.fixture(scope="module")
def replayed(recordings, parsed):
    """All games at once: [N, T, ...] of states, answers, verdicts, admissible commands."""
    steps = max(len(game["steps"]) for game in recordings)
    played = np.full((len(recordings), steps, 3), -1, np.int32)
    for i, (game, p) in enumerate(zip(recordings, parsed, strict=True)):
        for t, step in enumerate(game["steps"]):
            played[i, t] = commands.parse(p.game, step["command"], p.extra)
    games = jax.tree.map(lambda *x: np.stack(x), *[p.game for p in parsed])
    capacity = engine.observation_capacity(RECEPTACLES, OBJECTS)
    traces = []

    @jax.jit
    def replay(games, played):
        traces.append(None)

        def play(game, played):
            def step(state, command):
                command = Command(*command)
                understood = commands.is_admissible(game, state, command)
                state, seen, length = engine.step(game, state, command, max_symbols=capacity)
                return state, {
                    "understood": understood,
                    "seen": seen,
                    "length": length,
                    "won": engine.won(game, state),
                    "state": state,
                }

            intro = engine.intro(game, max_symbols=engine.intro_capacity(RECEPTACLES, 10))
            history = jax.lax.scan(step, game.start, played)[1]
            return intro, engine.won(game, game.start), history

        return jax.vmap(play)(games, played)

    out = jax.tree.map(np.asarray, replay(games, played))
    replay(games, np.flip(played, 1))
    assert len(traces) == 1
    return out


def test_intros_and_first_verdicts(recordings, parsed, replayed):
    (intro, length), won, _ = replayed
    for i, (game, p) in enumerate(zip(recordings, parsed, strict=True)):
        assert sy.text(intro[i], p.extra) == game["intro"]
        assert length[i] == np.count_nonzero(intro[i])
        assert won[i] == game["initial_won"]


def test_every_answer_and_verdict(recordings, parsed, replayed):
    history = replayed[2]
    steps = 0
    for i, (game, p) in enumerate(zip(recordings, parsed, strict=True)):
        before = game["initial_admissible"]
        for t, step in enumerate(game["steps"]):
            where = (game["game_id"], t, step["command"])
            seen = history["seen"][i, t]
            assert sy.text(seen, p.extra) == step["observation"], where
            assert history["length"][i, t] == np.count_nonzero(seen), where
            assert history["won"][i, t] == step["won"], where
            assert history["understood"][i, t] == (step["command"].strip() in before), where
            before = step["admissible"]
            steps += 1
    assert steps == 2003


def test_every_admissible_list(recordings, parsed, replayed):
    history = replayed[2]
    steps = history["won"].shape[1]
    everything = jax.jit(jax.vmap(commands.every_pair, in_axes=(None, 0)))
    check = jax.jit(
        jax.vmap(jax.vmap(commands.is_admissible, in_axes=(None, None, 0)), in_axes=(None, 0, 0))
    )
    for i, (game, p) in enumerate(zip(recordings, parsed, strict=True)):
        names = commands.entity_names(p.game, p.extra)
        states = jax.tree.map(lambda x, i=i: x[i], history["state"])
        first, pairs = jax.device_get(everything(p.game, states))
        listed = np.full((steps, 64, 3), -1, np.int32)
        for t, step in enumerate(game["steps"]):
            assert commands.pair_texts(names, first[t], pairs[t]) == step["admissible"]
            for k, text in enumerate(step["admissible"]):
                listed[t, k] = commands.parse(p.game, text, p.extra)
        agreed = np.asarray(check(p.game, states, Command(*np.moveaxis(listed, -1, 0))))
        for t, step in enumerate(game["steps"]):
            assert agreed[t].sum() == len(step["admissible"])  # all of them, and verb -1 never


def test_text_games(recordings):
    for game in recordings[:6] + recordings[6::8]:
        played = TextGame.from_pddl(game["pddl_problem"], task=game["task"])
        assert played.intro == game["intro"]
        assert played.admissible() == game["initial_admissible"]
        assert played.won == game["initial_won"]
        for step in game["steps"]:
            assert played.step(step["command"]) == (step["observation"], step["won"])
            assert played.admissible() == step["admissible"]


def expected_intro(problem, task):
    """The intro straight from the facts: numbers fall along the sorted ids of one stem."""
    init = problem.lower()
    init = init[init.index("(:init") : init.index("(:goal")]
    facts = {tuple(fact.split()) for fact in re.findall(r"\(([^()]*)\)", init)}
    ids = sorted({name for fact in facts for name in fact[1:]})

    def stem(name):
        return name.split("_bar_")[0] + ("basin" if "basin" in name else "")

    left = Counter(stem(name) for name in ids)
    names = {}
    for name in ids:
        names[name] = f"{stem(name)} {left[stem(name)]}"
        left[stem(name)] -= 1
    seen = [names[f] for f in sorted(f[1] for f in facts if f[0] == "receptacleatlocation")]
    listing = ", ".join(f"a {name}" for name in seen[:-1]) + f", and a {seen[-1]}"
    return (
        "-= Welcome to TextWorld, ALFRED! =-\n\nYou are in the middle of a room. "
        f"Looking quickly around you, you see {listing}.\n\nYour task is to: {task}."
    )


@pytest.mark.skipif(
    "RESKILL_ALFWORLD_GAMES" not in os.environ,
    reason="set RESKILL_ALFWORLD_GAMES to a file of published games (jsonl.gz)",
)
def test_published_games():
    with gzip.open(os.environ["RESKILL_ALFWORLD_GAMES"], "rt", encoding="utf-8") as file:
        games = [json.loads(line) for line in file]
    read = [
        pddl.parse(g["pddl_problem"], task=g["task"], receptacles=56, objects=80) for g in games
    ]
    stacked = jax.tree.map(lambda *x: np.stack(x), *[p.game for p in read])
    intro = jax.jit(jax.vmap(lambda g: engine.intro(g, max_symbols=engine.intro_capacity(56, 10))))
    symbols = np.asarray(intro(stacked)[0])
    won = jax.jit(jax.vmap(lambda g: engine.won(g, g.start)))(stacked)
    per_type = defaultdict(int)
    for game, p, line in zip(games, read, symbols, strict=True):
        assert sy.text(line, p.extra) == expected_intro(game["pddl_problem"], game["task"])
        assert p.extra == ()  # the language has every word of the published games
        assert game["task_type"] == pddl.TASK_TYPES[int(p.game.task_type)]
        per_type[game["task_type"]] += 1
        again = pddl.parse(pddl.write(p.game), task=game["task"], receptacles=56, objects=80)
        jax.tree.map(np.testing.assert_array_equal, p.game, again.game)
    assert not np.any(won)
    assert len(per_type) == 6
