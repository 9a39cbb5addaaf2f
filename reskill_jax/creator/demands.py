"""Demands: what a kind of task asks for and failures never do, and the way to it.

An assertion "this verb is used" (`action_exists`) that every success with some word in its task
passes, and most failures with that word do not, tells what is missing. Contrast alone hardly shows
it: what is nearly never done is nearly never followed by success either. The way to it is read off
all episodes, whatever their outcome: which action, at which moment, made the verb possible.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence

from reskill_jax.skills.skill import Trigger

from .contrast import Contrast
from .cues import literal
from .episode import Episode
from .vocabulary import ActionVocabulary, Deed, Directive, words_of

_FEWEST_SUCCESSES = 2
_FEWEST_TRIES = 3  # of a way
_MISSING = 0.4  # least share of the failures that never use the verb
_SCORE = 2.5  # least standard score of its use by successes
_REACH = 0.5  # share of the failures for which the way is assumed to be all that is missing
_WAYS = 2  # proposed per demand


@dataclasses.dataclass(frozen=True)
class Demand:
    """A verb that tasks with a word ask for."""

    word: str
    verb: str
    missing: float  # share of the failures with the word that never use the verb
    weight: float  # share of all episodes that these failures are
    effect: float  # success rate of the episodes with the word that use it
    score: float  # standard score of its use by the successes against everybody's


def find_demands(episodes: Sequence[Episode], vocabulary: ActionVocabulary) -> list[Demand]:
    """The verbs that all successes with a task word use and most failures with it do not."""
    used = [{vocabulary.abstract(action).verb for action in e.actions} for e in episodes]
    goals = [words_of(episode.goal) for episode in episodes]
    words = vocabulary.task_words
    if words is None:
        words = tuple(sorted(set().union(*goals) - vocabulary.nouns))
    found = []
    for word in words:
        rows = [i for i, goal in enumerate(goals) if word in goal]
        won = [i for i in rows if episodes[i].success]
        lost = [i for i in rows if not episodes[i].success]
        if len(won) < _FEWEST_SUCCESSES or not lost:
            continue
        others = set(range(len(episodes))) - set(won)
        for verb in vocabulary.verbs:
            users = sum(verb in used[i] for i in rows)
            missing = sum(verb not in used[i] for i in lost)
            if any(verb not in used[i] for i in won) or missing < _MISSING * len(lost):
                continue
            usual = (sum(verb in used[i] for i in others) + 1) / (len(others) + 2)
            score = (1 - usual) / (usual * (1 - usual) / len(won)) ** 0.5
            if score >= _SCORE:
                found.append(
                    Demand(
                        word=word,
                        verb=verb,
                        missing=missing / len(lost),
                        weight=missing / len(episodes),
                        effect=len(won) / max(users, 1),
                        score=score,
                    )
                )
    return found


def _classes(deed: Deed) -> list[tuple[str, str | None]]:
    if deed.verb is None:
        return []
    return [(deed.verb, noun) for noun in (None, *deed.nouns[:1])]


def find_ways(
    demand: Demand, episodes: Sequence[Episode], vocabulary: ActionVocabulary
) -> list[Contrast]:
    """What to do, and when, so that the verb of a demand gets possible or is used where it is.

    A way is a class of actions after a class of actions: the share of its tries after which the
    verb was possible, times the share of the failures in need that reach its moment.
    """
    tries: Counter[tuple[tuple[str, str | None], str]] = Counter()
    works: Counter[tuple[tuple[str, str | None], str]] = Counter()
    reached: Counter[str] = Counter()  # by verbs of the last action: failures that get there
    at_hand: Counter[str] = Counter()  # of these, those that could use the verb then
    needy = 0
    for episode in episodes:
        if not episode.possible:
            continue
        deeds = [vocabulary.abstract(action) for action in episode.actions]
        could = [demand.verb in possible for possible in episode.possible]
        after = {d.verb for d in deeds[:-1] if d.verb is not None}
        if (
            not episode.success
            and demand.word in words_of(episode.goal)
            and all(deed.verb != demand.verb for deed in deeds)
        ):
            needy += 1
            reached.update(after)
            at_hand.update(
                {d.verb for d, can in zip(deeds[:-1], could[1:], strict=False) if can and d.verb}
            )
        for t in range(1, len(could) - 1):
            moment = deeds[t - 1].verb
            if moment is None or could[t]:
                continue
            for one in _classes(deeds[t]):
                tries[one, moment] += 1
                works[one, moment] += could[t + 1]
    if not needy:
        return []
    ways: list[tuple[float, Directive, str, float]] = []
    for verb, count in at_hand.items():
        share = count / needy
        ways.append((share, Directive(demand.verb, None, False, demand.word), verb, share))
    for ((verb, noun), moment), count in tries.items():
        if count < _FEWEST_TRIES or verb == demand.verb:
            continue
        share = reached[moment] / needy
        # A Beta(1, 1) prior: three tries that worked are not a certainty.
        rate = (works[(verb, noun), moment] + 1) / (count + 2)
        ways.append((rate * share, Directive(verb, noun, False, demand.word), moment, share))
    ways.sort(key=lambda way: (-way[0], vocabulary.say(way[1]), way[2]))
    return [
        Contrast(
            trigger=Trigger("action_pattern", f"^{literal(moment)}\\b"),
            directive=directive,
            effect=demand.effect,
            score=demand.score,
            value=_REACH * demand.weight * value,
            rate=share,
            fault=demand.missing,
        )
        for value, directive, moment, share in ways[:_WAYS]
    ]
