"""What the facts of a problem file say of its things and places, as indices. Host code.

Receptacles and objects are numbered in the order of their ids, places by their first receptacle.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from .pddl_syntax import OBJECT_FLAGS, PddlError
from .types import MAX_SHARED

_OBJECT_PREDICATES = {*OBJECT_FLAGS, "objecttype", "inreceptacle", "objectatlocation"}
_RECEPTACLE_PREDICATES = {"receptacletype", "receptacleatlocation", "openable", "opened"}


class Facts(NamedTuple):
    """The facts of (:init ...)."""

    of: dict[str, list[tuple[str, ...]]]  # predicate -> arguments of each fact, as in the file
    mentioned: set[str]  # every argument

    def subjects(self, predicate: str) -> list[str]:
        """The first argument of each fact with this predicate."""
        return [arguments[0] for arguments in self.of[predicate]]


class Slots(NamedTuple):
    """The receptacles, or the objects, in the order of their ids."""

    position: dict[str, int]  # of each id
    capacity: int  # R or O

    def mask(self, ids: Iterable[str]) -> np.ndarray:
        """[capacity] bool: the things with these ids."""
        out = np.zeros(self.capacity, bool)
        out[[self.position[one] for one in ids]] = True
        return out

    def where(self, condition: Callable[[str], bool]) -> np.ndarray:
        """[capacity] bool: the things whose id meets a condition."""
        return self.mask(one for one in self.position if condition(one))


class Things(NamedTuple):
    """Everything a problem mentions."""

    receptacles: Slots
    objects: Slots


class Places(NamedTuple):
    """Where the receptacles are and where the agent starts."""

    location: dict[str, str]  # receptacle -> name of its place
    number: dict[str, int]  # name of a place -> its number, 0..R
    start: str


class Types(NamedTuple):
    """Types by id, in lower case and without the ending."""

    of_receptacle: dict[str, str]
    of_object: dict[str, str]


class Relations(NamedTuple):
    """What can be, and is, in or at what."""

    can_hold: np.ndarray  # [O, R] bool
    inside: np.ndarray  # [O, R] bool
    at: np.ndarray  # [O, R + 1] bool
    inner: np.ndarray  # [O, O] bool: inner[o2, o] = o2 lies in the movable object o


def group_facts(facts: Iterable[tuple[str, ...]]) -> Facts:
    """Sorts facts by predicate."""
    grouped = Facts(defaultdict(list), set())
    for fact in facts:
        grouped.of[fact[0]].append(fact[1:])
        grouped.mentioned.update(fact[1:])
    return grouped


def capacity_for(what: str, found: int, capacity: int | None) -> int:
    """The capacity asked for, or just enough; raises PddlError if it is too small."""
    if capacity is None:
        return max(found, 1)
    if found > capacity:
        raise PddlError(f"the problem has {found} {what}, more than the capacity of {capacity}")
    return capacity


def read_things(
    facts: Facts, declared: dict[str, str], *, receptacles: int | None, objects: int | None
) -> Things:
    """Finds the receptacles and objects that the facts mention.

    Args:
      facts: the facts.
      declared: id -> type, of (:objects ...).
      receptacles: capacity R; as many as there are when missing.
      objects: capacity O; as many as there are when missing.

    Raises:
      PddlError: something is both, or there are more than the capacities hold.
    """

    def declared_as(kind: str) -> set[str]:
        return {name for name in facts.mentioned if declared.get(name) == kind}

    recep_ids = {name for p in _RECEPTACLE_PREDICATES for name in facts.subjects(p)}
    recep_ids |= {receptacle for _, receptacle in facts.of["inreceptacle"]}
    recep_ids |= declared_as("receptacle")
    object_ids = {name for p in _OBJECT_PREDICATES for name in facts.subjects(p)}
    object_ids |= {name for pair in facts.of["inreceptacleobject"] for name in pair}
    object_ids |= declared_as("object")
    both = sorted(recep_ids & object_ids)
    if both:
        raise PddlError(f"(:init ...): {both[0]} is used as a receptacle and as an object")
    num_receptacles = capacity_for("receptacles", len(recep_ids), receptacles)
    num_objects = capacity_for("objects", len(object_ids), objects)
    return Things(
        Slots({name: i for i, name in enumerate(sorted(recep_ids))}, num_receptacles),
        Slots({name: i for i, name in enumerate(sorted(object_ids))}, num_objects),
    )


def read_places(facts: Facts, receptacles: Slots) -> Places:
    """Numbers the places by their first receptacle and finds the start.

    Raises:
      PddlError: a receptacle without a place or with two, a crowded place, no single start.
    """
    location: dict[str, str] = {}
    for name, where in facts.of["receptacleatlocation"]:
        if location.setdefault(name, where) != where:
            raise PddlError(f"(:init ...): receptacle {name} is at {location[name]} and at {where}")
    number: dict[str, int] = {}
    neighbours: dict[str, int] = defaultdict(int)
    for name, i in receptacles.position.items():
        if name not in location:
            raise PddlError(f"(:init ...): receptacle {name} has no receptacleAtLocation")
        number.setdefault(location[name], i)
        neighbours[location[name]] += 1
    for where, count in neighbours.items():
        if count > MAX_SHARED:
            raise PddlError(
                f"(:init ...): {count} receptacles share {where}; at most {MAX_SHARED} may"
            )
    start = _read_start(facts)
    number.setdefault(start, receptacles.capacity)
    return Places(location, number, start)


def _read_start(facts: Facts) -> str:
    starts = {where for _, where in facts.of["atlocation"]}
    if len(starts) != 1:
        raise PddlError(f"(:init ...): the agent must be atLocation once, found {len(starts)}")
    if facts.of["holds"]:
        raise PddlError("(:init ...): a game that starts with something in hand is not supported")
    return starts.pop()


def read_types(facts: Facts) -> Types:
    """Reads the types; raises PddlError if something has two."""
    return Types(_typed(facts, "receptacletype"), _typed(facts, "objecttype"))


def _typed(facts: Facts, predicate: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, kind in facts.of[predicate]:
        if found.setdefault(name, plain_type(kind)) != plain_type(kind):
            raise PddlError(f"(:init ...): {name} has two types, {found[name]} and {kind}")
    return found


def plain_type(kind: str) -> str:
    """A type without the ending: mugtype -> mug."""
    return kind[:-4] if kind.endswith("type") else kind


def read_relations(facts: Facts, things: Things, places: Places, types: Types) -> Relations:
    """Reads what can hold what, what lies in what and what is where."""
    thing, recep = things.objects.position, things.receptacles.position
    num_objects, num_receptacles = things.objects.capacity, things.receptacles.capacity
    can = {(plain_type(r), plain_type(o)) for r, o in facts.of["cancontain"]}
    can_hold = np.zeros((num_objects, num_receptacles), bool)
    for o, kind in types.of_object.items():
        for r, target in types.of_receptacle.items():
            can_hold[thing[o], recep[r]] = (target, kind) in can
    inside = np.zeros((num_objects, num_receptacles), bool)
    for o, r in facts.of["inreceptacle"]:
        inside[thing[o], recep[r]] = True
    at = np.zeros((num_objects, num_receptacles + 1), bool)
    for o, where in facts.of["objectatlocation"]:
        if where in places.number:  # nobody can go to a place without a receptacle
            at[thing[o], places.number[where]] = True
    inner = np.zeros((num_objects, num_objects), bool)
    for o2, o in facts.of["inreceptacleobject"]:
        inner[thing[o2], thing[o]] = True
    return Relations(can_hold, inside, at, inner)
