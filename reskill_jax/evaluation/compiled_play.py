"""Games given as text, played on the device by the compiled rollout, a batch at a time.

The world makes tasks of them; the episodes come back as text, to be compared with other engines.
"""

import functools
from collections.abc import Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.models.model import Model
from reskill_jax.models.params import Params
from reskill_jax.rollouts.compiled import play
from reskill_jax.rollouts.episodes import Record, Rollouts
from reskill_jax.skills.bank import Bank
from reskill_jax.worlds.alfworld_games import GameRecord
from reskill_jax.worlds.language import Language
from reskill_jax.worlds.playing import Episode
from reskill_jax.worlds.world import CompiledWorld, GameReader, LoadedGames


class ReplayError(ValueError):
    """A run or a game that cannot be played; the message says why in one line."""


@functools.partial(
    jax.jit, static_argnames=("world", "model", "language", "max_turns", "context_length")
)
def play_batch(
    keys: chex.PRNGKey,
    params: Any,
    games: Any,
    bank: Bank,
    arms: chex.Array,
    temperature: chex.Array,
    *,
    world: CompiledWorld,
    model: Model,
    language: Language,
    max_turns: int,
    context_length: int,
) -> tuple[Rollouts, Record]:
    """`play`, compiled once for each world, model, limits and number of games."""
    return play(
        keys,
        params,
        games,
        bank,
        arms,
        world=world,
        model=model,
        language=language,
        max_turns=max_turns,
        context_length=context_length,
        temperature=temperature,
    )


def episode_key(seed: int, index: int) -> jax.Array:
    """The random key of the index-th game; `PolicyPlayer` with it samples the same commands."""
    return jax.random.fold_in(jax.random.key(seed), index)


def play_compiled(
    params: Params,
    model: Model,
    language: Language,
    bank: Bank,
    records: Sequence[GameRecord],
    *,
    world: GameReader,
    max_turns: int,
    context_length: int,
    arm: int = 0,
    temperature: float = 0.0,
    seed: int = 0,
    batch: int = 64,
) -> list[Episode]:
    """Plays games on the device with the compiled rollout, in batches of one size.

    Args:
      params, model: of the policy. language: of the world in its tokens.
      bank: skills of every arm.
      records: the games. world: that reads them.
      max_turns: turns at most.
      context_length: tokens of context at most.
      arm: whose skills join the prompt; -1 = none.
      temperature: of sampling; 0 is greedy.
      seed: of the noise.
      batch: games at a time.

    Returns:
      One episode a record, in order, as text; invalid where the game cannot be read.

    Raises:
      GamesError: no game can be read.
    """
    loaded = world.load_games(records)
    count = len(loaded.record)
    batch = min(batch, count)
    episodes = {
        i: Episode(records[i].game, (), (), False, error) for i, error in loaded.errors.items()
    }
    for first in range(0, count, batch):
        rows = np.minimum(np.arange(first, first + batch), count - 1)  # the last one fills up
        keys = jax.vmap(lambda i: episode_key(seed, i))(
            jnp.asarray([loaded.record[row] for row in rows])
        )
        played, record = jax.device_get(
            play_batch(
                keys,
                params,
                jax.tree.map(lambda x, rows=rows: x[rows], loaded.tasks),
                bank,
                jnp.full(batch, arm, jnp.int32),
                jnp.float32(temperature),
                world=loaded.world,
                model=model,
                language=language,
                max_turns=max_turns,
                context_length=context_length,
            )
        )
        for place, row in enumerate(rows[: count - first]):
            i = loaded.record[row]
            episodes[i] = _told(records[i].game, played, record, place, loaded, row)
    return [episodes[i] for i in range(len(records))]


def _told(
    name: str, played: Rollouts, record: Record, place: int, loaded: LoadedGames, row: int
) -> Episode:
    """The row-th game, which was played at a place of a batch, as text."""
    world, turns = loaded.world, int(played.turns[place])
    words = iter(loaded.words[row])
    opening = [
        next(words) if symbol == world.unknown else world.language[symbol]
        for symbol in record.introductions[place]
    ]
    return Episode(
        name,
        tuple(world.text(a) for a in record.actions[place, :turns]),
        ("".join(opening).lstrip(), *(world.text(o) for o in record.observations[place, :turns])),
        bool(played.success[place]),
    )
