"""What the household study runs: worlds, conditions, and the jobs of each study."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from reskill_jax.algorithms.registry import make_algorithm, options_of
from reskill_jax.training.config import PRESETS, TrainConfig, replace, smallest
from reskill_jax.training.config_file import merged
from reskill_jax.training.sections import ModelConfig
from reskill_jax.worlds.household.generator import RoomSpec

POLICIES = Path(__file__).resolve().parents[1] / "policies"


class StudyError(ValueError):
    """A study that cannot go on; the message is one line."""


@dataclasses.dataclass(frozen=True)
class World:
    """Rooms, and what an episode in them may take."""

    rooms: RoomSpec
    max_turns: int
    context_length: int


def _rooms(receptacles: int, fewest: int, objects: int, least: int) -> RoomSpec:
    return RoomSpec(receptacles, fewest, objects, least)


_SMALLEST = smallest()
WORLDS = {
    "tiny": World(
        _SMALLEST.rooms, _SMALLEST.max_turns, _SMALLEST.context_length
    ),  # to try things out
    "small": World(RoomSpec(), TrainConfig().max_turns, TrainConfig().context_length),
    "medium": World(_rooms(16, 12, 20, 12), 26, 640),
    "large": World(_rooms(26, 20, 34, 22), 36, 960),
}


@dataclasses.dataclass(frozen=True)
class Study:
    """What all conditions share: change the difficulty here, for all alike."""

    world: World = WORLDS["small"]
    worlds: tuple[str, ...] = ("small", "medium", "large")  # of the studies frozen and map
    # Of the map: files in experiments/policies.
    policies: tuple[str, ...] = ("early", "habitual", "shared_mistakes", "particular_mistakes")
    rates: tuple[float, ...] = (1e-4, 3e-4)  # of the map: learning rates
    policy: str = "household"
    steps: int = 40
    groups: int = TrainConfig().groups
    group_size: int = TrainConfig().group_size
    minibatches: int = TrainConfig().optimizer.minibatches
    learning_rate: float = TrainConfig().optimizer.learning_rate
    final_learning_rate: float = TrainConfig().optimizer.final_learning_rate
    eval_every: int = 10
    eval_games: int = 128  # per evaluation and split
    final_games: int = 512  # at the end, the above included
    checkpoint_every: int | None = None  # None: only at the end
    changes: tuple[tuple[str, Any], ...] = ()  # further fields of TrainConfig
    drift_every: int = 10  # steps between measurements of every skill in the bank; 0: none
    drift_games: int = 256  # for each of them
    version_games: int = 512  # for each version that is proposed
    own_games: bool = False  # the final games are the seed's own: no two runs end on the same

    def config(self, **changes: Any) -> TrainConfig:
        """The configuration of a run."""
        shared = dict(
            rooms=self.world.rooms,
            max_turns=self.world.max_turns,
            context_length=self.world.context_length,
            model=ModelConfig(self.policy),
            steps=self.steps,
            groups=self.groups,
            group_size=self.group_size,
            optimizer=dict(
                minibatches=self.minibatches,
                learning_rate=self.learning_rate,
                final_learning_rate=self.final_learning_rate,
            ),
            eval_every=self.eval_every,
            eval_tasks=self.eval_games,
            checkpoint_every=self.checkpoint_every or self.steps,
        )
        return replace(TrainConfig(), **merged(merged(shared, dict(self.changes)), changes))


STUDY = Study()
FROZEN = dataclasses.replace(STUDY, eval_every=5)
FRESH = dataclasses.replace(STUDY, eval_every=0, final_games=2048, own_games=True)
COMPARED = dataclasses.replace(FRESH, final_games=512, drift_every=0)  # algorithms
BLAME = dataclasses.replace(
    STUDY, eval_every=0, final_games=512, own_games=True, drift_every=STUDY.steps, version_games=256
)
QUICK = Study(
    world=WORLDS["tiny"],
    worlds=("tiny",),
    policies=(),
    rates=(1e-4,),
    steps=_SMALLEST.steps,
    groups=_SMALLEST.groups,
    group_size=_SMALLEST.group_size,
    minibatches=_SMALLEST.optimizer.minibatches,
    eval_every=2,
    eval_games=8,
    final_games=16,
    changes=(
        ("creator", {"reservoir": _SMALLEST.creator.reservoir}),
        (
            "trial",
            {n: getattr(_SMALLEST.trial, n) for n in ("min_steps", "min_episodes", "max_steps")},
        ),
    ),
    drift_every=2,
    drift_games=8,
    version_games=16,
)


def paper_rules() -> dict[str, Any]:
    """The rules about skills of the preset `paper`; the optimizer's settings stay those of all."""
    paper, default = (dataclasses.asdict(one) for one in (PRESETS["paper"](), TrainConfig()))
    rules = _changed(paper, default)
    return {name: rules[name] for name in rules if name not in ("name", "algorithm", "optimizer")}


def _changed(values: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _changed(value, default[name]) if isinstance(value, dict) else value
        for name, value in values.items()
        if value != default[name]
    }


# In the order of the queue. Each: the study's settings -> fields of TrainConfig.
CONDITIONS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "grpo": lambda s: {"skills": False},
    "reskill": lambda s: {},
    "auto_accept": lambda s: {"trial": {"auto_accept": True}},
    "fixed_bank": lambda s: {"bank": "good", "skills_until": 0},
    "skills_first": lambda s: {"policy_from": s.steps // 2, "skills_until": s.steps // 2},
    "policy_first": lambda s: {"policy_until": s.steps // 2, "skills_from": s.steps // 2},
    "paper_rules": lambda s: paper_rules(),
    "no_assertions": lambda s: {"creator": {"assertions": False}},
    "uniform": lambda s: {"trial": {"assignment": "uniform"}},
    # The discount decides only where posterior means decide.
    "no_discount": lambda s: merged(paper_rules(), {"trial": {"discount": "none"}}),
    "last_step": lambda s: merged(paper_rules(), {"trial": {"discount": "last_step"}}),
}
# What the fresh study takes away from the method, one thing at a time, or all of it.
ABLATIONS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "one_trial": lambda s: {"trial": {"concurrent": 1}},
    "bundles": lambda s: {"creator": {"max_operations": 3}},
    "not_internalized": lambda s: {"internalize": 0.0},
    "none_of_these": lambda s: {
        "trial": {"concurrent": 1},
        "creator": {"max_operations": 3},
        "internalize": 0.0,
    },
}
# And what it adds to it.
ADDITIONS: dict[str, Callable[[Study], dict[str, Any]]] = {
    "experience": lambda s: {"creator": {"experience": "shipped"}},
    "own_experience": lambda s: {"creator": {"experience": "own"}},
    "no_contradictions": lambda s: {"creator": {"contradictions": False}},
    "control": lambda s: {"trial": {"control": 1}},
    "auto_accept_control": lambda s: {"trial": {"auto_accept": True, "control": 1}},
    "low_floor": lambda s: {"trial": {"floor": 0.15}},
    "retire_soon": lambda s: {"creator": {"retire_after": 10}},
}
# How the creator weighs proposals: the default by contrast, or by where episodes went wrong.
BLAMES: dict[str, Callable[[Study], dict[str, Any]]] = {
    "reskill": CONDITIONS["reskill"],
    "attribution": lambda s: {"creator": {"blame": "attribution"}},
}
VERSIONS = ("reskill", "auto_accept", "no_assertions")
FRESH_CONDITIONS = (
    *("grpo", "reskill", "fixed_bank", *ABLATIONS, *ADDITIONS),
    *("auto_accept", "uniform", "paper_rules"),
)
FIRST_FRESH = 1000  # seeds from here on are the fresh study's alone, and used once


@dataclasses.dataclass(frozen=True)
class Job:
    """One run."""

    study: str
    condition: str
    seed: int
    settings: Study
    config: TrainConfig  # without name and root
    variant: dict[str, str] = dataclasses.field(default_factory=dict)  # e.g. world, policy
    versions: bool = False  # measure single versions as well

    @property
    def name(self) -> str:
        """Of the run folder and the result."""
        return "-".join([*self.variant.values(), self.condition, str(self.seed)])


def cells_of(settings: Study) -> dict[str, Study]:
    """The map: one thing at a time is changed."""
    cells = {"default": settings}
    for rate in settings.rates:
        changed = dataclasses.replace(settings, learning_rate=rate, final_learning_rate=rate)
        cells[f"rate {rate:g}"] = changed
    for name in settings.policies:
        path = str(POLICIES / f"{name}.safetensors")
        cells[f"policy {name}"] = dataclasses.replace(settings, policy=path)
    for name in settings.worlds:
        if WORLDS[name] != settings.world:
            cells[f"rooms {name}"] = dataclasses.replace(settings, world=WORLDS[name])
    return cells


def jobs_of(study: str, settings: Study, seeds: Sequence[int]) -> list:
    """All runs of a study, in the order in which they are worked off."""

    def job(condition, seed, settings=settings, variant=None, versions=False, **changes):
        changes = merged(
            (CONDITIONS | ABLATIONS | ADDITIONS | BLAMES)[condition](settings), changes
        )
        config = settings.config(seed=seed, **changes)
        return Job(study, condition, seed, settings, config, variant or {}, versions)

    def in_world(name: str) -> Study:
        return dataclasses.replace(settings, world=WORLDS[name])

    if study == "main":
        return [job(condition, seed) for seed in seeds for condition in CONDITIONS]
    if study == "fresh":
        return [job(condition, seed) for condition in FRESH_CONDITIONS for seed in seeds]
    if study == "versions":
        return [job(name, seed, versions=True) for seed in seeds for name in VERSIONS]
    if study == "blame":
        return [job(name, seed, versions=True) for seed in seeds for name in BLAMES]
    if study == "frozen":
        return [
            job("reskill", seed, in_world(name), {"world": name}, policy_until=0)
            for seed in seeds
            for name in settings.worlds
        ]
    if study == "map":
        return [
            job(condition, seed, cell, {"cell": name.replace(" ", "-")})
            for seed in seeds
            for name, cell in cells_of(settings).items()
            for condition in ("grpo", "reskill")
        ]
    raise StudyError(f"there is no study {study}")


def weights_digest(policy: str) -> str:
    """SHA-256 of a policy's weights file: results of other weights are not mixed in."""
    if policy.endswith(".safetensors"):
        data = Path(policy).read_bytes()
    else:
        data = resources.files("reskill_jax.models").joinpath(policy + ".safetensors").read_bytes()
    return hashlib.sha256(data).hexdigest()


def explicit(algorithm: dict[str, Any]) -> dict[str, Any]:
    """The settings of an algorithm with those that are not given as it has them."""
    made = make_algorithm(**{"kind": "grpo", **algorithm})
    kind = algorithm.get("kind", "grpo")
    return {"kind": kind} | {name: getattr(made, name) for name in options_of(kind)}


def identity(job: Job) -> dict[str, Any]:
    """What a result must have been made with to stand for a job."""
    config = dataclasses.asdict(job.config)
    # Where a run lies, on which devices and what it keeps makes no difference; nor do settings of
    # worlds on the host.
    apart = ("name", "root", "model", "world", "mesh", "mirror", "keep_best", "log", "games")
    for name in (*apart, "reward", "prompt", "sessions"):
        del config[name]
    config["algorithm"] = explicit(config["algorithm"])
    told = {"config": config, "weights": weights_digest(job.config.model.path)}
    told |= {"final_games": job.settings.final_games}
    if job.settings.own_games:
        told["own_games"] = True
    if job.versions:
        names = ("drift_every", "drift_games", "version_games")
        told["measures"] = {name: getattr(job.settings, name) for name in names}
    return json.loads(json.dumps(told))
