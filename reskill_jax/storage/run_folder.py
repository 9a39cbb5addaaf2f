"""The folder of a run: configuration, append-only logs, exported skills, where things lie.

::

    <root>/<name>/
      config.json       the configuration, and under "provenance" what every start was made with
      metrics.jsonl     one line per training step
      trials.jsonl      one line per training step and proposal under test
      eval.jsonl        one line per evaluation
      lifecycle.jsonl   one line per event in the life of the skills
      creator.jsonl     one line per question put to a language model as creator, if there is one
      creator/          what it was asked and what it answered, see `replies`
      skills/<skill>/SKILL.md
      checkpoints/
      report.html

A line is on disk (handed to the operating system) before the call that wrote it returns.
"""

import dataclasses
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from reskill_jax.skills.skillmd import export_skill
from reskill_jax.storage.writers.names import scalars_of
from reskill_jax.storage.writers.writer import Writer

__all__ = ["FollowedRunFolder", "RunFolder", "RunFolderError", "check_run_name", "run_path"]

_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
LOGS = ("metrics.jsonl", "trials.jsonl", "eval.jsonl", "lifecycle.jsonl", "creator.jsonl")


class RunFolderError(ValueError):
    """A run folder cannot be made, read or written; the message says why in one line."""


class RunFolder:
    """An open run folder. Make one with `create` or `reopen`; close it, or use it with `with`.

    Attributes:
      path: of the folder.
      writers: to which every number goes that is logged, too.
    """

    def __init__(self, path: Path) -> None:
        """Opens the logs of an existing folder for appending; `create` and `reopen` call this."""
        self.path = path
        self.writers: tuple[Writer, ...] = ()
        self._logs: dict[str, IO[bytes]] = {}
        for name in LOGS:
            with _explained(f"open {path / name}"):
                self._logs[name] = open(path / name, "ab")

    @classmethod
    def create(cls, root: str | os.PathLike[str], name: str, config: Any) -> "RunFolder":
        """Makes `<root>/<name>/` and writes config.json.

        Args:
          root: folder of all runs, made when missing.
          name: letters, digits, ".", "_", "-".
          config: a dataclass or a mapping.

        Raises:
          RunFolderError: a bad name, a folder that holds something already, or one that cannot be
            written.
        """
        path = run_path(root, name)
        if path.exists() and (not path.is_dir() or any(_contents(path))):
            raise RunFolderError(
                f"{path} exists already: continue it with --resume or choose another --name"
            )
        with _explained(f"make {path}"):
            path.mkdir(parents=True, exist_ok=True)
            if dataclasses.is_dataclass(config) and not isinstance(config, type):
                config = dataclasses.asdict(config)
            _write_text(path / "config.json", json.dumps(_jsonable(config), indent=2) + "\n")
        return cls(path)

    @classmethod
    def reopen(cls, root: str | os.PathLike[str], name: str) -> "RunFolder":
        """Opens an existing run to continue it.

        Raises:
          RunFolderError: there is no such run, or it cannot be written.
        """
        path = run_path(root, name)
        if not (path / "config.json").is_file():
            raise RunFolderError(f"nothing to resume: there is no run in {path}")
        return cls(path)

    def add_provenance(self, entry: Mapping[str, Any]) -> None:
        """Adds what a start of the run was made with to config.json.

        Raises:
          RunFolderError: it cannot be read or written.
        """
        path = self.path / "config.json"
        with _explained(f"write {path}"):
            try:
                config = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise RunFolderError(f"{path} cannot be read: {str(error)[:200]}") from None
            if not isinstance(config, dict):
                raise RunFolderError(f"{path} holds no configuration")
            old = config.get("provenance")
            entries = [*(old if isinstance(old, list) else []), _jsonable(entry)]
            _write_text(path, json.dumps(config | {"provenance": entries}, indent=2) + "\n")

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / "checkpoints"

    @property
    def skills(self) -> Path:
        """Where the skills lie, one folder each."""
        return self.path / "skills"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.path / "report.html"

    def write_metrics(self, line: Mapping[str, Any]) -> None:
        """Appends one line to metrics.jsonl; arrays become lists, nan and inf become null."""
        self._append("metrics.jsonl", line)

    def write_trial(self, line: Mapping[str, Any]) -> None:
        """Appends one line to trials.jsonl."""
        self._append("trials.jsonl", line)

    def write_eval(self, line: Mapping[str, Any]) -> None:
        """Appends one line to eval.jsonl."""
        self._append("eval.jsonl", line)

    def write_lifecycle(self, line: Mapping[str, Any]) -> None:
        """Appends one line to lifecycle.jsonl."""
        self._append("lifecycle.jsonl", line)

    def write_creator(self, line: Mapping[str, Any]) -> None:
        """Appends one line to creator.jsonl."""
        self._append("creator.jsonl", line)

    def sizes(self) -> dict[str, int]:
        """Bytes in each log, to be kept in a checkpoint and given to `truncate_to`."""
        return {name: os.fstat(log.fileno()).st_size for name, log in self._logs.items()}

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Whether `truncate_to` can go back to these sizes.

        Raises:
          RunFolderError: a log is shorter than the checkpoint says, or cut in mid-line there.
        """
        for name in LOGS:
            size, now = sizes.get(name, 0), self.sizes()[name]
            if now < size:
                raise RunFolderError(
                    f"{self.path / name} has {now} bytes but had {size} at the checkpoint: "
                    "lines were lost, so the run cannot be continued exactly"
                )
            if size and self._byte_at(name, size - 1) != b"\n":
                raise RunFolderError(
                    f"{self.path / name} was changed after the checkpoint: no line ends at byte "
                    f"{size}"
                )

    def truncate_to(self, sizes: Mapping[str, int]) -> None:
        """Drops what was logged after a checkpoint. A log that `sizes` does not name is emptied.

        Raises:
          RunFolderError: as `check_sizes` says; then nothing is changed.
        """
        self.check_sizes(sizes)
        for name, log in self._logs.items():
            with _explained(f"truncate {self.path / name}"):
                log.truncate(sizes.get(name, 0))
                log.seek(0, os.SEEK_END)

    def export_skills(
        self, skills: Iterable[Any], write: Callable[[Any, Path], Any] = export_skill
    ) -> None:
        """Makes skills/ hold exactly these skills.

        Args:
          skills: objects with a `name` (kebab-case).
          write: writes one skill below a folder: `write(skill, folder)` makes
            `folder/<name>/SKILL.md`.
        """
        fresh, old = self.path / "skills.partial", self.path / "skills.old"
        with _explained(f"write {self.skills}"):
            for left in (fresh, old):
                if left.exists():
                    shutil.rmtree(left)
            fresh.mkdir()
            for skill in skills:
                write(skill, fresh)
            if self.skills.exists():
                os.rename(self.skills, old)
            os.rename(fresh, self.skills)
            if old.exists():
                shutil.rmtree(old)

    def close(self) -> None:
        """Closes the logs and the writers; may be called twice."""
        for log in self._logs.values():
            log.close()
        writers, self.writers = self.writers, ()
        for writer in writers:
            writer.close()

    def __enter__(self) -> "RunFolder":
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the logs."""
        self.close()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        text = json.dumps(_jsonable(line), ensure_ascii=False, allow_nan=False) + "\n"
        with _explained(f"write {self.path / name}"):
            self._logs[name].write(text.encode("utf-8"))
            self._logs[name].flush()
        if self.writers:
            numbers = scalars_of(name, json.loads(text))
            for writer in self.writers:
                writer.scalars(int(line["step"]), numbers)

    def _byte_at(self, name: str, position: int) -> bytes:
        with open(self.path / name, "rb") as log:
            log.seek(position)
            return log.read(1)


class FollowedRunFolder(RunFolder):
    """The folder of a run of several processes, in those that do not write: all but the first."""

    def __init__(self, path: Path) -> None:
        """Opens nothing."""
        self.path = path
        self.writers = ()
        self._logs = {}

    @classmethod
    def of(cls, root: str | os.PathLike[str], name: str) -> "FollowedRunFolder":
        """The folder <root>/<name>, which the first process has opened."""
        return cls(run_path(root, name))

    def check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Nothing."""

    def truncate_to(self, sizes: Mapping[str, int]) -> None:
        """Nothing."""

    def add_provenance(self, entry: Mapping[str, Any]) -> None:
        """Nothing."""

    def export_skills(
        self, skills: Iterable[Any], write: Callable[[Any, Path], Any] = export_skill
    ) -> None:
        """Nothing."""

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        pass


def check_run_name(name: str) -> str:
    """The name, if it can be that of a run's folder.

    Raises:
      ValueError: it cannot.
    """
    if not _RUN_NAME.fullmatch(name):
        raise ValueError(
            f"{name[:60]!r} is no name for a run: use letters, digits, '.', '_' and '-', starting "
            "with a letter or digit, at most 128 of them"
        )
    return name


def run_path(root: str | os.PathLike[str], name: str) -> Path:
    """The folder of a run.

    Raises:
      RunFolderError: that is no name for a run.
    """
    try:
        return Path(root) / check_run_name(name)
    except ValueError as error:
        raise RunFolderError(str(error)) from None


def _contents(path: Path) -> Iterator[Path]:
    """What is in a folder, but for the trace of a process that died while making it."""
    return (entry for entry in path.iterdir() if entry.name != "config.json.partial")


class _explained:
    """Turns an OSError into a RunFolderError that says what was tried and what to do."""

    def __init__(self, action: str) -> None:
        self.action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, OSError):
            reason = error.strerror or str(error)
            raise RunFolderError(f"cannot {self.action}: {reason}") from error


def _write_text(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _jsonable(value: Any) -> Any:
    """Arrays as lists, paths as text; nan and inf, which JSON does not know, as null."""
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__"):  # numpy and jax arrays and scalars
        import numpy as np  # here: checking settings needs this file, and no arrays

        return _jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
