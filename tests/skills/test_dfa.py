"""Automata over symbols against RE2 on the text, and refusal of patterns that explode."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.skills.dfa import compile_dfa
from reskill_jax.skills.patterns import TriggerError, compile_pattern, search
from reskill_jax.worlds.household import symbols as household

LANGUAGE = household.SYMBOLS
SMALL = ("", "\nA b", " ab", " a", "b", ".\n", " 1", "_2", "\n", "ſK")


def run(dfa, symbols):
    state = 0
    for symbol in symbols:
        state = int(dfa.table[state, symbol])
    return bool(dfa.accept[state])


def text_of(symbols, language):
    return "".join(language[i] for i in symbols).lstrip()


def ids(*texts):
    return [household.symbol(t) for t in texts]


def test_hand_made_automaton():
    dfa = compile_dfa("^open .*3", LANGUAGE)
    assert run(dfa, ids(" open", " cabinet", " 3"))
    assert run(dfa, ids(" open", " cabinet", " 23"))
    assert not run(dfa, ids(" open", " cabinet", " 2"))
    assert not run(dfa, ids(" close", " open", " 3"))
    assert not run(dfa, [])
    assert dfa.table.dtype == np.uint8 and dfa.table.shape[1] == len(LANGUAGE)


def test_first_symbol_loses_its_white_space_only_at_the_start():
    dfa = compile_dfa("^you arrive", LANGUAGE)
    assert run(dfa, ids("\nYou arrive at"))
    assert not run(dfa, ids(" look", "\nYou arrive at"))
    assert run(dfa, [0, 0, *ids("\nYou arrive at")])


def test_padding_keeps_every_state():
    dfa = compile_dfa(r"is closed\.$", LANGUAGE)
    np.testing.assert_array_equal(dfa.table[:, 0], np.arange(len(dfa.accept)))


def test_end_is_the_end_of_the_sequence():
    dfa = compile_dfa(r"closed\.$", LANGUAGE)
    closed = ids("\nThe", " fridge", " 1", " is closed.")
    assert run(dfa, closed) and not run(dfa, closed + ids(". The"))


def test_word_boundaries_across_symbols():
    dfa = compile_dfa(r"\b1\b", LANGUAGE)
    assert run(dfa, ids(" open", " drawer", " 1"))
    assert not run(dfa, ids(" open", " drawer", " 11"))


def test_case_is_ignored():
    assert run(compile_dfa("FRIDGE", LANGUAGE), ids(" open", " fridge", " 1"))


@pytest.mark.parametrize(
    "pattern, states",
    [("open", 2), ("^open", 3), ("look|inventory", 2), (r"mug \d", 3), ("zzz", 1), ("", 1)],
)
def test_minimal_number_of_states(pattern, states):
    assert len(compile_dfa(pattern, LANGUAGE).accept) == states


EXPLOSIVE = [
    "(a|aa){30}$",
    "(.*a.{20})",
    ".*a.{12}b",
    "((a{0,9}){0,9}){0,9}",
    "(a{1,50}){1,50}",
    "(x+x+)+y",
    "((a*)*)*$",
    "(" * 90 + "a" + ")" * 90,
    "(.|a|b|[a-z]|[a-y]|[a-x]){40}z",
    "(.*(a|b|c).{0,15}(d|e|f).{0,15}(g|h|i).{0,15})",
    "(?:o.{9}|u.{9}|e.{9}|i.{9}|[nrst].{11}){6}",
]


@pytest.mark.parametrize("pattern", EXPLOSIVE)
def test_explosive_patterns_are_compiled_or_refused_quickly(pattern):
    start = time.process_time()
    try:
        assert len(compile_dfa(pattern, LANGUAGE).accept) <= 32
    except TriggerError as error:
        assert "\n" not in str(error)
    assert time.process_time() - start < 1.0


def test_too_many_states_gives_their_number():
    with pytest.raises(TriggerError, match="needs 5 states .* at most 4"):
        compile_dfa("^use (desk|floor)lamp \\d+$", LANGUAGE, max_states=4)
    assert len(compile_dfa("^use (desk|floor)lamp \\d+$", LANGUAGE, max_states=5).accept) == 5


@pytest.mark.parametrize(
    "pattern, reason",
    [
        ("(?=a)", "lookaround"),
        ("(?<!a)b", "lookaround"),
        (r"(a)\1", "backreference"),
        ("(", "missing"),
        ("a**", "repetition"),
        ("(?s).", "unsupported group"),
        (r"\Qa.b\E", "unsupported escape"),
        ("a" * 201, "201 characters"),
        (7, "must be a string"),
    ],
)
def test_unsupported_patterns_are_refused_with_a_reason(pattern, reason):
    with pytest.raises(TriggerError, match=reason):
        compile_dfa(pattern, LANGUAGE)


def test_language_needs_padding():
    with pytest.raises(ValueError, match="padding"):
        compile_dfa("a", ("a", "b"))


ATOMS = st.sampled_from(
    list("abAB1 _.k")
    + [r"\.", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "[ab]", "[^a]", "[a-z_]", "[]a]", r"[\d.]"]
    + [r"\n", r"\x41", "[[:alpha:]]", r"\pL", "^", "$", r"\b", r"\B", r"\A", r"\z", "ab", "{", "K"]
)


def _grow(inner):
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map("|".join).map("({})".format),
        st.tuples(
            inner, st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{0,}", "{2,}?"])
        ).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
    )


PATTERNS = st.recursive(ATOMS, _grow, max_leaves=7)


@settings(max_examples=10 * settings.default.max_examples)
@given(PATTERNS, st.lists(st.lists(st.integers(0, len(SMALL) - 1), max_size=7), max_size=6))
def test_agrees_with_re2_on_random_patterns(pattern, sequences):
    try:
        compile_pattern(pattern)
    except TriggerError:
        return
    try:
        dfa = compile_dfa(pattern, SMALL, max_states=256)
    except TriggerError as error:
        assert "too many states" in str(error) or "too much work" in str(error)
        return
    for symbols in [[], *sequences]:
        assert run(dfa, symbols) == search(pattern, text_of(symbols, SMALL)), (pattern, symbols)


WORLD_PATTERNS = st.lists(
    st.sampled_from(
        ["^", "$", r"\b", ".*", " ", r"\d", r"\d+", "[a-z]+", "(a|the)", "you", "open", "is closed"]
        + [r"\.", "fridge|cabinet", "nothing", "(go|take)", ", ", "in it", "1", "s{1,2}", "o?"]
    ),
    min_size=1,
    max_size=4,
).map("".join)


@settings(max_examples=6 * settings.default.max_examples)
@given(
    WORLD_PATTERNS,
    st.lists(st.lists(st.integers(0, len(LANGUAGE) - 1), max_size=12), min_size=1, max_size=6),
)
def test_agrees_with_re2_on_household_texts(pattern, sequences):
    try:
        dfa = compile_dfa(pattern, LANGUAGE, max_states=64)
    except TriggerError:
        return
    for symbols in sequences:
        assert run(dfa, symbols) == search(pattern, text_of(symbols, LANGUAGE)), (pattern, symbols)


def test_a_refused_pattern_is_quoted_on_one_line():
    with pytest.raises(TriggerError) as error:
        compile_pattern("é\r\n)")
    assert len(str(error.value).splitlines()) == 1 and "é\\r\\n)" in str(error.value)
