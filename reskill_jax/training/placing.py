"""Where the state of a run lies on a mesh."""

from typing import Any

import jax
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.models.model import Model
from reskill_jax.models.sharding import param_specs
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.state import TrainState, init_state, make_optimizer


def state_shardings(state: TrainState, mesh: Mesh, model: Model, config: TrainConfig) -> Any:
    """A pytree like `state`, of shardings: parameters and what goes with them by the rules.

    Args:
      state: a state, or its shape structs. mesh: of devices.
      model: that is trained. config: of the run.
    """

    def placed(specs: Any) -> Any:
        return jax.tree.map(
            lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda x: isinstance(x, PartitionSpec)
        )

    whole = NamedSharding(mesh, PartitionSpec())
    everything = jax.tree.map(lambda _: whole, state)
    if jax.tree.leaves(state.frozen):  # adapters are small: every device holds them whole
        return everything._replace(frozen=placed(param_specs(model, state.frozen, mesh)))
    params = placed(param_specs(model, state.params, mesh))
    return everything._replace(
        params=params,
        reference=params if jax.tree.leaves(state.reference) else state.reference,
        opt_state=optax.tree_map_params(
            make_optimizer(config),
            lambda _, sharding: sharding,
            state.opt_state,
            params,
            transform_non_params=lambda _: whole,
        ),
    )


def run_shardings(
    config: TrainConfig, world: Any, model: Model, algorithm: Algorithm, mesh: Mesh
) -> Any:
    """`state_shardings` of the state that a run begins with; no array is made.

    Args:
      config: of the run. world: that is played. model: that is trained.
      algorithm: that it learns with. mesh: of devices.
    """
    bank = make_bank(config, world, [()])
    like = jax.eval_shape(
        lambda: init_state(
            config,
            model.init(jax.random.key(0)),
            bank,
            width=model.width,
            algorithm=algorithm,
        )
    )
    return state_shardings(like, mesh, model, config)
