"""The summary at the end of a run."""

import io
import json
import re
import shutil

import pytest
from rich.console import Console

from reskill_jax.report import read_run, summary_lines, summary_text
from reskill_jax.report.skills import Entry
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import export_skill


def test_summary_of_a_run(fake_run):
    run = read_run(fake_run)
    lines = summary_lines(run)
    # The first step, with compiling in it, took 38 s.
    assert lines[0] == "household-demo: 60 steps, 3.5 s per step"
    first, last = run.evaluations("unseen")[0], run.evaluations("unseen")[-1]
    (unseen,) = [line for line in lines if line.startswith("unseen tasks")]
    assert unseen.split()[2] == f"{100 * first['success']:.0f}%"
    assert f"{100 * last['success']:.0f}% ({100 * last['interval'][0]:.0f}–" in unseen
    assert unseen.endswith("up, intervals apart")
    assert lines[-2] == "skills        3 accepted, 2 rejected, 1 pruned or retired"
    assert lines[-1] == "in the bank   open-after-navigation, clean-before-placement"


def test_summary_of_an_empty_run(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    for path in folder.glob("*.jsonl"):
        path.unlink()
    assert summary_lines(read_run(folder)) == [
        "household-demo: 0 steps",
        "",
        "skills        0 accepted, 0 rejected, 0 pruned or retired",
        "in the bank   none",
    ]


def test_seconds_per_step_leave_compiling_out(full_run):
    run = read_run(full_run)
    assert run.compile_seconds == 34.5 and 3.4 <= run.seconds_per_step <= 3.7
    assert summary_lines(run)[0] == "household-full: 60 steps, 3.5 s per step, 34 s of compiling"


def test_decisions_tell_the_effect(full_run):
    lines = summary_lines(read_run(full_run), width=90)
    assert "step 11       accepted ADD avoid-repetitive-loops (success +6.0 points)" in lines
    assert "step 19       rejected ADD examine-everything (success -9.0 points)" in lines
    assert "step 52       retired DELETE avoid-repetitive-loops (success +1.0 points)" in lines


def test_decisions_stand_in_the_order_in_which_they_were_made(tmp_path):
    """Of trials that overlap the one that began last may end first."""
    lines = []
    for step, event, trial in (
        *((1, "proposed", 1), (1, "proposed", 2), (4, "rejected", 2), (5, "proposed", 3)),
        *((7, "accepted", 3), (9, "accepted", 1)),
    ):
        operation = {"operation": "ADD", "name": f"skill-{trial}", "skill": None}
        lines.append({"step": step, "event": event, "trial": trial, "operations": [operation]})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "lifecycle.jsonl").write_text(text)
    told = [line for line in summary_lines(read_run(tmp_path)) if line.startswith("step ")]
    assert told == [
        "step 4        rejected ADD skill-2",
        "step 7        accepted ADD skill-3",
        "step 9        accepted ADD skill-1",
    ]


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_no_name_is_broken(full_run, tmp_path, width):
    """Lines are as wide as the terminal, but for a name that is longer."""
    run = read_run(full_run)
    names = [f"{word}-after-go-to-for-put-{word}" for word in ("take", "open", "close", "heat")]
    run.bank = [Entry(name, None, None) for name in names]
    run.trials[0].operations = [{"operation": "ADD", "name": name} for name in names]
    lines = summary_lines(run, width=width)
    text = "\n".join(lines)
    for name in names:
        assert text.count(name) == 2
        if width >= 60:
            assert f"ADD {name}" in text
    longest = 14 + len("ADD ,") + max(map(len, names))
    assert all(len(line) <= max(width, longest) for line in lines if "tasks" not in line)
    if width >= 60:
        assert all(len(line) <= width for line in lines)


def test_colours_reach_a_terminal_alone(full_run):
    lines = summary_lines(read_run(full_run))
    plain = "\n".join(lines) + "\n"
    told = {}
    for terminal in (False, True):
        file = io.StringIO()
        colours = "standard" if terminal else "auto"
        console = Console(file=file, force_terminal=terminal, color_system=colours, width=80)
        console.print(summary_text(lines), soft_wrap=True)
        told[terminal] = file.getvalue()
    assert told[False] == plain
    assert "\x1b[32maccepted\x1b[0m ADD avoid-repetitive-loops" in told[True]
    assert "\x1b[31mrejected\x1b[0m ADD examine-everything" in told[True]
    assert "\x1b[32m3 accepted\x1b[0m, \x1b[31m2 rejected\x1b[0m" in told[True]
    assert re.sub("\x1b\\[[0-9;]*m", "", told[True]) == plain


def test_the_skills_of_a_folder_are_in_the_bank(fake_run, tmp_path):
    """A run that began with skills: its log does not tell of them, its folder does."""
    folder = shutil.copytree(fake_run, tmp_path / "run")
    (folder / "lifecycle.jsonl").write_text("")
    for name in ("open-first", "look-around"):
        skill = Skill(name, "Always.", "look.", Trigger("general"))
        export_skill(skill, folder / "skills")
    assert summary_lines(read_run(folder))[-1] == "in the bank   look-around, open-first"
