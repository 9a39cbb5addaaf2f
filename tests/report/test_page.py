"""The page: self-contained, escaped, complete; markup and plot by hand."""

import json
import re
import shutil

import pytest

from reskill_jax.report import write_report
from reskill_jax.report.charts import beta_interval, smoothed
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.plot import (
    Plot,
    number,
    rows_of,
    spans_height,
    ticks,
    typical_range,
)
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import export_skill


@pytest.fixture(scope="module")
def report(fake_run, tmp_path_factory):
    path, problems = write_report(fake_run, tmp_path_factory.mktemp("page") / "report.html")
    assert problems == []
    return path


def test_page_is_self_contained_and_tells_everything(report, check):
    text = check(report)
    for part in (
        "household-demo",
        "60 of 60 steps",
        "3 accepted, 2 rejected, 1 pruned or retired",
        "seen tasks",
        "unseen tasks",
        "training rollouts",
        "without skills",
        "Trial 7",
        "… under way",
        "the policy does as well without it",
        "open-after-navigation",
        "if the task says clean, go to sinkbasin.",
        "in the bank since step 45",
        "put a dirty thing down",
        "Tokens in an episode’s context (mean)",
    ):
        assert part in text, part
    source = report.read_text(encoding="utf-8")
    assert "prefers-color-scheme: dark" in source and 'name="viewport"' in source
    assert source.count('class="band seen"') == 2  # wide and narrow
    assert source.count("<details") == 7 + 2  # a card per trial, configuration, events


def test_a_run_without_skills_does_not_speak_of_them(fake_run, tmp_path, check):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    (folder / "lifecycle.jsonl").unlink()
    for name, change in (("metrics", {"skill_tokens": 0.0, "kl": 0.0}), ("eval", {"mode": "none"})):
        path = folder / f"{name}.jsonl"
        lines = [json.loads(line) | change for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = check(write_report(folder)[0])
    assert "The run has no skills." in text and "Success on unseen tasks" in text
    for part in ("Skills over time", "Skills at the end", "from skills (mean)", "KL to the"):
        assert part not in text


def test_counts_of_a_trial_are_shown(report, fake_run, check):
    lines = [json.loads(line) for line in (fake_run / "lifecycle.jsonl").read_text().splitlines()]
    first = next(line for line in lines if line["event"] == "accepted")
    won, played = first["successes"][1], first["trials"][1]
    assert f"{won}/{played} = {100 * won / played:.0f}\u00a0%" in check(report)


def test_default_place_and_no_half_page(fake_run, tmp_path):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    path, _ = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob("*.partial"))


def test_every_text_of_a_run_is_escaped(fake_run, tmp_path, check, evil, poisoned):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    for name in ("metrics", "trials", "eval", "lifecycle"):
        path = folder / f"{name}.jsonl"
        lines = [poisoned(json.loads(line)) for line in path.read_text().splitlines()]
        lines[-1] |= {"trials": [evil]} if name == "metrics" else {"trial": evil}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines) + evil)
    (folder / "config.json").write_text(json.dumps({"name": evil, evil: evil}))
    (folder / "skills" / "from-file").mkdir(parents=True)
    (folder / "skills" / "from-file" / "SKILL.md").write_text(evil)
    path, problems = write_report(folder)
    assert len(problems) == 5  # a line of each log, a skill
    text = check(path)
    assert evil + "open." in text and evil + "the policy does as well without it" in text
    assert "from-file" + evil in text


def test_a_skill_that_was_there_from_the_start(fake_run, tmp_path, check):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    export_skill(Skill("old-one", "Always.", "look.", Trigger("general")), folder / "skills")
    text = check(write_report(folder)[0])
    assert "old-oneAlways.look.shownevery turnin the bank since the start" in text


@pytest.mark.parametrize("kind", ["empty", "only config", "one step", "interrupted"])
def test_incomplete_runs(fake_run, tmp_path, kind, check):
    folder = shutil.copytree(fake_run, tmp_path / "run")
    for path in folder.glob("*.jsonl"):
        lines = path.read_text().splitlines(keepends=True)
        keep = {"empty": 0, "only config": None, "one step": 1, "interrupted": len(lines) // 2}[
            kind
        ]
        if keep is None:
            path.unlink()
        elif path.stem == "trials":  # it has lines of fewer steps: those that metrics.jsonl keeps
            last = {"empty": 0, "one step": 1, "interrupted": 30}[kind]
            path.write_text("".join(x for x in lines if json.loads(x)["step"] <= last))
        else:
            path.write_text("".join(lines[:keep]))
    text = check(write_report(folder)[0])
    expected = {
        "empty": "logged nothing yet",
        "only config": "logged nothing yet",
        "one step": "step 3 of 60",
        "interrupted": "interrupted or is still going on: step 30 of 60",
    }
    assert expected[kind] in text


def test_more_than_two_arms(tmp_path, check):
    posterior = {"alpha": [3.0, 4.0, 5.0, 1.0], "beta": [5.0, 5.0, 5.0, 1.0]}
    logs = {
        "metrics": [{"step": 1, "trials": [1], "success": 0.5}],
        "trials": [{"step": 1, "trial": 1, "posterior": posterior}],
        "lifecycle": [
            {"step": 0, "event": "proposed", "trial": 1, "operations": []},
            {"step": 2, "event": "rejected", "trial": 1, "operations": [], "posterior": posterior,
             "successes": [2, 3, 4, 0], "trials": [6, 7, 8, 0]},
        ],
    }  # fmt: skip
    for name, lines in logs.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    text = check(write_report(tmp_path)[0])
    assert "candidate 2" in text and "candidate 3" not in text
    assert "3/7 = 43\u00a0%4/8 = 50\u00a0%" in text


def test_the_monitor_is_on_the_page(fake_run, tmp_path, check):
    looks = {
        "sensitivity": {"nats": 1.25, "null": 0.1, "turns": 90, "skills": {"open-it": 1.5}},
        "effective_rank": {"value": 1.5, "null": 3.0, "p": 0.025, "skills": 3, "episodes": 256},
        "of-another-version": {"value": "?"},
    }
    path = tmp_path / "watched"
    shutil.copytree(fake_run, path)
    lines = [json.loads(x) for x in (path / "metrics.jsonl").read_text().splitlines()]
    for line in lines[9::10]:
        line |= {"evidence": looks, "alarms": ["bank"] if line["step"] > 30 else []}
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page, problems = write_report(path)
    assert problems == []
    text = check(page)
    assert "Alarm at step 60: bank: skills fire in the same episodes" in text
    assert "Alarms: bank (from step 40 on)." in text
    assert "How far skills move the policy where they fire" in text and "open-it" in text


def test_markup_escapes_by_construction():
    assert tag("p", "<b>", tag("i", "&"), None, False, ["x", ["y"]], class_='"') == (
        '<p class="&quot;">&lt;b&gt;<i>&amp;</i>xy</p>'
    )
    assert tag("meta", charset="utf-8", media=None) == '<meta charset="utf-8">'
    assert tag("rect", x=1.0, y=0.126) == '<rect x="1" y="0.13"></rect>'
    assert isinstance(join("a", Markup("<br>")), Markup) and join("a", Markup("<br>")) == "a<br>"


def test_ticks_and_numbers():
    assert ticks(0, 1, 4) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(0, 60, 7) == [0, 10, 20, 30, 40, 50, 60]
    assert ticks(4, 11, 3, whole=True) == [5, 10]
    assert ticks(4, 6, 4, whole=True) == [4, 5, 6]
    assert ticks(3, 3, 4) == [3]
    assert [number(x) for x in (0, 0.25, 1240.4, 3.14159, 3.1e-5, float("nan"))] == [
        "0", "0.25", "1,240", "3.14", "3.1e-05", "–",
    ]  # fmt: skip


def test_plot_places_points():
    plot = Plot(200, 100, (0, 10), (0, 1), "x", left=50, right=50, top=10, bottom=10)
    assert (plot.x(0), plot.x(5), plot.x(10)) == (50, 100, 150)
    assert (plot.y(0), plot.y(0.5), plot.y(1), plot.y(7)) == (90, 50, 10, 10)
    plot.line([(0, 0), (10, 1)], "a")
    plot.line([], "b")
    plot.band([(0, 0, 1), (10, 0, 1)], "c")
    assert plot.marks[0] == '<path d="M50,90L150,10" class="line a"></path>'
    assert 'd="M50,10L150,10L150,90L50,90Z"' in plot.marks[1] and len(plot.marks) == 2


def test_interval_and_smoothing():
    assert beta_interval(1.0, 1.0) == pytest.approx((0.025, 0.975))
    points = list(enumerate([0.0, 3.0, 6.0]))
    assert smoothed(points, 3) == [(0, 1.5), (1, 3.0), (2, 4.5)]
    assert smoothed(points, 3, by=max) == [(0, 3.0), (1, 6.0), (2, 6.0)]


@pytest.fixture(scope="module")
def full_page(full_run, tmp_path_factory, check):
    path, problems = write_report(full_run, tmp_path_factory.mktemp("page") / "full.html")
    assert problems == []
    return path.read_text(encoding="utf-8"), check(path)


def test_the_page_draws_what_decided(full_page):
    source, text = full_page
    assert text.count("Log odds that decide") == 7
    assert source.count("Log odds of the sequential test of trial 1, and the bounds") == 2
    # Bounds have the colour of what they decide, and its name; those of a retirement others.
    for word, count in (("accept", 6), ("reject", 6), ("retire", 1), ("keep", 1)):
        kind = "good" if word in ("accept", "retire") else "bad"
        assert source.count(f'class="label {kind}">{word}</text>') == 2 * count  # wide and narrow
    assert "<title>step 11: +3.20</title>" in source
    assert "✓ accepted+6 points" in text and "✗ rejected−9 points" in text


def test_the_page_draws_success_by_kind_of_task(full_page):
    source, text = full_page
    assert "heat it0\u00a0% → 47\u00a0% of 128" in text
    title = "last: 60 of 128; first: 0 of 128; without skills: 60 of 128"
    assert source.count(f'title="{title}"') == 2  # seen and unseen
    assert "Groups with both outcomes" in text and "Tokens whose gradient was clipped" in text


def test_without_skills_is_labelled_where_it_is(full_page):
    source, text = full_page
    for split in ("seen", "unseen"):
        assert f'class="label {split}">{split}, without skills</text>' in source
        assert f"step 60, {split}, without skills: " in text
    assert "overlap; without skills" in text


def test_the_page_tells_what_the_run_was_made_with(full_page):
    source, text = full_page
    for part in (
        "2026-11-26 18:00:00 UTC, reskill_jax 0.1.0 (0123456789ab with changes), jax 0.10.2, "
        "8 × TPU v4 (tpu) in 2 processes",
        "Python 3.11.7, jax 0.10.2, flax 0.12.8",
        "2026-11-27 08:00:00 UTC",
        "34 s of compiling",
    ):
        assert part in text, part
    assert "provenance" not in text  # no setting


def test_logs_of_the_first_version_are_drawn(report, check):
    """Without the figures that they do not have."""
    text = check(report)
    for part in ("Log odds", "Success by kind", "Provenance", "compiling"):
        assert part not in text


def test_the_range_of_a_plot_is_that_of_most_values():
    assert typical_range([1.0, 2.0, 3.0, 4.0, 1e30]) == (1.0, 4.0)
    assert typical_range([-1e9, 1.0, 2.0, 3.0, 4.0]) == (1.0, 4.0)
    assert typical_range([0.0, 0.0, 0.0, 0.0, 7.0]) == (0.0, 7.0)  # rare, but all there is
    assert typical_range([5.0]) == (5.0, 5.0)


@pytest.mark.parametrize("low,high", [(0, 1e-40), (1e30, 1e30 + 1e15), (0, 1e-13), (-1e38, 1e38)])
def test_no_range_is_too_small_or_large_for_a_plot(low, high):
    plot = Plot(200, 100, (0, 3), (low, high), "x")
    plot.line([(0, low), (3, high)], "a")
    assert not re.search("nan|inf", plot.svg()) and len(ticks(*plot.y_range, 4)) < 20


@pytest.fixture(scope="module")
def overlapping_page(full_run, tmp_path_factory, check):
    """The full run with two more trials, each beside others: one decided, one under way."""
    folder = shutil.copytree(full_run, tmp_path_factory.mktemp("overlap") / "run")
    logs = {name: read_log(folder / f"{name}.jsonl") for name in ("metrics", "trials", "lifecycle")}
    # The one from within trial 3 to within trial 4, the other from within trial 7.
    for trial, start, end in ((8, 24, 33), (9, 56, None)):
        name = f"skill-{trial}"
        operation = {"operation": "ADD", "name": name, "skill": {"name": name, "action": "look."}}
        line = {"trial": trial, "operations": [operation]}
        logs["lifecycle"].append({"step": start, "event": "proposed"} | line)
        if end is not None:
            line |= {"successes": [10, 30], "trials": [100, 90], "difference": [0.0, 0.23]}
            logs["lifecycle"].append({"step": end, "event": "accepted"} | line)
        for metrics in logs["metrics"]:
            step = metrics["step"]
            if start < step <= (60 if end is None else end):
                metrics["trials"].append(trial)
                posterior = {"alpha": [2.0, 1.0 + step], "beta": [9.0, 9.0]}
                told = {"arm_success": [0.25, 0.5], "arm_trials": [4, 4], "posterior": posterior}
                logs["trials"].append({"step": step, "trial": trial} | told)
    for name, lines in logs.items():
        lines.sort(key=lambda line: line["step"])
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text)
    path, problems = write_report(folder)
    assert problems == []
    return path.read_text(encoding="utf-8"), check(path)


def read_log(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_trials_that_overlap_do_not_hide_each_other(overlapping_page):
    """In the chart of success they have rows of their own, in the timeline their skills have."""
    source, text = overlapping_page
    wide = source[: source.index('class="plot narrow"')]
    spans = re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"[^>]*><title>(.*?)<', wide)
    rows = {title: (float(y), float(x), float(x) + float(width)) for x, y, width, title in spans}
    assert len(rows) == 9 and {y for y, _, _ in rows.values()} == {1, 9}
    for title, (y, left, right) in rows.items():
        assert (y == 9) == (title in ("trial 8", "trial 9"))
        others = [r for other, r in rows.items() if other != title and r[0] == y]
        assert all(right <= x + 0.01 or left >= end - 0.01 for _, x, end in others)
    frame = wide[wide.index("Success by training step") :]
    places = re.findall(r'<(?:line|circle)[^>]* (?:y1|cy)="([\d.]+)"', frame)
    assert min(map(float, places)) >= 9 + 6  # everything else lies below
    assert 'title="ADD skill-8: trial 8, steps 24 to 33, accepted"' in source
    assert 'title="ADD skill-9: trial 9, steps 56, under way"' in source
    assert 'title="MODIFY clean-before-placement: trial 7, steps 53, under way"' in source
    assert "30/90 = 33\u00a0%" in text and "✓ accepted+23 points" in text


def test_trials_stand_in_the_order_of_their_beginnings(overlapping_page):
    source, _ = overlapping_page
    cards = re.findall(r"<b>Trial (\d)</b>", source)
    assert cards == ["1", "2", "3", "8", "4", "5", "6", "7", "9"]


def test_rows_of_spans():
    assert rows_of([]) == [] and spans_height([]) == 0
    spans = [(0, 4, ""), (0, 8, ""), (2, 3, ""), (3, 5, ""), (4, 9, ""), (9, 9, "")]
    assert rows_of(spans) == [0, 1, 2, 2, 0, 0] and spans_height(spans) == 24
    # With too few rows the one that is free first is shared.
    assert rows_of([(0, 9, ""), (1, 4, ""), (2, 6, ""), (3, 5, ""), (7, 8, "")], most=2) == [
        0, 1, 1, 1, 1,
    ]  # fmt: skip


def test_what_the_creator_did(fake_run, check, tmp_path):
    """A card for every pipeline: what was found, what was written, what was refused and why."""
    line = {
        "step": 9, "pipeline": 4, "begun": 6, "groups": 12, "calls": 15, "input_tokens": 21_000,
        "output_tokens": 3_000, "seconds": 40.0, "cost": 0.108, "failure": None,
        "groups_without_answer": {"number": 2, "first": "no answer within 60 s"},
        "findings": [{"task": "find <it>", "finding": "it walks past", "confidence": "low"}],
        "diagnosis": {
            "summary": "It never opens.", "priorities": ["Open what is closed."], "clusters": 1,
            "assertions": [
                {"assertion": "action_exists(pattern='^open')", "success_rate": 0.9,
                 "failure_rate": 0.25}
            ],
        },
        "recommendations": [{"op": "modify", "target": "open-first", "intent": "say it earlier"}],
        "drafts": [
            {"name": "open-first", "action": "unlock.", "refused": "the policy cannot read it"},
            {"name": "open-first", "action": "open.", "refused": None},
        ],
        "written": [[{"operation": "MODIFY", "name": "open-first", "skill": None}]],
    }  # fmt: skip
    failed = {"step": 12, "pipeline": 5, "begun": 11, "calls": 3, "failure": "HTTP 503: busy"}
    down = {"step": 10, "pipeline": 4, "turned_down": ["MODIFY open-first: it is under test"]}
    text = "".join(json.dumps(one) + "\n" for one in (line, down, failed))
    folder = shutil.copytree(fake_run, tmp_path / "run")
    (folder / "creator.jsonl").write_text(text)
    page, problems = write_report(folder)
    assert problems == []
    told = check(page).replace("\u00a0", " ")
    for part in (
        "The creator", "those that failed2, 1", "Calls per change18", "Cost (dollars)0.11",
        "Pipeline 4 step 6 to 9: 1 written", "it walks past (low; find <it>)",
        "the policy cannot read it", "to be tested", "MODIFY open-first: it is under test",
        "action_exists(pattern='^open')90 %25 %", "HTTP 503: busy", "2 brought no answer",
        "modify open-first – say it earlier", "12 tasks were contrasted",
    ):  # fmt: skip
        assert part in told, part


def test_no_section_without_a_language_model(report, check):
    assert "The creator" not in check(report)
