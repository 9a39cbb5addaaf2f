"""Damaged runs: whatever is in a file, it is listed or drawn, and everything else is drawn."""

import copy
import json
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reskill_jax.report import (
    read_run,
    summary_lines,
    write_comparison,
    write_report,
)
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import to_markdown

SKILL = Skill(
    "open-first", "When closed.", "open.", Trigger("action_pattern", "^go to"), ("a", "b")
)
POSTERIOR = {"alpha": [2.0, 3.5], "beta": [4.0, 3.0]}


def _operation(verb="ADD"):
    return {"operation": verb, "name": SKILL.name, "skill": SKILL.to_dict()}


def _metrics(step, trials):
    return {
        "step": step, "trials": trials, "success": 0.25 + step / 50, "loss": 0.1 - step / 40,
        "kl": 0.01, "entropy": 0.9, "grad_norm": 0.5 + step / 30, "clipped": 0.02,
        "mixed_groups": 0.5, "turns": 9.5, "context_tokens": 190.0 + step, "skill_tokens": 12.0,
        "truncated": 1, "skipped": 0, "seconds": 0.5 + step / 100,
    }  # fmt: skip


def _tested(step, trial):
    test = {"log_odds": [None, 0.3 * step], "accept_at": 2.25, "reject_at": -2.89}
    return {
        "step": step, "trial": trial, "arm_trials": [16, 16], "arm_success": [0.25, None],
        "assignment": [0.5, 0.5], "posterior": POSTERIOR, "horizon": None,
        "difference": [0.0, 0.06], "sequential_test": test,
    }  # fmt: skip


def _eval(step, split, mode, won):
    kinds = {"pick_and_place": [won - 4, 20], "look_at_obj": [4, 12]}
    return {
        "step": step, "split": split, "mode": mode, "success": won / 32, "episodes": 32,
        "interval": [won / 32 - 0.1, won / 32 + 0.1], "turns": 8.0, "by_task_type": kinds,
    }  # fmt: skip


def _event(step, event, trial, **more):
    line = {"step": step, "event": event, "trial": trial, "operations": [_operation()]}
    return line | {"reason": "why"} | more


# Trial 3 begins while trial 2 is under way.
UNDER_TEST = {2: [1], 3: [1], 4: [1], 6: [2], 7: [2, 3], 8: [2, 3]}
COUNTS = {"successes": [9, 14], "trials": [32, 32], "posterior": POSTERIOR, "horizon": 300.0}
FILES = {
    "config.json": [
        {
            "name": "small", "steps": 8, "seed": 3,
            "trial": {"concurrent": 2, "rule": "sequential"}, "rooms": {"objects": 3},
            "provenance": [
                {"started": "2026-11-26T18:00:00+00:00", "step": 0, "reskill_jax": "0.1.0",
                 "commit": "0123456789abcdef", "python": "3.11.7", "versions": {"jax": "0.10.2"},
                 "machine": "a laptop", "device": "cpu", "devices": 1, "processes": 1},
            ],
        }
    ],
    "metrics.jsonl": [_metrics(step, UNDER_TEST.get(step, [])) for step in range(1, 9)],
    "trials.jsonl": [
        _tested(step, trial) for step, trials in UNDER_TEST.items() for trial in trials
    ],
    "eval.jsonl": [
        *[_eval(step, s, "bank", 8 + step) for step in (0, 4, 8) for s in ("seen", "unseen")],
        *[_eval(8, split, "none", 11) for split in ("seen", "unseen")],
    ],
    "lifecycle.jsonl": [
        _event(1, "proposed", 1),
        _event(4, "accepted", 1, difference=[0.0, 0.12], **COUNTS),
        _event(5, "retirement_started", 2, operations=[_operation("DELETE")]),
        _event(6, "proposed", 3),
    ],
    "creator.jsonl": [
        {
            "step": 4, "pipeline": 0, "begun": 2, "groups": 3, "calls": 6, "input_tokens": 900,
            "output_tokens": 80, "seconds": 3.5, "cost": 0.01, "failure": None,
            "groups_without_answer": {"number": 1, "first": "no answer within 60 s"},
            "findings": [{"task": "put a mug", "finding": "walks past", "confidence": "high"}],
            "diagnosis": {
                "summary": "it walks past", "priorities": ["open"], "clusters": 1,
                "assertions": [
                    {"assertion": "min_steps(n=3)", "success_rate": 0.5, "failure_rate": 0.1}
                ],
            },
            "recommendations": [{"op": "add", "target": None, "intent": "open it"}],
            "drafts": [{"name": "open-first", "action": "open.", "refused": None}],
            "written": [[_operation()]],
        },
        {"step": 6, "pipeline": 0, "turned_down": ["ADD x: the bank has it already"]},
    ],
}  # fmt: skip


def write(folder, files):
    """A run whose files are lists of texts, a line each."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "skills" / SKILL.name).mkdir(parents=True)
    (folder / "skills" / SKILL.name / "SKILL.md").write_text(to_markdown(SKILL))
    for name, lines in files.items():
        text = "".join(line + "\n" for line in lines)
        (folder / name).write_bytes(text.encode("utf-8", errors="surrogateescape"))
    return folder


def texts():
    return {name: [json.dumps(line) for line in lines] for name, lines in FILES.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def good(place):
    run = read_run(write(place / "good", texts()))
    assert run.problems == []
    return run


LOGS = {
    "metrics.jsonl": "metrics",
    "trials.jsonl": "tested",
    "eval.jsonl": "evals",
    "lifecycle.jsonl": "lifecycle",
    "creator.jsonl": "creator",
}


def survives(place, good, files, check, *, file=None, number=None):
    """Everything is written, well-formed, and tells all that was not damaged."""
    folder = write(place / "bad", files)
    run = read_run(folder)
    for name, field in LOGS.items():
        found, expected = getattr(run, field), list(getattr(good, field))
        if name == file:
            del expected[number]
        assert all(line in found for line in expected), (name, run.problems)
    assert all(isinstance(p, str) and p and "\n" not in p and len(p) < 500 for p in run.problems)
    page, problems = write_report(folder)
    told = check(page)
    assert problems == run.problems
    # The page has every part that the undamaged run has.
    for part in ("Success on unseen tasks", "Trial 1", "open-first", "Time per step"):
        assert part in told, part
    assert all(" ".join(p.split()) in " ".join(told.split()) for p in problems[:20])
    write_comparison([folder, good.path], place / "comparison.html")
    check(place / "comparison.html")
    for width in (60, 80):
        for line in summary_lines(run, width=width):
            assert line.isprintable()
    return run


def test_the_run_is_whole(place, good, check):
    run = survives(place, good, texts(), check)
    assert run.problems == [] and run.trials[0].effect == 0.12
    assert [len(trial.test) for trial in run.trials] == [3, 3, 2]
    assert [entry.name for entry in run.bank] == [SKILL.name]


# What a value may be replaced by, as it stands in the file.
RAW = [
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1e308", "-1e308", "1e-320", "1e30", "-1e30",
    "9" * 5000, "-" + "9" * 400, "12345678901234567890", "1000000", "7", "2", "1", "0", "-1", "0.5",
    "-0.5", "1.5", "3.0", "true", "false", "null", '""', '"x"', "[]", "{}", "[null]", "[1]",
    "[1, 2, 3]", '[0.5, "x"]', "[[1]]", '[{"a": 1}]', '{"a": 1}', '{"alpha": [1], "beta": [2]}',
    '{"alpha": [NaN, 1], "beta": [2, 1]}', '{"alpha": [1e308, 1e-300], "beta": [1, 1]}',
    '{"log_odds": [1, 2], "accept_at": 1e300, "reject_at": null}', '{"kind": 3, "pattern": [1]}',
    "[" * 10_000 + "]" * 10_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 20 + "]" * 20,
    '"' + "x" * 100_000 + '"', '"' + "-" * 3000 + '"', '"\\u0000\\u001b[31m\\u0007\\u009b"',
    '"\\ud800"', '"\\u202eabc\\u2066\\u2028"', '"<script>alert(1)</script>"', '"]]>&amp;"',
    '"proposed"', '"accepted"', '"none"', '"bank"', '"DELETE"', '"MODIFY"',
]  # fmt: skip
KEY = '"@replaced@"'


def paths(value, path=()):
    """Of every value inside a line, the line itself left out."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from paths(item, (*path, key))


def replaced(line, path, raw):
    """The line's text with the value at a path replaced; None deletes it."""
    changed = copy.deepcopy(line)
    inside = changed
    for key in path[:-1]:
        inside = inside[key]
    if raw is None:
        del inside[path[-1]]
        return json.dumps(changed)
    inside[path[-1]] = KEY[1:-1]
    return json.dumps(changed).replace(KEY, raw)


places = st.sampled_from(
    [
        (name, number, path)
        for name, lines in FILES.items()
        for number, line in enumerate(lines)
        for path in paths(line)
    ]
)
values = (
    st.sampled_from(RAW)
    | st.none()
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
        ),
        max_leaves=6,
    ).map(json.dumps)
)
fuzz = settings(
    max_examples=2 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@fuzz
@given(where=places, value=values)
def test_any_value_anywhere(place, good, check, where, value):
    name, number, path = where
    files = texts()
    files[name][number] = replaced(FILES[name][number], path, value)
    survives(place, good, files, check, file=name, number=number)


@fuzz
@given(
    where=st.sampled_from([(n, i) for n, lines in FILES.items() for i in range(len(lines))]),
    cut=st.integers(0, 400),
    length=st.integers(0, 60) | st.just(5000),
    noise=st.binary(max_size=12),
    glued=st.booleans(),
)
def test_any_line_cut_or_garbled(place, good, check, where, cut, length, noise, glued):
    """With or without its newline."""
    name, number = where
    files = texts()
    data = files[name][number].encode()
    data = data[:cut] + noise.replace(b"\n", b"").replace(b"\r", b"") + data[cut + length :]
    files[name][number] = data.decode("utf-8", errors="surrogateescape")
    if glued and number + 1 < len(files[name]):
        files[name][number : number + 2] = ["".join(files[name][number : number + 2])]
    survives(place, good, files, check, file=name, number=number)


@fuzz
@given(
    cut=st.integers(0, 200),
    length=st.integers(0, 40),
    noise=st.binary(max_size=20) | st.sampled_from([b"\x1b[31m", b"<script>", b"a: " * 30]),
)
def test_any_skill_garbled(place, good, check, cut, length, noise):
    folder = write(place / "bad", texts())
    path = folder / "skills" / SKILL.name / "SKILL.md"
    data = path.read_bytes()
    path.write_bytes(data[:cut] + noise + data[cut + length :])
    page, problems = write_report(folder)
    assert len(problems) <= 1 and SKILL.name in check(page)
    assert all(line.isprintable() for line in summary_lines(read_run(folder)))


@pytest.mark.slow
def test_every_value_of_the_list_in_every_field_of_a_line(place, good, check):
    """Without drawing, so that none is left out by chance."""
    for name, lines in FILES.items():
        line = lines[min(1, len(lines) - 1)]
        number = lines.index(line)
        for path in paths(line):
            files = texts()
            for raw in (*RAW, None):
                files[name][number] = replaced(line, path, raw)
                run = read_run(write_file(place / "good", name, files[name]))
                for log, field in LOGS.items():
                    expected = list(getattr(good, field))
                    if log == name:
                        del expected[number]
                    assert all(one in getattr(run, field) for one in expected), (path, raw)
        write_file(place / "good", name, texts()[name])


def write_file(folder, name, lines):
    (folder / name).write_text("".join(line + "\n" for line in lines))
    return folder
