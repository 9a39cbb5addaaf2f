"""Causal grouped-query attention over whole sequences.

Shape letters: N rows, L tokens, K key/value heads, G query heads per key/value head, H head width.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np

MASKED = -1e30  # finite: a row without a single key must not turn into NaN


def capped(scores: chex.Array, softcap: float | None) -> chex.Array:
    """Scores, drawn into (-softcap, softcap) by tanh (Gemma 2, arXiv:2408.00118, section 2)."""
    return scores if softcap is None else softcap * jnp.tanh(scores / softcap)


def attend_causal(
    query: chex.Array,
    keys: chex.Array,
    values: chex.Array,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    block: int = 64,
) -> chex.Array:
    """Attention of every token to itself and those before it.

    Queries go in blocks of `block`, each against the keys it can see: almost half of the scores
    are never computed, far more with a window, and the temporaries stay small.

    Args:
      query: [N, L, K, G, H], rotated.
      keys: [N, L, K, H].
      values: [N, L, K, H].
      scale: what queries are multiplied by.
      window: tokens that a token sees, itself included; None = all.
      softcap: of the scores.
      block: queries at a time.

    Returns:
      [N, L, K, G, H], of the query's dtype.
    """
    n, length, k, g, h = query.shape
    dtype = query.dtype
    query = query.transpose(0, 2, 3, 1, 4) * jnp.asarray(scale, dtype)  # [N, K, G, L, H]
    keys = keys.transpose(0, 2, 3, 1)  # [N, K, H, L]
    values = values.transpose(0, 2, 1, 3)  # [N, K, L, H]
    blocks = []
    for start in range(0, length, block):
        stop = min(start + block, length)
        size = stop - start
        first = 0 if window is None else max(0, start - window + 1)
        folded = query[:, :, :, start:stop].reshape(n, k, g * size, h)
        scores = jnp.einsum(
            "nkqh,nkhs->nkqs", folded, keys[..., first:stop], preferred_element_type=jnp.float32
        ).reshape(n, k, g, size, stop - first)
        distance = np.arange(start, stop)[:, None] - np.arange(first, stop)
        seen = (distance >= 0) & (distance < (window or length))
        scores = capped(scores, softcap) + np.where(seen, 0.0, MASKED).astype(np.float32)
        # A softmax that normalises the H sums instead of the weights, and whose peak, which
        # cancels, has no gradient: half the time of jax.nn.softmax, forward and backward.
        weights = jnp.exp(scores - jax.lax.stop_gradient(jnp.max(scores, -1, keepdims=True)))
        mixed = jnp.einsum(
            "nkqs,nksh->nkqh",
            weights.astype(dtype).reshape(n, k, g * size, stop - first),
            values[:, :, first:stop],
            preferred_element_type=jnp.float32,
        ).reshape(n, k, g, size, h)
        blocks.append((mixed / jnp.sum(weights, -1, keepdims=True)).astype(dtype))
    return jnp.concatenate(blocks, axis=3).transpose(0, 3, 1, 2, 4)
