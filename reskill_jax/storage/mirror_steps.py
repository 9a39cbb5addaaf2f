"""The checkpoints in a mirror: listed, verified, copied there and back, deleted."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from reskill_jax.storage.checkpoint_files import (
    MANIFEST,
    PARTIAL,
    CheckpointError,
    Damage,
    LocalStep,
    StepFiles,
    examine,
    read_manifest,
    remembered_sha256,
    step_name,
    step_number,
    steps,
)
from reskill_jax.storage.checkpoint_retention import metrics_of, outdated


class MirroredStep:
    """The files of one step as they were listed; a `StepFiles`."""

    def __init__(
        self,
        files: Any,
        path: str,
        listed: Mapping[str, Mapping[str, Any]],
        digests: dict[str, tuple[str, str]],
    ) -> None:
        """Reads nothing.

        Args:
          files: an fsspec file system.
          path: of the step's folder.
          listed: name of a file in it -> what the file system tells of it.
          digests: path -> (what was told of the file, SHA-256) of what was read; added to.
        """
        self.path = path
        self.listed = listed
        self._files = files
        self._digests = digests

    @property
    def name(self) -> str:
        """Of the step, also while it is being replaced."""
        return self.path.rpartition("/")[2].removesuffix(PARTIAL)

    @property
    def is_spare(self) -> bool:
        """Whether it lies where a step waits until it can replace another."""
        return self.path.endswith(PARTIAL)

    def read(self, file: str) -> bytes:
        """The content of a small file."""
        if file not in self.listed:
            raise FileNotFoundError(f"{self.path}/{file}")
        return self._files.cat_file(f"{self.path}/{file}")

    def size(self, file: str) -> int | None:
        """Bytes; None when there is no such file."""
        return self.listed[file]["size"] if file in self.listed else None

    def digest(self, file: str) -> str:
        """SHA-256 of the content, fetched only if it was not read as it now is."""
        path, told = f"{self.path}/{file}", _told(self.listed[file])
        known = self._digests.get(path)
        if known is None or known[0] != told:
            with self._files.open(path, "rb") as stream:
                known = told, hashlib.file_digest(stream, "sha256").hexdigest()
            self._digests[path] = known
        return known[1]

    def trust(self) -> None:
        """Takes for granted that the content of every file is that of the manifest."""
        for file, (_, digest) in read_manifest(self).files.items():
            self._digests[f"{self.path}/{file}"] = _told(self.listed[file]), digest


def damage_there(step: StepFiles) -> Damage | None:
    """What is wrong with a step in a mirror; None when it is whole.

    Raises:
      OSError: it cannot be read now, so that nobody knows; nothing may be concluded from that.
    """
    found = examine(step)
    if found is not None and not found.certain:
        raise OSError(found.reason)
    return found


def _told(info: Mapping[str, Any]) -> str:
    """Changes when the file does: times, or whatever tag this file system keeps."""
    return repr(sorted(info.items()))


class MirroredSteps:
    """The folder of a run's checkpoints in a mirror. Errors are those of its file system.

    A step's manifest is the last file that is written and the last that is deleted: without one,
    or with one that does not agree with the other files, a step is not whole.
    """

    def __init__(self, files: Any, root: str) -> None:
        """Reads nothing.

        Args:
          files: an fsspec file system. root: the folder in it.
        """
        self._files, self._root = files, root
        self._digests: dict[str, tuple[str, str]] = {}

    def found(self) -> dict[int, MirroredStep]:
        """All steps, whole or not, as they are now; ascending.

        A step that was being replaced is the spare one, unless the other is whole.
        """
        listed = self._listed()
        found = {}
        for name, told in listed.items():
            if (step := step_number(name)) is not None:
                found[step] = self._step(name, told)
        for name, told in listed.items():
            step = step_number(name.removesuffix(PARTIAL))
            if step is not None and name.endswith(PARTIAL) and MANIFEST in told:
                if step not in found or damage_there(found[step]) is not None:
                    found[step] = self._step(name, told)
        return dict(sorted(found.items()))

    def copy(self, checkpoints: Path) -> None:
        """Makes every step that is whole here whole there, with the same content.

        What is damaged here touches nothing there, nor is anything replaced that cannot be read.
        """
        there, unknown = self.found(), []
        for step in steps(checkpoints):
            source = checkpoints / step_name(step)
            if examine(LocalStep(source, remembered_sha256)) is not None:
                continue
            old = there.get(step)
            try:
                if old is None or old.is_spare or damage_there(old) is not None:
                    old = None
                elif old.read(MANIFEST) == (source / MANIFEST).read_bytes():
                    continue
            except OSError as error:
                unknown.append(f"checkpoint of step {step}: {error}")
                continue
            if old is not None:
                # The step was made anew. The old one stays until the new one is there as a spare,
                # and the spare until the new one is in its place.
                self._upload(source, step_name(step) + PARTIAL)
                self._delete(old)
            self._upload(source, step_name(step))
        if unknown:
            raise OSError("; ".join(unknown))
        used = {step.path for step in self.found().values()}
        for name in self._listed():
            if name.endswith(PARTIAL) and f"{self._root}/{name}" not in used:
                self._files.rm(f"{self._root}/{name}", recursive=True)

    def delete_old(self, checkpoints: Path, *, keep: int, best_by: str | None) -> None:
        """Deletes what is no longer here and, as `checkpoint_retention` promises, need not stay."""
        here = steps(checkpoints)
        there = {step: files for step, files in self.found().items() if here and step <= here[-1]}
        doomed, _ = outdated(
            there,
            metrics_of(there, unless=CheckpointError),
            lambda step: damage_there(there[step]),
            keep=keep,
            best_by=best_by,
        )
        for step in sorted(doomed - set(here)):
            self._delete(there[step])

    def download(self, step: MirroredStep, target: Path) -> bool:
        """Copies one step into a new folder; whether it arrived whole."""
        for file in step.listed:
            name = PurePosixPath(file)
            if ".." in name.parts or name.is_absolute():
                return False
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{step.path}/{file}", str(target / name))
        return examine(LocalStep(target)) is None

    def _listed(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Name of a folder -> name of a file in it -> what is told of it."""
        self._files.invalidate_cache()
        folders: dict[str, dict[str, dict[str, Any]]] = {}
        for path, info in self._files.find(self._root, detail=True).items():
            folder, _, file = path.removeprefix(self._root).lstrip("/").partition("/")
            if file:
                folders.setdefault(folder, {})[file] = info
        return folders

    def _step(self, name: str, listed: Mapping[str, Mapping[str, Any]]) -> MirroredStep:
        return MirroredStep(self._files, f"{self._root}/{name}", listed, self._digests)

    def _upload(self, source: Path, name: str) -> None:
        """Copies one step over whatever has this name."""
        target = f"{self._root}/{name}"
        if self._files.exists(target):  # cut off, or damaged
            self._files.rm(target, recursive=True)
        for file in sorted(source.rglob("*")):
            if file.is_file() and file != source / MANIFEST:
                path = f"{target}/{file.relative_to(source).as_posix()}"
                self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._files.put_file(str(file), path)
        put_whole(self._files, f"{target}/{MANIFEST}", (source / MANIFEST).read_bytes())
        step = self._step(name, self._listed().get(name, {}))
        for sent, (size, _) in read_manifest(step).files.items():
            if step.size(sent) != size:
                raise OSError(f"{target}/{sent} has {step.size(sent)} bytes instead of {size}")
        step.trust()  # what was sent arrived; its file system tells when it changes

    def _delete(self, step: MirroredStep) -> None:
        others = [f"{step.path}/{file}" for file in step.listed if file != MANIFEST]
        if others:
            self._files.rm(others)
        self._files.rm(step.path, recursive=True)


def put_whole(files: Any, path: str, content: bytes) -> None:
    """Writes one file, never half."""
    files.makedirs(path.rpartition("/")[0], exist_ok=True)
    files.pipe_file(path + PARTIAL, content)
    files.mv(path + PARTIAL, path)


def promote_spares(checkpoints: Path) -> None:
    """In a downloaded folder: a step that was being replaced is the spare one, if that is whole."""
    for spare in sorted(checkpoints.glob(f"step_*{PARTIAL}")):
        final = spare.with_name(spare.name.removesuffix(PARTIAL))
        if examine(LocalStep(spare)) is None and examine(LocalStep(final)) is not None:
            if final.exists():
                shutil.rmtree(final)
            spare.rename(final)
        else:
            shutil.rmtree(spare)
