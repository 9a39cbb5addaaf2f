"""Configuration files: JSON or YAML onto a dataclass, every mistake named in one line."""

import dataclasses
import difflib
import enum
import json
import os
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

T = TypeVar("T")
MAX_BYTES = 1 << 20


class _Loader(yaml.SafeLoader):
    """Safe loading without aliases: a few of them can stand for more values than fit in memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        return super().compose_node(parent, index)


class ConfigError(ValueError):
    """A configuration that is not valid; the message says where and why in one line."""


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a .json, .yaml or .yml file that holds a mapping.

    Raises:
      ConfigError: no such file, another ending, not valid, or no mapping.
    """
    path = Path(path)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ConfigError(f"{path}: a configuration ends in .json, .yaml or .yml")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path}: a configuration has at most {MAX_BYTES} bytes")
        text = data.decode("utf-8")
        if path.suffix == ".json":
            values = json.loads(text)
        else:
            values = yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f"{path} cannot be read: it is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason[:200]}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds a {type(values).__name__}, not a mapping of options")
    values.pop("provenance", None)  # what a run adds to its config.json, see `provenance`
    return values


def apply_config(default: T, values: Mapping[str, Any], *, where: str, under: str = "") -> T:
    """A copy of a dataclass with some fields replaced.

    Args:
      default: the dataclass, nested dataclasses included.
      values: field names (nested mappings, or dotted keys) to values of JSON types.
      where: what an error names, e.g. the file.
      under: the dotted name of `default` inside the whole configuration.

    Raises:
      ConfigError: an unknown key (the nearest valid one is named), a value of another type, or one
        that the dataclass refuses.
    """
    assert dataclasses.is_dataclass(default) and not isinstance(default, type)
    fields = {field.name: field for field in dataclasses.fields(default) if field.init}
    hints = typing.get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for key, value in _nested(values, where).items():
        name = f"{under}.{key}" if under else str(key)
        if key not in fields:
            known = ", ".join(f"{under}.{field}" if under else field for field in fields)
            near = nearest(str(key), fields)
            hint = f"did you mean '{f'{under}.' if under else ''}{near}'?" if near else f"({known})"
            raise ConfigError(f"{where}: unknown key {name[:60]!r}; {hint}")
        old = getattr(default, key)
        if dataclasses.is_dataclass(old) and isinstance(value, Mapping):
            changes[key] = apply_config(old, value, where=where, under=name)
        else:
            changes[key] = _converted(value, hints[key], f"{where}: '{name}'")
    try:
        return dataclasses.replace(default, **changes)  # type: ignore[type-var]
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def nearest(name: str, known: Any) -> str | None:
    """The most similar of some names, if one is similar at all."""
    by_folded = {str(one).replace("-", "_").lower(): str(one) for one in known}
    found = difflib.get_close_matches(name.replace("-", "_").lower(), by_folded, n=1, cutoff=0.5)
    return by_folded[found[0]] if found else None


def _nested(values: Mapping[Any, Any], where: str) -> dict[Any, Any]:
    """Dotted keys as nested mappings: {"optimizer.rate": 1} -> {"optimizer": {"rate": 1}}."""
    out: dict[Any, Any] = {}
    for key, value in values.items():
        head, dot, rest = str(key).partition(".")
        if dot:
            value = {rest: value}
        if isinstance(out.get(head), Mapping) and isinstance(value, Mapping):
            value = {**out[head], **value}
        elif head in out:
            raise ConfigError(f"{where}: {head[:60]!r} is given twice")
        out[head] = value
    return out


def _converted(value: Any, hint: Any, name: str) -> Any:
    """A JSON value as the annotated type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _converted(value, arguments[0], name)
    if hint is Any or (hint is type(None) and value is None):
        return value
    if origin in (Union, types.UnionType):
        for option in arguments:
            try:
                return _converted(value, option, name)
            except ConfigError:
                continue
        wanted = " or ".join(_type_name(option) for option in arguments)
        raise _wrong(value, wanted, name)
    if origin is Literal:
        if value in arguments:
            return value
        raise _wrong(value, "one of " + ", ".join(map(str, arguments)), name)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        for member in hint:
            if value in (member.value, member.name):
                return member
        raise _wrong(value, "one of " + ", ".join(member.name for member in hint), name)
    if origin in (tuple, list, Sequence) or hint in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise _wrong(value, "a list", name)
        items = _item_types(arguments, origin, len(value))
        if items is None:
            raise _wrong(value, f"a list of {len(arguments)}", name)
        made = [_converted(v, t, f"{name}[{i}]") for i, (v, t) in enumerate(zip(value, items))]
        return made if origin is list or hint is list else tuple(made)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            default: Any = hint()  # type: ignore[operator]
            return apply_config(default, value, where=name)
        raise _wrong(value, "a mapping", name)
    return _scalar(value, hint, name)


def _item_types(arguments: tuple[Any, ...], origin: Any, count: int) -> list[Any] | None:
    if not arguments:
        return [Any] * count
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return list(arguments) if len(arguments) == count else None
    return [arguments[0]] * count


def _scalar(value: Any, hint: Any, name: str) -> Any:
    if hint is float and not isinstance(value, bool):
        # YAML 1.1 reads 1e-3 as a text.
        try:
            return float(value)
        except (TypeError, ValueError):
            raise _wrong(value, "a number", name) from None
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is int and isinstance(value, bool):
        raise _wrong(value, "an integer", name)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise _wrong(value, _type_name(hint), name)
    return value


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    if hint is type(None):
        return "null"
    return names.get(hint) or str(getattr(hint, "__name__", hint))


def _wrong(value: Any, wanted: str, name: str) -> ConfigError:
    return ConfigError(f"{name} should be {wanted}, is {json.dumps(value, default=str)[:60]}")
