"""What trials teach the creator: traits, the belief about them, and what is proposed for it."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from reskill_jax.creators.rules.contrast import Contrast
from reskill_jax.creators.rules.experience import (
    TRAITS,
    Weights,
    chance,
    fit,
    learn_from,
    shipped,
    traits_of,
    uninformed,
)
from reskill_jax.creators.rules.state import Record
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger
from reskill_jax.worlds.vocabulary import Directive

AFTER_TAKING = Trigger("action_pattern", "^take\\b")
FRIDGE = Skill("fridge", "w", "go to fridge.", AFTER_TAKING)


def contrast(directive=None, trigger=AFTER_TAKING, **changes):
    made = Contrast(trigger, directive or Directive("open"), 0.5, 30.0, 0.1, 0.75)
    return dataclasses.replace(
        made, **{"regular": 0.25, "usual": 0.125, "moments": np.e**2} | changes
    )


def told(traits):
    return dict(zip(TRAITS, traits, strict=True))


def test_the_traits_of_a_proposal():
    found = told(traits_of(contrast(), [FRIDGE]))
    expected = dict.fromkeys(TRAITS, 0.0) | {"constant": 1.0, "effect": 0.5, "score": 2.0}
    expected |= {
        "regular": np.log(0.25),
        "usual": np.log(0.125),
        "moments": 2.0,
        "rate": 0.75,
        "company": 1.0,
    }
    assert found == pytest.approx(expected)
    directive = Directive("take", "mug", True, "cool")
    everywhere = contrast(directive, Trigger("general"), fault=0.4, score=-5.0)
    found = told(traits_of(everywhere, [FRIDGE], "DELETE"))
    said = ("prohibition", "every turn", "thing", "condition", "demand", "removal")
    assert all(found[name] == 1.0 for name in said) and found["score"] == -0.5
    assert found["company"] == found["change"] == found["observation"] == 0.0


@pytest.mark.parametrize(
    ("mine", "theirs", "company"),
    [
        (None, None, 1),
        ("cool", None, 1),
        (None, "cool", 1),
        ("cool", "cool", 1),
        ("cool", "hot", 0),
    ],
)
def test_company_is_a_skill_for_the_same_tasks(mine, theirs, company):
    pattern = None if theirs is None else rf"\b{theirs}\b"
    other = dataclasses.replace(
        FRIDGE, trigger=dataclasses.replace(AFTER_TAKING, task_pattern=pattern)
    )
    traits = traits_of(contrast(Directive("open", condition=mine)), [other])
    assert told(traits)["company"] == company


def made_up(seed, rows=60, features=4):
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(rows, features))
    chances = 1 / (1 + np.exp(-traits @ rng.normal(size=features)))
    return traits, (rng.random(rows) < chances).astype(float)


@given(st.integers(0, 1000))
def test_the_fit_is_the_mode_of_the_posterior(seed):
    traits, won = made_up(seed)
    prior = Weights(np.full(4, 0.3), np.diag([0.1, 1.0, 2.0, 5.0]))

    def loss(w):
        x = traits @ w
        shift = w - prior.mean
        return np.sum(np.logaddexp(0, x) - won * x) + shift @ prior.precision @ shift / 2

    found = fit(prior, traits, won)
    best = optimize.minimize(loss, prior.mean)
    np.testing.assert_allclose(found.mean, best.x, atol=2e-4)
    # The precision is the curvature there.
    step = 1e-4 * np.eye(4)
    rows = [
        [
            loss(best.x + a + b)
            - loss(best.x + a - b)
            - loss(best.x - a + b)
            + loss(best.x - a - b)
            for b in step
        ]
        for a in step
    ]
    np.testing.assert_allclose(found.precision, np.asarray(rows) / 4e-8, rtol=1e-2, atol=1e-2)


@given(st.integers(0, 1000))
def test_the_order_of_trials_does_not_matter_and_they_add_up(seed):
    traits, won = made_up(seed)
    prior = Weights(np.zeros(4), np.eye(4))
    order = np.random.default_rng(seed).permutation(len(won))
    one, other = fit(prior, traits, won), fit(prior, traits[order], won[order])
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-8)
    assert np.all(np.linalg.eigvalsh(one.precision - prior.precision) > -1e-9)


def test_extremes_are_borne():
    """Traits that tell the outcomes apart without an exception, and huge ones."""
    for size in (1.0, 1e3, 1e6):
        traits = size * np.asarray([[1.0, 1.0], [1.0, -1.0]] * 20)
        found = fit(Weights(np.zeros(2), np.eye(2)), traits, np.asarray([1.0, 0.0] * 20))
        assert np.all(np.isfinite(found.mean)) and chance(found, traits[0]) > 0.9
        assert chance(found, traits[1]) < 0.1


def record(number, outcome, traits, kind="bundle"):
    bundle = Bundle((Operation("ADD", "fridge", FRIDGE),))
    return Record(number, 1, kind, bundle, ("k",), (), 1.0, 9, outcome, traits=traits)


def test_only_decided_trials_with_traits_teach():
    good = traits_of(contrast(), [])
    silent = [
        record(0, "pending", good),
        record(1, "withdrawn", good),
        record(2, "rejected", (), "retirement"),
        record(3, "accepted", (1.0, 2.0)),  # of another version
    ]
    start = learn_from(uninformed(), silent)
    np.testing.assert_array_equal(start.mean, 0.0)
    assert chance(start, good) == 0.5
    lost = learn_from(uninformed(), [record(i, "rejected", good) for i in range(6)])
    won = learn_from(uninformed(), [record(i, "accepted", good) for i in range(6)])
    assert chance(lost, good) < 0.2 < 0.8 < chance(won, good)


def test_what_comes_with_the_package():
    weights = shipped()
    assert weights.mean.shape == (len(TRAITS),)
    assert np.all(np.linalg.eigvalsh(weights.precision) > 0)
    often = contrast(Directive("take"), Trigger("general"), moments=15.0, regular=0.2)
    once = contrast(Directive("go to", "fridge", False, "cool"), moments=1.2, regular=0.9)
    assert chance(weights, traits_of(often, [])) < 0.3 < chance(weights, traits_of(once, []))
