"""The progress display, on a terminal and without one."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from reskill_jax.training.progress import TrainingProgress, clock_text, event_text, fit

TERMINAL = {"TERM": "xterm-256color"}


def plain(text):
    """What a terminal shows of it."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text).replace("\r", "")


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


def test_compiling_is_no_step():
    """The first line has the time of the first step alone, and so has its forecast."""
    out, clock = io.StringIO(), Clock()
    console = Console(file=out, width=200)
    with TrainingProgress(console, total=61, clock=clock) as progress:
        progress.status("compiling the training step")
        clock.now += 60
        progress.compiled("the training step", 60.0)
        clock.now += 1.5
        progress.update(1, success=0.25)
    assert out.getvalue().splitlines() == [
        "compiling the training step",
        "compiled the training step in 60.0 s",
        "step 1/61  success 25%  no trial  1.5 s/step  1:30 left",
    ]


def test_an_evaluation_after_a_step_is_no_part_of_it():
    out, clock = io.StringIO(), Clock()
    with TrainingProgress(Console(file=out, width=200), total=3, clock=clock) as progress:
        progress.compiled("the training step", 9.0)
        for step in (1, 2, 3):
            clock.now += 2
            progress.status("evaluating the trained policy")
            clock.now += 30
            progress.status("evaluating it without skills")
            clock.now += 30
            progress.update(step)
    assert (progress.seconds_per_step, progress.seconds_left) == (2.0, 0.0)
    assert out.getvalue().splitlines()[-1] == "step 3/3  no trial  2.0 s/step  0:00 left"


def bar(width, **update):
    """The line at the bottom of a terminal of some width."""
    clock = Clock()
    console = Console(file=io.StringIO(), width=width, force_terminal=True, _environ=TERMINAL)
    progress = TrainingProgress(console, total=600, start=11, clock=clock)
    clock.now += 2.25
    progress.update(12, **update)
    with console.capture() as captured:
        console.print(progress, end="")
    return plain(captured.get())


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (120, "12/600  {bar}  success 25%  unseen 50%  trial 1: 45% new, 32% old  2.2 s/step"
         "  22:03 left"),
        (80, "12/600  success 25%  unseen 50%  trial 1: 45% new, 32% old  22:03 left"),
        (60, "12/600  success 25%  trial 1: 45% new, 32% old  22:03 left"),
        (50, "12/600  success 25%  22:03 left"),
        (30, "12/600  22:03 left"),
        (8, "12/600"),
    ],
)  # fmt: skip
def test_step_time_and_success_are_kept_to_the_last(width, expected):
    told = bar(width, success=0.25, unseen=0.5, trial="trial 1: 45% new, 32% old")
    assert told.replace("━" * 20, "{bar}").rstrip() == expected
    assert len(told) <= width


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.text("ab", min_size=1, max_size=12)),
        min_size=1,
        unique_by=lambda part: part[1],
    ),
    st.integers(1, 60),
)
def test_parts_are_left_out_from_the_least_important_on(parts, width):
    told = fit(parts, width)
    assert len("  ".join(told)) <= width
    if len(told) > 1:
        ranks = {text: rank for rank, text in parts}
        assert told == [text for _, text in parts if text in told]
        left_out = [rank for text, rank in ranks.items() if text not in told]
        assert max(ranks[text] for text in told) <= min(left_out, default=9)


NOTE = "step 3: accepted ADD look-at-the-shelf-right-after-taking open-the-fridge-first twice"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        (30, ["step 3: accepted ADD", "    look-at-the-shelf-right-after-taking",
              "    open-the-fridge-first", "    twice"]),
        (60, ["step 3: accepted ADD look-at-the-shelf-right-after-taking",
              "    open-the-fridge-first twice"]),
        (79, [NOTE.removesuffix(" twice"), "    twice"]),
        (120, [NOTE]),
    ],
)  # fmt: skip
def test_notes_break_between_words(width, expected):
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, _environ=TERMINAL)
    with TrainingProgress(console, total=3) as progress:
        progress.note(NOTE)
    assert "\n".join(expected) in plain(out.getvalue())


def test_without_a_terminal_a_note_is_one_line():
    out = io.StringIO()
    TrainingProgress(Console(file=out, width=20), total=3).note(
        "accepted " + "open-the-fridge " * 9
    )
    assert out.getvalue().count("\n") == 1


def test_markup_in_what_is_told_is_text():
    out = io.StringIO()
    progress = TrainingProgress(Console(file=out, width=80), total=3)
    progress.status("[red]one[/]")
    progress.note("[bold]two")
    assert out.getvalue() == "[red]one[/]\n[bold]two\n"


SKILL = {"action": "open."}
ADD = {"operation": "ADD", "name": "open-first", "skill": SKILL}


@pytest.mark.parametrize(
    ("line", "effect", "expected", "colour"),
    [
        ({"event": "accepted", "operations": [ADD]}, "success +9.0 ± 3.0 points",
         'step 7: accepted ADD open-first "open." (success +9.0 ± 3.0 points)', "green"),
        ({"event": "rejected", "operations": [ADD]}, "success -1.0 ± 2.0 points",
         'step 7: rejected ADD open-first "open." (success -1.0 ± 2.0 points)', "red"),
        ({"event": "retirement_started", "operations": [{"operation": "DELETE", "name": "x"}]},
         None, "step 7: retirement started DELETE x", "cyan"),
        ({"event": "unproposed", "operations": [], "reason": "nothing to contrast"}, None,
         "step 7: unproposed nothing to contrast", ""),
    ],
)  # fmt: skip
def test_events_have_the_colour_of_their_outcome_and_the_effect(line, effect, expected, colour):
    text = event_text({"step": 7} | line, effect)
    assert text.plain == expected
    word = line["event"].replace("_", " ")
    assert [(str(s.style), text.plain[s.start : s.end]) for s in text.spans if s.style] == (
        [(colour, word)] if colour else []
    )


def test_no_colour_where_none_is_wanted():
    for environment, coloured in ((TERMINAL, True), (TERMINAL | {"NO_COLOR": "1"}, False)):
        out = io.StringIO()
        console = Console(file=out, width=90, force_terminal=True, _environ=environment)
        with TrainingProgress(console, total=3) as progress:
            progress.note(event_text({"step": 1, "event": "accepted", "operations": [ADD]}))
        assert ("\x1b[32maccepted" in out.getvalue()) == coloured


def test_a_dumb_terminal_gets_plain_lines():
    out = io.StringIO()
    console = Console(file=out, width=90, force_terminal=True, _environ={"TERM": "dumb"})
    with TrainingProgress(console, total=3, interval=0) as progress:
        progress.update(1, success=0.5)
    assert "\x1b" not in out.getvalue() and "step 1/3  success 50%" in out.getvalue()


def test_a_resumed_run_counts_its_own_steps():
    clock = Clock()
    console = Console(file=io.StringIO())
    with TrainingProgress(console, total=50, start=40, clock=clock) as progress:
        clock.now += 6
        progress.update(42)
    assert (progress.seconds_per_step, progress.seconds_left) == (3.0, 24.0)


def test_clock_text():
    assert [clock_text(s) for s in (6.6, 750, 3723)] == ["0:07", "12:30", "1:02:03"]


def test_an_alarm_stands_on_the_line():
    console = Console(file=io.StringIO(), width=100)
    with TrainingProgress(console, total=4, interval=0) as progress:
        progress.update(1, success=0.5, alarm="alarm: instruction")
    assert "alarm: instruction" in console.file.getvalue()
