"""The words of the scripted user, both ways: what it says, and what that means."""

import json
import re
from typing import Any, NamedTuple

from .catalog import OPERATORS, Catalog, Constraint, Film

FIRST = "I'm looking for "
NO_WISHES = "a film for tonight"
NOTHING_TO_TELL = "No wishes about that."
NAME_ONE = "Please name one film."
SETTLE = "Please settle on one film."
MY_SERVICES, ALL_SERVICES = "I have ", "I have all the big services"

_GENRE = re.compile("a (.+) film")
_NOT_GENRE = re.compile("not a (.+) film")
_RUNTIME = re.compile(r"at (most|least) (\d+) minutes long")
_RATING = re.compile(r"rated ([\d.]+) or better by viewers")
_CONTENT = re.compile("with the content rating (.+)")
_SERVICES = re.compile("to be had on (.+)")
_OTHER = re.compile(r"with (\w+) (\S+) (.+)")

# Where a word of a topic begins a word of the question, the question is about the topic.
_TOPICS = {
    "runtime": r"\b(long|length|runtime|minutes|hours|short)",
    "genres": r"\b(genre|kind|type|mood|style)",
    "rating": r"\b(score|viewer rating|well liked|reviews)",
    "content_rating": r"\b(content rating|ages?\b|mature|family|kids|rated)",
    "streaming_services": r"\b(stream|service|platform|subscribe|subscription)",
}
_TOPIC_WORDS = {field: re.compile(words, re.IGNORECASE) for field, words in _TOPICS.items()}


def phrase(constraint: Constraint) -> str:
    """How a wish is said; `wish_of` reads it."""
    field, op, value = constraint.field, constraint.op, constraint.value
    match field, op:
        case "genres", "contains":
            return f"a {value} film"
        case "genres", "not_contains":
            return f"not a {value} film"
        case "runtime", "<=":
            return f"at most {value} minutes long"
        case "runtime", ">=":
            return f"at least {value} minutes long"
        case "rating", ">=":
            return f"rated {value} or better by viewers"
        case "content_rating", "==":
            return f"with the content rating {value}"
        case "content_rating", "in":
            return f"with the content rating {' or '.join(value)}"
        case "streaming_services", "contains_any":
            return f"to be had on {' or '.join(value)}"
    return f"with {field} {op} {json.dumps(value)}"


def wish_of(text: str) -> Constraint | None:
    """The wish that a phrase says; None = it is no phrase of `phrase`."""
    if found := _NOT_GENRE.fullmatch(text):
        return Constraint("genres", "not_contains", found[1])
    if found := _GENRE.fullmatch(text):
        return Constraint("genres", "contains", found[1])
    if found := _RUNTIME.fullmatch(text):
        return Constraint("runtime", "<=" if found[1] == "most" else ">=", int(found[2]))
    if found := _RATING.fullmatch(text):
        return Constraint("rating", ">=", float(found[1]))
    if found := _CONTENT.fullmatch(text):
        return Constraint("content_rating", "in", tuple(found[1].split(" or ")))
    if found := _SERVICES.fullmatch(text):
        return Constraint("streaming_services", "contains_any", tuple(found[1].split(" or ")))
    found = _OTHER.fullmatch(text)
    if not found or found[2] not in OPERATORS:
        return None
    try:
        value = json.loads(found[3])
    except (ValueError, RecursionError):
        return None
    return Constraint(found[1], found[2], tuple(value) if isinstance(value, list) else value)


_HINTS = {
    ("runtime", "<="): "That is too long for me.",
    ("runtime", ">="): "That is too short for me.",
    ("rating", ">="): "I want something that is liked better.",
    ("genres", "contains"): "That is not the kind of film I want.",
    ("genres", "not_contains"): "There is something in its genre that I do not want.",
}
_HINTS_BY_FIELD = {
    "content_rating": "That is not for the right age.",
    "streaming_services": "I cannot get that one.",
}


def hint(constraint: Constraint) -> str:
    """What is said about a hidden wish: the direction, not the value."""
    found = _HINTS.get((constraint.field, constraint.op))
    return found or _HINTS_BY_FIELD.get(constraint.field, "That is not quite it.")


def learned_from(text: str, film: Film) -> Constraint | None:
    """What a hint tells after a film was offered; None = nothing but that it is not this one."""
    match next((key for key, said in _HINTS.items() if said in text), None):
        case "runtime", "<=":
            return Constraint("runtime", "<=", film["runtime"] - 1)
        case "runtime", ">=":
            return Constraint("runtime", ">=", film["runtime"] + 1)
        case "rating", ">=":
            return Constraint("rating", ">=", film["rating"] + 1e-6)
    if _HINTS_BY_FIELD["content_rating"] in text:
        return Constraint("content_rating", "!=", film["content_rating"])
    return None


def topics_in(text: str) -> list[str]:
    """Fields of a film that a question is about."""
    return [field for field, words in _TOPIC_WORDS.items() if words.search(text)]


class Told(NamedTuple):
    """What a message of the scripted user says.

    Attributes:
      wishes: about the film.
      services: that the user has; () = all the big ones; None = it does not say.
    """

    wishes: tuple[Constraint, ...]
    services: tuple[str, ...] | None


def read(text: str) -> Told:
    """What a message of the scripted user says."""
    wishes: list[Constraint] = []
    services: tuple[str, ...] | None = None
    text = text.split("### ")[-1].strip()
    for part in text.removeprefix(FIRST).split("; "):
        part = part.strip().removesuffix(".")
        if part == ALL_SERVICES:
            services = ()
        elif part.startswith(MY_SERVICES):
            services = tuple(part.removeprefix(MY_SERVICES).split(", "))
        elif wish := wish_of(part):
            wishes.append(wish)
    return Told(tuple(wishes), services)


class Titles:
    """Finds titles in a text: the longest first, whole words, whatever the case."""

    def __init__(self, catalog: Catalog):
        """Sorts the titles."""
        named = [(film["title"].lower(), film) for film in catalog.films if film["title"].strip()]
        self._titles = sorted(named, key=lambda one: -len(one[0]))

    def split(self, text: str) -> tuple[list[Film], str]:
        """The films that are named, and the text without their titles."""
        left, found = text.lower(), []
        for title, film in self._titles:
            at = left.find(title)
            while at >= 0:
                end = at + len(title)
                if _is_apart(left, at, end):
                    found.append(film)
                    left = f"{left[:at]}\0{left[end:]}"
                at = left.find(title, at + 1)
        return list({film["id"]: film for film in found}.values()), left


def _is_apart(text: str, start: int, end: int) -> bool:
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() and text[start].isalnum()) and not (
        after.isalnum() and text[end - 1].isalnum()
    )


_MINUTES = re.compile(r"\b(\d{1,4})[ -]?min")
_SCORE = re.compile(r"\b(?:rating|rated|score|scored)(?: of| is|:)? (\d{1,2}(?:\.\d{1,4})?)\b")
_OF_TEN = re.compile(r"\b(\d{1,2}(?:\.\d{1,4})?) ?/ ?10\b")
_CONTENT_RATING = re.compile(r"\b(nc-17|pg-13|pg|nr|r|g)\b(?!-)")


class Facts:
    """Reads what an agent's message states about a film: runtime, rating, genres, and so on."""

    def __init__(self, catalog: Catalog):
        """Collects the words of the catalog."""
        self._genres = _names(catalog, "genres")
        self._services = _names(catalog, "streaming_services")

    def stated(self, text: str) -> dict[str, Any]:
        """Fields of a film that a text without titles states; others are not there.

        Genres count as all the genres of the film, once one of them is named.
        """
        text, found = text.lower(), dict[str, Any]()
        if minutes := _MINUTES.search(text):
            found["runtime"] = int(minutes[1])
        if score := _OF_TEN.search(text) or _SCORE.search(text):
            found["rating"] = float(score[1])
        if content := _CONTENT_RATING.search(text):
            found["content_rating"] = content[1].upper()
        for field, names in (("genres", self._genres), ("streaming_services", self._services)):
            named = [name for low, name in names if _holds_word(text, low)]
            if named:
                found[field] = named
        return found


def _names(catalog: Catalog, field: str) -> list[tuple[str, str]]:
    every = dict.fromkeys(name for film in catalog.films for name in film[field])
    return [(name.lower(), name) for name in every]


def _holds_word(text: str, word: str) -> bool:
    at = text.find(word)
    while at >= 0:
        if _is_apart(text, at, at + len(word)):
            return True
        at = text.find(word, at + 1)
    return False
