"""The simulator of trials, against counts by hand and the library's own functions."""

import json

import bandit_study
import evidence_study
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bandit import outcomes, rules, simulation
from bandit.report import figures, tables_text

from reskill_jax import assign_arms, probability_best, update_posterior
from reskill_jax.core.posterior import BetaPosterior, init_posterior


@pytest.fixture(scope="module")
def small():
    """One cell: 300 trials of 16 steps, with the rules of the small table."""
    world, design = outcomes.World(groups=4), simulation.Design(discount="none")
    made = simulation.run_trials(world, 0.2, design, 300, 16, rules.MAIN, seed=1)
    return world, [np.asarray(x) for x in made[:2]], made[2]


def test_outcomes_of_a_group_by_hand():
    """Two rollouts, one of each arm, rates 0.5 and 0.2, all groups alike."""
    world = outcomes.World(spread=0.0, group_size=2)
    wins, exists, statistics = outcomes.group_outcomes(2)
    chance = outcomes.outcome_probabilities(world, 0.5, 0.2)
    told = {tuple(wins[1, i]): chance[1, i] for i in range(4) if exists[1, i]}
    for (new, old), expected in {(0, 0): 0.4, (0, 1): 0.4, (1, 0): 0.1, (1, 1): 0.1}.items():
        assert told[new, old] == pytest.approx(expected, abs=1e-4)
    # s1, s0, score, weight, variance of "the candidate won, the other lost"
    at = next(i for i in range(4) if tuple(wins[1, i]) == (1, 0))
    np.testing.assert_allclose(statistics[1, at], [1, 0, 0.5, 0.5, 0.25])


def test_pairs_that_share_their_luck():
    """Rates 0.5 and 0.2 by one draw: both win at 0.2, the old one alone at 0.3."""
    wins, exists, _ = outcomes.group_outcomes(2)
    for coupled, expected in ((1.0, (0.5, 0.3, 0.0, 0.2)), (0.5, (0.45, 0.35, 0.05, 0.15))):
        world = outcomes.World(spread=0.0, group_size=2, coupled=coupled)
        chance = outcomes.outcome_probabilities(world, 0.5, 0.2)
        told = {tuple(wins[1, i].tolist()): chance[1, i] for i in range(4) if exists[1, i]}
        for outcome, one in zip([(0, 0), (0, 1), (1, 0), (1, 1)], expected, strict=True):
            assert told[outcome] == pytest.approx(one, abs=1e-4)
        np.testing.assert_allclose(chance.sum(axis=1), 1, rtol=1e-6)


def test_what_evidence_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(evidence_study, "WORLDS", {"alike": outcomes.World(0.3, spread=0.0)})
    modes = {name: evidence_study.MODES[name] for name in ("paired", "evaluation 64, luck shared")}
    monkeypatch.setattr(evidence_study, "MODES", modes)
    path = tmp_path / "found.json"
    found = evidence_study.study(path, trials=200, seed=0)
    assert json.loads(path.read_text()) == found and len(found["cells"]) == 8
    cells = {(c["mode"], c["difference"]): c for c in found["cells"]}
    for mode in modes:
        assert cells[mode, 0.0]["accepted"][0] < 0.2 and cells[mode, 0.1]["accepted"][0] > 0.8
    shared = cells["evaluation 64, luck shared", 0.1]
    assert shared["extra"][0] == pytest.approx(128 * shared["steps"][0])
    assert shared["steps"][0] < cells["paired", 0.1]["steps"][0]
    monkeypatch.setattr(evidence_study, "simulate", None)  # nothing is simulated again
    assert evidence_study.study(path, trials=200, seed=0) == found
    assert "| alike: in pairs (PPO, groups of one) |" in evidence_study.report(found)


@pytest.mark.parametrize("unequal", [0.0, 0.1])
def test_mean_rates_are_kept_whatever_the_spread(unequal):
    for spread in (0.0, 3.0):
        world = outcomes.World(spread=spread, unequal=unequal)
        wins, _, _ = outcomes.group_outcomes(8)
        chance = outcomes.outcome_probabilities(world, 0.3, 0.4)
        np.testing.assert_allclose(chance.sum(1), 1, rtol=1e-6)
        mean = np.einsum("nm,nmk->nk", chance, wins)
        new = np.arange(9)
        np.testing.assert_allclose(mean, np.stack([0.4 * new, 0.3 * (8 - new)], 1), atol=2e-3)


def test_the_alias_method_keeps_probabilities():
    wanted = np.array([0.5, 0.1, 0.0, 0.4])
    chance, alias = outcomes.alias_table(wanted)
    found = chance / 4
    np.add.at(found, alias, (1 - chance) / 4)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_the_approximate_probability_is_near_the_exact_one():
    rng = np.random.default_rng(0)
    count = rng.integers(20, 600, (200, 2))
    rate = np.clip(rng.uniform(0.1, 0.9, (200, 1)) + rng.normal(0, 0.05, (200, 2)), 0.05, 0.95)
    posterior = BetaPosterior(
        *(jnp.asarray(x, jnp.float32) for x in (count * rate, count * (1 - rate)))
    )
    exact = jax.jit(jax.vmap(lambda p: probability_best(p, jnp.ones(2, bool))[1]))(posterior)
    error = np.abs(rules.superiority(posterior) - exact)
    assert np.max(error) < 0.04 and np.mean(error) < 0.005


def test_arms_are_drawn_as_the_library_draws_them(small):
    """The first step's share is a half: with "stratified" exactly half of every group."""
    world, (tried, _), _ = small
    np.testing.assert_array_equal(tried[0], np.full((300, 2), 16))
    arms = assign_arms(
        jax.random.key(0), jnp.array([0.5, 0.5]), num_groups=4, group_size=8, scheme="stratified"
    )
    np.testing.assert_array_equal(np.sum(np.asarray(arms) == 1, axis=1), [4] * 4)


def test_trials_are_the_librarys(small):
    """Replaying a trial's log gives its posterior, and the paper's decision its sign."""
    _, (tried, said), trial = small
    posterior = init_posterior(2)
    for step in range(16):
        np.testing.assert_array_equal(trial.trials[7, step], tried[step, 7])
        posterior = update_posterior(posterior, trial.successes[7, step], tried[step, 7])
        if step == 4:
            assert said[4, 0, 7] == int(posterior.mean[1] > posterior.mean[0])
    np.testing.assert_allclose(trial.posterior.alpha[7], posterior.alpha, rtol=1e-5)
    rate = trial.successes.sum((0, 1)) / trial.trials.sum((0, 1))
    np.testing.assert_allclose(rate, [0.3, 0.5], atol=0.02)


def test_results_by_hand():
    """Two steps of 10 rollouts, a candidate 20 points better; one rule accepts, one rejects."""
    of_step = np.tile([0.3, 0.5], (outcomes.WINDOW, 1))
    tried = np.array([[[5, 5]], [[2, 8]]])  # [steps, trials, arms]
    said = np.array([[[-1], [0]], [[1], [0]]])  # [steps, rules, trials]
    found = simulation.results(tried, said, of_step)
    np.testing.assert_array_equal(found["accepted"], [[1], [0]])
    np.testing.assert_array_equal(found["steps"], [[2], [1]])
    # 0.2 for each rollout of the worse arm; after a wrong decision for all of 39 steps
    np.testing.assert_allclose(found["regret"], [[0.2 * 7], [0.2 * 5 + 39 * 10 * 0.2]])


def test_drifts():
    rising = outcomes.rates(outcomes.World(drift="rising"), 0.1)
    np.testing.assert_allclose(
        rising[[0, 8, 16, 39]].T, [[0.3, 0.45, 0.6, 0.6], [0.4, 0.55, 0.7, 0.7]]
    )
    crossing = outcomes.rates(outcomes.World(drift="crossing"), 0.1)
    np.testing.assert_allclose(crossing[[0, 8, 16, 39], 1], [0.2, 0.3, 0.4, 0.4])


def test_quick_study_and_its_tables(monkeypatch, tmp_path):
    monkeypatch.setattr(
        bandit_study,
        "plan",
        lambda quick: [
            ("base 30%, drift none, spread 1.5", outcomes.World(groups=4), name, rules.MAIN)
            for name in ("reference", "ours")
        ],
    )
    *_, found = bandit_study.study(trials=300, quick=True, say=lambda *_, **__: None)
    assert len(found["cells"]) == 2 * 4 * len(simulation.DIFFERENCES)
    bandit_study.write(tmp_path / "kept.json", found)
    kept = json.loads((tmp_path / "kept.json").read_text())
    assert (
        list(bandit_study.study(trials=300, quick=True, kept=kept)) == []
    )  # nothing is left to do
    best = [c for c in found["cells"] if c["difference"] == 0.2 and c["rule"] == rules.CHOSEN]
    assert all(c["accepted"][0] > 0.9 for c in best)
    text = tables_text(found)
    assert "side by side" in text and text.count("\n|") > 10
    figures(found, tmp_path)
    assert len(list(tmp_path.glob("*.svg"))) == 3
