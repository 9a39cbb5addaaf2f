"""Stage 1, contrast: what tells the successes of one task from its failures?"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.patterns import TriggerError, compile_pattern

from .call import Request
from .evidence import DUTY, answer_as, data_field, told_episode
from .reading import ReplyError, one_line
from .schemas import INSIGHT

TEMPERATURE = 0.2
_LONGEST = 400  # characters of a finding
_SNIPPET = 8  # actions
_SYSTEM = (
    f"{DUTY}\n\nYou get episodes of one and the same task. Compare those that were won with those "
    "that were not, turn by turn, and say what made the difference. Quote actions letter by "
    "letter. If all of them failed, say where they went wrong; if nothing can be seen, say so with "
    "low confidence. 'moment' is a regular expression (RE2 syntax, case does not matter) that "
    "occurs in the last action, or in the latest observation, exactly when the agent should think "
    "of your finding; null if there is no such moment. Under 'skills' judge only skills that the "
    "episodes say were shown.\n\n"
)


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a group of episodes shows."""

    task: str
    text: str
    failure: Mapping[str, Any] | None  # mode, actions, turn
    success: Mapping[str, Any] | None  # pattern, actions
    moment: Mapping[str, str] | None  # kind, pattern
    skills: Mapping[str, str]  # name -> effect
    confidence: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)


def contrast_request(
    group: Sequence[Episode], place: str, *, characters: int, max_tokens: int
) -> Request:
    """The question about one group.

    Args:
      group: episodes of one task.
      place: see `Request`.
      characters: of an episode.
      max_tokens: of the answer.
    """
    shown = {
        "task": group[0].goal,
        "episodes": [told_episode(episode, characters) for episode in group],
    }
    return Request(
        place,
        "insight",
        _SYSTEM + answer_as(INSIGHT),
        f"What tells these episodes apart?\n{data_field(shown)}",
        INSIGHT,
        max_tokens,
        TEMPERATURE,
    )


def read_finding(answer: Mapping[str, Any], group: Sequence[Episode]) -> Finding:
    """What an answer found, as far as it is true of the episodes: what is quoted must be there.

    Raises:
      ReplyError: it finds nothing.
    """
    text = one_line(answer["finding"], _LONGEST)
    if not text:
        raise ReplyError("'finding' is empty.")
    done = {action for episode in group for action in episode.actions}
    shown = {name for one in group for fired in one.skills_fired for name in fired}
    failure, success = answer["failure"], answer["success"]
    if failure is not None:
        failure = {
            "mode": one_line(failure["mode"], _LONGEST),
            "actions": _quoted(failure["actions"], done),
            "turn": failure["turn"],
        }
    if success is not None:
        success = {
            "pattern": one_line(success["pattern"], _LONGEST),
            "actions": _quoted(success["actions"], done),
        }
    return Finding(
        task=group[0].goal,
        text=text,
        failure=failure,
        success=success,
        moment=_moment(answer["moment"]),
        skills={s["name"]: s["effect"] for s in answer["skills"] if s["name"] in shown},
        confidence=answer["confidence"],
    )


def _quoted(actions: Sequence[str], done: set[str]) -> list[str]:
    """The actions that really occur."""
    return [action for action in actions if action in done][:_SNIPPET]


def _moment(told: Mapping[str, str] | None) -> Mapping[str, str] | None:
    """A moment whose pattern can be used."""
    if told is None:
        return None
    try:
        compile_pattern(told["pattern"])
    except TriggerError:
        return None
    return dict(told) if told["pattern"] else None
