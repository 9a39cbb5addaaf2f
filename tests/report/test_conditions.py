"""Runs that belong together, their means and intervals, by hand."""

import json
import math

import pytest

from reskill_jax.report import read_run
from reskill_jax.report.charts import smoothed
from reskill_jax.report.conditions import (
    along_training,
    difference,
    differing_settings,
    group_runs,
    mean_estimate,
    metric_curve,
    most_data,
    series,
    success_curve,
)


@pytest.fixture
def make(tmp_path):
    """Makes a run from its rates on unseen tasks, evaluated every ten steps."""

    def make(name, rates, config=None, *, episodes=100):
        folder = tmp_path / name
        folder.mkdir()
        config = {"name": name, "seed": 0} | (config or {})
        (folder / "config.json").write_text(json.dumps(config))
        lines = [
            {"step": 10 * i, "split": "unseen", "mode": "bank", "success": r, "episodes": episodes}
            for i, r in enumerate(rates)
        ]
        (folder / "eval.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        return read_run(folder)

    return make


def test_runs_that_differ_in_the_seed_are_one_condition(make):
    runs = [
        make("new-s0", [0.1], {"seed": 0, "root": "runs", "rooms": {"objects": 3}}),
        make("old", [0.1], {"seed": 0, "rooms": {"objects": 4}}),
        make("new-s1", [0.1], {"seed": 1, "rooms": {"objects": 3}, "keep": 9}),
        make("older", [0.1], {"seed": 5, "rooms": {"objects": 4}, "skills": False}),
    ]
    new, old, older = group_runs(runs)
    assert (new.letter, new.name, new.seeds) == ("A", "new", [0, 1])
    assert (old.letter, old.name, older.name) == ("B", "old", "older")
    differing, shared = differing_settings([new, old, older])
    assert differing == [("rooms.objects", ["3", "4", "4"]), ("skills", ["–", "–", "False"])]
    assert shared == []


def test_names_of_conditions(make):
    def name(*names):
        runs = [make(name, [0.1], {"seed": i}) for i, name in enumerate(names)]
        (condition,) = group_runs(runs)
        return condition.name

    assert name("grpo-10", "grpo-11") == "grpo"
    assert name("a_seed3", "a_seed4") == "a"
    assert name("house", "house-1") == "house"
    assert name("x", "y") == "x"
    assert name("alone-s0") == "alone-s0"


def test_a_run_without_configuration_stays_alone(make):
    runs = [make("a", [0.1]), make("b", [0.1])]
    for run in runs:
        run.config = {}
    assert [c.name for c in group_runs(runs)] == ["a", "b"]


def test_mean_estimate():
    assert mean_estimate([0.3]).low is None
    two = mean_estimate([0.3, 0.1])
    assert (two.value, two.low, two.high, two.runs) == (pytest.approx(0.2), 0.1, 0.3, 2)
    three = mean_estimate([0.1, 0.2, 0.3])
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's quantile with 2 degrees of freedom
    assert (three.low, three.high) == (pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert mean_estimate([0.0, 0.1, 0.5], within=(0.0, 1.0)).low == 0.0


def test_curves_are_means_over_common_steps(make):
    runs = [make("s0", [0.1, 0.2, 0.6]), make("s1", [0.3, 0.4], {"seed": 1})]
    (condition,) = group_runs(runs)
    curve = success_curve(condition, "unseen")
    assert [step for step, _ in curve] == [0, 10]
    assert curve[1][1].value == pytest.approx(0.3) and curve[1][1].runs == 2
    area = along_training(condition, "unseen")  # of the steps that both have: 0.15 and 0.35
    assert area.value == pytest.approx(0.25) and area.runs == 2
    assert success_curve(condition, "seen") == []
    (alone,) = group_runs(runs[:1])
    step, estimate = success_curve(alone, "unseen")[0]
    assert step == 0 and estimate.low == pytest.approx(0.0552, abs=1e-4)  # Wilson, 10 of 100


def test_a_run_that_stopped_early_does_not_cut_the_others_short(make):
    runs = [make(f"s{s}", [0.1 * s] * n, {"seed": s}) for s, n in ((1, 5), (2, 5), (3, 2))]
    (condition,) = group_runs(runs)
    curve = success_curve(condition, "unseen")  # 2 runs * 5 steps, not 3 * 2
    assert len(curve) == 5 and curve[-1][1].value == pytest.approx(0.15)
    assert along_training(condition, "unseen").runs == 2
    assert most_data([{0: 1, 1: 1}, {0: 1, 1: 1}, {0: 1, 1: 1, 2: 1}]) == [{0: 1, 1: 1}] * 3
    assert most_data([{}, {4: "a"}]) == [{4: "a"}]
    assert most_data([]) == most_data([{}, {}]) == []


def test_differences_are_paired_by_seed(make):
    old = [make(f"old-s{s}", [0.0, r], {"seed": s}) for s, r in enumerate((0.1, 0.5, 0.3))]
    new = [
        make(f"new-s{s}", [0.0, r], {"seed": s, "x": 1}) for s, r in enumerate((0.2, 0.6, 0.4, 0.9))
    ]
    a, b = group_runs(old + new)
    step, gain = difference(a, b, "unseen")
    # Every pair gains 0.1, so there is no spread, however far the seeds lie apart.
    assert (step, gain.runs) == (10, 3)
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.1, 0.1, 0.1))


def test_difference_of_one_pair_is_newcombes(make):
    # R. G. Newcombe, 1998, table II: 56/70 - 48/80, method 10: 0.0524 to 0.3339.
    a = make("a", [48 / 80], episodes=80)
    b = make("b", [56 / 70], {"seed": 7, "x": 1}, episodes=70)
    _, gain = difference(*group_runs([a, b]), "unseen")
    assert (gain.value, gain.low, gain.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    c = make("c", [0.1], {"x": 1, "seed": 8})
    first, second = group_runs([a, b, c])
    assert difference(first, second, "unseen") is None  # no common seed


def test_series_takes_the_last_of_a_step_and_metric_curves_are_smoothed_per_run(make):
    runs = [make("s0", [0.1]), make("s1", [0.1], {"seed": 1})]
    runs[0].metrics = [{"step": 1, "turns": 9.0}, {"step": 1, "turns": 2.0}, {"step": 2}]
    runs[1].metrics = [{"step": 1, "turns": 4.0}, {"step": 2, "turns": 8.0}]
    assert series(runs[0], "turns") == [(1, 2.0)]
    (condition,) = group_runs(runs)
    ((step, estimate),) = metric_curve(condition, "turns", lambda points: smoothed(points, 3))
    assert (step, estimate.value) == (1, (2.0 + 6.0) / 2)
