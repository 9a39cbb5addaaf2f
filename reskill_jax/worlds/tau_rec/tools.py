"""The six tools: each takes arguments as a mapping and returns a JSON text. None of them raises."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from .catalog import RESTRICTED, Catalog, Film, Task
from .search import SearchIndex

Arguments = Mapping[str, Any]

_RESULT_KEYS = ("id", "title", "genres", "release_date", "rating", "overview")
_IS_RESTRICTED = (
    "This rating is age-restricted. Confirm with the user that they are comfortable with mature "
    "content before recommending."
)
_NOT_RESTRICTED = "This rating is not age-restricted."
_ABSTAINED = "No recommendation made. Trial will end."


def _string(about: str) -> dict[str, Any]:
    return {"type": "string", "description": about}


def _schema(name: str, about: str, required: bool = True, **properties: Any) -> dict[str, Any]:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties) if required else [],
    }
    function = {"name": name, "description": about, "parameters": parameters}
    return {"type": "function", "function": function}


_FILM = _string("id of the film")
SCHEMAS: tuple[dict[str, Any], ...] = (
    _schema(
        "search_catalog",
        "Finds films by words of title, overview, genres, director and cast; 20 at most.",
        query=_string("words to look for"),
    ),
    _schema("get_metadata", "Everything the catalog says about a film.", item_id=_FILM),
    _schema(
        "check_availability",
        "Tells which of some streaming services have a film.",
        item_id=_FILM,
        services={
            "type": "array",
            "items": {"type": "string"},
            "description": "exact names of services",
        },
    ),
    _schema(
        "get_user_history",
        "The films that a user has watched and rated.",
        user_id=_string("id of the user"),
    ),
    _schema(
        "check_content_preference",
        "Tells whether a content rating is restricted by age.",
        content_rating=_string("such as PG-13"),
    ),
    _schema(
        "recommend",
        "Commits to a film, or to none if item_id is left out. This ends the conversation.",
        required=False,
        item_id=_FILM,
    ),
)
"""The tools as chat interfaces describe functions."""


class _BadArgument(Exception):
    """An argument that a tool cannot use; holds its name."""


class Toolkit:
    """The tools over a catalog and the history of a task's user."""

    def __init__(self, catalog: Catalog, index: SearchIndex, task: Task):
        """Holds what the tools read."""
        self._catalog, self._index, self._task = catalog, index, task
        self._tools: Mapping[str, Callable[[Arguments], str]] = {
            "search_catalog": self._search,
            "get_metadata": self._metadata,
            "check_availability": self._availability,
            "get_user_history": self._history,
            "check_content_preference": self._preference,
            "recommend": self._recommend,
        }

    def call(self, name: str, arguments: Any) -> str:
        """The result of a tool, or an error, as JSON.

        Args:
          name: of the tool.
          arguments: a mapping; of anything else it is said that it cannot be used.
        """
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None:
            return _error(f"Unknown tool: {name}")
        if not isinstance(arguments, Mapping):
            return _error("Arguments must be an object")
        try:
            return tool(arguments)
        except KeyError as error:
            return _error(f"Missing required argument: {error}")
        except _BadArgument as error:
            return _error(f"Invalid argument: '{error}'")

    def _search(self, arguments: Arguments) -> str:
        query = _text(arguments, "query")
        found = (self._catalog.get(item) for item, _ in self._index.search(query))
        return json.dumps([{key: film[key] for key in _RESULT_KEYS} for film in found if film])

    def _metadata(self, arguments: Arguments) -> str:
        film = self._film(arguments["item_id"])
        if isinstance(film, str):
            return film
        return json.dumps(film, ensure_ascii=False, separators=(",", ":"))

    def _availability(self, arguments: Arguments) -> str:
        item, services = arguments["item_id"], arguments["services"]
        film = self._film(item)
        if isinstance(film, str):
            return film
        if not isinstance(services, list | tuple) or not all(isinstance(s, str) for s in services):
            raise _BadArgument("services")
        return json.dumps({one: one in film["streaming_services"] for one in services})

    def _history(self, arguments: Arguments) -> str:
        user = arguments["user_id"]
        history = self._task.user_history.get(user) if isinstance(user, str) else None
        if history is None:
            return _error(f"User not found: {_shown(user)}")
        watched = [{"id": item, "title": self._title(item)} for item in history.get("watched", ())]
        return json.dumps({**history, "watched": watched})

    def _preference(self, arguments: Arguments) -> str:
        rating = arguments["content_rating"]
        if isinstance(rating, list | tuple | Mapping):
            raise _BadArgument("content_rating")
        restricted = rating in RESTRICTED
        message = _IS_RESTRICTED if restricted else _NOT_RESTRICTED
        told = {"restricted": restricted, "rating": rating, "message": message}
        return json.dumps(told, default=repr)

    def _recommend(self, arguments: Arguments) -> str:
        item = arguments.get("item_id")
        if item is None or item == "":
            return json.dumps({"status": "abstained", "message": _ABSTAINED})
        film = self._film(item)
        if isinstance(film, str):
            return film
        return json.dumps({"status": "recommended", "id": film["id"], "title": film["title"]})

    def _film(self, item: Any) -> Film | str:
        """A film, or the error that there is none."""
        return self._catalog.get(item) or _error(f"Movie not found: {_shown(item)}")

    def _title(self, item: Any) -> str:
        film = self._catalog.get(item)
        return film["title"] if film else "Unknown"


def _text(arguments: Arguments, name: str) -> str:
    value = arguments[name]
    if not isinstance(value, str):
        raise _BadArgument(name)
    return value


def _shown(value: Any) -> str:
    """A value in a message: a text as it is, anything else without going into it."""
    if isinstance(value, str | int | float) or value is None:
        return f"{value}"
    return type(value).__name__


def _error(message: str) -> str:
    return json.dumps({"error": message})
