"""A second place for a run: every checkpoint is copied there, and a lost folder comes back.

The place is whatever fsspec knows: gs://, s3://, az://, sftp://, memory://, a folder. A run looks
there as it does here, but for report.html. Logs come before the checkpoint that counts on them, a
checkpoint's manifest after all its other files, so that a copy that was cut off is not mistaken for
a whole one.
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import fsspec

from reskill_jax.training.checkpoint_files import MANIFEST, step_name, steps
from reskill_jax.training.processes import from_first
from reskill_jax.training.run_folder import RunFolder

_PARTIAL = ".partial"


class MirrorError(ValueError):
    """A mirror that cannot be used, or did not get everything; the message says why."""


class Mirror:
    """The place of one run, see the module."""

    def __init__(self, url: str, name: str) -> None:
        """Opens it; nothing is written.

        Args:
          url: of the folder of all runs. name: of the run.

        Raises:
          MirrorError: fsspec does not know such a place, or lacks the package for it.
        """
        try:
            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise MirrorError(f"--mirror {url}: {' '.join(str(error).split())}") from error
        self.url = f"{url.rstrip('/')}/{name}"
        self.behind: str | None = None  # why the last copy failed
        self._root = f"{root.rstrip('/')}/{name}"

    def holds_run(self) -> bool:
        """Whether there is a run."""
        with self._reached():
            return self._files.exists(f"{self._root}/config.json")

    def steps(self) -> list[int]:
        """Checkpoints that are whole there, ascending."""
        found = self._files.glob(f"{self._root}/checkpoints/step_*/{MANIFEST}")
        names = (PurePosixPath(path).parent.name.removeprefix("step_") for path in found)
        return sorted(int(name) for name in names if name.isdigit())

    def check(self, folder: Path) -> None:
        """Refuses what would lose something.

        Raises:
          MirrorError: the mirror is ahead of the run in this folder.
        """
        with self._reached():
            here, there = steps(folder / "checkpoints"), self.steps()
        if there and (not here or here[-1] < there[-1]):
            raise MirrorError(
                f"{self.url} is at step {there[-1]}, {folder} at step {here[-1] if here else 0}: "
                "move the folder away to go on from the mirror"
            )

    def push(
        self,
        folder: Path,
        texts: Mapping[str, bytes],
        *,
        notify: Callable[[str], None],
    ) -> None:
        """Copies what is new; a failure is told, and made good by the next call.

        Args:
          folder: of the run.
          texts: relative path -> content of all that is no checkpoint, see `texts_of`.
          notify: called with one line when it failed.
        """
        try:
            self._drop_other_steps(folder / "checkpoints")
            for path, content in texts.items():
                self._put(path, content)
            self._remove_skills_but(texts)
            self._copy_steps(folder / "checkpoints")
            self.behind = None
        except Exception as error:  # whatever the file system in question raises
            self.behind = _one_line(error)
            notify(f"{self.url} not written; the next checkpoint tries again: {self.behind}")

    def pull(self, folder: Path) -> None:
        """Copies the run to a folder that does not exist.

        Raises:
          MirrorError: there is no run, or a file's name leads out of the folder.
        """
        if not self.holds_run():
            raise MirrorError(f"nothing to resume: there is no run in {folder}, nor in {self.url}")
        partial = folder.with_name(folder.name + _PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        with self._reached():
            for path in self._files.find(self._root):
                name = PurePosixPath(path.removeprefix(self._root).lstrip("/"))
                if ".." in name.parts or name.is_absolute():
                    raise MirrorError(f"{self.url} holds a file that leads out of it: {name}")
                if name.suffix == _PARTIAL:
                    continue
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                self._files.get_file(path, str(target))
        os.rename(partial, folder)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Whatever the file system in question raises becomes a MirrorError."""
        try:
            yield
        except MirrorError:
            raise
        except Exception as error:
            raise MirrorError(f"{self.url} cannot be read: {_one_line(error)}") from error

    def _put(self, path: str, content: bytes) -> None:
        """One file, never half."""
        target = f"{self._root}/{path}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.pipe_file(target + _PARTIAL, content)
        self._files.mv(target + _PARTIAL, target)

    def _remove_skills_but(self, texts: Mapping[str, bytes]) -> None:
        for path in self._files.glob(f"{self._root}/skills/*/SKILL.md"):
            if path.removeprefix(self._root).lstrip("/") not in texts:
                self._files.rm(path.rpartition("/")[0], recursive=True)

    def _drop_other_steps(self, checkpoints: Path) -> None:
        """Steps of the same number that the run has written anew: their logs are gone."""
        for step in self.steps():
            manifest = checkpoints / step_name(step) / MANIFEST
            if manifest.is_file() and manifest.read_bytes() != self._files.cat_file(
                f"{self._step(step)}/{MANIFEST}"
            ):
                self._remove_step(step)

    def _copy_steps(self, checkpoints: Path) -> None:
        """Those that are missing; then those that the run has deleted are deleted here."""
        here, there = steps(checkpoints), self.steps()
        for step in sorted(set(here) - set(there)):
            source, target = checkpoints / step_name(step), self._step(step)
            manifest = source / MANIFEST
            if not manifest.is_file():
                continue
            if self._files.exists(target):  # cut off
                self._files.rm(target, recursive=True)
            for file in sorted(source.rglob("*")):
                if file.is_file() and file != manifest:
                    name = f"{target}/{file.relative_to(source).as_posix()}"
                    self._files.makedirs(name.rpartition("/")[0], exist_ok=True)
                    self._files.put_file(str(file), name)
            self._put(f"checkpoints/{step_name(step)}/{MANIFEST}", manifest.read_bytes())
        for step in set(there) - set(here):
            self._remove_step(step)

    def _step(self, step: int) -> str:
        return f"{self._root}/checkpoints/{step_name(step)}"

    def _remove_step(self, step: int) -> None:
        self._files.rm_file(f"{self._step(step)}/{MANIFEST}")
        if self._files.exists(self._step(step)):
            self._files.rm(self._step(step), recursive=True)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def texts_of(folder: RunFolder) -> dict[str, bytes]:
    """Relative path -> content of the configuration, the logs and the skills of a run."""
    paths = [folder.path / "config.json", *(folder.path / log for log in folder.sizes())]
    paths += sorted(folder.skills.glob("*/SKILL.md"))
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def bring_back(url: str, root: str | os.PathLike[str], name: str) -> None:
    """Copies the run <root>/<name> from its mirror if it is not here.

    Raises:
      MirrorError: it is not there either, or the mirror cannot be used.
    """

    def work() -> int:
        folder = Path(root) / name
        if not (folder / "config.json").is_file():
            Mirror(url, name).pull(folder)
        return 0

    from_first(work)
