"""SIGTERM: noted while there is time, the end when there is none."""

import signal
import subprocess
import sys
import threading
import time

from reskill_jax.training.preemption import StopSignal

SLOW = """
import sys, time
from reskill_jax.training.preemption import StopSignal
with StopSignal(grace=float(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(float(sys.argv[2]))
print("left", flush=True)
"""


def slow(grace, seconds):
    """A process that is signalled while it is busy: (exit status, seconds it took, output)."""
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(grace), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - began, out, error


def test_who_does_not_leave_in_time_is_ended():
    status, seconds, out, error = slow(0.2, 50)
    assert status == 143 and seconds < 30 and out == ""
    assert error.strip().startswith("reskill: ended by SIGTERM in the middle of a step")
    assert error.count("\n") == 2


def test_who_leaves_in_time_is_not():
    status, _, out, error = slow(30, 0.5)
    assert (status, out, error) == (0, "left\n", "")


def test_everything_is_as_it_was_afterwards():
    before, threads = signal.getsignal(signal.SIGTERM), threading.active_count()
    for _ in range(2):
        with StopSignal() as stop:
            assert not stop.received
            signal.raise_signal(signal.SIGTERM)
            assert stop.received
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
    assert threading.active_count() == threads


def test_elsewhere_than_in_the_main_thread_nothing_happens():
    found = []

    def work():
        with StopSignal() as stop:
            found.append((stop.received, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [(False, signal.getsignal(signal.SIGTERM))]
