"""The family of GRPO: what each member changes of it, and nothing else.

Every one needs groups and no value function.
"""

import dataclasses
from collections.abc import Mapping

import chex
import jax.numpy as jnp

from reskill_jax.core.advantages import leave_one_out_advantages
from reskill_jax.core.anchors import discounted_returns, step_group_advantages
from reskill_jax.core.selection import mixed_groups
from reskill_jax.core.sequences import gspo_loss

from .algorithm import Batch, Scores, Targets
from .grpo import GRPO, rewards_of_groups
from .names import Aggregation

__all__ = ["DAPO", "GSPO", "RLOO", "DrGRPO", "GiGPO"]


@dataclasses.dataclass(frozen=True)
class DrGRPO(GRPO):
    """Dr. GRPO (arXiv:2503.20783, section 3.2): nothing is divided by what differs from row to row.

    Neither by the standard deviation of the group, which favours tasks that are nearly always won
    or lost, nor by the length of the row, which spares long failures.
    """

    scale_by_std: bool = False
    aggregation: Aggregation = "constant"


@dataclasses.dataclass(frozen=True)
class RLOO(GRPO):
    """REINFORCE leave-one-out (arXiv:2402.14740): the baseline is the mean of the others.

    The whole row is one action: its decisions are summed, not averaged. The paper takes a single
    step on every batch and clips nothing; of several minibatches the later ones are off policy, so
    the ratio is bounded here as elsewhere.
    """

    scale_by_std: bool = dataclasses.field(default=False, init=False)
    aggregation: Aggregation = "constant"

    def of_groups(self, rewards: chex.Array, valid: chex.Array) -> chex.Array:
        """See `core.advantages.leave_one_out_advantages`."""
        return leave_one_out_advantages(rewards, mask=valid)


@dataclasses.dataclass(frozen=True)
class DAPO(GRPO):
    """DAPO (arXiv:2503.14476, section 3), with a fixed number of rollouts.

    Attributes:
      clip_high: further away than `clip_low`, so that unlikely decisions can become likely.
      dynamic_sampling: groups whose rewards are all equal do not count in the mean. (The paper
        samples further groups in their place.)
      overlong_filtering: nor do rows that were cut off because the context was full; their rewards
        count in their group.
    """

    clip_high: float = 0.28
    dynamic_sampling: bool = True
    overlong_filtering: bool = True

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """As GRPO's, of some of the rows."""
        found = super().targets(batch, group_size=group_size, axis_name=axis_name)
        counted = batch.valid
        if self.dynamic_sampling:
            rewards, valid = rewards_of_groups(batch, group_size)
            counted = counted & jnp.repeat(mixed_groups(rewards, valid), group_size)
        if self.overlong_filtering and batch.overlong is not None:
            counted = counted & ~batch.overlong
        return found._replace(counted=counted)


@dataclasses.dataclass(frozen=True)
class GSPO(GRPO):
    """GSPO (arXiv:2507.18071, section 4.1): ratios of whole rows, which are clipped as a whole."""

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    aggregation: Aggregation = dataclasses.field(default="sequence", init=False)

    def loss(
        self, scores: Scores, batch: Batch, targets: Targets
    ) -> tuple[chex.Array, Mapping[str, chex.Array]]:
        """See `core.sequences.gspo_loss`."""
        parts = gspo_loss(
            scores.log_probs,
            batch.old,
            targets.advantages[:, 0],
            batch.mask,
            reference_log_probs=batch.reference,
            kl_weight=self.kl_weight,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )
        return parts.loss, {"kl": parts.kl, "clipped": parts.clipped}


@dataclasses.dataclass(frozen=True)
class GiGPO(GRPO):
    """GiGPO (arXiv:2505.10978): beside the episode's advantage one of every turn.

    Turns of a group that began with the same observation are compared with each other by what was
    still to come.

    Attributes:
      discount: of what comes a turn later.
      step_weight: of the turn's advantage (omega).
    """

    discount: float = 0.95
    step_weight: float = 1.0

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """The advantage of a decision is that of its row and that of its turn."""
        found = super().targets(batch, group_size=group_size, axis_name=axis_name)
        if batch.turns is None or batch.observation is None:
            raise ValueError("GiGPO needs the turns and observations of the rows")
        rows, turns = batch.reward.shape
        taken = (jnp.arange(turns)[None, :] < batch.turns[:, None]) & batch.valid[:, None]
        returns = discounted_returns(batch.reward, taken, discount=self.discount)
        of_turns = step_group_advantages(
            *(x.reshape(-1, group_size * turns) for x in (returns, batch.observation, taken)),
            scale_by_std=self.scale_by_std,
        ).reshape(rows, turns)
        of_decisions = jnp.take_along_axis(of_turns, batch.turn, axis=1)
        advantages = found.advantages + self.step_weight * of_decisions
        return found._replace(advantages=jnp.where(batch.mask, advantages, 0.0))
