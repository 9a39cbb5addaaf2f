"""Where hostile input arrives: for each place, what is done with it and what may come of it.

A surface takes one input and returns whether it was accepted. An input is refused with the
surface's own exception, whose message is one line; anything else that is raised is a defect.
"""

import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from hypothesis import strategies as st

from reskill_jax.creators.creator import Proposal
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.propose import propose
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.creators.rules.state import init_state, observe
from reskill_jax.models import weights
from reskill_jax.models.weights import WeightsError
from reskill_jax.skills.dfa import compile_dfa
from reskill_jax.skills.patterns import TriggerError, search
from reskill_jax.skills.skill import Trigger
from reskill_jax.skills.skillmd import MAX_FILE_BYTES, SkillFileError, export_skills, read_skills
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.config_file import ConfigError, apply_config, read_config
from reskill_jax.worlds.alfworld_games import GamesError, read_games
from reskill_jax.worlds.household import pddl, symbols
from reskill_jax.worlds.household.pddl_syntax import PddlError
from reskill_jax.worlds.household.reading import text_symbols
from reskill_jax.worlds.household.vocabulary import household_vocabulary

from . import inputs

_LONG = "a" * 20_000 + "!"


@dataclasses.dataclass(frozen=True)
class Surface:
    """One way in."""

    name: str
    strategy: st.SearchStrategy
    accepts: Callable[[Any, Path], bool]  # (input, an empty folder) -> whether it was accepted
    refusals: tuple[type[Exception], ...]  # how an input may be refused


def _pattern(pattern: str, folder: Path) -> bool:
    trigger = Trigger("observation_pattern", pattern)
    search(pattern, _LONG)
    trigger.fires(turn=1, last_action=None, observation="You arrive at cabinet 1.")
    compile_dfa(pattern, symbols.SYMBOLS)
    return True


def _skill_file(content: str, folder: Path) -> bool:
    return _skill_tree([("open-first", "skill", content)], folder)


def _skill_tree(entries: list[tuple[str, str, str]], folder: Path) -> bool:
    root = folder / "skills"
    root.mkdir()
    for name, kind, content in entries:
        _make(root / name, kind, content)
    found = read_skills(root)
    if any(not told.strip() or len(told.splitlines()) != 1 for told in found.problems):
        raise AssertionError(f"what was left out should be told in one line: {found.problems!r}")
    out = folder / "out"
    export_skills(found.skills, out)
    if read_skills(out) != (found.skills, ()):
        raise AssertionError("what was imported is not what is exported")
    written = {path.read_bytes() for path in root.glob("*/SKILL.md") if path.is_file()}
    for skill in found.skills:
        if (out / skill.name / "SKILL.md").read_bytes() not in written:
            raise AssertionError(f"{skill.name} went out otherwise than it came in")
    return bool(found.skills)


def _make(path: Path, kind: str, content: str) -> None:
    if path.exists() or path.is_symlink():
        return
    if kind == "link":
        path.symlink_to(content)
    elif kind == "file":
        path.write_text(content, encoding="utf-8", errors="replace")
    else:
        path.mkdir()
        file = path / "SKILL.md"
        if kind == "skill":
            file.write_text(content, encoding="utf-8", errors="replace", newline="")
        elif kind == "skill_link":
            file.symlink_to(content)
        elif kind == "fifo":
            os.mkfifo(file)
        elif kind == "folder_as_file":
            file.mkdir()
        elif kind == "huge":
            file.write_bytes(b"---\n" * (MAX_FILE_BYTES // 2))


def _config(given: tuple[str, str], folder: Path) -> bool:
    ending, content = given
    path = folder / f"config{ending}"
    path.write_text(content, encoding="utf-8", errors="replace")
    apply_config(TrainConfig(), read_config(path), where="config")
    return True


def _problem(content: str, folder: Path) -> bool:
    parsed = pddl.parse(content)
    if {symbols.PROMPT, symbols.SKILL} & set(parsed.game.task.tolist()):
        raise AssertionError("a task that speaks with the prompt's own marks")
    return True


def _games(given: tuple[str, bytes], folder: Path) -> bool:
    ending, data = given
    path = folder / f"games{ending}"
    path.write_bytes(data)
    return bool(read_games(path))


def _weights(given: tuple[bytes, bytes], folder: Path) -> bool:
    arrays, description = given
    path = folder / "policy.safetensors"
    path.write_bytes(arrays)
    path.with_suffix(".json").write_bytes(description)
    params, config, _ = weights.load(path)
    for array in jax.tree.leaves(params):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise AssertionError(f"weights of {config} that no policy can play with")
    return True


def _description(description: bytes, folder: Path) -> bool:
    return _weights((inputs.ARRAYS, description), folder)


def _arrays(arrays: bytes, folder: Path) -> bool:
    return _weights((arrays, inputs.described(arrays)), folder)


def _said(content: str, folder: Path) -> bool:
    found = text_symbols(content)
    if {symbols.PROMPT, symbols.SKILL} & set(found):
        raise AssertionError(f"the world speaks with the prompt's own marks: {content!r}")
    if not all(0 < symbol < symbols.VOCABULARY_SIZE for symbol in found):
        raise AssertionError(f"no symbols of the language: {content!r}")
    return True


def _evidence(content: list[str], folder: Path) -> bool:
    """Episodes of a world whose texts are `content`, half of them won."""
    told = [*content, ""] * 3
    episodes = [
        Episode(
            task=f"{told[0]} {number}",
            goal=told[1 % len(told)],
            family="pick_and_place_simple",
            arm=0,
            success=number % 2 == 0,
            step=number,
            actions=tuple(("open cabinet 1", told[number % 3], "look")[: 2 + number % 2]),
            observations=tuple(told[: 3 + number % 2] + ["", "", ""])[: 3 + number % 2],
        )
        for number in range(24)
    ]
    state = observe(init_state(0, capacity=200), episodes)
    _, outcome = propose(
        state,
        (),
        step=30,
        vocabulary=household_vocabulary(),
        compile_trigger=lambda pattern: compile_dfa(pattern, symbols.SYMBOLS),
        settings=CreatorSettings(min_episodes=8),
    )
    if isinstance(outcome, Proposal):
        for skill in outcome.version:
            if symbols.UNKNOWN in symbols.words(skill.action):
                raise AssertionError(f"a skill the policy cannot read: {skill.action!r}")
    return isinstance(outcome, Proposal)


def surfaces(problem: str, game: dict[str, str]) -> tuple[Surface, ...]:
    """All of them; `problem` is a real problem file, `game` a real record to start from."""
    return (
        Surface("trigger patterns", inputs.patterns, _pattern, (TriggerError,)),
        Surface("SKILL.md files", inputs.skill_files, _skill_file, (SkillFileError,)),
        Surface("folders of skills", inputs.skill_trees, _skill_tree, (SkillFileError,)),
        Surface("configurations", inputs.configs, _config, (ConfigError,)),
        Surface("problem files", inputs.problems(problem), _problem, (PddlError,)),
        Surface("games files", inputs.games_files(game), _games, (GamesError,)),
        Surface("weights: arrays", inputs.weights_arrays(), _arrays, (WeightsError,)),
        Surface("weights: descriptions", inputs.descriptions, _description, (WeightsError,)),
        Surface("what a world says", inputs.said, _said, ()),
        Surface("evidence", st.lists(inputs.said, min_size=1, max_size=6), _evidence, ()),
    )


def attempt(surface: Surface, given: Any, folder: Path) -> bool:
    """Whether an input was accepted; refusals count as not.

    Raises:
      AssertionError: it was refused with more than one line. Whatever else a defect raises.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        return surface.accepts(given, folder)
    except surface.refusals as refusal:
        told = str(refusal)
        if not told.strip() or len(told.splitlines()) != 1 or len(told) > 2000:
            raise AssertionError(f"a refusal should be one line, is {told!r}") from refusal
        return False
