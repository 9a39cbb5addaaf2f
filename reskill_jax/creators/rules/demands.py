"""Demands: what tasks ask for and failures never reach, and the way to it.

Two kinds of assertion that every success passes and many failures do not tell what is missing:
`action_exists` of a verb, in tasks with some word; and `observation_contains` of what the task
names but its introduction does not show. Contrast alone hardly shows either: what is nearly never
done is nearly never followed by success. The way is read off all episodes, whatever their outcome:
which action, at which moment, made the verb possible or brought the thing to sight.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import Trigger
from reskill_jax.worlds.vocabulary import ActionVocabulary, Deed, Directive, words_of

from .contrast import Contrast
from .deeds import possible_verbs, verb_pattern

_FEWEST_SUCCESSES = 2
_FEWEST_TRIES = 3  # of a way
_MISSING = 0.3  # least share of the failures that lack it
_SCORE = 2.5  # least standard score of its presence in successes
_REACH = 0.8  # share of these failures for which the way is assumed to be all that is missing
_USUAL = 1.25  # a way must work so many times as often as what is usually done at its moment
_PRIOR = 4.0  # tries' worth of the usual rate
_WAYS = 2  # proposed per demand


@dataclasses.dataclass(frozen=True)
class Demand:
    """What successes have and failures lack: a use of `verb`, or the sight of what is asked for."""

    word: str | None  # of the tasks; None = all tasks
    verb: str | None  # None = to have seen what the task names
    missing: float  # share of the failures that lack it
    weight: float  # share of all episodes that these failures are
    effect: float  # success rate of the episodes that have it
    score: float  # standard score of the successes, who all have it, against the others


def _seen(episode: Episode, vocabulary: ActionVocabulary) -> list[bool] | None:
    """Before each action and after the last: whether all that was hidden at first has been seen.

    None if the introduction shows everything that the task names.
    """
    shown = words_of(episode.observations[0].replace(episode.goal, ""))
    hidden = (words_of(episode.goal) & vocabulary.nouns) - shown
    if not hidden:
        return None
    seen: set[str] = set()
    told = [False]
    for observation in episode.observations[1:]:
        seen |= words_of(observation) & hidden
        told.append(seen == hidden)
    return told


def find_demands(episodes: Sequence[Episode], vocabulary: ActionVocabulary) -> list[Demand]:
    """What all successes (with a task word) have and many failures (with it) lack."""
    used = [{vocabulary.abstract(action).verb for action in e.actions} for e in episodes]
    goals = [words_of(episode.goal) for episode in episodes]
    words = vocabulary.task_words
    if words is None:
        words = tuple(sorted(set().union(*goals) - vocabulary.nouns))
    found = []
    for word in words:
        rows = [i for i, goal in enumerate(goals) if word in goal]
        for verb in vocabulary.verbs:
            has = {i: verb in used[i] for i in range(len(episodes))}
            found.append(_demand(word, verb, rows, has, episodes))
    sights = {i: seen for i, e in enumerate(episodes) if (seen := _seen(e, vocabulary)) is not None}
    has = {i: seen[-1] for i, seen in sights.items()}
    found.append(_demand(None, None, list(sights), has, episodes))
    return [demand for demand in found if demand is not None]


def _demand(
    word: str | None,
    verb: str | None,
    rows: Sequence[int],
    has: dict[int, bool],
    episodes: Sequence[Episode],
) -> Demand | None:
    won = [i for i in rows if episodes[i].success]
    lost = [i for i in rows if not episodes[i].success]
    missing = sum(not has[i] for i in lost)
    if len(won) < _FEWEST_SUCCESSES or not lost or missing < _MISSING * len(lost):
        return None
    if not all(has[i] for i in won):
        return None
    others = set(has) - set(won)
    usual = (sum(has[i] for i in others) + 1) / (len(others) + 2)
    score = (1 - usual) / (usual * (1 - usual) / len(won)) ** 0.5
    if score < _SCORE:
        return None
    return Demand(
        word=word,
        verb=verb,
        missing=missing / len(lost),
        weight=missing / len(episodes),
        effect=len(won) / sum(has[i] for i in rows),
        score=score,
    )


def _classes(deed: Deed) -> list[tuple[str, str | None]]:
    if deed.verb is None:
        return []
    return [(deed.verb, noun) for noun in (None, *deed.nouns[:1])]


def find_ways(
    demand: Demand, episodes: Sequence[Episode], vocabulary: ActionVocabulary
) -> list[Contrast]:
    """What to do, and when, so that a demand can be met.

    A way is a class of actions after a class of actions: the share of its tries after which the
    verb was possible (or the thing in sight), times the shares of the failures in need that reach
    its moment and that mention its type word at all. A verb that was at hand is asked for itself.
    """
    tries: Counter[tuple[tuple[str, str | None], str]] = Counter()
    works: Counter[tuple[tuple[str, str | None], str]] = Counter()
    usual: Counter[tuple[str, bool]] = Counter()  # by moment and result, whatever was done
    reached: Counter[str] = Counter()  # by verbs of the last action: failures that get there
    at_hand: Counter[str] = Counter()  # of these, those that could use the verb then
    mentioned: Counter[str | None] = Counter()
    needy = 0
    for episode in episodes:
        deeds = [vocabulary.abstract(action) for action in episode.actions]
        if demand.verb is None:
            met = _seen(episode, vocabulary)
            lacks = met is not None and not met[-1]
        else:
            known = (possible_verbs(told, vocabulary) for told in episode.possible)
            met = [verbs is not None and demand.verb in verbs for verbs in known]
            lacks = all(deed.verb != demand.verb for deed in deeds)
        if not met:
            continue
        if (
            lacks
            and not episode.success
            and (demand.word is None or demand.word in words_of(episode.goal))
        ):
            needy += 1
            reached.update({d.verb for d in deeds[:-1] if d.verb is not None})
            at_hand.update(
                {d.verb for d, can in zip(deeds[:-1], met[1:], strict=False) if can and d.verb}
            )
            mentioned[None] += 1
            mentioned.update(words_of(" ".join(episode.observations)))
        for t in range(1, len(met) - 1):
            moment = deeds[t - 1].verb
            if moment is None or met[t]:
                continue
            usual[moment, met[t + 1]] += 1
            for one in _classes(deeds[t]):
                tries[one, moment] += 1
                works[one, moment] += met[t + 1]
    if not needy:
        return []
    ways: list[tuple[float, Directive, str, float]] = []
    for verb, count in at_hand.items():
        if demand.verb is not None:
            share = count / needy
            ways.append((share, Directive(demand.verb, None, False, demand.word), verb, share))
    for ((verb, noun), moment), count in tries.items():
        common = usual[moment, True] / (usual[moment, True] + usual[moment, False])
        # Drawn to what is usual: a few tries may be luck.
        rate = (works[(verb, noun), moment] + _PRIOR * common) / (count + _PRIOR)
        if count < _FEWEST_TRIES or verb == demand.verb or rate < _USUAL * common:
            continue
        share = reached[moment] / needy * mentioned[noun] / needy
        ways.append((rate * share, Directive(verb, noun, False, demand.word), moment, share))
    ways.sort(key=lambda way: (-way[0], vocabulary.say(way[1]), way[2]))
    return [
        Contrast(
            trigger=Trigger("action_pattern", verb_pattern(moment, vocabulary)),
            directive=directive,
            effect=demand.effect,
            score=demand.score,
            value=_REACH * demand.weight * value,
            rate=share,
            fault=demand.missing,
            asked=directive.verb == demand.verb,
        )
        for value, directive, moment, share in ways[:_WAYS]
    ]
