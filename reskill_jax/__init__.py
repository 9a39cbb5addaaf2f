"""GRPO with co-evolving skills in JAX: the pure functions of the method.

They need jax and chex only, and work under jit, vmap and pmap in any train loop. They are imported
when first used, so `import reskill_jax` is quick, and it touches no device.

`train`, `load_model` and `save_model` are here as well; they need the whole of the package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reskill_jax.core.advantages import (
        group_relative_advantages,
        leave_one_out_advantages,
        whiten,
    )
    from reskill_jax.core.anchors import discounted_returns, step_group_advantages
    from reskill_jax.core.arms import arm_outcomes, assign_arms, assignment_probabilities
    from reskill_jax.core.gae import generalized_advantages, rewards_of_decisions, value_losses
    from reskill_jax.core.horizon import estimate_horizon, horizon_log_likelihood
    from reskill_jax.core.losses import aggregate, clipped_surrogate, grpo_loss, k3_divergence
    from reskill_jax.core.off_policy import truncated_importance_weights
    from reskill_jax.core.posterior import (
        BetaPosterior,
        discount_weight,
        init_posterior,
        probability_best,
        update_posterior,
    )
    from reskill_jax.core.preferences import dpo_loss, preference_losses, rank_pairs
    from reskill_jax.core.reliability import pass_hat_k
    from reskill_jax.core.selection import mixed_groups, overlong_penalty, without_overlong
    from reskill_jax.core.sequences import gspo_loss, sequence_log_ratios

__version__ = "0.1.0"

__all__ = [
    "BetaPosterior",
    "aggregate",
    "arm_outcomes",
    "assign_arms",
    "assignment_probabilities",
    "clipped_surrogate",
    "discount_weight",
    "discounted_returns",
    "dpo_loss",
    "estimate_horizon",
    "generalized_advantages",
    "group_relative_advantages",
    "grpo_loss",
    "gspo_loss",
    "horizon_log_likelihood",
    "init_posterior",
    "k3_divergence",
    "leave_one_out_advantages",
    "mixed_groups",
    "overlong_penalty",
    "pass_hat_k",
    "preference_losses",
    "probability_best",
    "rank_pairs",
    "rewards_of_decisions",
    "sequence_log_ratios",
    "step_group_advantages",
    "truncated_importance_weights",
    "update_posterior",
    "value_losses",
    "whiten",
    "without_overlong",
]

_HOMES = {
    "core.advantages": ("group_relative_advantages", "leave_one_out_advantages", "whiten"),
    "core.anchors": ("discounted_returns", "step_group_advantages"),
    "core.arms": ("arm_outcomes", "assign_arms", "assignment_probabilities"),
    "core.gae": ("generalized_advantages", "rewards_of_decisions", "value_losses"),
    "core.horizon": ("estimate_horizon", "horizon_log_likelihood"),
    "core.losses": ("aggregate", "clipped_surrogate", "grpo_loss", "k3_divergence"),
    "core.off_policy": ("truncated_importance_weights",),
    "core.posterior": (
        "BetaPosterior",
        "discount_weight",
        "init_posterior",
        "probability_best",
        "update_posterior",
    ),
    "core.preferences": ("dpo_loss", "preference_losses", "rank_pairs"),
    "core.reliability": ("pass_hat_k",),
    "core.selection": ("mixed_groups", "overlong_penalty", "without_overlong"),
    "core.sequences": ("gspo_loss", "sequence_log_ratios"),
    # Not among the names of `import *`, which asks for jax and chex alone.
    "models.checkpoint": ("load_model", "save_model"),
    "training.loop": ("train",),
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first asked for (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f"reskill_jax.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
