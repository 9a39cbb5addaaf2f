"""What travels with a skill: descriptions that say when, state and evidence in the metadata."""

import importlib.util
from pathlib import Path

import pytest
import yaml

from reskill_jax.skills.describing import MAX_DESCRIPTION, description, moment
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import (
    EVIDENCE,
    export_skill,
    export_skills,
    import_skill,
    import_skills,
    import_standing,
)
from reskill_jax.skills.standing import Standing, standings

_spec = importlib.util.spec_from_file_location("odd", Path(__file__).with_name("odd_skills.py"))
odd = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(odd)

COOL = Skill("cool", "Right after taking it.", "go to fridge.", Trigger("action_pattern", "^take"))
LINE = {
    "step": 7,
    "event": "accepted",
    "trial": 3,
    "operations": [{"operation": "ADD", "name": "cool", "skill": COOL.to_dict()}],
    "reason": "success +0.250 within groups",
    "successes": [6, 12],
    "trials": [31, 30],
    "posterior": {"alpha": [7.0, 13.0], "beta": [26.0, 19.0]},
    "difference": [0.0, 0.2065],
}


@pytest.mark.parametrize(
    "trigger, told",
    [
        (Trigger("general"), "at every step"),
        (Trigger("beginning"), "once, before the first action"),
        (
            Trigger("action_pattern", "^go to"),
            'right after an action of yours that begins with "go to", and at no other step',
        ),
        (
            Trigger("action_pattern", r"^take mug\b"),
            'right after an action of yours that begins with "take mug", and at no other step',
        ),
        (
            Trigger("observation_pattern", r"is closed\.$"),
            'whenever the latest observation ends with "is closed.", and at no other step',
        ),
        (
            Trigger("observation_pattern", "nothing|empty", r"\bcool\b"),
            "whenever the latest observation matches the regular expression nothing|empty (ignoring"
            " case), and at no other step, and only if the text of the task contains the word "
            '"cool"',
        ),
        (
            Trigger("general", task_pattern="^put$"),
            'at every step, and only if the text of the task is "put"',
        ),
        (
            Trigger("action_pattern", r"a\d"),
            r"right after an action of yours that matches the regular expression a\d (ignoring "
            "case), and at no other step",
        ),
    ],
)
def test_a_trigger_in_words(trigger, told):
    assert moment(trigger) == told


def test_a_description_a_stranger_can_act_on():
    assert description(COOL) == (
        "Go to fridge right after taking it. Use it right after an action of yours that begins "
        'with "take", and at no other step.'
    )


def test_fifty_odd_skills_survive_in_standard_yaml_too(tmp_path):
    skills = odd.odd_skills()
    assert len(skills) == 50
    paths = export_skills(skills, tmp_path)
    assert import_skills(tmp_path) == tuple(sorted(skills, key=lambda skill: skill.name))
    for skill, path in zip(skills, paths):
        text = path.read_text("utf-8")
        # Some readers take the first three hyphens they find for the end of the front matter.
        front = yaml.safe_load(text.split("---", 2)[1])
        assert front["name"] == skill.name == path.parent.name
        assert front["description"] == description(skill).strip()
        assert 0 < len(front["description"]) <= MAX_DESCRIPTION
        assert all(isinstance(value, str) for value in front["metadata"].values())
        assert front["metadata"].get("trigger-pattern") == skill.trigger.pattern


def test_a_lifecycle_log_tells_where_skills_stand():
    changed = {"operation": "MODIFY", "name": "cool", "skill": COOL.to_dict()}
    rejected = LINE | {"event": "rejected", "step": 8, "operations": [changed]}
    twice = LINE | {"step": 9, "operations": [changed], "trial": 4}
    old = Skill("old", "w", "a", Trigger("general"))
    found = standings([COOL, old], [LINE, rejected, twice])
    assert found["old"] == Standing("active", "1")
    assert (found["cool"].version, found["cool"].status) == ("2", "active")
    evidence = "adopted at step 9: 12 of 30 episodes won with it, 6 of 31 episodes won without"
    assert found["cool"].evidence == evidence
    assert found["cool"].posterior == "without Beta(7, 26), with Beta(13, 19)"
    assert "| with it | 12 of 30 episodes won | Beta(13, 19) |" in found["cool"].page
    assert "+0.206" in found["cool"].page and "Trial 4." in found["cool"].page


def test_a_retirement_that_was_refused_counts_for_the_skill():
    line = LINE | {"event": "kept", "operations": [{"operation": "DELETE", "name": "cool"}]}
    told = standings([COOL], [line])["cool"]
    assert told.evidence.startswith("kept at step 7: 6 of 31 episodes won with it, 12 of 30")
    assert told.posterior == "without Beta(13, 19), with Beta(7, 26)"


def test_standing_travels_and_comes_back(tmp_path):
    standing = standings([COOL], [LINE])["cool"]
    path = export_skill(COOL, tmp_path, standing)
    metadata = yaml.safe_load(path.read_text("utf-8").split("---\n")[1])["metadata"]
    assert metadata["reskill-status"] == "active" and metadata["version"] == "1"
    assert import_skill(path.parent) == COOL and import_standing(path.parent) == standing
    assert export_skills([COOL], tmp_path / "again", {"cool": standing})[0].read_bytes() == (
        path.read_bytes()
    )


def test_pages_of_evidence_go_with_their_skill(tmp_path):
    export_skill(COOL, tmp_path, standings([COOL], [LINE])["cool"])
    assert (tmp_path / "cool" / EVIDENCE).is_file()
    export_skill(COOL, tmp_path)
    assert not (tmp_path / "cool" / "references").exists()
    assert import_standing(tmp_path / "cool") is None
    export_skill(COOL, tmp_path, standings([COOL], [LINE])["cool"])
    other = Skill("other", "w", "a", Trigger("general"))
    export_skills([other], tmp_path, remove_others=True)
    assert [one.name for one in tmp_path.iterdir()] == ["other"]


def test_what_others_keep_under_the_same_names_stays(tmp_path):
    path = export_skill(COOL, tmp_path)
    page = path.parent / EVIDENCE
    page.parent.mkdir()
    page.write_text("my notes")
    export_skill(COOL, tmp_path)
    assert page.read_text() == "my notes"
