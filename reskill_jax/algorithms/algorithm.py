"""What the training step asks of an algorithm.

An algorithm knows neither worlds nor skills: rewards and log-probabilities come in, a loss comes
out. B groups of G rows, N = B * G; T turns, D decisions of a row.
"""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import chex


class Batch(NamedTuple):
    """Rows to learn from."""

    reward: chex.Array  # [N, T] float32
    valid: chex.Array  # [N] bool: rows that count
    turn: chex.Array  # [N, D] int32 in which a decision was taken
    mask: chex.Array  # [N, D] bool: decisions to learn from
    old: chex.Array  # [N, D] float32 log-probabilities, when sampled
    reference: chex.Array | None = None  # [N, D] float32, of the policy to stay near to


class Targets(NamedTuple):
    """What the rewards of whole groups come to."""

    advantages: chex.Array  # [N, D] float32


class Scores(NamedTuple):
    """What the policy gives now; gradients flow through it."""

    log_probs: chex.Array  # [N, D] float32, 0 outside the mask


class Algorithm(Protocol):
    """Hyperparameters, hashable: it is a static argument."""

    @property
    def uses_reference(self) -> bool:
        """Whether the loss needs `Batch.reference`."""
        ...

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """Advantages of a step's rows, the G of a group one behind the other."""
        ...

    def loss(
        self, scores: Scores, batch: Batch, targets: Targets
    ) -> tuple[chex.Array, Mapping[str, chex.Array]]:
        """The mean loss over the decisions of some of the rows, and means worth logging."""
        ...
