import gzip
import importlib.util
import json
from pathlib import Path

import pytest

from reskill_jax.worlds import alfworld
from reskill_jax.worlds.alfworld_games import GameRecord, write_games_file
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.playing import Comparison, Episode, ScriptedPlayer

ROOT = Path(__file__).resolve().parents[2]
needs_engine = pytest.mark.skipif(not alfworld.installed(), reason="needs the extra alfworld")


@pytest.fixture(scope="module")
def agreement():
    path = ROOT / "experiments" / "alfworld_agreement.py"
    spec = importlib.util.spec_from_file_location("alfworld_agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def recorded(tmp_path):
    """A games file of two short recordings, and the commands that were played in them."""
    with gzip.open(ROOT / "tests" / "golden" / "alfworld_transcripts.json.gz", "rt") as file:
        games = [g for g in json.load(file) if g["game_id"] in ("public-002", "public-044")]
    records = [
        GameRecord("public", g["game_id"], g["task_type"], g["task"], g["pddl_problem"])
        for g in games
    ]
    write_games_file(tmp_path / "games.jsonl", records)
    scripts = {g["game_id"]: [step["command"] for step in g["steps"]] for g in games}
    return tmp_path / "games.jsonl", scripts


def test_spread_is_even_over_task_types(agreement):
    records = [
        GameRecord("s", f"{kind}{i}", kind, "t", "p")
        for kind, number in zip(TASK_TYPES[:3], (10, 1, 10))
        for i in range(number)
    ]
    chosen = agreement.spread(records, 9)
    counts = [sum(r.task_type == kind for r in chosen) for kind in TASK_TYPES[:3]]
    assert counts == [4, 1, 4]
    assert [r.game[-1] for r in chosen[:4]] == ["0", "2", "5", "7"]
    assert len(set(chosen)) == 9
    assert sorted(agreement.spread(records, 99)) == sorted(records)


def test_summary_leaves_invalid_games_out(agreement):
    def compared(won_first, won_second, error=None):
        return Comparison(
            None,
            Episode("g", ("go",), ("a", "b"), won_first),
            Episode("g", ("go",), ("a", "b"), won_second, error),
        )

    found = [compared(True, True), compared(False, False), compared(True, False)]
    found.append(compared(True, False, "EngineError: died"))
    assert agreement.summary(found) == {
        "games": 4,
        "invalid": 1,
        "same": 2,
        "different": 1,
        "commands": 3,
        "won_compiled": 2,
        "won_real": 1,
    }
    assert agreement.verdict(found[0]) == "same, 1 commands, won"
    assert agreement.verdict(found[2]) == "DIFFERENT, won True against False"
    assert agreement.verdict(found[3]) == "invalid (EngineError: died)"


@needs_engine
def test_scripted_games_agree(agreement, recorded, tmp_path, capsys):
    path, scripts = recorded
    out = tmp_path / "new" / "episodes.jsonl"
    code = agreement.main(
        ["--games", str(path), "--out", str(out)],
        player_factory=lambda record: ScriptedPlayer(scripts[record.game]),
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "2 games" in printed and "2 the same action for action, 0 different" in printed
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    for row in rows:
        assert row["compiled"]["commands"] == row["real"]["commands"]
        assert row["real"]["commands"] == scripts[row["game"]][: len(row["real"]["commands"])]


@needs_engine
def test_a_compiled_side_that_differs_is_found(agreement, recorded, capsys):
    path, _ = recorded

    def compiled(records, max_turns):
        return [Episode(r.game, ("dance",) * max_turns, ("?",), False) for r in records]

    code = agreement.main(["--games", str(path), "--quick"], compiled=compiled)
    assert code == 1
    assert "0 the same action for action, 2 different" in capsys.readouterr().out


def test_what_is_missing_is_said(agreement, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RESKILL_ALFWORLD_GAMES", raising=False)
    monkeypatch.setattr(alfworld, "installed", lambda: True)
    assert agreement.main(["--games", str(tmp_path / "nowhere")]) == 2
    assert "error: no games file or folder at" in capsys.readouterr().out
    assert agreement.main([]) == 2
    assert "no games: give --games" in capsys.readouterr().out
    monkeypatch.setattr(alfworld, "installed", lambda: False)
    assert agreement.main([]) == 2
    assert 'pip install "reskill-jax[alfworld]"' in capsys.readouterr().out
