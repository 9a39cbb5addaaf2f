"""Episodes on the host are those of the compiled world: the same games, noise and skills."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models import weights
from reskill_jax.models.model import Decoder
from reskill_jax.rollouts.compiled import play
from reskill_jax.rollouts.host import HostPlay, play_host
from reskill_jax.rollouts.prompt import SymbolPrompt
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.training.config import ModelConfig, TrainConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.settings import load_policy
from reskill_jax.worlds.household.generator import RoomSpec
from reskill_jax.worlds.household.handwritten import GOOD
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language
from reskill_jax.worlds.sessions.pool import SessionPool, Source
from reskill_jax.worlds.text_games import GameSession, TextGames
from reskill_jax.worlds.world import Outcome


def skill(name, action, kind="general", pattern=None, task=None):
    return Skill(name, "For tests.", action, Trigger(kind, pattern, task))


ROWS = 8
ARMS = np.array([0, 1, -1, 0, 1, 0, 1, -1])
SKILLS = (
    (
        skill("always", "open."),
        skill("after-going", "do not look.", "action_pattern", "^go to .* 1$"),
    ),
    (
        skill("at-first", "if the task says clean, go to sinkbasin.", "beginning"),
        skill("closed", "open.", "observation_pattern", "is closed"),
        skill("put", "examine.", task="put"),
    ),
)


class LookingSession(GameSession):
    """The game of `LookingWorld`."""

    def step(self, action):
        outcome, looked = super().step(action), action == "look"
        return Outcome(outcome.observation, success=looked, done=looked)


class LookingGames(TextGames):
    def open(self, task):
        return LookingSession(task.data, "household")


def keys_of(count, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def same_games(world, rooms, count, *, games=TextGames):
    """The same games for both: arrays [N], the world on the host and its tasks."""
    at = jnp.arange(count) // 2
    keys = jax.vmap(functools.partial(jax.random.fold_in, jax.random.key(1)))(at)
    made = jax.jit(jax.vmap(functools.partial(world.make, split="train")))(keys)
    host = games(engine="household", rooms=rooms, seed=0)
    return made, host, [host.tasks("train")[i // 2] for i in range(count)]


def plan_for(policy, world, *, max_turns, context_length, **told):
    """As a run on the host plays."""
    model, language = policy
    return HostPlay(
        model,
        SymbolPrompt(world, language),
        max_turns=max_turns,
        context_length=context_length,
        answer_tokens=language.action_tokens(world) - len(language.frame.answered),
        decisions=max_turns * language.decisions_per_turn(world),
        overflow_is_invalid=False,
        **told,
    )


def on_host(host, tasks, keys, params, *, plan, slots, temperature):
    skills = [SKILLS[arm] if arm >= 0 else () for arm in ARMS[: len(tasks)]]
    with SessionPool(Source(world=host), workers=0) as pool:
        return play_host(
            tasks, skills, keys, params, pool=pool, plan=plan, slots=slots, temperature=temperature
        )


@pytest.fixture(scope="module")
def looking(lab):
    """temperature, rows -> (on the host, compiled), of the small policy."""
    world, config = lab.world, lab.config
    made, host, tasks = same_games(world, config.rooms, ROWS, games=LookingGames)
    bank = make_bank(config, world, SKILLS)
    plan = plan_for(
        (lab.model, lab.language),
        world,
        max_turns=config.max_turns,
        context_length=config.context_length,
    )

    @functools.lru_cache
    def compiled(temperature):
        return jax.device_get(
            lab.play(keys_of(ROWS), lab.params(), made, bank, ARMS, temperature=temperature)
        )

    def both(temperature, rows):
        found = on_host(
            host,
            tasks,
            keys_of(ROWS),
            lab.params(),
            plan=dataclasses.replace(plan, rows=rows),
            slots=config.slots,
            temperature=temperature,
        )
        return found, compiled(temperature)

    return both


@pytest.mark.parametrize("rows", [None, 3])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_symbols_on_the_host_are_played_as_in_the_compiled_world(
    assert_same, looking, temperature, rows
):
    found, played = looking(temperature, rows)
    assert_same(found.rollouts, played.rollouts)
    assert not found.causes
    ended = {told.ended for told in found.conversations}
    if temperature:
        assert ended >= {"done", "context"}
        assert found.rollouts.fired.any(axis=(0, 1)).sum() >= 3


@pytest.fixture(scope="module")
def checkpoint(checkpoint_folder, lab):
    """A language model that plays the household in tokens of letters."""
    world = HouseholdWorld(spec=lab.config.rooms)
    policy = load_policy(ModelConfig(str(checkpoint_folder)), world)
    # Random weights hardly tell tokens apart; sharper ones depend on their context.
    sharper = jax.tree.map(lambda x: 2.0 * x if x.ndim > 1 else x, policy.params)
    return world, policy._replace(params=sharper)


@pytest.mark.slow
def test_tokens_are_played_as_in_the_compiled_world(assert_same, lab, checkpoint):
    """With skills, and a context that has room for some of the turns."""
    world, policy = checkpoint
    rooms, count, slots = lab.config.rooms, 4, lab.config.slots
    made, host, tasks = same_games(world, rooms, count)
    bank, arms = make_bank(lab.config, world, SKILLS), jnp.asarray(ARMS[:count])
    told = dict(max_turns=3, context_length=1150)
    plan = plan_for((policy.model, policy.language), world, **told)
    compiled = jax.jit(
        functools.partial(play, world=world, model=policy.model, language=policy.language, **told)
    )
    for temperature in (1.0, 0.0):
        keys, heat = keys_of(count, seed=3), jnp.float32(temperature)
        played = jax.device_get(compiled(keys, policy.params, made, bank, arms, temperature=heat))
        found = on_host(
            host, tasks, keys, policy.params, plan=plan, slots=slots, temperature=temperature
        )
        assert_same(found.rollouts, played[0])
        assert found.rollouts.of_skills.any() and not found.causes
        if temperature:
            assert {told.ended for told in found.conversations} == {"context", "turns"}


@pytest.mark.slow
@pytest.mark.parametrize("rows", [None, 5])
def test_the_policy_that_comes_with_the_package_plays_the_same(assert_same, rows):
    rooms = RoomSpec(receptacles=6, min_receptacles=5, objects=5, min_objects=4)
    world, count = HouseholdWorld(spec=rooms), 12
    language = symbol_language(world)
    params, shape, _ = weights.load_pretrained("household")
    made, host, tasks = same_games(world, rooms, count)
    bank = make_bank(TrainConfig(rooms=rooms), world, [(), GOOD[:4]])
    arms = np.array([0, 1, -1] * 4)
    told = dict(max_turns=8, context_length=240)
    plan = plan_for((Decoder(shape), language), world, rows=rows, **told)
    compiled = jax.jit(
        functools.partial(play, world=world, model=Decoder(shape), language=language, **told)
    )
    for temperature in (1.0, 0.0):
        heat = jnp.float32(temperature)
        played = compiled(keys_of(count), params, made, bank, arms, temperature=heat)
        with SessionPool(Source(world=host), workers=0) as pool:
            found = play_host(
                tasks,
                [GOOD[:4] if arm > 0 else () for arm in arms],
                keys_of(count),
                params,
                pool=pool,
                plan=plan,
                slots=bank.kind.shape[1],
                temperature=temperature,
            )
        assert_same(found.rollouts, jax.device_get(played[0]))
