"""The internal source: the policy scores planted episodes with and without the skill's lines.

What it says of a step is cut into bits, and Beta-Bernoulli tables of these bits are counted, as for
the features that an outsider sees.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from experiments.attribution.episodes import SKILLS, WORLD, Failures
from experiments.attribution.planting import TURNS, Planted
from reskill_jax.creators.attribution.features import StepFeatures
from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.rollouts.compiled import CANDIDATES
from reskill_jax.training.config import ModelConfig
from reskill_jax.training.demonstrations import write_action
from reskill_jax.training.scoring import decision_log_probs
from reskill_jax.training.settings import load_policy
from reskill_jax.worlds.household import engine
from reskill_jax.worlds.language import symbol_language

_CONTEXT = 640
_AT_ONCE = 64
BITS = (
    *("surprise > 0.5", "surprise > 2", "surprise > 4", "next surprise > 2"),
    *("the skill explains it by > 1", "the skill speaks against it by > 1", "surprise before > 2"),
)


@functools.cache
def _scorer():
    policy = load_policy(ModelConfig(), WORLD)
    language = symbol_language(WORLD)
    lines = np.zeros((len(SKILLS), 8), np.int32)
    header = WORLD.language.index(WORLD.skill_header)
    for k, skill in enumerate(SKILLS):
        line = [header, *WORLD.words(skill.action)]
        lines[k, : len(line)] = line

    def write(one: Planted, with_skill):
        """The transcript of an episode, the skill's lines in it or not."""
        read = functools.partial(transcripts.append_symbols, language=language, opening=True)
        row = transcripts.empty(
            capacity=_CONTEXT,
            decisions=TURNS * language.decisions_per_turn(WORLD),
            candidates=CANDIDATES,
        )
        state, opening = WORLD.reset(one.game)
        row = transcripts.append_fixed(row, language.frame.start, jnp.bool_(True))
        row = read(row, opening, jnp.sum(opening != 0, dtype=jnp.int32))
        line = jnp.asarray(lines)[one.directive]
        length = jnp.minimum(one.turns, one.budget)

        def turn(carry, at):
            state, row = carry
            t, command, spelled, seen, fired = at
            active = (t < length) & (row.length + 60 < _CONTEXT)
            spoken = active & fired & with_skill
            told = jnp.where(spoken, jnp.sum(line != 0, dtype=jnp.int32), 0)
            row = read(row, line, told, opening=False)
            row = transcripts.append_fixed(row, language.frame.ask, active)
            row = write_action(
                WORLD,
                language,
                one.game,
                state,
                row,
                spelled,
                turn=t,
                weight=jnp.float32(1),
                active=active,
            )
            moved, _, _ = engine.step(one.game, state, command, max_symbols=1)
            row = read(row, seen, jnp.where(active, jnp.sum(seen != 0, dtype=jnp.int32), 0))
            return (moved, row), None

        times = jnp.arange(TURNS, dtype=jnp.int32)
        steps = (times, one.actions, one.spelled, one.observations, one.fired)
        (_, row), _ = jax.lax.scan(turn, (state, row), steps)
        return row

    def score(params, planted: Planted, with_skill):
        """[E, T] log-probability of every action."""
        rows = jax.vmap(write, in_axes=(0, None))(planted, with_skill)
        used = jnp.arange(rows.position.shape[1]) < rows.count[:, None]
        found = decision_log_probs(params, rows, used, model=policy.model, temperature=1.0)
        turns = jax.nn.one_hot(rows.turn, TURNS) * used[:, :, None]
        return jnp.einsum("ed,edt->et", found, turns)

    return jax.jit(score), policy.params


def log_likelihoods(failures: Failures) -> np.ndarray:
    """[2, E, T]: log-probability of every action without the skill's lines, and with them."""
    score, params = _scorer()
    count = len(failures.causes)
    rows = np.arange(-(-count // _AT_ONCE) * _AT_ONCE) % count
    found = [
        np.stack(
            [
                score(params, jax.tree.map(lambda x, at=at: x[at], failures.planted), with_skill)
                for with_skill in (False, True)
            ]
        )
        for at in rows.reshape(-1, _AT_ONCE)
    ]
    return np.concatenate(found, axis=1)[:, :count]


def internal_features(failures: Failures) -> StepFeatures:
    """What the policy says of every step, as bits."""
    without, with_ = log_likelihoods(failures)
    surprise, explained = -without, with_ - without
    none = np.zeros_like(surprise[:, :1])
    after = np.concatenate([surprise[:, 1:], none], axis=1)
    before = np.concatenate([none, surprise[:, :-1]], axis=1)
    bits = (
        surprise > 0.5,
        surprise > 2,
        surprise > 4,
        after > 2,
        explained > 1,
        explained < -1,
        before > 2,
    )
    steps = failures.features.steps
    return StepFeatures(np.stack(bits, axis=2) & steps[:, :, None], steps)
