"""Pipelines beside training: a thread works, and step boundaries look whether it is done.

At which step an outcome was there is recorded. A run that is gone through again, after a crash or
in a replay, waits for it at that step and does not look at it before: it goes as it went.
"""

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from reskill_jax.devices.processes import exchange
from reskill_jax.storage.replies import ReplyStore

from .asking import Asker, Spent, Stopped
from .call import Request
from .pipeline import Outcome, Plan, run_pipeline
from .state import Brief

T = TypeVar("T")


class Desk:
    """Where the pipelines of a run are worked on, one at a time."""

    def __init__(
        self, asker: Asker, store: ReplyStore, plan: Plan, *, parallel: int, lag: int | None = None
    ) -> None:
        """Begins nothing.

        Args:
          asker: asks the model.
          store: where arrivals are recorded.
          plan: of the pipelines.
          parallel: questions at once.
          lag: steps after which an outcome is waited for and taken; None = as soon as it is there.
        """
        self._asker, self._store, self._plan = asker, store, plan
        self._parallel, self._lag = parallel, lag
        self._brief: str | None = None  # digest of what is being worked on
        self._done = threading.Event()
        self._outcome: Outcome | None = None
        self._error: BaseException | None = None

    def begin(self, brief: Brief) -> None:
        """Begins to work, unless this very pipeline is under way already."""
        if self._brief == brief.digest:
            return
        self._brief, self._done = brief.digest, threading.Event()
        self._outcome, self._error = None, None
        arguments = (brief, self._done)
        threading.Thread(target=self._work, args=arguments, name="creator", daemon=True).start()

    def take(self, brief: Brief, step: int) -> Outcome | None:
        """The outcome of a pipeline, if it is there at this step.

        Args:
          brief: that was begun; it is begun anew where this process has not.
          step: of the run, at whose boundary this is.

        Raises:
          Exception: whatever went wrong in the thread and was no fault of the server.
        """
        self.begin(brief)
        there = self._is_there(brief, step)
        self._store.note(brief.digest, step, there=there)
        if there and self._error is not None:
            raise self._error
        return self._outcome if there else None

    def _is_there(self, brief: Brief, step: int) -> bool:
        """Whether the outcome is there at a step: as before if there is a record, else really."""
        arrival = self._store.arrival(brief.digest)
        if arrival is None and self._lag is not None:
            arrival = brief.step + self._lag
        if arrival is None:
            return step > self._store.absent_at(brief.digest) and self._done.is_set()
        if step < arrival:
            return False
        self._done.wait()
        return True

    def close(self) -> None:
        """Lets no further question be asked; one that is under way is left behind."""
        self._asker.close()

    def _work(self, brief: Brief, done: threading.Event) -> None:
        """The pipeline, in its thread."""
        try:
            outcome = self._run(brief)
        except Stopped:
            return
        except BaseException as error:  # goes on in the thread that takes the outcome
            self._error = error
        else:
            self._outcome = outcome
        done.set()

    def _run(self, brief: Brief) -> Outcome:
        lock, costs = threading.Lock(), [brief.spent]

        def tell(cost: Spent) -> None:
            with lock:
                costs[0] += cost

        def ask(request: Request, read: Callable[[dict[str, Any]], T]) -> T:
            return self._asker.ask(request, read, tell)

        self._asker.begin(brief.spent)
        outcome = run_pipeline(
            brief, self._plan, ask, self._together, calls_left=self._asker.left(brief.spent)[0]
        )
        return dataclasses.replace(outcome, spent=costs[0])

    def _together(self, jobs: Sequence[Callable[[], T]]) -> list[T]:
        return at_once(jobs, self._parallel)


class SharedDesk:
    """The desk of a run in several processes: the first works, all take the same at the same step.

    Everything that goes into a brief is the same in every process, so all of them begin and take
    the same pipelines; what the first finds on its desk is told to the others.
    """

    def __init__(self, desk: Desk | None) -> None:
        """Begins nothing.

        Args:
          desk: of the first process; None in the others.
        """
        self._desk = desk

    def begin(self, brief: Brief) -> None:
        """See `Desk`."""
        if self._desk is not None:
            self._desk.begin(brief)

    def take(self, brief: Brief, step: int) -> Outcome | None:
        """See `Desk`; every process calls it.

        Raises:
          OtherProcessError: the first process raised what `Desk.take` raises.
        """
        desk = self._desk

        def work() -> bytes:
            outcome = None if desk is None else desk.take(brief, step)
            return b"" if outcome is None else json.dumps(outcome.to_dict()).encode()

        told = exchange(work)[0]
        return Outcome.from_dict(json.loads(told)) if told else None

    def close(self) -> None:
        """See `Desk`."""
        if self._desk is not None:
            self._desk.close()


def at_once(jobs: Sequence[Callable[[], T]], workers: int) -> list[T]:
    """What each job returns, in their order.

    The threads are daemons: unlike those of a pool they hold up nobody who wants to leave.

    Raises:
      Exception: what the first job that failed raised, after the others.
    """
    left = list(enumerate(jobs))[::-1]
    results: dict[int, T] = {}
    errors: dict[int, BaseException] = {}

    def work() -> None:
        while True:
            try:
                number, job = left.pop()  # atomic
            except IndexError:
                return
            try:
                results[number] = job()
            except BaseException as error:  # raised below
                errors[number] = error

    threads = [
        threading.Thread(target=work, name=f"creator-{n}", daemon=True)
        for n in range(min(workers, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return [results[number] for number in range(len(jobs))]
