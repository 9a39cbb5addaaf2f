"""An end from outside: SIGTERM is noted, and the run ends after the step with everything saved."""

import signal
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
    time to save. Outside the main thread, where Python allows no handlers, nothing is changed.
    """

    def __init__(self) -> None:
        """Nothing is noted yet."""
        self.received = False
        self._old: signal._HANDLER = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = True

    def __enter__(self) -> "StopSignal":
        """Returns itself."""
        if threading.current_thread() is threading.main_thread():
            self._old = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts the old handler back."""
        if self._old is not None:
            signal.signal(signal.SIGTERM, self._old)
