"""Advantages of GRPO: relative to the group, all arms of the comparison together.

Source: GRPO, arXiv:2402.03300, section 4.1 (outcome supervision); without the division by the
standard deviation: Dr. GRPO, arXiv:2503.20783.
"""

import chex
import jax
import jax.numpy as jnp


def group_relative_advantages(
    rewards: chex.Array,
    *,
    mask: chex.Array | None = None,
    scale_by_std: bool = True,
    eps: float = 1e-6,
) -> chex.Array:
    """Rewards minus the mean of their group, divided by its sample standard deviation.

    A group whose valid rewards are all equal gets exactly 0; a group with a single valid member
    keeps its raw reward; entries outside the mask are 0. Gradients are finite everywhere.

    Args:
      rewards: [B, G] float (integers and bools are converted).
      mask: [B, G] bool, the valid episodes; None = all.
      scale_by_std: divide by the standard deviation (ddof = 1) plus `eps`.
      eps: added to the standard deviation.

    Returns:
      [B, G] float advantages.

    Raises:
      AssertionError: `rewards` is not [B, G] or `mask` has another shape.
    """
    rewards = jnp.asarray(rewards)
    chex.assert_rank(rewards, 2)
    rewards = rewards.astype(jnp.result_type(rewards.dtype, jnp.float32))
    mask = jnp.ones(rewards.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
    chex.assert_equal_shape([rewards, mask])

    # A masked reward may be anything, NaN included, so it is replaced, never multiplied away.
    rewards = jnp.where(mask, rewards, 0)
    count = jnp.sum(mask, axis=1, keepdims=True).astype(rewards.dtype)
    mean = jnp.sum(rewards, axis=1, keepdims=True) / jnp.maximum(count, 1)
    centred = jnp.where(mask, rewards - mean, 0)

    highest = jnp.max(jnp.where(mask, rewards, -jnp.inf), axis=1, keepdims=True)
    lowest = jnp.min(jnp.where(mask, rewards, jnp.inf), axis=1, keepdims=True)
    varies = highest > lowest

    advantages = centred
    if scale_by_std:
        variance = jnp.sum(centred**2, axis=1, keepdims=True) / jnp.maximum(count - 1, 1)
        # The root has an infinite slope at 0; those groups are 0 by definition. A variance that
        # underflows to 0 is treated alike.
        positive = varies & (variance > 0)
        std = jnp.sqrt(jnp.where(positive, variance, 1))
        advantages = jnp.where(positive, centred / (std + eps), 0)
    advantages = jnp.where(varies, advantages, 0)
    return jnp.where(mask, jnp.where(count == 1, rewards, advantages), 0)


def whiten(
    values: chex.Array,
    mask: chex.Array,
    eps: float = 1e-8,
    *,
    axis_name: str | None = None,
) -> chex.Array:
    """Shifts and scales to mean 0 and variance 1 (ddof = 0) over the whole mask.

    Args:
      values: float array of any shape.
      mask: same shape, the entries that count.
      eps: added to the variance.
      axis_name: mapped axis to take the statistics over as well (data parallel).

    Returns:
      Array of the same shape; entries outside the mask are 0.

    Raises:
      AssertionError: the shapes differ.
    """
    values, mask = jnp.asarray(values), jnp.asarray(mask).astype(bool)
    chex.assert_equal_shape([values, mask])
    values = jnp.where(mask, values, 0)

    def total(x):
        x = jnp.sum(x)
        return x if axis_name is None else jax.lax.psum(x, axis_name)

    count = total(mask.astype(values.dtype))
    mean = total(values) / jnp.maximum(count, 1)
    centred = jnp.where(mask, values - mean, 0)
    variance = total(centred**2) / jnp.maximum(count, 1)
    return centred * jax.lax.rsqrt(variance + eps)


def token_advantages(
    advantages: chex.Array,
    token_mask: chex.Array,
    *,
    whitening: bool = False,
    eps: float = 1e-8,
    axis_name: str | None = None,
) -> chex.Array:
    """Spreads one advantage per rollout over its tokens, optionally whitened over the batch.

    Tokens of a rollout whose advantage is exactly 0 (a group without variance, an invalid episode)
    count in the statistics but stay 0: they carry no signal, and a shift would invent one.

    Args:
      advantages: [N] float.
      token_mask: [N, L] bool, the sampled tokens.
      whitening: whiten over all masked tokens.
      eps: see `whiten`.
      axis_name: see `whiten`.

    Returns:
      [N, L] float, 0 outside the mask.

    Raises:
      AssertionError: the shapes do not fit.
    """
    advantages, token_mask = jnp.asarray(advantages), jnp.asarray(token_mask).astype(bool)
    chex.assert_rank([advantages, token_mask], [1, 2])
    chex.assert_equal_shape_prefix([advantages, token_mask], 1)
    spread = jnp.where(token_mask, advantages[:, None], 0)
    if not whitening:
        return spread
    return jnp.where(spread == 0, 0, whiten(spread, token_mask, eps, axis_name=axis_name))
