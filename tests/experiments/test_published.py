"""Published games: kept policies play them, and the table that tells of it."""

import json

import household_study
import jax
import pytest
from study import published
from study.jobs import StudyError
from study.report_published import success, write_published

from reskill_jax.evaluation.given_games import own_games
from reskill_jax.models import decoder, weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import export_skill
from reskill_jax.worlds.alfworld_games import write_games_file
from reskill_jax.worlds.household.world import HouseholdWorld

POLICY = DecoderConfig(vocabulary=259, width=8, layers=1, heads=2, kv_heads=1, mlp=8)


@pytest.fixture
def keep(tmp_path):
    """What two runs left."""
    folder = tmp_path / "keep"
    for name in ("grpo-1000", "reskill-1000"):
        (folder / name).mkdir(parents=True)
        params = decoder.init(jax.random.key(0), POLICY)
        weights.save(folder / name / "policy.safetensors", params, {}, POLICY)
    export_skill(
        Skill("look", "At the start.", "look.", Trigger("beginning")),
        folder / "reskill-1000/skills",
    )
    return folder


@pytest.fixture
def games(tmp_path):
    """Two games of ours, one of each split."""
    path = tmp_path / "games.jsonl"
    one, two = own_games(HouseholdWorld(), "seen", 2)
    write_games_file(path, [one._replace(split="valid_seen"), two._replace(split="valid_train")])
    return path


def test_kept_policies_play_given_games(keep, games, tmp_path, monkeypatch, capsys):
    shown = []

    def play(params, model, language, bank, records, *, world, arm, **limits):
        shown.append((int((bank.kind[0] > 0).sum()), arm, limits["max_turns"]))
        limits = {"max_turns": 2, "context_length": 256}
        return real(params, model, language, bank, records, world=world, arm=arm, **limits)

    real, params = published.play_compiled, decoder.init(jax.random.key(1), POLICY)
    monkeypatch.setattr(published.weights, "load_pretrained", lambda name: (params, POLICY, {}))
    monkeypatch.setattr(published, "play_compiled", play)
    results, docs = tmp_path / "results", tmp_path / "docs"
    given = ["--study", "published", "--keep", str(keep), "--games", str(games)]
    given += ["--results", str(results), "--docs", str(docs)]
    assert household_study.main(given) == 0
    # The shipped policy and GRPO's play without skills, ReSkill's without and with.
    assert shown == [(0, -1, 50), (0, -1, 50), (0, -1, 50), (1, 0, 50)]
    made = {path.name for path in (results / "published").iterdir()}
    assert made == {"start-0.json", "grpo-1000.json", "reskill-1000.json"}
    told = json.loads((results / "published/reskill-1000.json").read_text())
    assert [(line["split"], line["mode"], line["episodes"]) for line in told["lines"]] == [
        *(("valid_seen", "none", 1), ("valid_train", "none", 1)),
        *(("valid_seen", "bank", 1), ("valid_train", "bank", 1)),
    ]
    assert "| at the start | 1 |" in (docs / "results.md").read_text()
    # What exists is not played again; other games are another study.
    assert household_study.main(given) == 0 and len(shown) == 4
    games.write_text(games.read_text().splitlines()[0] + "\n")
    capsys.readouterr()
    assert household_study.main(given) == 1
    assert "was made with other games than those of" in capsys.readouterr().err


def test_what_cannot_be_played(games, tmp_path):
    with pytest.raises(StudyError, match="no policies in"):
        published.play_all(tmp_path, games, tmp_path)
    (tmp_path / "someone").mkdir()
    (tmp_path / "someone/policy.safetensors").write_bytes(b"")
    with pytest.raises(StudyError, match="someone is not called as a run"):
        published._named(tmp_path / "someone")
    with pytest.raises(SystemExit):
        household_study.main(["--study", "published", "--games", str(games)])


def result(condition, seed, **won):
    """Games won of 100 and of 300, by mode."""
    lines = [
        {"split": split, "mode": mode, "episodes": games, "successes": count}
        for mode, counts in won.items()
        for split, games, count in zip(("valid_seen", "valid_train"), (100, 300), counts)
    ]
    return {"condition": condition, "seed": seed, "turns": 50, "lines": lines}


def test_the_table(tmp_path):
    results = [
        result("start", 0, none=(10, 30)),
        result("grpo", 1000, none=(20, 60)),
        result("grpo", 1001, none=(30, 90)),
        result("reskill", 1000, none=(20, 66), bank=(40, 90)),
        result("reskill", 1001, none=(20, 90), bank=(30, 150)),
    ]
    assert success(results[3], "all", "bank") == 130 / 400
    text, figures = write_published(results, tmp_path)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert figures == [] and "valid_train (300 games)" in text and "all (400 games)" in text
    assert "| 1 | 10.0 | 10.0 | 10.0 |" in rows["at the start"]
    # +20 and 0 points on the first split; +10 and +20 on the second.
    assert "+10.0 [" in rows["ReSkill"] and "+15.0 [" in rows["ReSkill"]
    assert "-5.0 [" in rows["ReSkill, without its skills"]
