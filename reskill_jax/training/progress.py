"""What a person sees while training goes on: a bar on a terminal, plain lines elsewhere."""

import statistics
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn


class TrainingProgress:
    """Shows step, success, the trial under way and the time left. Use it with `with`.

    On a terminal a bar stays at the bottom and notes scroll above it; otherwise a line is printed
    about every `interval` seconds, and at the end.
    """

    def __init__(
        self,
        console: Console,
        *,
        total: int,
        start: int = 0,
        interval: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the display.

        Args:
          console: where to write.
          total: number of training steps of the whole run.
          start: steps done before (of a resumed run).
          interval: seconds between plain lines.
          clock: for tests.
        """
        self._console, self._clock, self._interval = console, clock, interval
        self._total, self._done = total, start
        self._seconds: deque[float] = deque(maxlen=20)  # of the latest steps
        self._last_update = self._last_line = clock()
        self._line = ""
        self._shown = True
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.completed}/{task.total}"),
                BarColumn(bar_width=20),
                TextColumn("{task.description}"),
                console=console,
            )
            self._task = self._bar.add_task("starting", total=total, completed=start)

    def __enter__(self) -> "TrainingProgress":
        """Starts the display."""
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Ends the display; the last state stays on the screen."""
        if self._bar is not None:
            self._bar.stop()
        elif not self._shown:
            self._print(self._line)

    def status(self, text: str) -> None:
        """Says what is going on before or between steps, e.g. that the step is being compiled."""
        if self._bar is not None:
            self._bar.update(self._task, description=escape(text))
        else:
            self._print(text)
        self._last_update = self._clock()

    def note(self, text: str) -> None:
        """Prints a line that stays, e.g. an accepted skill or an evaluation."""
        (self._bar.console if self._bar is not None else self._console).print(
            escape(text), highlight=False, soft_wrap=True
        )

    def update(
        self,
        step: int,
        *,
        success: float | None = None,
        unseen: float | None = None,
        trial: str | None = None,
    ) -> None:
        """Tells that a step is done.

        Args:
          step: number of steps done.
          success: success rate of the latest training rollouts.
          unseen: latest success rate on unseen tasks.
          trial: the trial under way in a few words; None = idle.
        """
        now = self._clock()
        if step > self._done:
            self._seconds.append((now - self._last_update) / (step - self._done))
        self._done, self._last_update = step, now
        parts = [f"success {100 * success:.0f}%"] if success is not None else []
        if unseen is not None:
            parts.append(f"unseen {100 * unseen:.0f}%")
        parts.append(trial or "no trial")
        if self._seconds:
            parts.append(f"{self.seconds_per_step:.1f} s/step")
            parts.append(f"{clock_text(self.seconds_left)} left")
        text = "  ".join(parts)
        self._line, self._shown = f"step {step}/{self._total}  {text}", False
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=escape(text))
        elif now - self._last_line >= self._interval:
            self._print(self._line)

    @property
    def seconds_per_step(self) -> float:
        """Median of the latest steps, so that compilation does not spoil the forecast."""
        return statistics.median(self._seconds) if self._seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Forecast for the rest of the run."""
        return self.seconds_per_step * max(self._total - self._done, 0)

    def _print(self, text: str) -> None:
        self._console.print(escape(text), highlight=False, soft_wrap=True)
        self._last_line, self._shown = self._clock(), True


def clock_text(seconds: float) -> str:
    """0:07, 12:30, 1:02:03."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
