"""Contrast: which action, at which moment, separates successes from failures of the same task.

For a cue, an optional word of the task, and a class of actions, every episode where the cue occurs
has a share f of those moments at which the action followed. Only moments at which it could have
followed count: where a thing cannot be done, not doing it says nothing about what helps (a lucky
find would otherwise speak for whatever one does with a find). With weights that balance successes
and failures within each task, the mean of f is compared between successes and failures; the
standard score of the difference is the evidence, in either direction (do, do not). A mean of
shares, unlike "it happened at least once", does not favour the longer episodes, which are mostly
failures.
The effect is the difference of two success rates, "followed" (weights f) and "did not follow"
(weights 1 - f), each smoothed by a Beta prior at the base rate.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive, words_of

from .cues import Cues, Decisions, decisions_of, mine_cues
from .deeds import possible_verbs
from .evidence import Evidence, measure

_MIXED_ENOUGH = 10  # with this many mixed groups, the others are left out
_PLAIN_WEIGHT = 0.25


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A candidate skill and its evidence; `effect`, `score`, `value` speak for following it."""

    trigger: Trigger
    directive: Directive
    effect: float  # difference in success rate
    score: float  # standard score of the effect
    value: float  # cautious estimate of what following it always would add to the success rate
    rate: float  # share of the episodes (with the task word) in which the cue occurs

    harm: float = 0.0  # the same estimate for doing the opposite
    fault: float | None = None  # share of failures that lack it; None = see the assertions
    asked: bool = False  # a demand asks for this very action; else for what it makes possible
    regular: float = 0.5  # mean share of the moments of successes at which they follow it
    usual: float = 0.5  # the same of all episodes
    moments: float = 0.0  # mean number of such moments in an episode that has any


def balance(groups: Sequence[Sequence[Episode]]) -> dict[int, float]:
    """Weights by id(episode): within a mixed group successes and failures weigh one each."""
    mixed = [len({episode.success for episode in group}) == 2 for group in groups]
    plain = 0.0 if sum(mixed) >= _MIXED_ENOUGH else _PLAIN_WEIGHT
    weights = {}
    for group, is_mixed in zip(groups, mixed, strict=True):
        for episode in group:
            alike = sum(other.success == episode.success for other in group)
            weights[id(episode)] = (1.0 if is_mixed else plain) / alike
    return weights


class Table(NamedTuple):
    """Everything contrasted over one sample of episodes."""

    evidence: Evidence
    cues: Cues
    classes: list[tuple[str, str | None]]  # K (verb, noun)
    words: list[str | None]  # W; None = any task


def _action_classes(
    decisions: Decisions, vocabulary: ActionVocabulary, *, support: int, most: int
) -> tuple[list[tuple[str, str | None]], np.ndarray]:
    where: dict[tuple[str, str | None], list[int]] = {}
    for i, action in enumerate(decisions.action):
        deed = vocabulary.abstract(action)
        if deed.verb is not None:
            for noun in (None, *deed.nouns):
                where.setdefault((deed.verb, noun), []).append(i)
    reach = {c: len(set(decisions.episode[at])) for c, at in where.items()}
    common = [c for c in where if reach[c] >= support]
    common.sort(key=lambda c: (c[1] is not None, -reach[c], c[0], c[1] or ""))
    common = common[:most]
    acts = np.zeros((len(common), len(decisions.action)), bool)
    for k, one in enumerate(common):
        acts[k, where[one]] = True
    return common, acts


def _could(
    decisions: Decisions,
    classes: Sequence[tuple[str, str | None]],
    vocabulary: ActionVocabulary,
) -> np.ndarray:
    """[K, D] bool: whether the verb of each class was possible at each decision."""
    verbs = {verb for verb, _ in classes}
    possible = [possible_verbs(told, vocabulary) for told in decisions.possible]
    rows = {verb: np.asarray([p is None or verb in p for p in possible], bool) for verb in verbs}
    return np.stack([rows[verb] for verb, _ in classes])


def _task_words(
    episodes: Sequence[Episode], vocabulary: ActionVocabulary, *, most: int = 16
) -> list[str | None]:
    said = [words_of(episode.goal) for episode in episodes]
    allowed = vocabulary.task_words
    if allowed is None:
        allowed = tuple(sorted(set().union(*said) - vocabulary.nouns)) if said else ()
    share = {word: sum(word in goal for goal in said) / max(len(said), 1) for word in allowed}
    fit = [word for word in allowed if 0.08 <= share[word] <= 0.92]
    chosen: list[str | None] = [None]
    known: set[tuple[bool, ...]] = set()
    for word in sorted(fit, key=lambda word: (-share[word], word)):
        mask = tuple(word in goal for goal in said)
        if mask not in known:
            known.add(mask)
            chosen.append(word)
    return chosen[: most + 1]


def contrast_table(
    groups: Sequence[Sequence[Episode]], vocabulary: ActionVocabulary, *, support: int = 5
) -> Table | None:
    """Contrasts every cue, word and class of actions; None if there is nothing to compare."""
    weights = balance(groups)
    episodes, decisions = decisions_of(groups)
    if not episodes:
        return None
    cues = mine_cues(decisions, vocabulary)
    classes, acts = _action_classes(decisions, vocabulary, support=support, most=64)
    if not classes:
        return None
    words = _task_words(episodes, vocabulary)
    masks = np.asarray(
        [[w is None or w in words_of(episode.goal) for episode in episodes] for w in words], bool
    )
    evidence = measure(
        cues.occurs,
        acts,
        _could(decisions, classes, vocabulary),
        masks,
        decisions,
        np.asarray([episode.success for episode in episodes]),
        np.asarray([weights[id(episode)] for episode in episodes]),
    )
    return Table(evidence, cues, classes, words)


def value_of(
    evidence: Evidence, *, caution: float | np.ndarray = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """What always following ("do") or always avoiding ("do not") would add. Two [W, C, K].

    The slope, made `caution` standard errors smaller, over the way that is left to go, but no
    further than one standard deviation of what has been seen; times the correlation, because of two
    cues for the same action the one that says more about the outcome is the more precise.
    """
    reach = evidence.spread
    cover = evidence.coverage * evidence.correlation
    margin = caution * evidence.slope_error
    do = (evidence.slope - margin) * np.minimum(1 - evidence.follow, reach) * cover
    do_not = (-evidence.slope - margin) * np.minimum(evidence.follow, reach) * cover
    return do, do_not


def candidates(
    table: Table, *, support: int = 5, rate: float = 0.5, complexity: float = 1.25
) -> list[Contrast]:
    """All contrasts with enough support whose cue occurs often enough, most valuable first.

    Args:
      table: the evidence.
      support: episodes in which the action followed, and in which it did not.
      rate: share of episodes (with the word) in which the cue must occur.
      complexity: standard errors of additional caution for a condition, and for a type word (there
        are many of them, so some look good by chance).
    """
    evidence = table.evidence
    fit = (evidence.support >= support) & (evidence.rate[..., None] >= rate)
    conditional = np.asarray([word is not None for word in table.words])
    narrow = np.asarray([noun is not None for _, noun in table.classes])
    caution = 1.0 + complexity * (conditional[:, None, None] + 1.0 * narrow)
    found = [
        (float(value[w, c, k]), negative, int(w), int(c), int(k))
        for negative, value in enumerate(value_of(evidence, caution=caution))
        for w, c, k in np.argwhere(fit)
        # Forbidding what is usually done there says nothing about what to do instead.
        if not (negative and evidence.follow[w, c, k] > 0.5)
    ]
    found.sort(key=lambda one: (-one[0], one[2:], one[1]))
    return [
        Contrast(
            trigger=table.cues.triggers[c],
            directive=Directive(*table.classes[k], bool(negative), table.words[w]),
            effect=(1 - 2 * negative) * float(evidence.effect[w, c, k]),
            score=(1 - 2 * negative) * float(evidence.score[w, c, k]),
            value=value,
            rate=float(evidence.rate[w, c]),
            regular=_followed(evidence.regular[w, c, k], negative),
            usual=_followed(evidence.usual[w, c, k], negative),
            moments=float(evidence.moments[w, c, k]),
        )
        for value, negative, w, c, k in found
    ]


def _followed(share: float, negative: int) -> float:
    """The share of moments at which a directive is obeyed, given that of doing what it names."""
    return 1 - float(share) if negative else float(share)


def skill_evidence(
    skill: Skill, groups: Sequence[Sequence[Episode]], vocabulary: ActionVocabulary
) -> Contrast | None:
    """The contrast of a skill that is in the bank; None if it says nothing we can check."""
    directive = vocabulary.directive_of(skill)
    if directive is None:
        return None
    return contrast_of(skill.trigger, directive, groups, vocabulary)


def contrast_of(
    trigger: Trigger,
    directive: Directive,
    groups: Sequence[Sequence[Episode]],
    vocabulary: ActionVocabulary,
) -> Contrast | None:
    """The contrast of one directive at one moment; None without episodes."""
    weights = balance(groups)
    episodes, decisions = decisions_of(groups)
    if not episodes:
        return None
    occurs = np.asarray(
        [
            trigger.fires(turn=int(turn), last_action=last, observation=seen)
            for turn, last, seen in zip(
                decisions.turn, decisions.last_action, decisions.observation, strict=True
            )
        ],
        bool,
    )
    acts = np.asarray([vocabulary.follows(action, directive) for action in decisions.action], bool)
    word = directive.condition
    mask = np.asarray([word is None or word in words_of(e.goal) for e in episodes], bool)
    evidence = measure(
        occurs[None],
        acts[None],
        _could(decisions, [(directive.verb, directive.noun)], vocabulary),
        mask[None],
        decisions,
        np.asarray([episode.success for episode in episodes]),
        np.asarray([weights[id(episode)] for episode in episodes]),
    )
    sign = -1.0 if directive.negative else 1.0
    values = [float(value[0, 0, 0]) for value in value_of(evidence)]
    return Contrast(
        trigger=trigger,
        directive=directive,
        effect=sign * float(evidence.effect[0, 0, 0]),
        score=sign * float(evidence.score[0, 0, 0]),
        value=values[int(directive.negative)],
        rate=float(evidence.rate[0, 0]),
        harm=values[1 - int(directive.negative)],
        regular=_followed(evidence.regular[0, 0, 0], directive.negative),
        usual=_followed(evidence.usual[0, 0, 0], directive.negative),
        moments=float(evidence.moments[0, 0, 0]),
    )
