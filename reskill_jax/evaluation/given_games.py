"""Games that are given as text: those of a file, and those that a compiled world would make."""

import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from reskill_jax.worlds.alfworld_games import GameRecord, read_games
from reskill_jax.worlds.text_games import PUBLISHED
from reskill_jax.worlds.world import GameReader

__all__ = ["own_games", "published"]


def own_games(world: GameReader, split: str, count: int, *, seed: int = 0) -> list[GameRecord]:
    """The games that the evaluation of a split plays in a compiled world, as text.

    Args:
      world: of the games.
      split, count: which games. seed: of their keys; 0 is that of the evaluation.
    """
    make = jax.jit(functools.partial(world.make, split=split))
    return [
        world.game_record(
            jax.tree.map(np.asarray, make(jax.random.fold_in(jax.random.key(seed), i))),
            name=f"{split}-{i}",
            split=split,
        )
        for i in range(count)
    ]


def published(path: Path, splits: Sequence[str], tasks: int) -> dict[str, list[GameRecord]]:
    """At most `tasks` games of each split of a file or folder, evenly spaced.

    Args:
      path: of the games.
      splits: "seen" and "unseen", which are looked for under the names of published games as well;
        where there are none of them, all splits are taken.
      tasks: of a split at most.
    """
    by_split: dict[str, list[GameRecord]] = {}
    for record in read_games(path):
        by_split.setdefault(record.split, []).append(record)
    wanted = {name for split in splits for name in (split, PUBLISHED.get(split, split))}
    kept = {name: found for name, found in by_split.items() if name in wanted} or by_split
    return {
        name: [found[i * len(found) // n] for n in [min(tasks, len(found))] for i in range(n)]
        for name, found in kept.items()
    }
