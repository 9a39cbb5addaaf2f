"""Texts in a language of symbols, on the host: symbols as text, and sentences as symbols."""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["SymbolTexts", "spelled", "text_of"]


def text_of(symbols: Iterable[int], language: Sequence[str]) -> str:
    """Joins symbols into text, leading white space dropped."""
    return "".join(language[int(s)] for s in symbols).lstrip()


def spelled(
    sentence: str, numbers: Mapping[str, int], *, unknown: int, longest: int
) -> Iterator[tuple[int, str]]:
    """The symbols of a lower-case sentence, each with the text it stands for.

    The longest symbol wins ("go to" before "go"); a comma or full stop stands alone.

    Args:
      sentence: words between spaces.
      numbers: text of a symbol -> its number; those of words begin with a space.
      unknown: the symbol of what is in no other.
      longest: words of a symbol at most.
    """
    pieces = sentence.replace(",", " ,").replace(".", " .").split()
    place = 0
    while place < len(pieces):
        if (mark := pieces[place]) in (",", "."):
            yield numbers.get(mark, unknown), mark
            place += 1
            continue
        for count in range(longest, 0, -1):
            phrase = " ".join(pieces[place : place + count])
            if " " + phrase in numbers:
                break
        yield numbers.get(" " + phrase, unknown), phrase
        place += count


class SymbolTexts:
    """What a compiled world says about words, from its `language` and `unknown` alone.

    A world that inherits from it has `text`, `words`, `lacking` and `read`.
    """

    language: tuple[str, ...]
    unknown: int

    def text(self, symbols: Sequence[int]) -> str:
        """See `text_of`."""
        return text_of(symbols, self.language)

    def words(self, sentence: str) -> list[int]:
        """The symbols of a sentence, see `spelled`."""
        return [symbol for symbol, _ in self._spelled(sentence)]

    def lacking(self, sentence: str) -> list[str]:
        """The words of a sentence that the language lacks, in their order."""
        return [word for symbol, word in self._spelled(sentence) if symbol == self.unknown]

    def read(self, text: str) -> list[int]:
        """The symbols of a text, the longest that fits at each place; never within a word."""
        numbers, found, place = _numbers(self.language), [], 0
        while place < len(text):
            ends = (end for end in range(len(text), place, -1) if not _within(text, end))
            end = next((end for end in ends if text[place:end] in numbers), None)
            if end is None:  # a word that no symbol has
                end = next(e for e in range(place + 1, len(text) + 1) if not _within(text, e))
            if not text[place:end].isspace():
                found.append(numbers.get(text[place:end], self.unknown))
            place = end
        return found

    def _spelled(self, sentence: str) -> Iterator[tuple[int, str]]:
        numbers = _numbers(self.language)
        longest = max(len(text.split()) for text in numbers)
        return spelled(sentence, numbers, unknown=self.unknown, longest=longest)


@functools.lru_cache(maxsize=16)
def _numbers(language: tuple[str, ...]) -> dict[str, int]:
    return {text: number for number, text in enumerate(language) if text}


def _within(text: str, place: int) -> bool:
    """Whether a place lies between two letters or digits of a word."""
    return place < len(text) and text[place].isalnum() and text[place - 1].isalnum()
