"""Rollouts inside the compiled step: skills join the prompt, commands are sampled, the world moves.

Tokens go into a ragged key/value cache and are never encoded twice; what the loss needs is recorded
as it is sampled. N rows, T turns, L tokens, D decisions, S slots, V vocabulary.
"""

from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from reskill_jax.devices.placement import keep_rows
from reskill_jax.models import decoder
from reskill_jax.models.cache import Cache
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.models.sampling import sample_candidates
from reskill_jax.models.sharding import gather_for_rollout
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.skills.bank import Bank, concerns, fires, skill_symbols

CHUNK = 16  # tokens encoded at a time: long enough to fill the cores, short enough to waste little
SKILL_SYMBOLS = 32  # room for skill lines in one turn
CANDIDATES = 32  # K, of a decision; rooms of 54 receptacles have 23


class Rollout(NamedTuple):
    """N finished episodes."""

    transcript: Transcript  # of [N, ...] arrays
    success: chex.Array  # [N] bool
    turns: chex.Array  # [N] int32
    intros: chex.Array  # [N, Li] int32 symbols of the introduction
    actions: chex.Array  # [N, T, La] int32 symbols, PAD where the episode was over
    observations: chex.Array  # [N, T, Lo] int32 symbols
    possible: chex.Array  # [N, T, K] bool: verbs that could begin each turn's command
    fired: chex.Array  # [N, T, S] bool: skills in the prompt of each turn
    of_skills: chex.Array  # [N, L] bool: tokens that are skill lines
    truncated: chex.Array  # [N] bool: ended because the context was full
    crowded: chex.Array  # [N] bool: a decision had more than K candidates, some were left out


class _Carry(NamedTuple):
    turn: chex.Array  # [] int32
    state: Any  # [N, ...] world states
    cache: Cache
    hidden: chex.Array  # [N, D] at each row's last encoded token
    active: chex.Array  # [N] bool
    record: Rollout  # of what has been played so far


def encode(params, cache: Cache, hidden, transcript: Transcript, active, *, config, chunk: int):
    """Encodes what active rows have written and the cache does not hold yet.

    Returns:
      The cache, and the hidden state at each row's last token.
    """
    offset = jnp.arange(chunk, dtype=jnp.int32)
    last = transcript.tokens.shape[1] - 1

    def pending(cache):
        return jnp.where(active, transcript.length - cache.lengths, 0)

    def body(carry):
        cache, hidden = carry
        counts = jnp.clip(pending(cache), 0, chunk)
        index = jnp.minimum(cache.lengths[:, None] + offset, last)
        tokens = jnp.take_along_axis(transcript.tokens, index, axis=1)
        new, cache = decoder.extend(params, cache, tokens, counts, config=config)
        return cache, jnp.where((counts > 0)[:, None], new, hidden)

    return jax.lax.while_loop(lambda c: jnp.any(pending(c[0]) > 0), body, (cache, hidden))


def rollout(
    keys: chex.PRNGKey,
    params,
    games,
    bank: Bank,
    arms: chex.Array,
    *,
    world,
    config: DecoderConfig,
    horizon: int,
    capacity: int,
    temperature: float | chex.Array = 1.0,
) -> Rollout:
    """Plays every game once.

    Args:
      keys: [N] random keys, one a row, so that what a row samples does not depend on how many rows
        share its device; rows and turns never share noise.
      params: of the decoder.
      games: batched games, N of them.
      bank: skills of every arm.
      arms: [N] int32; -1 plays without skills.
      world: a compiled world (static).
      config: the decoder's shape (static).
      horizon: T, turns at most (static).
      capacity: L, tokens at most (static). A row that has no room for another command ends.
      temperature: of sampling; 0 is greedy.

    Returns:
      Rollout.
    """
    rows = arms.shape[0]
    chex.assert_rank(arms, 1)
    games, arms = keep_rows((games, arms))
    params = gather_for_rollout(params, config)
    slots = bank.kind.shape[1]
    with_skills = arms >= 0
    arm = jnp.maximum(arms, 0)
    concerned = jax.vmap(concerns, in_axes=(None, 0, 0))(bank, arm, jax.vmap(world.task)(games))

    def skill_lines(turn, action, observation, active):
        fired = jax.vmap(fires, in_axes=(None, 0, None, 0, 0))(bank, arm, turn, action, observation)
        fired = fired & concerned & (with_skills & active)[:, None]

        def lines(arm, fired):
            return skill_symbols(bank, arm, fired, capacity=SKILL_SYMBOLS)

        symbols, lengths = jax.vmap(lines)(arm, fired)
        return fired, symbols, lengths

    append = jax.vmap(transcripts.append)
    listed = jax.vmap(lambda mask: transcripts.candidates(mask, most=CANDIDATES))
    index = jnp.arange(capacity, dtype=jnp.int32)

    def behind(transcript, lengths):
        """[N, L] bool: the places of the next tokens, as many as `lengths` tells."""
        start = transcript.length[:, None]
        return (index >= start) & (index < start + lengths[:, None])

    prompt = jnp.full((rows, 1), world.prompt, jnp.int32)

    state, intros, lengths = jax.vmap(world.reset)(games)
    empty = transcripts.empty(
        capacity=capacity,
        decisions=horizon * world.decisions_per_turn,
        candidates=CANDIDATES,
    )
    transcript = jax.tree.map(lambda x: jnp.broadcast_to(x, (rows, *x.shape)), empty)
    transcript = append(transcript, intros, lengths)
    active = jnp.ones(rows, bool)
    no_action = jnp.zeros((rows, world.command_length), jnp.int32)
    fired, symbols, lengths = skill_lines(jnp.int32(0), no_action, intros, active)
    of_skills = behind(transcript, lengths)
    transcript = append(transcript, symbols, lengths)
    transcript = append(transcript, prompt, active.astype(jnp.int32))
    record = Rollout(
        transcript=transcript,
        success=jnp.zeros(rows, bool),
        turns=jnp.zeros(rows, jnp.int32),
        intros=intros,
        actions=jnp.zeros((rows, horizon, world.command_length), jnp.int32),
        observations=jnp.zeros((rows, horizon, world.max_symbols), jnp.int32),
        possible=jnp.zeros((rows, horizon, len(world.verbs)), bool),
        fired=jnp.zeros((rows, horizon, slots), bool).at[:, 0].set(fired),
        of_skills=of_skills,
        truncated=jnp.zeros(rows, bool),
        crowded=jnp.zeros(rows, bool),
    )

    def turn_body(carry: _Carry) -> _Carry:
        turn_keys = jax.vmap(lambda k: jax.random.fold_in(k, carry.turn))(keys)
        transcript = before = carry.record.transcript
        fits = before.length + world.command_length <= capacity
        active = carry.active & fits
        truncated = carry.record.truncated | (carry.active & ~fits)
        cache, hidden = encode(
            params, carry.cache, carry.hidden, before, active, config=config, chunk=CHUNK
        )

        def spell(loop):
            i, cursor, transcript, cache, hidden, crowded = loop
            choosing = active & ~cursor.done
            support, many = listed(jax.vmap(world.allowed)(games, cursor))
            logits = decoder.logits(params, hidden, support, config=config)
            symbol, log_prob = jax.vmap(
                lambda k, row, ids: sample_candidates(
                    jax.random.fold_in(k, i),
                    row,
                    ids,
                    vocab_size=config.vocabulary,
                    temperature=temperature,
                )
            )(turn_keys, logits, support)
            transcript = jax.vmap(transcripts.decide)(
                transcript,
                symbol,
                support,
                log_prob,
                turn=jnp.full(rows, carry.turn),
                weight=jnp.ones(rows, jnp.float32),
                active=choosing,
            )
            moved = jax.vmap(world.advance)(games, carry.state, cursor, symbol)
            cursor = _where(choosing, moved, cursor)
            cache, hidden = encode(
                params, cache, hidden, transcript, active & ~cursor.done, config=config, chunk=1
            )
            return i + 1, cursor, transcript, cache, hidden, crowded | (choosing & many)

        _, cursor, transcript, cache, hidden, crowded = jax.lax.while_loop(
            lambda loop: jnp.any(active & ~loop[1].done) & (loop[0] < world.command_length),
            spell,
            (
                jnp.int32(0),
                jax.vmap(world.begin)(games, carry.state),
                transcript,
                cache,
                hidden,
                carry.record.crowded,
            ),
        )

        possible = jax.vmap(world.possible)(games, carry.state)
        state, (command, command_length), (seen, seen_length), won = jax.vmap(world.play)(
            games, carry.state, cursor
        )
        state = _where(active, state, carry.state)
        # The forced rest of the command: what of it has not been spelled.
        spelled = transcript.length - before.length
        left = jnp.arange(world.command_length) + spelled[:, None]
        tail = jnp.take_along_axis(command, jnp.minimum(left, world.command_length - 1), axis=1)
        transcript = append(transcript, tail, jnp.where(active, command_length - spelled, 0))
        transcript = append(transcript, seen, jnp.where(active, seen_length, 0))

        still = active & ~won
        fired, symbols, lengths = skill_lines(carry.turn + 1, command, seen, still)
        of_skills = behind(transcript, lengths)
        transcript = append(transcript, symbols, lengths)
        transcript = append(transcript, prompt, still.astype(jnp.int32))
        old = carry.record
        record = old._replace(
            transcript=transcript,
            success=old.success | (active & won),
            turns=old.turns + active,
            actions=old.actions.at[:, carry.turn].set(jnp.where(active[:, None], command, 0)),
            observations=old.observations.at[:, carry.turn].set(
                jnp.where(active[:, None], seen, 0)
            ),
            possible=old.possible.at[:, carry.turn].set(possible & active[:, None]),
            fired=old.fired.at[:, carry.turn + 1].set(fired, mode="drop"),
            of_skills=old.of_skills | of_skills,
            truncated=truncated,
            crowded=crowded,
        )
        return _Carry(carry.turn + 1, state, cache, hidden, still, record)

    start = _Carry(
        turn=jnp.int32(0),
        state=state,
        cache=decoder.init_cache(config, rows, capacity),
        hidden=jnp.zeros((rows, config.width), config.dtype),
        active=active,
        record=record,
    )
    start = start._replace(
        state=keep_rows(start.state), hidden=keep_rows(start.hidden), record=keep_rows(record)
    )
    end = jax.lax.while_loop(lambda c: (c.turn < horizon) & jnp.any(c.active), turn_body, start)
    return end.record


def _where(condition, new, old):
    """Row-wise choice between two pytrees of [N, ...] arrays."""

    def pick(a, b):
        return jnp.where(condition.reshape(condition.shape + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, new, old)
