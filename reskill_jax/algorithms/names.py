"""What settings call algorithms and their parts; importing it does not import jax."""

from typing import Literal

__all__ = ["KINDS", "Aggregation"]

KINDS = ("grpo", "dr_grpo", "rloo", "dapo", "gspo", "gigpo", "ppo", "dpo")
"""The algorithms that come with the package."""

Aggregation = Literal["token", "sequence", "constant"]
"""How the decisions of a batch become one number, see `core.losses.aggregate`."""
