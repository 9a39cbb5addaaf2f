"""Settings of `reskill pretrain`; reading them does not import jax."""

import dataclasses

from reskill_jax.training.sections import ModelConfig
from reskill_jax.worlds.settings import Habits, RoomSpec

__all__ = ["PRESETS", "PretrainConfig", "SmallShape", "small"]


@dataclasses.dataclass(frozen=True)
class SmallShape:
    """Sizes of a small policy with random weights (--fresh)."""

    width: int = 64
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    mlp: int = 192


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """Fit a model to demonstrations. Writes ROOT/NAME/, the model as `model` in it."""

    name: str = "pretrain"
    """Name of the run: its files lie in ROOT/NAME."""
    root: str = "runs"
    """Folder of all runs."""
    seed: int = 0
    """Everything random follows from it."""
    world: str = "household"
    """The compiled world whose demonstrations are learned from, or MODULE:CLASS."""
    model: ModelConfig = ModelConfig()
    """The model to start from."""
    fresh: bool = False
    """Start from a small policy with random weights instead."""
    shape: SmallShape = SmallShape()
    """Of the fresh policy."""
    rooms: RoomSpec = RoomSpec()
    """Sizes of the household's rooms."""
    habits: Habits = Habits()
    """Of the player that is imitated: the chance of each slip when it can happen."""
    max_turns: int = 20
    """Turns of an episode."""
    context_length: int = 2048
    """Tokens of an episode; what lies beyond is not learned."""
    waves: int = 20
    """Waves of fresh episodes."""
    episodes: int = 64
    """Episodes of a wave."""
    batch: int = 8
    """Episodes of an optimizer step."""
    learning_rate: float = 1e-4
    """After the warm-up."""
    final_learning_rate: float = 1e-5
    """Of the last step; in between it falls linearly."""
    warmup: int = 20
    """Optimizer steps in which the rate rises from 0."""
    weight_decay: float = 0.01
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    unmasked_share: float = 0.1
    """Weight of the likelihood among all tokens, beside that among the admissible ones."""
    sharpen: float = 1.0
    """Temperature that is folded into the weights written at the end; below 1 plays more surely."""
    save_every: int = 5
    """Waves between checkpoints."""

    def __post_init__(self) -> None:
        sizes = ("max_turns", "context_length", "waves", "episodes", "batch", "save_every")
        for field in sizes:
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.episodes % self.batch:
            raise ValueError(f"{self.episodes} episodes do not split into batches of {self.batch}")
        if not self.sharpen > 0:
            raise ValueError(f"sharpen must be positive, got {self.sharpen}")


def small() -> PretrainConfig:
    """The settings with which small policies like the shipped one are made, in an hour."""
    return PretrainConfig(
        fresh=True,
        max_turns=24,
        context_length=512,
        waves=280,
        episodes=512,
        batch=32,
        learning_rate=2.5e-3,
        final_learning_rate=5e-5,
        warmup=200,
        sharpen=0.65,
        save_every=10,
    )


PRESETS = {"model": PretrainConfig, "small": small}
"""Name of a preset -> the function that makes its configuration."""
