"""Rooms and tasks made on the device, with the things that ALFRED rooms contain.

`generate` is a pure function of its key and runs under jit and vmap. The object to bring never
starts in a receptacle of the target's type, and some other receptacle holds it, so every game can
be solved and none is won at the start.
"""

from collections.abc import Mapping
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.worlds.settings import LARGE, SMALL, RoomSpec

from . import tables
from .families import LAMP, SPLITS, Families, all_families
from .room_tables import instance_weights, type_arrays
from .symbols import FIRST_NUMBER
from .tables import OBJECT_TYPES, RECEPTACLE_TYPES
from .types import MAX_SHARED, Game, State

__all__ = ["LARGE", "SMALL", "RoomSpec", "generate"]

_LAMP = OBJECT_TYPES.index(LAMP)
# Which of a game's random keys draws what.
_FAMILY, _TEXT, _SOURCE, _STAND, _RECEPTACLES, _HOW_MANY_RECEPTACLES = range(6)
_OBJECTS, _HOW_MANY_OBJECTS, _WHERE, _TWINS, _DOORS = range(6, 11)


class _Task(NamedTuple):
    """What a game is about."""

    room: chex.Array  # [] int32 index into ROOMS
    task_type: chex.Array  # [] int32 index into TASK_TYPES
    object_type: chex.Array  # [] int32 index into OBJECT_TYPES
    target_type: chex.Array  # [] int32 index into RECEPTACLE_TYPES; -1 for the lamp
    device_type: chex.Array  # [] int32 receptacle type that treats the object; -1 = none
    needs_lamp: chex.Array  # [] bool
    needs_two: chex.Array  # [] bool
    text: chex.Array  # [TASK_LENGTH] int32 symbols of the goal


class _Things(NamedTuple):
    """The receptacles or the objects of a room, in the order of their names."""

    types: chex.Array  # [K] int32, -1 behind
    numbers: chex.Array  # [K] int32: n, ..., 2, 1 in each type
    exist: chex.Array  # [K] bool


class _Layout(NamedTuple):
    """What lies where."""

    is_goal: chex.Array  # [O] bool: of the goal's object type
    goal_recep: chex.Array  # [R] bool: of the target's type
    inside: chex.Array  # [O, R] bool
    place: chex.Array  # [R] int32
    at: chex.Array  # [O, R + 1] int32, above 0 where the object is


def _choose(
    key: chex.PRNGKey,
    log_weight: chex.Array,
    forced: chex.Array,
    count: chex.Array,
    capacity: chex.Array,
    rank: chex.Array,
) -> _Things:
    """Draws `count` instances, forced ones first, and puts them in the order of their names.

    Args:
      log_weight: [types, instances]; forced: [types] int32, how many of a type must be there;
      count: [] int32; capacity: static, K; rank: [types].
    """
    noise = jax.random.gumbel(key, log_weight.shape)
    instance = jnp.arange(log_weight.shape[1], dtype=jnp.int32)[None, :]
    score = jnp.where(instance < forced[:, None], 1e6, noise + log_weight)
    best, flat = jax.lax.top_k(score.ravel(), capacity)
    kept = (jnp.arange(capacity, dtype=jnp.int32) < count) & jnp.isfinite(best)
    types = jnp.where(kept, flat // log_weight.shape[1], -1).astype(jnp.int32)
    order = jnp.argsort(jnp.where(kept, rank[types], len(rank)), stable=True)
    types = types[order]
    same = (types[:, None] == types[None, :]) & (types >= 0)[:, None]
    numbers = jnp.sum(jnp.triu(same), axis=1).astype(jnp.int32)
    return _Things(types, numbers, types >= 0)


def generate(
    key: chex.PRNGKey, *, spec: RoomSpec = SMALL, split: str | chex.Array = "train"
) -> Game:
    """Makes one game.

    Args:
      key: random key; the same key and split give the same game.
      spec: sizes (static).
      split: "train", "seen" or "unseen", or its index in `SPLITS` ([] int, may be traced). The
        same key gives unrelated games in each.

    Returns:
      A Game with R = spec.receptacles and O = spec.objects.

    Raises:
      ValueError: the split is not one of the three.
    """
    if isinstance(split, str):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        split = SPLITS.index(split)
    arrays = {name: jnp.asarray(array) for name, array in type_arrays().items()}
    families = all_families()
    keys = jax.random.split(jax.random.fold_in(key, split), 11)
    task = _draw_task(keys, families, split)
    receptacles = _draw_receptacles(keys, arrays, task, spec)
    can_stand = arrays["stands"][:, receptacles.types] & receptacles.exist[None, :]
    objects = _draw_objects(keys, arrays, task, can_stand, spec)
    layout = _lay_out(keys, task, receptacles, objects, can_stand, spec)
    openable = receptacles.exist & jax.random.bernoulli(
        keys[_DOORS], arrays["openable"][receptacles.types]
    )
    return _assemble(arrays, task, receptacles, objects, layout, openable)


def _draw_task(keys: chex.Array, families: Families, split: int | chex.Array) -> _Task:
    """Draws a family of the split and one of its two texts."""
    cdf = jnp.asarray(np.stack([families.cumulative(name) for name in SPLITS]))[split]
    f = jnp.searchsorted(cdf, jax.random.uniform(keys[_FAMILY], maxval=0.999999), side="right")
    f = jnp.minimum(f, len(cdf) - 1)
    room = jnp.asarray(families.room)[f]
    task_type = jnp.asarray(families.task_type)[f]
    object_type = jnp.asarray(families.object_type)[f]
    target_type = jnp.asarray(families.target_type)[f]
    return _Task(
        room=room,
        task_type=task_type,
        object_type=object_type,
        target_type=target_type,
        device_type=jnp.asarray(families.device_type)[f],
        needs_lamp=target_type < 0,
        needs_two=task_type == tables.TASK_TYPES.index("pick_two_obj_and_place"),
        text=jnp.asarray(families.text)[f, jax.random.bernoulli(keys[_TEXT]).astype(jnp.int32)],
    )


def _draw_receptacles(
    keys: chex.Array, arrays: Mapping[str, chex.Array], task: _Task, spec: RoomSpec
) -> _Things:
    """The target, the device or the lamp's stand, a place for the object, and others. K = R."""
    type_index = jnp.arange(len(RECEPTACLE_TYPES))
    here = arrays["in_room"][task.room]
    source_type = _pick(
        keys[_SOURCE],
        arrays["holds"][task.object_type] & here & (type_index != task.target_type),
    )
    stand_type = _pick(keys[_STAND], arrays["stands"][_LAMP] & here)
    forced = (
        (type_index == task.target_type)
        | (type_index == task.device_type)
        | (type_index == source_type)
        | ((type_index == stand_type) & task.needs_lamp)
    )
    low, high = spec.min_receptacles, spec.receptacles
    return _choose(
        keys[_RECEPTACLES],
        jnp.asarray(instance_weights("receptacles", spec.receptacles))[task.room],
        forced.astype(jnp.int32),
        jax.random.randint(keys[_HOW_MANY_RECEPTACLES], (), low, high + 1),
        high,
        arrays["recep_rank"],
    )


def _draw_objects(
    keys: chex.Array,
    arrays: Mapping[str, chex.Array],
    task: _Task,
    can_stand: chex.Array,
    spec: RoomSpec,
) -> _Things:
    """The goal's, the lamp, and others that some receptacle of this room can hold. K = O.

    can_stand: [object types, R] bool.
    """
    allowed = jnp.any(can_stand, axis=1)
    type_index = jnp.arange(len(OBJECT_TYPES))
    wanted = jnp.where(type_index == task.object_type, 1 + task.needs_two.astype(jnp.int32), 0)
    wanted = wanted + ((type_index == _LAMP) & task.needs_lamp)
    weight = jnp.asarray(instance_weights("objects", spec.objects))[task.room]
    weight = jnp.where(allowed[:, None], weight, -jnp.inf)
    return _choose(
        keys[_OBJECTS],
        weight,
        wanted.astype(jnp.int32),
        jax.random.randint(keys[_HOW_MANY_OBJECTS], (), spec.min_objects, spec.objects + 1),
        spec.objects,
        arrays["object_rank"],
    )


def _lay_out(
    keys: chex.Array,
    task: _Task,
    receptacles: _Things,
    objects: _Things,
    can_stand: chex.Array,
    spec: RoomSpec,
) -> _Layout:
    """Puts every object into a receptacle, those of the goal not into the target."""
    is_goal = objects.exist & (objects.types == task.object_type)
    goal_recep = receptacles.exist & (receptacles.types == task.target_type)
    may_hold = can_stand[objects.types] & ~(is_goal[:, None] & goal_recep[None, :])
    noise = jax.random.gumbel(keys[_WHERE], may_hold.shape)
    where = jnp.argmax(jnp.where(may_hold, noise, -jnp.inf), axis=1)
    inside = jax.nn.one_hot(where, spec.receptacles, dtype=bool) & objects.exist[:, None]
    place = _places(keys, receptacles, spec)
    at = inside.astype(jnp.int32) @ jax.nn.one_hot(place, spec.receptacles + 1, dtype=jnp.int32)
    return _Layout(is_goal, goal_recep, inside, place, at)


def _places(keys: chex.Array, receptacles: _Things, spec: RoomSpec) -> chex.Array:
    """[R] int32: every receptacle's place; now and then two of a type share one."""
    types = receptacles.types
    index = jnp.arange(spec.receptacles, dtype=jnp.int32)
    twin = (types == jnp.roll(types, 1)) & (index > 0) & receptacles.exist
    twin = twin & jax.random.bernoulli(keys[_TWINS], spec.share_place, twin.shape)
    same_before = jnp.tril(types[:, None] == types[None, :], -1).sum(axis=1)
    twin = twin & (same_before % MAX_SHARED != 0)
    return jax.lax.cummax(jnp.where(twin, 0, index))


def _assemble(
    arrays: Mapping[str, chex.Array],
    task: _Task,
    receptacles: _Things,
    objects: _Things,
    layout: _Layout,
    openable: chex.Array,
) -> Game:
    """The game of what has been drawn."""
    recep_type, exists = receptacles.types, receptacles.exist
    object_type, present = objects.types, objects.exist
    num_objects = present.shape[0]

    def has(name: str) -> chex.Array:
        return present & arrays[name][object_type]

    def of_type(name: str) -> chex.Array:
        return recep_type == RECEPTACLE_TYPES.index(name)

    no_object = jnp.zeros(num_objects, bool)
    return Game(
        recep_stem=jnp.where(exists, arrays["recep_stem"][recep_type], 0),
        recep_number=jnp.where(exists, FIRST_NUMBER + receptacles.numbers - 1, 0),
        recep_type=recep_type,
        recep_place=layout.place,
        openable=openable,
        object_stem=jnp.where(present, arrays["object_stem"][object_type], 0),
        object_number=jnp.where(present, FIRST_NUMBER + objects.numbers - 1, 0),
        object_type=object_type,
        pickupable=has("pickupable"),
        cleanable=has("cleanable"),
        heatable=has("heatable"),
        coolable=has("coolable"),
        sliceable=has("sliceable"),
        toggleable=has("toggleable"),
        container=has("container"),
        knife=has("knife"),
        sink=of_type("SinkBasin"),
        microwave=of_type("Microwave"),
        fridge=of_type("Fridge"),
        can_hold=arrays["holds"][object_type][:, recep_type] & present[:, None] & exists[None, :],
        inner=jnp.zeros((num_objects, num_objects), bool),
        task_type=task.task_type,
        goal_object=layout.is_goal,
        goal_recep=layout.goal_recep,
        goal_lamp=present & (object_type == _LAMP) & task.needs_lamp,
        task=task.text,
        start=_start(layout, no_object),
    )


def _start(layout: _Layout, no_object: chex.Array) -> State:
    """The state before the first command; no_object: [O] bool, all False."""
    num_receptacles = layout.place.shape[0]
    return State(
        place=jnp.int32(num_receptacles),
        held=jnp.int32(-1),
        opened=jnp.zeros(num_receptacles, bool),
        inside=layout.inside,
        gone=jnp.zeros_like(layout.inside),
        at=layout.at > 0,
        hot=no_object,
        cool=no_object,
        clean=no_object,
        sliced=no_object,
        toggled=no_object,
    )


def _pick(key: chex.PRNGKey, allowed: chex.Array) -> chex.Array:
    """Index of one allowed entry, each equally likely. [K] bool -> [] int32."""
    noise = jax.random.gumbel(key, allowed.shape)
    return jnp.argmax(jnp.where(allowed, noise, -jnp.inf)).astype(jnp.int32)
