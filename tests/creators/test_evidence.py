"""Reservoir, vocabulary, cues and the contrast's numbers, by hand."""

import dataclasses
import json

import numpy as np
import pytest

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.reservoir import Reservoir
from reskill_jax.creators.rules.author import skill_key, write_name, write_skill
from reskill_jax.creators.rules.contrast import Contrast, balance, measure, skill_evidence
from reskill_jax.creators.rules.cues import decisions_of, literal, mine_cues
from reskill_jax.creators.rules.diagnosis import blame, update_assertions
from reskill_jax.skills.assertions import Assertion
from reskill_jax.skills.describing import describe
from reskill_jax.skills.patterns import search
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.household.vocabulary import encodable, household_vocabulary
from reskill_jax.worlds.vocabulary import Deed, Directive

VOCABULARY = household_vocabulary()


def episode(task="t", success=True, arm=0, actions=("look", "open fridge 1", "look"), seen=None):
    seen = ("intro",) + tuple(seen or ("Nothing happens.",) * len(actions))
    return Episode(task, "put a mug in desk", "simple", arm, success, 0, actions, seen)


def test_episode_checks_and_json():
    one = episode()
    assert Episode.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    with pytest.raises(ValueError, match="2 actions needs 3 observations, got 2"):
        Episode("t", "g", "f", 0, True, 0, ("look", "look"), ("a", "b"))


def test_reservoir_keeps_the_latest_of_each_key_and_drops_the_oldest():
    reservoir = Reservoir(capacity=3).add([episode("a"), episode("b"), episode("a", False)])
    reservoir = reservoir.add([episode("a", actions=("look",))])  # replaces, and is now the newest
    assert [e.key for e in reservoir.episodes] == [("b", 0, True), ("a", 0, False), ("a", 0, True)]
    assert reservoir.episodes[-1].actions == ("look",)
    reservoir = reservoir.add([episode("c", arm=1)])
    assert [e.task for e in reservoir.episodes] == ["a", "a", "c"] and reservoir.seen == 5
    assert Reservoir.from_dict(json.loads(json.dumps(reservoir.to_dict()))) == reservoir


def test_mixed_groups_come_first():
    mixed = [episode(f"m{i}", success) for i in range(5) for success in (True, False)]
    plain = [episode(f"p{i}") for i in range(20)]
    reservoir = Reservoir().add(plain + mixed)
    groups = reservoir.sample_groups(np.random.default_rng(0), groups=7)
    assert [len(group) for group in groups] == [2] * 5 + [1] * 2
    assert len({group[0].task for group in groups}) == 7


def test_abstraction():
    assert VOCABULARY.abstract("take apple 1 from fridge 2") == Deed("take", ("apple", "fridge"))
    assert VOCABULARY.abstract("go to cabinet 3") == Deed("go to", ("cabinet",))
    assert VOCABULARY.abstract("look") == Deed("look", ())
    assert VOCABULARY.abstract("openly lie") == Deed(None, ())


@pytest.mark.parametrize(
    "directive, text",
    [
        (Directive("open"), "open."),
        (Directive("look", negative=True), "do not look."),
        (
            Directive("go to", "sinkbasin", condition="clean"),
            "if the task says clean, go to sinkbasin.",
        ),
        (
            Directive("take", "mug", True, "two"),
            "if the task says two, do not take mug.",
        ),
    ],
)
def test_directives_are_said_and_read(directive, text):
    assert VOCABULARY.say(directive) == text
    assert VOCABULARY.read(text) == directive
    assert encodable(text)


@pytest.mark.parametrize("text", ["open", "go to moon.", "fly.", "open, then close.", ""])
def test_other_sentences_are_not_directives(text):
    assert VOCABULARY.read(text) is None


def test_unreadable_actions():
    assert not encodable("fly to moon.")
    assert not encodable("look look look look look look look look look look.")


def test_cues_are_mined_not_listed():
    seen = ["You arrive at zog 3. The zog 3 is blorbed.", "On the zog 1, you see nothing."]
    episodes = [episode(f"{i}", actions=("go to zog 3", "open zog 3"), seen=seen) for i in range(6)]
    _, decisions = decisions_of([[one] for one in episodes])
    assert decisions.first.tolist() == [0, 2, 4, 6, 8, 10] and len(decisions.action) == 12
    cues = mine_cues(decisions, VOCABULARY)
    kinds = [trigger.kind for trigger in cues.triggers]
    assert kinds[:2] == ["general", "beginning"]
    # All that happens at the second decision is one cue, whatever it is called.
    assert len(cues.triggers) == 3
    np.testing.assert_array_equal(cues.occurs[0], True)
    np.testing.assert_array_equal(cues.occurs[1], [True, False] * 6)
    np.testing.assert_array_equal(cues.occurs[2], [False, True] * 6)


def test_observation_phrases():
    closed = ("You arrive at desk 1. The desk 1 is closed.",)
    bare = ("On the desk 2, you see nothing.",)
    episodes = [
        episode(
            f"{i}",
            actions=("look", "look", "look"),
            seen=(closed + bare + ("end",)) if i % 2 else (bare + closed + ("end",)),
        )
        for i in range(8)
    ]
    cues = mine_cues(decisions_of([[one] for one in episodes])[1], VOCABULARY)
    patterns = {t.pattern for t in cues.triggers if t.kind == "observation_pattern"}
    # Of the phrases of each text one is left, of two words if there is one.
    assert patterns == {"arrive at", "on the"}
    assert not any(p[0].isdigit() or "1" in p for p in patterns)
    assert literal("a.b (c)") == r"a\.b \(c\)"
    for odd in ("´", "a_b", "\x00", "[x]\\", "\u2028", "100 %~{}"):
        assert search(literal(odd), f"say {odd} twice")


def test_a_failure_counts_as_long_as_the_longest_success_of_its_task():
    won = [episode("m", True, actions=("look",) * n) for n in (2, 3)]
    lost = episode("m", False, actions=("look",) * 5)
    alone = episode("p", False, actions=("look",) * 4)
    kept, decisions = decisions_of([[*won, lost], [alone]])
    assert kept == [*won, lost, alone]
    assert np.bincount(decisions.episode).tolist() == [2, 3, 3, 4]


def test_balance():
    mixed = [episode("m", True), episode("m", False), episode("m", False, arm=1)]
    plain = [episode("p", True)]
    weights = balance([mixed, plain])
    assert [weights[id(e)] for e in mixed] == [1.0, 0.5, 0.5]
    assert weights[id(plain[0])] == 0.25


def test_measure_by_hand():
    # Four episodes of two decisions; the cue is there at all of them. f = 1, 1/2 in the successes
    # and 0, 1/2 in the failures.
    two = ("look", "open fridge 1")
    episodes = [episode(f"{i}", success=i < 2, actions=two) for i in range(4)]
    _, decisions = decisions_of([[one] for one in episodes])
    acts = np.array([[1, 1, 1, 0, 0, 0, 0, 1]], bool)
    evidence = measure(
        np.ones((1, 8), bool),
        acts,
        np.ones((1, 8), bool),
        np.array([[True] * 4, [True, False, True, False]]),
        decisions,
        np.array([True, True, False, False]),
        np.ones(4),
    )
    # Followed: (1 + 0.5) won of 2; prior 2 at base 0.5 -> 2.5 / 4. Not followed: 0.5 of 2 -> 1.5/4.
    assert evidence.effect[0, 0, 0] == pytest.approx(0.25)
    assert evidence.follow[0, 0, 0] == pytest.approx(0.5)
    # Variance in each outcome: (2 * 1/16 + 2 * 1/4) / 4 = 5/32 of two episodes; (0.75 - 0.25) over
    # sqrt(2 * 5/32 / 3).
    assert evidence.score[0, 0, 0] == pytest.approx(0.5 / np.sqrt(2 * 5 / 32 / 3), rel=1e-4)
    variance = 5 / 32 + 0.25 * 0.25
    assert evidence.slope[0, 0, 0] == pytest.approx(0.25 * 0.5 / variance, rel=1e-4)
    assert evidence.correlation[0, 0, 0] == pytest.approx(0.5 * np.sqrt(0.25 / variance), rel=1e-4)
    assert evidence.coverage[:, 0, 0].tolist() == [1.0, 0.5]
    assert evidence.rate[:, 0].tolist() == [1.0, 1.0]
    assert evidence.support[0, 0, 0] == 3.0
    assert evidence.effect[1, 0, 0] == pytest.approx((1 + 1) / (1 + 2) - 1 / (1 + 2))


def test_only_moments_at_which_the_action_was_possible_count():
    # "open" follows in every success and never in a failure, but in the failures there was nothing
    # to open: nothing speaks for opening.
    two = ("look", "open fridge 1")
    episodes = [episode(f"{i}", success=i < 2, actions=two) for i in range(4)]
    _, decisions = decisions_of([[one] for one in episodes])
    acts = np.array([[1, 1, 1, 1, 0, 0, 0, 0]], bool)

    def score(could):
        evidence = measure(
            np.ones((1, 8), bool),
            acts,
            could,
            np.ones((1, 4), bool),
            decisions,
            np.array([True, True, False, False]),
            np.ones(4),
        )
        return evidence.score[0, 0, 0], evidence.coverage[0, 0, 0], evidence.rate[0, 0]

    everywhere, coverage, rate = score(np.ones((1, 8), bool))
    assert everywhere > 1 and coverage == 1.0 and rate == 1.0
    nothing, coverage, rate = score(acts)
    assert nothing == 0.0 and coverage == 0.5 and rate == 1.0
    half = acts.copy()
    half[0, 4] = True  # one failure could have opened once, and did not
    once, coverage, _ = score(half)
    assert coverage == 0.75 and 0 < once < everywhere


def test_the_contrast_of_a_skill_speaks_for_following_it():
    won = [episode(f"{i}", True, actions=("look", "open fridge 1", "look")) for i in range(8)]
    lost = [episode(f"{i}", False, actions=("look", "look", "look")) for i in range(8)]
    groups = [list(pair) for pair in zip(won, lost, strict=True)]
    good = Skill("a", "w", "open.", Trigger("action_pattern", "^look"))
    bad = Skill("b", "w", "do not open.", Trigger("action_pattern", "^look"))
    plus, minus = (skill_evidence(skill, groups, VOCABULARY) for skill in (good, bad))
    assert plus.score > 2 and plus.effect > 0 and plus.value > 0 > plus.harm
    assert minus.score == -plus.score and minus.harm == plus.value
    assert (
        skill_evidence(Skill("c", "w", "be wise", Trigger("general")), groups, VOCABULARY) is None
    )


def contrast(directive, trigger=None):
    return Contrast(trigger or Trigger("general"), directive, 0.2, 3.0, 0.1, 1.0)


def test_assertions_are_created_modified_and_deleted():
    looks = contrast(Directive("look", negative=True))
    opens = contrast(Directive("open"), Trigger("action_pattern", "^take\\b"))
    won = [
        episode(f"{i}", True, actions=("take mug 1 from desk 1", "open desk 1")) for i in range(4)
    ]
    lost = [episode(f"{i}", False, actions=("look", "look", "look")) for i in range(4)]
    tracked, changes = update_assertions((), [looks, opens], won + lost, VOCABULARY, step=3)
    assert {one.assertion for one in tracked} == {
        Assertion.of("action_not_exists", pattern="^look\\b"),
        Assertion.of("action_before", first="^take\\b", second="^open\\b"),
    }
    assert [change.operation for change in changes] == ["ADD", "ADD"]
    assert all(one.success_rate == 1.0 and one.failure_rate == 0.0 for one in tracked)
    assert blame(tracked) == {("look", None, True): 1.0, ("open", None, False): 1.0}
    # Now successes look once as well: the threshold moves, the other assertion fails everywhere.
    won = [episode(f"{i}", True, actions=("look", "inventory")) for i in range(4)]
    tracked, changes = update_assertions(tracked, [], won + lost, VOCABULARY, step=5)
    assert [one.assertion for one in tracked] == [
        Assertion.of("action_count", pattern="^look\\b", max=1)
    ]
    assert (tracked[0].created, tracked[0].changed) == (3, 5)
    assert sorted(change.operation for change in changes) == ["DELETE", "MODIFY"]


def test_at_most_fifteen_assertions():
    verbs = [Directive(verb, None, True) for verb in VOCABULARY.verbs]
    nouns = [Directive("open", noun, True) for noun in ("fridge", "drawer", "cabinet", "safe")]
    lost = [
        episode(
            f"{i}",
            False,
            actions=tuple(f"{v} fridge 1 drawer 1 cabinet 1 safe 1" for v in VOCABULARY.verbs),
        )
        for i in range(3)
    ]
    won = [episode(f"{i}", True, actions=("fly", "fly")) for i in range(3)]
    contrasts = [contrast(directive) for directive in verbs + nouns]
    tracked, changes = update_assertions((), contrasts, won + lost, VOCABULARY, step=0)
    assert len(tracked) == 15
    assert sum(change.operation == "DELETE" for change in changes) == len(contrasts) - 15


def test_authoring():
    one = contrast(
        Directive("go to", "sinkbasin", True, "clean"), Trigger("action_pattern", "^take mug\\b")
    )
    skill = write_skill(one, VOCABULARY, [])
    assert skill.name == "avoid-go-to-sinkbasin-after-take-mug-for-clean"
    assert skill.action == "do not go to sinkbasin."
    assert skill.trigger == Trigger("action_pattern", "^take mug\\b", r"\bclean\b")
    assert VOCABULARY.directive_of(skill) == one.directive
    assert skill.when_to_use == (
        'Do not go to the sinkbasin right after taking a mug, if the task says "clean".'
    )
    assert write_name(one, [skill.name]) == skill.name + "-2"
    assert skill_key(skill) == "action_pattern|^take mug\\b|\\bclean\\b|" + skill.action
    phrase = contrast(Directive("open"), Trigger("observation_pattern", "desk \\d+ is"))
    assert write_skill(phrase, VOCABULARY, []).name == "open-when-desk-n-is"


@pytest.mark.parametrize(
    "directive, trigger, told",
    [
        (
            Directive("go to", "fridge", condition="cool"),
            Trigger("action_pattern", "^take\\b"),
            'Go to the fridge right after taking something, if the task says "cool".',
        ),
        (
            Directive("open"),
            Trigger("observation_pattern", "desk \\d+ is closed"),
            'Open it when the latest observation says "desk N is closed".',
        ),
        (Directive("take", negative=True), Trigger("general"), "Do not take anything at any turn."),
        (Directive("use", "desklamp"), Trigger("general"), "Use the desklamp at every turn."),
        (Directive("look"), Trigger("beginning"), "Look around at the very beginning."),
        (
            Directive("close"),
            Trigger("action_pattern", "^open armchair"),
            "Close it right after opening an armchair.",
        ),
        (
            Directive("help"),
            Trigger("action_pattern", "mug \\d+ from"),
            'Help: see what can be done right after an action of the form "mug N from".',
        ),
    ],
)
def test_a_skill_tells_people_what_to_do_first(directive, trigger, told):
    skill = write_skill(contrast(directive, trigger), VOCABULARY, [])
    assert skill.when_to_use == told == describe(skill)


def test_every_verb_of_the_household_is_told_beginning_with_itself():
    assert set(VOCABULARY.spoken) == set(VOCABULARY.verbs)
    assert all(spoken.alone.startswith(verb) for verb, spoken in VOCABULARY.spoken.items())


def test_a_world_that_does_not_say_how_its_verbs_are_said_is_quoted():
    silent = dataclasses.replace(VOCABULARY, spoken={})
    one = contrast(Directive("open"), Trigger("action_pattern", "^take mug\\b"))
    assert write_skill(one, silent, []).when_to_use == (
        'Open right after an action of the form "take mug".'
    )
