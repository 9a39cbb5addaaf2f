"""An algorithm of one's own, behind the `Algorithm` protocol, in a run.

    python examples/own_algorithm.py
    reskill train --preset tiny --algorithm own_algorithm:BestOfGroup   # the same, in this folder

Best-of-group imitation: only episodes that won are learned from, each with the same weight, and
nothing is clipped. It is GRPO with other targets and another loss, so it inherits the rest. The
world, the rollouts, the optimizer and the comparison of skills are those of `reskill train`.
"""

import argparse
import dataclasses

import jax.numpy as jnp

import reskill_jax
from reskill_jax.algorithms.algorithm import Targets
from reskill_jax.algorithms.grpo import GRPO, rewards_of_groups
from reskill_jax.training.config import replace, tiny


@dataclasses.dataclass(frozen=True)
class BestOfGroup(GRPO):
    """Imitates the episodes of a group that won, where others of it did not."""

    def targets(self, batch, *, group_size, axis_name=None):
        """Advantage 1 for every decision of an episode with the best reward of a mixed group."""
        rewards, valid = rewards_of_groups(batch, group_size)  # [B, G]
        best = jnp.max(jnp.where(valid, rewards, -jnp.inf), axis=1, keepdims=True)
        worst = jnp.min(jnp.where(valid, rewards, jnp.inf), axis=1, keepdims=True)
        imitated = valid & (rewards == best) & (best > worst)
        advantages = imitated.reshape(-1, 1).astype(jnp.float32)
        return Targets(jnp.broadcast_to(advantages, batch.mask.shape))

    def loss(self, scores, batch, targets):
        """The mean negative log-probability of what is imitated."""
        weight = targets.advantages * batch.mask
        loss = -jnp.sum(weight * scores.log_probs) / jnp.maximum(jnp.sum(batch.mask), 1)
        zero = jnp.zeros(())
        return loss, {"kl": zero, "clipped": zero}


def main() -> None:
    """Trains the small policy with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    options = parser.parse_args()
    config = replace(tiny(), name="best-of-group", steps=options.steps, skills=False)
    run = reskill_jax.train(config, algorithm=BestOfGroup())
    print(f"{run.folder}: {run.steps} steps")


if __name__ == "__main__":
    main()
