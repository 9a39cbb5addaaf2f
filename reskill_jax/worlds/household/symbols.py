"""The household language: a few hundred symbols whose texts concatenate to the engine's exact text.

A symbol is a word (" cabinet", " 3") or a fixed phrase ("\\nYou arrive at"). Actions and
observations are short int arrays of symbols; `text` turns them into the letters of the real engine.
A word carries the space before it; a phrase that opens an observation carries the line break that
separates it from the command before. `text` drops that leading white space.
"""

from collections.abc import Iterable, Iterator, Sequence

from reskill_jax.worlds.symbol_texts import spelled, text_of

from .tables import OBJECT_TYPES, RECEPTACLE_TYPES

MAX_NUMBER = 60

HELP_TEXT = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""

# Verbs, in the order of `Command.verb`.
VERBS = (
    "look",
    "inventory",
    "help",
    "go to",
    "examine",
    "open",
    "close",
    "take",
    "move",
    "use",
    "clean",
    "heat",
    "cool",
    "slice",
)
(
    LOOK,
    INVENTORY,
    HELP,
    GO_TO,
    EXAMINE,
    OPEN,
    CLOSE,
    TAKE,
    MOVE,
    USE,
    CLEAN,
    HEAT,
    COOL,
    SLICE,
) = range(len(VERBS))

_CONTROL = ("", " <unk>", "\n>", "\nSkill:", " do not", " if the task says")
_CONNECTORS = (" from", " to", " with")
_TASK_WORDS = (
    " put",
    " a",
    " some",
    " in",
    " on",
    " hot",
    " two",
    " find",
    " them",
    " and",
    " it",
    " at",
    " under",
    " the",
)
_TASK = "Your task is to: "
_WELCOME = ("-= Welcome to TextWorld, ALFRED! =-\n", "\n\nYour task is to:")
_ROOM = "\nYou are in the middle of a room. Looking quickly around you, you see"
_OPENERS = (
    "\nNothing happens.",
    _ROOM + " nothing",
    _ROOM + " a",
    "\nYou are facing the",
    "\nYou are not carrying anything.",
    "\nYou are carrying: a",
    "\n" + HELP_TEXT,
    "\nYou arrive at",
    "\nYou open the",
    "\nYou close the",
    "\nYou pick up the",
    "\nYou move the",
    "\nYou turn on the",
    "\nYou clean the",
    "\nYou heat the",
    "\nYou cool the",
    "\nYou sliced the",
    "\nThe",
    "\nOn the",
    "\nThere's nothing special about",
    "\nThis is a normal",
    "\nThis is a hot and clean sliced",
    "\nThis is a cool and clean sliced",
    "\nThis is a clean sliced",
    "\nThis is a hot sliced",
    "\nThis is a cool sliced",
    "\nThis is a hot and clean",
    "\nThis is a cool and clean",
    "\nThis is a hot",
    "\nThis is a clean",
    "\nThis is a cold",
    "\nThis is a sliced",
)
_CONTINUATIONS = (
    ".",
    ",",
    ", and",
    ", a",
    ", and a",
    ". The",
    ". On the",
    " is closed.",
    " is open. In it, you see a",
    " is open. In it, you see nothing",
    ", you see a",
    ", you see nothing",
    ". In it, you see a",
    ". In it, you see nothing",
    ". Next to it, you see a",
    ". Next to it, you see nothing",
    " from the",
    " to the",
    " using the",
    " with the",
)
_STEMS = tuple(" " + name.lower() for name in sorted(set(RECEPTACLE_TYPES) | set(OBJECT_TYPES)))
_NUMBERS = tuple(f" {n}" for n in range(1, MAX_NUMBER + 1))

SYMBOLS: tuple[str, ...] = (
    _CONTROL
    + tuple(" " + verb for verb in VERBS)
    + _CONNECTORS
    + _TASK_WORDS
    + _WELCOME
    + _OPENERS
    + _CONTINUATIONS
    + _STEMS
    + _NUMBERS
)
VOCABULARY_SIZE = len(SYMBOLS)
SYMBOL_ID: dict[str, int] = {symbol: i for i, symbol in enumerate(SYMBOLS)}

_LONGEST_PHRASE = 4  # words of " if the task says"

PAD, UNKNOWN, PROMPT, SKILL, DO_NOT, IF_TASK_SAYS = range(len(_CONTROL))
FIRST_VERB = len(_CONTROL)  # symbol of verb v is FIRST_VERB + v
FIRST_NUMBER = SYMBOL_ID[" 1"]  # symbol of number n is FIRST_NUMBER + n - 1
# Of which commands consist.
SPOKEN = tuple(
    SYMBOL_ID[text] for text in (*(" " + verb for verb in VERBS), *_CONNECTORS, *_STEMS, *_NUMBERS)
)


def symbol(text: str) -> int:
    """Returns the id of the symbol with exactly this text; raises KeyError if there is none."""
    return SYMBOL_ID[text]


def task_of(intro: str) -> str:
    """The task in the text of an introduction; empty if it has none."""
    return intro.rpartition(_TASK)[2].rstrip(".") if _TASK in intro else ""


def text(symbols: Iterable[int], extra: Sequence[str] = ()) -> str:
    """Joins symbols into text, leading white space dropped.

    Args:
      symbols: symbol ids; PAD adds nothing.
      extra: texts of ids from VOCABULARY_SIZE on (words of one game that the language lacks).
    """
    return text_of(symbols, SYMBOLS if not extra else SYMBOLS + tuple(extra))


def words(sentence: str) -> list[int]:
    """Splits a lower-case sentence into word symbols; a word the language lacks is UNKNOWN.

    The longest symbol wins ("go to", "if the task says"); a comma or full stop stands alone.
    """
    return [symbol for symbol, _ in _spelled(sentence)]


def lacking(sentence: str) -> list[str]:
    """The words of a sentence that the language lacks, in their order."""
    return [word for symbol, word in _spelled(sentence) if symbol == UNKNOWN]


def _spelled(sentence: str) -> Iterator[tuple[int, str]]:
    """The symbols of a sentence, each with the text it stands for."""
    return spelled(sentence, SYMBOL_ID, unknown=UNKNOWN, longest=_LONGEST_PHRASE)
