"""A ragged, append-only key/value cache, and attention over it.

Every row has a length of its own, so nothing is ever re-encoded or shifted: new tokens are
scattered behind each row's last one, and indices past a row's count fall outside the array and are
dropped. Slots are the minor axis: of the layouts measured on CPU this one reads fastest
(attention is what reads) at no measurable price for the scatter.
"""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

_MASKED = -1e30  # finite: a row without a single key must not turn into NaN


class Cache(NamedTuple):
    """Keys (rotated) and values of every layer. S slots, K key/value heads, H head width."""

    keys: tuple[chex.Array, ...]  # per layer [N, K, H, S]
    values: tuple[chex.Array, ...]  # per layer [N, K, H, S]
    lengths: chex.Array  # [N] int32 tokens held by each row

    @property
    def capacity(self) -> int:
        """Number of slots S."""
        return self.keys[0].shape[-1]


def attention_spans(capacity: int) -> tuple[int, ...]:
    """Static numbers of slots worth compiling attention for, ascending, the last one `capacity`."""
    if capacity < 128:
        return (capacity,)
    return tuple(-(-capacity * quarter // 4) for quarter in (1, 2, 3, 4))


def write_slots(lengths: chex.Array, counts: chex.Array, chunk: int, capacity: int) -> chex.Array:
    """Returns slots [N, chunk] of a chunk's tokens; those beyond `counts` get `capacity`."""
    offset = jnp.arange(chunk, dtype=jnp.int32)
    slots = lengths[:, None] + offset
    return jnp.where(offset < counts[:, None], jnp.minimum(slots, capacity), capacity)


def write(buffer: chex.Array, new: chex.Array, slots: chex.Array) -> chex.Array:
    """Scatters new [N, C, K, H] into buffer [N, K, H, S]; slots outside are dropped."""
    rows = jnp.arange(buffer.shape[0])[:, None]
    return buffer.at[rows, :, :, slots].set(new.astype(buffer.dtype), mode="drop")


def attend(
    query: chex.Array,
    keys: chex.Array,
    values: chex.Array,
    positions: chex.Array,
    *,
    spans: Sequence[int],
) -> chex.Array:
    """Grouped-query attention of each row's queries to its own slots up to their positions.

    Args:
      query: [N, C, K, G, H], rotated; G query heads share one key/value head.
      keys: [N, K, H, S].
      values: [N, K, H, S].
      positions: [N, C] int32; slot s is seen iff s <= position.
      spans: static, ascending; the attention reads only the smallest span that covers every
        position (chosen on the device), so short contexts do not pay for the capacity.

    Returns:
      [N, C, K, G, H], of the query's dtype.
    """
    if len(spans) == 1:
        return _attend_prefix(spans[0], query, keys, values, positions)
    furthest = jnp.max(positions)
    branch = jnp.sum(furthest >= jnp.asarray(spans[:-1], jnp.int32))

    def branch_of(span: int):
        return lambda *operands: _attend_prefix(span, *operands)

    branches = [branch_of(span) for span in spans]
    return jax.lax.switch(branch, branches, query, keys, values, positions)


def _attend_prefix(
    span: int, query: chex.Array, keys: chex.Array, values: chex.Array, positions: chex.Array
) -> chex.Array:
    n, c, k, g, h = query.shape
    keys, values = keys[..., :span], values[..., :span]
    folded = query.transpose(0, 2, 3, 1, 4).reshape(n, k, g * c, h)
    scores = jnp.einsum(
        "nkqh,nkhs->nkqs", folded, keys, preferred_element_type=jnp.float32
    ).reshape(n, k, g, c, span) * (h**-0.5)
    seen = jnp.arange(span, dtype=jnp.int32) <= positions[..., None]
    scores = jnp.where(seen[:, None, None], scores, _MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(query.dtype).reshape(n, k, g * c, span)
    mixed = jnp.einsum("nkqs,nkhs->nkqh", weights, values, preferred_element_type=jnp.float32)
    mixed = mixed / total.reshape(n, k, g * c, 1)  # normalise H numbers instead of S
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
    query = query.transpose(0, 2, 3, 1, 4)  # [N, K, G, L, H]
    keys = keys.transpose(0, 2, 3, 1)  # [N, K, H, L]
    values = values.transpose(0, 2, 1, 3)  # [N, K, L, H]
    blocks = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        size = stop - start
        folded = query[:, :, :, start:stop].reshape(n, k, g * size, h)
        scores = jnp.einsum(
            "nkqh,nkhs->nkqs", folded, keys[..., :stop], preferred_element_type=jnp.float32
        ).reshape(n, k, g, size, stop) * (h**-0.5)
        seen = jnp.arange(stop) <= jnp.arange(start, stop)[:, None]
        weights = jax.nn.softmax(jnp.where(seen, scores, _MASKED), axis=-1)
        mixed = jnp.einsum(
            "nkqs,nksh->nkqh",
            weights.astype(query.dtype).reshape(n, k, g * size, stop),
            values[:, :, :stop],
        )
        blocks.append(mixed.reshape(n, k, g, size, h))
    return jnp.concatenate(blocks, axis=3).transpose(0, 3, 1, 2, 4)
