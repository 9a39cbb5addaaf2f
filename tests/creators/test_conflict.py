"""Skills that contradict each other: by what they say, and by when."""

import pytest

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.conflict import contradict, contradicts_any, speak_together
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.household.vocabulary import household_vocabulary
from reskill_jax.worlds.vocabulary import Directive

VOCABULARY = household_vocabulary()
GOING, TAKING = (Trigger("action_pattern", f"^{verb}\\b") for verb in ("go to", "take"))
EPISODE = Episode(
    *("1", "put a cool mug in desk", "f", 0, True, 0),
    ("go to desk 1", "take mug 1 from desk 1", "look"),
    ("You see a desk 1.", "On the desk 1, you see a mug 1.", "You pick up the mug 1.", "Nothing."),
)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Directive("open"), Directive("take"), True),
        (Directive("go to", "fridge"), Directive("go to", "desk"), True),
        (Directive("go to", "fridge"), Directive("go to"), False),  # one obeys both
        (Directive("take", None, True), Directive("take", "mug"), True),
        (Directive("take", "mug", True), Directive("take", "pen"), False),
        (Directive("take", None, True), Directive("open"), False),
        (Directive("take", None, True), Directive("open", None, True), False),
        (Directive("open", condition="cool"), Directive("take", condition="put"), True),
        (Directive("open", condition="cool"), Directive("take"), True),
    ],
)
def test_what_contradicts_what(one, other, expected):
    assert contradict(one, other) is contradict(other, one) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (GOING, GOING, True),
        (GOING, TAKING, False),
        (GOING, Trigger("general"), True),
        (Trigger("beginning"), TAKING, False),
        (GOING, Trigger("observation_pattern", "you see"), True),
        (TAKING, Trigger("observation_pattern", "you see"), False),
        (GOING, Trigger("general", None, "\\bhot\\b"), False),  # this episode asks for none
        (Trigger("general", None, "\\bcool\\b"), GOING, True),
    ],
)
def test_when_two_speak_together(one, other, expected):
    assert speak_together(one, other, [EPISODE]) is speak_together(other, one, [EPISODE])
    assert speak_together(one, other, [EPISODE]) is expected
    assert not speak_together(one, other, [])


def test_conditions_keep_skills_apart_where_no_task_has_both():
    """The task of the episode says "put" and "cool", and never "hot"."""

    def skill(verb, word):
        return Skill(verb, "w", f"{verb}.", Trigger("action_pattern", "^go to", rf"\b{word}\b"))

    for word, expected in (("put", True), ("hot", False)):
        found = contradicts_any(skill("open", "cool"), [skill("take", word)], [EPISODE], VOCABULARY)
        assert found is expected


def test_a_skill_against_many():
    opens, takes = (Skill(verb, "w", f"{verb}.", GOING) for verb in ("open", "take"))
    later = Skill("later", "w", "take.", TAKING)
    unread = Skill("unread", "w", "be wise", GOING)
    assert contradicts_any(opens, [later, takes], [EPISODE], VOCABULARY)
    assert not contradicts_any(opens, [later, unread, opens], [EPISODE], VOCABULARY)
    assert not contradicts_any(unread, [opens, takes], [EPISODE], VOCABULARY)
    assert not contradicts_any(opens, [], [EPISODE], VOCABULARY)
