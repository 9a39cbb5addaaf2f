"""Worlds by name."""

from .household.generator import RoomSpec
from .household.world import HouseholdWorld
from .world import CompiledWorld

COMPILED = ("household",)


def make_world(name: str, *, rooms: RoomSpec) -> CompiledWorld:
    """A compiled world by its name.

    Args:
      name: one of `COMPILED`.
      rooms: sizes of the household's rooms.

    Raises:
      ValueError: there is no such world.
    """
    if name not in COMPILED:
        raise ValueError(f"there is no world {name!r}; there are: {', '.join(COMPILED)}")
    return HouseholdWorld(spec=rooms)
