"""SIGTERM and Ctrl-C: noted while there is time, the end when there is none."""

import os
import pty
import signal
import subprocess
import sys
import threading
import time

import pytest

from reskill_jax.devices.preemption import Interrupted, Preempted, StopSignal, ended_by

# Like a compiler, the hash does not come back to Python before it is done.
BUSY = """
import hashlib, sys, time
from reskill_jax.devices.preemption import StopSignal
with StopSignal(grace=float(sys.argv[1])) as stop:
    if sys.argv[2] == "saving":
        stop.only_saving()
    print("ready", flush=True)
    if sys.argv[2] == "compiling":
        hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
    time.sleep(float(sys.argv[3]))
print("left", stop.received, flush=True)
"""


class Busy:
    """A process that is busy while it is signalled."""

    def __init__(self, grace, doing, seconds=0.0, before=()):
        words = [*before, sys.executable, "-c", BUSY, str(grace), doing, str(seconds)]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._limit = threading.Timer(60, self.process.kill)  # nobody waits for it in vain
        self._limit.start()
        assert self.process.stdout.readline() == "ready\n"

    def signal(self, number):
        self.process.send_signal(number)

    def end(self):
        """Exit status, output, errors."""
        try:
            out, error = self.process.communicate(timeout=60)
        finally:
            self.process.kill()
            self._limit.cancel()
            self._limit.join()
        return self.process.returncode, out, error


def test_who_does_not_leave_in_time_is_ended():
    busy = Busy(0.2, "compiling")
    busy.signal(signal.SIGTERM)
    status, out, error = busy.end()
    assert (status, out) == (143, "")
    assert error == (
        "\nreskill: ended by SIGTERM in the middle of a step, which took too long to wait for; "
        "--resume goes on from the last checkpoint\n"
    )


def test_who_leaves_in_time_is_not():
    busy = Busy(30, "sleeping", 0.5)
    busy.signal(signal.SIGTERM)
    assert busy.end() == (0, f"left {int(signal.SIGTERM)}\n", "")


def test_who_only_saves_may_take_longer():
    busy = Busy(0.1, "saving", 0.6)
    busy.signal(signal.SIGTERM)
    assert busy.end() == (0, f"left {int(signal.SIGTERM)}\n", "")


def test_the_second_interrupt_ends_at_once_even_while_compiling():
    busy = Busy(30, "compiling")
    busy.signal(signal.SIGINT)
    lines = [busy.process.stderr.readline() for _ in range(2)]  # said while it is busy
    heard = "reskill: interrupted: ends as soon as this step is done; Ctrl-C again ends at once\n"
    assert lines == ["\n", heard] and busy.process.poll() is None
    began = time.monotonic()
    busy.signal(signal.SIGINT)
    status, out, error = busy.end()
    assert (status, out) == (130, "") and time.monotonic() - began < 10
    assert error == "\nreskill: interrupted at once; --resume goes on from the last checkpoint\n"


def test_one_interrupt_does_not_end_at_all():
    busy = Busy(0.1, "sleeping", 0.5)
    busy.signal(signal.SIGINT)
    status, out, error = busy.end()
    assert (status, out) == (0, f"left {int(signal.SIGINT)}\n")
    assert error.startswith("\nreskill: interrupted: ends as soon as") and error.count("\n") == 2


def test_a_lost_terminal_fails_nothing():
    """What the process says afterwards has no place to go."""
    there, here = pty.openpty()
    words = [sys.executable, "-c", BUSY, "30", "sleeping", "0.3"]
    process = subprocess.Popen(words, stdin=here, stdout=here, stderr=here)
    os.close(here)
    assert os.read(there, 100).startswith(b"ready")
    os.close(there)
    process.send_signal(signal.SIGHUP)
    assert process.wait(60) == 0


def test_what_was_to_be_ignored_is_ignored():
    """nohup, or a job in the background of a script: the Ctrl-C is meant for others."""
    ignoring = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
    busy = Busy(0.1, "sleeping", 0.5, before=ignoring)
    for _ in range(2):
        busy.signal(signal.SIGINT)
    assert busy.end() == (0, "left 0\n", "")


def test_what_a_run_raises():
    assert isinstance(ended_by(signal.SIGTERM, 3), Preempted)
    assert isinstance(ended_by(signal.SIGINT, 3), Interrupted)
    assert issubclass(Interrupted, KeyboardInterrupt) and issubclass(Preempted, SystemExit)
    assert str(ended_by(signal.SIGINT, 3)) == "interrupted after step 3, everything is saved"
    lost = ended_by(signal.SIGHUP, 3)
    assert str(lost) == "ended by SIGHUP after step 3, everything is saved"
    assert (lost.status, lost.code, lost.step) == (129, 129, 3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_everything_is_as_it_was_afterwards(number):
    before, threads = signal.getsignal(number), threading.active_count()
    for _ in range(2):
        with StopSignal(tell=lambda _: None) as stop:
            assert not stop.received
            signal.raise_signal(number)
            assert stop.received == number
    assert signal.getsignal(number) is before
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
