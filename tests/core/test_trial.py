import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import assignment_probabilities, estimate_horizon
from reskill_jax.core.trial import (
    decide_trial,
    finish_trial,
    idle_trial,
    observe_trial,
    start_history,
    start_trial,
)

observe = jax.jit(lambda t, s, n, h: observe_trial(t, s, n, horizon=h))
decide = jax.jit(decide_trial)
finish = jax.jit(finish_trial)


def begin(num_arms=2, mask=None, margin=0.0, max_steps=8):
    mask = jnp.ones(num_arms, bool) if mask is None else jnp.asarray(mask)
    return start_trial(num_arms, mask, margin=margin, max_steps=max_steps)


def play(trial, successes, trials, steps, horizon=jnp.inf):
    for _ in range(steps):
        trial = observe(trial, jnp.array(successes), jnp.array(trials), horizon)
    return trial


def test_against_the_reference(reference_numbers):
    decisions = 0
    for run in reference_numbers["posterior"]:
        if run["strategy"] == "last_step":
            continue
        history = start_history()
        for test in run["tests"]:
            trial = begin(max_steps=12)
            for number, record in enumerate(test["steps"], start=1):
                horizon = jnp.float32(jnp.inf)
                if run["strategy"] == "dynamic":
                    horizon = estimate_horizon(history.log_likelihood, history.completed)
                    assert float(horizon) == (record["horizon"] or np.inf)
                successes = jnp.array([record["old_successes"], record["new_successes"]])
                trials = jnp.array([record["old_trials"], record["new_trials"]])
                trial = observe(trial, successes, trials, horizon)
                expected = [record["alpha_old"], record["alpha_new"]]
                np.testing.assert_allclose(trial.posterior.alpha, expected, rtol=2e-5)
                expected = [record["beta_old"], record["beta_new"]]
                np.testing.assert_allclose(trial.posterior.beta, expected, rtol=2e-5)
                decision = int(decide(trial))
                last = number == len(test["steps"])
                assert decision == (int(test["accepted"]) if last else -1)
                history = finish(history, trial, decision)
            decisions += 1
            if run["strategy"] == "dynamic":
                horizon = float(estimate_horizon(history.log_likelihood, history.completed))
                assert horizon == (test["horizon_after"] or np.inf)
    assert decisions == 16


def test_needs_steps_and_episodes():
    assert decide(play(begin(), [2, 3], [20, 20], 4)) == -1  # 160 episodes, 4 steps
    assert decide(play(begin(), [2, 3], [4, 4], 6)) == -1  # 48 episodes, 6 steps
    assert decide(play(begin(), [2, 3], [5, 5], 5)) == 1  # 50 episodes, 5 steps


def test_a_full_log_forces_the_decision():
    trial = play(begin(max_steps=6), [0, 1], [1, 1], 6)
    assert decide(trial) == 1
    beyond = observe(trial, jnp.array([9, 9]), jnp.array([9, 9]), jnp.inf)
    chex.assert_trees_all_equal(beyond, trial)


def test_equal_means_reject_unless_there_is_a_margin():
    assert decide(play(begin(), [3, 3], [8, 8], 5)) == 0
    assert decide(play(begin(margin=0.05), [3, 3], [8, 8], 5)) == 1
    assert decide(play(begin(margin=0.05), [4, 3], [8, 8], 5)) == 0


def test_the_best_of_several_candidates_wins():
    trial = play(begin(5), [1, 2, 4, 3, 0], [8] * 5, 5)
    assert decide(trial) == 2
    trial = play(begin(5, [True, True, False, True, True]), [1, 2, 4, 3, 0], [8] * 5, 5)
    assert decide(trial) == 3
    assert int(trial.trials[:, 2].sum()) == 0  # counts of an arm that does not exist are dropped
    assert decide(play(begin(1), [1], [20], 5)) == 0


def test_an_arm_that_was_never_tried_cannot_win():
    # its prior mean 1/2 lies far above 1/8
    assert decide(play(begin(), [1, 0], [8, 0], 8)) == 0


def test_idle():
    idle = idle_trial(3, max_steps=8)
    chex.assert_trees_all_equal(play(idle, [1, 1, 1], [2, 2, 2], 1), idle)
    assert decide(idle) == -1
    probabilities = jax.jit(assignment_probabilities)(idle.posterior, idle.arm_mask)
    np.testing.assert_array_equal(probabilities, [1, 0, 0])
    chex.assert_trees_all_equal_shapes_and_dtypes(idle, begin(3))


def test_history_counts_only_decided_trials():
    trial, history = play(begin(), [2, 5], [8, 8], 5), start_history(grid_size=30)
    chex.assert_trees_all_equal(finish(history, trial, -1), history)
    after = finish(history, trial, 0)
    assert after.completed == 1 and np.any(after.log_likelihood)


def test_whole_life_in_one_compiled_scan():
    def step(carry, counts):
        trial, history, horizon = carry
        trial = observe_trial(trial, counts[0], counts[1], horizon=horizon)
        decision = decide_trial(trial)
        history = finish_trial(history, trial, decision)
        horizon = estimate_horizon(history.log_likelihood, history.completed)
        fresh = start_trial(2, jnp.ones(2, bool), max_steps=8)
        trial = jax.tree.map(lambda a, b: jnp.where(decision >= 0, a, b), fresh, trial)
        return (trial, history, horizon), (decision, horizon)

    def run(counts):
        return jax.lax.scan(step, (begin(), start_history(grid_size=100), jnp.inf), counts)[1]

    rng = np.random.default_rng(0)
    trials = rng.integers(3, 9, (3, 16, 2))
    counts = np.stack([rng.binomial(trials, [0.2, 0.6]), trials], axis=2)  # [3, 16, 2, A]
    decisions, horizons = jax.jit(jax.vmap(run))(counts)
    assert np.sum(np.asarray(decisions) == 1) == np.sum(np.asarray(decisions) >= 0) >= 6
    assert np.all(np.isinf(horizons[:, 0])) and np.all(np.isfinite(horizons[:, -1]))
    single = jax.jit(run)(counts[1])
    np.testing.assert_array_equal(decisions[1], single[0])
    np.testing.assert_array_equal(horizons[1], single[1])
    text = str(jax.make_jaxpr(run)(counts[0]))
    assert "callback" not in text


def test_wrong_input_is_refused():
    with pytest.raises(AssertionError, match="shape"):
        start_trial(3, jnp.ones(2, bool), max_steps=4)
    with pytest.raises(ValueError, match="max_steps"):
        begin(max_steps=0)
    with pytest.raises(AssertionError, match="shape"):
        observe_trial(begin(), jnp.ones(3, int), jnp.ones(3, int), horizon=10.0)
