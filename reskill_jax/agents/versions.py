"""Draws and states of the skills as a store keeps them."""

import functools
import json
import sqlite3
from typing import Any, NamedTuple

from reskill_jax.skills.skill import Bundle, Skill

from .episode import AgentEpisode, Draw
from .store import StoreError

MAX_SKILLS = 256  # of a version; the settings say how many there may be


class Version(NamedTuple):
    """A state of the skills: the bank in use, and what is under test."""

    skills: tuple[Skill, ...]
    parts: tuple[Bundle | None, ...]
    trials: tuple[int | None, ...]  # of each part

    def bank(self, arm: int) -> tuple[Skill, ...]:
        """The skills of an arm: the bank in use with the parts whose bits are set."""
        skills = self.skills
        for part, bundle in enumerate(self.parts):
            if bundle is not None and arm >> part & 1:
                skills = bundle.apply(skills, capacity=MAX_SKILLS)
        return skills


@functools.lru_cache(maxsize=256)
def _read(skills: str, parts: str) -> Version:
    told: list[dict[str, Any] | None] = json.loads(parts)
    return Version(
        tuple(Skill.from_dict(skill) for skill in json.loads(skills)),
        tuple(None if one is None else Bundle.from_dict(one["bundle"]) for one in told),
        tuple(None if one is None else one["trial"] for one in told),
    )


def version_of(connection: sqlite3.Connection, number: int) -> Version:
    """A state of the skills by its number."""
    row = connection.execute(
        "SELECT skills, parts FROM versions WHERE id = ?", (number,)
    ).fetchone()
    if row is None:
        raise StoreError(f"the store has no version {number}")
    return _read(*row)


def draw_of(connection: sqlite3.Connection, number: int, *, skills: bool = True) -> Draw:
    """A draw by its number.

    Raises:
      StoreError: there is none.
    """
    row = connection.execute(
        "SELECT task, repetition, arm, version, text, kind FROM draws WHERE id = ?", (number,)
    ).fetchone()
    if row is None:
        raise StoreError(f"the store has no draw {number}: was it made in another one?")
    task, repetition, arm, version, text, kind = row
    bank = version_of(connection, version).bank(arm) if skills else ()
    return Draw(number, task, repetition, arm, version, text, kind, bank)


def episode_in(connection: sqlite3.Connection, draw: int) -> AgentEpisode:
    """The report of a draw, with the outcome that counts."""
    told, success = connection.execute(
        "SELECT episode, success FROM reports WHERE draw = ?", (draw,)
    ).fetchone()
    outcome = None if success is None else bool(success)
    return AgentEpisode.from_dict(json.loads(told) | {"success": outcome})
