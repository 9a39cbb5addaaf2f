"""The decoder: what it computes, and that a ragged cache computes the same."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.models import config as shapes
from reskill_jax.models import decoder
from reskill_jax.models.config import LayerKind

CONFIG = decoder.DecoderConfig(
    vocabulary=37, width=16, layers=3, heads=4, kv_heads=2, mlp=24, qk_norm=True
)
ROWS, LENGTH, CAPACITY, CHUNK = 4, 30, 40, 6
BLOCKS = 3  # of 14, 14 and 12 slots


@pytest.fixture(scope="module")
def params():
    return init(jax.random.key(0))


@pytest.fixture(scope="module")
def tokens():
    return jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, CONFIG.vocabulary)


@pytest.fixture(scope="module")
def reference(params, tokens):
    return np.asarray(forward(params, tokens))


def empty(capacity=CAPACITY, blocks=BLOCKS):
    return decoder.init_cache(CONFIG, ROWS, capacity, blocks=blocks)


@jax.jit
def extend(params, cache, tokens, counts):
    return decoder.extend(params, cache, tokens, counts, config=CONFIG)


@functools.partial(jax.jit, static_argnames=("config",))
def forward(params, tokens, config=CONFIG):
    return decoder.forward(params, tokens, config=config)


@functools.partial(jax.jit, static_argnames=("config",))
def init(key, config=CONFIG):
    return decoder.init(key, config)


def plain_forward(params, tokens, config):
    """The same decoder written the slow way, one head and one query at a time, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    half = config.head_dim // 2

    def norm(x, scale):
        return x / np.sqrt(np.mean(x * x) + config.norm_eps) * scale

    def rotate(x, position):
        turned = x.copy()
        for i in range(half):
            angle = position * config.pattern[0].rope.base ** (-2 * i / config.head_dim)
            turned[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
            turned[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
        return turned

    xs = [p["embedding"][t] for t in tokens]
    for i in range(config.layers):
        block = p[f"layer_{i}"]
        heads = []
        for position, x in enumerate(xs):
            normed = norm(x, block["attention_norm"])
            qkv = np.einsum("d,dkgh->kgh", normed, block["attention"]["qkv"])
            if config.qkv_bias:
                qkv = qkv + block["attention"]["qkv_bias"]
            if config.qk_norm:
                for k in range(config.kv_heads):
                    for g in range(config.group):
                        qkv[k, g] = norm(qkv[k, g], block["attention"]["query_norm"])
                    qkv[k, -2] = norm(qkv[k, -2], block["attention"]["key_norm"])
            for k in range(config.kv_heads):
                for g in range(config.group + 1):
                    qkv[k, g] = rotate(qkv[k, g], position)
            heads.append(qkv)
        mixed_xs = []
        for position, x in enumerate(xs):
            attended = np.zeros((config.kv_heads, config.group, config.head_dim))
            for k in range(config.kv_heads):
                for g in range(config.group):
                    scores = np.array(
                        [heads[position][k, g] @ heads[s][k, -2] for s in range(position + 1)]
                    ) / np.sqrt(config.head_dim)
                    weights = np.exp(scores - scores.max())
                    weights /= weights.sum()
                    attended[k, g] = sum(w * heads[s][k, -1] for s, w in enumerate(weights))
            x = x + np.einsum("kgh,kghd->d", attended, block["attention"]["out"])
            normed = norm(x, block["mlp_norm"])
            gate, up = np.einsum("d,dim->im", normed, block["mlp"]["gate_up"])
            mixed_xs.append(x + (gate / (1 + np.exp(-gate)) * up) @ block["mlp"]["down"])
        xs = mixed_xs
    return np.stack([norm(x, p["final_norm"]) for x in xs])


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("tied", [False, True])
def test_forward_agrees_with_the_equations_written_out(tied, qk_norm):
    config = dataclasses.replace(
        CONFIG, layers=2, qk_norm=qk_norm, qkv_bias=not qk_norm, tie_embeddings=tied, head_width=6
    )
    params = init(jax.random.key(3), config)
    # Fresh norms and biases are 1 and 0, which hides mistakes.
    leaves, tree = jax.tree.flatten(params)
    noise = jax.random.split(jax.random.key(4), len(leaves))
    params = tree.unflatten(
        [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, noise)]
    )
    tokens = jax.random.randint(jax.random.key(5), (1, 9), 0, config.vocabulary)
    hidden = forward(params, tokens, config)
    expected = plain_forward(params, np.asarray(tokens[0]), config)
    np.testing.assert_allclose(hidden[0], expected, atol=2e-5)
    matrix = params["embedding"].T if tied else params["unembedding"]
    logits = decoder.logits(params, hidden, config=config)
    np.testing.assert_allclose(logits[0], expected @ np.asarray(matrix), atol=1e-4)


def test_forward_is_causal_and_padding_behind_is_harmless(params, tokens, reference):
    changed = tokens.at[:, 20:].set(0).at[:, 25:].set(-5)
    hidden = forward(params, changed)
    np.testing.assert_array_equal(hidden[:, :20], reference[:, :20])
    assert np.isfinite(hidden).all()


def test_forward_in_blocks_is_the_same_as_in_one(params):
    tokens = jax.random.randint(jax.random.key(8), (1, 150), 0, CONFIG.vocabulary)
    long = forward(params, tokens)
    for stop in (63, 64, 65):
        short = forward(params, tokens[:, :stop])
        np.testing.assert_allclose(short, long[:, :stop], atol=1e-5)


def test_token_by_token_gives_the_hidden_states_of_the_full_pass(params, tokens, reference):
    cache = empty()
    ones = jnp.ones(ROWS, jnp.int32)
    for i in range(LENGTH):
        hidden, cache = extend(params, cache, tokens[:, i : i + 1], ones)
        np.testing.assert_allclose(hidden, reference[:, i], atol=1e-5)
    np.testing.assert_array_equal(cache.lengths, LENGTH)


@settings(max_examples=8 * settings.default.max_examples // 5)
@given(data=st.data())
def test_ragged_chunks_give_the_hidden_states_of_the_full_pass(params, tokens, reference, data):
    cache = empty()
    lengths = np.zeros(ROWS, int)
    counts_of = st.lists(st.integers(0, CHUNK), min_size=ROWS, max_size=ROWS)
    for counts in data.draw(st.lists(counts_of, min_size=1, max_size=9)):
        counts = np.minimum(counts, LENGTH - lengths)
        chunk = np.full((ROWS, CHUNK), data.draw(st.integers(-2, CONFIG.vocabulary + 2)), np.int32)
        for row, count in enumerate(counts):
            chunk[row, :count] = tokens[row, lengths[row] : lengths[row] + count]
        hidden, cache = extend(params, cache, jnp.asarray(chunk), jnp.asarray(counts, jnp.int32))
        lengths += counts
        np.testing.assert_array_equal(cache.lengths, lengths)
        assert np.isfinite(hidden).all()
        for row in np.flatnonzero(counts):
            np.testing.assert_allclose(hidden[row], reference[row, lengths[row] - 1], atol=1e-5)


def test_rows_without_new_tokens_are_left_exactly_as_they_were(params, tokens):
    cache = empty()
    _, before = extend(params, cache, tokens[:, :CHUNK], jnp.array([6, 3, 0, 1]))
    _, after = extend(params, before, tokens[:, :CHUNK], jnp.array([0, 2, 0, 0]))
    for old, new in zip(
        jax.tree.leaves(before[:2])[::BLOCKS], jax.tree.leaves(after[:2])[::BLOCKS]
    ):
        np.testing.assert_array_equal(old[jnp.array([0, 2, 3])], new[jnp.array([0, 2, 3])])
        assert (old[1] != new[1]).any(axis=(0, 1)).nonzero()[0].tolist() == [3, 4]


def test_past_the_capacity_tokens_are_dropped_and_other_rows_are_right(params, tokens, reference):
    cache = empty(8, 1)
    _, cache = extend(params, cache, tokens[:, :6], jnp.array([6, 6, 2, 6]))
    kept = cache.alone[0].keys[0][0, :, :, :6]
    hidden, cache = extend(params, cache, tokens[:, 6:12], jnp.array([6, 2, 0, 1]))
    np.testing.assert_array_equal(cache.lengths, [8, 8, 2, 7])
    np.testing.assert_array_equal(cache.alone[0].keys[0][0, :, :, :6], kept)
    np.testing.assert_allclose(hidden[1], reference[1, 7], atol=1e-5)
    np.testing.assert_allclose(hidden[3], reference[3, 6], atol=1e-5)
    _, full = extend(params, cache, tokens[:, :6], jnp.array([6, 6, 0, 0]))
    chex.assert_trees_all_equal(full, cache)


def test_the_number_of_blocks_changes_nothing(params, tokens):
    one, many = empty(blocks=1), empty(blocks=4)
    assert [block.shape[-1] for block in many.alone[0].keys] == [10, 10, 10, 10]
    for counts in ([6, 2, 0, 1], [6, 6, 0, 6], [6, 6, 6, 6], [6, 1, 6, 1], [6, 0, 6, 0]):
        chunk = tokens[:, :6]
        wide, one = extend(params, one, chunk, jnp.array(counts))
        narrow, many = extend(params, many, chunk, jnp.array(counts))
        fed = np.flatnonzero(counts)
        np.testing.assert_allclose(wide[fed], narrow[fed], atol=1e-5)
        np.testing.assert_array_equal(one.lengths, many.lengths)
        for whole, parts in zip(one.alone, many.alone):
            for kind in ("keys", "values"):
                joined = jnp.concatenate(getattr(parts, kind), axis=-1)
                np.testing.assert_allclose(getattr(whole, kind)[0], joined, atol=1e-5)


@pytest.mark.parametrize(
    ("capacity", "sizes"), [(1, [1]), (95, [95]), (384, [96] * 4), (450, [113] * 3 + [111])]
)
def test_default_blocks_cover_the_capacity(capacity, sizes):
    cache = jax.eval_shape(lambda: decoder.init_cache(CONFIG, ROWS, capacity))
    assert [block.shape for block in cache.alone[2].values] == [(ROWS, 2, 4, s) for s in sizes]
    assert cache.capacity == capacity


def test_one_trace_in_a_loop_and_gradients_are_finite(params, tokens, reference):
    @chex.assert_max_traces(n=1)
    def step(carry, column):
        hidden, cache = decoder.extend(
            params, carry, column[:, None], jnp.ones(ROWS, jnp.int32), config=CONFIG
        )
        return cache, hidden

    cache = empty()
    cache, hidden = jax.jit(lambda c: jax.lax.scan(step, c, tokens.T))(cache)
    np.testing.assert_allclose(hidden.swapaxes(0, 1), reference, atol=1e-5)

    def loss(params):
        hidden = decoder.forward(params, tokens, config=CONFIG)
        return jnp.mean(jax.nn.log_softmax(decoder.logits(params, hidden, config=CONFIG)) ** 2)

    gradients = jax.jit(jax.grad(loss))(params)
    assert all(np.isfinite(g).all() and (g != 0).any() for g in jax.tree.leaves(gradients))


def test_a_donated_cache_is_updated_in_place(params, tokens):
    cache = empty()
    addresses = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(cache[:2])}
    donating = jax.jit(
        lambda c: decoder.extend(params, c, tokens[:, :6], jnp.full(ROWS, 6), config=CONFIG)[1],
        donate_argnums=0,
    )
    cache = donating(donating(cache))
    assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(cache[:2])} == addresses


@pytest.mark.slow
def test_bfloat16_activations_stay_close_and_parameters_float32(params, tokens, reference):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    hidden = forward(params, tokens, config)
    assert hidden.dtype == jnp.bfloat16
    np.testing.assert_allclose(hidden.astype(jnp.float32), reference, atol=0.15)
    assert decoder.logits(params, hidden, config=config).dtype == jnp.float32
    assert all(
        x.dtype == jnp.float32 for x in jax.tree.leaves(decoder.init(jax.random.key(0), config))
    )
    cache = decoder.init_cache(config, ROWS, CAPACITY)
    last, cache = decoder.extend(params, cache, tokens, jnp.full(ROWS, LENGTH), config=config)
    assert cache.alone[0].keys[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(last.astype(jnp.float32), reference[:, -1], atol=0.15)


@pytest.mark.slow
def test_computing_activations_again_changes_no_gradient(params, tokens):
    def gradient(config):
        return jax.jit(jax.grad(lambda p: jnp.sum(forward(p, tokens, config) ** 2)))

    again = dataclasses.replace(CONFIG, remat=True)
    assert jax.tree.structure(init(jax.random.key(0), again)) == jax.tree.structure(params)
    plain, twice = gradient(CONFIG), gradient(again)
    chex.assert_trees_all_close(plain(params), twice(params), rtol=1e-5, atol=1e-5)
    assert "remat" in str(jax.make_jaxpr(twice)(params))
    assert "remat" not in str(jax.make_jaxpr(plain)(params))


DEEP = dataclasses.replace(CONFIG, layers=7, qk_norm=False, pattern=(LayerKind(4), LayerKind()))


def as_alone(params, config):
    """Parameters of stacked layers as those of layers that stand on their own."""
    places = len(config.pattern)
    stack = params["stack"]
    found = {name: value for name, value in params.items() if name != "stack"}
    for layer in range(config.repeats * places):
        block = jax.tree.map(lambda x, at=layer // places: x[at], stack[str(layer % places)])
        found[f"layer_{layer}"] = block
    return found


def test_stacked_layers_compute_the_same(tokens, monkeypatch):
    """Three times a pattern of two, and one layer that is left over."""
    assert (DEEP.repeats, list(DEEP.alone)) == (3, [6])
    params = decoder.init(jax.random.key(0), DEEP)
    hidden = jax.jit(decoder.forward, static_argnames="config")(params, tokens, config=DEEP)
    cache = decoder.init_cache(DEEP, ROWS, CAPACITY)
    grow = jax.jit(decoder.extend, static_argnames="config")
    for start, count in ((0, 6), (6, 1), (7, 5), (12, 8)):
        chunk = jnp.pad(tokens[:, start : start + count], ((0, 0), (0, 2)))
        last, cache = grow(params, cache, chunk, jnp.full(ROWS, count), config=DEEP)
        np.testing.assert_allclose(last, hidden[:, start + count - 1], atol=1e-5)
    alone = as_alone(params, DEEP)
    monkeypatch.setattr(shapes, "UNROLLED", 7)
    assert (DEEP.repeats, len(DEEP.alone)) == (0, 7)
    plain = decoder.forward(alone, tokens, config=DEEP)
    np.testing.assert_allclose(plain, hidden, atol=1e-5)


def test_a_loop_over_the_layers_is_not_written_out(tokens):
    """The program does not grow with the number of layers."""

    def size(layers):
        config = dataclasses.replace(DEEP, layers=layers)
        params = jax.eval_shape(lambda: decoder.init(jax.random.key(0), config))
        cache = jax.eval_shape(lambda: decoder.init_cache(config, ROWS, CAPACITY))
        ones = jnp.ones(ROWS, jnp.int32)

        def run(params, cache):
            hidden = decoder.forward(params, tokens, config=config)
            return hidden, decoder.extend(params, cache, tokens, ones, config=config)

        return len(str(jax.make_jaxpr(run)(params, cache)).splitlines())

    assert size(32) == size(8)


def test_logits_of_candidates(params, reference):
    hidden = jnp.asarray(reference)
    untied = dataclasses.replace(CONFIG, tie_embeddings=False, final_softcap=0.5)
    matrix = {**params, "unembedding": jax.random.normal(jax.random.key(6), (16, 37))}
    ids = jax.random.randint(jax.random.key(7), (ROWS, LENGTH, 5), 0, 37).at[0, 0, 0].set(-1)
    for config, weights in ((CONFIG, params), (untied, matrix)):
        everything = decoder.logits(weights, hidden, config=config)
        some = decoder.logits(weights, hidden, ids, config=config)
        assert some.shape == ids.shape and some.dtype == jnp.float32
        expected = jnp.take_along_axis(everything, jnp.maximum(ids, 0), axis=-1)
        np.testing.assert_allclose(some, expected, atol=1e-5)


def test_logical_axes_mirror_the_parameters():
    everything = {"out_bias": True, "mlp_bias": True, "post_norms": True}
    for config in (
        CONFIG,
        dataclasses.replace(CONFIG, qk_norm=False, qkv_bias=True, tie_embeddings=False),
        dataclasses.replace(DEEP, **everything),
    ):
        params = jax.eval_shape(lambda key, c=config: decoder.init(key, c), jax.random.key(0))
        axes = decoder.logical_axes(config)
        sizes = {
            "vocabulary": 37,
            "embed": 16,
            "kv_heads": 2,
            "head": 4,
            "mlp": 24,
            "gate_up": 2,
            "layers": 3,
        }

        def check(names, array, sizes=sizes):
            assert len(names) == array.ndim
            for name, size in zip(names, array.shape):
                assert sizes.get(name, size) == size

        jax.tree.map(check, axes, params, is_leaf=lambda x: isinstance(x, tuple))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"heads": 3}, "kv_heads"),
        ({"width": 18}, "width"),
        ({"layers": 0}, "layers"),
        ({"head_width": 5}, "even"),
        ({"dtype": "float16"}, "dtype"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(change, word):
    with pytest.raises(ValueError, match=word):
        dataclasses.replace(CONFIG, **change)


def test_wrong_arguments_of_extend_are_refused(params, tokens):
    cache = empty()
    with pytest.raises(AssertionError):
        decoder.extend(params, cache, tokens[:2], jnp.ones(ROWS, jnp.int32), config=CONFIG)
    with pytest.raises(AssertionError):
        decoder.extend(params, cache, tokens, jnp.ones(ROWS), config=CONFIG)
    with pytest.raises(ValueError, match="blocks"):
        decoder.init_cache(CONFIG, ROWS, 8, blocks=9)
    shallow = dataclasses.replace(CONFIG, layers=2)
    with pytest.raises(ValueError, match="layers"):
        decoder.extend(params, cache, tokens, jnp.ones(ROWS, jnp.int32), config=shallow)
    with pytest.raises(ValueError, match="capacity"):
        decoder.init_cache(CONFIG, ROWS, 0)
