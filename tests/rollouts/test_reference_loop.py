"""Greedy play against a plain loop that encodes everything anew for every token.

With RESKILL_CHECKPOINT, the folder of a real checkpoint, a few games of it are played as well.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.rollouts.compiled import play
from reskill_jax.training.config import ModelConfig
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.settings import load_policy
from reskill_jax.worlds.household import TextGame, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.reading import text_symbols
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()


@functools.partial(jax.jit, static_argnames="model")
def last_logits(params, tokens, count, *, model):
    """[V] after the first `count` tokens of a row."""
    hidden = model.forward(params, tokens[None])[0]
    return model.logits(params, hidden[count - 1])


def greedy_commands(policy, host, tokens, turns, *, length):
    """Commands of one game, and the least lead of a best candidate over the next."""
    language, commands, margin = policy.language, [], np.inf
    for _ in range(turns):
        tokens = [*tokens, *language.frame.ask]
        if len(tokens) + language.action_tokens(WORLD) > length:
            break
        spelled = {
            (*language.spell(sy.words(c), opening=True), *language.frame.answered): c
            for c in host.admissible()
        }
        written = ()
        while len(spelled) > 1:
            options = sorted({spelling[len(written)] for spelling in spelled})
            if len(options) > 1:
                padded = np.zeros(length, np.int32)
                padded[: len(tokens) + len(written)] = [*tokens, *written]
                logits = np.asarray(
                    last_logits(
                        policy.params, padded, len(tokens) + len(written), model=policy.model
                    )
                )[options]
                best, second = np.sort(logits)[::-1][:2]
                margin = min(margin, best - second)
                options = [options[int(np.argmax(logits))]]
            written = (*written, options[0])
            spelled = {s: c for s, c in spelled.items() if s[: len(written)] == written}
        ((spelling, command),) = spelled.items()
        observation, won = host.step(command)
        commands.append(command)
        tokens = [*tokens, *spelling]
        tokens += language.spell(text_symbols(observation), opening=True)
        if won:
            break
    return commands, margin


def compare(policy, world, bank, *, games, turns, length):
    """Plays in both ways, and compares every command whose choice was no tie."""
    keys = jax.random.split(jax.random.key(7), games)
    made = jax.jit(jax.vmap(functools.partial(world.make, split="seen")))(keys)
    program = functools.partial(
        play,
        world=world,
        model=policy.model,
        language=policy.language,
        max_turns=turns,
        context_length=length,
        temperature=0.0,
    )
    nobody = jnp.full(games, -1, jnp.int32)
    played, record = jax.device_get(jax.jit(program)(keys, policy.params, made, bank, nobody))
    made = jax.device_get(made)
    seen = set()
    for n in range(games):
        game = jax.tree.map(lambda x, n=n: x[n], made)
        host = TextGame.from_pddl(pddl.write(game), task=sy.text(game.task))
        opening = [int(s) for s in record.introductions[n] if s != sy.PAD]
        tokens = [*policy.language.frame.start, *policy.language.spell(opening, opening=True)]
        theirs, margin = greedy_commands(policy, host, tokens, turns, length=length)
        ours = [sy.text(a) for a in record.actions[n, : int(played.turns[n])]]
        assert margin > 1e-5, "a tie decides nothing"
        assert ours == theirs
        seen |= set(ours)
    return seen


def test_greedy_play_of_a_tiny_checkpoint(checkpoint_folder, lab):
    world = HouseholdWorld(spec=lab.config.rooms)
    policy = load_policy(ModelConfig(str(checkpoint_folder)), world)
    # Random weights hardly tell tokens apart; sharper ones depend on their context.
    policy = policy._replace(
        params=jax.tree.map(lambda x: 2.0 * x if x.ndim > 1 else x, policy.params)
    )
    bank = make_bank(lab.config, world, [()])
    seen = compare(policy, world, bank, games=24, turns=3, length=1600)
    assert len(seen) > 8


@pytest.mark.skipif("RESKILL_CHECKPOINT" not in os.environ, reason="needs RESKILL_CHECKPOINT")
def test_greedy_play_of_a_real_checkpoint(lab):
    world = HouseholdWorld(spec=lab.config.rooms)
    policy = load_policy(ModelConfig(os.environ["RESKILL_CHECKPOINT"]), world)
    bank = make_bank(lab.config, world, [()])
    games = int(os.environ.get("RESKILL_CHECKPOINT_GAMES", "24"))
    compare(policy, world, bank, games=games, turns=3, length=640)
