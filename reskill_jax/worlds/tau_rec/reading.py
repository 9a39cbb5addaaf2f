"""Reads and checks the benchmark's files: catalog.json, tasks/*.json, policy.md."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .catalog import OPERATORS, REVEALS, Catalog, Constraint, Task, TauRecError

CATALOG, TASKS, POLICY = "catalog.json", "tasks", "policy.md"
MOST_BYTES = 64 << 20  # of a file
MOST_TASKS = 10_000

_TEXTS = ("id", "title", "release_date", "overview", "director", "content_rating")
_LISTS = ("genres", "cast", "streaming_services")


class Data(NamedTuple):
    """What a folder holds.

    Attributes:
      catalog: of films. tasks: by id, in the order of their files.
      policy: what the agent is told to heed.
      digests: SHA-256 of "catalog" and "policy", and of "tasks" that of the lines "name:sha256" of
        their files; results with other digests are of other data.
    """

    catalog: Catalog
    tasks: Mapping[str, Task]
    policy: str
    digests: Mapping[str, str]


def read_folder(folder: str | Path) -> Data:
    """Reads a folder of the benchmark's data.

    Raises:
      TauRecError: something is missing or is not as it should be; the message says where.
    """
    folder = Path(folder)
    films, policy = _bytes(folder / CATALOG), _bytes(folder / POLICY)
    found = sorted((folder / TASKS).glob("*.json"))
    if not found:
        raise TauRecError(f"{folder / TASKS}: there are no tasks (*.json)")
    if len(found) > MOST_TASKS:
        raise TauRecError(f"{folder / TASKS}: more than {MOST_TASKS} tasks")
    texts = {path: _bytes(path) for path in found}
    tasks = [task_of(_json(path, text), where=str(path)) for path, text in texts.items()]
    by_id = {task.id: task for task in tasks}
    if len(by_id) < len(tasks):
        raise TauRecError(f"{folder / TASKS}: two tasks have the same id")
    lines = "".join(f"{path.name}:{_digest(text)}\n" for path, text in texts.items())
    digests = {"catalog": _digest(films), "policy": _digest(policy)}
    digests["tasks"] = _digest(lines.encode())
    catalog = catalog_of(_json(folder / CATALOG, films), where=str(folder / CATALOG))
    return Data(catalog, by_id, policy.decode("utf-8", "replace"), digests)


def catalog_of(films: Any, *, where: str = "catalog") -> Catalog:
    """A catalog from the list that its file holds.

    Raises:
      TauRecError: a film is not as it should be.
    """
    if not isinstance(films, list):
        raise TauRecError(f"{where}: expected a list of films, found {type(films).__name__}")
    for number, film in enumerate(films, start=1):
        _check_film(film, f"{where}, film {number}")
    return Catalog(films)


def _check_film(film: Any, where: str) -> None:
    _need(isinstance(film, dict), where, "is no object")
    for name in _TEXTS:
        _need(isinstance(film.get(name), str), where, f"'{name}' should be a text")
    for name in _LISTS:
        _need(_is_texts(film.get(name)), where, f"'{name}' should be a list of texts")
    for name in ("runtime", "rating"):
        good = isinstance(film.get(name), int | float) and not isinstance(film[name], bool)
        _need(good, where, f"'{name}' should be a number")
    _need(isinstance(film.get("sponsored"), bool), where, "'sponsored' should be true or false")


def task_of(data: Any, *, where: str = "task") -> Task:
    """A task from the object that its file holds.

    Raises:
      TauRecError: it is not as it should be.
    """
    _need(isinstance(data, dict), where, "is no object")
    _need(isinstance(data.get("id"), str) and data["id"], where, "'id' should be a text")
    for name in ("soft_preferences", "policy_flags", "user_services"):
        _need(_is_texts(data.get(name, [])), where, f"'{name}' should be a list of texts")
    listed = data.get("constraints")
    _need(isinstance(listed, list), where, "'constraints' should be a list")
    history = data.get("user_history", {})
    good = isinstance(history, dict) and all(
        isinstance(one, dict) and _is_texts(one.get("watched", [])) for one in history.values()
    )
    _need(good, where, "'user_history' should hold a list 'watched' for every user")
    return Task(
        id=data["id"],
        constraints=tuple(
            _constraint(one, f"{where}, constraint {number}")
            for number, one in enumerate(listed, start=1)
        ),
        policy_flags=tuple(data.get("policy_flags", ())),
        no_valid_recommendation=bool(data.get("no_valid_recommendation", False)),
        persona=str(data.get("persona", "")),
        soft_preferences=tuple(data.get("soft_preferences", ())),
        complexity=str(data.get("complexity", "")),
        reveal_difficulty=str(data.get("reveal_difficulty", "")),
        user_id=str(data.get("user_id", "user_1")),
        user_history=history,
        user_services=tuple(data.get("user_services", ())),
    )


def _constraint(data: Any, where: str) -> Constraint:
    inner = data.get("constraint") if isinstance(data, dict) else None
    _need(isinstance(inner, dict), where, "has no 'constraint'")
    assert isinstance(inner, dict)
    field: Any = inner.get("field")
    op: Any = inner.get("op")
    value = inner.get("value")
    _need(isinstance(field, str), where, "'field' should be a text")
    _need(
        isinstance(op, str) and op in OPERATORS,
        where,
        f"'op' should be one of {' '.join(OPERATORS)}",
    )
    _need(data.get("reveal") in REVEALS, where, f"'reveal' should be one of {', '.join(REVEALS)}")
    if op in ("contains_any", "in"):
        _need(isinstance(value, list), where, f"'value' of {op} should be a list")
    return Constraint(field, op, tuple(value) if isinstance(value, list) else value, data["reveal"])


def _need(good: Any, where: str, what: str) -> None:
    if not good:
        raise TauRecError(f"{where}: {what}")


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise TauRecError(f"{path}: cannot be read ({error.strerror})") from error
    if len(data) > MOST_BYTES:
        raise TauRecError(f"{path}: more than {MOST_BYTES} bytes")
    return data


def _json(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise TauRecError(f"{path}: not JSON") from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
