"""An end from outside: SIGTERM is noted, and the run ends after the step with everything saved."""

import os
import signal
import socket
import sys
import threading
from types import FrameType


class Preempted(SystemExit):
    """A run was asked to end, and did so with a complete checkpoint of its last step.

    Attributes:
      status: the exit code, which is the one a shell reports for SIGTERM.
      step: steps done.
    """

    status = 128 + int(signal.SIGTERM)

    def __init__(self, step: int) -> None:
        """After so many steps."""
        super().__init__(self.status)
        self.step = step

    def __str__(self) -> str:
        """One line."""
        return f"ended by SIGTERM after step {self.step}, everything is saved"


class StopSignal:
    """While it is entered, SIGTERM does not end the process but is noted in `received`.

    Preemption of a cloud machine and a batch system's time limit come as SIGTERM, with a little
    time to save. Who does not get to leave in this time, because a program is being compiled or a
    step takes long, is ended: the last checkpoint is complete, and nothing more can be saved.
    Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self, grace: float = 25.0) -> None:
        """Nothing is noted yet.

        Args:
          grace: seconds between the signal and the end.
        """
        self.received = False
        self._grace = grace
        self._old: signal._HANDLER = None
        self._told: tuple[socket.socket, socket.socket] | None = None
        self._old_descriptor = -1

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def _watch(self) -> None:
        """Waits for the signal, then for the exit; in a thread, which no long call holds up."""
        assert self._told is not None
        listening = self._told[0]
        while number := listening.recv(1):
            if number[0] == signal.SIGTERM:
                break
        else:
            return  # left, and never signalled
        listening.settimeout(self._grace)
        try:
            while listening.recv(1):
                pass
        except TimeoutError:
            sys.stderr.write(
                "\nreskill: ended by SIGTERM in the middle of a step, which took too long to wait "
                "for; --resume goes on from the last checkpoint\n"
            )
            sys.stderr.flush()
            os._exit(Preempted.status)

    def __enter__(self) -> "StopSignal":
        """Returns itself."""
        if threading.current_thread() is threading.main_thread():
            self._told = socket.socketpair()
            self._told[1].setblocking(False)
            # Written to at once, while a handler has to wait for the interpreter.
            self._old_descriptor = signal.set_wakeup_fd(self._told[1].fileno())
            self._old = signal.signal(signal.SIGTERM, self._note)
            self._watcher = threading.Thread(target=self._watch, name="preemption", daemon=True)
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the old handler back."""
        if self._told is not None:
            signal.signal(signal.SIGTERM, self._old)
            signal.set_wakeup_fd(self._old_descriptor)
            self._told[1].close()  # the watcher reads the end
            self._watcher.join()
            self._told[0].close()
            self._told = None
