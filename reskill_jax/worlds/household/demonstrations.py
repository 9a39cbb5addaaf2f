"""What the household shows for pretraining: a habitual player who obeys directives.

Before each command the player may read one or two directives, apt ones, arbitrary ones and
prohibitions, and mostly obeys them to the letter; between them it plays by its habits. Some
commands are random and excluded from the loss, so that a policy learns to go on from odd
situations.
"""

import chex
import jax
import jax.numpy as jnp

from reskill_jax.worlds.settings import Habits
from reskill_jax.worlds.world import PAD, Shown

from . import commands
from .directives import directive_symbols, draw_directive, obey
from .expert import expert, habitual
from .symbols import HELP
from .types import Command, Game, State

__all__ = ["ABOUT", "demonstrate", "draw_rate", "random_command"]

ABOUT = (
    "demonstrations generated on the device from the seed: a player with habits that "
    "obeys directives, in rooms of the train split; object-place combinations of the unseen "
    "split and the held-out directives never occur"
)
"""What is shown, for whoever reads about a model that learned from it."""


def draw_rate(key: chex.PRNGKey) -> chex.Array:
    """How often the player of an episode is spoken to: never, sometimes, at every turn. [] float"""
    return jnp.asarray([0.0, 0.3, 0.7, 1.0])[jax.random.choice(key, 4)]


def random_command(key: chex.PRNGKey, game: Game, state: State) -> Command:
    """An admissible command, each verb that is possible equally likely. Unbatched."""
    keys = jax.random.split(key, 3)
    first_mask = commands.admissible(game, state).first

    def pick(k: chex.PRNGKey, mask: chex.Array) -> chex.Array:
        return jnp.argmax(jnp.where(mask, jax.random.uniform(k, mask.shape), -1.0))

    verb = pick(keys[0], jnp.any(first_mask, axis=1)).astype(jnp.int32)
    bare = verb <= HELP
    first = jnp.where(bare, -1, pick(keys[1], first_mask[verb])).astype(jnp.int32)
    seconds = commands.second_arguments(game, state, verb, first)
    second = jnp.where(jnp.any(seconds), pick(keys[2], seconds), -1).astype(jnp.int32)
    return Command(verb, first, second)


def demonstrate(
    key: chex.PRNGKey,
    game: Game,
    state: State,
    rate: chex.Array,
    *,
    habits: Habits,
    obedience: float = 0.96,
    random_share: float = 0.06,
    obeyed_weight: float = 3.0,
) -> Shown:
    """A turn of the player. Unbatched.

    Args:
      key: random key. game, state: of the household.
      rate: [] float, chance that it is spoken to; a quarter of it for a second time.
      habits: its slips.
      obedience: chance that a directive is obeyed.
      random_share: share of random commands, which are not learned from.
      obeyed_weight: weight in the loss of a command that a directive asked for; others weigh 1.
    """
    keys = jax.random.split(key, 8)
    masks = commands.admissible(game, state)
    best = expert(game, state)
    command = habitual(keys[0], game, state, habits=habits)
    spoken = jax.random.uniform(keys[1], (2,)) < jnp.stack([rate, rate * 0.25])
    followed, lines = jnp.bool_(False), []
    for i in range(2):
        directive = draw_directive(keys[2 + i], game, state, best)
        lines.append(jnp.where(spoken[i], directive_symbols(directive)[0], PAD))
        obeyed, effective = obey(game, state, masks, directive, command)
        effective &= spoken[i] & ~followed
        effective &= jax.random.uniform(keys[4 + i]) < obedience
        command = jax.tree.map(lambda a, b, e=effective: jnp.where(e, a, b), obeyed, command)
        followed |= effective
    strange = jax.random.uniform(keys[6]) < random_share
    odd = random_command(keys[7], game, state)
    command = jax.tree.map(lambda a, b: jnp.where(strange, a, b), odd, command)
    weight = jnp.where(strange, 0.0, jnp.where(followed, obeyed_weight, 1.0))
    return Shown(jnp.stack(lines), commands.command_symbols(game, command)[0], weight)
