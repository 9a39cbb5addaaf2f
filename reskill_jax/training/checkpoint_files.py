"""The files of checkpoints: names, the manifest that makes a step valid, damage, retention."""

import hashlib
import json
import logging
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

FORMAT = 1
MANIFEST = "MANIFEST.json"
PARTIAL = ".partial"  # behind the name of a step that is being written or deleted

_STEP = re.compile(r"step_(\d{8,})")
_DAMAGED = ".damaged"
_logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint cannot be written, or cannot be used here; the message says why in one line."""


def steps(folder: str | os.PathLike[str]) -> list[int]:
    """The numbers of the steps in `folder`, ascending, whole or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    found = (_STEP.fullmatch(entry.name) for entry in folder.iterdir() if entry.is_dir())
    return sorted(int(match.group(1)) for match in found if match)


def damage(path: Path) -> str | None:
    """What is wrong with the files of one step; None when it is complete and undamaged."""
    if not path.is_dir():
        return f"{path} does not exist"
    try:
        envelope = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        body = envelope["body"]
        if envelope["sha256"] != _digest_of(body):
            return f"{MANIFEST} is damaged"
        if body["format"] != FORMAT:
            return f"format {body['format']} is not known to this version (it knows {FORMAT})"
        if step_name(body["step"]) != path.name:
            return f"the files in {path.name} are those of step {body['step']}"
        files: dict[str, list[Any]] = body["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing (half-written)"
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return f"{MANIFEST} is damaged"
    for name, (size, digest) in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size:
            return f"{name} has {file.stat().st_size} bytes instead of {size}"
        if _sha256(file) != digest:
            return f"{name} is damaged (its checksum differs)"
    return None


def step_name(step: int) -> str:
    """The folder name of a step."""
    return f"step_{step:08d}"


def write_manifest(path: Path, *, step: int, metrics: dict[str, float]) -> None:
    """Lists the size and SHA-256 of every file, and brings all to disk."""
    files = {}
    for file in sorted(path.rglob("*")):
        if file.is_file():
            sync(file)
            files[file.relative_to(path).as_posix()] = [file.stat().st_size, _sha256(file)]
    body = {"format": FORMAT, "step": step, "metrics": metrics, "files": files}
    envelope = {"body": body, "sha256": _digest_of(body)}
    (path / MANIFEST).write_text(json.dumps(envelope, indent=1), encoding="utf-8")
    sync(path / MANIFEST)
    sync(path)


def _digest_of(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sync(path: Path) -> None:
    """Brings one file, or the names in one folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def set_aside(path: Path, reason: str) -> None:
    """Renames a damaged step, so that its number is free again and nothing is lost."""
    for number in range(1, 1_000_000):
        target = path.with_name(f"{path.name}{_DAMAGED}{number}")
        if not target.exists():
            os.rename(path, target)
            _logger.warning("damaged checkpoint set aside as %s: %s", target, reason)
            return


def delete_old_steps(folder: Path, *, written: int, keep: int, best_by: str | None) -> None:
    """Deletes, among the steps up to the one just written, what neither rule holds.

    Later steps are damaged ones that were passed over; like everything that has no readable
    manifest they are not ours to delete.
    """
    for left in folder.glob(f"step_*{PARTIAL}"):
        shutil.rmtree(left)  # of an interrupted save or deletion
    metrics = _metrics(folder)
    own = sorted(step for step in metrics if step <= written)
    stay = set(own[-keep:])
    if best_by is not None and (best := _best({s: metrics[s] for s in own}, best_by)) is not None:
        stay.add(best)
    for step in set(own) - stay:
        # Renamed first, so that an interrupted deletion leaves no half step behind.
        doomed = folder / (step_name(step) + PARTIAL)
        os.rename(folder / step_name(step), doomed)
        shutil.rmtree(doomed)


def best_step(folder: str | os.PathLike[str], by: str) -> int | None:
    """The (latest) step with the highest finite metric `by`; None when no step has one."""
    return _best(_metrics(Path(folder)), by)


def _best(metrics: dict[int, dict[str, float]], by: str) -> int | None:
    scores = {step: told[by] for step, told in metrics.items() if by in told}
    finite = [step for step, score in scores.items() if math.isfinite(score)]
    return max(finite, key=lambda step: (scores[step], step), default=None)


def _metrics(folder: Path) -> dict[int, dict[str, float]]:
    """Of every step with a readable manifest."""
    found = {}
    for step in steps(folder):
        try:
            text = (folder / step_name(step) / MANIFEST).read_text(encoding="utf-8")
            found[step] = json.loads(text)["body"]["metrics"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def shorten(lines: list[str], limit: int = 5) -> str:
    """Joins the first lines and counts the rest."""
    rest = len(lines) - limit
    return "; ".join(lines[:limit]) + (f"; and {rest} more" if rest > 0 else "")
