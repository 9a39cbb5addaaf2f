"""The household world's action vocabulary, taken mechanically from its language."""

import functools

from reskill_jax.worlds.household.directives import CONDITION_WORDS
from reskill_jax.worlds.household.symbols import UNKNOWN, VERBS, words
from reskill_jax.worlds.household.tables import OBJECT_TYPES, RECEPTACLE_TYPES
from reskill_jax.worlds.vocabulary import ActionVocabulary, Spoken

MAX_SYMBOLS = 10
_SPOKEN = {
    "look": Spoken("look around", "looking at", "looking around"),
    "inventory": Spoken("inventory: see what you carry", "seeing", "seeing what you carry"),
    "help": Spoken("help: see what can be done", "seeing", "seeing what can be done"),
    "go to": Spoken("go to another place", "going to", "going to another place"),
    "examine": Spoken("examine something", "examining", "examining something"),
    "open": Spoken("open it", "opening", "opening something"),
    "close": Spoken("close it", "closing", "closing something"),
    "take": Spoken("take something", "taking", "taking something"),
    "move": Spoken("move what you carry", "moving", "moving something"),
    "use": Spoken("use something", "using", "using something"),
    "clean": Spoken("clean it", "cleaning", "cleaning something"),
    "heat": Spoken("heat it", "heating", "heating something"),
    "cool": Spoken("cool it", "cooling", "cooling something"),
    "slice": Spoken("slice it", "slicing", "slicing something"),
}


def encodable(action: str) -> bool:
    """Whether the small policy can read an action: at most 10 symbols, none unknown."""
    symbols = words(action)
    return len(symbols) <= MAX_SYMBOLS and UNKNOWN not in symbols


@functools.cache
def household_vocabulary() -> ActionVocabulary:
    """Verbs, type words and task words of the household."""
    return ActionVocabulary(
        verbs=VERBS,
        nouns=frozenset(name.lower() for name in (*RECEPTACLE_TYPES, *OBJECT_TYPES)),
        task_words=tuple(word.strip() for word in CONDITION_WORDS),
        encodable=encodable,
        spoken=_SPOKEN,
    )
