"""Sampled episodes as readable text: what was said, turn by turn, in files of the run folder.

RUN/episodes/step_00000010-unseen-bank.txt
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FOLDER = "episodes"
MOST_OF_EACH = 2  # won, and lost
_LONGEST = 2000  # characters of what is said at a time
_NAME = re.compile(r"step_(\d{8})-([a-z]+)-([a-z]+)\.txt")


class Turn(NamedTuple):
    """One action and what it led to."""

    skills: tuple[str, ...]  # names of those in the prompt, each with what it says
    action: str
    observation: str
    reward: float


class SampledEpisode(NamedTuple):
    """One episode of an evaluation."""

    task: str
    success: bool
    ended: str  # how: "done", "turns", "context"
    opening: str
    turns: tuple[Turn, ...]


def choose(won: Sequence[bool]) -> list[int]:
    """Which of many episodes are told: the first few won and the first few lost."""
    found = []
    for outcome in (True, False):
        found += [n for n, one in enumerate(won) if bool(one) is outcome][:MOST_OF_EACH]
    return sorted(found)


def write_sampled(
    folder: Path, step: int, split: str, mode: str, episodes: Sequence[SampledEpisode]
) -> None:
    """Writes the episodes of an evaluation; one that is repeated replaces them."""
    if not episodes:
        return
    place = folder / FOLDER
    place.mkdir(exist_ok=True)
    path = place / f"step_{step:08d}-{split}-{mode}.txt"
    text = "\n\n".join(episode_text(episode) for episode in episodes) + "\n"
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8", errors="replace")
    partial.replace(path)


def sampled_files(folder: Path) -> list[tuple[int, str, str, Path]]:
    """(step, split, mode, file) of every evaluation whose episodes lie there, by step."""
    place = folder / FOLDER
    if not place.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in sorted(place.iterdir())]
    return [(int(m[1]), m[2], m[3], path) for m, path in found if m and path.is_file()]


def episode_text(episode: SampledEpisode) -> str:
    """An episode as people read it: the agent's part is marked with >, skills with *."""
    ends = {
        "done": "ended by the world",
        "turns": "all turns were used",
        "context": "the context was full",
    }
    outcome = "won" if episode.success else "lost"
    lines = [
        f"=== {' '.join(episode.task.split()) or 'an episode'}",
        f"=== {outcome} after {len(episode.turns)} turns, {ends.get(episode.ended, episode.ended)}",
        "",
        _shown(episode.opening),
    ]
    for turn in episode.turns:
        lines += [f"* {skill}" for skill in turn.skills]
        lines.append(f"> {_shown(turn.action) or '(no action)'}")
        reward = f"  [reward {turn.reward:g}]" if turn.reward else ""
        lines.append(_shown(turn.observation) + reward)
    return "\n".join(lines)


def _shown(text: str) -> str:
    kept = text if len(text) <= _LONGEST else text[:_LONGEST] + " [...]"
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in kept).strip()
