"""The page that compares several runs."""

import json
import shutil

import pytest

from reskill_jax.report import ReportError, read_run, write_comparison
from reskill_jax.report.bank import Entry, describe
from reskill_jax.report.conditions import group_runs, success_curve
from reskill_jax.report.overlay import estimate_text, gain_text


@pytest.fixture(scope="module")
def runs(make_run, tmp_path_factory):
    """Two settings of two seeds, one of one. Shared and read only."""
    root = tmp_path_factory.mktemp("runs")
    folders = [
        make_run(root / f"{name}-s{seed}", seed=seed, gain=gain, discount=discount)
        for name, gain, discount in (("plain", -0.2, "none"), ("full", 0.0, "adaptive"))
        for seed in (0, 1)
    ]
    return [*folders, make_run(root / "other", seed=0, gain=0.1, discount="last")]


@pytest.fixture(scope="module")
def page(runs, tmp_path_factory):
    target = tmp_path_factory.mktemp("page") / "all.html"
    path, problems = write_comparison(runs, target)
    assert path == target and problems == []
    return path


def test_page_is_self_contained_and_tells_everything(page, runs, check):
    text = check(page)
    full = group_runs([read_run(run) for run in runs])[1]
    for part in (
        "5 runs, 3 settings",
        "full seeds 0, 1; 60 steps",
        "Unseen tasks",
        "Training rollouts",
        estimate_text(success_curve(full, "unseen")[-1][1]),
        "Unseen, end, minus A",
        "at step 60, 2 pairs",
        "discount",
        "6 proposed, 3 accepted, 2 rejected",
        "“if the task says clean, go to sinkbasin.”",
        "✓ 2 of 2 runs",
        "since step 45, step 45 (seeds 0, 1)",
        "posterior",
        "Seconds per step (median)",
        "plain-s1",
    ):
        assert part in text, part
    source = page.read_text(encoding="utf-8")
    assert source.count("<details") == 5 + 1  # a card per run, the shared settings
    assert "prefers-color-scheme: dark" in source
    # Every drawing says what it shows, or is decoration beside a text.
    assert source.count("<svg") == source.count('role="img" aria-label="') + source.count(
        'aria-hidden="true"'
    )


def test_settings_are_told_by_letters_and_dashes_too(page):
    source = page.read_text(encoding="utf-8")
    for index, letter in enumerate("ABC"):
        assert f'class="line c{index} d{index}"' in source
        assert f'class="label c{index}">{letter}</text>' in source


def test_default_place(runs, tmp_path, check):
    folders = [shutil.copytree(run, tmp_path / run.name) for run in runs[:2]]
    path, _ = write_comparison(folders)
    assert path == tmp_path / "comparison.html"
    assert "2 runs" in check(path) and "All runs have the same settings" in check(path)


def test_every_text_is_escaped(runs, tmp_path, check, evil, poisoned):
    folders = []
    for number, run in enumerate(runs[:2]):
        folder = shutil.copytree(run, tmp_path / f"run{number}")
        for name in ("metrics", "trials", "eval", "lifecycle"):
            path = folder / f"{name}.jsonl"
            lines = [poisoned(json.loads(line)) for line in path.read_text().splitlines()]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines) + evil)
        config = {"name": evil, evil: evil + str(number), "seed": evil}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "skills" / "from-file").mkdir(parents=True)
        (folder / "skills" / "from-file" / "SKILL.md").write_text(evil)
        folders.append(folder)
    path, problems = write_comparison(folders)
    assert len(problems) == 10  # a line of each log and a skill, of both runs
    text = check(path)
    assert evil + "open." in text and f"{evil} (2)" in text


def test_damaged_logs_and_interrupted_runs_are_told(runs, tmp_path, check):
    first = shutil.copytree(runs[0], tmp_path / "first")
    second = shutil.copytree(runs[1], tmp_path / "second")
    lines = (first / "metrics.jsonl").read_text().splitlines(keepends=True)
    lines[4] = "{noise\n"
    (first / "metrics.jsonl").write_text("".join(lines) + '{"step": 61, "succ')
    for path in second.glob("*.jsonl"):
        keep = 9 if path.name == "eval.jsonl" else 2
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:keep]))
    third = tmp_path / "third"
    third.mkdir()
    (third / "config.json").write_text("[")
    (third / "metrics.jsonl").write_text('{"step": 1}\n')
    path, problems = write_comparison([first, second, third])
    assert [p.split(": ")[:2] for p in problems] == [
        ["plain-s0", "metrics.jsonl line 5"],
        ["plain-s0", "metrics.jsonl line 61"],
        ["third", "config.json cannot be read"],
    ]
    assert problems[1].endswith("(cut off: the run was interrupted here)")
    text = check(path)
    assert "plain-s1 was interrupted or is still going on: step 20 of 60" in text
    assert all(problem in text for problem in problems)
    (third / "metrics.jsonl").write_text('{"step": 1')
    with pytest.raises(ReportError, match="third holds no run that can be read: config.json"):
        write_comparison([first, second, third])


def test_runs_without_any_log(tmp_path, check):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"name": name}))
    text = check(write_comparison([tmp_path / "a", tmp_path / "b"])[0])
    assert "b has logged nothing yet" in text


def test_many_settings(runs, tmp_path, check):
    folders = []
    for number in range(28):
        folder = shutil.copytree(runs[0], tmp_path / f"run{number}")
        (folder / "config.json").write_text(json.dumps({"name": f"r{number}", "x": number}))
        folders.append(folder)
    text = check(write_comparison(folders)[0])
    assert "drawn without bands" in text and "Zr25" in text and "28r27" in text


def test_mistakes(runs, tmp_path):
    with pytest.raises(ReportError, match="plain-s0 is given twice"):
        write_comparison([runs[0], runs[1], runs[0].parent / "." / runs[0].name])
    with pytest.raises(ReportError, match="there is no run folder"):
        write_comparison([runs[0], tmp_path / "none"])
    with pytest.raises(ReportError, match="no run to compare"):
        write_comparison([])


def test_texts_of_estimates():
    from reskill_jax.report.conditions import Estimate

    assert estimate_text(Estimate(0.434, 0.37, 0.49)) == "43\u00a0% (37–49\u00a0%)"
    assert estimate_text(Estimate(0.5, None, None)) == "50\u00a0%" and estimate_text(None) == "–"
    assert gain_text(Estimate(0.061, -0.02, 0.14)) == "+6 (−2 to +14)"
    assert gain_text(Estimate(0.001, None, None)) == "±0"


def test_skills_are_told_apart_by_what_they_say_and_when():
    def entry(name, task):
        trigger = {"kind": "action_pattern", "pattern": "^take", "task_pattern": task}
        return Entry(name, {"name": name, "action": "open.", "trigger": trigger}, 3)

    assert describe(entry("a", "hot")) == "a: after an action like ^take, if the task says hot"
    assert describe(entry("a", None)) == "a: after an action like ^take"
    assert entry("a", "hot").key == entry("b", "hot").key != entry("a", None).key
