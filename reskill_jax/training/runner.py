"""What stays the same during a run in a compiled world: the compiled step, and what goes with it.

A run in a world on the host has `training.host.HostRunner` instead, with the same methods.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.creators.creator import Creator
from reskill_jax.creators.episode import Episode
from reskill_jax.devices.mesh import make_mesh, on_mesh, place, row_sharding
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models.model import Model
from reskill_jax.training.config import TrainConfig, program_of
from reskill_jax.training.creators import creator_of
from reskill_jax.training.evaluate import Evaluation, Mode, evaluate
from reskill_jax.training.lifecycle import Versions, episodes_of
from reskill_jax.training.placing import run_shardings
from reskill_jax.training.settings import Policy, check_fit
from reskill_jax.training.state import TrainState
from reskill_jax.training.step import Evidence, train_step
from reskill_jax.training.step_metrics import StepMetrics
from reskill_jax.training.update import rollout_params
from reskill_jax.worlds.language import Language
from reskill_jax.worlds.world import CompiledWorld


@dataclasses.dataclass(frozen=True)
class Runner:
    """What stays the same during a run."""

    config: TrainConfig
    world: CompiledWorld
    policy: Policy  # without its parameters
    algorithm: Algorithm
    creator: Creator[Any]  # of the skills
    step: Any  # compiled train_step
    shardings: TrainState | None = None  # of the state; None on a single device
    rows: NamedSharding | None = None  # of rollouts

    def placed(self, state: TrainState) -> TrainState:
        """The state, every array on the devices where it belongs."""
        return state if self.shardings is None else place(state, self.shardings)

    def games(self, numbers: np.ndarray) -> jax.Array:
        """[B] int32: numbers of games, on every device."""
        if self.rows is None:
            return jnp.asarray(numbers)
        return place(numbers, NamedSharding(self.rows.mesh, PartitionSpec()))

    def numbers(self, step: int) -> np.ndarray:
        """[B] int32: numbers of the games of a step."""
        return games_of_step(self.config, step)

    @property
    def compiles(self) -> bool:
        """Whether the step can be compiled apart: it is not a function that somebody put around."""
        return hasattr(self.step, "lower")

    def compile(self, state: TrainState) -> float:
        """Compiles the step, whose time is then its own; returns the seconds."""
        began = time.perf_counter()
        self.step.lower(state, self.games(self.numbers(int(state.step)))).compile()
        return time.perf_counter() - began

    def advance(
        self, state: TrainState, numbers: np.ndarray, versions: Versions
    ) -> tuple[TrainState, StepMetrics, Evidence]:
        """One step with the games of these numbers; the state is used up."""
        return self.step(state, self.games(numbers))

    def episodes(self, evidence: Any, step: int, versions: Versions) -> list[Episode]:
        """What the creator sees of a step."""
        names = [[skill.name for skill in version] for version in versions]
        evidence = jax.device_get(evidence)
        return episodes_of(
            evidence,
            evidence.games,
            step,
            names,
            group_size=self.config.group_size,
            world=self.world,
        )

    def figures(self, evidence: Any) -> Mapping[str, Any]:
        """What the log keeps of a step beside its metrics."""
        return {}

    def evaluate(self, state: TrainState, split: str, mode: Mode, versions: Versions) -> Evaluation:
        """Plays the games of a split once each."""
        config = self.config
        return evaluate(
            rollout_params(state, config),
            state.bank,
            world=self.world,
            model=self.policy.model,
            language=self.policy.language,
            split=split,
            mode=mode,
            max_turns=config.max_turns,
            context_length=config.context_length,
            games=config.eval_tasks,
            temperature=config.temperature,
            rows=self.rows,
            at_once=self.policy.games_at_once(config),
            skills={"none": (), "bank": versions[0]}.get(mode, versions[-1]),
        )

    def close(self) -> None:
        """There is nothing to give back."""


def algorithm_of(config: TrainConfig) -> Algorithm:
    """The algorithm that a configuration names."""
    return config.algorithm.make()


@functools.lru_cache(maxsize=8)
def _compiled(
    world: CompiledWorld,
    model: Model,
    language: Language,
    algorithm: Algorithm,
    config: TrainConfig,
) -> tuple[Callable[..., Any], Any, Any]:
    """The compiled step, the shardings of the state, that of rows."""
    program = functools.partial(
        train_step,
        world=world,
        model=model,
        language=language,
        algorithm=algorithm,
        config=config,
    )
    if config.mesh == MeshShape() and jax.process_count() == 1:
        return jax.jit(program, donate_argnums=0), None, None
    mesh = make_mesh(config.mesh)
    shardings, rows = run_shardings(config, world, model, algorithm, mesh), row_sharding(mesh)
    whole = NamedSharding(mesh, PartitionSpec())
    step = jax.jit(
        on_mesh(program, mesh),
        donate_argnums=0,
        in_shardings=(shardings, whole),
        out_shardings=(shardings, whole, whole),
    )
    return step, shardings, rows


def make_runner(
    config: TrainConfig,
    world: CompiledWorld,
    policy: Policy,
    *,
    algorithm: Algorithm | None = None,
    creator: Creator[Any] | None = None,
) -> Runner:
    """Builds the compiled step of a configuration.

    Runs that differ in seed, name and the like share one compiled step, see `program_of`.

    Args:
      config, world, policy: of the run.
      algorithm, creator: of the run; None = those that the configuration names.

    Raises:
      TrainingError: policy, world and settings do not fit together.
    """
    check_fit(config, policy, world)
    algorithm = algorithm_of(config) if algorithm is None else algorithm
    compiled = _compiled(world, policy.model, policy.language, algorithm, program_of(config))
    creator = creator_of(config, world) if creator is None else creator
    return Runner(config, world, policy._replace(params=()), algorithm, creator, *compiled)


def games_of_step(config: TrainConfig, step: int) -> np.ndarray:
    """[B] int32 numbers of the games of a step: every game once per pass, each pass shuffled.

    A function of the step alone, so the position in the stream is the step's number.
    """
    first = step * config.groups
    numbers = np.arange(first, first + config.groups)
    passes, places = np.divmod(numbers, config.train_games)
    orders = {
        p: np.random.default_rng((config.seed, int(p))).permutation(config.train_games)
        for p in np.unique(passes)
    }
    return np.asarray([orders[p][i] for p, i in zip(passes, places, strict=True)], np.int32)
