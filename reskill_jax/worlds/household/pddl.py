"""ALFWorld problem files in and out of arrays. Host code, linear in the size of the file."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np

from . import symbols as sy
from .pddl_syntax import (
    OBJECT_FLAGS,
    PddlError,
    read_declared,
    read_facts,
    read_goal,
    read_sections,
)
from .pddl_writer import write_problem
from .tables import KNIVES, OBJECT_TYPES, RECEPTACLE_TYPES, TASK_TYPES, TEMPLATES
from .types import MAX_SHARED, TASK_LENGTH, Game, State

__all__ = ["ParsedGame", "PddlError", "pad", "parse", "write"]


class ParsedGame(NamedTuple):
    """A problem file as arrays."""

    game: Game  # numpy arrays, padded to the capacities
    extra: tuple[str, ...]  # texts of the symbols from VOCABULARY_SIZE on
    task: str  # the goal text


_OBJECT_PREDICATES = {*OBJECT_FLAGS, "objecttype", "inreceptacle", "objectatlocation"}
_RECEPTACLE_PREDICATES = {"receptacletype", "receptacleatlocation", "openable", "opened"}


def _stem(name: str) -> str:
    return name.split("_bar_", 1)[0] + ("basin" if "basin" in name else "")


def _plain(kind: str) -> str:
    return kind[:-4] if kind.endswith("type") else kind


class _Language:
    """Symbols of words; a word the household language lacks becomes an extra symbol."""

    def __init__(self):
        self._extra: dict[str, int] = {}

    @property
    def extra(self) -> tuple[str, ...]:
        return tuple(self._extra)

    def symbol(self, text: str) -> int:
        if text in sy.SYMBOL_ID:
            return sy.SYMBOL_ID[text]
        return self._extra.setdefault(text, sy.VOCABULARY_SIZE + len(self._extra))

    def task(self, text: str) -> list[int]:
        found = sy.words(text)
        if sy.UNKNOWN in found:
            found = [self.symbol(" " + word) for word in text.split(" ")]
        if sy.text(found, self.extra) == text:
            return found
        return [self.symbol(" " + text)]  # unusual spacing or letters: all in one


def parse(
    text: str,
    *,
    task: str | None = None,
    receptacles: int | None = None,
    objects: int | None = None,
) -> ParsedGame:
    """Reads an ALFWorld problem file.

    Args:
      text: the problem (`initial_state.pddl`, or `pddl_problem` of a game file).
      task: the goal text, which the problem does not contain; made from the goal when missing.
      receptacles: capacity R; as many as there are when missing.
      objects: capacity O; as many as there are when missing.

    Returns:
      ParsedGame with numpy arrays.

    Raises:
      PddlError: unbalanced parentheses, missing sections, a goal that is none of the six,
        contradictory facts, more things than the capacities hold, more than MAX_SHARED
        receptacles in one place.
    """
    sections = read_sections(text)
    kinds = read_declared(sections[":objects"][1])
    facts = read_facts(sections[":init"][1])
    goal = read_goal(sections[":goal"][1])
    by_name: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    mentioned: set[str] = set()
    for fact in facts:
        by_name[fact[0]].append(fact[1:])
        mentioned.update(fact[1:])

    recep_ids = {f[1][0] for p in _RECEPTACLE_PREDICATES for f in _with(by_name, p)}
    recep_ids |= {f[1] for f in by_name["inreceptacle"]}
    recep_ids |= {name for name in mentioned if kinds.get(name) == "receptacle"}
    object_ids = {f[1][0] for p in _OBJECT_PREDICATES for f in _with(by_name, p)}
    object_ids |= {name for f in by_name["inreceptacleobject"] for name in f}
    object_ids |= {name for name in mentioned if kinds.get(name) == "object"}
    both = sorted(recep_ids & object_ids)
    if both:
        raise PddlError(f"(:init ...): {both[0]} is used as a receptacle and as an object")
    recep_list, object_list = sorted(recep_ids), sorted(object_ids)
    num_receptacles = _capacity("receptacles", len(recep_list), receptacles)
    num_objects = _capacity("objects", len(object_list), objects)
    recep = {name: i for i, name in enumerate(recep_list)}
    thing = {name: i for i, name in enumerate(object_list)}

    # Places: numbered by their first receptacle.
    location: dict[str, str] = {}
    for name, where in by_name["receptacleatlocation"]:
        if location.setdefault(name, where) != where:
            raise PddlError(f"(:init ...): receptacle {name} is at {location[name]} and at {where}")
    place: dict[str, int] = {}
    neighbours: dict[str, int] = defaultdict(int)
    for name, i in recep.items():
        if name not in location:
            raise PddlError(f"(:init ...): receptacle {name} has no receptacleAtLocation")
        place.setdefault(location[name], i)
        neighbours[location[name]] += 1
    for where, number in neighbours.items():
        if number > MAX_SHARED:
            raise PddlError(
                f"(:init ...): {number} receptacles share {where}; at most {MAX_SHARED} may"
            )
    starts = {f[1] for f in by_name["atlocation"]}
    if len(starts) != 1:
        raise PddlError(f"(:init ...): the agent must be atLocation once, found {len(starts)}")
    if by_name["holds"]:
        raise PddlError("(:init ...): a game that starts with something in hand is not supported")
    start = starts.pop()
    place.setdefault(start, num_receptacles)

    # Names: within one stem the first id gets the highest number.
    of_stem: dict[str, list[str]] = defaultdict(list)
    for name in sorted(name for name in mentioned if "_bar_" in name):
        of_stem[_stem(name)].append(name)
    numbering = {n: len(ids) - i for ids in of_stem.values() for i, n in enumerate(ids)}
    language = _Language()

    def named(names: Sequence[str], size: int):
        stems, numbers = np.zeros(size, np.int32), np.zeros(size, np.int32)
        for i, name in enumerate(names):
            if "_bar_" not in name:
                raise PddlError(f"(:init ...): {name} is not an id such as mug_bar_1")
            stems[i] = language.symbol(" " + _stem(name))
            numbers[i] = language.symbol(f" {numbering[name]}")
        return stems, numbers

    recep_stem, recep_number = named(recep_list, num_receptacles)
    object_stem, object_number = named(object_list, num_objects)

    def typed(predicate: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, kind in by_name[predicate]:
            if found.setdefault(name, _plain(kind)) != _plain(kind):
                raise PddlError(f"(:init ...): {name} has two types, {found[name]} and {kind}")
        return found

    recep_type, object_type = typed("receptacletype"), typed("objecttype")

    def flags(names: Iterable[str], index: dict[str, int], size: int):
        out = np.zeros(size, bool)
        out[[index[name] for name in names]] = True
        return out

    def recep_flag(condition):
        return flags((n for n in recep_list if condition(n)), recep, num_receptacles)

    def object_flag(condition):
        return flags((n for n in object_list if condition(n)), thing, num_objects)

    of_object = {
        field: flags((f[0] for f in by_name[p]), thing, num_objects)
        for p, field in OBJECT_FLAGS.items()
    }
    can = {(_plain(r), _plain(o)) for r, o in by_name["cancontain"]}
    can_hold = np.zeros((num_objects, num_receptacles), bool)
    for o, kind in object_type.items():
        for r, target in recep_type.items():
            can_hold[thing[o], recep[r]] = (target, kind) in can
    inside = np.zeros((num_objects, num_receptacles), bool)
    for o, r in by_name["inreceptacle"]:
        inside[thing[o], recep[r]] = True
    at = np.zeros((num_objects, num_receptacles + 1), bool)
    for o, where in by_name["objectatlocation"]:
        if where in place:  # nobody can go to a place without a receptacle
            at[thing[o], place[where]] = True
    inner = np.zeros((num_objects, num_objects), bool)
    for o2, o in by_name["inreceptacleobject"]:
        inner[thing[o2], thing[o]] = True

    light = TASK_TYPES[goal.task_type] == "look_at_obj_in_light"
    wanted, target = _plain(goal.object_type), _plain(goal.target_type)
    knives = {name.lower() for name in KNIVES}
    if task is None:
        template = TEMPLATES[TASK_TYPES[goal.task_type]][0]
        task = template.format(obj=wanted, recep=target, toggle=target)
    words = language.task(task)
    recep_names = {name.lower(): i for i, name in enumerate(RECEPTACLE_TYPES)}
    object_names = {name.lower(): i for i, name in enumerate(OBJECT_TYPES)}
    game = Game(
        recep_stem=recep_stem,
        recep_number=recep_number,
        recep_type=_types(recep_list, recep_type, recep_names, num_receptacles),
        recep_place=_padded([place[location[n]] for n in recep_list], num_receptacles),
        openable=flags((f[0] for f in by_name["openable"]), recep, num_receptacles),
        object_stem=object_stem,
        object_number=object_number,
        object_type=_types(object_list, object_type, object_names, num_objects),
        **{
            f: of_object[f]
            for f in (
                "pickupable",
                "cleanable",
                "heatable",
                "coolable",
                "sliceable",
                "toggleable",
                "container",
            )
        },
        knife=object_flag(lambda n: object_type.get(n) in knives),
        sink=recep_flag(lambda n: recep_type.get(n) == "sinkbasin"),
        microwave=recep_flag(lambda n: recep_type.get(n) == "microwave"),
        fridge=recep_flag(lambda n: recep_type.get(n) == "fridge"),
        can_hold=can_hold,
        inner=inner,
        task_type=np.int32(goal.task_type),
        goal_object=object_flag(lambda n: object_type.get(n) == wanted),
        goal_recep=recep_flag(lambda n: not light and recep_type.get(n) == target),
        goal_lamp=object_flag(lambda n: light and object_type.get(n) == target)
        & of_object["toggleable"],
        task=_padded(words, max(TASK_LENGTH, len(words))),
        start=State(
            place=np.int32(place[start]),
            held=np.int32(-1),
            opened=flags((f[0] for f in by_name["opened"]), recep, num_receptacles),
            inside=inside,
            gone=np.zeros_like(inside),
            at=at,
            **{f: of_object[f] for f in ("hot", "cool", "clean", "sliced", "toggled")},
        ),
    )
    return ParsedGame(game, language.extra, task)


def write(game: Game, extra: Sequence[str] = ()) -> str:
    """Writes a game as a problem file that ALFWorld loads.

    Names, numbers and the order of every list are the same there. Places are called by number.
    The goal text is not part of a problem file.

    Args:
      game: one game, of numpy or jax arrays.
      extra: texts of the symbols that only this game has.

    Raises:
      PddlError: the arrays describe nothing a problem file could (names with gaps, an order that
        is not that of the names, a goal without things of its type).
    """
    return write_problem(jax.tree.map(np.asarray, game), extra)


def pad(parsed: ParsedGame, *, receptacles: int, objects: int) -> ParsedGame:
    """Enlarges a game to the capacities R and O (numpy).

    Raises:
      PddlError: the game is larger than that.
    """
    game = parsed.game
    num_objects, num_receptacles = game.can_hold.shape
    _capacity("receptacles", num_receptacles, receptacles)
    _capacity("objects", num_objects, objects)
    grow_r, grow_o = receptacles - num_receptacles, objects - num_objects
    # The place behind the last receptacle, where the agent starts, moves with the capacity.
    start = game.start
    at = np.zeros((objects, receptacles + 1), bool)
    at[:num_objects, :num_receptacles] = start.at[:, :num_receptacles]
    at[:num_objects, receptacles] |= start.at[:, num_receptacles]

    def of_recep(x):
        return np.pad(x, (0, grow_r))

    def of_object(x):
        return np.pad(x, (0, grow_o))

    def of_pair(x):
        return np.pad(x, ((0, grow_o), (0, grow_r)))

    recep_fields = (
        *("recep_stem", "recep_number", "openable", "sink", "microwave", "fridge"),
        *("goal_recep", "recep_place"),
    )
    object_fields = (
        *("object_stem", "object_number", "pickupable", "cleanable", "heatable", "coolable"),
        *("sliceable", "toggleable", "container", "knife", "goal_object", "goal_lamp"),
    )
    outside = start.place == num_receptacles
    game = game._replace(
        **{f: of_recep(getattr(game, f)) for f in recep_fields},
        **{f: of_object(getattr(game, f)) for f in object_fields},
        recep_type=np.pad(game.recep_type, (0, grow_r), constant_values=-1),
        object_type=np.pad(game.object_type, (0, grow_o), constant_values=-1),
        can_hold=of_pair(game.can_hold),
        inner=np.pad(game.inner, (0, grow_o)),
        start=start._replace(
            place=np.int32(receptacles) if outside else start.place,
            opened=of_recep(start.opened),
            inside=of_pair(start.inside),
            gone=of_pair(start.gone),
            at=at,
            **{
                f: of_object(getattr(start, f))
                for f in ("hot", "cool", "clean", "sliced", "toggled")
            },
        ),
    )
    return parsed._replace(game=game)


def _with(by_name, predicate: str):
    return [(predicate, arguments) for arguments in by_name[predicate]]


def _capacity(what: str, found: int, capacity: int | None) -> int:
    if capacity is None:
        return max(found, 1)
    if found > capacity:
        raise PddlError(f"the problem has {found} {what}, more than the capacity of {capacity}")
    return capacity


def _padded(values: Sequence[int], size: int) -> np.ndarray:
    out = np.zeros(size, np.int32)
    out[: len(values)] = values
    return out


def _types(names, kind_of, index, size) -> np.ndarray:
    out = np.full(size, -1, np.int32)
    out[: len(names)] = [index.get(kind_of.get(name, ""), -1) for name in names]
    return out
