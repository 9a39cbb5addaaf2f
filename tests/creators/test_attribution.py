"""Features of steps, small models of causes, and blame that weighs proposals."""

import dataclasses
import json

import numpy as np
import pytest

from reskill_jax.creators.attribution.blame import (
    attributed_faults,
    blamed_steps,
    shipped_tables,
    tables_for,
)
from reskill_jax.creators.attribution.features import (
    StepFeatures,
    feature_names,
    step_features,
)
from reskill_jax.creators.attribution.items import internal_items
from reskill_jax.creators.attribution.models import (
    KINDS,
    NONE,
    TableModel,
    calibrated,
    evidence_items,
    fit_logistic,
    fit_tables,
    log_prior,
)
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.propose import propose_retirement
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.creators.rules.state import init_state
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.household.vocabulary import household_vocabulary
from reskill_jax.worlds.vocabulary import Directive

VOCABULARY = household_vocabulary()
NAMES = feature_names(VOCABULARY)
Z = len(KINDS)


def episode(*actions, goal="put a clean mug in shelf.", fired=(), success=False, seen=None):
    observations = seen or ["", *(f"seen {t}" for t in range(len(actions)))]
    return Episode("1", goal, "", 0, success, 0, actions, observations, skills_fired=fired)


def true_at(features, step, row=0):
    return {name for name, on in zip(NAMES, features.evidence[row, step], strict=True) if on}


class TestFeatures:
    def test_by_hand(self):
        told = step_features(
            [
                episode(
                    "go to shelf 1",
                    "take mug 1 from shelf 1",
                    "move mug 1 to shelf 1",
                    "look",
                    "look",
                )
            ],
            VOCABULARY,
        )
        assert told.evidence.shape == (1, 5, len(NAMES)) and told.steps.all()
        assert "verb: go to" in true_at(told, 0) and "names what the task names" in true_at(told, 0)
        assert "the task's own verb is still to come" in true_at(told, 0)  # clean
        take = true_at(told, 1)
        assert {"verb: take", "is undone next", "is the first of its kind"} <= take
        assert "follows a deed with what the task names" not in take
        assert "follows a deed with what the task names" in true_at(told, 2)
        assert {"repeats the action", "names nothing", "was done before"} <= true_at(told, 4)
        assert "is in the second half" not in true_at(told, 1)
        assert "is in the second half" in true_at(told, 3)

    def test_skills_that_are_read_and_obeyed(self):
        skill = Skill("look-around", "For tests.", "look.", Trigger("general"))
        fired = ((), ("look-around",), ("look-around",))
        told = step_features(
            [episode("go to bed 1", "look", "open safe 1", fired=fired)], VOCABULARY, [skill]
        )
        assert "a skill is read" not in true_at(told, 0)
        assert {"a skill is read", "a skill is obeyed"} <= true_at(told, 1)
        assert "a skill is obeyed" not in true_at(told, 2)

    def test_lengths(self):
        both = [episode("look"), episode("look", "help", "look")]
        told = step_features(both, VOCABULARY)
        np.testing.assert_array_equal(told.steps, [[1, 0, 0], [1, 1, 1]])
        assert not told.evidence[0, 1:].any() and not told.observed[0, 1:].any()
        assert "repeats the one before last" in true_at(told, 2, row=1)
        assert step_features(both, VOCABULARY, turns=2).steps.sum() == 3


@pytest.fixture(scope="module")
def planted():
    """Each kind has a feature that is true at its step with .9, elsewhere with .01."""
    rng = np.random.default_rng(0)
    count, turns = 600, 8
    lengths = rng.integers(4, turns + 1, count)
    kinds = rng.integers(0, Z, count)
    steps = np.where(kinds == NONE, 0, rng.integers(0, lengths))
    evidence = rng.random((count, turns, Z + 1)) < 0.01
    rows = np.arange(count)
    evidence[rows, steps, kinds] = rng.random(count) < 0.9
    real = np.arange(turns) < lengths[:, None]
    return StepFeatures(evidence & real[:, :, None], real), steps * Z + kinds


@pytest.mark.parametrize("fit", [fit_tables, fit_logistic])
def test_planted_causes_are_found(planted, fit):
    features, causes = planted
    train = StepFeatures(*(x[:400] for x in features))
    test = StepFeatures(*(x[400:] for x in features))
    model = calibrated(fit(train, causes[:400]), train, causes[:400])
    found = model.log_posterior(test)
    np.testing.assert_allclose(np.exp(found).sum(axis=(1, 2)), 1, rtol=1e-4)
    assert np.all(np.exp(found)[~test.steps] == 0)
    right = found.reshape(200, -1).argmax(axis=1) == causes[400:]
    assert right.mean() > 0.65
    rows = np.arange(200)
    assert found.reshape(200, -1)[rows, causes[400:]].mean() > -1.5


def test_tables_speak_for_their_features(planted):
    features, causes = planted
    model = fit_tables(features, causes)
    for kind in range(Z - 1):
        weight = model.weights(features, kind)
        at = features.evidence[:, :, kind]
        assert weight[:, :, kind][at].mean() > 1.5
        assert np.all(weight[~features.steps] == 0)
    again = TableModel.from_dict(json.loads(json.dumps(model.to_dict())))
    np.testing.assert_allclose(again.here, model.here, atol=1e-4)
    with pytest.raises(ValueError, match="other kinds"):
        TableModel.from_dict({**model.to_dict(), "kinds": ["one"]})


def test_none_stands_at_the_first_step_alone():
    prior = log_prior(np.array([[True, True, False]]), np.full(Z, 1 / Z))
    possible = prior[0] > -1e29
    assert possible[0].all() and not possible[2].any()
    np.testing.assert_array_equal(np.flatnonzero(~possible[1]), [NONE])
    np.testing.assert_allclose(np.exp(prior[possible[None]]).sum(), 1, rtol=1e-5)


class TestBlame:
    loop = episode(
        *("go to shelf 1", "go to bed 1", "go to shelf 1", "go to bed 1", "go to shelf 1"),
        *("go to bed 1", "take mug 1 from bed 1", "go to shelf 1"),
        seen=["", "a", "b", "a", "b", "a", "b", "c", "a"],
    )

    def test_shipped_tables_fit_the_features(self):
        model, names = shipped_tables()
        assert names == NAMES and model.here.shape == (Z, len(NAMES))
        other = dataclasses.replace(VOCABULARY, verbs=("look", "sing"))
        restricted, columns = tables_for(other)
        known = [feature_names(other)[place] for place in columns]
        assert "verb: look" in known and "verb: sing" not in known
        assert restricted.here.shape == (Z, len(known))

    def test_where_it_went_wrong(self):
        (blamed,) = blamed_steps([self.loop], VOCABULARY)
        assert blamed.shape == (8,) and 0.5 < blamed.sum() <= 1 + 1e-6
        assert blamed[:6].sum() > 0.8 * blamed.sum()  # in the loop, not behind it

    def test_directives_that_speak_to_it(self):
        after_go = Trigger("action_pattern", "^go to")
        faults = attributed_faults(
            [
                (after_go, Directive("go to", negative=True)),
                (after_go, Directive("go to")),
                (Trigger("action_pattern", "^take"), Directive("open")),
                (after_go, Directive("open", condition="hot")),
            ],
            [self.loop],
            VOCABULARY,
        )
        assert faults[0] == 1  # relative to the one that speaks to most of it
        assert faults[1] < 0.2 and faults[2] < 0.2
        assert faults[3] == 0  # of no task here
        assert attributed_faults([(after_go, Directive("look"))], [], VOCABULARY) == [0.0]

    def test_items(self):
        model, names = shipped_tables()
        items = evidence_items(model, self.loop, VOCABULARY, names, most=3)
        assert len(items) == 3
        assert abs(items[0].weight) >= abs(items[2].weight)
        for item in items:
            assert item.quote in self.loop.actions and item.source == "external"
            assert json.loads(json.dumps(item.to_dict()))["step"] == item.step


def test_items_of_the_policy_about_itself():
    weights = np.array([[2.0, 0.1], [-3.0, 9.0], [0.0, 0.0]])
    fired = np.array([[True, True], [True, False], [True, True]])
    items = internal_items(weights, fired, ("open", "look"), ("a", "b", "c"), most=2)
    assert [(i.step, i.actor, i.holds, i.weight) for i in items] == [
        (1, "open", False, -3.0),
        (0, "open", True, 2.0),
    ]
    assert all(item.source == "internal" for item in items) and items[0].quote == "b"


class TestRetirement:
    skills = tuple(
        Skill(name, "For tests.", "look.", Trigger("action_pattern", f"^{name}"))
        for name in ("move", "open", "take")
    )

    def retired(self, served, **told):
        _, outcome = propose_retirement(
            init_state(0),
            self.skills,
            step=50,
            served=served,
            vocabulary=VOCABULARY,
            settings=CreatorSettings(retire_after=20),
            **told,
        )
        return getattr(outcome, "bundle", None) and outcome.bundle.operations[0].name, outcome

    def test_an_absorbed_skill_goes_first(self):
        served = {"move": 30, "open": 25, "take": 40}
        assert self.retired(served)[0] == "take"  # the longest in service
        name, outcome = self.retired(served, sensitivity={"move": 2.0, "open": 0.01, "take": 1.0})
        assert name == "open" and "the policy does the same without it" in outcome.reason

    def test_an_absorbed_skill_goes_after_half_the_time(self):
        served = {"move": 12, "open": 12, "take": 5}
        assert self.retired(served)[0] is None
        assert self.retired(served, sensitivity={"move": 2.0, "open": 0.01})[0] == "open"

    def test_skills_that_fire_together_need_not_have_served(self):
        name, outcome = self.retired({}, together=frozenset({"open", "take"}))
        assert name == "open" and "fires in the same episodes" in outcome.reason
