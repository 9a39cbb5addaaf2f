"""Rows of tokens and decisions: what is written where, and what happens when a row is full."""

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.policy import transcript as transcripts

V = 5
append, decide = jax.jit(transcripts.append), jax.jit(transcripts.decide)


def row(capacity=8, decisions=3):
    return transcripts.empty(capacity=capacity, decisions=decisions, vocabulary=V)


def add(transcript, *symbols, length=None):
    length = len(symbols) if length is None else length
    return append(transcript, jnp.asarray(symbols, jnp.int32), jnp.int32(length))


def choose(transcript, choice, allowed, *, active=True, weight=1.0, log_prob=-0.5):
    mask = jnp.zeros(V, bool).at[jnp.asarray(allowed)].set(True)
    numbers = (jnp.int32(choice), mask, jnp.float32(log_prob))
    return decide(transcript, *numbers, weight=jnp.float32(weight), active=jnp.bool_(active))


def test_append_adds_the_first_symbols_only():
    written = add(add(row(), 3, 4), 2, 1, 1, length=1)
    np.testing.assert_array_equal(written.tokens, [3, 4, 2, 0, 0, 0, 0, 0])
    assert int(written.length) == 3 and int(written.count) == 0
    assert int(add(written, 4, length=0).length) == 3


def test_decisions_point_at_the_token_before_the_choice():
    written = choose(add(row(), 3, 4), 2, [1, 2], weight=0.0, log_prob=-0.25)
    written = choose(add(written, 4), 1, [0, 1, 3])
    np.testing.assert_array_equal(written.tokens[:5], [3, 4, 2, 4, 1])
    np.testing.assert_array_equal(written.position, [1, 3, 0])
    np.testing.assert_array_equal(written.choice, [2, 1, 0])
    np.testing.assert_array_equal(written.weight, [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(written.log_prob, [-0.25, -0.5, 0.0])
    np.testing.assert_array_equal(written.allowed[0], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(written.allowed[1], [1, 1, 0, 1, 0])
    assert int(written.count) == 2 and int(written.length) == 5


def test_forced_tokens_are_written_but_no_decision():
    written = choose(add(row(), 3), 2, [2])
    np.testing.assert_array_equal(written.tokens[:2], [3, 2])
    assert int(written.count) == 0


def test_inactive_rows_stay_as_they_are():
    before = choose(add(row(), 3), 2, [1, 2])
    after = choose(before, 1, [1, 2], active=False)
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_full_row_keeps_what_it_has_and_records_no_more():
    full = add(row(capacity=4), 1, 2, 3, 4)
    assert not transcripts.overflowed(full)
    over = choose(full, 1, [1, 2])  # the last token in view is there: a whole decision
    assert int(over.count) == 1 and int(over.position[0]) == 3
    assert bool(transcripts.overflowed(over))
    beyond = add(choose(over, 2, [1, 2]), 4, 4, 4)  # its context is cut
    assert int(beyond.count) == 1 and int(beyond.length) == 9
    np.testing.assert_array_equal(beyond.tokens, [1, 2, 3, 4])
    np.testing.assert_array_equal(add(add(row(4), 1, 2, 3), 4, 3, 2).tokens, [1, 2, 3, 4])


def test_rows_are_independent_under_vmap():
    rows = jax.tree.map(lambda x: jnp.stack([x, x]), add(row(), 3))
    mask = jnp.asarray([[1, 1, 0, 0, 0], [0, 0, 1, 0, 0]], bool)
    both = jax.vmap(lambda r, c, m, a: decide(r, c, m, jnp.float32(0), weight=1.0, active=a))(
        rows, jnp.asarray([1, 2]), mask, jnp.asarray([True, True])
    )
    np.testing.assert_array_equal(both.tokens[:, :2], [[3, 1], [3, 2]])
    np.testing.assert_array_equal(both.count, [1, 0])
