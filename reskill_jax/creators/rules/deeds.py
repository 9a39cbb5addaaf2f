"""Patterns of actions: how a verb, and a verb with a type word, is found in an action's text."""

import re
from collections.abc import Collection

from reskill_jax.worlds.vocabulary import ActionVocabulary

from .mining import MinedVocabulary
from .speech import TOOL_NAME

_PUNCTUATION = re.compile(r"[!-/:-@\[-^`{-~]")  # of ASCII: other characters mean themselves
_NO_LETTER = r"(?:\PL|$)"


def literal(text: str) -> str:
    """A text as a regular expression that matches it."""
    return _PUNCTUATION.sub(r"\\\g<0>", text)


def verb_pattern(verb: str, vocabulary: ActionVocabulary) -> str:
    """A pattern of the actions with this verb."""
    form = _form(verb, vocabulary)
    if form == "whole":
        return rf"^{literal(verb)}" + (r"[^\pL\pN]*$" if verb[-1].isalnum() else r"\s*$")
    if form == "tag":
        return rf"^\s*\<{literal(verb)}{_end(verb)}"
    if form.startswith("tool"):
        return f'{TOOL_NAME}{literal(verb)}"'
    return f"^{literal(verb)}{_end(verb)}"


def deed_pattern(verb: str, noun: str | None, vocabulary: ActionVocabulary) -> str:
    """A pattern of the actions with this verb and, unless None, this type word."""
    pattern = verb_pattern(verb, vocabulary)
    if noun is None:
        return pattern
    if not isinstance(vocabulary, MinedVocabulary):
        return f"{pattern}.*\\b{literal(noun)}\\b"
    end = _end(noun, noun in vocabulary.numbered)
    if _is_plain(noun[0]):
        between, thing = ".*", rf"\b{literal(noun)}{end}"
    elif pattern.endswith(_NO_LETTER):  # the same character may end the verb and precede the noun
        pattern = pattern.removesuffix(_NO_LETTER)
        between, thing = r"(?:\PL.*)?", rf"\PL{literal(noun)}{end}"
    else:
        between, thing = ".*", rf"(?:^|\PL){literal(noun)}{end}"
    behind = _form(verb, vocabulary) == "tool behind"
    return f"{thing}.*{pattern}" if behind else f"{pattern}{between}{thing}"


def moment_pattern(action: str, verb: str, noun: str, vocabulary: ActionVocabulary) -> str:
    """A pattern of an action like this one: the type word is its first."""
    if not isinstance(vocabulary, MinedVocabulary):
        return f"^{literal(verb)} {noun}\\b"
    if _form(verb, vocabulary) == "words" and action.lower().startswith(f"{verb} {noun}"):
        return _near(verb, noun, vocabulary)
    return deed_pattern(verb, noun, vocabulary)


def _near(verb: str, noun: str, vocabulary: MinedVocabulary) -> str:
    return f"^{literal(verb)} {literal(noun)}{_end(noun, noun in vocabulary.numbered)}"


def told_pattern(pattern: str, vocabulary: ActionVocabulary) -> str | None:
    """A pattern of actions as people would say it; None if it says itself."""
    if not isinstance(vocabulary, MinedVocabulary):
        return None
    nouns = [noun for noun in vocabulary.nouns if literal(noun) in pattern]
    for verb in vocabulary.verbs:
        if pattern == verb_pattern(verb, vocabulary):
            return verb
        for noun in nouns:
            if pattern in (deed_pattern(verb, noun, vocabulary), _near(verb, noun, vocabulary)):
                return f"{verb} {noun}"
    return None


def possible_verbs(
    told: Collection[str] | None, vocabulary: ActionVocabulary
) -> Collection[str] | None:
    """The verbs among what a world says is possible; None = not known."""
    if told is None or not isinstance(vocabulary, MinedVocabulary):
        return told
    return vocabulary.possible(told)


def begins_with_verb(verb: str, vocabulary: ActionVocabulary) -> bool:
    """Whether the text of an action with this verb begins with it, letter for letter."""
    return _form(verb, vocabulary) in ("words", "whole", "call")


def _form(verb: str, vocabulary: ActionVocabulary) -> str:
    known = vocabulary.forms if isinstance(vocabulary, MinedVocabulary) else {}
    return known.get(verb, "words")


def _is_plain(char: str) -> bool:
    """Whether RE2 knows it as a part of a word."""
    return char.isascii() and (char.isalnum() or char == "_")


def _end(text: str, numbered: bool = False) -> str:
    r"""What ends a word: `\b` knows ASCII alone, and takes a number to be a part of the word."""
    return "\\b" if _is_plain(text[-1]) and not numbered else _NO_LETTER
