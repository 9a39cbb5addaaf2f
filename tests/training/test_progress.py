"""The progress display, on a terminal and without one."""

import io

from rich.console import Console

from reskill_jax.training.progress import TrainingProgress, clock_text


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def run(console, clock):
    with TrainingProgress(console, total=50, clock=clock) as progress:
        progress.status("compiling the step")
        clock.now += 40
        progress.update(1, success=0.1)
        for step in range(2, 13):
            clock.now += 2
            progress.update(step, success=0.25, unseen=0.5, trial="trial 1: ADD [open]")
            if step == 5:
                progress.note("accepted [open-first]")
    return progress


def test_plain_lines_about_every_ten_seconds():
    out, clock = io.StringIO(), Clock()
    run(Console(file=out, width=200), clock)
    assert out.getvalue().splitlines() == [
        "compiling the step",
        "step 1/50  success 10%  no trial  40.0 s/step  32:40 left",
        "accepted [open-first]",
        "step 6/50  success 25%  unseen 50%  trial 1: ADD [open]  2.0 s/step  1:28 left",
        "step 11/50  success 25%  unseen 50%  trial 1: ADD [open]  2.0 s/step  1:18 left",
        "step 12/50  success 25%  unseen 50%  trial 1: ADD [open]  2.0 s/step  1:16 left",
    ]


def test_bar_on_a_terminal():
    out, clock = io.StringIO(), Clock()
    progress = run(Console(file=out, width=120, force_terminal=True, color_system=None), clock)
    assert "12/50" in out.getvalue() and "trial 1: ADD [open]" in out.getvalue()
    assert "accepted [open-first]\n" in out.getvalue()
    assert (progress.seconds_per_step, progress.seconds_left) == (2.0, 76.0)


def test_a_resumed_run_counts_its_own_steps():
    clock = Clock()
    console = Console(file=io.StringIO())
    with TrainingProgress(console, total=50, start=40, clock=clock) as progress:
        clock.now += 6
        progress.update(42)
    assert (progress.seconds_per_step, progress.seconds_left) == (3.0, 24.0)


def test_clock_text():
    assert [clock_text(s) for s in (6.6, 750, 3723)] == ["0:07", "12:30", "1:02:03"]
