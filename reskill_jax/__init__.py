"""GRPO with co-evolving skills in JAX: the pure functions of the method.

They need jax and chex only, and work under jit, vmap and pmap in any train loop. They are imported
when first used, so `import reskill_jax` is quick, and it touches no device.

`train`, `load_model` and `save_model` are here as well; they need the whole of the package.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from reskill_jax.core.reliability import pass_hat_k

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
    "pass_hat_k",
    "probability_best",
    "update_posterior",
    "whiten",
]

_HOMES = {
    "core.advantages": ("group_relative_advantages", "whiten"),
    "core.arms": ("arm_outcomes", "assign_arms", "assignment_probabilities"),
    "core.horizon": ("estimate_horizon", "horizon_log_likelihood"),
    "core.posterior": (
        "BetaPosterior",
        "discount_weight",
        "init_posterior",
        "probability_best",
        "update_posterior",
    ),
    "core.reliability": ("pass_hat_k",),
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
