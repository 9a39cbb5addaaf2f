"""GRPO: advantages relative to the group, the clipped loss of PPO (arXiv:2402.03300, section 4.1).

What other algorithms without a value function change of it is in files of their own.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import chex
import jax.numpy as jnp

from reskill_jax.core.advantages import group_relative_advantages, whiten
from reskill_jax.core.losses import grpo_loss
from reskill_jax.core.selection import mixed_groups

from .algorithm import Batch, Scores, Targets
from .names import Aggregation

__all__ = ["GRPO", "rewards_of_groups"]


@dataclasses.dataclass(frozen=True)
class GRPO:
    """Hyperparameters of GRPO.

    Attributes:
      scale_by_std: divide advantages by the group's standard deviation.
      whiten: whiten them over the batch as well.
      clip_low, clip_high: how far the ratio of new to old probabilities may leave 1 and count.
      kl_weight: of the k3 divergence from the reference.
      aggregation: how decisions become one number, see `core.losses.aggregate`.
    """

    scale_by_std: bool = True
    whiten: bool = False
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_weight: float = 0.0
    aggregation: Aggregation = "token"

    needs_groups = True
    values = None
    rows_together = 1
    logs: ClassVar[tuple[str, ...]] = ()

    @property
    def uses_reference(self) -> bool:
        """Whether there is a divergence to compute."""
        return self.kl_weight > 0

    def of_groups(self, rewards: chex.Array, valid: chex.Array) -> chex.Array:
        """Advantages [B, G] of episodes with these rewards [B, G]."""
        return group_relative_advantages(rewards, mask=valid, scale_by_std=self.scale_by_std)

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """The same advantage for every decision of a row: of its sum of rewards in its group."""
        rewards, valid = rewards_of_groups(batch, group_size)
        advantages = self.of_groups(rewards, valid).reshape(-1)
        if self.whiten:
            mixed = jnp.repeat(mixed_groups(rewards, valid), group_size) & batch.valid
            advantages = whiten(advantages, mixed, axis_name=axis_name) * mixed
        return Targets(jnp.broadcast_to(advantages[:, None], batch.mask.shape))

    def weights(self, mask: chex.Array) -> chex.Array:
        """The number of decisions; where rows count alike, 1 for those with any."""
        if self.aggregation == "token":
            return jnp.sum(mask, axis=1)
        return jnp.any(mask, axis=1).astype(jnp.int32)

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
            mode=self.aggregation,
        )
        return parts.loss, {"kl": parts.kl, "clipped": parts.clipped}


def rewards_of_groups(batch: Batch, group_size: int) -> tuple[chex.Array, chex.Array]:
    """Sums of rewards [B, G], 0 where a row does not count, and which do [B, G]."""
    valid = batch.valid.reshape(-1, group_size)
    rewards = jnp.sum(batch.reward, axis=1).reshape(valid.shape)
    return jnp.where(valid, rewards, 0.0), valid
