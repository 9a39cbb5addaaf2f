"""What a session says, as it travels from where it runs: plain, checked, of bounded size.

A worker process answers in JSON, so nothing that a world says is ever unpickled.
"""

import json
import math
from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

MOST_CHOICES = 4096
MOST_OF_A_CHOICE = 1000  # characters


class Reply(NamedTuple):
    """The answer to a call of a session."""

    place: int  # that the session was opened for
    observation: str = ""
    choices: tuple[str, ...] | None = None  # answers that are possible now; None = any text
    reward: float | None = None  # None = as success says
    success: bool = False
    done: bool = False
    cut: bool = False  # whether the observation was longer than it may be
    cause: str = ""  # why the episode is invalid; "" = it is not
    detail: str = ""  # one line about it

    @property
    def failed(self) -> bool:
        """Whether the session is lost."""
        return bool(self.cause)


class SessionError(ValueError):
    """A session that says what no session may say."""


def reply_of(place: int, outcome: Any, choices: Any, *, most: int) -> Reply:
    """The outcome of a call, checked.

    Args:
      place: of the session.
      outcome: a text (of `reset`), or whatever has the fields of an `Outcome`.
      choices: what `choices()` says.
      most: characters of an observation that are kept.

    Raises:
      SessionError: it is none.
    """
    if isinstance(outcome, str):
        text, reward, success, done = outcome, None, False, False
    elif not hasattr(outcome, "observation"):
        raise SessionError(f"{type(outcome).__name__} is no outcome: it has no observation")
    else:
        text, reward = outcome.observation, _number(getattr(outcome, "reward", None))
        success, done = (_flag(outcome, name) for name in ("success", "done"))
    if not isinstance(text, str):
        raise SessionError(f"an observation is a text, not {type(text).__name__}")
    cut = len(text) > most
    return Reply(place, text[:most], choices_of(choices), reward, success, done, cut)


def choices_of(choices: Any) -> tuple[str, ...] | None:
    """What `choices()` says, checked; each choice once.

    Raises:
      SessionError: it is neither None nor a list of texts.
    """
    if choices is None:
        return None
    # A text would be one choice per letter, and a set another order in every process.
    if isinstance(choices, str | bytes | set | frozenset) or not isinstance(choices, Iterable):
        raise SessionError(f"choices are a list of texts, not {type(choices).__name__}")
    found = list(islice(choices, MOST_CHOICES + 1))
    if not 1 <= len(found) <= MOST_CHOICES:
        count = f"more than {MOST_CHOICES}" if found else "no"
        raise SessionError(f"{count} choices; there have to be 1 to {MOST_CHOICES}")
    for choice in found:
        if not isinstance(choice, str) or not choice.strip() or len(choice) > MOST_OF_A_CHOICE:
            raise SessionError(
                f"{choice!r:.60} is no choice: a text of 1 to {MOST_OF_A_CHOICE} characters is"
            )
    return tuple(dict.fromkeys(found))


def _number(reward: Any) -> float | None:
    if reward is None:
        return None
    try:
        number = math.nan if isinstance(reward, str | bytes) else float(reward)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise SessionError(f"a reward is a finite number, not {reward!r:.60}")
    return number


def _flag(outcome: Any, name: str) -> bool:
    """Texts and methods are not taken for true because they are there."""
    value = getattr(outcome, name, False)
    try:
        if hasattr(type(value), "__bool__"):
            return bool(value)
    except (TypeError, ValueError):  # as of an array of several
        pass
    raise SessionError(f"{name} is true or false, not {type(value).__name__}")


def failed(place: int, cause: str, detail: str = "") -> Reply:
    """The reply of a session that is lost."""
    line = " ".join(detail.split())[:300]
    told = "".join(letter if letter.isprintable() else "?" for letter in line)
    return Reply(place, cause=cause, detail=told)


def line_of(error: BaseException) -> str:
    """An error in one line: its type, and what it says."""
    try:
        said = " ".join(str(error).split())
    except Exception:  # it cannot even say what it is
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def encode(reply: Reply) -> bytes:
    """As JSON; a lone surrogate stays what it is."""
    return json.dumps(reply._asdict(), ensure_ascii=False).encode("utf-8", "surrogatepass")


def decode(data: bytes) -> Reply:
    """Reads `encode`. Raises ValueError."""
    try:
        found = json.loads(data.decode("utf-8", "surrogatepass"))
        choices = found["choices"]
        return Reply(**{**found, "choices": None if choices is None else tuple(choices)})
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no reply ({line_of(error)})") from None
