"""A run in a world on the host: jit(assign), sessions, jit(learn).

`assign` and `learn` are the same compiled functions as in a compiled world; between them sessions
are played, see `rollouts.host`. Of several processes each plays its own rows, see
`training.spread`.
"""

import dataclasses
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.creators.creator import Creator
from reskill_jax.creators.episode import Episode
from reskill_jax.devices.processes import OtherProcessError, exchange, greatest
from reskill_jax.models.sharding import gather_for_rollout
from reskill_jax.rollouts.answers import HostPlay
from reskill_jax.rollouts.conversation import Reward
from reskill_jax.rollouts.host import HostRollouts, play_host
from reskill_jax.skills.skill import Skill
from reskill_jax.storage.sampled import choose
from reskill_jax.training.comparison import (
    Comparison,
    Pairs,
    numbers_played,
    pairs_to_evaluate,
)
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.conversations import (
    check_valid,
    episode_of,
    sampled_of,
    versions_differ,
    wrote_text,
)
from reskill_jax.training.creators import creator_of
from reskill_jax.training.evaluate import Evaluation, Mode
from reskill_jax.training.host_plan import plan_of, start_pool, tasks_of
from reskill_jax.training.lifecycle import Versions
from reskill_jax.training.runner import algorithm_of, games_of_step
from reskill_jax.training.settings import Policy, TrainingError, check_fit
from reskill_jax.training.spread import Spread, even_shares, make_spread, play_together
from reskill_jax.training.state import TrainState
from reskill_jax.training.step import Assignment, assign, learn
from reskill_jax.training.step_metrics import StepMetrics
from reskill_jax.training.update import rollout_params
from reskill_jax.worlds.host_worlds import MadeWorld, eval_tasks
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.world import TaskSpec, compiled_of


class HostEvidence(NamedTuple):
    """What a step's episodes were."""

    numbers: np.ndarray  # [B] int32 of the tasks played
    arms: np.ndarray  # [N] int32
    played: HostRollouts
    seconds: float  # of playing


@dataclasses.dataclass(frozen=True)
class HostRunner:
    """What stays the same during a run on the host; the methods are those of `runner.Runner`."""

    config: TrainConfig
    world: Any  # a HostWorld
    policy: Policy  # without its parameters
    algorithm: Algorithm
    creator: Creator[Any]
    pool: SessionPool
    plan: HostPlay
    tasks: Sequence[TaskSpec]  # of training
    reward: Reward | None = None
    spread: Spread = Spread()  # over which devices

    def placed(self, state: TrainState) -> TrainState:
        """The state, every array on the devices where it belongs."""
        return self.spread.placed(state)

    def numbers(self, step: int) -> np.ndarray:
        """[B] int32: numbers of the tasks of a step."""
        games = min(self.config.train_games, len(self.tasks))
        return games_of_step(dataclasses.replace(self.config, train_games=games), step)

    @property
    def compiles(self) -> bool:
        """What is compiled depends on what sessions say: it happens on the way."""
        return False

    def compile(self, state: TrainState) -> float:
        """Nothing is compiled ahead."""
        return 0.0

    @functools.cached_property
    def _assign(self) -> Any:
        program = functools.partial(assign, groups=self.config.groups, config=self.config)
        return self.spread.compiled(program)

    @functools.cached_property
    def _draw_pairs(self) -> Any:
        return self.spread.compiled(functools.partial(pairs_to_evaluate, config=self.config))

    @functools.cached_property
    def _learn(self) -> Any:
        return self.spread.compiled(
            functools.partial(
                learn,
                model=self.policy.model,
                algorithm=self.algorithm,
                config=self.config,
            ),
            returns_state=True,
            donate_argnums=0,
            static_argnames="free_text",
        )

    @functools.cached_property
    def _read(self) -> Any:
        """The parameters as rollouts read them."""
        config, model = self.config, self.policy.model
        return self.spread.reads(
            lambda state: gather_for_rollout(rollout_params(state, config), model), model
        )

    def advance(
        self, state: TrainState, numbers: np.ndarray, versions: Versions
    ) -> tuple[TrainState, StepMetrics, HostEvidence]:
        """One step with the tasks of these numbers; the state is used up.

        Raises:
          TrainingError: too many episodes are invalid.
          OtherProcessError: another process cannot go on.
        """
        config = self.config
        assignment: Assignment = self._assign(state)
        arms, on_trial = np.asarray(assignment.arms), bool(np.any(state.trials.active))
        numbers = np.asarray(numbers_played(jnp.asarray(numbers), jnp.asarray(on_trial), config))
        tasks = [self.tasks[int(number)] for number in numbers]
        differ = versions_differ(versions, tasks)
        began = time.perf_counter()
        shares = self.spread.shares(len(arms))
        played = self._play(state, tasks, arms, assignment.keys, versions, shares)
        compared = None
        if config.skills and config.trial.evidence == "evaluation_batch":
            compared = self._evaluation_batch(state, versions, on_trial)
        seconds = time.perf_counter() - began
        state, metrics = self._learn(
            state,
            self.spread.rows(played.rollouts, len(arms)),
            assignment,
            self.spread.everywhere(differ),
            free_text=bool(greatest(int(wrote_text(played.rollouts)))),
            compared=compared,
        )
        return state, metrics, HostEvidence(numbers, arms, played, seconds)

    def _play(
        self,
        state: TrainState,
        tasks: Sequence[TaskSpec],
        arms: np.ndarray,
        keys: jax.Array,
        versions: Versions,
        shares: Sequence[np.ndarray],
    ) -> HostRollouts:
        """Plays every task with the versions of its share of the arms, one behind the other."""
        config = self.config
        played = self._played(
            [task for task in tasks for _ in range(len(arms) // len(tasks))],
            [versions[arm] if config.skills and arm >= 0 else () for arm in arms],
            self.spread.keys(keys),
            self._read(state),
            shares=shares,
            temperature=config.temperature,
        )
        check_valid(played, config, "a step")
        return played

    def _played(
        self,
        tasks: Sequence[TaskSpec],
        skills: Sequence[Sequence[Skill]],
        keys: jax.Array,
        params: Any,
        *,
        shares: Sequence[np.ndarray],
        temperature: float,
        rows: int | None = None,
    ) -> HostRollouts:
        """Plays episodes, of several processes each its share; `rows` at once at most."""

        def play(numbers: np.ndarray) -> HostRollouts:
            return play_host(
                [tasks[number] for number in numbers],
                [skills[number] for number in numbers],
                keys[numbers],
                params,
                pool=self.pool,
                plan=self.plan if rows is None else dataclasses.replace(self.plan, rows=rows),
                slots=self.config.slots,
                temperature=temperature,
                reward=self.reward,
                mesh=self.spread.own_mesh,
            )

        return play_together(play, tasks, shares)

    def _evaluation_batch(
        self, state: TrainState, versions: Versions, on_trial: bool
    ) -> Comparison:
        """Rollouts that serve only the comparison; none of them valid where nothing is on trial."""
        pairs: Pairs = self._draw_pairs(state)
        drawn = np.asarray(jax.vmap(jax.random.bits)(self.spread.keys(pairs.tasks)))
        drawn = drawn % len(self.tasks)
        tasks = [self.tasks[int(number)] for number in drawn]
        shape = pairs.held.shape[1:]
        success = valid = np.zeros(shape, bool)
        if on_trial:
            arms = np.asarray(pairs.arms)
            played = self._play(state, tasks, arms, pairs.keys, versions, even_shares(len(arms)))
            success = np.reshape([one.success for one in played.conversations], shape)
            valid = np.reshape([one.valid for one in played.conversations], shape)
        differ = versions_differ(versions, tasks)
        return Comparison(pairs.held, *self.spread.everywhere((success, valid, differ)))

    def episodes(self, evidence: Any, step: int, versions: Versions) -> list[Episode]:
        """What the creator sees of a step: as `lifecycle.episodes_of`."""
        found: dict[tuple[int, bool, bool], Episode] = {}
        world = compiled_of(self.world)
        names = None if world is None else world.affordances
        told = zip(evidence.arms, evidence.played.conversations, strict=True)
        for row, (arm, one) in enumerate(told):
            number = int(evidence.numbers[row // self.config.group_size])
            key = (number, bool(arm > 0), one.success)
            if key not in found and one.valid:
                found[key] = episode_of(one, str(number), int(arm), step, names)
        return list(found.values())

    def figures(self, evidence: Any) -> Mapping[str, Any]:
        """What the log keeps of a step beside its metrics."""
        played = evidence.played
        turns = sum(len(one.actions) for one in played.conversations)
        return {
            "turns_per_second": turns / max(evidence.seconds, 1e-9),
            "acting_seconds": played.seconds["acting"],
            "waiting_seconds": played.seconds["waiting"],
            "encoded_tokens": played.encoded,
            "answers_without_action": sum(o.answers_without_action for o in played.conversations),
            "cut_observations": sum(one.cut for one in played.conversations),
            "dropped_turns": sum(one.dropped for one in played.conversations),
            "invalid_causes": dict(played.causes),
            "restarts": played.restarts,
        }

    def evaluate(
        self, state: TrainState, split: str, mode: Mode, versions: Versions
    ) -> Evaluation | None:
        """Plays the tasks of a split once each; None: the world has none of this split.

        Raises:
          TrainingError: too many episodes are invalid.
        """
        arm = {"none": -1, "bank": 0, "candidate": len(versions) - 1}[mode]
        skills = versions[arm] if arm >= 0 else ()
        tasks = eval_tasks(self.world, split, self.config.eval_tasks)
        if not tasks:
            return None
        found = self.play(self._read(state), tasks, skills)
        valid = [one for one in found.conversations if one.valid]
        if not valid:  # as many may be lost as the settings say, but then there is no figure
            raise TrainingError(f"no episode of an evaluation is valid: {found.first_cause}")
        kinds: dict[str, list[bool]] = {}
        for one in valid:
            kinds.setdefault(one.task.kind, []).append(one.success)
        by_kind = {kind: (sum(won), len(won)) for kind, won in sorted(kinds.items()) if kind}
        return Evaluation(
            split=split,
            mode=mode,
            successes=sum(one.success for one in valid),
            episodes=len(valid),
            turns=float(np.mean([len(one.actions) for one in valid])),
            by_task_type=by_kind,
            invalid=len(found.conversations) - len(valid),
            sampled=tuple(
                sampled_of(valid[n], skills) for n in choose([one.success for one in valid])
            ),
        )

    def play(
        self,
        params: Any,
        tasks: Sequence[TaskSpec],
        skills: Sequence[Skill],
        *,
        temperature: float | None = None,
        trial: int = 0,
    ) -> HostRollouts:
        """Plays tasks once each with some skills.

        Args:
          params: as rollouts read them.
          tasks: at least one. skills: in slot order.
          temperature: of sampling; None = that of training.
          trial: of several over the same tasks; each has noise of its own.

        Raises:
          TrainingError: too many episodes are invalid.
        """
        keys = jax.vmap(functools.partial(_eval_key, trial))(jnp.arange(len(tasks)))
        config = self.config
        rows = min(self.plan.rows or len(tasks), config.groups * config.group_size)
        played = self._played(
            tasks,
            [skills] * len(tasks),
            keys,
            params,
            shares=even_shares(len(tasks)),
            temperature=config.temperature if temperature is None else temperature,
            rows=rows,
        )
        check_valid(played, config, "an evaluation")
        return played

    def close(self) -> None:
        """Ends the workers."""
        self.pool.shutdown()


def make_host_runner(
    config: TrainConfig,
    made: MadeWorld,
    policy: Policy,
    *,
    trains: bool = True,
    algorithm: Algorithm | None = None,
    creator: Creator[Any] | None = None,
) -> HostRunner:
    """Starts the workers of a world on the host.

    Args:
      config: of the run.
      made: the world, and where workers get it from.
      policy: that plays.
      trains: whether tasks of training are needed.
      algorithm, creator: of the run; None = those that the configuration names.

    Raises:
      TrainingError: there are no tasks, or policy, world and devices do not fit together.
      PoolError: workers cannot be started. OtherProcessError: another process cannot begin.
    """
    world = made.world
    compiled = compiled_of(world)
    if compiled is not None and policy.prompt is None:
        check_fit(config, policy, compiled)
    algorithm = algorithm_of(config) if algorithm is None else algorithm
    creator = creator_of(config, world) if creator is None else creator
    plan = plan_of(config, world, policy)
    spread = make_spread(config, world, policy.model, algorithm)
    started: list[tuple[Sequence[TaskSpec], SessionPool]] = []

    def start() -> bytes:
        tasks = tasks_of(config, world) if trains else ()
        started.append((tasks, start_pool(config, made)))
        return b""

    try:
        exchange(start)
    except OtherProcessError:
        for _, pool in started:
            pool.shutdown()
        raise
    ((tasks, pool),) = started
    return HostRunner(
        config,
        world,
        policy._replace(params=()),
        algorithm,
        creator,
        pool,
        plan,
        tasks,
        made.reward,
        spread,
    )


def _eval_key(trial: int, index: jax.Array) -> jax.Array:
    """The noise of an evaluation's task, as in a compiled world."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(trial), index), 1)
