"""Demands and ways, on episodes made by hand."""

import pytest

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.demands import find_demands, find_ways
from reskill_jax.skills.skill import Trigger
from reskill_jax.worlds.household.vocabulary import household_vocabulary

VOCABULARY = household_vocabulary()
USUAL = ("go to", "look")


def episode(number, goal, success, actions, possible=None):
    observations = ("a desk 1, a fridge 1",) + ("Nothing happens.",) * len(actions)
    possible = possible or (USUAL,) * len(actions)
    return Episode(f"{number}", goal, "f", 0, success, 0, actions, observations, possible)


def cooled(number):
    """A success: the fridge makes cooling possible."""
    actions = ("go to desk 1", "take mug 1 from desk 1", "go to fridge 1", "cool mug 1", "look")
    possible = (USUAL, (*USUAL, "take"), USUAL, (*USUAL, "cool"), USUAL)
    return episode(number, "put a cool mug in desk", True, actions, possible)


def forgotten(number):
    """A failure: it never goes to the fridge."""
    actions = ("go to desk 1", "take mug 1 from desk 1", "go to desk 2", "look")
    return episode(number, "put a cool mug in desk", False, actions)


def other(number, success):
    actions = ("take pen 1 from desk 1", "go to drawer 1", "look")
    return episode(number, "put a pen in drawer", success, actions)


EPISODES = (
    [cooled(i) for i in range(3)]
    + [forgotten(10 + i) for i in range(9)]
    + [other(20 + i, i % 2 == 0) for i in range(8)]
)


def test_a_demand_is_what_all_successes_do_and_failures_do_not():
    (demand,) = find_demands(EPISODES, VOCABULARY)
    assert (demand.word, demand.verb) == ("cool", "cool")
    assert demand.missing == 1.0 and demand.weight == 9 / 20
    assert demand.effect == 1.0
    # (0 + 1) of (17 + 2) others use it: (1 - p) / sqrt(p (1 - p) / 3), p = 1 / 19
    assert demand.score == pytest.approx(54**0.5)


def test_no_demand_without_two_successes_or_if_one_success_does_without():
    assert find_demands(EPISODES[2:], VOCABULARY) == []
    lucky = episode(50, "put a cool mug in desk", True, ("look", "look"))
    assert find_demands([*EPISODES, lucky], VOCABULARY) == []
    assert find_demands(EPISODES[:3], VOCABULARY) == []


def test_the_way_is_what_made_the_verb_possible():
    (demand,) = find_demands(EPISODES, VOCABULARY)
    way, second = find_ways(demand, EPISODES, VOCABULARY)
    assert VOCABULARY.say(way.directive) == "if the task says cool, go to fridge."
    assert way.trigger == Trigger("action_pattern", r"^take\b")
    assert way.rate == 1.0 and way.fault == 1.0
    # three tries of three, usually 3 of 20: (3 + 4 * 3 / 20) / (3 + 4); every failure gets there
    assert way.value == pytest.approx(0.8 * demand.weight * 3.6 / 7)
    assert second.value < way.value


def test_a_verb_that_was_at_hand_is_asked_for_itself():
    actions = ("go to fridge 1", "look", "look")
    at_hand = [
        episode(70 + i, "put a cool mug in desk", False, actions, (USUAL, (*USUAL, "cool"), USUAL))
        for i in range(9)
    ]
    episodes = EPISODES[:3] + at_hand
    found = {(demand.word, demand.verb): demand for demand in find_demands(episodes, VOCABULARY)}
    demand = found["cool", "cool"]
    way = find_ways(demand, episodes, VOCABULARY)[0]
    assert VOCABULARY.say(way.directive) == "if the task says cool, cool."
    assert way.trigger.pattern == r"^go to\b"


def test_nothing_is_known_of_ways_where_the_world_does_not_tell_what_is_possible():
    (demand,) = find_demands(EPISODES, VOCABULARY)
    silent = [
        Episode(e.task, e.goal, e.family, 0, e.success, 0, e.actions, e.observations)
        for e in EPISODES
    ]
    assert find_ways(demand, silent, VOCABULARY) == []


def searched(number, opens):
    """The mug is in the drawer: only opening shows it."""
    actions = ("go to drawer 1", "open drawer 1" if opens else "go to desk 1", "look", "look")
    goal = "put a mug in desk"
    intro = f"You see a drawer {number}, and a desk 1. Your task is to: {goal}."
    seen = "In it, you see a mug 1." if opens else "On the desk 1, you see nothing."
    observations = (intro, "The drawer 1 is closed.", seen, "Nothing.", "Nothing.")
    return Episode(f"{number}", goal, "f", 0, opens, 0, actions, observations)


def test_what_the_task_names_must_come_to_sight():
    episodes = [searched(i, True) for i in range(4)] + [searched(10 + i, False) for i in range(8)]
    (demand,) = [d for d in find_demands(episodes, VOCABULARY) if d.verb is None]
    assert (demand.word, demand.missing, demand.weight) == (None, 1.0, 8 / 12)
    way = find_ways(demand, episodes, VOCABULARY)[0]
    assert VOCABULARY.say(way.directive) == "open drawer." and way.trigger.pattern == r"^go to\b"
    # four tries of four, usually 4 of 20 after "go to": (4 + 4 * 4 / 20) / (4 + 4)
    assert way.value == pytest.approx(0.8 * demand.weight * 4.8 / 8)
    shown = [
        Episode(e.task, "put a drawer in desk", "f", 0, e.success, 0, e.actions, e.observations)
        for e in episodes
    ]
    assert not any(d.verb is None for d in find_demands(shown, VOCABULARY))
