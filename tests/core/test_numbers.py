"""Offsets, types, values that are not finite, bounds and devices: the same rules everywhere."""

import chex
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh, PartitionSpec

from reskill_jax import (
    BetaPosterior,
    arm_outcomes,
    assign_arms,
    assignment_probabilities,
    discount_weight,
    estimate_horizon,
    group_relative_advantages,
    horizon_log_likelihood,
    init_posterior,
    probability_best,
    update_posterior,
    whiten,
)
from reskill_jax.core.advantages import token_advantages
from reskill_jax.core.contrast import within_group_contrast
from reskill_jax.core.horizon import relative_horizon_log_likelihood
from reskill_jax.core.losses import aggregate, entropy, grpo_loss, masked_mean
from reskill_jax.core.numbers import as_array, as_bool, as_real, bounded, excess_over_reference
from reskill_jax.core.trial import (
    decide_sequentially,
    decide_trial,
    finish_trial,
    observe_trial,
    start_history,
    start_trial,
)

advantages = jax.jit(group_relative_advantages, static_argnames="scale_by_std")
white = jax.jit(whiten)
mean = jax.jit(masked_mean)
best = jax.jit(probability_best)
WAYS = pytest.mark.parametrize(
    "function", [group_relative_advantages, advantages], ids=["eager", "jit"]
)
NOT_FINITE = pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])


def right(rewards, eps=1e-6):
    """Advantages in float64."""
    rewards = np.asarray(rewards, np.float64)
    centred = rewards - rewards.mean(1, keepdims=True)
    return centred / (rewards.std(1, ddof=1, keepdims=True) + eps)


def enable_x64():
    return jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64()


# ---------------------------------------------------------------- a common offset


@WAYS
@pytest.mark.parametrize(
    "rewards",
    [
        [1e7, 1e7 + 1, 1e7 + 1, 1e7],
        [8388607, 8388608, 8388608, 8388607],
        [-16777216, -16777215, -16777216, -16777214],
        [0.7, 0.7 + 1e-7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7],
        [1e-20, 3e-20, 2e-20, 1e-20],
        [1e20, -1e20, 3e20, 0],
        [3e38, -3e38, 3e38, -3e38],
    ],
)
def test_small_differences_beside_large_values(function, rewards):
    rewards = np.array([rewards], np.float32)
    got = np.asarray(function(rewards))
    expected = right(rewards)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=2e-6 * np.abs(expected).max())
    assert abs(got.sum()) < 1e-5
    plain = function(rewards, scale_by_std=False)
    centred = rewards - np.mean(rewards, dtype=np.float64)
    np.testing.assert_allclose(plain, centred, rtol=1e-6, atol=1e-6 * np.abs(centred).max())


def test_lists_and_float64_keep_what_float32_would_lose():
    for rewards in ([[1e9, 1e9 + 1, 1e9 + 1, 1e9]], np.array([[1e12, 1e12 + 1, 1e12 + 1, 1e12]])):
        got = group_relative_advantages(rewards)
        np.testing.assert_allclose(got, right(rewards), rtol=1e-6)
        assert got.dtype == jnp.float32
    values = np.array([1e15, 1e15 + 1, 1e15 + 2])
    np.testing.assert_allclose(
        whiten(values, np.ones(3, bool)), np.sqrt(1.5) * np.array([-1, 0, 1])
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_a_few_units_apart_at_the_ends_of_their_type(dtype):
    ends = np.iinfo(dtype)
    rewards = np.array(
        [
            [ends.max, ends.max - 3, ends.max - 1, ends.max],
            [ends.min, ends.min + 2, ends.min + 1, ends.min],
            [ends.min, ends.max, ends.min, ends.max],
        ],
        dtype,
    )
    exact = np.array([[int(x) - int(row[0]) for x in row] for row in rewards], np.float64)
    np.testing.assert_allclose(group_relative_advantages(rewards), right(exact), rtol=2e-6)
    if np.dtype(dtype).itemsize < 8:
        np.testing.assert_allclose(advantages(rewards), right(exact), rtol=2e-6)


@given(
    st.integers(-(2**24) + 64, 2**24 - 64),
    st.lists(st.integers(0, 63), min_size=4, max_size=4),
    st.sampled_from([np.float32, np.int32, np.float64]),
)
def test_any_offset_changes_nothing(offset, small, dtype):
    small = np.array([small], dtype)
    expected = np.asarray(advantages(small.astype(np.float32)))
    np.testing.assert_array_equal(advantages(small + dtype(offset)), expected)
    mask = np.ones(4, bool)
    np.testing.assert_allclose(
        white(small[0] + dtype(offset), mask), white(small[0], mask), atol=1e-6
    )
    np.testing.assert_allclose(mean(small[0] + dtype(offset), mask), offset + small.mean(), 6e-8)


def test_whitening_a_constant_gives_zero_and_an_offset_changes_nothing():
    mask = np.ones((50, 20), bool)
    for constant in (1e4, 0.1, -3e7, 1e38):
        assert not np.any(white(np.full((50, 20), constant, np.float32), mask))
    values = np.random.default_rng(0).integers(-8, 8, (50, 20)).astype(np.float32)
    np.testing.assert_allclose(white(values + 1e4, mask), white(values, mask), atol=2e-6)
    assert not np.any(whiten(np.full(3, 5.0), np.ones(3, bool), 0.0))  # without eps 0 / 0


def test_half_precision_neither_overflows_nor_loses_eps():
    mask = np.ones((300, 300), bool)  # 90,000 entries: more than float16 counts
    rng = np.random.default_rng(0)
    values = rng.integers(-4, 4, (300, 300)).astype(np.float16)
    got = whiten(values, mask)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, white(values.astype(np.float32), mask), rtol=1e-6)
    assert abs(float(jnp.std(got)) - 1) < 1e-4
    assert not np.any(whiten(np.full(8, 3, np.float16), np.ones(8, bool)))
    average = 1000 + np.mean(values, dtype=np.float64)
    assert masked_mean(values + np.float16(1000), mask) == pytest.approx(average, 1e-6)
    assert aggregate(np.full((300, 300), 700, np.float16), mask, mode="sequence") == 700


def test_means_of_losses_beside_a_large_offset():
    values = np.array([[1e7, 1e7 + 2, 5.0], [1e7 + 4, 1e7 + 6, 6.0]], np.float32)
    mask = np.array([[True, True, False]] * 2)
    for mode in ("token", "sequence"):
        got = jax.jit(lambda v, m, mode=mode: aggregate(v, m, mode=mode))(values, mask)
        assert got == np.float32(1e7 + 3)
        gradient = jax.grad(lambda v, mode=mode: aggregate(v, mask, mode=mode))(values)
        np.testing.assert_array_equal(gradient, mask / 4)


def test_gradients_do_not_depend_on_the_offset():
    weights = np.array([[1.0, -2.0, 3.0, 0.5]], np.float32)
    gradient = jax.jit(jax.grad(lambda r: jnp.sum(weights * group_relative_advantages(r))))
    small = np.array([[0.0, 1.0, 3.0, 7.0]], np.float32)
    np.testing.assert_allclose(gradient(small + 1e6), gradient(small), rtol=1e-5, atol=1e-7)


@given(st.lists(st.sampled_from([0.0, 1.0, -2.0, 1e7, 1e-3]), min_size=4, max_size=4), st.data())
def test_what_is_beyond_the_reference(values, data):
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=4, max_size=4)))
    values = np.array(values, np.float32)
    noise = np.where(mask, values, np.nan).astype(np.float32)
    with jax.debug_nans(False):
        excess, unit, reference = jax.jit(excess_over_reference)(noise, mask)
    assert not np.any(excess[~mask])
    again = (reference + excess * unit)[mask]
    np.testing.assert_allclose(again, values[mask], rtol=1e-6, atol=1e-3)
    if mask.any():
        both_sides = values[mask].min() < 0 < values[mask].max()
        assert reference[0] == (0 if both_sides else values[mask].min())
        assert np.abs(np.asarray(excess)).max() < 4


# ---------------------------------------------------------------- types


REAL = [bool, np.int8, np.uint16, np.int32, np.float16, ml_dtypes.bfloat16, np.float32, np.float64]


ZEROS_AND_ONES = np.array([[0, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 1]])
ALL = np.ones((3, 4), bool)


def averaged(values):
    return (
        group_relative_advantages(values),
        masked_mean(values, ALL),
        whiten(values, ALL),
        token_advantages(values[:, 0], ALL),
    )


@pytest.mark.parametrize("dtype", REAL, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize(
    "function",
    [jax.jit(averaged), pytest.param(averaged, marks=pytest.mark.slow)],
    ids=["jit", "eager"],
)
def test_every_real_type_gives_the_same_numbers(function, dtype):
    got, average, whitened, spread = function(ZEROS_AND_ONES.astype(dtype))
    assert {x.dtype for x in (got, average, whitened)} == {jnp.dtype(jnp.float32)}
    varies = ZEROS_AND_ONES.std(1)[:, None]
    np.testing.assert_allclose(got, np.where(varies, right(ZEROS_AND_ONES), 0), 1e-5)
    assert average == pytest.approx(7 / 12, rel=1e-6)
    np.testing.assert_allclose(whitened, (ZEROS_AND_ONES - 7 / 12) / np.sqrt(35 / 144), 1e-5)
    np.testing.assert_array_equal(spread, ZEROS_AND_ONES[:, :1] * ALL)


def test_nested_lists_are_arrays():
    outcomes = [[0, 1, 1, 0]], [[True, True, False, False]], [[1, 1, 1, 1]]
    arrays = [np.array(x) for x in outcomes]
    for function in (arm_outcomes, within_group_contrast):
        listed, given_ = function(*outcomes, num_arms=2), function(*arrays, num_arms=2)
        chex.assert_trees_all_equal(listed, given_)
    np.testing.assert_array_equal(
        group_relative_advantages([[1, 2, 9]], mask=[[1, 1, 0]], scale_by_std=False),
        [[-0.5, 0.5, 0]],
    )


def test_float64_stays_float64():
    with enable_x64():
        got = group_relative_advantages(np.array([[0.0, 1.0, 1e-9]]))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, right([[0.0, 1.0, 1e-9]]), rtol=1e-12)
        posterior = update_posterior(init_posterior(1), np.array([1]), np.array([3]), horizon=6.0)
        assert posterior.alpha.dtype == jnp.float64


@pytest.mark.parametrize("bad", [np.ones((1, 2), complex), np.array([["a", "b"]]), [[None, 1.0]]])
def test_what_is_no_real_number_is_refused(bad):
    with pytest.raises(TypeError, match="bools, integers or floats"):
        group_relative_advantages(bad)
    for function in (whiten, masked_mean):
        with pytest.raises(TypeError, match="bools, integers or floats"):
            function(bad, np.ones((1, 2), bool))
    with pytest.raises(TypeError, match="whose mask would be lost"):
        group_relative_advantages(np.ma.array([[1.0, 2.0]], mask=[[False, True]]))
    with pytest.raises(TypeError, match="bools, integers or floats"):
        jax.jit(as_real, static_argnums=1)(jnp.ones(2, jnp.complex64), "values")


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.float16, ml_dtypes.bfloat16])
def test_posteriors_are_computed_in_float32_whatever_comes_in(dtype):
    posterior = BetaPosterior(np.array([3, 100], dtype), np.array([5, 90], dtype))
    wide = BetaPosterior(np.array([3, 100], np.float32), np.array([5, 90], np.float32))
    counts = np.array([7, 100]), np.array([9, 120])
    update = jax.jit(update_posterior)
    got, expected = (update(p, *counts, horizon=50.0) for p in (posterior, wide))
    chex.assert_trees_all_close(got, expected, rtol=1e-6)
    assert got.alpha.dtype == jnp.float32
    np.testing.assert_array_equal(posterior.mean, wide.mean)
    both = np.ones(2, bool)
    np.testing.assert_allclose(best(posterior, both), best(wide, both), atol=1e-6)
    assert discount_weight(np.array([3], dtype), dtype(1)) == 0.25


def test_counts_that_would_wrap_around():
    large = np.array([2**31, 2**32 + 1])
    posterior = update_posterior(init_posterior(2), large, large + 5)
    np.testing.assert_allclose(posterior.alpha, large + 1.0)
    np.testing.assert_allclose(posterior.beta, [6, 6])
    np.testing.assert_allclose(discount_weight(large, 2.0**31), [0.5, 1 / 3], rtol=1e-6)
    trial = start_trial(2, np.ones(2, bool), max_steps=2)
    with pytest.raises(ValueError, match="integers beyond int32"):
        observe_trial(trial, large, large, horizon=1.0)
    with pytest.raises(ValueError, match="integers beyond int32"):  # or it would count for arm 1
        arm_outcomes(np.array([2**32 + 1]), [True], [True], num_arms=2)
    with pytest.raises(ValueError, match="integers beyond int32"):
        as_array(np.array([-(2**31) - 1]), "numbers")


# ---------------------------------------------------------------- not finite


@NOT_FINITE
def test_what_is_not_finite_is_not_hidden(bad):
    rewards = np.array([[1.0, bad, 3.0, 2.0], [0.0, 1.0, 0.0, 1.0]], np.float32)
    others = np.array([[True, False, True, True], [True] * 4])
    with jax.debug_nans(False):
        for scale in (True, False):
            got = advantages(rewards, scale_by_std=scale)
            assert np.isnan(got[0]).all() and np.isfinite(got[1]).all()
            masked = advantages(rewards, mask=others, scale_by_std=scale)
            clean = advantages(np.where(others, rewards, 0), mask=others, scale_by_std=scale)
            np.testing.assert_array_equal(masked, clean)
        assert np.isnan(group_relative_advantages([[1, bad, 3]])).all()
        assert not np.isfinite(advantages(np.array([[bad]], np.float32)))
        assert not np.isfinite(mean(rewards, np.ones((2, 4), bool)))
        assert np.isnan(white(rewards, np.ones((2, 4), bool))).all()
        assert mean(rewards, others) == np.float32(8 / 7)
        assert np.isfinite(white(rewards, others)).all()
        for mode in ("token", "sequence"):
            assert not np.isfinite(aggregate(rewards, np.ones((2, 4), bool), mode=mode))
            assert np.isfinite(aggregate(rewards, others, mode=mode))


def test_nan_in_the_statistics_of_skills_is_not_hidden():
    nan, both = np.float32(np.nan), np.ones(2, bool)
    with jax.debug_nans(False):
        assert np.isnan(estimate_horizon(np.array([-1.0, nan, -2.0], np.float32), 2))
        assert np.isnan(estimate_horizon(np.full(3, -np.inf, np.float32), 2))
        assert np.isposinf(estimate_horizon(np.array([-1.0, nan], np.float32), 1))
        np.testing.assert_array_equal(discount_weight(np.array([0, 4]), nan), [1, nan])
        posterior = update_posterior(init_posterior(2), [1, 0], [2, 0], horizon=nan)
        np.testing.assert_array_equal(np.isnan(posterior.alpha), [True, False])
        assert np.isnan(best(posterior, both)).all()
        # ... but an arm that does not exist may hold anything
        np.testing.assert_array_equal(best(posterior, np.array([False, True])), [0, 1])
        assert np.isnan(jax.jit(assignment_probabilities)(posterior, both)).all()
        assert np.isnan(entropy(np.array([0.0, nan], np.float32)))
        loss = grpo_loss(*[np.full((1, 1), nan)] * 3, np.ones((1, 1), bool))
        assert np.isnan(loss.loss)


# ---------------------------------------------------------------- bounds and outcomes


@pytest.mark.parametrize("as_type", [float, np.float64, np.float32, np.array, jnp.asarray])
def test_bounds_hold_whatever_the_type(as_type):
    posterior, both = init_posterior(2), np.ones(2, bool)
    for floor in (0.7, -0.1, np.nan):
        with (
            jax.debug_nans(False),
            pytest.raises(ValueError, match=r"floor must lie in \[0, 0.5\]"),
        ):
            assignment_probabilities(posterior, both, floor=as_type(floor))
    with pytest.raises(ValueError, match="horizon must be positive"):
        discount_weight(3, as_type(-2.0))
    trial = start_trial(2, both, max_steps=2)
    with pytest.raises(ValueError, match=r"false_accept must lie in \[0, 1\]"):
        decide_sequentially(trial, false_accept=as_type(1.5))
    assert bounded(as_type(0.5), 0, 0.5, "floor") == 0.5
    assert jax.jit(lambda h: discount_weight(3, h))(as_type(-2.0)) == 0  # traced: clipped


def test_traced_bounds_are_clipped():
    posterior = BetaPosterior(jnp.array([1.0, 99.0]), jnp.array([99.0, 1.0]))
    assign = jax.jit(lambda f: assignment_probabilities(posterior, jnp.ones(2, bool), floor=f))
    np.testing.assert_allclose(assign(0.7), [0.5, 0.5])
    np.testing.assert_allclose(assign(-1.0), [0, 1], atol=1e-6)


@pytest.mark.parametrize("wrong", [[-1, 1, 1, -1], [0.5, 1, 0, 0], [np.nan, 1, 0, 0], [2, 1, 0, 0]])
def test_outcomes_that_are_neither_0_nor_1(wrong):
    arms, valid = np.array([[0, 1, 0, 1]]), np.ones((1, 4), bool)
    wrong = np.array([wrong])
    for function in (arm_outcomes, within_group_contrast):
        with pytest.raises(ValueError, match="success must be bool, or 0 or 1"):
            function(arms, wrong, valid, num_arms=2)
        with pytest.raises(ValueError, match="valid must be bool, or 0 or 1"):
            function(arms, valid, wrong, num_arms=2)
        # What does not count may be anything.
        function(arms, wrong, wrong == 1, num_arms=2)
        # Traced, only 1 is a success.
        traced = jax.jit(lambda s, f=function: f(arms, s, valid, num_arms=2))(wrong)
        chex.assert_trees_all_equal(traced, function(arms, wrong == 1, valid, num_arms=2))
    with pytest.raises(ValueError, match="mask must be bool, or 0 or 1"):
        group_relative_advantages(np.ones((1, 4)), mask=np.where(wrong == 1, 1, 0.5))
    with pytest.raises(ValueError, match="got 3"):
        as_bool([0, 1, 3], "done")


@pytest.mark.parametrize(
    "counts", [([-1, 0], [1, 1]), ([2, 0], [1, 1]), ([np.nan, 0], [1, 1]), ([1, 1], [np.nan, 1])]
)
def test_impossible_counts_are_refused(counts):
    successes, trials = map(np.array, counts)
    with pytest.raises(ValueError, match="negative|more successes"):
        update_posterior(init_posterior(2), successes, trials)
    with pytest.raises(ValueError, match="negative|more successes"):
        horizon_log_likelihood(successes[None], trials[None], grid_size=3)


# ---------------------------------------------------------------- nothing at all


def test_empty_arrays():
    assert group_relative_advantages(np.ones((3, 0))).shape == (3, 0)
    assert advantages(np.ones((0, 4))).shape == (0, 4)
    assert masked_mean(np.ones(0), np.ones(0, bool)) == 0
    assert whiten(np.ones((2, 0)), np.ones((2, 0), bool)).shape == (2, 0)
    for function in (horizon_log_likelihood, relative_horizon_log_likelihood):
        empty = np.zeros((0, 2), int)
        np.testing.assert_array_equal(function(empty, empty, grid_size=5), np.zeros(5))
    for scheme in ("independent", "stratified"):
        for groups, size in ((0, 4), (3, 0)):
            arms = assign_arms(
                jax.random.key(0), np.ones(2), num_groups=groups, group_size=size, scheme=scheme
            )
            assert arms.shape == (groups, size) and arms.dtype == jnp.int32


# ---------------------------------------------------------------- shard_map


def split(function, *arguments):
    """The results of a function on two devices, each with its own half of the arguments."""
    spec = PartitionSpec("data")
    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))

    def one(*shares):
        found = function(*jax.tree.map(lambda x: x[0], shares))
        return jax.tree.map(lambda x: x[None], found)

    return jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))(*arguments)


RNG = np.random.default_rng(0)
TRIALS = RNG.integers(1, 9, (2, 3, 2))
SUCCESSES = RNG.binomial(TRIALS, 0.5)
ARMS, WON = RNG.integers(0, 2, (2, 4, 6)), RNG.integers(0, 2, (2, 4, 6)).astype(bool)
POSTERIOR = BetaPosterior(
    RNG.uniform(1, 9, (2, 2)).astype(np.float32), RNG.uniform(1, 9, (2, 2)).astype(np.float32)
)
BOTH = np.ones((2, 2), bool)


def observed(successes, trials):
    trial = start_trial(2, jnp.ones(2, bool), max_steps=3)
    for step in range(3):
        trial = observe_trial(trial, successes[step], trials[step], horizon=20.0)
    return trial


CASES = {
    "advantages": (group_relative_advantages, WON.astype(np.float32)),
    "whiten": (whiten, WON.astype(np.float32), WON),
    "discount": (lambda n: discount_weight(n, 7.0), TRIALS),
    "update": (update_posterior, POSTERIOR, SUCCESSES[:, 0], TRIALS[:, 0]),
    "best": (
        lambda p, m: (probability_best(p, m), assignment_probabilities(p, m)),
        POSTERIOR,
        BOTH,
    ),
    "arms": (
        lambda k, p: assign_arms(
            jax.random.wrap_key_data(k), p, num_groups=2, group_size=4, scheme="stratified"
        ),
        jax.random.key_data(jax.random.split(jax.random.key(0))),
        np.array([[0.3, 0.7], [0.5, 0.5]], np.float32),
    ),
    "outcomes": (lambda a, s: arm_outcomes(a, s, jnp.ones_like(s), num_arms=2), ARMS, WON),
    "contrast": (lambda a, s: within_group_contrast(a, s, jnp.ones_like(s), num_arms=2), ARMS, WON),
    "likelihood": (lambda s, n: horizon_log_likelihood(s, n, grid_size=9), SUCCESSES, TRIALS),
    "horizon": (lambda s: estimate_horizon(s, 2), POSTERIOR.alpha),
    "finish": (
        lambda s, n: finish_trial(start_history(grid_size=9), observed(s, n), jnp.int32(1)),
        SUCCESSES,
        TRIALS,
    ),
    "decide": (lambda s, n: decide_trial(observed(s, n), min_steps=1), SUCCESSES, TRIALS),
    "sequential": (lambda s, n: decide_sequentially(observed(s, n)), SUCCESSES, TRIALS),
    "entropy": (entropy, RNG.normal(size=(2, 3, 4)).astype(np.float32)),
    "loss": (
        lambda x, m: grpo_loss(x, x * 0.9, x[:, 0], m, reference_log_probs=x * 1.1, kl_weight=0.1),
        RNG.normal(size=(2, 4, 6)).astype(np.float32),
        WON,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_public_functions_under_shard_map(name):
    function, *arguments = CASES[name]
    got = split(function, *arguments)
    each = jax.jit(jax.vmap(function))(*arguments)
    chex.assert_trees_all_close(got, each, rtol=1e-5, atol=1e-6)


def test_sums_over_devices_under_shard_map():
    mask = np.ones_like(WON)

    def reduced(values, won, arms):
        return (
            whiten(values, jnp.ones_like(won), axis_name="data"),
            arm_outcomes(arms, won, jnp.ones_like(won), num_arms=2, axis_name="data"),
            jax.lax.psum(masked_mean(values, jnp.ones_like(won), axis_name="data"), "data"),
        )

    values = WON + np.float32(1e6) + np.arange(6, dtype=np.float32)
    white_, counts, average = split(reduced, values, WON, ARMS)
    np.testing.assert_allclose(white_, whiten(values, mask), rtol=1e-4, atol=1e-5)
    expected = arm_outcomes(ARMS, WON, mask, num_arms=2)
    for ours, theirs in zip(counts, expected, strict=True):
        np.testing.assert_array_equal(ours, [theirs, theirs])
    np.testing.assert_allclose(average, np.mean(values, dtype=np.float64), rtol=1e-7)
