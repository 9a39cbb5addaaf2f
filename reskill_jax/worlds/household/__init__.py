"""The household: ALFWorld's rules and texts as pure functions of arrays."""

from .text_game import TextGame

__all__ = ["TextGame"]
