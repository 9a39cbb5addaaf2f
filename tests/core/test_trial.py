import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax import assignment_probabilities, estimate_horizon
from reskill_jax.core.contrast import Contrast
from reskill_jax.core.trial import (
    decide_sequentially,
    decide_trial,
    finish_trial,
    idle_trial,
    observe_trial,
    sequential_log_odds,
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


# ---------------------------------------------------------------- the sequential test

sequentially = jax.jit(decide_sequentially)
COUNTS = (np.array([10, 10]), np.array([40, 40]))
# log 9.5 and log 18: where the odds decide, with false_accept 0.1 and false_reject 0.05
ACCEPT, REJECT = np.log(0.95 / 0.1), np.log(0.9 / 0.05)


def with_odds(odds, *, steps=2, margin=0.0, max_steps=8, gain=0.08):
    """A trial in which "better by gain" has these log odds: weight 100, variance 20."""
    trial = begin(len(odds) + 1, margin=margin, max_steps=max_steps)
    weight, variance = 100.0, 20.0
    score = np.asarray(odds) * variance / (gain * weight) + gain * weight / 2
    found = Contrast(*(jnp.array([0, *x]) for x in (score, 0 * score + weight, 0 * score + 20)))
    nothing = jax.tree.map(jnp.zeros_like, found)
    for step in range(steps):
        counts = [np.resize(c, len(odds) + 1) for c in COUNTS]
        trial = observe_trial(trial, *counts, horizon=jnp.inf, contrast=nothing if step else found)
    return trial


def failures(trial, steps):
    found = Contrast(jnp.zeros(2), jnp.array([0.0, 20.0]), jnp.zeros(2))
    for _ in range(steps):
        trial = observe_trial(trial, [0, 0], [40, 40], horizon=jnp.inf, contrast=found)
    return trial


def test_contrasts_add_up_while_the_trial_runs():
    found = Contrast(jnp.array([0.0, 1.5]), jnp.array([0.0, 4.0]), jnp.array([0.0, 1.0]))
    trial = begin(max_steps=2)
    for _ in range(3):  # the third finds the log full
        trial = observe_trial(trial, *COUNTS, horizon=jnp.inf, contrast=found)
    for total, once in zip(trial.contrast, found, strict=True):
        np.testing.assert_allclose(total, 2 * once)
    idle = observe_trial(idle_trial(2, max_steps=2), *COUNTS, horizon=jnp.inf, contrast=found)
    np.testing.assert_array_equal(idle.contrast.weight, [0, 0])
    masked = observe_trial(begin(mask=[True, False]), *COUNTS, horizon=jnp.inf, contrast=found)
    np.testing.assert_array_equal(masked.contrast.weight, [0, 0])


def test_the_odds_decide():
    for odds, expected in (
        (ACCEPT + 0.01, 1),
        (ACCEPT - 0.01, -1),
        (0.0, -1),
        (0.01 - REJECT, -1),
        (-0.01 - REJECT, 0),
    ):
        assert sequentially(with_odds([odds])) == expected


def test_not_before_the_fewest_steps_and_episodes():
    assert sequentially(with_odds([9.0], steps=1)) == -1
    trial = with_odds([9.0])
    assert decide_sequentially(trial, min_episodes=160) == 1
    assert decide_sequentially(trial, min_episodes=161) == -1


def test_a_full_log_is_decided_by_the_sign():
    assert sequentially(with_odds([0.01], steps=2, max_steps=2)) == 1
    assert sequentially(with_odds([-0.01], steps=2, max_steps=2)) == 0
    assert sequentially(with_odds([0.5], steps=1, max_steps=2)) == -1
    # Nothing but failures says nothing: the simpler bank goes on.
    assert sequentially(failures(begin(max_steps=3), 2)) == -1
    assert sequentially(failures(begin(max_steps=3), 3)) == 0


def test_a_retirement_is_the_same_test_with_the_roles_exchanged():
    # "The skill adds 2 * 0.04" against "it adds nothing", seen from the bank without it.
    weight, variance, gain = 100.0, 20.0, 0.08
    for odds, expected in (
        (ACCEPT + 0.01, 0),
        (ACCEPT - 0.01, -1),
        (0.01 - REJECT, -1),
        (-0.01 - REJECT, 1),
    ):
        score = -(odds * variance / (gain * weight) + gain * weight / 2)
        found = Contrast(*(jnp.array([0, x]) for x in (score, weight, variance)))
        trial = begin(margin=0.04)
        for share in (0.5, 0.5):
            part = jax.tree.map(lambda x, share=share: share * x, found)
            trial = observe_trial(trial, *COUNTS, horizon=jnp.inf, contrast=part)
        assert sequentially(trial) == expected
    # Without any difference, and without any success, the skill goes when time is up.
    assert sequentially(failures(begin(margin=0.04, max_steps=3), 3)) == 1


def test_the_best_of_several_and_a_higher_bar_for_them():
    assert sequentially(with_odds([ACCEPT + 0.01, 0.0])) == -1
    assert sequentially(with_odds([ACCEPT + np.log(2) + 0.01, 0.0])) == 1
    assert sequentially(with_odds([3.5, 3.6])) == 2
    assert sequentially(with_odds([-4.0, 0.0])) == -1
    assert sequentially(with_odds([-4.0, -3.0])) == 0


@pytest.mark.parametrize("margin", [0.0, 0.04])
@pytest.mark.parametrize("counts", [([1, 0], [40, 0]), ([1, 9], [40, 40])])
def test_a_candidate_that_was_never_compared_is_rejected_at_the_end(margin, counts):
    """Not tried at all, or never beside the bank in use in a task where the two differ."""
    trial = begin(margin=margin, max_steps=4)
    assert [int(sequentially(play(trial, *counts, steps))) for steps in (2, 3, 4)] == [-1, -1, 0]


def test_idle():
    idle = idle_trial(3, max_steps=8)
    chex.assert_trees_all_equal(play(idle, [1, 1, 1], [2, 2, 2], 1), idle)
    assert decide(idle) == -1 and sequentially(idle) == -1
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


def odds(score, weight, variance, **settings):
    values = (jnp.array([0.0, x]) for x in (score, weight, variance))
    return sequential_log_odds(Contrast(*values), jnp.array([True, True]), **settings)


def test_log_odds_by_hand():
    # L = 0.1 (4 - 0.1 * 20 / 2) * 20 / 5 = 1.2; bounds log(0.95 / 0.1), log(0.05 / 0.9).
    test = odds(4.0, 20.0, 5.0, gain=0.1)
    np.testing.assert_allclose(test.log_odds, [-np.inf, 1.2], rtol=1e-6)
    np.testing.assert_allclose([test.accept_at, test.reject_at], np.log([9.5, 0.05 / 0.9]), 1e-6)


def test_log_odds_of_a_retirement_by_hand():
    # The bank in use against the candidate: gain 0.08, score -4; L = 0.08 (-4 - 0.8) 4 = -1.536,
    # in favour of the retirement the opposite. It is accepted where the skill would be rejected.
    test = odds(4.0, 20.0, 5.0, gain=0.1, margin=0.04)
    np.testing.assert_allclose(test.log_odds, [-np.inf, 1.536], rtol=1e-6)
    np.testing.assert_allclose([test.accept_at, test.reject_at], np.log([18.0, 0.1 / 0.95]), 1e-6)


def test_log_odds_without_evidence():
    assert odds(0.0, 0.0, 0.0).log_odds.tolist() == [-np.inf, -np.inf]  # nothing compared
    assert odds(0.0, 20.0, 0.0).log_odds.tolist() == [-np.inf, 0.0]  # nothing but successes
