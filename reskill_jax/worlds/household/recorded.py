"""Games given as text, published or of our generator, as arrays of common capacities."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from reskill_jax.worlds.alfworld_games import GameRecord, GamesError
from reskill_jax.worlds.settings import RoomSpec

from . import pddl
from . import symbols as sy
from .text_game import BUCKETS
from .types import Game

_NAMES = ("recep_stem", "recep_number", "object_stem", "object_number")


class Recorded(NamedTuple):
    """Games as arrays, n of them."""

    games: Game  # numpy arrays [n, ...]
    spec: RoomSpec  # capacities that hold them all
    task_width: int  # of the longest goal text
    record: list[int]  # [n] which of those given each is
    words: list[tuple[str, ...]]  # [n] words of the goal text that the language lacks
    errors: dict[int, str]  # of those given -> why it cannot be played


def read_records(records: Sequence[GameRecord]) -> Recorded:
    """Reads games into arrays of common capacities, the smallest of `BUCKETS` that hold them all.

    A word of a goal text that the language lacks is read as UNKNOWN. A room with a thing whose name
    it lacks cannot be played.

    Raises:
      GamesError: none of them can be played.
    """
    parsed: list[pddl.ParsedGame] = []
    kept, errors = [], {}
    for i, record in enumerate(records):
        try:
            found = pddl.parse(record.pddl_problem, task=record.task)
        except pddl.PddlError as error:
            errors[i] = f"PddlError: {error}"
            continue
        if any(np.any(getattr(found.game, f) >= sy.VOCABULARY_SIZE) for f in _NAMES):
            errors[i] = f"the language lacks a name of this room ({' '.join(found.extra).strip()})"
            continue
        parsed.append(found)
        kept.append(i)
    if not parsed:
        raise GamesError(f"no game can be read: {next(iter(errors.values()), 'there is none')}")
    most_objects, most_receptacles = np.max([p.game.can_hold.shape for p in parsed], axis=0)
    receptacles, objects = next(
        (b for b in BUCKETS if most_receptacles <= b[0] and most_objects <= b[1]),
        (int(most_receptacles), int(most_objects)),
    )
    width = max(p.game.task.shape[0] for p in parsed)
    games = []
    for found in parsed:
        game = pddl.pad(found, receptacles=receptacles, objects=objects).game
        task = np.where(game.task >= sy.VOCABULARY_SIZE, sy.UNKNOWN, game.task)
        games.append(game._replace(task=np.pad(task, (0, width - task.shape[0]))))
    return Recorded(
        games=jax.tree.map(lambda *x: np.stack(x), *games),
        spec=RoomSpec(receptacles=receptacles, objects=objects),
        task_width=width,
        record=kept,
        words=[p.extra for p in parsed],
        errors=errors,
    )
