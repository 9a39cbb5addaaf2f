"""Assertions on text against recorded verdicts."""

import json
import pathlib

import pytest

from reskill_jax.skills.assertions import (
    ASSERTION_KINDS,
    Assertion,
    AssertionSpecError,
    grade,
)

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


def test_json_round_trip():
    for assertion in ALL:
        assert Assertion.from_dict(json.loads(json.dumps(assertion.to_dict()))) == assertion
    assert str(ALL[0]) == "action_exists(pattern='^take')"
