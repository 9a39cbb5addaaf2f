"""From the text of a reply to checked data: nothing in it is trusted, nothing of it is run."""

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from .call import MAX_REPLY

MAX_ITEMS = 64  # of a list in an answer; more are not looked at
MAX_TEXT = 1000  # characters of a text in an answer
MAX_DEPTH = 12  # of an answer; the schemas need 6
_THOUGHTS = (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"))


class ReplyError(ValueError):
    """A reply that cannot be used; the message is one line of feedback for the model."""


def parse_reply(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The answer in a reply: the outermost JSON object, checked against its schema.

    Args:
      text: of the reply, perhaps with thoughts before and a fence around the object.
      schema: one of `schemas.SCHEMAS`.

    Returns:
      The object; its lists are cut to MAX_ITEMS, its texts are as they came (see `one_line`).

    Raises:
      ReplyError: there is none, or not of this shape.
    """
    value = _object_in(text[:MAX_REPLY])
    _check_depth(value, MAX_DEPTH)
    problem = mismatch(value, schema)
    if problem is not None:
        raise ReplyError(problem)
    return value


def _object_in(text: str) -> Any:
    """The outermost object of a reply, behind its thoughts if it has some."""
    text = text.strip().removeprefix("\ufeff")
    if not text.startswith(("{", "```")):
        for opened, closed in _THOUGHTS:
            if closed in text:
                text = text.partition(closed)[2]
            elif text.startswith(opened):
                raise ReplyError("it holds thoughts that do not end, and no JSON object.")
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ReplyError("it holds no JSON object.")
    try:
        # Models with a grammar put raw line breaks into texts.
        return json.loads(text[start : end + 1], strict=False, parse_constant=_no_constant)
    except RecursionError:
        raise ReplyError("it is nested too deeply.") from None
    except ValueError as error:
        reason = str(error).split(":")[0]
        raise ReplyError(f"it is no valid JSON ({reason[:80]}).") from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ReplyError("it is nested too deeply.")
    if isinstance(value, dict):
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        _check_depth(item, left - 1)


def mismatch(value: Any, schema: Mapping[str, Any], where: str = "the answer") -> str | None:
    """Where a value is not as a schema says, in one line; None = it is.

    Lists that are too long are cut, and properties that the schema does not know are dropped, in
    place: models that no grammar holds add both.

    Args:
      value: of JSON types.
      schema: of the keywords that `schemas` uses: type, enum, properties, items, anyOf.
      where: what the value is called.
    """
    if "anyOf" in schema:
        if value is None:
            return None
        return mismatch(value, schema["anyOf"][0], where)
    kind = schema["type"]
    if kind == "object":
        return _mismatch_of_object(value, schema, where)
    if kind == "array":
        if not isinstance(value, list):
            return f"{where} must be a list."
        del value[MAX_ITEMS:]
        found = (mismatch(v, schema["items"], f"{where}[{i}]") for i, v in enumerate(value))
        return next((problem for problem in found if problem is not None), None)
    if kind == "integer":
        good = isinstance(value, int) and not isinstance(value, bool)
        return None if good else f"{where} must be an integer."
    if not isinstance(value, str):
        return f"{where} must be a text."
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(schema['enum'])}."
    return None


def _mismatch_of_object(value: Any, schema: Mapping[str, Any], where: str) -> str | None:
    if not isinstance(value, dict):
        return f"{where} must be an object."
    known = schema["properties"]
    for name in [name for name in value if name not in known]:
        del value[name]
    for name, inner in known.items():
        if name not in value:
            if "anyOf" not in inner:
                return f"{where} lacks '{name}'."
            value[name] = None
        problem = mismatch(value[name], inner, name if where == "the answer" else f"{where}.{name}")
        if problem is not None:
            return problem
    return None


def one_line(text: str, most: int = MAX_TEXT) -> str:
    """A text of a reply as one printable line: spaces for white space, nothing invisible."""
    seen = "".join(c if _is_seen(c) else " " for c in text[: 4 * most])
    seen = " ".join(seen.split())
    return seen if len(seen) <= most else seen[: most - 1] + "…"


def _is_seen(letter: str) -> bool:
    return unicodedata.category(letter)[0] != "C"


def unseen_in(text: str) -> str | None:
    """The first character that a reader does not see, white space aside, as U+XXXX."""
    for letter in text:
        if not _is_seen(letter) and letter not in "\t\n\r":
            return f"U+{ord(letter):04X}"
    return None


def numbers_in(values: Sequence[Any], count: int) -> tuple[int, ...]:
    """Those of some numbers that name one of `count` things, each once."""
    return tuple(dict.fromkeys(v for v in values if 0 <= v < count))
