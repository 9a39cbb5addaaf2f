"""A run on the host over several devices and processes: who plays what, how it comes together.

Every process plays some of the episodes, in sessions of its own and on its own devices, so that
nobody waits for anybody within an episode. Then all tell each other what was said, and what is
learned from is one array over all devices whose rows never leave the process they were played in.
N rows.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.devices.mesh import fetch, make_mesh, on_mesh, place, row_sharding
from reskill_jax.devices.processes import exchange, greatest
from reskill_jax.devices.shape import MeshShape
from reskill_jax.models.model import Model
from reskill_jax.models.sampling import NO_TOKEN
from reskill_jax.models.sharding import rollout_specs
from reskill_jax.rollouts.conversation import Conversation
from reskill_jax.rollouts.episodes import Rollouts
from reskill_jax.rollouts.host import HostRollouts
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.placing import run_shardings
from reskill_jax.training.settings import TrainingError
from reskill_jax.training.state import TrainState
from reskill_jax.worlds.world import TaskSpec


@dataclasses.dataclass(frozen=True)
class Spread:
    """The devices of a run, and where its state lies on them."""

    mesh: Mesh | None = None  # None = one device of one process
    shardings: TrainState | None = None

    @property
    def own_mesh(self) -> Mesh | None:
        """The devices of this process."""
        return None if self.mesh is None else self.mesh.local_mesh

    def compiled(self, program: Any, *, returns_state: bool = False, **options: Any) -> Any:
        """A program over all devices.

        Args:
          program: a function; what it returns every device gets whole.
          returns_state: whether it returns a pair, of which the first is a state.
          options: of `jax.jit`.
        """
        if self.mesh is None:
            return jax.jit(program, **options)
        whole = NamedSharding(self.mesh, PartitionSpec())
        out = (self.shardings, whole) if returns_state else whole
        return jax.jit(on_mesh(program, self.mesh), out_shardings=out, **options)

    def placed(self, state: TrainState) -> TrainState:
        """A state, every array on the devices where it belongs."""
        return state if self.shardings is None else place(state, self.shardings)

    def everywhere(self, tree: Any) -> Any:
        """Arrays that every device is to have."""
        if self.mesh is None:
            return jax.tree.map(jnp.asarray, tree)
        return place(tree, NamedSharding(self.mesh, PartitionSpec()))

    def keys(self, keys: jax.Array) -> jax.Array:
        """Random keys that every device has, as an array of this process."""
        if self.mesh is None:
            return keys
        data = jnp.asarray(fetch(jax.random.key_data(keys)))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))

    def reads(self, program: Any, model: Model) -> Any:
        """A program that returns parameters as rollouts read them: on the devices of this process.

        Args:
          program: state -> the parameters. model: theirs.
        """
        mesh = self.mesh
        if mesh is None:
            return jax.jit(program)
        compiled = jax.jit(on_mesh(program, mesh))

        def read(state: TrainState) -> Any:
            params = compiled(state)
            specs = rollout_specs(model, params, mesh)
            return multihost_utils.global_array_to_host_local_array(params, mesh, specs)

        return read

    def shares(self, count: int) -> list[np.ndarray]:
        """Of every process the rows of a step that lie with its devices, [n] int each.

        Raises:
          TrainingError: some lie with several processes.
        """
        if self.mesh is None:
            return [np.arange(count)]
        found: list[set[int]] = [set() for _ in range(jax.process_count())]
        for device, (rows,) in row_sharding(self.mesh).devices_indices_map((count,)).items():
            number: int = device.process_index  # type: ignore[attr-defined]
            found[number].update(range(*rows.indices(count)))
        if sum(map(len, found)) != count:
            raise TrainingError(
                "in a world on the host every process plays rows of its own; --mesh.tensor must "
                "not reach over several processes"
            )
        return [np.array(sorted(rows)) for rows in found]

    def rows(self, own: Rollouts, count: int) -> Rollouts:
        """Rollouts of all processes as arrays over all devices.

        Args:
          own: host arrays of the share of this process. count: N.
        """
        mesh = self.mesh
        if mesh is None:
            return jax.tree.map(jnp.asarray, own)
        numbers = self.shares(count)[jax.process_index()]
        most = greatest(own.transcript.support.shape[-1])
        if own.transcript.support.shape[-1] < most:  # nobody here had anything to choose from
            shape = (*own.transcript.position.shape, most)
            support = np.full(shape, NO_TOKEN, np.int32)
            own = own._replace(transcript=own.transcript._replace(support=support))

        def array(value: np.ndarray) -> jax.Array:
            def part(index: Any) -> np.ndarray:
                return value[np.searchsorted(numbers, np.arange(count)[index[0]])]

            shape = (count, *value.shape[1:])
            return jax.make_array_from_callback(shape, row_sharding(mesh), part)

        return jax.tree.map(array, own)


def make_spread(config: TrainConfig, world: Any, model: Model, algorithm: Algorithm) -> Spread:
    """The devices of a run.

    Raises:
      MeshError: they do not suffice.
      TrainingError: the rows of a step lie with several processes.
    """
    if config.mesh == MeshShape() and jax.process_count() == 1:
        return Spread()
    mesh = make_mesh(config.mesh)
    spread = Spread(mesh, run_shardings(config, world, model, algorithm, mesh))
    spread.shares(config.groups * config.group_size)
    return spread


def even_shares(count: int) -> list[np.ndarray]:
    """Of every process about as many episodes of an evaluation."""
    processes = jax.process_count()
    return [np.arange(process, count, processes) for process in range(processes)]


def play_together(
    play: Callable[[np.ndarray], HostRollouts],
    tasks: Sequence[TaskSpec],
    shares: Sequence[np.ndarray],
) -> HostRollouts:
    """Every process plays its share of the episodes; all know what was said in all of them.

    Args:
      play: numbers of episodes -> what was played.
      tasks: N of them, the same in every process.
      shares: of every process the numbers of its episodes.

    Returns:
      The rollouts of this process; of all the conversations, causes, tokens and restarts, and the
      seconds of the slowest.

    Raises:
      OtherProcessError: another process cannot go on.
      TrainingError: the world has other tasks in another process.
    """
    own: list[HostRollouts] = []

    def work() -> bytes:
        own.append(play(shares[jax.process_index()]))
        told = own[0]._asdict() | {"rollouts": None, "causes": None}
        told["conversations"] = [one.to_dict() for one in own[0].conversations]
        return json.dumps(told).encode()

    if jax.process_count() == 1:
        return play(shares[0])
    found = [json.loads(told) for told in exchange(work)]
    conversations: list[Any] = [None] * len(tasks)
    for numbers, told in zip(shares, found, strict=True):
        for number, one in zip(numbers, told["conversations"], strict=True):
            task = tasks[number]
            if one["task"] != task.id:
                raise TrainingError(
                    f"the tasks of the world differ from process to process: {one['task']!r:.60} "
                    f"and {task.id!r:.60} have the same place"
                )
            conversations[number] = Conversation.from_dict(one, task)
    return HostRollouts(
        own[0].rollouts,
        tuple(conversations),
        Counter(one.cause for one in conversations if one.cause),
        {name: max(told["seconds"][name] for told in found) for name in own[0].seconds},
        sum(told["encoded"] for told in found),
        sum(told["restarts"] for told in found),
    )
