"""The command `reskill doctor`: what is installed and usable, and how to get what is missing."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

import reskill_jax
from reskill_jax.cli.arguments import parse

DISTRIBUTION = "reskill-jax"
PROBE = [sys.executable, "-m", "reskill_jax.cli.probe"]
SECONDS = 120.0  # for JAX to find its devices; a pod takes longest
FOR_DEVELOPERS = ("dev", "docs")  # extras for work on the package itself


@dataclasses.dataclass(frozen=True)
class DoctorArguments:
    """What is installed, which devices JAX sees, which worlds and models are usable."""

    models: tuple[Path, ...] = ()
    """Folders of models to look at, besides those in models/."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One thing that was looked at.

    Attributes:
      name: of it.
      state: in a few words.
      remedy: the command that gets it, where something is missing.
      broken: whether nothing works without it.
    """

    name: str
    state: str
    remedy: str = ""
    broken: bool = False


def doctor(arguments: Sequence[str]) -> int:
    """Prints what is there; 1 where nothing can be trained, else 0."""
    parsed = parse(DoctorArguments, arguments, prog="reskill doctor")
    broken = False
    print(f"reskill_jax {reskill_jax.__version__}, {_machine()}")
    for title, lines in _chapters(parsed.models):
        print(f"\n{title}", flush=True)
        for line in lines:
            print(f"  {line.name:<22} {line.state}")
            if line.remedy:
                print(f"  {'':<22} -> {line.remedy}")
            broken |= line.broken
    return 1 if broken else 0


def _chapters(models: Sequence[Path]) -> Iterator[tuple[str, Sequence[Line]]]:
    requirements = _requirements()
    yield "installed", core_lines(requirements)
    yield "extras", extra_lines(requirements)
    folders = [str(folder) for folder in (*models, *sorted(Path("models").glob("*/")))]
    found, reason = probe(folders)
    yield "devices", device_lines(found, reason)
    yield "worlds", world_lines()
    yield "models", model_lines(found)
    yield "compiled programs", cache_lines(found)


# --- packages ---


def _requirements() -> list[Requirement] | None:
    """What the package asks for; None where it runs from its sources without being installed."""
    try:
        told = importlib.metadata.requires(DISTRIBUTION) or []
        return [Requirement(one) for one in told]
    except (importlib.metadata.PackageNotFoundError, InvalidRequirement):
        return None


def installed_version(package: str) -> str | None:
    """The version of an installed package; None = it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def core_lines(requirements: Sequence[Requirement] | None) -> list[Line]:
    """The packages that everything needs."""
    if requirements is None:
        told = "runs from its sources, without being installed: versions are not known to fit"
        return [Line(DISTRIBUTION, told, "pip install -e .")]
    lines = []
    for one in requirements:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        state, fits = _state(one)
        lines.append(Line(one.name, state, "" if fits else f'pip install "{one}"', not fits))
    return lines


def _state(one: Requirement) -> tuple[str, bool]:
    version = installed_version(one.name)
    if version is None:
        return "missing", False
    if not one.specifier.contains(version, prereleases=True):
        return f"{version}, which does not fit: {one.specifier} is needed", False
    return version, True


def extra_lines(requirements: Sequence[Requirement] | None) -> list[Line]:
    """The extras, and what each lacks."""
    lines = []
    for extra in extras_of(requirements or ()):
        ours = [one for one in requirements or () if _belongs(one, extra)]
        here = [one for one in ours if one.marker is None or one.marker.evaluate({"extra": extra})]
        if not here:
            needed = re.findall(r"python_version\s*>=\s*[\"']([\d.]+)", str(ours[0].marker))
            lines.append(
                Line(extra, f"needs Python {needed[0] if needed else 'of another version'}")
            )
            continue
        lacking = [one.name for one in here if not _state(one)[1]]
        command = f'pip install "{DISTRIBUTION}[{extra}]"' if lacking else ""
        lines.append(Line(extra, f"missing: {', '.join(lacking)}" if lacking else "ready", command))
    return lines


def extras_of(requirements: Sequence[Requirement]) -> list[str]:
    """Names of the extras for those who use the package."""
    found = re.findall(
        r"extra == ['\"]([\w.-]+)", " ".join(str(one.marker) for one in requirements)
    )
    return sorted(set(found) - set(FOR_DEVELOPERS))


def _belongs(one: Requirement, extra: str) -> bool:
    return re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", str(one.marker)) is not None


# --- devices ---


def probe(folders: Sequence[str]) -> tuple[Mapping[str, Any] | None, str]:
    """What another process finds; None, and why, where it finds nothing."""
    try:
        done = subprocess.run(
            [*PROBE, *folders],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return None, f"JAX did not find its devices within {SECONDS:.0f} s"
    if done.returncode:
        told = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        ended = f"JAX ended with status {done.returncode}"
        return None, told[-1][:300] if told else ended
    try:
        found: Mapping[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return None, "JAX said nothing that can be read"
    return found, ""


def device_lines(found: Mapping[str, Any] | None, reason: str) -> list[Line]:
    """The devices that JAX sees, and accelerators that it does not."""
    if found is None:
        remedy = "JAX_PLATFORMS=cpu reskill doctor   # does it work without the accelerator?"
        return [Line("JAX", reason, remedy, broken=True)]
    counts: dict[tuple[str, str, int | None], int] = {}
    for platform_, kind, memory in found["devices"]:
        counts[platform_, kind, memory] = counts.get((platform_, kind, memory), 0) + 1
    lines = []
    for (platform_, kind, memory), count in counts.items():
        room = "" if memory is None else f", {memory / 2**30:.0f} GiB each"
        lines.append(Line(platform_, f"{count} x {kind}{room}"))
    if {platform_ for platform_, _, _ in counts} == {"cpu"} and (unused := _unused_accelerator()):
        lines.append(Line(*unused))
    return lines


def _unused_accelerator() -> tuple[str, str, str] | None:
    """(name, state, remedy) of an accelerator that the system shows and JAX does not use."""
    if os.environ.get("JAX_PLATFORMS", "") == "cpu":
        return None  # as it was asked for
    if Path("/dev/nvidiactl").exists():
        return "gpu", "there is an NVIDIA GPU that JAX does not use", 'pip install "jax[cuda13]"'
    if Path("/dev/accel0").exists() or Path("/dev/vfio/0").exists():
        return "tpu", "there is a TPU that JAX does not use", 'pip install "jax[tpu]"'
    return None


# --- worlds, models, compiled programs ---


def world_lines() -> list[Line]:
    """The worlds that come with the package."""
    from reskill_jax.worlds.registry import WORLDS, missing

    lines = []
    for name, entry in WORLDS.items():
        absent = missing(entry)
        state = f"missing: {', '.join(absent)}" if absent else "ready"
        lines.append(Line(name, state, entry.install if absent else ""))
    return lines


def model_lines(found: Mapping[str, Any] | None) -> list[Line]:
    """The small policy that ships, and the models whose folders were looked at."""
    shipped = Path(reskill_jax.__file__).parent / "models" / "household.safetensors"
    there = shipped.is_file()
    again = f"pip install --force-reinstall --no-deps {DISTRIBUTION}"
    lines = [
        Line("household", "ready" if there else "missing: its weights", "" if there else again)
    ]
    models = {} if found is None else found["models"]
    for folder, (readable, told) in models.items():
        lines.append(Line(folder, f"ready ({told})" if readable else told))
    if not any(readable for readable, _ in models.values()):
        lines.append(
            Line(
                "a language model",
                "none in models/",
                "--model FOLDER, or in a checkout: make smollm2",
            )
        )
    return lines


def cache_lines(found: Mapping[str, Any] | None) -> list[Line]:
    """Where compiled programs are kept."""
    if found is None or found["cache"] is None:
        told = "not known" if found is None else "none is kept; every start compiles anew"
        return [Line("folder", told)]
    folder = Path(found["cache"])
    sizes = [path.stat().st_size for path in folder.glob("*") if path.is_file()]
    held = (
        f"{len(sizes)} files, {sum(sizes) / 2**20:.0f} MiB" if folder.is_dir() else "not made yet"
    )
    return [Line("folder", f"{folder} ({held})")]


def _machine() -> str:
    """Python, the system, cores and memory."""
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    told = f"Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    told += f", {usable} of {cores} cores"
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return f"{told}, {memory / 2**30:.0f} GiB of memory"
    except (AttributeError, OSError, ValueError):  # not on Windows
        return told
