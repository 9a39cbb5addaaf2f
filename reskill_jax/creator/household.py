"""The household world's action vocabulary, taken mechanically from its language."""

from reskill_jax.worlds.household.directives import CONDITION_WORDS
from reskill_jax.worlds.household.symbols import UNKNOWN, VERBS, words
from reskill_jax.worlds.household.tables import OBJECT_TYPES, RECEPTACLE_TYPES

from .vocabulary import ActionVocabulary

MAX_SYMBOLS = 10


def encodable(action: str) -> bool:
    """Whether the small policy can read an action: at most 10 symbols, none unknown."""
    symbols = words(action)
    return len(symbols) <= MAX_SYMBOLS and UNKNOWN not in symbols


def household_vocabulary() -> ActionVocabulary:
    """Verbs, type words and task words of the household."""
    return ActionVocabulary(
        verbs=VERBS,
        nouns=frozenset(name.lower() for name in (*RECEPTACLE_TYPES, *OBJECT_TYPES)),
        task_words=tuple(word.strip() for word in CONDITION_WORDS),
        encodable=encodable,
    )
