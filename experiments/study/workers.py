"""Many runs of the household study, side by side, one to a core."""

import multiprocessing
import os
import queue
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .jobs import Job, StudyError
from .runs import run_job

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "jax"  # of compiled programs


def _work(core: int | None, waiting, done, **where: Any) -> None:
    """A worker process: takes jobs until there are none."""
    if core is not None:
        os.sched_setaffinity(0, {core})  # before XLA starts its threads
    parent = os.getppid()
    while (job := waiting.get()) is not None and os.getppid() == parent:
        done.put((job, *_attempt(job, **where)))


def _attempt(job: Job, **where: Any) -> tuple[float, str | None]:
    """Seconds, and what went wrong: one run that fails does not end the study."""
    began = time.perf_counter()
    try:
        run_job(job, **where)
    except Exception:
        return time.perf_counter() - began, traceback.format_exc()
    return time.perf_counter() - began, None


def run_all(jobs: Sequence[Job], *, workers: int, **where: Any) -> int:
    """Runs jobs, and tells about each; returns how many failed.

    Args:
      jobs: in this order.
      workers: processes, each on a core of its own and with a single thread: two runs side by side
        are quicker than one after the other on two cores. 0: in this process, with all cores.
      where: folder, results and keep of `run_job`.
    """
    failed, began = 0, time.perf_counter()
    for number, (job, seconds, error) in enumerate(_finished(jobs, workers, where), 1):
        spent = time.perf_counter() - began
        left = spent / number * (len(jobs) - number)
        print(
            f"[{number}/{len(jobs)}] {job.study} {job.name}: "
            + (f"{seconds:.0f} s" if error is None else f"FAILED\n{error}")
            + f"; {spent / 60:.0f} min so far, about {left / 60:.0f} to go",
            flush=True,
        )
        failed += error is not None
    return failed


def _finished(jobs: Sequence[Job], workers: int, where: dict[str, Any]) -> Iterator[tuple]:
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    if workers == 0:
        for job in jobs:
            yield job, *_attempt(job, **where)
        return
    flags = os.environ.get("XLA_FLAGS", "")
    if "multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    context = multiprocessing.get_context("spawn")
    waiting, done = context.Queue(), context.Queue()
    for job in jobs:
        waiting.put(job)
    cores = sorted(os.sched_getaffinity(0))
    processes = []
    for number in range(min(workers, len(jobs))):
        arguments = (cores[number % len(cores)], waiting, done)
        processes.append(context.Process(target=_work, args=arguments, kwargs=where, daemon=True))
        waiting.put(None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("household_study: ended"))
    try:
        for process in processes:
            process.start()
        for _ in jobs:
            yield _next(done, processes)
        for process in processes:
            process.join()
    finally:  # Ctrl-C or an end from outside: what is left of the runs is begun again
        for process in processes:
            process.terminate()
        waiting.cancel_join_thread()  # else jobs that nobody takes would keep this process alive


def _next(done, processes):
    """The next message of a worker; an error if all have died without one."""
    while True:
        try:
            return done.get(timeout=5)
        except queue.Empty:
            if not any(process.is_alive() for process in processes):
                raise StudyError("the worker processes ended unexpectedly") from None
