"""A ragged, append-only key/value cache, and attention over it.

Every row has a length of its own, so nothing is ever re-encoded or shifted: new tokens are
scattered behind each row's last one, and indices past a row's count fall outside the array and are
dropped. Slots are the minor axis: of the layouts measured on CPU this one reads fastest
(attention is what reads) at no measurable price for the scatter.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

_MASKED = -1e30  # finite: a row without a single key must not turn into NaN


class Cache(NamedTuple):
    """Keys (rotated) and values of every layer. S slots, K key/value heads, H head width.

    The slots lie in a few blocks of W each (the last may be smaller). A block is an array of its
    own: attention over the first blocks then reads them where they are, while a slice of one large
    array would be copied on every call, which costs as much as the attention itself.
    """

    keys: tuple[tuple[chex.Array, ...], ...]  # per layer, per block [N, K, H, W]
    values: tuple[tuple[chex.Array, ...], ...]  # per layer, per block [N, K, H, W]
    lengths: chex.Array  # [N] int32 tokens held by each row

    @property
    def capacity(self) -> int:
        """Number of slots S."""
        return sum(block.shape[-1] for block in self.keys[0])


def block_sizes(capacity: int, blocks: int | None = None) -> tuple[int, ...]:
    """Splits a capacity into `blocks` nearly equal sizes; None = one per 96 slots, at most 4."""
    if blocks is None:
        blocks = max(1, min(4, capacity // 96))
    if not 1 <= blocks <= capacity:
        raise ValueError(f"a cache of {capacity} slots cannot have {blocks} blocks")
    size = -(-capacity // blocks)
    return tuple(min(size, capacity - start) for start in range(0, capacity, size))


def write_slots(lengths: chex.Array, counts: chex.Array, chunk: int, capacity: int) -> chex.Array:
    """Returns slots [N, chunk] of a chunk's tokens; those beyond `counts` get `capacity`."""
    offset = jnp.arange(chunk, dtype=jnp.int32)
    slots = lengths[:, None] + offset
    return jnp.where(offset < counts[:, None], jnp.minimum(slots, capacity), capacity)


def write(
    blocks: Sequence[chex.Array], new: chex.Array, slots: chex.Array
) -> tuple[chex.Array, ...]:
    """Scatters new [N, C, K, H] into blocks [N, K, H, W]; slots [N, C] outside are dropped."""

    def scatter(block, new, slots):  # of one row; under vmap, so that rows stay on their devices
        return block.at[:, :, slots].set(jnp.moveaxis(new, 0, -1), mode="drop")

    written, start = [], 0
    for block in blocks:
        width = block.shape[-1]
        # Slots before this block must not count from its end.
        inside = jnp.where(slots >= start, slots - start, width)
        written.append(jax.vmap(scatter)(block, new.astype(block.dtype), inside))
        start += width
    return tuple(written)


def attend(
    query: chex.Array,
    keys: Sequence[chex.Array],
    values: Sequence[chex.Array],
    positions: chex.Array,
) -> chex.Array:
    """Grouped-query attention of each row's queries to its own slots up to their positions.

    Only the first blocks, as many as cover every position (found on the device), are read, so a
    short context does not pay for the capacity.

    Args:
      query: [N, C, K, G, H], rotated; G query heads share one key/value head.
      keys: blocks [N, K, H, W].
      values: blocks [N, K, H, W].
      positions: [N, C] int32; slot s is seen iff s <= position.

    Returns:
      [N, C, K, G, H], of the query's dtype.
    """
    ends = np.cumsum([block.shape[-1] for block in keys])
    if len(ends) == 1:
        return _attend_blocks(1, query, keys, values, positions)
    branch = jnp.sum(jnp.max(positions) >= jnp.asarray(ends[:-1], jnp.int32))

    def reading(blocks: int):
        return lambda *operands: _attend_blocks(blocks, *operands)

    branches = [reading(blocks + 1) for blocks in range(len(ends))]
    return jax.lax.switch(branch, branches, query, tuple(keys), tuple(values), positions)


def _attend_blocks(
    blocks: int,
    query: chex.Array,
    keys: Sequence[chex.Array],
    values: Sequence[chex.Array],
    positions: chex.Array,
) -> chex.Array:
    """The attention of `attend` over the first `blocks` blocks: one softmax over all of them."""
    n, c, k, g, h = query.shape
    folded = query.transpose(0, 2, 3, 1, 4).reshape(n, k, g * c, h) * jnp.asarray(
        h**-0.5, query.dtype
    )
    scores, start = [], 0
    for block in keys[:blocks]:
        width = block.shape[-1]
        raw = jnp.einsum("nkqh,nkhs->nkqs", folded, block, preferred_element_type=jnp.float32)
        seen = jnp.arange(start, start + width, dtype=jnp.int32) <= positions[..., None]
        raw = jnp.where(seen[:, None, None], raw.reshape(n, k, g, c, width), _MASKED)
        scores.append(raw.reshape(n, k, g * c, width))
        start += width
    peaks = [jnp.max(block, axis=-1, keepdims=True) for block in scores]
    peak = functools.reduce(jnp.maximum, peaks)
    mixed = jnp.zeros((n, k, g * c, h), jnp.float32)
    total = jnp.zeros((n, k, g * c, 1), jnp.float32)
    for score, block in zip(scores, values):
        weights = jnp.exp(score - peak)
        total += jnp.sum(weights, axis=-1, keepdims=True)
        mixed += jnp.einsum(
            "nkqs,nkhs->nkqh",
            weights.astype(query.dtype),
            block,
            preferred_element_type=jnp.float32,
        )
    mixed = mixed / total  # normalise H numbers instead of S
    return mixed.astype(query.dtype).reshape(n, k, g, c, h).transpose(0, 3, 1, 2, 4)


def attend_causal(
    query: chex.Array, keys: chex.Array, values: chex.Array, *, block: int = 64
) -> chex.Array:
    """Causal grouped-query attention over whole sequences.

    Queries go in blocks of `block`, each against the keys up to its own end: almost half of the
    scores are never computed, and the temporaries stay small.

    Args:
      query: [N, L, K, G, H], rotated.
      keys: [N, L, K, H].
      values: [N, L, K, H].
      block: queries at a time.

    Returns:
      [N, L, K, G, H], of the query's dtype.
    """
    n, length, k, g, h = query.shape
    dtype = query.dtype
    query = query.transpose(0, 2, 3, 1, 4) * jnp.asarray(h**-0.5, dtype)  # [N, K, G, L, H]
    keys = keys.transpose(0, 2, 3, 1)  # [N, K, H, L]
    values = values.transpose(0, 2, 1, 3)  # [N, K, L, H]
    blocks = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        size = stop - start
        folded = query[:, :, :, start:stop].reshape(n, k, g * size, h)
        scores = jnp.einsum(
            "nkqh,nkhs->nkqs", folded, keys[..., :stop], preferred_element_type=jnp.float32
        ).reshape(n, k, g, size, stop)
        seen = np.arange(stop) <= np.arange(start, stop)[:, None]
        scores = scores + np.where(seen, 0.0, _MASKED).astype(np.float32)
        # A softmax that normalises the H sums instead of the weights, and whose peak, which
        # cancels, has no gradient: half the time of jax.nn.softmax, forward and backward.
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True)))
        mixed = jnp.einsum(
            "nkqs,nksh->nkqh",
            weights.astype(dtype).reshape(n, k, g * size, stop),
            values[:, :, :stop],
            preferred_element_type=jnp.float32,
        ).reshape(n, k, g, size, h)
        blocks.append((mixed / jnp.sum(weights, -1, keepdims=True)).astype(dtype))
    return jnp.concatenate(blocks, axis=3).transpose(0, 3, 1, 2, 4)
