"""Settings of the worlds that come with the package, as configurations hold them.

Plain values without JAX, so that they can be read before it is loaded; what they mean is in the
worlds. The rooms are those of three worlds: the household, the same as text, and ALFWorld.
"""

import dataclasses
from typing import NamedTuple

__all__ = ["BEGINNER", "FLAWLESS", "LARGE", "SMALL", "Habits", "RoomSpec"]


@dataclasses.dataclass(frozen=True)
class RoomSpec:
    """Sizes of generated rooms. `receptacles` and `objects` are capacities as well as maxima.

    A room has no more things than ALFRED's rooms of its kind can have, whatever the minima say.
    """

    receptacles: int = 10
    """Receptacles of a room at most."""
    min_receptacles: int = 7
    """Receptacles of a room at least."""
    objects: int = 12
    """Objects of a room at most."""
    min_objects: int = 6
    """Objects of a room at least."""
    share_place: float = 0.1
    """Chance that a receptacle shares the place of the one before it."""

    def __post_init__(self) -> None:
        for field in ("receptacles", "min_receptacles", "objects", "min_objects"):
            count = getattr(self, field)
            if isinstance(count, bool) or not isinstance(count, int):
                raise ValueError(f"rooms.{field} must be an integer, got {count!r:.60}")
        if not 4 <= self.min_receptacles <= self.receptacles:
            raise ValueError(
                f"rooms need 4 <= min_receptacles <= receptacles, got {self.min_receptacles} and "
                f"{self.receptacles}"
            )
        if not 3 <= self.min_objects <= self.objects:
            raise ValueError(
                f"rooms need 3 <= min_objects <= objects, got {self.min_objects} and {self.objects}"
            )
        if not 0.0 <= self.share_place <= 1.0:
            raise ValueError(f"share_place must be a probability, got {self.share_place}")


class Habits(NamedTuple):
    """Chances of each slip of a player at the moment it can happen. All float."""

    pass_by: float = 0.95  # leaves a closed place unopened while searching
    forget: float = 0.95  # carries the object to the target without the asked treatment
    content: float = 0.98  # then believes it is done and searches on
    idle: float = 0.08  # looks around, checks its hands, examines the place
    distracted: float = 0.1  # takes another object than the one it sees and needs
    undo: float = 0.6  # takes back what it has just put in place
    close: float = 0.6  # closes the place it took something from


SMALL = RoomSpec()
"""The rooms of the default run."""
LARGE = RoomSpec(receptacles=54, min_receptacles=30, objects=72, min_objects=45)
"""Rooms as large as those of ALFWorld's published games."""
BEGINNER = Habits()
"""The player that policies are pretrained on."""
FLAWLESS = Habits(*([0.0] * len(Habits._fields)))
"""A player without slips."""
