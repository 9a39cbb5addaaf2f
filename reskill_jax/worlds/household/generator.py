"""Rooms and tasks made on the device, with the things that ALFRED rooms contain.

`generate` is a pure function of its key and runs under jit and vmap. The object to bring never
starts in a receptacle of the target's type, and some other receptacle holds it, so every game can
be solved and none is won at the start.
"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np

from . import tables
from .families import LAMP, LAMP_STANDS, SPLITS, all_families
from .symbols import FIRST_NUMBER, SYMBOL_ID
from .tables import OBJECT_TYPES, RECEPTACLE_TYPES, ROOMS
from .types import MAX_SHARED, Game, State

# How many of one type are considered for a room: few in small rooms, where more would only crowd
# out other types; as many as ALFRED's rooms have in large ones, which else could not be filled.
_FEW_INSTANCES, _MANY_INSTANCES = 4, 32
_SMALL_CAPACITY = 16
_LAMP = OBJECT_TYPES.index(LAMP)
_OPENABLE_SHARE = {"Fridge": 1.0, "Microwave": 1.0, "Safe": 0.95, "Drawer": 0.84, "Cabinet": 0.78}


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

    def __post_init__(self):
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


SMALL = RoomSpec()
LARGE = RoomSpec(receptacles=54, min_receptacles=30, objects=72, min_objects=45)


@functools.cache
def _instance_weights(what: str, capacity: int) -> np.ndarray:
    """[rooms, types, instances] log-weights; the n-th of a type is the rarer the larger n."""
    contents, types = {
        "receptacles": (tables.ROOM_RECEPTACLES, RECEPTACLE_TYPES),
        "objects": (tables.ROOM_OBJECTS, OBJECT_TYPES),
    }[what]
    instances = _FEW_INSTANCES if capacity <= _SMALL_CAPACITY else _MANY_INSTANCES
    log_weight = np.full((len(ROOMS), len(types), instances), -np.inf, np.float32)
    for k, room in enumerate(ROOMS):
        for name, (percent, most, mean) in contents[room].items():
            if name not in types:
                continue
            for n in range(min(int(most), instances)):
                chance = max(percent, 5) / 100 * min(1.0, max(mean, 0.1) / (n + 1))
                log_weight[k, types.index(name), n] = np.log(chance)
    return log_weight


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    holds = np.zeros((len(OBJECT_TYPES), len(RECEPTACLE_TYPES)), bool)
    for receptacle, held in tables.CAN_CONTAIN.items():
        for name in held:
            holds[OBJECT_TYPES.index(name), RECEPTACLE_TYPES.index(receptacle)] = True
    stands = holds.copy()  # where things may stand at the start: lamps too
    for receptacle in LAMP_STANDS:
        stands[_LAMP, RECEPTACLE_TYPES.index(receptacle)] = True
    in_room = np.zeros((len(ROOMS), len(RECEPTACLE_TYPES)), bool)
    for k, room in enumerate(ROOMS):
        for name in tables.ROOM_RECEPTACLES[room]:
            in_room[k, RECEPTACLE_TYPES.index(name)] = True

    def member(names) -> np.ndarray:
        return np.asarray([t in names for t in OBJECT_TYPES])

    return {
        "holds": holds,
        "stands": stands,
        "in_room": in_room,
        "recep_stem": np.asarray([SYMBOL_ID[" " + t.lower()] for t in RECEPTACLE_TYPES], np.int32),
        "object_stem": np.asarray([SYMBOL_ID[" " + t.lower()] for t in OBJECT_TYPES], np.int32),
        "openable": np.asarray([_OPENABLE_SHARE.get(t, 0.0) for t in RECEPTACLE_TYPES], np.float32),
        "recep_rank": _ranks(RECEPTACLE_TYPES),
        "object_rank": _ranks(OBJECT_TYPES),
        "pickupable": ~member(tables.NOT_PICKUPABLE),
        "cleanable": member(tables.CLEANABLE),
        "heatable": member(tables.HEATABLE),
        "coolable": member(tables.COOLABLE),
        "sliceable": member(tables.SLICEABLE),
        "toggleable": member(tables.TOGGLEABLE),
        "container": member(tables.MOVABLE_RECEPTACLES),
        "knife": member(tables.KNIVES),
    }


def _ranks(types: tuple[str, ...]) -> np.ndarray:
    """Position of each type in the order of the names, which is the order of the ids."""
    order = sorted(range(len(types)), key=lambda i: types[i].lower())
    ranks = np.empty(len(types), np.int32)
    ranks[order] = np.arange(len(types))
    return ranks


def _choose(key, log_weight, forced, count, capacity, rank):
    """Draws `count` instances, forced ones first, and puts them in the order of their names.

    Args:
      log_weight: [types, instances]; forced: [types] int32, how many of a type must be there;
      count: [] int32; capacity: static; rank: [types].

    Returns:
      types [capacity] int32 (-1 behind) and numbers [capacity] int32 (n, ..., 2, 1 in each type).
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
    return types, numbers


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
    a = {name: jnp.asarray(array) for name, array in _arrays().items()}
    families = all_families()
    keys = jax.random.split(jax.random.fold_in(key, split), 11)

    cdf = jnp.asarray(np.stack([families.cumulative(name) for name in SPLITS]))[split]
    f = jnp.searchsorted(cdf, jax.random.uniform(keys[0], maxval=0.999999), side="right")
    f = jnp.minimum(f, len(cdf) - 1)
    room = jnp.asarray(families.room)[f]
    task_type = jnp.asarray(families.task_type)[f]
    goal_type = jnp.asarray(families.object_type)[f]
    target_type = jnp.asarray(families.target_type)[f]
    device_type = jnp.asarray(families.device_type)[f]
    needs_lamp = target_type < 0
    needs_two = task_type == tables.TASK_TYPES.index("pick_two_obj_and_place")
    task = jnp.asarray(families.text)[f, jax.random.bernoulli(keys[1]).astype(jnp.int32)]

    # Receptacles: the target, the device or the lamp's stand, a place for the object, and others.
    type_index = jnp.arange(len(RECEPTACLE_TYPES))
    here = a["in_room"][room]
    source_type = _pick(keys[2], a["holds"][goal_type] & here & (type_index != target_type))
    stand_type = _pick(keys[3], a["stands"][_LAMP] & here)
    forced = (
        (type_index == target_type)
        | (type_index == device_type)
        | (type_index == source_type)
        | ((type_index == stand_type) & needs_lamp)
    )
    low, high = spec.min_receptacles, spec.receptacles
    recep_type, recep_number = _choose(
        keys[4],
        jnp.asarray(_instance_weights("receptacles", spec.receptacles))[room],
        forced.astype(jnp.int32),
        jax.random.randint(keys[5], (), low, high + 1),
        high,
        a["recep_rank"],
    )
    exists = recep_type >= 0

    # Objects: the goal's, the lamp, and others that some receptacle of this room can hold.
    can_stand = a["stands"][:, recep_type] & exists[None, :]  # [object types, R]
    allowed = jnp.any(can_stand, axis=1)
    object_index = jnp.arange(len(OBJECT_TYPES))
    wanted = jnp.where(object_index == goal_type, 1 + needs_two.astype(jnp.int32), 0)
    wanted = wanted + ((object_index == _LAMP) & needs_lamp)
    object_weight = jnp.asarray(_instance_weights("objects", spec.objects))[room]
    object_weight = jnp.where(allowed[:, None], object_weight, -jnp.inf)
    object_type, object_number = _choose(
        keys[6],
        object_weight,
        wanted.astype(jnp.int32),
        jax.random.randint(keys[7], (), spec.min_objects, spec.objects + 1),
        spec.objects,
        a["object_rank"],
    )
    present = object_type >= 0
    is_goal = present & (object_type == goal_type)
    goal_recep = exists & (recep_type == target_type)
    may_hold = can_stand[object_type] & ~(is_goal[:, None] & goal_recep[None, :])
    noise = jax.random.gumbel(keys[8], may_hold.shape)
    where = jnp.argmax(jnp.where(may_hold, noise, -jnp.inf), axis=1)
    inside = jax.nn.one_hot(where, spec.receptacles, dtype=bool) & present[:, None]

    # Places: now and then two of a type share one.
    index = jnp.arange(spec.receptacles, dtype=jnp.int32)
    twin = (recep_type == jnp.roll(recep_type, 1)) & (index > 0) & exists
    twin = twin & jax.random.bernoulli(keys[9], spec.share_place, twin.shape)
    same_before = jnp.tril(recep_type[:, None] == recep_type[None, :], -1).sum(axis=1)
    twin = twin & (same_before % MAX_SHARED != 0)
    place = jax.lax.cummax(jnp.where(twin, 0, index))
    at = inside.astype(jnp.int32) @ jax.nn.one_hot(place, spec.receptacles + 1, dtype=jnp.int32)

    openable = exists & jax.random.bernoulli(keys[10], a["openable"][recep_type])

    def has(name):
        return present & a[name][object_type]

    def of_type(name):
        return recep_type == RECEPTACLE_TYPES.index(name)

    no_object = jnp.zeros(spec.objects, bool)
    return Game(
        recep_stem=jnp.where(exists, a["recep_stem"][recep_type], 0),
        recep_number=jnp.where(exists, FIRST_NUMBER + recep_number - 1, 0),
        recep_type=recep_type,
        recep_place=place,
        openable=openable,
        object_stem=jnp.where(present, a["object_stem"][object_type], 0),
        object_number=jnp.where(present, FIRST_NUMBER + object_number - 1, 0),
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
        can_hold=a["holds"][object_type][:, recep_type] & present[:, None] & exists[None, :],
        inner=jnp.zeros((spec.objects, spec.objects), bool),
        task_type=task_type,
        goal_object=is_goal,
        goal_recep=goal_recep,
        goal_lamp=present & (object_type == _LAMP) & needs_lamp,
        task=task,
        start=State(
            place=jnp.int32(spec.receptacles),
            held=jnp.int32(-1),
            opened=jnp.zeros(spec.receptacles, bool),
            inside=inside,
            gone=jnp.zeros_like(inside),
            at=at > 0,
            hot=no_object,
            cool=no_object,
            clean=no_object,
            sliced=no_object,
            toggled=no_object,
        ),
    )


def _pick(key, allowed):
    """Index of one allowed entry, each equally likely. [K] bool -> [] int32."""
    noise = jax.random.gumbel(key, allowed.shape)
    return jnp.argmax(jnp.where(allowed, noise, -jnp.inf)).astype(jnp.int32)
