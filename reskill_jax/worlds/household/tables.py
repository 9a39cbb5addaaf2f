"""ALFWorld's own tables: what exists, what can hold what, what a room contains.

The facts are those of the ALFRED rooms that ALFWorld plays in (`tables.json`).
"""

import json
from importlib import resources

_TABLES = json.loads(resources.files(__package__).joinpath("tables.json").read_text("utf-8"))

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
ROOMS = ("Kitchen", "LivingRoom", "Bathroom", "Bedroom")

CAN_CONTAIN: dict[str, list[str]] = _TABLES["CAN_CONTAIN"]
ROOM_RECEPTACLES: dict[str, dict[str, list[float]]] = _TABLES["ROOM_RECEPTACLES"]
ROOM_OBJECTS: dict[str, dict[str, list[float]]] = _TABLES["ROOM_OBJECTS"]
TASK_ROOMS: dict[str, list[str]] = _TABLES["TASK_ROOMS"]
TEMPLATES: dict[str, list[str]] = _TABLES["TEMPLATES"]

CLEANABLE = frozenset(_TABLES["CLEANABLE"])
HEATABLE = frozenset(_TABLES["HEATABLE"])
COOLABLE = frozenset(_TABLES["COOLABLE"])
SLICEABLE = frozenset(_TABLES["SLICEABLE"])
TOGGLEABLE = frozenset(_TABLES["TOGGLEABLE"])
OPENABLE = frozenset(_TABLES["OPENABLE"])
MOVABLE_RECEPTACLES = frozenset(_TABLES["MOVABLE_RECEPTACLES"])
NOT_PICKUPABLE = frozenset(_TABLES["NOT_PICKUPABLE"])
KNIVES = frozenset(_TABLES["KNIVES"])

RECEPTACLE_TYPES = tuple(
    sorted(set(CAN_CONTAIN) | {r for room in ROOM_RECEPTACLES.values() for r in room})
)
OBJECT_TYPES = tuple(
    sorted(
        {o for held in CAN_CONTAIN.values() for o in held}
        | {o for room in ROOM_OBJECTS.values() for o in room}
        | CLEANABLE
        | HEATABLE
        | COOLABLE
        | SLICEABLE
        | TOGGLEABLE
        | MOVABLE_RECEPTACLES
        | NOT_PICKUPABLE
        | {"Footstool"}
    )
)
