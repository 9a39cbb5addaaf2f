"""The command `reskill`: `main` runs it."""

from .command import main

__all__ = ["main"]
