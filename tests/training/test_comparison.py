"""Versions compared without groups: in pairs, and by rollouts that serve nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.core.trial import idle_trial, start_trial
from reskill_jax.training.comparison import (
    Comparison,
    assign_pairs,
    compare,
    comparison_of,
    numbers_played,
)
from reskill_jax.training.config import TrainConfig, replace

PARTS = 3


def trials(active):
    """Parts of which some are under test."""
    started = start_trial(2, jnp.ones(2, bool), max_steps=4)
    idle = idle_trial(2, max_steps=4)
    each = [started if on else idle for on in active]
    return jax.tree.map(lambda *x: jnp.stack(x), *each)


def test_the_two_of_a_pair_choose_oppositely():
    keys = jax.random.split(jax.random.key(0), PARTS)
    draw = jax.jit(assign_pairs, static_argnames="pairs")
    share, held = draw(keys, trials([True, False, True]), pairs=500)
    assert held.shape == (PARTS, 500, 2) and held.dtype == jnp.int32
    np.testing.assert_array_equal(
        np.asarray(held).sum(axis=2), np.repeat([[1], [0], [1]], 500, axis=1)
    )
    np.testing.assert_allclose(share, [[0.5, 0.5], [1.0, 0.0], [0.5, 0.5]])
    first = np.asarray(held)[[0, 2], :, 0]
    assert first.mean(axis=1) == pytest.approx([0.5, 0.5], abs=0.07)
    assert (first[0] == first[1]).mean() == pytest.approx(0.5, abs=0.07)  # parts are independent


def paired(**changes):
    return replace(
        TrainConfig(),
        group_size=1,
        algorithm=dict(kind="ppo"),
        trial=dict(evidence="paired", concurrent=2),
        **changes,
    )


def test_pairs_play_the_same_task_while_something_is_on_trial():
    config, numbers = paired(groups=4), jnp.array([7, 3, 5, 2])
    np.testing.assert_array_equal(numbers_played(numbers, jnp.array(True), config), [7, 7, 5, 5])
    np.testing.assert_array_equal(numbers_played(numbers, jnp.array(False), config), numbers)
    whole = replace(config, group_size=2)
    np.testing.assert_array_equal(numbers_played(numbers, jnp.array(True), whole), numbers)


def test_pairs_by_hand():
    # Six rollouts of three tasks; the first part makes a difference in the first and last alone.
    config = paired(groups=6, optimizer=dict(minibatches=2))
    held = jnp.array([[1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 1, 0]])[:, :, None]
    success = jnp.array([True, False, True, False, False, True])
    valid = jnp.array([True, True, True, True, True, False])
    differ = jnp.array([[0, 1, 1, 1]] * 2 + [[0, 0, 1, 1]] * 2 + [[0, 1, 1, 1]] * 2, bool)
    rollouts = comparison_of(held, success, valid, differ, config)
    assert rollouts.held.shape == (2, 3, 2) and rollouts.differ.shape == (3, 4)
    won, tried, contrast = jax.jit(compare)(rollouts)
    np.testing.assert_array_equal(tried, [[2, 3], [2, 3]])
    np.testing.assert_array_equal(won, [[1, 1], [2, 0]])
    # Of the first part the first pair counts (the last lacks a rollout): 1 against 0 expected 1/2.
    np.testing.assert_allclose(contrast.score[:, 1], [0.5, -1.0])
    np.testing.assert_allclose(contrast.weight[:, 1], [0.5, 1.0])
    np.testing.assert_allclose(contrast.variance[:, 1], [0.25, 0.5])


def test_nothing_valid_compares_nothing():
    none = jnp.zeros((4, 2), bool)
    rollouts = Comparison(jnp.ones((2, 4, 2), jnp.int32), ~none, none, jnp.ones((4, 4), bool))
    for x in jax.tree.leaves(compare(rollouts)):
        assert not np.any(x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial": {"evidence": "within_group"}}, "group_size must be at least 2 for trial.evid"),
        ({"groups": 15, "optimizer": {"minibatches": 1}}, "cannot be split into pairs"),
        ({"group_size": 3}, "group_size must be even, or 1"),
        ({"algorithm": {"kind": "grpo"}}, "has none to be compared with"),
        (
            {"trial": {"evidence": "evaluation_batch", "evaluation_tasks": 1, "min_episodes": 64}},
            r"more than 2 \* trial.evaluation_tasks",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(paired(), **changes)


def test_pairs_of_an_algorithm_need_an_even_group():
    with pytest.raises(ValueError, match="group_size must be even for algorithm.kind = dpo"):
        replace(TrainConfig(), group_size=5, algorithm=dict(kind="dpo"))
    with pytest.raises(ValueError, match="cannot be split into pairs on 1 devices"):
        replace(TrainConfig(), algorithm=dict(kind="dpo"), optimizer=dict(minibatches=128))


# --- in the compiled step ------------------------------------------------------------------------


def steps(lab, config, count=3, then=0):
    """What some steps report with one part on trial, after one without; and further steps."""
    program = jax.jit(lab.program(config, lab.world), donate_argnums=0)
    parts = [[], [lab.skill("look", "look.")]]
    arms = [parts[arm & 1] for arm in range(config.arms)]
    state, found = lab.state(arms, config), []
    for step in range(count):
        games = jnp.arange(config.groups, dtype=jnp.int32) + config.groups * step
        state, metrics, evidence = program(state, games)
        found.append(jax.device_get((metrics, evidence)))
        if step == 0:
            state = lab.on_trial(state, 0, config=config)
    assert program._cache_size() == 1
    for step in range(count, count + then):
        games = jnp.arange(config.groups, dtype=jnp.int32) + config.groups * step
        state, metrics, _ = program(state, games)
        found.append((jax.device_get(metrics), None))
    return found


def test_ppo_without_groups_compares_in_pairs(lab):
    config = replace(
        lab.config,
        groups=16,
        group_size=1,
        optimizer=dict(learning_rate=3e-3, final_learning_rate=3e-3),
        algorithm=dict(kind="ppo", value_sees_arms=True),
        trial=dict(evidence="paired"),
    )
    (idle, alone), (metrics, evidence), *later = steps(lab, config, then=20)
    assert not idle.arm_trials[:, 1].any() and len(set(alone.games.tolist())) == 16
    games, arms = evidence.games.reshape(8, 2), evidence.arms.reshape(8, 2)
    assert (games[:, 0] == games[:, 1]).all() and len(set(games[:, 0].tolist())) == 8
    assert (np.sort(arms, axis=1) == [0, 1]).all()
    np.testing.assert_array_equal(metrics.arm_trials[0], [8, 8])
    np.testing.assert_allclose(metrics.assignment[0], [0.5, 0.5])
    assert metrics.contrast.weight[0, 1] == 4.0  # of eight pairs one half each
    # And it learns, without a group to compare with: here who looks around wins, and is done.
    assert idle.success < 0.9 and np.mean([one.success for one, _ in later[-10:]]) > 0.95
    assert np.mean([one.turns for one, _ in later[-10:]]) < 0.6 * idle.turns
    assert metrics.grad_norm > 0 and metrics.further["value_loss"] > 0
    assert metrics.skipped == 0 and metrics.mixed_groups == 0


def test_an_evaluation_batch_serves_only_the_comparison(lab):
    config = replace(lab.config, trial=dict(evidence="evaluation_batch", evaluation_tasks=6))
    (idle, _), (metrics, evidence), (second, _) = steps(lab, config)
    assert not evidence.arms.any()  # training plays the bank in use
    assert idle.further["evaluation_rollouts"] == 0 and not idle.arm_trials.any()
    assert metrics.further["evaluation_rollouts"] == 12
    np.testing.assert_array_equal(metrics.arm_trials[0], [6, 6])
    np.testing.assert_array_equal(second.trial_trials[0], [12, 12])
    assert metrics.contrast.weight[0, 1] == 3.0
