"""Reading a run: trials, lives of skills, damaged lines, folders that are no run."""

import json
import math
import os
import shutil

import pytest

from reskill_jax.report.lines import MAX_LINE
from reskill_jax.report.reading import ReportError, read_run
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import export_skill


def event(step, name, trial=1, operations=(), **more):
    line = {"step": step, "event": name, "trial": trial, "operations": list(operations)}
    return line | more


def operation(verb, name, action="open."):
    skill = None if verb == "DELETE" else {"name": name, "action": action}
    return {"operation": verb, "name": name, "skill": skill}


def write(folder, **logs):
    (folder / "config.json").write_text('{"name": "x"}')
    for name, lines in logs.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def logs_of(run):
    return run.metrics, run.tested, run.evals, run.lifecycle


def lives(run):
    return [(life.name, life.start, life.end, life.left) for life in run.lives]


def test_the_life_of_skills(tmp_path):
    run = read_run(
        write(
            tmp_path,
            lifecycle=[
                event(1, "proposed", 1, [operation("ADD", "a")], reason="why"),
                event(5, "accepted", 1, [operation("ADD", "a")], successes=[1, 5], trials=[10, 11]),
                event(6, "proposed", 2, [operation("ADD", "b")]),
                event(9, "rejected", 2, [operation("ADD", "b")], reason="worse"),
                event(10, "unproposed", None),
                event(12, "accepted", 3, [operation("MODIFY", "a", "go to fridge.")]),
                event(15, "retirement_started", 4, [operation("DELETE", "a")]),
                event(20, "retired", 4, [operation("DELETE", "a")]),
                event(21, "accepted", 5, [operation("ADD", "a"), operation("DELETE", "old")]),
                event(21, "pruned", 5, [operation("DELETE", "old")]),
                event(25, "retirement_started", 6, [operation("DELETE", "a")]),
                event(30, "kept", 6, [operation("DELETE", "a")]),
            ],
        )
    )
    assert run.problems == []
    assert lives(run) == [
        ("a", 5, 12, "modified"),
        ("a", 12, 20, "retired"),
        ("a", 21, None, ""),
        ("old", 0, 21, "pruned"),
    ]
    assert [(t.id, t.start, t.end, t.decision) for t in run.trials] == [
        (3, None, 12, "accepted"),
        (5, None, 21, "accepted"),
        (1, 1, 5, "accepted"),
        (2, 6, 9, "rejected"),
        (4, 15, 20, "retired"),
        (6, 25, 30, "kept"),
    ]
    first = run.trials[2]
    assert (first.successes, first.trials, first.proposal) == ([1, 5], [10, 11], "why")
    assert run.count("accepted") == 3 and run.last_step == 30


def test_an_open_trial_is_counted_from_the_steps(tmp_path):
    def step(number, alpha, beta, rates, counts):
        posterior = {"alpha": alpha, "beta": beta}
        line = {"step": number, "trial": 7, "posterior": posterior, "horizon": 50.0}
        return line | {"arm_success": rates, "arm_trials": counts}

    run = read_run(
        write(
            tmp_path,
            lifecycle=[event(1, "proposed", 7, [operation("ADD", "a")])],
            trials=[
                step(2, [3.0, 2.0], [7.0, 2.0], [0.25, 0.5], [8, 2]),
                step(3, [3.0, 4.0], [9.0, 5.0], [None, 0.4], [0, 5]),
            ],
        )
    )
    (trial,) = run.trials
    assert (trial.successes, trial.trials, trial.decision) == ([2, 3], [8, 7], None)
    assert (trial.alpha, trial.beta, trial.horizon) == ([3.0, 4.0], [9.0, 5.0], 50.0)
    assert trial.history[0] == (2, [3.0, 2.0], [7.0, 2.0])


BAD = [
    ("metrics", "{", "Expecting property name"),
    ("metrics", "[1]", "an object was expected, not list"),
    ("metrics", '{"success": 1}', "'step' is missing"),
    ("metrics", '{"step": "3"}', "'step' should be an integer from 0, is \"3\""),
    ("metrics", '{"step": 3, "loss": "x"}', "'loss' should be a number"),
    ("metrics", '{"step": 3, "trials": 1}', "'trials' should be a list of integers or texts, is"),
    ("trials", '{"step": 3}', "'trial' is missing"),
    ("trials", '{"step": 3, "trial": null}', "'trial' should be an integer or a text, is null"),
    ("trials", '{"step": 3, "trial": 1, "posterior": {"alpha": [1]}}', "'posterior' should be"),
    (
        "trials",
        '{"step": 3, "trial": 1, "posterior": {"alpha": [0], "beta": [1]}}',
        "'posterior' should be",
    ),
    ("eval", '{"step": 3, "split": "seen", "mode": "bank"}', "'success' is missing"),
    ("eval", '{"step": 3, "split": 3, "mode": "bank", "success": 1}', "'split' should be a text"),
    ("lifecycle", '{"step": 3}', "'event' is missing"),
    (
        "lifecycle",
        '{"step": 3, "event": "accepted", "operations": [4]}',
        "'operations' should be a list of objects, is [4]",
    ),
    ("lifecycle", '{"step": 3, "event": "accepted", "trials": "x"}', "'trials' should be a list"),
]


@pytest.mark.parametrize("log,text,message", BAD)
def test_bad_lines_are_named_and_left_out(fake_run, tmp_path, log, text, message):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    path = folder / f"{log}.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], text, *lines[1:]]) + "\n")
    run = read_run(folder)
    assert len(run.problems) == 1
    assert run.problems[0].startswith(f"{log}.jsonl line 2: ") and message in run.problems[0]
    assert logs_of(run) == logs_of(read_run(fake_run))


def test_noise_is_survived(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe\n\x00\n")
    (folder / "config.json").write_text("nonsense")
    run = read_run(folder)
    assert [p.split(":")[0] for p in run.problems] == [
        "config.json cannot be read",
        "metrics.jsonl line 1",
        "metrics.jsonl line 2",
    ]


def test_a_line_cut_off_by_an_interruption(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    with open(folder / "metrics.jsonl", "a") as log:
        log.write('{"step": 61, "succ')
    (problem,) = read_run(folder).problems
    assert problem.startswith("metrics.jsonl line 61: ")
    assert problem.endswith("(cut off: the run was interrupted here)")


def test_a_line_that_lost_its_end_does_not_take_the_next_with_it(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    path, good = folder / "metrics.jsonl", read_run(fake_run)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0].rstrip(), lines[1], lines[2][:70], *lines[3:]]))
    run = read_run(folder)
    (problem,) = run.problems
    assert problem.startswith("metrics.jsonl line 2: ") and "cut off" not in problem
    assert run.metrics == good.metrics[:2] + good.metrics[3:]


def test_an_evaluation_without_interval_gets_one(tmp_path):
    line = {"step": 0, "split": "seen", "mode": "bank", "success": 0.8, "episodes": 10}
    run = read_run(write(tmp_path, eval=[line]))
    assert run.evaluations("seen")[0]["interval"] == pytest.approx([0.490162, 0.943318])


def test_what_is_no_run(tmp_path):
    with pytest.raises(ReportError, match="there is no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="is no run folder: it has neither"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text('{"architectures": ["Qwen3"], "vocab_size": 9}')
    with pytest.raises(ReportError, match="is no run folder: config.json is not that of a run"):
        read_run(tmp_path)


def test_a_run_without_skills_is_evaluated_without(fake_run, tmp_path):
    run = read_run(fake_run)
    assert not run.plain and run.evaluations("seen") != run.evaluations("seen", "none")
    lines = [line for line in run.evals if line["mode"] == "none"]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = read_run(tmp_path)
    assert plain.plain
    assert plain.evaluations("seen") == run.evaluations("seen", "none") != []


def test_numbers_that_are_none_are_left_out_and_told(fake_run, tmp_path):
    """The line stays, with null as the writer of the logs has it."""
    folder = shutil.copytree(fake_run, tmp_path / "run")
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[2] |= {"kl": math.nan, "loss": math.inf}
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(text.replace('"grad_norm": ', '"grad_norm": 1e400, "was": ', 1))
    path = folder / "trials.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[5]["arm_success"] = [-math.inf, None]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    run = read_run(folder)
    told = "is left out: it is no finite number"
    assert run.problems == [
        f"metrics.jsonl line 1: 'grad_norm' {told}",
        f"metrics.jsonl line 3: 'loss' {told}",
        f"metrics.jsonl line 3: 'kl' {told}",
        f"trials.jsonl line 6: 'arm_success' {told}",
    ]
    assert len(run.metrics) == 60 and run.metrics[2]["kl"] is None
    assert run.tested[5]["arm_success"] == [None, None] and run.metrics[0]["grad_norm"] is None


BEYOND = [
    ("metrics", {"step": 10**6}, "'step' is far beyond the other lines"),
    ("metrics", {"step": 61, "seconds": -1}, "'seconds' should be a number from 0, is -1"),
    ("metrics", {"step": 61, "success": 1.5}, "'success' should be a number from 0 to 1, is 1.5"),
    ("metrics", {"step": 61, "loss": True}, "'loss' should be a number, is true"),
    (
        "metrics",
        {"step": 61, "trials": [[1]]},
        "'trials' should be a list of integers or texts, is [[1]]",
    ),
    ("trials", {"step": 10**6, "trial": 7}, "'step' is far beyond the other lines"),
    ("trials", {"step": 61, "trial": [1]}, "'trial' should be an integer or a text, is [1]"),
    (
        "trials",
        {"step": 61, "trial": 7, "arm_trials": [3]},
        "'arm_trials' has 1 arms, the run has 2",
    ),
    (
        "lifecycle",
        {"step": 9, "event": "kept", "trials": [3]},
        "'trials' has 1 arms, the run has 2",
    ),
    ("metrics", {"step": -1}, "'step' should be an integer from 0, is -1"),
    ("eval", {"step": 9, "split": "seen", "mode": "bank", "success": 0.5}, "'episodes' is missing"),
    (
        "eval",
        {"step": 9, "split": "seen", "mode": "bank", "success": 0.5, "interval": [0.9, 0.1]},
        "'interval' should be two numbers from 0 to 1, is [0.9, 0.1]",
    ),
    (
        "lifecycle",
        {"step": 9, "event": "accepted", "operations": [operation("ADD", 7)]},
        "'name' should be a text of at most 200 characters, is 7",
    ),
    (
        "lifecycle",
        {"step": 9, "event": "accepted", "operations": [operation("ADD", "a", 7)]},
        "'action' should be a text of at most 20000 characters, is 7",
    ),
    (
        "lifecycle",
        {"step": 9, "event": "accepted", "operations": [operation("TAKE", "a")]},
        "'operation' should be one of ADD, MODIFY, DELETE, is \"TAKE\"",
    ),
]


@pytest.mark.parametrize("log,line,message", BEYOND)
def test_values_that_cannot_be(fake_run, tmp_path, log, line, message):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    with open(folder / f"{log}.jsonl", "a") as file:
        file.write(json.dumps(line) + "\n")
    run, good = read_run(folder), read_run(fake_run)
    (problem,) = run.problems
    assert problem.partition(": ")[2] == message
    assert logs_of(run) == logs_of(good)


def test_configuration_without_what_cannot_be_used(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    config = {"name": ["x"], "steps": True, "seed": 4, "trial": 0, "rooms": {"objects": 3}}
    (folder / "config.json").write_text(json.dumps(config))
    run = read_run(folder)
    assert run.config == {"seed": 4, "rooms": {"objects": 3}}
    assert run.name == "run" and run.planned_steps is None
    assert [problem.split(" should")[0] for problem in run.problems] == [
        "config.json: 'name'",
        "config.json: 'steps'",
        "config.json: 'trial'",
    ]


def test_files_that_are_none(fake_run, tmp_path):
    """Neither a pipe, which would never end, nor a folder, nor lines without an end."""
    folder = shutil.copytree(fake_run, tmp_path / "run")
    (folder / "eval.jsonl").unlink()
    os.mkfifo(folder / "eval.jsonl")
    (folder / "lifecycle.jsonl").unlink()
    (folder / "lifecycle.jsonl").mkdir()
    with open(folder / "metrics.jsonl", "ab") as log:
        log.write(b" " * (2 * MAX_LINE) + b'{"step": 61}\n{"step": 62}\n')
    run = read_run(folder)
    assert run.problems == [
        f"metrics.jsonl line 61: it has more than {MAX_LINE} bytes",
        "eval.jsonl cannot be read: it is no file",
        "lifecycle.jsonl cannot be read: it is no file",
    ]
    assert [line["step"] for line in run.metrics] == [*range(1, 61), 62]


def test_a_byte_order_mark_is_passed_over(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    for name in ("config.json", "metrics.jsonl"):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    run = read_run(folder)
    assert run.problems == [] and len(run.metrics) == 60 and run.planned_steps == 60


def test_many_problems_are_told_in_few_lines(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    with open(folder / "metrics.jsonl", "a") as log:
        log.write("noise\n" * 5000)
    problems = read_run(folder).problems
    assert len(problems) == 51 and problems[-1] == "metrics.jsonl: 4950 more of the kind"


def test_a_decision_that_is_lost(full_run, tmp_path):
    """Later steps, in which the trial is over, show that there was one; the skill has a folder."""
    folder = shutil.copytree(full_run, tmp_path / "run")
    path = folder / "lifecycle.jsonl"
    lines = path.read_text().splitlines()
    assert '"accepted"' in lines[5] and "open-after-navigation" in lines[5]
    lines[5] = lines[5].replace('"open-after-navigation"', "7", 1)
    path.write_text("\n".join(lines))
    export_skill(
        Skill("open-after-navigation", "x", "open.", Trigger("general")), folder / "skills"
    )
    run = read_run(folder)
    third = run.trials[2]
    assert (third.start, third.end, third.decision) == (20, 28, "lost")
    (entry,) = [entry for entry in run.bank if entry.name == "open-after-navigation"]
    assert entry.since_text == "a step that no line tells"
    assert run.trials[-1].decision is None


def test_skills_that_cannot_be_read_are_told(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    secret = tmp_path / "secret"
    secret.write_text("not for the report")
    for name in ("broken", "empty", "folder", "linked"):
        (folder / "skills" / name).mkdir(parents=True)
    (folder / "skills" / "broken" / "SKILL.md").write_text("no front matter\x1b[31m")
    (folder / "skills" / "folder" / "SKILL.md").mkdir()
    (folder / "skills" / "linked" / "SKILL.md").symlink_to(secret)
    run = read_run(folder)
    assert [problem.split(": ")[0] for problem in run.problems] == [
        f"skills/{name}/SKILL.md" for name in ("broken", "empty", "folder", "linked")
    ]
    assert [(entry.name, entry.text) for entry in run.bank] == [
        ("open-after-navigation", ""),
        ("clean-before-placement", ""),
        ("broken", "no front matter\ufffd[31m"),
    ]


def test_what_decided_and_what_was_found(full_run):
    run = read_run(full_run)
    assert run.problems == []
    first = run.trials[0]
    assert [step for step, _ in first.test] == list(range(4, 12))
    assert first.test[-1][1] == {"log_odds": [None, 3.2], "accept_at": 2.25, "reject_at": -2.89}
    assert [trial.effect for trial in run.trials[:3]] == [0.06, -0.09, 0.13]
    assert run.trials[-1].effect is None and len(run.trials[-1].test) == 7  # under way


def overlapping(last):
    """Logs of two trials that begin together, and of a third, up to a step.

    Trial 1 is accepted at step 4, trial 2 is under way for longer, trial 3 begins beside it.
    """
    under_test = {2: [1, 2], 3: [1, 2], 4: [1, 2], 5: [2, 3], 6: [2, 3]}

    def step(number, trial):
        line = {"step": number, "trial": trial, "difference": [0.0, 0.01 * number * trial]}
        line |= {"posterior": {"alpha": [2.0, 1.0 + number], "beta": [3.0, 1.0 + trial]}}
        return line | {"arm_success": [0.25, 0.5], "arm_trials": [8, 2 * number]}

    lifecycle = [
        event(1, "proposed", 1, [operation("ADD", "a")]),
        event(1, "proposed", 2, [operation("ADD", "b", "look.")]),
        event(4, "accepted", 1, [operation("ADD", "a")], successes=[3, 9], trials=[24, 18]),
        event(4, "proposed", 3, [operation("DELETE", "old")]),
    ]
    metrics = [{"step": n, "trials": under_test.get(n, [])} for n in range(1, 7)]
    tested = [step(n, trial) for n, trials in under_test.items() for trial in trials]
    logs = {"lifecycle": lifecycle, "metrics": metrics, "trials": tested}
    return {name: [x for x in lines if x["step"] <= last] for name, lines in logs.items()}


def test_trials_that_overlap(tmp_path):
    """Each has its own steps, figures and end, and none ends another."""
    run = read_run(write(tmp_path, **overlapping(6)))
    assert run.problems == [] and len(run.metrics) == 6 and run.last_step == 6
    assert [(t.id, t.start, t.end, t.decision) for t in run.trials] == [
        (1, 1, 4, "accepted"),
        (2, 1, None, None),
        (3, 4, None, None),
    ]
    first, second, third = run.trials
    assert [[step for step, _, _ in t.history] for t in run.trials] == [
        [2, 3, 4],
        [2, 3, 4, 5, 6],
        [5, 6],
    ]
    assert first.history[-1] == (4, [2.0, 5.0], [3.0, 2.0])
    assert second.history[2] == (4, [2.0, 5.0], [3.0, 3.0])
    assert (first.successes, first.trials) == ([3, 9], [24, 18])
    assert (second.successes, second.trials) == ([10, 20], [40, 40])
    assert (third.successes, third.trials) == ([4, 11], [16, 22])
    assert second.effect == pytest.approx(0.12) and third.effect == pytest.approx(0.18)
    assert lives(run) == [("a", 4, None, "")]


@pytest.mark.parametrize("last", [1, 2, 3, 4, 5, 6])
def test_a_trial_under_way_has_lost_nothing(tmp_path, last):
    """Not where a new one begins, nor where the lines of the last step are not all written."""
    logs = overlapping(last)
    for trials in (logs["trials"], logs["trials"][:-1], logs["trials"][:-2]):
        run = read_run(write(tmp_path, **logs | {"trials": trials}))
        assert all(t.decision is None and t.end is None for t in run.trials[1:])
    without = [line for line in logs["metrics"] if line["step"] < last]
    run = read_run(write(tmp_path, **logs | {"metrics": without}))
    assert all(t.decision is None for t in run.trials[1:])


def test_a_lost_decision_of_trials_that_overlap(tmp_path):
    logs = overlapping(6)
    logs["lifecycle"] = [line for line in logs["lifecycle"] if line["event"] != "accepted"]
    for trials in (logs["trials"], []):  # without this log the steps tell what was under test
        run = read_run(write(tmp_path, **logs | {"trials": trials}))
        assert [(t.id, t.end, t.decision) for t in run.trials] == [
            (1, 4, "lost"),
            (2, None, None),
            (3, None, None),
        ]
