"""A tiny policy, a world where something can be won, and the programs that tests share."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import pytest

from reskill_jax.models import decoder, weights
from reskill_jax.models.decoder import DecoderConfig
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.training import loop
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.proposals import put_on_trial
from reskill_jax.training.rollout import rollout
from reskill_jax.training.state import init_state
from reskill_jax.training.step import train_step
from reskill_jax.worlds.household import symbols

POLICY = DecoderConfig(
    vocabulary=symbols.VOCABULARY_SIZE, width=32, layers=1, heads=2, kv_heads=1, mlp=64
)


def program(config, world, *, axis_name=None):
    """The training step as a function of (state, games)."""
    return functools.partial(
        train_step, world=world, policy=POLICY, config=config, axis_name=axis_name
    )


@pytest.fixture(scope="session")
def weights_file(tmp_path_factory):
    """The tiny policy as a file."""
    path = tmp_path_factory.mktemp("policy") / "tiny.safetensors"
    weights.save(path, decoder.init(jax.random.key(3), POLICY), {"made by": "tests"}, POLICY)
    return path


@pytest.fixture(scope="session")
def lab(smallest, weights_file, looking_world):
    """One configuration, and its compiled step and rollout (state arguments are donated)."""
    config = dataclasses.replace(smallest, policy=str(weights_file))
    world = looking_world(spec=config.rooms)
    with pytest.MonkeyPatch.context() as patch:  # the loop's own program, compiled once for both
        patch.setattr(loop, "HouseholdWorld", looking_world)
        step = loop.make_parts(config, POLICY).step
    saved = jax.tree.map(jnp.asarray, weights.load(weights_file)[0])

    def params():
        return jax.tree.map(jnp.copy, saved)

    def state(arms=((),), config=config):
        return init_state(config, params(), make_bank(config, [list(arm) for arm in arms]))

    def on_trial(state, *parts, config=config, kind="bundle"):
        """The state in which the trials of these parts begin."""
        tested = types.SimpleNamespace(kind=kind)
        for part in parts:
            state = put_on_trial(state, part, tested, config)
        return state

    @jax.jit
    def played(keys, params, games, bank, arms, temperature):
        return rollout(
            keys,
            params,
            games,
            bank,
            arms,
            world=world,
            config=POLICY,
            horizon=config.horizon,
            capacity=config.capacity,
            temperature=temperature,
        )

    def play(keys, params, games, bank, arms, temperature=1.0):
        return played(keys, params, games, bank, arms, jnp.float32(temperature))

    def skill(name, action, kind="general", pattern=None):
        return Skill(name, "For tests.", action, Trigger(kind, pattern))

    return types.SimpleNamespace(
        config=config,
        policy=POLICY,
        world=world,
        world_type=looking_world,
        params=params,
        state=state,
        on_trial=on_trial,
        step=step,
        program=program,
        play=play,
        make=jax.jit(jax.vmap(functools.partial(world.make, split="train"))),
        skill=skill,
    )
