"""Log-probabilities of what was chosen, against plain softmaxes over what could be chosen."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.model import Decoder
from reskill_jax.models.sampling import NO_TOKEN
from reskill_jax.rollouts.transcript import Transcript
from reskill_jax.training import scoring
from reskill_jax.training.scoring import decision_log_probs, decision_logits

N, L, D, K = 3, 24, 9, 4
SHAPE = dict(width=8, layers=1, heads=2, kv_heads=1, mlp=8)
SMALL = Decoder(DecoderConfig(vocabulary=40, **SHAPE))
LARGE = Decoder(DecoderConfig(vocabulary=1500, **SHAPE))  # candidates are fetched one by one


@functools.lru_cache
def params_of(model):
    made = jax.jit(model.init)(jax.random.key(1))
    return jax.tree.map(lambda x: 3.0 * x if x.ndim > 1 else x, made)


def rows_of(model, kinds, *, decisions=D, candidates=K, seed=0):
    """Transcripts whose decisions are free (f), among candidates (c) or not used (-), by row."""
    rng = np.random.default_rng(seed)
    rows = len(kinds)
    tokens = rng.integers(0, model.vocab_size, (rows, L)).astype(np.int32)
    position = np.zeros((rows, decisions), np.int32)
    support = np.full((rows, decisions, candidates), NO_TOKEN, np.int32)
    used = np.zeros((rows, decisions), bool)
    for n, kind in enumerate(kinds):
        for d, one in enumerate(kind):
            if one == "-":
                continue
            used[n, d] = True
            position[n, d] = rng.integers(0, L - 1)
            if one == "c":
                chosen = int(tokens[n, position[n, d] + 1])
                others = (chosen + rng.integers(1, model.vocab_size, candidates)) % model.vocab_size
                options = sorted({chosen, *map(int, others[: rng.integers(1, candidates)])})
                support[n, d, : len(options)] = options
    filler = np.zeros((rows, decisions), np.float32)
    number = used.sum(axis=1).astype(np.int32)
    made = Transcript(
        tokens,
        np.full(rows, L, np.int32),
        position,
        support,
        filler,
        filler.astype(np.int32),
        used.astype(np.float32),
        number,
    )
    return jax.tree.map(jnp.asarray, made), jnp.asarray(used)


@functools.partial(jax.jit, static_argnames="model")
def plainly(params, rows, used, *, model, temperature):
    """[N, D]: the softmax over the whole vocabulary, or over the candidates where there are any."""
    logits = model.logits(params, model.forward(params, rows.tokens)) / temperature
    at = jnp.take_along_axis(logits, rows.position[..., None], axis=1)
    listed = jnp.any(rows.support[..., None] == jnp.arange(model.vocab_size), axis=2)
    allowed = listed | jnp.all(rows.support == NO_TOKEN, axis=2)[..., None]
    log_probs = jax.nn.log_softmax(jnp.where(allowed, at, -jnp.inf), axis=-1)
    chosen = jnp.take_along_axis(rows.tokens, rows.position + 1, axis=1)
    found = jnp.take_along_axis(log_probs, chosen[..., None], axis=2)[..., 0]
    return jnp.where(used, found, 0.0)


scored = jax.jit(decision_log_probs, static_argnames=("model", "free_text"))


KINDS = {
    "free alone": ("fffffffff", "fff------", "---------"),
    "candidates alone": ("ccccccccc", "cc-------", "---------"),
    "mixed rows": ("fcfcffccf", "cc-------", "fffff----"),
    "nothing": ("---------", "---------", "---------"),
}


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probs_are_those_of_plain_softmaxes(kinds, temperature):
    params = params_of(SMALL)
    rows, used = rows_of(SMALL, kinds)
    told = dict(model=SMALL, temperature=temperature)
    expected = plainly(params, rows, used, **told)
    found = scored(params, rows, used, free_text=True, **told)
    assert found.shape == (N, D) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[~used], 0.0)
    if "f" not in "".join(kinds):  # who knows that there is no free text need not look for it
        known = scored(params, rows, used, **told)
        np.testing.assert_allclose(known, expected, atol=1e-5)


def test_they_are_the_same_outside_of_a_program():
    params = params_of(SMALL)
    rows, used = rows_of(SMALL, KINDS["mixed rows"])
    told = dict(model=SMALL, temperature=0.7)
    found = decision_log_probs(params, rows, used, free_text=True, **told)
    np.testing.assert_allclose(found, plainly(params, rows, used, **told), atol=1e-5)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_gradients_are_those_of_plain_softmaxes(kinds):
    params = params_of(SMALL)
    rows, used = rows_of(SMALL, kinds)
    weight = jnp.asarray(np.random.default_rng(3).normal(size=(N, D)).astype(np.float32))
    expected = gradient_of(plainly)(params, rows, used, weight, 0.8)
    found = gradient_of(scored)(params, rows, used, weight, 0.8)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-4, rtol=1e-3)


@functools.lru_cache
def gradient_of(function):
    told = dict(model=SMALL) | (dict(free_text=True) if function is scored else {})

    def total(params, rows, used, weight, temperature):
        return jnp.sum(weight * function(params, rows, used, temperature=temperature, **told))

    return jax.jit(jax.grad(total))


def test_nothing_to_choose_among():
    """Episodes of free text alone have no room for candidates."""
    params = params_of(SMALL)
    rows, used = rows_of(SMALL, KINDS["free alone"], candidates=0)
    told = dict(model=SMALL, temperature=1.0)
    assert rows.support.shape == (N, D, 0)
    expected = plainly(params, rows, used, **told)
    found = scored(params, rows, used, free_text=True, **told)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    grads = jax.jit(jax.grad(lambda p: jnp.sum(scored(p, rows, used, free_text=True, **told))))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads(params)))


def test_no_decision_at_all():
    params = params_of(SMALL)
    for candidates in (0, K):
        rows, used = rows_of(SMALL, ("", "", ""), decisions=0, candidates=candidates)
        found = scored(params, rows, used, model=SMALL, temperature=1.0, free_text=True)
        assert found.shape == (N, 0)


def test_decisions_are_scored_in_pieces():
    """Of free text a few at a time; of candidates in a large vocabulary, too."""
    params, decisions = params_of(LARGE), 150
    kinds = [("fc" * decisions)[:decisions], "c" * (decisions - 2) + "--"]
    rows, used = rows_of(LARGE, kinds, decisions=decisions)
    told = dict(model=LARGE, temperature=0.9)
    expected = plainly(params, rows, used, **told)
    found = scored(params, rows, used, free_text=True, **told)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_no_array_of_all_logits_is_made():
    """Neither forward nor for the gradient is there one of decisions times vocabulary."""
    params = params_of(LARGE)
    rows, used = rows_of(LARGE, ["f" * 320] * 2, decisions=320, candidates=0)

    def loss(params):
        found = scored(params, rows, used, model=LARGE, temperature=1.0, free_text=True)
        return jnp.sum(found)

    text = jax.jit(jax.grad(loss)).lower(params).as_text()
    assert "32x1500xf32" in text
    assert f"{2 * 320}x1500xf32" not in text and "320x1500xf32" not in text


def test_numbers_at_the_edge_have_finite_gradients():
    """Unlikely tokens, and rows of which nothing is used."""
    params = jax.tree.map(lambda x: 30.0 * x, params_of(SMALL))
    rows, used = rows_of(SMALL, KINDS["mixed rows"])
    value = scored(params, rows, used, model=SMALL, temperature=0.05, free_text=True)
    assert np.isfinite(value).all() and np.min(value) < -100
    grads = gradient_of(scored)(params, rows, used, jnp.ones((N, D)), 0.05)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_logits_are_those_of_the_candidates():
    params = params_of(SMALL)
    rows, used = rows_of(SMALL, KINDS["candidates alone"])
    found = jax.jit(functools.partial(decision_logits, model=SMALL))(params, rows)
    logits = jax.jit(lambda p: SMALL.logits(p, SMALL.forward(p, rows.tokens)))(params)
    at = np.asarray(rows.position)
    support = np.asarray(rows.support)
    expected = np.asarray(logits)[np.arange(N)[:, None, None], at[:, :, None], support]
    there = (support >= 0) & np.asarray(used)[:, :, None]
    np.testing.assert_allclose(np.asarray(found)[there], expected[there], atol=1e-5)


def test_pieces_are_no_larger_than_what_there_is():
    seen = []

    def twice(x):
        seen.append(x.shape)
        return 2.0 * x

    x = jnp.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    np.testing.assert_array_equal(scoring._in_pieces(twice, (x,), size=32), 2.0 * x)
    np.testing.assert_array_equal(scoring._in_pieces(twice, (x,), size=2), 2.0 * x)
    assert set(seen) == {(2, 5, 3), (2, 2, 3)}
