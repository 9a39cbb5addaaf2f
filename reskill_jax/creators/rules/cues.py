"""Cues: the moments a skill could be tied to, mined from what agents did and saw.

Candidates are triggers: always, at the beginning, after a class of actions, or when a phrase that
is frequent in the observations occurs. Two cues that occur at the same moments are one.
"""

import functools
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.patterns import MAX_PATTERN_LENGTH, search
from reskill_jax.skills.skill import Trigger
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .deeds import literal, moment_pattern, verb_pattern
from .mining import MinedVocabulary
from .phrases import (
    LONGEST_PHRASE,
    NUMBER,
    SHORTEST_WORD,
    clauses,
    phrase_finder,
    runs,
    where,
)

_SEGMENT = re.compile(r"[.,:;!?()\n]+")


class Decisions(NamedTuple):
    """Every decision of some episodes, episode after episode, perhaps only the early ones."""

    episode: np.ndarray  # [D] int32 index of the episode
    first: np.ndarray  # [E] int32 index of each episode's first decision
    turn: np.ndarray  # [D] int32
    last_action: list[str | None]  # [D]
    observation: list[str]  # [D] what was seen
    action: list[str]  # [D] what was done
    possible: list[frozenset[str] | None]  # [D] verbs that could be done; None = not known


class Cues(NamedTuple):
    """Candidate triggers and where they occur."""

    triggers: list[Trigger]  # C
    occurs: np.ndarray  # [C, D] bool


@functools.lru_cache(maxsize=1 << 12)
def _as_set(verbs: tuple[str, ...]) -> frozenset[str]:
    """The same few lists of verbs come again and again."""
    return frozenset(verbs)


def decisions_of(groups: Sequence[Sequence[Episode]]) -> tuple[list[Episode], Decisions]:
    """Lays out the decisions of groups of the same task; episodes without any drop out.

    Of a group with successes, only the turns that its longest success took: what a failure does
    afterwards, time running out, would otherwise count against whatever one does when lost.
    """
    kept, counts = [], []
    for group in groups:
        longest = max((len(e.actions) for e in group if e.success and e.actions), default=None)
        for episode in group:
            if episode.actions:
                kept.append(episode)
                counts.append(len(episode.actions[:longest]))
    return kept, Decisions(
        episode=np.repeat(np.arange(len(kept), dtype=np.int32), counts),
        first=(np.cumsum(counts) - np.asarray(counts)).astype(np.int32),
        turn=np.asarray([t for n in counts for t in range(n)], np.int32),
        last_action=[
            e.actions[t - 1] if t else None
            for e, n in zip(kept, counts, strict=True)
            for t in range(n)
        ],
        observation=[
            e.observations[t] for e, n in zip(kept, counts, strict=True) for t in range(n)
        ],
        action=[e.actions[t] for e, n in zip(kept, counts, strict=True) for t in range(n)],
        possible=[
            _as_set(e.possible[t]) if e.possible else None
            for e, n in zip(kept, counts, strict=True)
            for t in range(n)
        ],
    )


@functools.lru_cache(maxsize=1 << 14)
def _phrases(text: str) -> set[str]:
    """Runs of one to four words within a clause, numbers left out, as patterns."""
    found: set[str] = set()
    for words in clauses(text, _SEGMENT):
        found.update(word for word in runs(words, (1,)) if len(word) >= SHORTEST_WORD)
        found.update(runs(words, range(2, LONGEST_PHRASE + 1)))
    return found


def _pattern(phrase: str) -> str:
    return " ".join(r"\d+" if word == NUMBER else literal(word) for word in phrase.split())


def _mine_phrases(
    decisions: Decisions, *, share: float, most: int, any_language: bool
) -> list[str]:
    """Patterns of phrases that occur in at least a share of the episodes, best known first."""
    least = share * len(decisions.first)
    seen = [
        (int(episode), re.sub(r"\d+", "1", text))
        for episode, turn, text in zip(
            decisions.episode, decisions.turn, decisions.observation, strict=True
        )
        if turn > 0  # the introduction: the beginning is a cue of its own
    ]
    phrases_of = phrase_finder(seen, least) if any_language else _phrases
    texts: dict[str, int] = {}  # numbers made alike -> how it is numbered here
    said: list[set[str]] = []
    reach: dict[str, set[int]] = {}  # phrase -> episodes
    often: Counter[str] = Counter()
    for episode, plain in seen:
        if plain not in texts:
            texts[plain] = len(texts)
            said.append(phrases_of(plain))
        for phrase in said[texts[plain]]:
            reach.setdefault(phrase, set()).add(episode)
            often[phrase] += 1
    frequent = [
        phrase
        for phrase, episodes in reach.items()
        if len(episodes) >= least and often[phrase] <= 0.9 * len(seen)
    ]
    # Of phrases found in the same texts, two or three words say it best.
    frequent.sort(key=lambda p: (-len(reach[p]), -often[p], abs(len(p.split()) - 2.4), p))
    inside: dict[str, list[int]] = {phrase: [] for phrase in frequent}
    for i, phrases in enumerate(said):
        for phrase in phrases:
            if phrase in inside:
                inside[phrase].append(i)
    kept: dict[tuple[int, ...], str] = {}
    for phrase in frequent:
        kept.setdefault(tuple(inside[phrase]), phrase)
    patterns = (_pattern(phrase) for phrase in kept.values())
    short = (pattern for pattern in patterns if len(pattern) <= MAX_PATTERN_LENGTH)
    return list(itertools.islice(short, most))


def mine_cues(
    decisions: Decisions,
    vocabulary: ActionVocabulary,
    *,
    share: float = 0.15,
    most_phrases: int = 48,
    most_actions: int = 24,
) -> Cues:
    """Finds candidate triggers.

    Args:
      decisions: D decisions.
      vocabulary: abstracts the actions.
      share: a cue must occur in this share of the episodes.
      most_phrases: observation patterns kept, the most frequent.
      most_actions: action patterns kept, the most frequent.
    """
    count = len(decisions.turn)
    occurs: list[np.ndarray] = []
    triggers: list[Trigger] = []
    known: set[bytes] = set()

    def consider(trigger: Trigger, at: np.ndarray) -> None:
        if not at.any():
            return
        mark = np.packbits(at).tobytes()
        if mark not in known:
            known.add(mark)
            triggers.append(trigger)
            occurs.append(at)

    consider(Trigger("general"), np.ones(count, bool))
    consider(Trigger("beginning"), decisions.turn == 0)

    for pattern, hit in _after_actions(decisions, vocabulary, share=share, most=most_actions):
        consider(Trigger("action_pattern", pattern), hit)

    mined = isinstance(vocabulary, MinedVocabulary)
    texts = list(dict.fromkeys(decisions.observation))
    index = {text: i for i, text in enumerate(texts)}
    of = np.asarray([index[text] for text in decisions.observation], np.int32)
    phrases = _mine_phrases(decisions, share=share, most=most_phrases, any_language=mined)
    if mined:
        hits = where(phrases, texts)
    else:
        hits = np.asarray([[search(p, text) for text in texts] for p in phrases], bool)
    for pattern, hit in zip(phrases, hits, strict=True):
        consider(Trigger("observation_pattern", pattern), hit[of])
    return Cues(triggers, np.asarray(occurs, bool).reshape(len(triggers), count))


def _after_actions(
    decisions: Decisions, vocabulary: ActionVocabulary, *, share: float, most: int
) -> list[tuple[str, np.ndarray]]:
    """Patterns of the last action, and [D] bool where each occurs, the most frequent first."""
    last = decisions.last_action
    classes: dict[str, set[int]] = {}
    for i, action in enumerate(last):
        deed = None if action is None else vocabulary.abstract(action)
        if action is not None and deed is not None and deed.verb is not None:
            classes.setdefault(verb_pattern(deed.verb, vocabulary), set()).add(i)
            if deed.nouns:
                pattern = moment_pattern(action, deed.verb, deed.nouns[0], vocabulary)
                classes.setdefault(pattern, set()).add(i)
    episodes = len(decisions.first)
    reach = {p: len({int(decisions.episode[i]) for i in at}) for p, at in classes.items()}
    common = sorted(
        (p for p in classes if reach[p] >= share * episodes), key=lambda p: (-reach[p], p)
    )[:most]
    if isinstance(vocabulary, MinedVocabulary):  # verbs are guesses: where the triggers will fire
        done = np.asarray([action is not None for action in last], bool)
        return list(zip(common, where(common, [a or "" for a in last]) & done, strict=True))
    hits = np.zeros((len(common), len(last)), bool)
    for hit, pattern in zip(hits, common, strict=True):
        hit[list(classes[pattern])] = True
    return list(zip(common, hits, strict=True))
