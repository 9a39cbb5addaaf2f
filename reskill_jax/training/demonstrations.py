"""Demonstrations for pretraining: episodes that a compiled world shows, written down as rows.

Whole episodes are generated on the device. What is shown in a turn is the world's; here it is
written in the tokens of a language as the constrained policy would have written it, and played.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.acting import CANDIDATES
from reskill_jax.rollouts.spelling import speller_of
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.worlds.language import Language, symbol_language
from reskill_jax.worlds.world import PAD, CompiledWorld, DemonstratedWorld


class Demonstration(NamedTuple):
    """One episode, unbatched."""

    transcript: Transcript
    won: chex.Array  # [] bool
    turns: chex.Array  # [] int32
    admissible: chex.Array  # [] bool: every action was admissible (must hold)


def spell(
    world: CompiledWorld, task: Any, state: Any, action: chex.Array
) -> tuple[Any, chex.Array]:
    """The cursor behind an action, and whether the action is admissible.

    Args:
      world: static. task, state: of the world.
      action: [La] int32 symbols, PAD behind.
    """

    def body(i: chex.Array, carry: tuple[Any, chex.Array]) -> tuple[Any, chex.Array]:
        cursor, admissible = carry
        admissible &= cursor.done | world.allowed(task, cursor)[action[i]]
        moved = world.advance(task, state, cursor, action[i])
        cursor = jax.tree.map(lambda a, b: jnp.where(cursor.done, a, b), cursor, moved)
        return cursor, admissible

    start = (world.begin(task, state), jnp.bool_(True))
    cursor, admissible = jax.lax.fori_loop(0, action.shape[0], body, start)
    return cursor, admissible & cursor.done & jnp.all(world.action(task, cursor) == action)


def write_action(
    world: CompiledWorld,
    language: Language,
    task: Any,
    state: Any,
    transcript: Transcript,
    action: chex.Array,
    *,
    turn: chex.Array,
    weight: chex.Array,
    active: chex.Array,
) -> Transcript:
    """Writes an action as the constrained policy would: decisions first, then the forced rest.

    Args:
      world, language: static. task, state: of the world.
      transcript: of the episode.
      action: [La] int32 symbols, admissible.
      turn: [] int32. weight: [] float. active: [] bool; False leaves the transcript as it is.
    """
    speller = speller_of(world, language)
    empty = transcripts.empty(capacity=language.action_tokens(world), decisions=1, candidates=1)
    told = transcripts.append_symbols(
        empty, action, jnp.sum(action != PAD, dtype=jnp.int32), language=language, opening=True
    )
    told = transcripts.append_fixed(told, language.frame.answered, jnp.bool_(True))
    begun = transcript.length

    def forced(spelling: Any, transcript: Transcript) -> tuple[Any, Transcript]:
        spelling, tokens, count = speller.forced(task, state, spelling, active)
        return spelling, transcripts.append(transcript, tokens, count)

    def decide(_: Any, carry: tuple[Any, Transcript]) -> tuple[Any, Transcript]:
        spelling, transcript = carry
        choosing = active & ~spelling.done
        support, _ = speller.support(task, spelling, most=CANDIDATES)
        token = told.tokens[jnp.minimum(transcript.length - begun, told.tokens.shape[0] - 1)]
        transcript = transcripts.decide(
            transcript,
            token,
            support,
            jnp.float32(0),
            turn=turn,
            weight=weight,
            active=choosing,
        )
        taken = speller.take(task, state, spelling, token)
        spelling = jax.tree.map(lambda a, b: jnp.where(choosing, a, b), taken, spelling)
        return forced(spelling, transcript)

    spelling = speller.begin(task, state)
    spelling, transcript = jax.lax.fori_loop(0, speller.most, decide, forced(spelling, transcript))
    left = jnp.roll(told.tokens, begun - transcript.length)
    return transcripts.append(
        transcript, left, jnp.where(active, told.length + begun - transcript.length, 0)
    )


def demonstrate(
    key: chex.PRNGKey,
    *,
    world: DemonstratedWorld,
    language: Language | None = None,
    max_turns: int,
    context_length: int,
    split: str = "train",
) -> Demonstration:
    """Plays and writes down one episode. Unbatched; static arguments are the keyword ones.

    Args:
      key: random key.
      world: that is shown. language: the world's in a model's tokens; None = in its symbols.
      max_turns: turns. context_length: tokens of a row.
      split: of the task.
    """
    keys = jax.random.split(key, 3)
    language = symbol_language(world) if language is None else language
    task, player = world.make(keys[0], split), world.player(keys[1])
    row = transcripts.empty(
        capacity=context_length,
        decisions=max_turns * language.decisions_per_turn(world),
        candidates=CANDIDATES,
    )
    state, opening = world.reset(task)
    row = transcripts.append_fixed(row, language.frame.start, jnp.bool_(True))

    def read(
        row: Transcript, symbols: chex.Array, active: chex.Array, *, opening: bool
    ) -> Transcript:
        count = jnp.where(active, jnp.sum(symbols != PAD, dtype=jnp.int32), 0)
        return transcripts.append_symbols(row, symbols, count, language=language, opening=opening)

    row = read(row, opening, jnp.bool_(True), opening=True)

    def turn(carry: Any, key: chex.PRNGKey) -> tuple[Any, None]:
        state, row, won, done, turns, admissible = carry
        active = ~done & (row.length < context_length)
        shown = world.demonstrate(key, task, state, player)
        for line in shown.lines:
            row = read(row, line, active, opening=False)
        cursor, possible = spell(world, task, state, shown.action)
        admissible &= ~active | possible
        row = transcripts.append_fixed(row, language.frame.ask, active)
        row = write_action(
            *(world, language, task, state, row, shown.action),
            turn=turns,
            weight=shown.weight,
            active=active,
        )
        moved, step = world.step(task, state, cursor)
        row = read(row, step.observation, active, opening=True)
        state = jax.tree.map(lambda a, b: jnp.where(active, a, b), moved, state)
        won = jnp.where(active, step.success, won)
        return (state, row, won, done | (active & step.done), turns + active, admissible), None

    start = (state, row, jnp.bool_(False), jnp.bool_(False), jnp.int32(0), jnp.bool_(True))
    (_, row, won, _, turns, admissible), _ = jax.lax.scan(
        turn, start, jax.random.split(keys[2], max_turns)
    )
    return Demonstration(row, won, turns, admissible)
