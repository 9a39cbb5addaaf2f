"""Where a run keeps itself: its folder, its checkpoints, and the mirror of both."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.creators.creator import Creator
from reskill_jax.devices.processes import from_first, is_first
from reskill_jax.models.fingerprint import fingerprint
from reskill_jax.storage import checkpoint
from reskill_jax.storage.mirror import Mirror, MirrorError, bring_back, texts_of
from reskill_jax.storage.run_folder import (
    FollowedRunFolder,
    RunFolder,
    RunFolderError,
    run_path,
)
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import SkillLibrary
from reskill_jax.training.state import TrainState

# What a continued run may change: where it lies, on which devices, how often it looks, and how long
# it goes on, with which the learning rate of the steps to come changes.
MAY_DIFFER = (
    *("name", "root", "steps", "eval_every", "checkpoint_every", "keep", "keep_best"),
    *("mirror", "log", "mesh", "sessions", "model.attention"),
    *("creator.url", "creator.call_seconds", "creator.parallel"),
    *("creator.call_budget", "creator.token_budget"),
)


def kept(state: TrainState) -> TrainState:
    """What a checkpoint holds: not the weights that adapters add to, which lie elsewhere."""
    return state._replace(frozen=())


def base_of(frozen: Any) -> str | None:
    """What tells the weights that adapters add to from others; None = there are no adapters."""
    return fingerprint(frozen) if jax.tree.leaves(frozen) else None


def check_base(host: Mapping[str, Any], frozen: Any, config: TrainConfig) -> None:
    """Adapters go with the weights that they were trained on.

    Args:
      host: of the checkpoint.
      frozen: weights that adapters are added to; () = there are none.
      config: of the run.

    Raises:
      CheckpointError: these are others.
    """
    if (base := base_of(frozen)) is not None and host.get("base", base) != base:
        raise checkpoint.CheckpointError(
            f"the adapters of this run were trained on other weights than those in "
            f"{config.model.path}; put the model back that the run began with"
        )


def described(algorithm: Algorithm | None, config: TrainConfig) -> str | None:
    """All fields of an algorithm of one's own, of which the configuration knows only some; None =
    nothing more is to be said. Where in memory something lies is left out."""
    if not config.algorithm.is_own or not dataclasses.is_dataclass(algorithm):
        return None
    return re.sub(r" at 0x[0-9a-f]+", "", repr(algorithm))


def check_algorithm_of(host: Mapping[str, Any], now: str | None) -> None:
    """A run goes on with the algorithm that it began with.

    Args:
      host: of the checkpoint.
      now: `described`.

    Raises:
      CheckpointError: it is another one.
    """
    if (began := host.get("algorithm")) != now:
        raise checkpoint.CheckpointError(
            f"the run began with the algorithm {began}, now it is {now}; give the same one again"
        )


@dataclasses.dataclass(frozen=True)
class Storage:
    """An open run; make it with `open_storage`."""

    folder: RunFolder
    mirror: Mirror | None  # of the first process
    creator: Creator[Any]  # whose memory is kept
    notify: Callable[[str], None]  # called with lines for the person who watches
    algorithm: str | None = None  # `described`

    def restore(
        self, state: TrainState, config: TrainConfig
    ) -> tuple[TrainState, SkillLibrary] | None:
        """The last good checkpoint, and the folder as it was then; None if there is none.

        Args:
          state: of the shapes and places expected.
          config: of the run.

        Raises:
          CheckpointError: no checkpoint can be used.
          RunFolderError: the checkpoints or lines of the logs are lost; nothing is changed.
        """
        if not self.has_checkpoint():
            from_first(self._check_that_it_never_began)
            self.folder.truncate_to({})
            return None
        restored = checkpoint.restore(
            self.folder.checkpoints, kept(state), config, may_differ=MAY_DIFFER, notify=self.notify
        )
        check_base(restored.host, state.frozen, config)
        check_algorithm_of(restored.host, self.algorithm)
        library = SkillLibrary.from_dict(restored.host["life"], self.creator)
        sizes = restored.host["sizes"]

        def go_back() -> int:
            self.folder.check_sizes(sizes)
            checkpoint.set_aside_later_steps(
                self.folder.checkpoints, restored.step, notify=self.notify
            )
            self.folder.truncate_to(sizes)
            return 0

        from_first(go_back)
        self.folder.export_skills(library.skills)  # those of later steps may lie there
        self.notify(f"going on after step {restored.step}")
        return restored.arrays._replace(frozen=state.frozen), library

    def _check_that_it_never_began(self) -> int:
        """A run without a checkpoint begins anew, unless it has had one.

        Its first one is being written, under another name, before the first step is logged.
        """
        place = self.folder.checkpoints
        begun = self.folder.sizes()["metrics.jsonl"] > 0
        if begun and not (place / (checkpoint.step_name(0) + checkpoint.PARTIAL)).exists():
            raise RunFolderError(
                f"nothing to go on from: {self.folder.path / 'metrics.jsonl'} tells of steps, but "
                f"{place} holds no checkpoint any more; choose another --name to begin anew"
            )
        return 0

    def has_checkpoint(self) -> bool:
        """Whether there is one, good or not."""
        return bool(from_first(lambda: len(checkpoint.steps(self.folder.checkpoints))))

    def save(
        self,
        state: TrainState,
        library: SkillLibrary,
        config: TrainConfig,
        *,
        unseen: float | None = None,
    ) -> None:
        """A checkpoint, written while training goes on, and then its copy.

        Args:
          state, library, config: of the run.
          unseen: success on unseen tasks, if it was evaluated after this step.
        """
        mirror, texts = self.mirror, {}
        if mirror is not None:
            texts = texts_of(self.folder)

        best_by = "unseen" if config.keep_best else None

        def copy(_: object) -> None:
            if mirror is not None:
                mirror.push(
                    self.folder.path, texts, keep=config.keep, best_by=best_by, notify=self.notify
                )

        checkpoint.save(
            self.folder.checkpoints,
            int(state.step),
            kept(state),
            {
                "life": library.to_dict(self.creator),
                "sizes": self.folder.sizes(),
                "base": base_of(state.frozen),
                **({} if self.algorithm is None else {"algorithm": self.algorithm}),
            },
            config,
            keep=config.keep,
            metrics={} if unseen is None else {"unseen": unseen},
            best_by=best_by,
            after=copy,
            notify=self.notify,
        )

    def wait(self) -> None:
        """Waits until the last checkpoint is written.

        Raises:
          CheckpointError: it could not be written.
        """
        checkpoint.wait_for_saves(self.folder.checkpoints)

    def check_mirror(self) -> None:
        """After `wait`.

        Raises:
          MirrorError: the mirror did not get everything.
        """
        if self.mirror is not None and self.mirror.behind is not None:
            raise MirrorError(
                f"the run is whole in {self.folder.path}, but {self.mirror.url} did not get the "
                f"last of it: {self.mirror.behind}"
            )


def open_storage(
    config: TrainConfig,
    creator: Creator[Any],
    *,
    resume: bool,
    notify: Callable[[str], None],
    algorithm: Algorithm | None = None,
) -> Storage:
    """Makes the folder of a run, or opens it to go on; several processes see the same one.

    Args:
      config: of the run.
      creator: whose memory is kept.
      resume: go on.
      notify: called with lines for the person who watches.
      algorithm: that the run learns with.

    Raises:
      RunFolderError: it exists already, or does not, or cannot be written.
      MirrorError: the mirror cannot be used, or holds what would be lost.
      OtherProcessError: one of these happened in the first process.
    """
    opened: list[Storage] = []
    told = described(algorithm, config)

    def work() -> int:
        mirror = None if config.mirror is None else Mirror(config.mirror, config.name)
        if resume:
            folder = RunFolder.reopen(config.root, config.name)
            if mirror is not None:
                mirror.check(folder.path)
        else:
            if mirror is not None:
                mirror.check_apart(run_path(config.root, config.name))
            if mirror is not None and mirror.holds_run():
                raise RunFolderError(
                    f"{mirror.url} exists already: continue it with --resume or choose another "
                    "--name"
                )
            folder = RunFolder.create(config.root, config.name, config)
        opened.append(Storage(folder, mirror, creator, notify, told))
        return 0

    if resume and config.mirror is not None:
        bring_back(config.mirror, config.root, config.name)
    from_first(work)
    if not is_first():
        opened.append(
            Storage(FollowedRunFolder.of(config.root, config.name), None, creator, notify, told)
        )
    return opened[0]
