"""Settings of a training run. Configs live here, at the edge; the maths takes plain arguments."""

import dataclasses
from pathlib import Path
from typing import Literal

from reskill_jax.core.factorial import num_arms
from reskill_jax.devices.shape import MeshShape
from reskill_jax.training.validate import validate, validate_model
from reskill_jax.worlds.household.generator import RoomSpec


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The language model that is trained."""

    path: str = "household"
    """Where to start from: "household" (the small policy, shipped), a .safetensors file of
    `reskill pretrain`, or the folder of a checkpoint as the Hub has it (--model PATH)."""
    prompt: Literal["auto", "plain", "chat"] = "auto"
    """How a language model is spoken to: as its chat template says if it has one, or in plain
    text."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of activations and cache of a language model; weights are float32."""
    lora_rank: int = 0
    """Train low-rank adapters of this rank instead of all weights; 0 = all weights."""
    lora_alpha: float = 16.0
    """What adapters add is multiplied by lora_alpha / lora_rank."""

    def __post_init__(self):
        validate_model(self)

    @property
    def is_folder(self) -> bool:
        """Whether it is a checkpoint as the Hub has it, not weights of a small policy."""
        path = self.path
        return not path.endswith(".safetensors") and ("/" in path or Path(path).is_dir())


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

    world: Literal["household"] = "household"
    """The world that is played."""
    rooms: RoomSpec = RoomSpec()
    """Sizes of the household's rooms."""
    horizon: int = 20
    """Turns an episode may take."""
    capacity: int = 448
    """Tokens of context; an episode that has no room for another command ends. For a language model
    the command takes 2048 if nothing is said."""
    train_games: int = 2048
    """Number of different games in the training stream."""

    groups: int = 16
    """Tasks per step (B)."""
    group_size: int = 8
    """Rollouts per task (G)."""
    learning_rate: float = 5e-5
    """Of the first step. The small policy also bears 3e-4, with which it learns faster than skills
    can be tried (docs/results.md)."""
    final_learning_rate: float = 5e-5
    """Of the last step; in between it changes linearly."""
    minibatches: int = 4
    """Optimizer steps per training step."""
    clip_low: float = 0.2
    """How far the ratio of new to old probabilities may fall below 1 and still count."""
    clip_high: float = 0.2
    """How far it may rise above 1."""
    kl_weight: float = 0.0
    """Weight of the k3 divergence from the starting policy."""
    scale_by_std: bool = True
    """Divide advantages by the group's standard deviation."""
    whiten: bool = False
    """Whiten advantages over the batch as well."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""
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
    concurrent_trials: int = 5
    """Proposals under test at once (K); each rollout reads a random choice of them, so that each is
    judged by all rollouts."""
    max_operations: int = 1
    """Changes of the bank that a proposal may make; they are accepted or rejected as one."""
    slots: int = 12
    """Skills that a version of the bank can hold, those under test included (S)."""
    scheme: Literal["stratified", "independent"] = "stratified"
    """How arms are assigned within a group."""
    assignment: Literal["thompson", "uniform"] = "thompson"
    """Whether the better arm gets more rollouts."""
    floor: float = 0.3
    """Least share of an arm under test."""
    discount: Literal["adaptive", "none", "last_step"] = "adaptive"
    """What posteriors forget: as the estimated horizon says, nothing, or all but the last step."""
    trial_rule: Literal["sequential", "means"] = "sequential"
    """How a trial is decided: by a sequential test of the differences within groups, or by the
    posterior means after the fewest steps, as in the paper (docs/decision_rule.md)."""
    trial_gain: float = 0.08
    """Smallest rise of the success rate (in the tasks where the versions differ) that the
    sequential test should hardly ever miss."""
    trial_false_accept: float = 0.1
    """Bound on the chance that it accepts a version that makes no difference."""
    trial_false_reject: float = 0.05
    """Bound on the chance that it rejects one better by trial_gain."""
    min_trial_steps: int = 2
    """Fewest steps before a trial is decided."""
    min_trial_episodes: int = 50
    """Fewest rollouts before a trial is decided."""
    max_trial_steps: int = 16
    """Steps after which a trial is decided by what speaks for either side."""
    auto_accept: bool = False
    """Adopt every proposal without a trial (an ablation)."""
    assertions: bool = True
    """Weigh proposals by the assertions that failures violate; False: by raw contrasts."""
    experience: Literal["off", "watch", "own", "shipped"] = "off"
    """What the creator learns from to tell which proposals are likely to be accepted: nothing, and
    with watch it notes what could be learned; the trials of its run; or these and those of earlier
    runs, which come with the package."""
    least_chance: float = 0.05
    """Chance of being accepted, as experience tells it, below which nothing is proposed."""
    contradictions: bool = True
    """Allow proposals under test at once that ask for different actions at the same moment."""
    reservoir: int = 60
    """Episodes of evidence needed before the creator proposes; it keeps 200 at most."""
    cooldown: int = 1
    """Steps between the end of a trial and the next proposal."""
    retire_after: int = 30
    """Steps a skill serves before a version without it is put to the test."""
    retire_margin: float = 0.04
    """A retirement is accepted if the success rate without the skill is not lower by more. The
    sequential test keeps the skill only when it is shown to add twice that, rather than nothing."""

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
    mirror: str | None = None
    """A second place for the run, to which every checkpoint is copied and from which --resume
    brings back a run that is not here: gs://, s3://, ..., whatever fsspec knows, or a folder."""

    mesh: MeshShape = MeshShape()
    """Devices to train on."""

    def __post_init__(self):
        validate(self)

    @property
    def arms(self) -> int:
        """Versions of the bank that can be compared at once (A): every choice of the parts."""
        return num_arms(self.concurrent_trials)

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

    def _not_yet_fixed(self, step: int) -> bool:
        return self.skills and (self.skills_until is None or step < self.skills_until)


# What only the host reads: runs that differ in nothing else share one compiled step.
_OF_THE_HOST = (
    *("name", "root", "seed", "bank", "train_games", "skills_from", "skills_until"),
    *("auto_accept", "assertions", "reservoir", "cooldown", "retire_after", "retire_margin"),
    *("max_operations", "experience", "least_chance", "contradictions"),
    *("eval_every", "eval_tasks", "checkpoint_every", "keep", "keep_best"),
    "mirror",
)


def program_of(config: TrainConfig) -> TrainConfig:
    """The configuration with all that the compiled step does not depend on at its default."""
    plain = {f.name: f.default for f in dataclasses.fields(config) if f.name in _OF_THE_HOST}
    plain["eval_tasks"] = config.mesh.rows  # fewest that can be split over the devices
    lora = {name: getattr(config.model, name) for name in ("lora_rank", "lora_alpha")}
    plain["model"] = ModelConfig(**lora)
    return dataclasses.replace(config, **plain)  # type: ignore[arg-type]


_TINY_ROOMS = RoomSpec(receptacles=6, min_receptacles=5, objects=5, min_objects=4)


def household() -> TrainConfig:
    """The default: minutes on a laptop."""
    return TrainConfig()


def paper() -> TrainConfig:
    """The rules of the paper: independent assignment, decision after 5 steps, KL and whitening."""
    return TrainConfig(
        name="paper",
        scheme="independent",
        final_learning_rate=TrainConfig().learning_rate,  # constant
        kl_weight=0.01,
        whiten=True,
        trial_rule="means",
        concurrent_trials=1,
        slots=8,
        floor=0.15,
        reservoir=100,
        max_operations=3,
        internalize=0.0,
        min_trial_steps=5,
        max_trial_steps=6,
        retire_after=10**6,
    )


def tiny() -> TrainConfig:
    """A demonstration: skills are proposed, tried and decided about within 16 steps."""
    return TrainConfig(
        name="tiny",
        seed=1,
        steps=16,
        horizon=12,
        capacity=240,
        rooms=_TINY_ROOMS,
        groups=8,
        group_size=8,
        learning_rate=2e-4,
        final_learning_rate=2e-4,
        reservoir=40,
        min_trial_episodes=32,
        max_trial_steps=4,
        eval_every=0,
        eval_tasks=128,
    )


def smallest() -> TrainConfig:
    """Every part of a run at its smallest, with nothing to see: to test and time the parts."""
    return TrainConfig(
        name="smallest",
        steps=4,
        horizon=4,
        capacity=120,
        rooms=_TINY_ROOMS,
        groups=2,
        group_size=4,
        minibatches=2,
        reservoir=4,
        min_trial_steps=1,
        min_trial_episodes=4,
        max_trial_steps=2,
        eval_every=2,
        eval_tasks=4,
        checkpoint_every=2,
    )


PRESETS = {"household": household, "paper": paper, "tiny": tiny}
