"""What trials teach: the chance that a proposal helps, from the kind of its evidence.

Contrast is association; whether a skill that follows from it helps, its trial finds out. But trials
teach more than their own result, because the proposals that help are of a kind: they speak at few
moments, and there successes do regularly what they say. A logistic regression on such traits
predicts whether a trial will be won. It starts from the trials of earlier runs, as a Gaussian prior
on its weights, and goes on with those of the run (Laplace approximation; Bishop 2006, section 4.5).
"""

import functools
import json
import math
from collections.abc import Sequence
from importlib import resources
from typing import NamedTuple

import numpy as np

from reskill_jax.skills.skill import Skill

from .contrast import Contrast
from .state import Record

TRAITS = (
    "constant",
    "prohibition",  # it says what not to do
    "every turn",  # its trigger: always, or at the beginning
    "observation",  # its trigger: something seen
    "thing",  # it names a type word
    "condition",  # it is meant for tasks with some word
    "effect",  # difference of the success rates where followed
    "score",  # standard score of the evidence, in tens
    "regular",  # logarithm of the share of such moments at which successes do it
    "usual",  # the same of all episodes
    "moments",  # logarithm of the number of such moments in an episode
    "rate",  # share of the episodes (with the task word) in which its trigger fires
    "demand",  # the evidence is what failures lack, not contrast
    "asked",  # they lack this very action, and not what it makes possible
    "company",  # another skill, in use or under test, speaks at the same moment
    "change",  # it changes a skill
    "removal",  # it takes a skill away
)
_RAREST = 0.01  # share of the moments
_BROAD = 0.3  # precision of every weight where nothing is known
_STEPS = 25  # of Newton's method, at most
_CLOSE = 1e-9  # the largest change of a weight that counts as none


class Weights(NamedTuple):
    """A Gaussian belief about the weights of F traits."""

    mean: np.ndarray  # [F]
    precision: np.ndarray  # [F, F]


def traits_of(
    contrast: Contrast, skills: Sequence[Skill], operation: str = "ADD"
) -> tuple[float, ...]:
    """The traits of a proposal, in the order of `TRAITS`.

    Args:
      contrast: the evidence for the skill that it brings, or against the one that it takes away.
      skills: those in use and under test, the one that it changes or takes away left out.
      operation: ADD, MODIFY or DELETE.
    """
    trigger, directive = contrast.trigger, contrast.directive
    return (
        1.0,
        float(directive.negative),
        float(trigger.kind in ("general", "beginning")),
        float(trigger.kind == "observation_pattern"),
        float(directive.noun is not None),
        float(directive.condition is not None),
        contrast.effect,
        min(max(contrast.score, -20.0), 20.0) / 10,
        math.log(max(contrast.regular, _RAREST)),
        math.log(max(contrast.usual, _RAREST)),
        math.log(max(contrast.moments, 1.0)),
        contrast.rate,
        float(contrast.fault is not None),
        float(contrast.asked),
        float(any(_same_moment(contrast, skill) for skill in skills)),
        float(operation == "MODIFY"),
        float(operation == "DELETE"),
    )


def _same_moment(contrast: Contrast, skill: Skill) -> bool:
    one, other = contrast.trigger, skill.trigger
    word = contrast.directive.condition
    return (one.kind, one.pattern) == (other.kind, other.pattern) and (
        word is None or other.task_pattern in (None, rf"\b{word}\b")
    )


def uninformed() -> Weights:
    """The belief before any trial: every proposal is as likely to help as not."""
    return Weights(np.zeros(len(TRAITS)), _BROAD * np.eye(len(TRAITS)))


@functools.cache
def shipped() -> Weights:
    """What the trials of earlier runs in the household taught (`experience.json`)."""
    text = resources.files(__package__).joinpath("experience.json").read_text(encoding="utf-8")
    told = json.loads(text)
    if tuple(told["traits"]) != TRAITS:
        raise ValueError("experience.json tells of other traits; fit it anew")
    return Weights(np.asarray(told["mean"]), np.asarray(told["precision"]))


def fit(prior: Weights, traits: np.ndarray, won: np.ndarray) -> Weights:
    """The belief after some trials, by the Laplace approximation.

    Args:
      prior: the belief before.
      traits: [R, F] of R proposals.
      won: [R] whether each was accepted; or a probability.
    """
    mean, precision = prior.mean, prior.precision
    for _ in range(_STEPS if len(won) else 0):
        chance = _logistic(traits @ mean)
        slope = traits.T @ (won - chance) - prior.precision @ (mean - prior.mean)
        precision = prior.precision + (traits * (chance * (1 - chance))[:, None]).T @ traits
        change = np.linalg.solve(precision, slope)
        mean = mean + change
        if np.max(np.abs(change)) < _CLOSE:
            break
    return Weights(mean, precision)


def learn_from(prior: Weights, history: Sequence[Record]) -> Weights:
    """The belief after the trials that a creator remembers; retirements teach nothing here."""
    decided = [
        record
        for record in history
        if record.outcome in ("accepted", "rejected") and len(record.traits) == len(TRAITS)
    ]
    traits = np.asarray([record.traits for record in decided]).reshape(len(decided), len(TRAITS))
    return fit(prior, traits, np.asarray([record.outcome == "accepted" for record in decided]))


def chance(weights: Weights, traits: Sequence[float]) -> float:
    """The probability that a proposal with such traits is accepted."""
    return float(_logistic(np.asarray(traits) @ weights.mean))


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -50, 50)))
