"""Checkpoints: one step = arrays + host state + configuration, valid only when complete.

A step lives in ``<folder>/step_<number>/``::

    arrays/        the leaves of the state, written by Orbax (v1 API)
    leaves.json    name, shape, dtype and kind of every leaf
    host.json      everything that is not an array
    config.json    the configuration the run was started with
    MANIFEST.json  size and SHA-256 of all other files; written last

Everything is first written under another name and renamed when the manifest is on disk, so a
folder that carries a step's name is complete unless something damaged it later, and that the
manifest finds out. A valid step is never overwritten; a damaged one is set aside, not deleted.

Several processes (`jax.distributed`) write one checkpoint into one folder that all see: every one
its shards of the arrays that are spread over them, the first one everything else.
"""

import dataclasses
import json
import logging
import os
import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from orbax.checkpoint import v1

from reskill_jax.devices import processes
from reskill_jax.storage import checkpoint_leaves
from reskill_jax.storage.checkpoint_config import differences, is_under, plain_config, to_json
from reskill_jax.storage.checkpoint_files import (
    PARTIAL,
    CheckpointError,
    damage,
    delete_leftovers,
    set_aside,
    shorten,
    step_name,
    steps,
    sync,
    write_manifest,
)
from reskill_jax.storage.checkpoint_retention import (
    best_step,
    delete_old_steps,
    set_aside_later_steps,
)

__all__ = [
    "PARTIAL",
    "CheckpointError",
    "PendingSave",
    "Restored",
    "best_step",
    "damage",
    "latest_step",
    "restore",
    "save",
    "set_aside_later_steps",
    "step_name",
    "steps",
    "wait_for_saves",
]

_logger = logging.getLogger(__name__)


class Restored(NamedTuple):
    """What `restore` returns."""

    step: int
    arrays: Any  # the tree of `like`, leaf for leaf
    host: Any  # as given to `save` (tuples come back as lists)


class PendingSave:
    """A save that goes on in the background."""

    def __init__(self, step: int, path: Path) -> None:
        """Makes the handle; `save` starts the work behind it."""
        self.step = step
        self.path = path
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None

    def _start(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception as error:  # kept here, raised by wait()
                self._error = error

        self._thread = threading.Thread(target=run, name=f"checkpoint-{self.step}")
        self._thread.start()

    @property
    def done(self) -> bool:
        """True when nothing is being written any more (well or not)."""
        return self._thread is not None and not self._thread.is_alive()

    def wait(self) -> Path:
        """Blocks until the checkpoint is complete on disk; returns its folder.

        Raises:
          CheckpointError: the checkpoint could not be written.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise CheckpointError(
                f"checkpoint of step {self.step} could not be written to {self.path}: "
                f"{_one_line(self._error)}"
            ) from self._error
        return self.path


_in_flight: dict[Path, PendingSave] = {}  # the one save under way per folder


def save(
    folder: str | os.PathLike[str],
    step: int,
    arrays: Any,
    host: Any,
    config: Any,
    *,
    metrics: Mapping[str, float] | None = None,
    keep: int = 3,
    best_by: str | None = None,
    block: bool = False,
    after: Callable[[Path], None] | None = None,
    notify: Callable[[str], None] = _logger.warning,
) -> PendingSave:
    """Writes one checkpoint and lets the caller go on.

    The leaves are copied to the host before this returns, so their buffers may be donated at once.
    At most one save per folder is under way; a second one waits for the first.

    Args:
      folder: where the steps of this run lie; made when missing.
      step: number of completed training steps, >= 0.
      arrays: any pytree of jax or numpy arrays (typed random keys included) and Python numbers.
      host: JSON values (dict with str keys, list, str, int, float, bool, None).
      config: a dataclass or a mapping, compared by `restore`.
      metrics: figures that `best_by` may name.
      keep: how many of the newest steps stay; the others are deleted once this one is complete.
        Damaged ones do not count.
      best_by: name of a metric; the undamaged step where it is highest stays as well.
      block: wait until the checkpoint is on disk.
      after: called in the background, in the first process, with the folder of the checkpoint once
        it is complete; its errors are those of the save.
      notify: called, also in the background, with one line per damaged step that was met, and when
        old steps cannot be deleted.

    Returns:
      A handle whose `wait()` blocks until the checkpoint is complete and raises what went wrong.

    Raises:
      CheckpointError: the step exists already, a leaf or host value cannot be stored, or the
        save before this one failed.
      OSError: the folder cannot be made or written.
    """
    folder = Path(folder).absolute()
    if step < 0 or keep < 1:
        raise CheckpointError(f"step must be >= 0 and keep >= 1, got step={step}, keep={keep}")
    wait_for_saves(folder)
    final = folder / step_name(step)
    partial = folder / (final.name + PARTIAL)
    leaves, values = checkpoint_leaves.flatten(arrays)
    texts = _texts(leaves, host, config)
    metrics = {name: float(value) for name, value in (metrics or {}).items()}

    def prepare() -> int:
        _make_place(partial, step, sum(value.nbytes for value in values.values()), notify)
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        return 0

    processes.from_first(prepare)
    writing = v1.save_async(partial / "arrays", values) if values else None

    def finish() -> None:
        if _complete(partial, final, step, writing, metrics):
            delete_old_steps(folder, written=step, keep=keep, best_by=best_by, notify=notify)
            if after is not None:
                after(final)

    pending = PendingSave(step, final)
    _in_flight[folder] = pending
    pending._start(finish)
    if block:
        wait_for_saves(folder)
    return pending


def _texts(leaves: Sequence[checkpoint_leaves.Leaf], host: Any, config: Any) -> dict[str, str]:
    """File name -> content of everything but the arrays."""
    return {
        "host.json": to_json(host, "host"),
        "config.json": to_json(plain_config(config), "config"),
        "leaves.json": json.dumps([dataclasses.asdict(leaf) for leaf in leaves], indent=1),
    }


def _complete(
    partial: Path, final: Path, step: int, writing: Any, metrics: dict[str, float]
) -> bool:
    """Waits for the arrays, then gives the step its name; whether this process did the latter."""
    try:
        if writing is not None:
            writing.result()
        if not processes.is_first():
            return False
        write_manifest(partial, step=step, metrics=metrics)
        os.rename(partial, final)
        sync(final.parent)
    except Exception:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return True


def _make_place(partial: Path, step: int, needed: int, notify: Callable[[str], None]) -> None:
    """An empty folder to write a step of so many bytes to, and nothing where it will lie."""
    final, folder = partial.with_name(step_name(step)), partial.parent
    if os.path.lexists(final):
        if (reason := damage(final)) is None:
            raise CheckpointError(
                f"checkpoint of step {step} exists already: {final} (it is never overwritten)"
            )
        set_aside(final, reason, notify=notify)
    delete_leftovers(folder, notify=notify)  # first of all, as they take room
    partial.mkdir(parents=True)
    free = shutil.disk_usage(partial).free
    if free < needed:  # found out at once, not after the disk is full
        partial.rmdir()
        raise CheckpointError(
            f"checkpoint of step {step} needs {needed / 1e6:.1f} MB, but {folder} has only "
            f"{free / 1e6:.1f} MB left"
        )


def wait_for_saves(folder: str | os.PathLike[str]) -> None:
    """Blocks until no save into `folder` is under way; raises CheckpointError if it failed."""
    pending = _in_flight.pop(Path(folder).absolute(), None)
    if pending is not None:
        pending.wait()


def latest_step(
    folder: str | os.PathLike[str], *, notify: Callable[[str], None] = _logger.warning
) -> int | None:
    """The newest step that is complete and undamaged; None when there is none.

    Args:
      folder: where the steps lie.
      notify: called with one line per damaged step that was passed over.
    """
    wait_for_saves(folder)
    for step in reversed(steps(folder)):
        reason = damage(Path(folder) / step_name(step))
        if reason is None:
            return step
        notify(f"checkpoint of step {step} skipped: {reason}")
    return None


def restore(
    folder: str | os.PathLike[str],
    like: Any,
    config: Any,
    step: int | None = None,
    *,
    may_differ: Collection[str] = (),
    partly: bool = False,
    notify: Callable[[str], None] = _logger.warning,
) -> Restored:
    """Reads a checkpoint back, bit for bit; changes nothing on disk.

    Args:
      folder: where the steps lie.
      like: a tree of the structure, shapes and dtypes expected: arrays or `jax.ShapeDtypeStruct`.
        Leaves come back as jax arrays (on the device or sharding of `like`) where `like` has jax
        arrays or shape structs, as numpy arrays where it has those.
      config: the configuration now; must equal the stored one.
      step: a certain step; None = the newest good one, damaged steps being skipped.
      may_differ: names of configuration fields (dotted) whose values need not agree.
      partly: leave what `like` does not have; else the checkpoint must hold nothing more.
      notify: called with one line per damaged step that was passed over.

    Returns:
      (step, arrays, host).

    Raises:
      CheckpointError: no usable checkpoint, another configuration, or another structure.
    """
    folder = Path(folder).absolute()
    wait_for_saves(folder)
    step = processes.from_first(lambda: _usable_step(folder, step, notify))
    path = folder / step_name(step)

    stored = json.loads((path / "config.json").read_text(encoding="utf-8"))
    now = json.loads(to_json(plain_config(config), "config"))
    different = [line for name, line in differences(stored, now) if not is_under(name, may_differ)]
    if different:
        raise CheckpointError(
            f"checkpoint {path} belongs to another configuration: {shorten(different)}"
        )

    expected = checkpoint_leaves.describe(like)
    leaves = [
        checkpoint_leaves.Leaf(**leaf)
        for leaf in json.loads((path / "leaves.json").read_text("utf-8"))
    ]
    checkpoint_leaves.check(path, leaves, expected, partly=partly)
    arrays = checkpoint_leaves.unflatten(path, leaves, like)
    host = json.loads((path / "host.json").read_text(encoding="utf-8"))
    return Restored(step, arrays, host)


def _usable_step(folder: Path, step: int | None, notify: Callable[[str], None]) -> int:
    """The step asked for, or the newest good one."""
    if step is not None:
        if (reason := damage(folder / step_name(step))) is not None:
            raise CheckpointError(f"checkpoint of step {step} in {folder} is unusable: {reason}")
        return step
    if not steps(folder):
        raise CheckpointError(f"no checkpoint in {folder}")
    found = latest_step(folder, notify=notify)
    if found is None:
        raise CheckpointError(
            f"none of the {len(steps(folder))} checkpoints in {folder} is usable: all are damaged"
        )
    return found


def _one_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0]
