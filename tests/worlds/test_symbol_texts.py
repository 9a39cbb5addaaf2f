"""Sentences and symbols of a language that is only a tuple of texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.worlds.household import symbols
from reskill_jax.worlds.symbol_texts import SymbolTexts, text_of

LANGUAGE = ("", " ?", "\n>", " go", " go to", " door", " 1", " 12", ",", ".", "\nIt opens.", "The")
UNKNOWN = 1


class Small(SymbolTexts):
    language, unknown = LANGUAGE, UNKNOWN


class Household(SymbolTexts):
    language, unknown = symbols.SYMBOLS, symbols.UNKNOWN


@pytest.mark.parametrize(
    ("sentence", "found"),
    [
        ("", []),
        ("go to door 1.", [4, 5, 6, 9]),
        ("go door, go to 12", [3, 5, 8, 4, 7]),
        ("go around door 13", [3, UNKNOWN, 5, UNKNOWN]),
    ],
)
def test_the_words_of_a_sentence(sentence, found):
    assert Small().words(sentence) == found
    assert len(Small().lacking(sentence)) == found.count(UNKNOWN)


def test_words_that_are_lacking():
    assert Small().lacking("go around the door, slowly.") == ["around", "the", "slowly"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        ("The door 12\n>", [11, 5, 7, 2]),
        ("\nIt opens.", [10]),
        ("The doormat 123 door", [11, UNKNOWN, UNKNOWN, 5]),
        ("Then  go", [UNKNOWN, 3]),
    ],
)
def test_what_a_text_is_read_as(text, found):
    assert Small().read(text) == found


def test_symbols_as_text():
    assert text_of([2, 4, 5, 0], LANGUAGE) == Small().text([2, 4, 5, 0]) == "> go to door"


@given(st.lists(st.integers(3, 9), max_size=8))
def test_words_are_read_as_what_they_are_written_with(found):
    """Put together, no two of these words make a third one."""
    assert Small().words(Small().text(found)) == found


@given(st.lists(st.sampled_from(symbols.SPOKEN), max_size=6))
def test_the_household_spells_as_any_language_does(spoken):
    sentence = symbols.text(spoken)
    assert Household().words(sentence) == symbols.words(sentence)
    assert Household().lacking(sentence) == symbols.lacking(sentence)
