"""Settings of a training run. Configs live here, at the edge; the maths takes plain arguments."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from reskill_jax.devices.shape import MeshShape
from reskill_jax.training.sections import (
    AlgorithmConfig,
    CreatorConfig,
    EvidenceConfig,
    ModelConfig,
    OptimizerConfig,
    PromptConfig,
    SessionConfig,
    TrialConfig,
)
from reskill_jax.training.validate import validate
from reskill_jax.worlds.settings import RoomSpec

__all__ = [
    "PRESETS",
    "TrainConfig",
    "household",
    "paper",
    "program_of",
    "replace",
    "smallest",
    "tiny",
]

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    name: str = "household"
    """Name of the run: its files lie in <root>/<name>."""
    root: str = "runs"
    """Folder of all runs."""
    seed: int = 0
    """Everything random follows from it."""
    steps: int = 60
    """Training steps."""
    model: ModelConfig = ModelConfig()
    """The language model that is trained."""

    world: str = "household"
    """The world that is played: "household" (compiled), one that `reskill worlds` lists, or
    MODULE:CLASS, a world of one's own."""
    games: str | None = None
    """Where the tasks of the world lie, for worlds that read them from a file or a folder."""
    reward: str | None = None
    """MODULE:FUNCTION, the reward of a finished episode of a world on the host, instead of what
    its session gives. Trials of skills count success all the same."""
    rooms: RoomSpec = RoomSpec()
    """Sizes of the household's rooms."""
    max_turns: int = 20
    """Turns an episode may take."""
    context_length: int = 448
    """Tokens of context; an episode that has no room for another command ends. For a language model
    the command takes 2048 if nothing is said."""
    train_games: int = 2048
    """Number of different games in the training stream."""

    groups: int = 16
    """Tasks per step (B)."""
    group_size: int = 8
    """Rollouts per task (G)."""
    temperature: float = 1.0
    """Of sampling; 0 is greedy."""

    skills: bool = True
    """False is plain GRPO."""
    bank: str | None = None
    """Skills in use from the start: "good" (hand-written), or a folder of SKILL.md folders."""
    internalize: float = 0.5
    """Share of the successes with skills in the prompt that the policy learns from without them, so
    that it makes them its own."""
    policy_from: int = 0
    """First step that updates the policy; before, it is frozen."""
    policy_until: int | None = None
    """First step that does not update it any more; 0 keeps the policy frozen throughout."""
    skills_from: int = 0
    """First step after which new versions of the skills are proposed."""
    skills_until: int | None = None
    """First step after which none is proposed any more; 0 keeps the bank as it is."""
    slots: int = 12
    """Skills that a version of the bank can hold, those under test included (S)."""

    eval_every: int = 10
    """Steps between evaluations; 0 = only at the start and the end."""
    eval_tasks: int = 256
    """Games per evaluation and split."""
    checkpoint_every: int = 10
    """Steps between checkpoints; the last step is always saved."""
    keep: int = 3
    """Checkpoints to keep."""
    keep_best: bool = False
    """Save after every evaluation, and also keep the checkpoint that was best on unseen tasks."""
    log: tuple[str, ...] = ()
    """Where numbers go beside the run's own logs: tensorboard, wandb (each an extra)."""
    mirror: str | None = None
    """A second place for the run, to which every checkpoint is copied and from which --resume
    brings back a run that is not here: gs://, s3://, ..., whatever fsspec knows, or a folder."""

    algorithm: AlgorithmConfig = AlgorithmConfig()
    """What the policy's gradient is computed from."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How the policy follows its gradient."""
    trial: TrialConfig = TrialConfig()
    """How a new version of the skills is compared with the one in use."""
    creator: CreatorConfig = CreatorConfig()
    """When new versions of the skills are proposed, and from what."""
    evidence: EvidenceConfig = EvidenceConfig()
    """What the policy is asked about its own episodes, to see when skills stop being followed."""
    prompt: PromptConfig = PromptConfig()
    """How a model is asked in a world on the host, and where the action is in its answer."""
    sessions: SessionConfig = SessionConfig()
    """How the sessions of a world on the host are run."""
    mesh: MeshShape = MeshShape()
    """Devices to train on."""

    def __post_init__(self) -> None:
        validate(self)

    @property
    def arms(self) -> int:
        """Versions of the bank that can be compared at once (A): every choice of the parts."""
        from reskill_jax.core.factorial import num_arms  # imports jax

        return num_arms(self.trial.concurrent)

    @property
    def policy_steps(self) -> range:
        """The steps that update the policy."""
        end = self.steps if self.policy_until is None else min(self.policy_until, self.steps)
        return range(min(self.policy_from, end), end)

    def proposes(self, step: int) -> bool:
        """Whether new versions of the skills may be proposed after `step` steps."""
        return self.skills_from <= step and self._not_yet_fixed(step)

    def will_propose(self, step: int) -> bool:
        """Whether they may be proposed after `step` steps or later: evidence is still of use."""
        return self._not_yet_fixed(max(step, self.skills_from))

    def looks(self, step: int) -> bool:
        """Whether the policy is asked about its episodes in the step that is then the `step`-th."""
        return self.skills and self.evidence.every > 0 and step % self.evidence.every == 0

    def _not_yet_fixed(self, step: int) -> bool:
        return self.skills and (self.skills_until is None or step < self.skills_until)


def replace(config: T, **changes: Any) -> T:
    """A copy of a configuration with some fields replaced.

    Args:
      config: a frozen dataclass.
      **changes: field -> value; for a group of settings a mapping replaces fields inside it, so
        `replace(config, steps=5, trial=dict(floor=0.1))` leaves the rest of `trial` alone.

    Raises:
      TypeError, ValueError: there is no such field, or the value is not valid.
    """
    made = {
        name: replace(group, **value)
        if isinstance(value, Mapping)
        and dataclasses.is_dataclass(group := getattr(config, name, None))
        else value
        for name, value in changes.items()
    }
    return dataclasses.replace(config, **made)  # type: ignore[type-var]


# What only the host reads: runs that differ in nothing else share one compiled step.
_OF_THE_HOST = (
    *("name", "root", "seed", "bank", "train_games", "skills_from", "skills_until", "creator"),
    *("eval_every", "eval_tasks", "checkpoint_every", "keep", "keep_best"),
    *("mirror", "log", "world", "games", "reward", "prompt", "sessions"),
)
_TRIALS_OF_THE_HOST = ("auto_accept", "retire_margin", "split_bundles")


def program_of(config: TrainConfig) -> TrainConfig:
    """The configuration with all that the compiled step does not depend on at its default."""
    plain = {f.name: f.default for f in dataclasses.fields(config) if f.name in _OF_THE_HOST}
    plain["eval_tasks"] = config.mesh.rows  # fewest that can be split over the devices
    lora = {name: getattr(config.model, name) for name in ("lora_rank", "lora_alpha")}
    plain["model"] = ModelConfig(**lora)
    default = TrialConfig()
    trial = {name: getattr(default, name) for name in _TRIALS_OF_THE_HOST}
    return replace(config, **plain, trial=trial)


_TINY_ROOMS = RoomSpec(receptacles=6, min_receptacles=5, objects=5, min_objects=4)


def household() -> TrainConfig:
    """The default: minutes on a laptop."""
    return TrainConfig()


def paper() -> TrainConfig:
    """The rules of the paper: independent assignment, decision after 5 steps, KL and whitening."""
    return TrainConfig(
        name="paper",
        slots=8,
        internalize=0.0,
        algorithm=AlgorithmConfig(kl_weight=0.01, whiten=True),
        optimizer=OptimizerConfig(final_learning_rate=OptimizerConfig().learning_rate),  # constant
        trial=TrialConfig(
            scheme="independent", rule="means", concurrent=1, floor=0.15, min_steps=5, max_steps=6
        ),
        creator=CreatorConfig(reservoir=100, max_operations=3, retire_after=10**6),
    )


def tiny() -> TrainConfig:
    """A demonstration: skills are proposed, tried and decided about within 16 steps."""
    return TrainConfig(
        name="tiny",
        seed=1,
        steps=16,
        max_turns=12,
        context_length=240,
        rooms=_TINY_ROOMS,
        groups=8,
        group_size=8,
        optimizer=OptimizerConfig(learning_rate=2e-4, final_learning_rate=2e-4),
        trial=TrialConfig(min_episodes=32, max_steps=4),
        creator=CreatorConfig(reservoir=40),
        eval_every=0,
        eval_tasks=128,
    )


def smallest() -> TrainConfig:
    """Every part of a run at its smallest, with nothing to see: to test and time the parts."""
    return TrainConfig(
        name="smallest",
        steps=4,
        max_turns=4,
        context_length=120,
        rooms=_TINY_ROOMS,
        groups=2,
        group_size=4,
        optimizer=OptimizerConfig(minibatches=2),
        trial=TrialConfig(min_steps=1, min_episodes=4, max_steps=2),
        creator=CreatorConfig(reservoir=4),
        eval_every=2,
        eval_tasks=4,
        checkpoint_every=2,
    )


PRESETS = {"household": household, "paper": paper, "tiny": tiny}
"""Name of a preset -> the function that makes its configuration."""
