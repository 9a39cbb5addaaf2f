"""The examples with agents and the experiments on them, run small."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = "RESKILL_TEST_AGENTS" in os.environ  # where it is set, they have to be there


def run(*words):
    done = subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_kitchen_by_hand(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    from pantry import Pantry

    room = Pantry()
    assert room.begin().endswith("Possible: go to fridge; go to table; look around")
    assert "closed" in room.act("go to fridge") and "does not work" in room.act("take egg")
    assert "take egg" in room.act("open fridge")
    assert room.act("take egg").endswith("Say: done") and room.won and room.turns == 4
    assert room.act("look around") == "It is over. Say: done" and room.turns == 4


@pytest.mark.parametrize("name", ["langgraph", "crewai"])
def test_an_example_plays(name, tmp_path):
    if not REQUIRED:
        pytest.importorskip({"langgraph": "langchain"}.get(name, name))
    told = run(ROOT / "examples" / f"{name}_agent.py", tmp_path / "s.sqlite", "--episodes", 40)
    assert "won" in told
    from reskill_jax.agents.trials import SkillTrials

    with SkillTrials(tmp_path / "s.sqlite", create=False) as trials:
        assert trials.status().reports == {"counted": 40} and trials.status().step == 1
        lines = list(trials.episodes())
    assert all(line["steps"][0]["action"] in ("go to fridge", "go to table", "look around")
               for line in lines)  # fmt: skip
    assert 0 < sum(line["success"] for line in lines) < 40


def test_a_frozen_agent_in_the_experiment(tmp_path, monkeypatch):
    if not REQUIRED:
        pytest.importorskip("langchain")
    out = tmp_path / "told.json"
    script = ROOT / "experiments" / "agents_frozen.py"
    run(script, "--seeds", 2, "--episodes", 64, "--output", out)
    told = json.loads(out.read_text())
    assert told["summary"]["audits_clean"] and len(told["runs"][1]["won"]) == 64


@pytest.mark.slow
def test_writers_are_killed_and_the_store_is_whole():
    script = ROOT / "experiments" / "agents_stress.py"
    told = json.loads(run(script, "--kills", 2, "--episodes", 32, "--processes", 2))
    assert told["whole"] and told["killed"]["kills"] >= 1
    assert told["shared"]["draws"] == told["killed"]["draws"] == 32
