"""The policy: a decoder of the Llama / Qwen family, as pure functions.

Pre-norm blocks of RMSNorm (arXiv:1910.07467), rotary positions (arXiv:2104.09864), grouped-query
attention (arXiv:2305.13245) and a gated MLP (arXiv:2002.05202). Parameters are a nested dict of
float32 arrays; `logical_axes` names their axes for sharding rules.

Shape letters: N rows, L tokens, C tokens of a chunk, D width, V vocabulary, S cache slots, K
key/value heads, G query heads per key/value head, H head width, M MLP width.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .cache import Cache, attend, attend_causal, block_sizes, write, write_slots
from .config import DecoderConfig
from .placement import keep_rows

Params = Mapping[str, Any]


def household_small(vocabulary: int, **changes: Any) -> DecoderConfig:
    """The preset of the embedded household policy: width 64, 3 layers, 4 heads over 2."""
    config = DecoderConfig(
        vocabulary=vocabulary, width=64, layers=3, heads=4, kv_heads=2, mlp=192, qk_norm=True
    )
    return dataclasses.replace(config, **changes)


def init(key: chex.PRNGKey, config: DecoderConfig) -> Params:
    """Returns fresh float32 parameters, a nested dict of arrays."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    variables = _Decoder(config).init(key, tokens, method="everything")
    return variables["params"]


def forward(params: Params, tokens: chex.Array, *, config: DecoderConfig) -> chex.Array:
    """Causal pass over whole sequences.

    Args:
      params: of `init`.
      tokens: [N, L] int32. Padding BEHIND a sequence is harmless (attention is causal); ids
        outside the vocabulary are clipped.
      config: static.

    Returns:
      hidden [N, L, D] of config.dtype, normalised; `unembed` turns it into logits.
    """
    chex.assert_rank(tokens, 2)
    chex.assert_type(tokens, int)
    return _Decoder(config).apply({"params": params}, tokens, method="forward")


def unembed(params: Params, hidden: chex.Array, *, config: DecoderConfig) -> chex.Array:
    """Returns float32 logits [..., V] of hidden [..., D]."""
    chex.assert_axis_dimension(hidden, -1, config.width)
    return _Decoder(config).apply({"params": params}, hidden, method="unembed")


def init_cache(
    config: DecoderConfig, batch: int, capacity: int, *, blocks: int | None = None
) -> Cache:
    """Returns an empty cache of `batch` rows with room for `capacity` tokens each.

    `blocks`: in how many pieces attention can skip what is not filled yet; see `cache.Cache`.
    """
    if batch < 1 or capacity < 1:
        raise ValueError(f"a cache needs batch >= 1 and capacity >= 1, not {batch} and {capacity}")
    shape = (batch, config.kv_heads, config.head_dim)
    sizes = block_sizes(capacity, blocks)

    def buffers() -> tuple[tuple[chex.Array, ...], ...]:
        return tuple(
            tuple(keep_rows(jnp.zeros((*shape, size), config.dtype)) for size in sizes)
            for _ in range(config.layers)
        )

    return Cache(keys=buffers(), values=buffers(), lengths=jnp.zeros((batch,), jnp.int32))


def extend(
    params: Params,
    cache: Cache,
    tokens: chex.Array,
    counts: chex.Array,
    *,
    config: DecoderConfig,
) -> tuple[chex.Array, Cache]:
    """Appends counts[n] tokens to row n of the cache; gives the same hidden as `forward` would.

    The caller must see to it that `cache.lengths + counts <= cache.capacity`: what does not fit is
    dropped and the length stays at the capacity, so the row's context is then incomplete.
    Donate the cache (or carry it in a loop) and the buffers are updated in place.

    Args:
      params: of `init`.
      cache: of `init_cache` or an earlier `extend`.
      tokens: [N, C] int32, row n's new tokens first; anything behind them.
      counts: [N] int32 in 0..C; a row with 0 is left exactly as it was.
      config: static.

    Returns:
      (hidden [N, D] of each row's last new token, finite but meaningless where counts is 0; the
      cache with lengths increased).
    """
    chex.assert_rank([tokens, counts], [2, 1])
    chex.assert_type([tokens, counts], int)
    chex.assert_equal_shape_prefix([tokens, counts, cache.lengths], 1)
    if len(cache.keys) != config.layers:
        raise ValueError(f"the cache has {len(cache.keys)} layers, the decoder {config.layers}")
    result: Any = _Decoder(config).apply({"params": params}, cache, tokens, counts, method="extend")
    return result


def logical_axes(config: DecoderConfig) -> dict[str, Any]:
    """Returns a pytree like `init`'s, each array replaced by the tuple of its axes' names.

    Names: "vocabulary", "embed" (D), "kv_heads" (K), "group" (query heads of one key/value head;
    in the fused projection also its key and value), "head" (H), "gate_up" (2), "mlp" (M).
    Tensor parallelism shards "kv_heads" and "mlp"; fully sharded data parallelism shards "embed".
    """
    attention: dict[str, Any] = {
        "qkv": ("embed", "kv_heads", "group", "head"),
        "out": ("kv_heads", "group", "head", "embed"),
    }
    if config.qkv_bias:
        attention["qkv_bias"] = ("kv_heads", "group", "head")
    if config.qk_norm:
        attention |= {"query_norm": ("head",), "key_norm": ("head",)}
    block = {
        "attention_norm": ("embed",),
        "attention": attention,
        "mlp_norm": ("embed",),
        "mlp": {"gate_up": ("embed", "gate_up", "mlp"), "down": ("mlp", "embed")},
    }
    axes: dict[str, Any] = {"embedding": ("vocabulary", "embed"), "final_norm": ("embed",)}
    if not config.tie_embeddings:
        axes["unembedding"] = ("embed", "vocabulary")
    return axes | {f"layer_{i}": block for i in range(config.layers)}


def _matmul(x: chex.Array, kernel: chex.Array, dtype: Any = None) -> chex.Array:
    """Multiplies x [..., I] by kernel [I, ...].

    Rows flat, because the kernel's gradient then sums over ONE axis: XLA's CPU backend takes 2.7
    times as long over two. The kernel's axes stay as they are, and split as they are.
    """
    flat = jax.lax.dot_general(
        x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), preferred_element_type=dtype
    )
    return flat.reshape(*x.shape[:-1], *kernel.shape[1:])


def _rms_norm(x: chex.Array, scale: chex.Array, eps: float) -> chex.Array:
    wide = x.astype(jnp.float32)
    variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)
    return (wide * jax.lax.rsqrt(variance + eps) * scale).astype(x.dtype)


def _rotation(positions: chex.Array, config: DecoderConfig) -> tuple[chex.Array, chex.Array]:
    """Returns (cos, sin), each positions.shape + (1, 1, H/2), float32."""
    exponents = np.arange(0, config.head_dim, 2, dtype=np.float64) / config.head_dim
    frequencies = (config.rope_base**-exponents).astype(np.float32)
    angles = positions[..., None, None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: chex.Array, rotation: tuple[chex.Array, chex.Array]) -> chex.Array:
    """Rotates pairs (i, i + H/2) of the last axis, the convention of Llama and Qwen weights."""
    cos, sin = rotation
    low, high = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = jnp.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)
    return turned.astype(x.dtype)


class _Attention(nn.Module):
    """Projections of one attention layer; the attention itself is in `cache`."""

    config: DecoderConfig

    def setup(self) -> None:
        c = self.config
        lecun = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2, 3))
        # Query, key and value as one matrix: [:, k] is head k's G queries, its key, its value.
        self.qkv_kernel = self.param("qkv", lecun, (c.width, c.kv_heads, c.group + 2, c.head_dim))
        scale = (c.heads * c.head_dim * 2 * c.layers) ** -0.5
        self.out_kernel = self.param(
            "out", nn.initializers.normal(scale), (c.kv_heads, c.group, c.head_dim, c.width)
        )
        if c.qkv_bias:
            shape = (c.kv_heads, c.group + 2, c.head_dim)
            self.qkv_bias = self.param("qkv_bias", nn.initializers.zeros, shape)
        if c.qk_norm:
            self.query_norm = self.param("query_norm", nn.initializers.ones, (c.head_dim,))
            self.key_norm = self.param("key_norm", nn.initializers.ones, (c.head_dim,))

    def project(
        self, x: chex.Array, rotation: tuple[chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array, chex.Array]:
        """Turns x [N, C, D] into query [N, C, K, G, H], key [N, C, K, H], value [N, C, K, H]."""
        c = self.config
        qkv = _matmul(x, self.qkv_kernel.astype(x.dtype))  # one wide matrix product
        if c.qkv_bias:
            qkv = qkv + self.qkv_bias.astype(x.dtype)
        query, key, value = qkv[..., :-2, :], qkv[..., -2:-1, :], qkv[..., -1, :]
        if c.qk_norm:
            query = _rms_norm(query, self.query_norm, c.norm_eps)
            key = _rms_norm(key, self.key_norm, c.norm_eps)
        return _rotate(query, rotation), _rotate(key, rotation)[..., 0, :], value

    def output(self, mixed: chex.Array) -> chex.Array:
        """Projects heads [N, C, K, G, H] back to [N, C, D]."""
        kernel = self.out_kernel.astype(mixed.dtype).reshape(-1, self.config.width)
        return _matmul(mixed.reshape(*mixed.shape[:-3], -1), kernel)


class _Mlp(nn.Module):
    """down(silu(gate(x)) * up(x)), gate and up as one matrix."""

    config: DecoderConfig

    @nn.compact
    def __call__(self, x: chex.Array) -> chex.Array:
        c = self.config
        lecun = nn.initializers.lecun_normal(in_axis=0, out_axis=(1, 2))
        gate_up = self.param("gate_up", lecun, (c.width, 2, c.mlp)).astype(x.dtype)
        scale = (c.mlp * 2 * c.layers) ** -0.5
        down = self.param("down", nn.initializers.normal(scale), (c.mlp, c.width)).astype(x.dtype)
        both = _matmul(x, gate_up)
        return _matmul(nn.silu(both[..., 0, :]) * both[..., 1, :], down)


class _Block(nn.Module):
    config: DecoderConfig

    def setup(self) -> None:
        c = self.config
        self.attention_norm = self.param("attention_norm", nn.initializers.ones, (c.width,))
        self.attention = _Attention(c)
        self.mlp_norm = self.param("mlp_norm", nn.initializers.ones, (c.width,))
        self.mlp = _Mlp(c)

    def project(
        self, x: chex.Array, rotation: tuple[chex.Array, chex.Array]
    ) -> tuple[chex.Array, chex.Array, chex.Array]:
        normed = _rms_norm(x, self.attention_norm, self.config.norm_eps)
        return self.attention.project(normed, rotation)

    def finish(self, x: chex.Array, mixed: chex.Array) -> chex.Array:
        x = x + self.attention.output(mixed)
        return keep_rows(x + self.mlp(_rms_norm(x, self.mlp_norm, self.config.norm_eps)))

    def forward(self, x: chex.Array, rotation: tuple[chex.Array, chex.Array]) -> chex.Array:
        return self.finish(x, attend_causal(*self.project(x, rotation)))


class _Decoder(nn.Module):
    config: DecoderConfig

    def setup(self) -> None:
        c = self.config
        spread = nn.initializers.normal(c.width**-0.5)
        self.embedding = self.param("embedding", spread, (c.vocabulary, c.width))
        block = nn.remat(_Block, methods=("forward",)) if c.remat else _Block
        self.blocks = [block(c, name=f"layer_{i}") for i in range(c.layers)]
        self.final_norm = self.param("final_norm", nn.initializers.ones, (c.width,))
        if not c.tie_embeddings:
            self.unembedding = self.param("unembedding", spread, (c.width, c.vocabulary))

    def everything(self, tokens: chex.Array) -> chex.Array:
        return self.unembed(self.forward(tokens))

    def embed(self, tokens: chex.Array) -> chex.Array:
        tokens = jnp.clip(tokens, 0, self.config.vocabulary - 1)
        return keep_rows(self.embedding[tokens].astype(self.config.dtype))

    def forward(self, tokens: chex.Array) -> chex.Array:
        x = self.embed(tokens)
        rotation = _rotation(jnp.arange(tokens.shape[1], dtype=jnp.int32), self.config)
        for block in self.blocks:
            x = block.forward(x, rotation)
        return _rms_norm(x, self.final_norm, self.config.norm_eps)

    def unembed(self, hidden: chex.Array) -> chex.Array:
        matrix = self.embedding.T if self.config.tie_embeddings else self.unembedding
        return _matmul(hidden, matrix.astype(hidden.dtype), jnp.float32)

    def extend(
        self, cache: Cache, tokens: chex.Array, counts: chex.Array
    ) -> tuple[chex.Array, Cache]:
        chunk = tokens.shape[1]
        counts = jnp.clip(counts.astype(jnp.int32), 0, chunk)
        positions = cache.lengths[:, None] + jnp.arange(chunk, dtype=jnp.int32)
        slots = write_slots(cache.lengths, counts, chunk, cache.capacity)
        # Queries behind a row's count are never used: let them not widen what attention reads.
        newest = jnp.where(counts > 0, cache.lengths + counts - 1, 0)
        seen = jnp.minimum(positions, newest[:, None])
        last = jnp.maximum(counts - 1, 0)[:, None]
        rotation = _rotation(positions, self.config)
        x = self.embed(tokens)
        keys, values = [], []
        for i, block in enumerate(self.blocks):
            query, key, value = block.project(x, rotation)
            keys.append(write(cache.keys[i], key, slots))
            values.append(write(cache.values[i], value, slots))
            if i == self.config.layers - 1:  # only the last token's hidden leaves the last layer
                query = jnp.take_along_axis(query, last[..., None, None, None], axis=1)
                x = jnp.take_along_axis(x, last[..., None], axis=1)
                seen = jnp.take_along_axis(seen, last, axis=1)
            x = block.finish(x, attend(query, keys[i], values[i], seen))
        lengths = jnp.minimum(cache.lengths + counts, cache.capacity)
        hidden = _rms_norm(x[:, 0], self.final_norm, self.config.norm_eps)
        return hidden, Cache(keys=tuple(keys), values=tuple(values), lengths=lengths)
