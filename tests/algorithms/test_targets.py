"""What rewards come to in each algorithm, and which rows are learned from."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import group_relative_advantages, leave_one_out_advantages
from reskill_jax.algorithms.algorithm import Batch, Scores
from reskill_jax.algorithms.registry import ALGORITHMS, make_algorithm, options_of

# Two groups of four rows with two turns; the first two rows of each turn share an observation.
REWARD = np.array([[0, 1], [0, 0], [0, 1], [0, 0], [0, 1], [0, 1], [0, 1], [0, 1]], np.float32)
TURN = np.tile(np.array([[0, 1, 1]], np.int32), (8, 1))
MASK = np.ones((8, 3), bool)
MASK[3, 1:] = False


def batch(**changes):
    made = Batch(
        jnp.asarray(REWARD),
        jnp.ones(8, bool),
        jnp.asarray(TURN),
        jnp.asarray(MASK),
        jnp.full((8, 3), -1.0),
        values=jnp.full((8, 3), 0.5),
        turns=jnp.full(8, 2, jnp.int32),
        observation=jnp.asarray([[9, 1], [9, 1], [9, 2], [9, 2]] * 2, jnp.int32),
        overlong=jnp.arange(8) == 0,
    )
    return made._replace(**changes)


def targets(kind, made=None, **options):
    algorithm = make_algorithm(kind, **options)
    return jax.jit(lambda b: algorithm.targets(b, group_size=4))(made or batch())


SCALED = np.asarray(group_relative_advantages(REWARD.sum(1).reshape(2, 4))).reshape(8, 1)


@pytest.mark.parametrize("kind", ["grpo", "gspo", "dapo"])
def test_the_same_advantage_for_a_whole_row(kind):
    np.testing.assert_allclose(targets(kind).advantages, np.broadcast_to(SCALED, (8, 3)), atol=1e-6)


def test_the_family_without_the_standard_deviation():
    centred = np.array([0.5, -0.5, 0.5, -0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(targets("dr_grpo").advantages[:, 0], centred, atol=1e-6)
    others = np.asarray(leave_one_out_advantages(REWARD.sum(1).reshape(2, 4))).reshape(-1)
    np.testing.assert_allclose(targets("rloo").advantages[:, 0], others, atol=1e-6)
    np.testing.assert_allclose(others, centred * 4 / 3, atol=1e-6)


def test_dapo_learns_from_mixed_groups_and_whole_rows():
    expected = [False, True, True, True, False, False, False, False]
    np.testing.assert_array_equal(targets("dapo").counted, expected)
    every = targets("dapo", dynamic_sampling=False, overlong_filtering=False)
    assert every.counted.all()


def test_gigpo_by_hand():
    # turn 0: all saw 9, returns 0.5 or 0; turn 1: rows 0 and 1 saw 1, rows 2 and 3 saw 2
    found = targets("gigpo", discount=0.5, scale_by_std=False, step_weight=2.0).advantages
    expected = np.array(
        [
            [0.5 + 2 * 0.25, 0.5 + 2 * 0.5, 0.5 + 2 * 0.5],
            [-0.5 - 2 * 0.25, -0.5 - 2 * 0.5, -0.5 - 2 * 0.5],
            [0.5 + 2 * 0.25, 0.5 + 2 * 0.5, 0.5 + 2 * 0.5],
            [-0.5 - 2 * 0.25, 0, 0],  # decisions that do not count
        ]
    )
    np.testing.assert_allclose(found[:4], expected, atol=1e-6)
    assert not np.any(found[4:])


def test_ppo_needs_no_group():
    algorithm = make_algorithm("ppo", whiten=False, trace_decay=1.0)
    found = algorithm.targets(batch(), group_size=1)
    total = REWARD.sum(1)[:, None]
    np.testing.assert_allclose(found.advantages, np.where(MASK, total - 0.5, 0), atol=1e-6)
    np.testing.assert_allclose(found.returns, np.where(MASK, total, 0), atol=1e-6)
    white = np.asarray(targets("ppo").advantages)
    assert abs(white[MASK].mean()) < 1e-6 and white[MASK].std() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="needs the values"):
        algorithm.targets(batch(values=None), group_size=1)


def test_dpo_pairs_wins_with_losses_of_the_same_task():
    found = targets("dpo")
    order, sign = np.asarray(found.order), np.asarray(found.advantages[:, 0])
    assert sorted(order) == list(range(8)) and (order[:4] < 4).all()
    assert sorted(sign[order][:4].tolist()) == [-1, -1, 1, 1]
    np.testing.assert_array_equal(sign[order][:4], [1, -1, 1, -1])
    for better, worse in order[:4].reshape(-1, 2):
        assert REWARD[better].sum() > REWARD[worse].sum()
    assert not np.any(sign[4:])  # all equal
    np.testing.assert_array_equal(found.counted, sign != 0)


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_what_says_nothing_has_no_part(kind):
    """All rewards equal, one valid row, nothing valid; a row that is not valid may hold a NaN."""
    few = np.array([True, False, False, False, False, False, False, False])
    for valid, reward in ((np.ones(8, bool), np.ones((8, 2), np.float32)), (few * False, REWARD)):
        mask = jnp.asarray(MASK & valid[:, None])
        found = targets(kind, batch(valid=jnp.asarray(valid), reward=reward, mask=mask))
        if kind != "ppo":  # whose baseline is the value
            assert not np.any(np.asarray(found.advantages)[MASK & valid[:, None]])
    nan = REWARD.copy()
    nan[1:] = np.nan
    mask = jnp.asarray(MASK & few[:, None])
    found = targets(kind, batch(valid=jnp.asarray(few), reward=nan, mask=mask))
    assert np.isfinite(np.asarray(found.advantages)[MASK & few[:, None]]).all()


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_nothing_to_learn_from_is_no_loss(kind):
    algorithm, nothing = make_algorithm(kind), batch(mask=jnp.zeros((8, 3), bool))
    found = algorithm.targets(nothing, group_size=4)
    made = nothing._replace(reference=jnp.zeros((8, 3))) if algorithm.uses_reference else nothing
    values = None if algorithm.values is None else made.values

    def loss(log_probs):
        return algorithm.loss(Scores(log_probs, values), made, found)[0]

    value, slope = jax.value_and_grad(loss)(jnp.zeros((8, 3)))
    assert value == 0 and not np.any(slope)
    assert not np.any(algorithm.weights(made.mask))
    logged = algorithm.loss(Scores(jnp.zeros((8, 3)), values), made, found)[1]
    assert set(logged) == {"kl", "clipped", *algorithm.logs}


def test_options_are_those_of_the_algorithm():
    assert "scale_by_std" not in options_of("rloo") and "aggregation" not in options_of("gspo")
    assert make_algorithm("dapo").clip_high == 0.28 and make_algorithm("grpo").clip_high == 0.2
    assert make_algorithm("dapo", clip_high=None) == make_algorithm("dapo")
    with pytest.raises(ValueError, match="algorithm.beta has no effect with algorithm.kind = grpo"):
        make_algorithm("grpo", beta=0.1)
    for kind, type_ in ALGORITHMS.items():
        assert hash(make_algorithm(kind)) == hash(type_()) and dataclasses.is_dataclass(type_)
        assert type_.__doc__
