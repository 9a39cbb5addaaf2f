"""Worlds of one's own, from a module or handed in, and the tasks of worlds on the host."""

from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple

from .sessions.serve import WorldNameError, checked, object_named, world_made
from .sessions.source import Source
from .world import CompiledWorld, TaskSpec, lacks

# What the tasks of an evaluation may be called in a world that does not say "seen" and "unseen".
_CALLED = {"seen": ("seen", "train"), "unseen": ("unseen", "test", "valid", "dev", "validation")}


class MadeWorld(NamedTuple):
    """A world on the host, and where workers get it from."""

    world: Any  # a HostWorld
    source: Source
    reward: Callable[[Any], float] | None = None  # of a finished episode


def world_of_module(name: str) -> MadeWorld | CompiledWorld:
    """The world that MODULE:CLASS names: on the host, or compiled.

    Raises:
      WorldNameError: there is none; one line.
    """
    world: Any = world_made(name)
    if hasattr(world, "open") or not hasattr(world, "make"):
        return MadeWorld(checked(name, world), Source(name, world))
    if lacking := lacks(world, CompiledWorld):
        raise WorldNameError(f"{name} is no compiled world: it has no {', '.join(lacking)}")
    if type(world).__hash__ is None:
        raise WorldNameError(f"{name} cannot be hashed: make it a dataclass with frozen=True")
    return world


def world_given(world: Any) -> MadeWorld:
    """A world that was handed in."""
    return MadeWorld(world, Source(world=world))


def reward_of_module(name: str) -> Callable[[Any], float]:
    """The function MODULE:FUNCTION.

    Raises:
      WorldNameError: there is none; one line.
    """
    found = object_named(name, f"the reward {name}")
    if not callable(found):
        raise WorldNameError(f"the reward {name} is no function")
    return found


def eval_tasks(world: Any, split: str, most: int) -> list[TaskSpec]:
    """The first tasks of a split for an evaluation, at most `most`; [] = the world has none.

    A world that has other splits is asked for those that serve the same purpose. What it raises
    about a split that it does not know is its answer, and none of its errors otherwise.
    """
    known = getattr(world, "splits", None)
    for name in _CALLED.get(split, (split,)):
        if known is not None and name not in known:
            continue
        try:
            tasks = world.tasks(name)
            if tasks is not None and not hasattr(tasks, "__len__"):
                tasks = list(islice(tasks, most))  # no sequence, but its first tasks will do
        except (KeyError, ValueError):
            if known is not None:
                raise
            continue
        if tasks is not None and len(tasks):
            return list(islice(tasks, min(most, len(tasks))))
    return []
