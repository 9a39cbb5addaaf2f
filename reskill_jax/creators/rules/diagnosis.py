"""Assertions kept over the reservoir, and what they say about why episodes fail.

Each is derived from a contrast: "successes open at least twice" (`action_count`), "successes never
look" (`action_not_exists`), and so on. Its thresholds come from the successes, its pass rates are
kept apart by outcome, and it lives as long as the two rates differ.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.assertions import Assertion, grade
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive

from .contrast import Contrast
from .deeds import begins_with_verb, deed_pattern, verb_pattern

MAX_ASSERTIONS = 15
_TO_ENTER = 0.05  # difference of the pass rates
_TO_STAY = 0.02


@dataclasses.dataclass(frozen=True)
class TrackedAssertion:
    """An assertion, the behaviour it is about, and how often it holds."""

    assertion: Assertion
    verb: str
    noun: str | None
    negative: bool
    success_rate: float  # share of successes that pass
    failure_rate: float  # share of failures that pass
    created: int  # step
    changed: int  # step

    @property
    def deed(self) -> tuple[str, str | None, bool]:
        """(verb, noun, negative)."""
        return self.verb, self.noun, self.negative

    @property
    def difference(self) -> float:
        """How well it tells successes from failures."""
        return self.success_rate - self.failure_rate

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            **{f.name: getattr(self, f.name) for f in dataclasses.fields(self)},
            "assertion": self.assertion.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "TrackedAssertion":
        """Reads `to_dict`."""
        return cls(**{**data, "assertion": Assertion.from_dict(data["assertion"])})


@dataclasses.dataclass(frozen=True)
class AssertionChange:
    """ADD, MODIFY or DELETE of an assertion, with the reason."""

    operation: str
    assertion: Assertion
    reason: str


def _derive(
    contrast: Contrast, successes: Sequence[Episode], vocabulary: ActionVocabulary
) -> Assertion:
    directive = contrast.directive
    pattern = deed_pattern(directive.verb, directive.noun, vocabulary)
    cue = contrast.trigger
    after_same = cue.kind == "action_pattern" and cue.pattern == verb_pattern(
        directive.verb, vocabulary
    )
    repeats = after_same and directive.noun is None and begins_with_verb(directive.verb, vocabulary)
    if directive.negative and repeats:
        return Assertion.of("no_consecutive_repeat", prefix=directive.verb)
    if not directive.negative and cue.kind == "action_pattern" and not after_same:
        return Assertion.of("action_before", first=cue.pattern or "", second=pattern)
    return _threshold(directive, successes, vocabulary)


def _threshold(
    directive: Directive, successes: Sequence[Episode], vocabulary: ActionVocabulary
) -> Assertion:
    pattern = deed_pattern(directive.verb, directive.noun, vocabulary)
    counts = [
        sum(vocabulary.follows(action, directive) for action in episode.actions)
        for episode in successes
    ]
    if directive.negative:
        most = int(np.ceil(np.quantile(counts, 0.75)))
        if most == 0:
            return Assertion.of("action_not_exists", pattern=pattern)
        return Assertion.of("action_count", pattern=pattern, max=most)
    least = int(np.floor(np.quantile(counts, 0.25)))
    if least <= 1:
        return Assertion.of("action_exists", pattern=pattern)
    return Assertion.of("action_count", pattern=pattern, min=least)


def _rates(
    assertion: Assertion, successes: Sequence[Episode], failures: Sequence[Episode]
) -> tuple[float, float]:
    def passes(episode: Episode) -> bool:
        if assertion not in episode.known:
            found = grade(assertion, episode.actions, episode.observations)
            episode.known[assertion] = found
        return episode.known[assertion]

    def rate(episodes: Sequence[Episode]) -> float:
        return sum(map(passes, episodes)) / max(len(episodes), 1)

    return rate(successes), rate(failures)


def update_assertions(
    tracked: Sequence[TrackedAssertion],
    contrasts: Sequence[Contrast],
    episodes: Sequence[Episode],
    vocabulary: ActionVocabulary,
    *,
    step: int,
    most: int = MAX_ASSERTIONS,
) -> tuple[tuple[TrackedAssertion, ...], tuple[AssertionChange, ...]]:
    """Brings the assertions up to date.

    Args:
      tracked: those kept so far.
      contrasts: the evidence, most valuable first; those without value are ignored.
      episodes: the reservoir.
      vocabulary: abstracts actions.
      step: the training step.
      most: assertions kept.

    Returns:
      The assertions, the best separating first, and what was changed.
    """
    successes = [episode for episode in episodes if episode.success]
    failures = [episode for episode in episodes if not episode.success]
    if not successes or not failures:
        return tuple(tracked), ()
    changes: list[AssertionChange] = []
    kept: list[TrackedAssertion] = []
    for one in tracked:
        assertion = one.assertion
        if assertion.kind in ("action_exists", "action_not_exists", "action_count"):
            directive = Directive(one.verb, one.noun, one.negative)
            assertion = _threshold(directive, successes, vocabulary)
        won, lost = _rates(assertion, successes, failures)
        changed = one.changed
        if assertion != one.assertion:
            changed = step
            changes.append(AssertionChange("MODIFY", assertion, f"was {one.assertion}"))
        renewed = dataclasses.replace(
            one, assertion=assertion, success_rate=won, failure_rate=lost, changed=changed
        )
        if renewed.difference < _TO_STAY or any(k.assertion == assertion for k in kept):
            reason = f"passes {won:.2f} of successes and {lost:.2f} of failures"
            changes.append(AssertionChange("DELETE", assertion, reason))
        else:
            kept.append(renewed)
    known = {one.assertion for one in kept}
    tried = 0
    for contrast in contrasts:
        if contrast.value <= 0 or tried >= 2 * most:
            break
        tried += 1
        assertion = _derive(contrast, successes, vocabulary)
        if assertion in known:
            continue
        known.add(assertion)
        won, lost = _rates(assertion, successes, failures)
        directive = contrast.directive
        new = TrackedAssertion(assertion, *directive.deed, won, lost, created=step, changed=step)
        if new.difference >= _TO_ENTER:
            kept.append(new)
            reason = f"passes {won:.2f} of successes and {lost:.2f} of failures"
            changes.append(AssertionChange("ADD", assertion, reason))
    kept.sort(key=lambda one: -one.difference)  # stable: the older first among equals
    for one in kept[most:]:
        changes.append(AssertionChange("DELETE", one.assertion, "others separate better"))
    return tuple(kept[:most]), tuple(changes)


def blame(tracked: Sequence[TrackedAssertion]) -> dict[tuple[str, str | None, bool], float]:
    """Per behaviour, the largest share of failures that fail an assertion about it."""
    found: dict[tuple[str, str | None, bool], float] = {}
    for one in tracked:
        if one.difference > 0:
            found[one.deed] = max(found.get(one.deed, 0.0), 1.0 - one.failure_rate)
    return found
