"""The groups of settings inside a run's configuration: model, algorithm, optimizer, trial, creator.

On the command line a setting is `--group.name`, in a file it is nested under its group.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from reskill_jax.algorithms.names import Aggregation
from reskill_jax.training.validate import validate_section

if TYPE_CHECKING:
    from reskill_jax.algorithms.algorithm import Algorithm

__all__ = [
    "AlgorithmConfig",
    "CreatorConfig",
    "EvidenceConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PromptConfig",
    "SessionConfig",
    "TrialConfig",
]

SHIPPED = ("household",)  # names of the weights in the package


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
    attention: Literal["auto", "xla", "cudnn", "pallas"] = "auto"
    """What attends to whole sequences of a language model: the flash attention of the GPU (cudnn)
    or TPU (pallas) where it can be used, or our own code (xla), which runs anywhere."""
    lora_rank: int = 0
    """Train low-rank adapters of this rank instead of all weights; 0 = all weights."""
    lora_alpha: float = 16.0
    """What adapters add is multiplied by lora_alpha / lora_rank."""

    def __post_init__(self) -> None:
        validate_section(self, "model")

    @property
    def is_folder(self) -> bool:
        """Whether it is a checkpoint as the Hub has it, not weights of a small policy.

        The name of shipped weights means these, even beside a run folder of that name.
        """
        path = self.path
        if path in SHIPPED or path.endswith(".safetensors"):
            return False
        return "/" in path or Path(path).is_dir()


@dataclasses.dataclass(frozen=True)
class AlgorithmConfig:
    """What the policy's gradient is computed from (docs/algorithms.md). Options that are not given
    are as the algorithm has them; one that it does not have is an error."""

    kind: str = "grpo"
    """Which algorithm (--algorithm KIND): grpo, dr_grpo, rloo, dapo, gspo, gigpo, ppo, dpo, or
    MODULE:CLASS, one of your own (docs/your_algorithm.md)."""
    clip_low: float | None = None
    """How far the ratio of new to old probabilities may fall below 1 and still count: 0.2, of gspo
    0.0003."""
    clip_high: float | None = None
    """How far it may rise above 1: 0.2, of dapo 0.28, of gspo 0.0004."""
    kl_weight: float | None = None
    """Weight of the k3 divergence from the starting policy: 0."""
    scale_by_std: bool | None = None
    """Divide advantages by the group's standard deviation: all but dr_grpo do."""
    whiten: bool | None = None
    """Whiten advantages over the batch as well: of these only ppo does."""
    aggregation: Aggregation | None = None
    """How the decisions of a batch become one number: their mean (token), the mean over rollouts of
    the mean in each (sequence), or of their sum over a constant (constant: dr_grpo, rloo)."""
    dynamic_sampling: bool | None = None
    """Of dapo: groups whose rewards are all equal do not count in the mean: true."""
    overlong_filtering: bool | None = None
    """Of dapo: nor do rollouts that were cut off because the context was full: true."""
    discount: float | None = None
    """What a reward is worth a turn earlier (gigpo: 0.95) or a decision earlier (ppo: 1)."""
    step_weight: float | None = None
    """Of gigpo: weight of the advantage among turns that began with the same observation: 1."""
    trace_decay: float | None = None
    """Of ppo: lambda of generalized advantages; 1 trusts the rewards alone, 0 the values: 0.95."""
    value_clip: float | None = None
    """Of ppo: how far an update may move a value; 0, as far as it likes."""
    value_width: int | None = None
    """Of ppo: width of the hidden layer of the value function: 64."""
    value_learning_rate: float | None = None
    """Of ppo: constant rate of the value function's own optimizer: 0.001."""
    value_sees_arms: bool | None = None
    """Of ppo: the value function is told which of the proposals under test a rollout reads, beside
    its text: false."""
    beta: float | None = None
    """Of dpo: how much a departure from the starting policy costs: 0.1."""

    def __post_init__(self) -> None:
        validate_section(self, "algorithm")
        if self.options and not self.is_own:
            self.make()

    @property
    def is_own(self) -> bool:
        """Whether it is one of the user's own; what it needs is found out when a run begins."""
        return ":" in self.kind

    @property
    def options(self) -> dict[str, Any]:
        """The options that are given."""
        values = dataclasses.asdict(self)
        return {
            name: value for name, value in values.items() if name != "kind" and value is not None
        }

    def make(self) -> "Algorithm":
        """The algorithm.

        Raises:
          ValueError: it does not have one of the options that are given. Of one of the user's own
            also WorldNameError and OwnPartError: there is none, or it cannot be used.
        """
        return _made(self)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """How the policy follows its gradient."""

    name: Literal["adam", "adamw", "adafactor", "muon"] = "adam"
    """Which transformation of optax. Adafactor holds the least memory; Muon is for the matrices of
    a model, with Adam for the rest."""
    learning_rate: float = 5e-5
    """Of the first step, after warming up. The small policy also bears 3e-4, with which it learns
    faster than skills can be tried (docs/results.md)."""
    final_learning_rate: float = 5e-5
    """Of the last step."""
    schedule: Literal["linear", "cosine"] = "linear"
    """How the rate goes from the first to the last; with two equal rates it is constant."""
    warmup_steps: int = 0
    """Training steps in which the rate rises from 0."""
    weight_decay: float = 0.0
    """Of adamw and muon: the share of the rate by which weights shrink."""
    minibatches: int = 4
    """Optimizer steps per training step."""
    microbatch: int = 2
    """Rollouts whose gradient is computed at a time, on each device; gradients add up over a
    minibatch. Less takes less memory, and fewer rows are padded to the longest among them."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this norm."""

    def __post_init__(self) -> None:
        validate_section(self, "optimizer")


@dataclasses.dataclass(frozen=True)
class TrialConfig:
    """How a new version of the skills is compared with the one in use."""

    concurrent: int = 5
    """Proposals under test at once (K); each rollout reads a random choice of them, so that each is
    judged by all rollouts."""
    evidence: Literal["within_group", "paired", "evaluation_batch"] = "within_group"
    """Which rollouts versions are compared by: those of a group, each with its own random choice of
    the proposals; the same in pairs of opposite choices for the same task, which needs no groups;
    or further rollouts that serve only the comparison, with training in the bank in use."""
    evaluation_tasks: int = 64
    """Tasks of a step's evaluation batch, each played twice with the same noise: with a random
    choice of the proposals, and with the others."""
    scheme: Literal["stratified", "independent"] = "stratified"
    """How arms are assigned within a group."""
    assignment: Literal["thompson", "uniform"] = "thompson"
    """Whether the better arm gets more rollouts."""
    floor: float = 0.3
    """Least share of an arm under test."""
    discount: Literal["adaptive", "none", "last_step"] = "adaptive"
    """What posteriors forget: as the estimated horizon says, nothing, or all but the last step."""
    rule: Literal["sequential", "means"] = "sequential"
    """How a trial is decided: by a sequential test of the differences within groups, or by the
    posterior means after the fewest steps, as in the paper (docs/decision_rule.md)."""
    gain: float = 0.08
    """Smallest rise of the success rate (in the tasks where the versions differ) that the
    sequential test should hardly ever miss."""
    false_accept: float = 0.1
    """Bound on the chance that it accepts a version that makes no difference."""
    false_reject: float = 0.05
    """Bound on the chance that it rejects one better by `gain`."""
    min_steps: int = 2
    """Fewest steps before a trial is decided."""
    min_episodes: int = 50
    """Fewest rollouts before a trial is decided."""
    max_steps: int = 16
    """Steps after which a trial is decided by what speaks for either side."""
    retire_margin: float = 0.04
    """A retirement is accepted if the success rate without the skill is not lower by more. The
    sequential test keeps the skill only when it is shown to add twice that, rather than nothing."""
    control: int = 0
    """Rollouts of each group that play without skills: they tell at every step what the skills in
    use are worth, and the policy goes on learning to play without. Skills that cost success go
    back to those before them."""
    split_bundles: bool = False
    """Test by parts what would be judged together: the changes of a bundle one by one; and, with
    --evidence.every, each of the skills that fire in the same episodes against a bank without
    it."""
    auto_accept: bool = False
    """Adopt every proposal without a trial (an ablation)."""

    def __post_init__(self) -> None:
        validate_section(self, "trial")


@dataclasses.dataclass(frozen=True)
class CreatorConfig:
    """When new versions of the skills are proposed, by whom, and from what."""

    kind: str = "rules"
    """Who writes skills (--creator KIND): rules, offline; a language model on a server (llm), or
    the one that is trained, as it was at the start (self), beside training; what such a run has
    recorded (replay); or MODULE:CLASS, one of your own (docs/creator.md, docs/your_creator.md)."""
    provider: Literal["openai", "anthropic", "bedrock"] = "openai"
    """How the language model is spoken to: like any OpenAI-compatible server, Anthropic or Amazon
    Bedrock. Keys are read from OPENAI_API_KEY, ANTHROPIC_API_KEY and AWS's own configuration."""
    url: str | None = None
    """Address of the server, e.g. http://localhost:8000/v1; if not given the provider's own."""
    model: str | None = None
    """What the server calls the language model."""
    recording: str | None = None
    """Folder of the run whose replies are replayed."""
    fallback: Literal["none", "rules"] = "none"
    """Who proposes while the language model fails."""
    lag: int | None = None
    """Steps after which its proposals enter, for which training then waits; if not given they enter
    as soon as they are there, and training never waits."""
    contrasts: int = 12
    """Tasks whose episodes it contrasts, a call each, before it proposes."""
    parallel: int = 8
    """Calls at once."""
    reply_tokens: int = 2000
    """Tokens of a reply, at first; after one that was cut off up to four times as many."""
    call_seconds: float = 60.0
    """A call is given up after this time."""
    attempts: int = 3
    """At a usable answer, and at the words of a skill."""
    call_budget: int | None = None
    """Calls that a run may make."""
    token_budget: int | None = None
    """Tokens that it may read and write in them; a pipeline under way may exceed it a little."""
    input_price: float = 0.0
    """Dollars for a million tokens of questions, to tell the cost."""
    output_price: float = 0.0
    """Dollars for a million tokens of answers."""
    reservoir: int = 60
    """Episodes of evidence needed before the creator proposes; it keeps 200 at most."""
    trigger_rate: float = 0.5
    """Share of the episodes in which the trigger of a proposal must fire. Where what matters is
    rare (a film is sponsored, nothing fits) less is needed to learn it."""
    cooldown: int = 1
    """Steps between the end of a trial and the next proposal."""
    assertions: bool = True
    """Weigh proposals by the assertions that failures violate; False: by raw contrasts."""
    blame: Literal["contrast", "attribution"] = "contrast"
    """What failures are put down to when proposals are weighed: what successes do otherwise, or
    where a small model of planted failures says that they went wrong (docs/evidence.md)."""
    max_operations: int = 1
    """Changes of the bank that a proposal may make; they are accepted or rejected as one."""
    experience: Literal["off", "watch", "own", "shipped"] = "off"
    """What the creator learns from to tell which proposals are likely to be accepted: nothing, and
    with watch it notes what could be learned; the trials of its run; or these and those of earlier
    runs, which come with the package."""
    least_chance: float = 0.05
    """Chance of being accepted, as experience tells it, below which nothing is proposed."""
    contradictions: bool = True
    """Allow proposals under test at once that ask for different actions at the same moment."""
    retire_after: int = 30
    """Steps a skill serves before a version without it is put to the test."""

    def __post_init__(self) -> None:
        validate_section(self, "creator")

    @property
    def is_own(self) -> bool:
        """Whether it is one of the user's own."""
        return ":" in self.kind


@dataclasses.dataclass(frozen=True)
class EvidenceConfig:
    """What the policy is asked about its own episodes, to see when skills stop being followed."""

    every: int = 0
    """Steps between two looks (10 costs a few percent of the time); 0 = never. Only in compiled
    worlds, with skills."""
    rows: int = 16
    """Rollouts that are looked at each time."""

    def __post_init__(self) -> None:
        validate_section(self, "evidence")


@dataclasses.dataclass(frozen=True)
class PromptConfig:
    """How a model is asked in a world on the host, and where the action is in its answer."""

    constrained: bool = True
    """Where a session says what is possible, choose among that; else every answer is free text."""
    answer: Literal["whole", "tag", "last_line", "json"] = "whole"
    """Where the action is in a free answer: all of it, between <action> and </action>, its last
    line, or a call {"name": ..., "arguments": {...}}."""
    answer_tokens: int = 64
    """Tokens of a free answer, and of a choice, at most."""
    thinking_tokens: int = 0
    """Tokens that may be thought before an answer; 0 = none."""
    message_tokens: int = 1024
    """Tokens of what the world says at a time; of more the middle is left out."""
    skill_tokens: int = 256
    """Tokens of the skills' lines in a turn at most."""
    invalid_penalty: float = 0.1
    """Taken from the reward of a turn whose answer holds no action."""
    overflow: Literal["invalid", "drop_oldest"] = "invalid"
    """What becomes of an episode whose context is full: it is lost, and says nothing about the
    agent; or its oldest turns are left out, whole ones, until half of the context is free. The task
    stays."""
    contexts: int = 4
    """Contexts that an episode may fill with drop_oldest; each is learned from as it was read."""

    def __post_init__(self) -> None:
        validate_section(self, "prompt")


@dataclasses.dataclass(frozen=True)
class SessionConfig:
    """How the sessions of a world on the host are run."""

    workers: int | None = None
    """Processes that step them; 0 = none, they run in this one; if not given, one per processor."""
    rows: int | None = None
    """Episodes played at once; if not given all of a step, or as many as the world can open."""
    patience: float = 5.0
    """Seconds that episodes which could go on wait for the others."""
    time_limit: float = 60.0
    """Seconds that a step of a session may take; one that takes longer is lost."""
    open_limit: float = 300.0
    """Seconds that opening a session may take, and the start of a worker."""
    max_invalid: float = 0.5
    """Share of a step's episodes that may be lost; with more the run ends."""

    def __post_init__(self) -> None:
        validate_section(self, "sessions")


@functools.cache
def _made(config: AlgorithmConfig) -> "Algorithm":
    # Imported here, as they import jax: a configuration is read at once.
    from reskill_jax.algorithms.registry import make_algorithm
    from reskill_jax.training.own import algorithm_named

    make = algorithm_named if config.is_own else make_algorithm
    return make(config.kind, **config.options)
