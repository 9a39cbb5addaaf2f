"""GRPO with co-evolving skills in JAX: the pure functions of the method.

They need jax and chex only, and work under jit, vmap and pmap in any train loop. Importing this
package is quick and touches no device.
"""

from reskill_jax.core.advantages import group_relative_advantages, whiten
from reskill_jax.core.arms import arm_outcomes, assign_arms, assignment_probabilities
from reskill_jax.core.horizon import estimate_horizon, horizon_log_likelihood
from reskill_jax.core.posterior import (
    BetaPosterior,
    discount_weight,
    init_posterior,
    probability_best,
    update_posterior,
)

__version__ = "0.1.0"

__all__ = [
    "BetaPosterior",
    "arm_outcomes",
    "assign_arms",
    "assignment_probabilities",
    "discount_weight",
    "estimate_horizon",
    "group_relative_advantages",
    "horizon_log_likelihood",
    "init_posterior",
    "probability_best",
    "update_posterior",
    "whiten",
]
