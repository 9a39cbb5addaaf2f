"""Pretraining on what a world of one's own shows."""

import dataclasses
import functools
import io
import json
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.models.config import DecoderConfig
from reskill_jax.models.weights import load
from reskill_jax.training.demonstrations import demonstrate, spell
from reskill_jax.training.pretraining import PretrainConfig, SmallShape, pretrain
from reskill_jax.training.settings import TrainingError
from reskill_jax.worlds.world import Shown, Step

TEXTS = (
    "",
    "Two buttons.",
    "\n>",
    "\nSkill:",
    " press",
    " 1",
    " 2",
    " leave",
    " right.",
    " wrong.",
)
PROMPT, SKILL, PRESS, ONE, LEAVE, RIGHT, WRONG = 2, 3, 4, 5, 7, 8, 9


class Cursor(NamedTuple):
    """An action, partly spelled."""

    verb: chex.Array  # [] int32, 0 = none yet
    button: chex.Array  # [] int32, 0 = none yet
    done: chex.Array  # [] bool


@dataclasses.dataclass(frozen=True)
class Buttons:
    """One of two buttons is right; nothing but a skill's line says which."""

    language = TEXTS
    spoken = (PRESS, ONE, ONE + 1, LEAVE)
    prompt = TEXTS[PROMPT]
    action_length, decisions_per_turn = 2, 2

    def make(self, key, split):
        return jax.random.randint(key, (), 0, 2)

    def reset(self, task):
        return jnp.int32(0), jnp.array([1, 0], jnp.int32)

    def begin(self, task, state):
        return Cursor(jnp.int32(0), jnp.int32(0), jnp.bool_(False))

    def allowed(self, task, cursor):
        verbs, buttons = jnp.array([PRESS, LEAVE]), jnp.array([ONE, ONE + 1])
        return jnp.zeros(len(TEXTS), bool).at[jnp.where(cursor.verb > 0, buttons, verbs)].set(True)

    def advance(self, task, state, cursor, symbol):
        pressed = cursor.verb > 0
        moved = Cursor(
            jnp.where(pressed, cursor.verb, symbol),
            jnp.where(pressed, symbol, 0),
            pressed | (symbol == LEAVE),
        )
        return jax.tree.map(lambda a, b: jnp.where(cursor.done, a, b), cursor, moved)

    def action(self, task, cursor):
        return jnp.stack([cursor.verb, cursor.button])

    def step(self, task, state, cursor):
        right = cursor.button == ONE + task
        seen = jnp.stack([jnp.where(right, RIGHT, WRONG), 0])
        return state + 1, Step(seen, right.astype(jnp.float32), right, right)


@dataclasses.dataclass(frozen=True)
class ShownButtons(Buttons):
    """With a player that presses the right one, and says so if it talks."""

    demonstrations = "somebody who knows the right button"

    def player(self, key):
        return jax.random.bernoulli(key, 0.75)

    def demonstrate(self, key, task, state, player):
        action = jnp.stack([jnp.int32(PRESS), ONE + task])
        line = jnp.where(player, jnp.concatenate([jnp.array([SKILL]), action]), 0)
        return Shown(line[None], action, jnp.where(player, 1.0, 0.0))


@dataclasses.dataclass(frozen=True)
class Cheating(ShownButtons):
    """With a player that leaves by a button."""

    def demonstrate(self, key, task, state, player):
        shown = super().demonstrate(key, task, state, player)
        return shown._replace(action=jnp.array([LEAVE, ONE], jnp.int32))


@pytest.fixture
def config(tmp_path):
    return PretrainConfig(
        root=str(tmp_path),
        fresh=True,
        shape=SmallShape(width=16, layers=1, heads=2, kv_heads=1, mlp=16),
        max_turns=2,
        context_length=16,
        waves=8,
        episodes=64,
        batch=16,
        learning_rate=3e-2,
        warmup=1,
        save_every=8,
    )


fit = functools.partial(pretrain, console=Console(file=io.StringIO()))


def test_an_episode_is_written_down_as_it_is_shown():
    play = functools.partial(demonstrate, world=ShownButtons(), max_turns=2, context_length=16)
    played = jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 16))
    texts = {
        ("".join(TEXTS[t] for t in row[:length]), tuple(weight[:count].tolist()))
        for row, length, weight, count in zip(
            *(np.asarray(x) for x in (played.transcript.tokens, played.transcript.length)),
            *(np.asarray(x) for x in (played.transcript.weight, played.transcript.count)),
            strict=True,
        )
    }
    assert texts == {
        *((f"Two buttons.\nSkill: press {n}\n> press {n} right.", (1.0, 1.0)) for n in (1, 2)),
        *((f"Two buttons.\n> press {n} right.", (0.0, 0.0)) for n in (1, 2)),
    }
    assert played.won.all() and played.admissible.all() and (played.turns == 1).all()


@pytest.mark.parametrize(
    "action, admissible",
    [
        *(([PRESS, ONE], True), ([LEAVE, 0], True), ([LEAVE, ONE], False), ([PRESS, 0], False)),
        *(([0, 0], False), ([ONE, PRESS], False), ([PRESS, LEAVE], False)),
    ],
)
def test_which_actions_are_admissible(action, admissible):
    world, task = Buttons(), jnp.int32(0)
    cursor, found = jax.jit(lambda action: spell(world, task, jnp.int32(0), action))(
        jnp.array(action, jnp.int32)
    )
    assert bool(found) == admissible
    assert not admissible or world.action(task, cursor).tolist() == action


def test_a_policy_learns_what_another_world_shows(config):
    path = fit(config, world=ShownButtons())
    params, shape, about = load(path)
    assert isinstance(shape, DecoderConfig) and shape.vocabulary == len(TEXTS)
    assert about["data"] == "somebody who knows the right button"
    told = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    assert told[0]["masked"] > 0.2 and told[-1]["masked"] < 0.05
    assert told[-1]["player_success"] == 1.0


def test_a_world_without_demonstrations_is_named(config):
    says = "world Buttons offers no demonstrations .* no demonstrations, player, demonstrate"
    with pytest.raises(TrainingError, match=says):
        fit(config, world=Buttons())


def test_a_world_that_shows_what_it_does_not_allow(config):
    with pytest.raises(TrainingError, match="wave 0: the world demonstrated an action that it"):
        fit(config, world=Cheating())
