"""The algorithms by their names."""

import dataclasses
from typing import Any

from .algorithm import Algorithm
from .dpo import DPO
from .family import DAPO, GSPO, RLOO, DrGRPO, GiGPO
from .grpo import GRPO
from .names import KINDS
from .ppo import PPO

__all__ = ["ALGORITHMS", "make_algorithm", "options_of"]

ALGORITHMS: dict[str, Any] = {
    "grpo": GRPO,
    "dr_grpo": DrGRPO,
    "rloo": RLOO,
    "dapo": DAPO,
    "gspo": GSPO,
    "gigpo": GiGPO,
    "ppo": PPO,
    "dpo": DPO,
}
"""Kind of an algorithm -> its class."""
assert tuple(ALGORITHMS) == KINDS


def options_of(kind: str, class_: Any = None) -> tuple[str, ...]:
    """Names of the hyperparameters of an algorithm.

    Args:
      kind: of `ALGORITHMS`, or what a class of one's own is called.
      class_: that class, a dataclass; any other has no hyperparameters here.
    """
    class_ = class_ or ALGORITHMS[kind]
    fields = dataclasses.fields(class_) if dataclasses.is_dataclass(class_) else ()
    return tuple(field.name for field in fields if field.init)


def make_algorithm(kind: str, class_: Any = None, **options: Any) -> Algorithm:
    """An algorithm with some of its hyperparameters set; those that are None stay as they are.

    Args:
      kind, class_: as of `options_of`.
      **options: its hyperparameters.

    Raises:
      ValueError: it has no such hyperparameter.
    """
    given = {name: value for name, value in options.items() if value is not None}
    known = options_of(kind, class_)
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(
            f"algorithm.{unknown[0]} has no effect with algorithm.kind = {kind}, which has "
            f"{', '.join(known) or 'none'}"
        )
    made: Algorithm = (class_ or ALGORITHMS[kind])(**given)
    return made
