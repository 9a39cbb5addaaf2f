"""Episodes of any world, cut to a size that the creator can work with and keep."""

import dataclasses
import json
from collections.abc import Sequence

from reskill_jax.creators.episode import Episode

from .mining import MOST_TURNS
from .speech import MOST_TEXT, VERB_WORDS, encodable_text, read_action, shortened

_MOST_SEEN = 24_000  # characters of an episode's observations
_SHORTEST = 100  # to which observations are cut
_GAP = "\n[...]\n"


def bounded(episode: Episode) -> Episode:
    """An episode with all that the creator needs of it, in texts that patterns can be searched in.

    Lone surrogates become "?", long texts lose their middle, and of the actions that were possible
    their beginnings are left. One that needs no change comes back as it is.
    """
    turns = min(len(episode.actions), MOST_TURNS)
    seen = _cut_all(episode.observations[: turns + 1])
    possible = tuple(_beginnings(told) for told in episode.possible[:turns])
    changed = dataclasses.replace(
        episode,
        task=_as_utf8(episode.task),
        goal=_cut(encodable_text(episode.goal), MOST_TEXT),
        family=_as_utf8(episode.family),
        actions=tuple(encodable_text(shortened(action)) for action in episode.actions[:turns]),
        observations=seen,
        possible=possible if any(possible) else (),
        skills_fired=episode.skills_fired[:turns],
    )
    return episode if changed == episode else changed


def _as_utf8(name: str) -> str:
    """A name with lone surrogates spelled out, so that different ones stay different."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    half = (most - len(_GAP)) // 2
    return text[:half] + _GAP + text[-half:]


def _cut_all(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts of bounded size together: the longest are cut, all to the same length."""
    most = MOST_TEXT
    while most > _SHORTEST and sum(min(len(text), most) for text in texts) > _MOST_SEEN:
        most = max(most * 3 // 4, _SHORTEST)
    return tuple(encodable_text(_cut(text, most)) for text in texts)


def _beginnings(told: Sequence[str]) -> tuple[str, ...]:
    """What tells the verbs of possible actions, which may be thousands and long."""
    return tuple(dict.fromkeys(filter(None, map(_beginning, told))))


def _beginning(action: str) -> str:
    said = read_action(shortened(action))
    if said.form == "tool":
        return json.dumps({"name": said.name}, ensure_ascii=False)
    if said.form == "tag":
        return f"<{said.name}>"
    if said.form == "call":
        return f"{said.name}()"
    return " ".join(said.words[:VERB_WORDS])
