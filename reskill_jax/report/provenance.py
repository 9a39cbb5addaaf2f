"""What a run was made with, as far as its config.json tells."""

from collections.abc import Mapping
from typing import Any

from reskill_jax.report.document import stacked_table
from reskill_jax.report.markup import Markup, tag
from reskill_jax.report.reading import Run


def starts(run: Run) -> list[Mapping[str, Any]]:
    """An entry for every start of the run, in their order."""
    return run.config.get("provenance") or []


def provenance_line(run: Run) -> Markup | None:
    """The first start in one line; None if nothing is known about it."""
    if not starts(run):
        return None
    entry = starts(run)[0]
    started = f"started {_time(entry)}" if _time(entry) else ""
    parts = [started, _code(entry), _version(entry, "jax"), _devices(entry)]
    return tag("p", ", ".join(part for part in parts if part), class_="soft")


def provenance_table(run: Run) -> Markup | None:
    """Every start with its code, versions and devices; None if nothing is known about any."""
    rows = [
        [
            f"{_text(entry.get('step'))}",
            _time(entry),
            _code(entry),
            _versions(entry),
            ", ".join(part for part in (_text(entry.get("machine")), _devices(entry)) if part),
        ]
        for entry in starts(run)
    ]
    if not rows:
        return None
    return stacked_table(["After step", "Started", "Code", "Versions", "Machine"], rows)


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:300]


def _time(entry: Mapping[str, Any]) -> str:
    return _text(entry.get("started")).replace("T", " ").replace("+00:00", " UTC")


def _code(entry: Mapping[str, Any]) -> str:
    version, commit = _text(entry.get("reskill_jax")), _text(entry.get("commit"))
    if not version:
        return ""
    changed = " with changes" if commit.endswith("+") else ""
    return f"reskill_jax {version}" + (f" ({commit[:12].rstrip('+')}{changed})" if commit else "")


def _pairs(entry: Mapping[str, Any]) -> dict[str, str]:
    versions = entry.get("versions")
    return {k: _text(v) for k, v in versions.items()} if isinstance(versions, dict) else {}


def _version(entry: Mapping[str, Any], name: str) -> str:
    version = _pairs(entry).get(name)
    return f"{name} {version}" if version else ""


def _versions(entry: Mapping[str, Any]) -> str:
    python = _text(entry.get("python"))
    known = ({"Python": python} if python else {}) | _pairs(entry)
    return ", ".join(f"{name} {version}" for name, version in known.items())


def _devices(entry: Mapping[str, Any]) -> str:
    device, count = _text(entry.get("device")), _text(entry.get("devices"))
    processes = _text(entry.get("processes"))
    if not device:
        return ""
    several = f"{count} × {device}" if count not in ("", "1") else device
    return several + (f" in {processes} processes" if processes not in ("", "1") else "")
