"""What a checkpoint holds beside arrays: JSON values, and a configuration to be compared."""

import dataclasses
import json
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from reskill_jax.storage.checkpoint_files import CheckpointError


def plain_config(config: Any) -> Any:
    """A dataclass or a mapping as JSON values."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        config = dataclasses.asdict(config)
    return _plain(config)


def _plain(value: Any) -> Any:
    """Mappings, sequences, paths and enums of a configuration as JSON values."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(item) for item in value]
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "value") and hasattr(value, "name"):  # an enum member
        return _plain(value.value)
    return value


def to_json(value: Any, name: str) -> str:
    """JSON of a value.

    Raises:
      CheckpointError: something in it is no JSON value; `name` tells of what.
    """
    _check_json(value, name)
    return json.dumps(value, indent=1)


def _check_json(value: Any, name: str) -> None:
    if value is None or isinstance(value, (bool, int, float, str)):
        if isinstance(value, np.generic):
            raise CheckpointError(f"{name} is a {type(value).__name__}, no JSON value")
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise CheckpointError(f"{name} has the key {key!r}, which is no string")
            _check_json(item, f"{name}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_json(item, f"{name}[{index}]")
    else:
        raise CheckpointError(f"{name} is a {type(value).__name__}, no JSON value")


def differences(stored: Any, now: Any, name: str = "") -> list[tuple[str, str]]:
    """(dotted name, what it is and was) of every field in which two configurations differ."""
    if isinstance(stored, dict) and isinstance(now, dict):
        found = []
        for key in [*now, *(key for key in stored if key not in now)]:
            field = f"{name}.{key}" if name else key
            if key not in stored:
                found.append((field, f"{field} (not in the checkpoint, now {_show(now[key])})"))
            elif key not in now:
                found.append((field, f"{field} (checkpoint {_show(stored[key])}, unknown now)"))
            else:
                found += differences(stored[key], now[key], field)
        return found
    if json.dumps(stored) == json.dumps(now):  # by text, so that nan equals nan and 1 is not 1.0
        return []
    return [(name, f"{name} (checkpoint {_show(stored)}, now {_show(now)})")]


def is_under(name: str, fields: Collection[str]) -> bool:
    """Whether a dotted name is one of these fields or lies in one."""
    return any(name == field or name.startswith(field + ".") for field in fields)


def _show(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
