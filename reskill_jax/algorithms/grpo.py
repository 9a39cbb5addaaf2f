"""GRPO: advantages relative to the group, the clipped loss of PPO (arXiv:2402.03300, section 4.1).

Without division by the standard deviation it is Dr. GRPO's advantage (arXiv:2503.20783).
"""

import dataclasses
from collections.abc import Mapping

import chex
import jax.numpy as jnp

from reskill_jax.core.advantages import group_relative_advantages, whiten
from reskill_jax.core.losses import grpo_loss

from .algorithm import Batch, Scores, Targets


@dataclasses.dataclass(frozen=True)
class GRPO:
    """Hyperparameters of GRPO.

    Attributes:
      scale_by_std: divide advantages by the group's standard deviation.
      whiten: whiten them over the batch as well.
      clip_low, clip_high: how far the ratio of new to old probabilities may leave 1 and count.
      kl_weight: of the k3 divergence from the reference.
    """

    scale_by_std: bool = True
    whiten: bool = False
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_weight: float = 0.0

    @property
    def uses_reference(self) -> bool:
        """Whether there is a divergence to compute."""
        return self.kl_weight > 0

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """The same advantage for every decision of a row: of its sum of rewards in its group."""
        valid = batch.valid.reshape(-1, group_size)
        rewards = jnp.sum(batch.reward, axis=1).reshape(valid.shape)
        rewards = jnp.where(valid, rewards, 0.0)
        advantages = group_relative_advantages(
            rewards, mask=valid, scale_by_std=self.scale_by_std
        ).reshape(-1)
        if self.whiten:
            mixed = jnp.repeat(several_outcomes(rewards, valid), group_size) & batch.valid
            advantages = whiten(advantages, mixed, axis_name=axis_name) * mixed
        return Targets(jnp.broadcast_to(advantages[:, None], batch.mask.shape))

    def loss(
        self, scores: Scores, batch: Batch, targets: Targets
    ) -> tuple[chex.Array, Mapping[str, chex.Array]]:
        """See `core.losses.grpo_loss`."""
        parts = grpo_loss(
            scores.log_probs,
            batch.old,
            targets.advantages,
            batch.mask,
            reference_log_probs=batch.reference,
            kl_weight=self.kl_weight,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
        return parts.loss, {"kl": parts.kl, "clipped": parts.clipped}


def several_outcomes(rewards: chex.Array, valid: chex.Array) -> chex.Array:
    """Groups whose valid rows differ in their reward, the only ones with a gradient.

    Args:
      rewards: [B, G] float. valid: [B, G] bool.

    Returns:
      [B] bool.
    """
    most = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=1)
    least = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=1)
    return most > least
