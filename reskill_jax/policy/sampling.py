"""Sampling under a mask of allowed tokens."""

import chex
import jax
import jax.numpy as jnp

_MASKED = -1e30


def masked_log_probs(logits: chex.Array, allowed: chex.Array) -> chex.Array:
    """Log-probabilities of the softmax over the allowed tokens only.

    Args:
      logits: [..., V].
      allowed: bool, broadcastable to [..., V].

    Returns:
      float32 [..., V]. Tokens that are not allowed get the finite -1e30, so that `p * log p` and
      gradients stay finite. A row that allows nothing gets -1e30 throughout, with zero gradient.
    """
    chex.assert_type(allowed, bool)
    logits = logits.astype(jnp.float32)
    some = jnp.any(allowed, axis=-1, keepdims=True)
    # A row without any allowed token is computed as if all were, and overwritten below.
    log_probs = jax.nn.log_softmax(jnp.where(allowed | ~some, logits, _MASKED), axis=-1)
    return jnp.where(allowed, log_probs, _MASKED)


def sample(
    key: chex.PRNGKey,
    logits: chex.Array,
    allowed: chex.Array,
    *,
    temperature: float | chex.Array = 1.0,
) -> tuple[chex.Array, chex.Array]:
    """Draws one allowed token per row.

    The log-probability returned is that of the policy (the masked softmax of the logits, i.e. at
    temperature 1) whatever the temperature: it is what the loss recomputes. At temperature 1, the
    one to train at, it is also the density the token was drawn from.

    Args:
      key: random key.
      logits: [..., V].
      allowed: bool [..., V].
      temperature: static or traced scalar (or [...]); 0 is greedy, ties to the lowest id.

    Returns:
      (token [...] int32, log-probability [...] float32). A row that allows nothing gives token 0
      and log-probability 0.
    """
    log_probs = masked_log_probs(logits, allowed)
    temperature = jnp.asarray(temperature, jnp.float32)[..., None]
    greedy = temperature <= 0
    scaled = log_probs / jnp.where(greedy, 1.0, temperature)
    noise = jax.random.gumbel(key, log_probs.shape, jnp.float32)
    scores = jnp.where(greedy, log_probs, jnp.maximum(scaled, _MASKED) + noise)
    # Noise must never lift a forbidden token, not even beside a very low temperature.
    token = _first_of_largest(jnp.where(allowed, scores, -jnp.inf))
    chosen = jnp.take_along_axis(log_probs, token[..., None], axis=-1)[..., 0]
    return token, jnp.where(jnp.any(allowed, axis=-1), chosen, 0.0)


def _first_of_largest(scores: chex.Array) -> chex.Array:
    """Argmax over the last axis as two plain reductions: on CPU a fourth of jnp.argmax's time."""
    size = scores.shape[-1]
    largest = jnp.max(scores, axis=-1, keepdims=True)
    index = jnp.where(scores == largest, jnp.arange(size, dtype=jnp.int32), size - 1)
    return jnp.min(index, axis=-1)
