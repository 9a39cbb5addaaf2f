"""Configuration files: JSON or YAML onto a dataclass, every mistake named in one line."""

import dataclasses
import difflib
import enum
import json
import math
import os
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

import yaml

T = TypeVar("T")
MAX_BYTES = 1 << 20
MAX_DEPTH = 20  # mappings and lists inside each other

# Unquoted words of YAML that are no texts, as JSON has them. What YAML 1.1 makes of others (10:30
# is 630, 010 is 8, yes is true, 2026-01-01 is a date) nobody would notice: they stay texts.
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE, _FALSE = re.compile(r"true|True|TRUE"), re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class ConfigError(ValueError):
    """A configuration that is not valid; the message says where and why in one line."""


class _Loader(yaml.SafeLoader):
    """Composes YAML without aliases, which can stand for more than fits in memory, and tags."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.events.AliasEvent):
            raise ValueError("aliases (*name) are not allowed")
        if event.tag is not None:
            raise ValueError(f"tags ({event.tag[:40]!r}) are not allowed")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


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
        text = data.decode("utf-8-sig")
        values = _parse_json(text) if path.suffix == ".json" else _parse_yaml(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except ConfigError:
        raise
    except UnicodeDecodeError:
        raise ConfigError(f"{path} cannot be read: it is not UTF-8") from None
    except RecursionError:
        raise ConfigError(f"{path} cannot be read: it is nested too deeply") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read: {reason[:200]}") from None
    if values is None and path.suffix != ".json":  # an empty file
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} holds {_type_name(type(values))}, not a mapping of options")
    values.pop("provenance", None)  # what a run adds to its config.json, see `provenance`
    return values


def read_stored_config(path: str | os.PathLike[str], default: T) -> T:
    """The configuration that a run keeps in its folder, on top of `default`.

    Raises:
      ConfigError: it cannot be read, or is of another version, which is then named.
    """
    values = read_config(path)
    try:
        return apply_config(default, values, where=str(path))
    except ConfigError as error:
        raise ConfigError(f"{error}{_made_by(path)}") from error


def _made_by(path: str | os.PathLike[str]) -> str:
    """Which version wrote a run's configuration, as far as it tells."""
    entries = json.loads(Path(path).read_text(encoding="utf-8")).get("provenance")
    last = entries[-1] if isinstance(entries, list) and entries else None
    if not isinstance(last, dict):
        return ""
    version, commit = (str(last.get(name) or "?")[:40] for name in ("reskill_jax", "commit"))
    return f"; the run was made by reskill_jax {version} (commit {commit}): use that, or train anew"


def _parse_json(text: str) -> Any:
    """JSON without duplicate keys, NaN and Infinity."""

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number")

    values = json.loads(text, object_pairs_hook=_mapping, parse_constant=constant)
    if _depth(values) > MAX_DEPTH:
        raise RecursionError
    return values


def _parse_yaml(text: str) -> Any:
    """YAML as another way to write JSON: keys are texts, scalars what JSON has."""
    node = yaml.compose(text, Loader=_Loader)
    return None if node is None else _value(node)


def _value(node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"line {key.start_mark.line + 1} has a key that is no text")
        return _mapping([(key.value, _value(value)) for key, value in node.value])
    if isinstance(node, yaml.SequenceNode):
        return [_value(item) for item in node.value]
    assert isinstance(node, yaml.ScalarNode)
    text = node.value
    if node.style is not None:  # quoted, or a block
        return text
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return _TRUE.fullmatch(text) is not None
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _NUMBER.fullmatch(text) else text


def _mapping(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"{key[:60]!r} is given twice")
        out[key] = value
    return out


def _depth(values: Any, depth: int = 0) -> int:
    """Of nested mappings and lists; where it exceeds MAX_DEPTH it is not looked at further."""
    if depth > MAX_DEPTH or not isinstance(values, (dict, list)):
        return depth
    inside = values.values() if isinstance(values, dict) else values
    return max((_depth(value, depth + 1) for value in inside), default=depth + 1)


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
    return _replaced(default, convert(default, values, where=where, under=under), where)


def convert(
    default: Any, values: Mapping[str, Any], *, where: str, under: str = ""
) -> dict[str, Any]:
    """Values of JSON types as the fields of a dataclass want them, nested ones as dictionaries.

    Args:
      default, values, where, under: as of `apply_config`.

    Raises:
      ConfigError: an unknown key (the nearest valid one is named), or a value of another type.
    """
    assert dataclasses.is_dataclass(default) and not isinstance(default, type)
    fields = {field.name: field for field in dataclasses.fields(default) if field.init}
    hints = typing.get_type_hints(type(default))
    changes: dict[str, Any] = {}
    for key, value in _nested(values, where).items():
        name = f"{under}.{key}" if under else str(key)
        if key not in fields:
            known = ", ".join(f"{under}.{field}" if under else field for field in fields)
            there = _names(default)
            near = nearest(str(key), there)
            whole = f"{under}.{there[near]}" if near and under else near and there[near]
            hint = f"did you mean '{whole}'?" if near else f"({known})"
            raise ConfigError(f"{where}: unknown key {name[:60]!r}; {hint}")
        old = getattr(default, key)
        if dataclasses.is_dataclass(old) and isinstance(value, Mapping):
            changes[key] = convert(old, value, where=where, under=name)
        else:
            changes[key] = _converted(value, hints[key], f"{where}: '{name}'")
    return changes


def _names(default: Any) -> dict[str, str]:
    """Names of fields, and of those one group further in -> where they are, with dots."""
    fields = [field.name for field in dataclasses.fields(default) if field.init]
    inside = {
        field.name: f"{group}.{field.name}"
        for group in fields
        if dataclasses.is_dataclass(value := getattr(default, group))
        for field in dataclasses.fields(value)
    }
    return inside | {name: name for name in fields}


def _replaced(default: T, changes: Mapping[str, Any], where: str) -> T:
    made = {
        key: _replaced(old, value, where)
        if dataclasses.is_dataclass(old := getattr(default, key)) and isinstance(value, dict)
        else value
        for key, value in changes.items()
    }
    try:
        return dataclasses.replace(default, **made)  # type: ignore[type-var]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}: {' '.join(str(error).split())}") from error


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dictionaries, those of `changes` over those of `values`."""
    out = dict(values)
    for name, value in changes.items():
        out[name] = merged(values.get(name, {}), value) if isinstance(value, dict) else value
    return out


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
        old = out.get(head)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            if twice := sorted(set(old) & set(value)):
                raise ConfigError(f"{where}: {f'{head}.{twice[0]}'[:60]!r} is given twice")
            value = {**old, **value}
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
        if any(type(value) is type(one) and value == one for one in arguments):
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
    if hint is float and isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)  # YAML 1.1 reads 1e-3 as a text, so some write it in quotes
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _wrong(value, "a finite number", name)
        return number
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint is int and isinstance(value, bool):
        raise _wrong(value, "an integer", name)
    if isinstance(hint, type) and not isinstance(value, hint):
        raise _wrong(value, _type_name(hint), name)
    return value


def _type_name(hint: Any) -> str:
    names = {int: "an integer", float: "a number", str: "a text", bool: "true or false"}
    names |= {list: "a list", type(None): "null"}
    return names.get(hint) or str(getattr(hint, "__name__", hint))


def _wrong(value: Any, wanted: str, name: str) -> ConfigError:
    return ConfigError(f"{name} should be {wanted}, is {json.dumps(value, default=str)[:60]}")
