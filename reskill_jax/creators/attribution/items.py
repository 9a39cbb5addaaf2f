"""Evidence as items that people, creators and language models can read."""

import dataclasses
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class EvidenceItem:
    """One piece of evidence about a step of an episode.

    Attributes:
      step: from 0.
      actor: who acted: an agent, or the skill that was in the prompt.
      claim: what is said of the step, e.g. the name of a feature.
      holds: whether the claim is true of the step.
      weight: nats by which it changes the log odds that the step is the cause.
      source: "internal" (of the policy about itself) or "external" (of another model).
      quote: the words of the episode that it rests on.
    """

    step: int
    actor: str
    claim: str
    holds: bool
    weight: float
    source: Literal["internal", "external"]
    quote: str

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)
