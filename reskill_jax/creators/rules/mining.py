"""The words of a world's actions, mined from what agents did: for worlds that give none.

An action begins with a verb: its first word, with the particles that nearly always follow ("go to",
"pick up"), or the name of what it calls. Type words are those that stand behind verbs, numbers
stripped. Whoever writes without spaces repeats whole actions, which are verbs then. Where every
action is different no verb is frequent, and there is less to propose.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property

from reskill_jax.creators.episode import Episode
from reskill_jax.worlds.vocabulary import ActionVocabulary, Deed, words_of

from .speech import (
    COMPLETING,
    FUNCTION_WORDS,
    LONGEST_VERB,
    MOST_TEXT,
    PARTICLES,
    VERB_WORDS,
    Utterance,
    Words,
    content_words,
    encodable_text,
    noun_of,
    read_action,
)

MOST_VERBS = 64
MOST_NOUNS = 512
MOST_TURNS = 128  # of an episode that are looked at
_MOST_TASK_WORDS = 64
_VERB_EPISODES = 3  # in which a verb has to occur
_NOUN_EPISODES = 2
_NEARLY_ALWAYS = 0.8
_TASK_SHARE = (0.08, 0.92)  # of the goals with a word that tells tasks apart


@dataclasses.dataclass(frozen=True)
class MinedVocabulary(ActionVocabulary):
    """A vocabulary found in actions of any form.

    Attributes:
      forms: how actions with each verb are put together: "words", "whole" (the verb is all of it),
        "call", "tag", "tool", or "tool behind" (its name stands behind the arguments).
      numbered: nouns that have been seen with a number or an id attached ("mug_1").
    """

    forms: Mapping[str, str] = dataclasses.field(default_factory=dict)
    numbered: frozenset[str] = frozenset()

    def abstract(self, action: str) -> Deed:
        """See `ActionVocabulary`."""
        known = self._known
        if action not in known:
            known[action] = self._abstract(read_action(action))
        return known[action]

    def possible(self, told: Collection[str]) -> frozenset[str] | None:
        """The verbs among what a world says is possible, verbs or actions; None = not known."""
        key = frozenset(told)
        if key not in self._possible:
            verbs = {self.abstract(text).verb for text in key}
            self._possible[key] = frozenset(verb for verb in verbs if verb is not None)
        return self._possible[key] if key else None

    @cached_property
    def _possible(self) -> dict[frozenset[str], frozenset[str]]:
        return {}

    @cached_property
    def _set(self) -> frozenset[str]:
        return frozenset(self.verbs)

    def _abstract(self, said: Utterance) -> Deed:
        if said.name:
            return Deed(said.name, self._named(said.words)) if said.name in self._set else _NONE
        for size in range(min(VERB_WORDS, len(said.words)), 0, -1):
            verb = " ".join(said.words[:size])
            alone = size == len(said.words)
            if verb in self._set and (alone or self.forms.get(verb) != "whole"):
                return Deed(verb, self._named(content_words(said.words[size:])))
        return _NONE

    def _named(self, words: Words) -> Words:
        found = (noun_of(word) for word in words)
        return tuple(dict.fromkeys(noun for noun in found if noun in self.nouns))


_NONE = Deed(None, ())


def mine_vocabulary(episodes: Sequence[Episode]) -> MinedVocabulary:
    """Finds the verbs and the type words of actions.

    The result does not depend on the order of the episodes.

    Args:
      episodes: their first MOST_TURNS actions are looked at, of each its first few thousand
        characters.

    Returns:
      A vocabulary of at most MOST_VERBS verbs and MOST_NOUNS nouns, the most frequent ones, the
      first in the alphabet among equals; it says conditions and negations in English, and takes
      everything to be encodable.
    """
    said = [_said(episode) for episode in episodes]
    found = _verbs(said)
    forms = {verb: form for form, verb in _frequent(found, _VERB_EPISODES, MOST_VERBS, said)}
    spoken = MinedVocabulary(tuple(forms), frozenset(), forms=forms)
    things: Counter[str] = Counter()
    numbered: set[str] = set()
    for utterances in said:
        named = {
            (word, noun)
            for one in utterances
            for word in _behind(one, spoken)
            if (noun := noun_of(word))
        }
        things.update({noun for _, noun in named})
        numbered |= {noun for word, noun in named if word != noun}
    nouns = [noun for noun, often in things.items() if often >= _NOUN_EPISODES]
    kept = frozenset(sorted(nouns, key=lambda noun: (-things[noun], noun))[:MOST_NOUNS])
    return dataclasses.replace(
        spoken, nouns=kept, numbered=kept & numbered, task_words=_task_words(episodes, kept)
    )


def remembering(
    vocabulary: MinedVocabulary, deeds: Iterable[tuple[str, str | None, bool]]
) -> MinedVocabulary:
    """The vocabulary with the words of earlier skills.

    A skill that forbids something may end all mention of it, and has to stay readable.

    Args:
      vocabulary: what was found.
      deeds: (verb, noun, negative) of the skills.
    """
    deeds = tuple(deeds)
    verbs = dict.fromkeys((*vocabulary.verbs, *(verb for verb, _, _ in deeds)))
    nouns = vocabulary.nouns.union(noun for _, noun, _ in deeds if noun is not None)
    if len(verbs) == len(vocabulary.verbs) and nouns == vocabulary.nouns:
        return vocabulary
    return dataclasses.replace(vocabulary, verbs=tuple(verbs), nouns=nouns)


def _said(episode: Episode) -> frozenset[Utterance]:
    """The different actions of an episode that are understood."""
    texts = {action[:MOST_TEXT] for action in episode.actions[:MOST_TURNS]}
    return frozenset(one for one in map(read_action, texts) if one.form)


def _verbs(said: Sequence[frozenset[Utterance]]) -> Collection[tuple[str, str]]:
    """(form, verb) of all verbs that actions could begin with."""
    often: Counter[Utterance] = Counter()
    for utterances in said:
        often.update(utterances)
    found = set()
    by_first: dict[str, list[tuple[Words, int]]] = defaultdict(list)
    for one, count in often.items():
        if one.name:
            found.add((_form(one), one.name))
        elif _begins(one.words[0]):
            by_first[one.words[0]].append((one.words, count))
        elif len(one.words) <= VERB_WORDS:
            found.add(("whole", " ".join(one.words)))
    for first, members in by_first.items():
        found |= {("words", " ".join(verb)) for verb in _grown((first,), members)}
    return {(form, verb) for form, verb in found if len(verb) <= LONGEST_VERB}


def _form(one: Utterance) -> str:
    return one.form + " behind" * one.behind


def _begins(word: str) -> bool:
    """Whether a word can be the first of an action."""
    return word[0].isalpha() and word not in FUNCTION_WORDS


def _grown(verb: Words, members: Sequence[tuple[Words, int]]) -> list[Words]:
    """The verbs that begin with some words, given the actions that do and how often they occur.

    Particles that nearly always follow, if anything does, belong to the verb; so does what ends the
    action and is no thing, as in "go up" or "say it": the verb alone would say something else.
    """
    size = len(verb)
    if size == VERB_WORDS:
        return [verb]
    going_on: dict[str, list[tuple[Words, int]]] = defaultdict(list)
    more = [(words, count) for words, count in members if len(words) > size]
    for words, count in more:
        if words[size] in PARTICLES:
            going_on[words[size]].append((words, count))
    follow = sum(count for some in going_on.values() for _, count in some)
    if follow >= _NEARLY_ALWAYS * sum(count for _, count in more):
        longer = [one for word, some in going_on.items() for one in _grown((*verb, word), some)]
        return [verb, *longer]
    ending = {words[size] for words, _ in more if len(words) == size + 1}
    return [verb, *((*verb, word) for word in ending if word in COMPLETING)]


def _frequent(
    found: Collection[tuple[str, str]],
    least: int,
    most: int,
    said: Sequence[frozenset[Utterance]],
) -> list[tuple[str, str]]:
    """The verbs of most episodes, most frequent first; of each the most frequent form."""
    everything = MinedVocabulary(
        tuple({verb for _, verb in found}),
        frozenset(),
        forms={verb: form for form, verb in found if form == "whole"},
    )
    reach: Counter[str] = Counter()
    forms: Counter[tuple[str, str, bool]] = Counter()
    for utterances in said:
        met = set()
        for one in utterances:
            verb = everything._abstract(one).verb
            if verb is not None:
                whole = ("whole", verb) in found
                form = "whole" if whole and not one.name else _form(one)
                met.add((verb, form, not one.words))
        forms.update(met)
        reach.update({verb for verb, _, _ in met})
    chosen = sorted((v for v in reach if reach[v] >= least), key=lambda v: (-reach[v], v))[:most]
    by_verb: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
    for (verb, form, bare), count in forms.items():
        by_verb[verb].append((bare, -count, form))  # without arguments it tells less of the form
    return [(min(by_verb[verb])[2], verb) for verb in chosen]


def _behind(one: Utterance, vocabulary: MinedVocabulary) -> Words:
    """The words of an action behind its verb; none without a verb."""
    verb = vocabulary._abstract(one).verb
    if verb is None:
        return ()
    return one.words if one.name else content_words(one.words[len(verb.split()) :])


def _task_words(episodes: Sequence[Episode], nouns: Collection[str]) -> Words:
    """Words of the goals that tell tasks apart, the most frequent ones."""
    often: Counter[str] = Counter()
    for episode in episodes:
        goal = encodable_text(episode.goal[:MOST_TEXT])
        # Of other alphabets `words_of` sees fragments: conditions ask for whole words alone.
        whole = {word for part in goal.lower().split() if (word := part.strip(".,:;!?()'\""))}
        often.update(words_of(goal) & whole - FUNCTION_WORDS - PARTICLES)
    least, most = (share * len(episodes) for share in _TASK_SHARE)
    fit = [word for word, count in often.items() if least <= count <= most and word not in nouns]
    return tuple(sorted(fit, key=lambda word: (-often[word], word))[:_MOST_TASK_WORDS])
