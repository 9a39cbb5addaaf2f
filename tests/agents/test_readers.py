"""Exported skills in the readers of others: skills-ref, deepagents, CrewAI."""

import importlib.util
import logging
import os
import warnings
from pathlib import Path

import pytest

from reskill_jax.skills.describing import description
from reskill_jax.skills.skillmd import export_skills
from reskill_jax.skills.standing import Standing

REQUIRED = "RESKILL_TEST_AGENTS" in os.environ  # where it is set, they have to be there
_path = Path(__file__).parents[1] / "skills" / "odd_skills.py"
_spec = importlib.util.spec_from_file_location("odd_skills", _path)
_odd = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_odd)


def needs(name):
    if not REQUIRED:
        pytest.importorskip(name)


@pytest.fixture
def exported(tmp_path):
    """(folder, name -> skill) of fifty skills."""
    skills = _odd.odd_skills()
    told = Standing("active", "3", "adopted at step 3: 5 of 9", "Beta(1, 2)", "# Evidence\n\n3\n")
    export_skills(skills, tmp_path / "skills", {skill.name: told for skill in skills})
    return tmp_path / "skills", {skill.name: skill for skill in skills}


def test_skills_ref(exported):
    needs("skills_ref")
    from skills_ref.parser import read_properties
    from skills_ref.validator import validate

    folder, skills = exported
    for name, skill in skills.items():
        assert validate(folder / name) == []
        read = read_properties(folder / name)
        assert read.description == description(skill).strip()
        assert read.metadata.get("trigger-pattern") == skill.trigger.pattern
        assert read.metadata["version"] == "3"


def test_deepagents(exported, caplog):
    needs("deepagents")
    from deepagents.backends import FilesystemBackend
    from deepagents.middleware.skills import _list_skills

    folder, skills = exported
    backend = FilesystemBackend(root_dir=str(folder.parent), virtual_mode=True)
    with caplog.at_level(logging.WARNING):
        found = _list_skills(backend, "/skills/")
    found = found[0] if isinstance(found, tuple) else found
    assert {one["name"]: one["description"] for one in found} == {
        name: description(skill).strip() for name, skill in skills.items()
    }
    assert caplog.records == []


def test_crewai(exported, caplog):
    needs("crewai")
    from crewai.skills.loader import activate_skill, discover_skills

    folder, skills = exported
    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as told:
        found = discover_skills(folder)
    assert caplog.records == [] and told == []
    assert {one.frontmatter.name: one.frontmatter.description for one in found} == {
        name: description(skill).strip() for name, skill in skills.items()
    }
    for one in found:
        text = (folder / one.frontmatter.name / "SKILL.md").read_text("utf-8")
        assert activate_skill(one).instructions in text
        assert one.frontmatter.metadata["version"] == "3"
