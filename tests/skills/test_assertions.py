"""Assertions on text against recorded verdicts; the batch of symbols against the text."""

import json
import pathlib

import chex
import jax
import numpy as np
import pytest

from reskill_jax.skills.assertions import (
    ASSERTION_KINDS,
    Assertion,
    AssertionSpecError,
    build_assertions,
    grade,
    grade_batch,
)
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.worlds.household import symbols as household

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "reference_numbers.json").read_text()
)["assertions"]


def test_text_verdicts_agree_with_the_reference():
    verdicts = []
    for case in GOLDEN:
        actions = [step["action"] for step in case["trajectory"]]
        observations = [step["observation"] for step in case["trajectory"]]
        for check in case["checks"]:
            assertion = Assertion.from_dict(check)
            assert grade(assertion, actions, observations) == check["passed"], (actions, check)
            verdicts.append(check["passed"])
    assert {Assertion.from_dict(c).kind for c in GOLDEN[0]["checks"]} == set(ASSERTION_KINDS)
    assert 100 < sum(verdicts) < 500


OF = Assertion.of
ALL = [
    OF("action_exists", pattern="^take"),
    OF("action_exists", pattern="fridge"),
    OF("action_not_exists", pattern="look|inventory"),
    OF("action_before", first="^open", second="^take"),
    OF("action_before", first="fridge", second="fridge"),
    OF("no_consecutive_repeat"),
    OF("no_consecutive_repeat", prefix="GO to"),
    OF("final_action", pattern="^(open|take)"),
    OF("min_steps", n=3),
    OF("max_steps", n=2),
    OF("action_count", pattern="^open", min=1, max=2),
    OF("action_count", pattern="^open", max=0),
    OF("action_count", pattern="^go", min=2),
    OF("observation_contains", pattern=r"closed\.$"),
    OF("observation_contains", pattern="closed", after_action="^open"),
    OF("observation_contains", pattern="nothing", after_action="^look$"),
]
IMPOSSIBLE = 4  # nothing comes before itself
TABLES = build_assertions(ALL, language=household.SYMBOLS)
ACTIONS = [
    [" look"],
    [" inventory"],
    [" open", " fridge", " 1"],
    [" go to", " fridge", " 2"],
    [" take", " apple", " 1", " from", " fridge", " 1"],
]
OBSERVATIONS = [
    ["\nNothing happens."],
    ["\nThe", " fridge", " 1", " is closed."],
    ["\nOn the", " shelf", " 3", ", you see nothing", "."],
]


def trajectories(count, horizon, extra, seed):
    rng = np.random.default_rng(seed)
    actions = np.zeros((count, horizon, 6), np.int32)
    observations = np.zeros((count, horizon + extra, 5), np.int32)
    turns = rng.integers(0, horizon + 1, count).astype(np.int32)
    for n in range(count):
        for t in range(horizon):  # also behind the end, where it must not count
            one = ACTIONS[rng.integers(len(ACTIONS))]
            actions[n, t, : len(one)] = [household.symbol(s) for s in one]
        for t in range(horizon + extra):
            one = OBSERVATIONS[rng.integers(len(OBSERVATIONS))]
            observations[n, t, : len(one)] = [household.symbol(s) for s in one]
    return actions, observations, turns


@pytest.mark.parametrize("extra", [0, 1])
def test_batch_agrees_with_text(extra):
    actions, observations, turns = trajectories(120, 5, extra, seed=extra)
    got = np.asarray(jax.jit(grade_batch)(TABLES, actions, observations, turns))
    chex.assert_shape(got, (120, len(ALL)))
    for n in range(120):
        said = [household.text(a) for a in actions[n, : turns[n]]]
        seen = [household.text(o) for o in observations[n, : turns[n] + extra]]
        expected = [grade(assertion, said, seen) for assertion in ALL]
        np.testing.assert_array_equal(got[n], expected, err_msg=f"{said} {seen}")
    rates = got.mean(axis=0)
    rates = np.delete(rates, IMPOSSIBLE)
    assert np.all((rates > 0) & (rates < 1))


def test_batch_without_jit_by_hand():
    actions = np.zeros((1, 2, 6), np.int32)
    actions[0, 0, :3] = [household.symbol(s) for s in ACTIONS[2]]
    observations = np.zeros((1, 2, 5), np.int32)
    tables = build_assertions(
        [OF("action_exists", pattern="^open"), OF("max_steps", n=0), OF("min_steps", n=1)],
        language=household.SYMBOLS,
    )
    got = grade_batch(tables, actions, observations, np.asarray([1], np.int32))
    np.testing.assert_array_equal(got, [[True, False, True]])


def test_wrong_number_of_observations():
    actions, observations, turns = trajectories(2, 4, 1, seed=0)
    with pytest.raises(ValueError, match="3 actions go with 3 or 4 observations, got 5"):
        grade_batch(TABLES, actions[:, :3], observations, turns)


@pytest.mark.parametrize(
    "kind, parameters, reason",
    [
        ("sometimes", {}, "unknown assertion"),
        ("action_exists", {}, "takes pattern; got"),
        ("min_steps", {"n": -1}, "n must be an integer"),
        ("min_steps", {"n": True}, "n must be an integer"),
        ("max_steps", {"n": 3, "m": 4}, "takes n; got"),
        ("final_action", {"pattern": 4}, "must be a string"),
        ("final_action", {"pattern": "("}, "cannot use the pattern"),
    ],
)
def test_invalid_assertions(kind, parameters, reason):
    with pytest.raises(AssertionSpecError, match=reason):
        OF(kind, **parameters)


def test_too_large_patterns_are_refused():
    with pytest.raises(TriggerError, match="at most 2"):
        build_assertions([ALL[0]], language=household.SYMBOLS, states=2)


def test_json_round_trip():
    for assertion in ALL:
        assert Assertion.from_dict(json.loads(json.dumps(assertion.to_dict()))) == assertion
    assert str(ALL[0]) == "action_exists(pattern='^take')"
