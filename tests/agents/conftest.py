"""Stores, an environment that answers skills, and scripted players."""

import random

import pytest

from reskill_jax.agents.trials import AgentEpisode, AgentStep, SkillTrials, TrialSettings
from reskill_jax.skills.skill import Skill, Trigger

# All tests compute with the same shapes, so that they share compiled programs.
SETTINGS = TrialSettings(group_size=4, step_episodes=16, gain=0.3, min_episodes=16, max_steps=4)
GOOD = Skill("good", "Always.", "open the box.", Trigger("general"))
BAD = Skill("bad", "Always.", "burn the box.", Trigger("general"))


@pytest.fixture
def settings():
    return SETTINGS


@pytest.fixture
def skills():
    return GOOD, BAD


@pytest.fixture
def make(tmp_path):
    """Makes a store; all are closed in the end."""
    made = []

    def make(name="skills.sqlite", **options):
        options = {"settings": SETTINGS, "creator": None} | options
        made.append(SkillTrials(tmp_path / name, **options))
        return made[-1]

    yield make
    for trials in made:
        trials.close()


@pytest.fixture
def play():
    """Plays episodes: the chance of success follows from the names of the skills."""

    def play(trials, count, *, effects, seed=0, tasks=4):
        rng = random.Random(seed)
        receipts = []
        for n in range(count):
            draw = trials.draw(f"task-{n // 4 % tasks}")
            names = [skill.name for skill in draw.skills]
            chance = 0.4 + sum(effects.get(name, 0.0) for name in names)
            steps = (AgentStep("look()", "a box", tuple(names)),)
            receipts.append(trials.report(AgentEpisode(draw.id, steps, rng.random() < chance)))
        return receipts

    return play
