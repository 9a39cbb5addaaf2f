"""How an action of any world is read: as words, as a call, as a tool call in JSON, or as a tag.

Nothing is known of the world. What is read of an action is bounded, whatever it holds.
"""

import functools
import json
import string
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

MOST_TEXT = 4000  # characters of an action that are read
LONGEST_VERB = 32
VERB_WORDS = 3
# Words that complete a verb: "go to", "pick up", "get out of".
PARTICLES = frozenset(
    "about across after against along around aside at away back before behind below beside between "
    "by down for from in inside into near of off on onto out outside over past through to toward "
    "towards under up upon with".split()
)
# Words that neither begin an action nor name a thing.
FUNCTION_WORDS = frozenset(
    "a an the this that these those i you he she it we they me him us them my your his her its our "
    "their and or but so if because than then as not no is am are was were be been does did has "
    "have had will would can could should may might must there here some any all each every "
    "what which who when where how why".split()
)
_CLOSED = PARTICLES | FUNCTION_WORDS
COMPLETING = _CLOSED - {"not"}  # words that a verb may end with
_MOST_WORDS = 16  # of an action in words; what is longer is prose
_MOST_ARGUMENTS = 200
_ARGUMENT_WORDS = 4  # of an argument; what is longer is prose
_LONGEST_NOUN = 24
_EDGES = string.punctuation + "。，、！？；：「」『』（）《》…“”‘’«»¿¡"
_NAME_MARKS = frozenset("_-.:/")
_CONTROL = {code: " " for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_AROUND_ARGUMENTS = str.maketrans(dict.fromkeys("=:\"'()[]{}", " ") | {";": ","})
_NAME_KEYS = ("name", "tool", "tool_name", "function", "action")
_ARGUMENT_KEYS = ("arguments", "parameters", "args", "input")
# Between this and the name's closing quote stands the name of the tool.
TOOL_NAME = rf'"(?:{"|".join(_NAME_KEYS)})"\s*:\s*"'
_WRAPPERS = ("tool_call", "function_call")  # tags around a tool call


Words = tuple[str, ...]


class Utterance(NamedTuple):
    """An action as it is read."""

    form: str  # "words" | "call" | "tool" | "tag"; "" = not understood
    name: str = ""  # of what is called; "" of words
    words: Words = ()  # in lower case: all of them, or those of the arguments that name things
    behind: bool = False  # whether the name of a tool stands behind its arguments


_NOTHING = Utterance("")


def encodable_text(text: str) -> str:
    """A text without lone surrogates, which no pattern can be searched in."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


@functools.lru_cache(maxsize=1 << 14)  # the same few thousand actions are read at every proposal
def read_action(action: str) -> Utterance:
    """Reads an action.

    Args:
      action: any text; only its first MOST_TEXT characters are looked at.
    """
    text = encodable_text(action[:MOST_TEXT]).strip()
    found = _tool(text) or _tag(text) or _call(text)
    if found is not None:
        return found
    parts = text.split(maxsplit=_MOST_WORDS)
    if "\n" in text or len(parts) > _MOST_WORDS:
        return _NOTHING
    words = _words(text) or tuple(text.translate(_CONTROL).split()[:1])  # "+" is a word, if alone
    return Utterance("words", words=words) if words else _NOTHING


def noun_of(word: str) -> str | None:
    """The name of a thing in a word, its number or id stripped: "mug", "mug_1", "mug2" -> "mug"."""
    noun = word.rstrip(string.digits + "_-#.:")
    plain = noun.replace("_", "").replace("-", "")
    return noun if plain.isalpha() and len(noun) <= _LONGEST_NOUN else None


def content_words(words: Iterable[str]) -> Words:
    """Words of a phrase without those that name nothing."""
    return tuple(
        word for word in words if word not in _CLOSED and not (len(word) == 1 and word.isascii())
    )


def shortened(action: str) -> str:
    """An action of at most about MOST_TEXT characters that is read as the whole one is."""
    if len(action) <= MOST_TEXT:
        return action
    found = _tool(action.strip())
    if found is None:
        return action[:MOST_TEXT]
    call = {"arguments": list(found.words), "name": found.name}
    return json.dumps(call, ensure_ascii=False)[:MOST_TEXT]


def _named(argument: str) -> Words:
    """The words of an argument that name things; one that stands alone does, whatever it is."""
    words = _words(argument)
    return words if len(words) == 1 else content_words(words)


def _words(text: str) -> Words:
    stripped = (part.strip(_EDGES) for part in text.translate(_CONTROL).lower().split())
    return tuple(word for word in stripped if word)


def _is_name(text: str) -> bool:
    """Whether a tool, a function or a tag can be called so."""
    return (
        0 < len(text) <= LONGEST_VERB
        and (text[0].isalpha() or text[0] == "_")
        and all(char.isalnum() or char in _NAME_MARKS for char in text)
    )


def _tool(text: str) -> Utterance | None:
    """A tool call in JSON, perhaps in a list or in a fenced block."""
    start = text.find("{")
    if start < 0 or text[:start].strip("`[ \n\r\t").removeprefix("json"):
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None
    inner = found.get("function")
    found = inner if isinstance(inner, Mapping) else found
    names = [found[key] for key in _NAME_KEYS if isinstance(found.get(key), str)]
    # A name that is written otherwise, as with escapes, could not be searched for.
    if not names or not _is_name(names[0]) or f'"{names[0]}"' not in text:
        return None
    arguments = next((key for key in _ARGUMENT_KEYS if key in found), None)
    words = () if arguments is None else _argument_words(found[arguments])
    behind = arguments is not None and text.rfind(f'"{names[0]}"') > text.find(f'"{arguments}"')
    return Utterance("tool", names[0], words, behind)


def _argument_words(value: Any) -> Words:
    """The words of short texts among arguments, in the order in which they stand."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):  # some quote them once more
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    words: list[str] = []
    waiting = [value]
    for _ in range(_MOST_ARGUMENTS):
        if not waiting:
            break
        one = waiting.pop()
        if isinstance(one, Mapping):
            waiting += list(one.values())[_MOST_ARGUMENTS::-1]
        elif isinstance(one, list):
            waiting += one[_MOST_ARGUMENTS::-1]
        elif isinstance(one, str) and len(one.split(maxsplit=_ARGUMENT_WORDS)) <= _ARGUMENT_WORDS:
            words += _named(encodable_text(one[:MOST_TEXT]))
    return tuple(word for word in words if len(word) <= LONGEST_VERB)


def _tag(text: str) -> Utterance | None:
    """A tag and what it encloses: <search>rain in may</search>."""
    if not text.startswith("<"):
        return None
    head, closed, rest = text[1:].partition(">")
    name = (head.split() or [""])[0].rstrip("/")
    if not closed or head[:1].isspace() or not _is_name(name):
        return None
    inside = rest.partition("</")[0]
    if name in _WRAPPERS and (call := _tool(inside.strip())) is not None:
        return call
    return Utterance("tag", name, _named(inside))


def _call(text: str) -> Utterance | None:
    """A function and its arguments: click[Buy Now], goto(3, "kitchen")."""
    ends = [at for at in (text.find("["), text.find("(")) if at > 0]
    if not ends or text[-1] not in ")]" or not _is_name(text[: min(ends)]):
        return None
    arguments = text[min(ends) :].translate(_AROUND_ARGUMENTS).split(",")
    words = tuple(word for argument in arguments for word in _named(argument))
    return Utterance("call", text[: min(ends)], words)
