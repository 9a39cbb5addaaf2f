"""Skills, triggers and bundles against recorded verdicts and by hand."""

import dataclasses
import json
import pathlib

import pytest

from reskill_jax.skills.bank import identity_bank
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import (
    Bundle,
    BundleError,
    Operation,
    Skill,
    SkillError,
    Trigger,
    trigger_rate,
)

GOLDEN = json.loads(
    (pathlib.Path(__file__).parents[1] / "golden" / "reference_numbers.json").read_text()
)


def make(name, action="open.", kind="general", pattern=None, **more):
    return Skill(name, f"When {name}.", action, Trigger(kind, pattern), **more)


def test_triggers_agree_with_the_reference():
    fired = 0
    for case in GOLDEN["triggers"]:
        trigger = Trigger(case["trigger_type"], case["trigger_pattern"])
        got = trigger.fires(turn=case["step"], last_action=case["last_action"], observation="")
        assert got == case["fires"], case
        fired += got
    assert 10 < fired < 90


def test_trigger_rates_agree_with_the_reference():
    for case in GOLDEN["trigger_rates"]:
        trigger = Trigger("action_pattern", case["trigger_pattern"])
        episodes = [(actions, [""] * len(actions)) for actions in case["episodes"]]
        assert trigger_rate(trigger, episodes) == pytest.approx(case["rate"], abs=1e-12)
    assert trigger_rate(Trigger("general"), []) == 0.0


def test_what_a_language_model_reads():
    assert make("a", "Open\n it.").advice == "Open it."
    pair = make("a", "Open it.", examples=("open it", "walk on"))
    assert pair.advice == "Open it. Do: open it Don't: walk on"
    assert pair.content_length == len("When a.Open it.open itwalk on")
    arms = [[make("a")], [make("b")], [make("a", examples=("x", "y"))]]
    identity = identity_bank(arms, slots=1).identity[:, 0]
    assert identity[0] == identity[1] != identity[2]  # what is read counts, not the name


def test_observation_pattern_sees_the_introduction_at_turn_0():
    trigger = Trigger("observation_pattern", "^the fridge")
    assert trigger.fires(turn=0, last_action=None, observation="The fridge 1 is closed.")
    assert not trigger.fires(turn=3, last_action="the fridge", observation="Nothing happens.")
    assert (
        trigger_rate(trigger, [(["look"], ["The fridge"]), (["look"], ["", "The fridge"])]) == 0.5
    )


@pytest.mark.parametrize(
    "kind, pattern, reason",
    [
        ("sometimes", None, "unknown trigger"),
        ("action_pattern", None, "needs a pattern"),
        ("action_pattern", "", "needs a pattern"),
        ("general", "open", "takes no pattern"),
        ("observation_pattern", "(", "cannot use the pattern"),
    ],
)
def test_invalid_triggers(kind, pattern, reason):
    with pytest.raises(TriggerError, match=reason):
        Trigger(kind, pattern)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"name": "Not Kebab"}, "kebab-case"),
        ({"name": "../evil"}, "kebab-case"),
        ({"name": "a--b"}, "kebab-case"),
        ({"name": "a" * 65}, "longer than 64"),
        ({"action": " "}, "needs both"),
        ({"action": 3}, "must be a string"),
        ({"action": "x" * 500}, "at most 500"),
        ({"action": "a\x00b"}, r"U\+0000"),
        ({"examples": ("one",)}, "one DO/DON'T pair"),
        ({"examples": "no"}, "sequence of strings"),
        ({"trigger": "general"}, "must be a Trigger"),
    ],
)
def test_invalid_skills(change, reason):
    fields = {"name": "a", "when_to_use": "w", "action": "open.", "trigger": Trigger("general")}
    with pytest.raises(SkillError, match=reason):
        Skill(**{**fields, **change})


def test_content_of_exactly_500_characters_is_allowed():
    assert make("a", action="x" * (500 - len("When a."))).content_length == 500


def test_json_round_trip():
    skill = make("a", kind="action_pattern", pattern="^go", examples=("open it", "walk on"))
    bundle = Bundle((Operation("ADD", "a", skill), Operation("DELETE", "b")))
    assert Bundle.from_dict(json.loads(json.dumps(bundle.to_dict()))) == bundle
    with pytest.raises(SkillError, match="not a skill"):
        Skill.from_dict({"name": "a"})


OLD = (make("a"), make("b"), make("c"))


def test_operations_keep_places_and_leave_the_old_bank():
    new_b = make("b", kind="observation_pattern", pattern="closed")  # the trigger's kind changes
    bundle = Bundle(
        (
            Operation("ADD", "d", make("d")),
            Operation("MODIFY", "b", new_b),
            Operation("DELETE", "a"),
        )
    )
    before = tuple(OLD)
    assert bundle.apply(OLD) == (new_b, make("c"), make("d"))
    assert OLD == before


def test_full_bank_exchanges_a_skill_but_takes_no_more():
    add = Operation("ADD", "d", make("d"))
    assert len(Bundle((add, Operation("DELETE", "a"))).apply(OLD, capacity=3)) == 3
    with pytest.raises(BundleError, match="capacity is 3"):
        Bundle((add,)).apply(OLD, capacity=3)


@pytest.mark.parametrize(
    "operation, reason",
    [
        (Operation("DELETE", "x"), "no skill called x"),
        (Operation("MODIFY", "a", OLD[0]), "changes nothing"),
        (Operation("ADD", "a", make("a", action="close.")), "two skills would be called a"),
        (Operation("MODIFY", "a", OLD[1]), "two skills would be called b"),
    ],
)
def test_rejected_bundles(operation, reason):
    with pytest.raises(BundleError, match=reason):
        Bundle((operation,)).apply(OLD)


def test_malformed_operations():
    with pytest.raises(BundleError, match="takes a skill"):
        Operation("ADD", "a")
    with pytest.raises(BundleError, match="takes no skill"):
        Operation("DELETE", "a", OLD[0])
    with pytest.raises(BundleError, match="1 to 3"):
        Bundle(())
    with pytest.raises(BundleError, match="twice"):
        Bundle((Operation("DELETE", "a"), Operation("DELETE", "a")))


def test_skills_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        OLD[0].name = "z"
