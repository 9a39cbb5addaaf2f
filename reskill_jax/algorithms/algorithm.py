"""What the training step asks of an algorithm.

An algorithm knows neither worlds nor skills: rewards and log-probabilities come in, a loss comes
out. B groups of G rows, N = B * G; T turns, D decisions of a row.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import chex

__all__ = ["Algorithm", "Batch", "Scores", "Targets", "ValueHead"]


class Batch(NamedTuple):
    """Rows to learn from. What targets alone need is None where a loss is computed."""

    reward: chex.Array  # [N, T] float32
    valid: chex.Array  # [N] bool: rows that count
    turn: chex.Array  # [N, D] int32 in which a decision was taken
    mask: chex.Array  # [N, D] bool: decisions to learn from
    old: chex.Array  # [N, D] float32 log-probabilities, when sampled
    reference: chex.Array | None = None  # [N, D] float32, of the policy to stay near to
    values: chex.Array | None = None  # [N, D] float32, before the update; see `Algorithm.values`
    turns: chex.Array | None = None  # [N] int32 that were taken
    observation: chex.Array | None = None  # [N, T] int32, equal where what was observed is
    overlong: chex.Array | None = None  # [N] bool: cut off because the context was full


class Targets(NamedTuple):
    """What the rewards of whole groups come to."""

    advantages: chex.Array  # [N, D] float32
    returns: chex.Array | None = None  # [N, D] float32: what values should have been
    counted: chex.Array | None = None  # [N] bool: rows to learn from; None = all
    order: chex.Array | None = (
        None  # [N] int32: rows in the order to learn from; None = as they are
    )


class Scores(NamedTuple):
    """What the policy gives now; gradients flow through it."""

    log_probs: chex.Array  # [N, D] float32, 0 outside the mask
    values: chex.Array | None = None  # [N, D] float32


@dataclasses.dataclass(frozen=True)
class ValueHead:
    """The value function that an algorithm wants beside the policy, and how it learns.

    Attributes:
      width: of its hidden layer.
      learning_rate: of its own optimizer, constant.
      sees_arms: it is told which version of the skills a row reads, beside the text of the row.
    """

    width: int
    learning_rate: float
    sees_arms: bool


class Algorithm(Protocol):
    """Hyperparameters, hashable: it is a static argument."""

    def __hash__(self) -> int: ...

    @property
    def uses_reference(self) -> bool:
        """Whether the loss needs `Batch.reference`."""
        ...

    @property
    def values(self) -> ValueHead | None:
        """The value function it needs for `Batch.values` and `Scores.values`; None = none."""
        ...

    @property
    def needs_groups(self) -> bool:
        """Whether advantages are relative to others of a group, which then needs two rows."""
        ...

    @property
    def rows_together(self) -> int:
        """Rows that follow each other (as `Targets.order` has them) and must not be separated."""
        ...

    @property
    def logs(self) -> tuple[str, ...]:
        """What `loss` logs beside "kl" and "clipped"."""
        ...

    def targets(self, batch: Batch, *, group_size: int, axis_name: str | None = None) -> Targets:
        """Advantages of a step's rows, the G of a group one behind the other."""
        ...

    def weights(self, mask: chex.Array) -> chex.Array:
        """How much rows with these decisions [N, D] count in the mean that `loss` is: [N] int32."""
        ...

    def loss(
        self, scores: Scores, batch: Batch, targets: Targets
    ) -> tuple[chex.Array, Mapping[str, chex.Array]]:
        """The mean loss over some of the rows, by their `weights`, and means worth logging."""
        ...
