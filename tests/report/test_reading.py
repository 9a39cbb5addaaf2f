"""Reading a run: trials, lives of skills, damaged lines, folders that are no run."""

import json
import shutil

import pytest

from reskill_jax.report.reading import ReportError, read_run, wilson


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


def lives(run):
    return [(life.name, life.start, life.end, life.left) for life in run.lives]


def test_wilson_by_hand():
    # 8 of 10: (0.8 + 0.19208 -+ 1.96 sqrt(0.016 + 0.009604)) / 1.38416
    assert wilson(0.8, 10) == pytest.approx((0.49016, 0.94332), abs=2e-5)
    assert wilson(0.0, 10)[0] == 0.0 and wilson(1.0, 10)[1] == pytest.approx(1.0)
    assert wilson(0.5, 0) == (0.0, 1.0)


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
            metrics=[
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
    ("metrics", '{"step": 3, "posterior": {"alpha": [1]}}', "'posterior' should be"),
    ("metrics", '{"step": 3, "posterior": {"alpha": [0], "beta": [1]}}', "'posterior' should be"),
    ("eval", '{"step": 3, "split": "seen", "mode": "bank"}', "'success' is missing"),
    ("eval", '{"step": 3, "split": 3, "mode": "bank", "success": 1}', "'split' should be a text"),
    ("lifecycle", '{"step": 3}', "'event' is missing"),
    ("lifecycle", '{"step": 3, "event": "accepted", "operations": [4]}', "'operations' should be a list of objects, is [4]"),
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
    good = read_run(fake_run)
    assert (run.metrics, run.evals, run.lifecycle) == (good.metrics, good.evals, good.lifecycle)


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


def test_an_evaluation_without_interval_gets_one(tmp_path):
    line = {"step": 0, "split": "seen", "mode": "bank", "success": 0.8, "episodes": 10}
    run = read_run(write(tmp_path, eval=[line]))
    assert run.evaluations("seen")[0]["interval"] == pytest.approx(list(wilson(0.8, 10)))


def test_what_is_no_run(tmp_path):
    with pytest.raises(ReportError, match="there is no run folder .*nowhere"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ReportError, match="is no run folder: it has neither"):
        read_run(tmp_path)


def test_a_run_without_skills_is_evaluated_without(fake_run, tmp_path):
    run = read_run(fake_run)
    assert not run.plain and run.evaluations("seen") != run.evaluations("seen", "none")
    lines = [line for line in run.evals if line["mode"] == "none"]
    (tmp_path / "eval.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    plain = read_run(tmp_path)
    assert plain.plain
    assert plain.evaluations("seen") == run.evaluations("seen", "none") != []
