"""The compiled training step: one trace, its counts and decisions, its update, several devices."""

import dataclasses
import types

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.core.arms import arm_outcomes
from reskill_jax.core.contrast import within_group_contrast
from reskill_jax.creator.propose import Proposal
from reskill_jax.policy.sampling import masked_log_probs
from reskill_jax.skills.skill import Bundle, Operation
from reskill_jax.training import loop
from reskill_jax.training.lifecycle import begin_life, make_bank
from reskill_jax.training.step import decide, game_key
from reskill_jax.training.update import decision_logits
from reskill_jax.worlds.household import symbols as sy

STEPS = 64
INNER = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def primitives(jaxpr):
    """Names of all primitives of a jaxpr and of those inside it."""
    found = set()
    for eqn in jaxpr.eqns:
        found.add(eqn.primitive.name)
        for value in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                found |= primitives(inner)
    return found


def talks_to_host(names):
    words = ("callback", "infeed", "outfeed", "debug", "io_")
    return sorted(name for name in names if any(word in name for word in words))


def proposal(life, number, skill):
    """Adds a skill, or exchanges the only one."""
    if life.skills:
        operation = Operation("MODIFY", life.skills[0].name, skill)
    else:
        operation = Operation("ADD", skill.name, skill)
    bundle = Bundle((operation,))
    return Proposal(number, "bundle", bundle, bundle.apply(life.skills), "for tests", 1.0)


@pytest.fixture(scope="module")
def run(lab):
    """64 steps; after every idle step a proposal goes on trial, as the loop does it."""
    config, state, life = lab.config, lab.state(), begin_life(lab.config)
    steps, idle = [], 0
    for step in range(STEPS):
        games = loop.games_of_step(config, step)
        state, metrics, evidence = lab.step(state, jnp.asarray(games))
        metrics, evidence, bank = jax.device_get((metrics, evidence, state.bank))
        steps.append(
            types.SimpleNamespace(
                metrics=metrics,
                evidence=evidence,
                bank=bank,
                games=games,
                skills=life.skills,
                proposal=life.proposal,
                trial_open=bool(state.trial.active),
            )
        )
        if metrics.decision >= 0:
            skills = life.proposal.version if metrics.decision else life.skills
            life = dataclasses.replace(life, skills=skills, proposal=None)
        elif life.proposal is None:
            idle += 1
            action = ("open.", "look.", "do not look.", "help.")[idle % 4]
            new = proposal(life, idle, lab.skill(f"skill-{idle}", action))
            life = dataclasses.replace(life, proposal=new)
            state = loop.put_on_trial(state, life, config)
    return steps


def test_one_trace_for_the_whole_run(lab, run):
    decisions = [int(s.metrics.decision) for s in run]
    assert decisions.count(0) >= 1 and decisions.count(1) >= 1
    assert lab.step._cache_size() == 1


def test_no_host_callback(lab):
    state, games = lab.state(), jnp.arange(lab.config.groups, dtype=jnp.int32)
    names = primitives(jax.make_jaxpr(lab.program(lab.config, lab.world))(state, games).jaxpr)
    assert {"while", "scan", "cond", "dot_general"} <= names
    assert talks_to_host(names) == []


def test_a_host_callback_would_be_seen():
    def spoken(x):
        def body(carry, _):
            jax.debug.print("{}", carry)
            return jax.lax.cond(carry > 0, lambda c: c + 1, lambda c: c, carry), None

        return jax.lax.scan(body, x, None, length=2)

    assert talks_to_host(primitives(jax.make_jaxpr(jax.jit(spoken))(1.0).jaxpr))


def test_counts_are_those_of_the_episodes(lab, run):
    arms = lab.config.arms
    for step in run:
        metrics, seen = step.metrics, step.evidence
        played = np.bincount(seen.arms, minlength=arms)
        won = np.bincount(seen.arms[seen.success], minlength=arms)
        np.testing.assert_array_equal(metrics.arm_trials, played)
        np.testing.assert_array_equal(metrics.arm_successes, won)
        assert metrics.success == pytest.approx(seen.success.mean())
        assert metrics.turns == pytest.approx(seen.turns.mean())
        looked = [
            any(sy.text(a) == "look" for a in actions[:turns])
            for actions, turns in zip(seen.actions, seen.turns, strict=True)
        ]
        np.testing.assert_array_equal(seen.success, looked)
        # Stratified: within a group an arm gets floor(G p) or ceil(G p) rollouts.
        share = metrics.assignment[1] * lab.config.group_size
        for group in seen.arms.reshape(lab.config.groups, -1):
            assert np.floor(share - 1e-4) <= (group == 1).sum() <= np.ceil(share + 1e-4)


def test_trials_decide_as_told_on_the_host(lab, run):
    config = lab.config
    alpha = beta = played = None
    trials = 0
    for step in run:
        metrics = step.metrics
        if step.proposal is None:
            assert metrics.decision == -1 and not step.trial_open
            np.testing.assert_array_equal(metrics.assignment, [1, 0])
            np.testing.assert_array_equal(metrics.trial_trials, [0, 0])
            alpha, beta, played, steps = np.ones(2), np.ones(2), np.zeros(2, int), 0
            continue
        if steps == 0:
            np.testing.assert_allclose(metrics.assignment, [0.5, 0.5], atol=1e-5)
        won, n, horizon = metrics.arm_successes, metrics.arm_trials, float(metrics.horizon)
        assert trials >= 2 or horizon == np.inf
        weight = np.where(n > 0, 1.0 if horizon == np.inf else horizon / (horizon + n), 1.0)
        alpha, beta = weight * alpha + won, weight * beta + n - won
        played, steps = played + n, steps + 1
        np.testing.assert_allclose(metrics.posterior.alpha, alpha, rtol=2e-5)
        np.testing.assert_allclose(metrics.posterior.beta, beta, rtol=2e-5)
        np.testing.assert_array_equal(metrics.trial_trials, played)
        mean = alpha / (alpha + beta)
        enough = steps >= config.min_trial_steps and played.sum() >= config.min_trial_episodes
        expected = int(mean[1] > mean[0]) if enough or steps == config.max_trial_steps else -1
        assert metrics.decision == expected
        assert step.trial_open == (expected < 0)
        if expected >= 0:
            trials += 1
            version = step.proposal.version if expected else step.skills
            chex.assert_trees_all_equal(step.bank, make_bank(config, [version]))
        else:
            arms = make_bank(config, [step.skills, step.proposal.version])
            chex.assert_trees_all_equal(step.bank, arms)
    assert trials >= 10


def test_skills_speak_only_to_their_arm(run):
    for step in run:
        counts = [len(step.skills), len(step.proposal.version if step.proposal else step.skills)]
        for arm, turns, fired in zip(
            step.evidence.arms, step.evidence.turns, step.evidence.fired, strict=True
        ):
            expected = np.zeros_like(fired[:turns])
            expected[:, : counts[arm]] = True  # all are general
            np.testing.assert_array_equal(fired[:turns], expected)


def test_the_policy_learns(run):
    success = [float(s.metrics.success) for s in run]
    assert np.mean(success[-12:]) > np.mean(success[:12]) + 0.05
    assert not any(s.metrics.skipped for s in run)


# --- the update -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_batch(lab):
    """A configuration with one minibatch, whitening and a divergence, for one and two devices."""
    config = dataclasses.replace(
        lab.config, groups=4, minibatches=1, whiten=True, kl_weight=0.1, learning_rate=1e-3
    )
    step = jax.jit(lab.program(config, lab.world))
    skills = (lab.skill("open", "open."),), (lab.skill("help", "help."),)

    def state():
        made = lab.state(skills, config)
        trial = loop.start_trial(config.arms, np.ones(2), max_steps=config.max_trial_steps)
        trial = jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), trial, made.trial)
        return made._replace(trial=trial)

    return types.SimpleNamespace(config=config, step=step, state=state, games=jnp.arange(4))


def test_the_gradient_is_that_of_group_relative_advantages(lab, one_batch):
    """Rollouts, advantages, loss and gradient told again from the public parts."""
    config, state = one_batch.config, one_batch.state()
    after, metrics, evidence = one_batch.step(state, one_batch.games)
    arm_key, row_key = jax.random.split(jax.random.fold_in(state.key, state.step))
    of_games = jnp.repeat(jax.vmap(lambda g: game_key(config.seed, g))(one_batch.games), 4)
    games = [lab.make(of_games[at]) for at in (slice(0, 8), slice(8, 16))]
    keys = jax.vmap(lambda row: jax.random.fold_in(row_key, row))(jnp.arange(16))
    halves = [
        lab.play(keys[i : i + 8], lab.params(), made, state.bank, evidence.arms[i : i + 8])
        for i, made in zip((0, 8), games, strict=True)
    ]
    played = jax.tree.map(lambda *x: jnp.concatenate(x), *halves)
    np.testing.assert_array_equal(played.success, evidence.success)
    np.testing.assert_array_equal(played.actions, evidence.actions)
    assert set(np.asarray(evidence.arms).tolist()) == {0, 1}

    rewards = np.asarray(evidence.success, np.float64).reshape(4, 4)
    spread = rewards.std(axis=1, ddof=1, keepdims=True)
    advantages = ((rewards - rewards.mean(axis=1, keepdims=True)) / (spread + 1e-6)).ravel()
    mixed = np.repeat(spread[:, 0] > 0, 4)
    assert 0 < mixed.mean()
    assert metrics.mixed_groups == pytest.approx(mixed.mean())
    inside = advantages[mixed]
    advantages = np.where(mixed, (advantages - inside.mean()) / inside.std(), 0.0)

    rows = played.transcript
    used = np.arange(rows.choice.shape[1]) < np.asarray(rows.count)[:, None]

    def objective(params):
        found = masked_log_probs(decision_logits(params, rows, config=lab.policy), rows.allowed)
        chosen = jnp.take_along_axis(found, rows.choice[:, :, None], axis=-1)[..., 0]
        return -jnp.sum(jnp.where(used, chosen, 0) * advantages[:, None]) / used.sum()

    gradient = jax.jit(jax.grad(objective))(lab.params())
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradient)))
    assert metrics.grad_norm == pytest.approx(norm, rel=1e-3)
    # On the policy that sampled them the ratio is 1, and the divergence from the start 0.
    assert metrics.loss == pytest.approx(-(advantages * used.sum(1)).sum() / used.sum(), abs=1e-5)
    assert metrics.kl == pytest.approx(0, abs=1e-6) and metrics.clipped == 0
    assert metrics.entropy > 0
    # Adam's first step moves every parameter by the learning rate against its gradient.
    for old, new, g in zip(
        *(jax.tree.leaves(x) for x in (lab.params(), after.params, gradient)), strict=True
    ):
        old, new, g = map(np.asarray, (old, new, g))
        clear = np.abs(g) > 1e-4 * max(norm, 1)
        expected = (old - config.learning_rate * np.sign(g))[clear]
        np.testing.assert_allclose(new[clear], expected, atol=2e-5)


def test_the_divergence_from_the_start_counts(one_batch):
    state, seen = one_batch.state(), []
    for _ in range(3):
        state, metrics, _ = one_batch.step(state, one_batch.games)
        seen.append(float(metrics.kl))
    assert seen[0] == pytest.approx(0, abs=1e-6) and min(seen[1:]) > 1e-6
    chex.assert_trees_all_equal(state.reference, one_batch.state().reference)


def test_an_update_that_is_not_finite_is_left_out(one_batch):
    state = one_batch.state()
    broken = jax.tree.map(lambda x: jnp.full_like(x, jnp.nan), state.reference)
    after, metrics, _ = one_batch.step(state._replace(reference=broken), one_batch.games)
    assert metrics.skipped == 1 and after.skipped == 1
    chex.assert_trees_all_equal((after.params, after.opt_state), (state.params, state.opt_state))
    with pytest.raises(loop.TrainingError, match="lower --learning-rate"):
        loop._check_finite(jax.device_get(metrics), 1, 0, one_batch.config)
    assert loop._check_finite(jax.device_get(metrics), 1, 1, one_batch.config) is None
    # The next good one is taken.
    after, metrics, _ = one_batch.step(after._replace(reference=state.params), one_batch.games)
    assert metrics.skipped == 1 and np.isfinite(metrics.loss)


@pytest.mark.slow
def test_two_devices_do_what_one_does(lab, one_batch):
    program = lab.program(one_batch.config, lab.world, axis_name="data")
    pmapped = jax.pmap(
        program,
        axis_name="data",
        in_axes=(None, 0),
        out_axes=(None, None, 0),
        devices=jax.devices()[:2],
    )
    one = two = one_batch.state()
    for _ in range(3):
        one, metrics, evidence = one_batch.step(one, one_batch.games)
        two, metrics2, evidence2 = pmapped(two, one_batch.games.reshape(2, 2))
        evidence2 = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), evidence2)
        chex.assert_trees_all_equal(jax.device_get(evidence), jax.device_get(evidence2))
        exact = ("arm_successes", "arm_trials", "trial_trials", "decision", "truncated", "skipped")
        for name in exact:
            np.testing.assert_array_equal(getattr(metrics, name), getattr(metrics2, name), name)
        chex.assert_trees_all_close(
            jax.device_get(metrics), jax.device_get(metrics2), atol=1e-5, rtol=1e-4
        )
        chex.assert_trees_all_close(
            jax.device_get(one.params), jax.device_get(two.params), atol=1e-5
        )
        chex.assert_trees_all_equal(jax.device_get(one.bank), jax.device_get(two.bank))
        two = jax.device_put(jax.device_get(two._replace(key=one.key)), jax.devices()[0])
        two = two._replace(key=one.key)


@pytest.mark.slow
def test_plain_grpo_is_the_step_with_an_empty_bank(lab):
    plain = dataclasses.replace(lab.config, skills=False)
    program = jax.jit(lab.program(plain, lab.world))
    with_layer, without = lab.state(), lab.state()
    for step in range(3):
        games = jnp.asarray(loop.games_of_step(plain, step))
        with_layer, metrics, evidence = lab.step(with_layer, games)
        without, plain_metrics, plain_evidence = program(without, games)
        chex.assert_trees_all_equal(evidence, plain_evidence)
        assert metrics.success == plain_metrics.success
        assert plain_metrics.skill_tokens == 0
        chex.assert_trees_all_close(with_layer.params, without.params, atol=1e-6)


@pytest.mark.slow
def test_groups_without_variance_change_nothing(lab):
    """The real household, where an untrained policy wins nothing in six turns."""
    parts = loop.make_parts(lab.config, lab.policy)
    after, metrics, _ = parts.step(lab.state(), jnp.arange(2, dtype=jnp.int32))
    assert metrics.success == 0 and metrics.mixed_groups == 0
    assert metrics.grad_norm == 0 and metrics.loss == 0
    chex.assert_trees_all_equal(after.params, lab.params())


def test_the_seed_is_no_part_of_the_program(lab):
    other = dataclasses.replace(lab.config, seed=5, name="other", eval_every=3)
    assert loop.make_parts(lab.config, lab.policy).step is loop.make_parts(other, lab.policy).step
    games = jnp.arange(lab.config.groups, dtype=jnp.int32)
    programs = [
        str(jax.make_jaxpr(lab.program(config, lab.world))(lab.state(config=config), games))
        for config in (lab.config, other)
    ]
    assert programs[0] == programs[1]
    keys = [lab.state(config=config).games for config in (lab.config, other)]
    for key, config in zip(keys, (lab.config, other), strict=True):
        assert jax.random.fold_in(key, 7) == game_key(config.seed, jnp.int32(7))
    assert keys[0] != keys[1]


def test_the_sequential_rule_decides_by_differences_within_groups(lab):
    """Trials of groups of known outcomes, told again on the host."""
    config = dataclasses.replace(lab.config, trial_rule="sequential", max_trial_steps=6)
    versions = [lab.skill("open", "open.")], [lab.skill("help", "help.")]
    bank = make_bank(config, versions)
    trial = loop.start_trial(2, np.ones(2), max_steps=6)

    @jax.jit
    def step(state, arms, success):
        counted = (arms, success, jnp.ones_like(success))
        return decide(
            state,
            *arm_outcomes(*counted, num_arms=2),
            config=config,
            contrast=within_group_contrast(*counted, num_arms=2),
        )

    idle = lab.state(config=config)._replace(bank=jax.tree.map(jnp.asarray, bank))
    rng = np.random.default_rng(0)
    lengths = {0: [], 1: []}
    for benefit in (-0.4, -0.1, 0.0, 0.1, 0.4) * 3:
        state = idle._replace(
            trial=jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), trial, idle.trial)
        )
        evidence = np.zeros(3)
        for steps in range(1, 7):
            arms = rng.integers(0, 2, (16, 8)).astype(np.int32)
            rate = np.clip(rng.uniform(0.2, 0.8, (16, 1)) + benefit * arms, 0, 1)
            success = rng.random((16, 8)) < rate
            state, _, decision, _ = step(state, jnp.asarray(arms), jnp.asarray(success))
            for new, wins in zip(arms == 1, success, strict=True):
                weight = new.sum() * (~new).sum() / 8
                score = (wins[new] - wins.mean()).sum()
                evidence += [score, weight, weight * wins.var(ddof=1)]
            score, weight, variance = evidence
            odds = 0.08 * (score - 0.04 * weight) * weight / variance
            expected = -1
            if steps >= 2 and odds >= np.log(0.95 / 0.1):
                expected = 1
            elif steps >= 2 and odds <= np.log(0.05 / 0.9):
                expected = 0
            elif steps == 6:
                expected = int(odds > 0)
            assert decision == expected
            assert bool(state.trial.active) == (expected < 0)
            if expected >= 0:
                lengths[expected].append(steps)
                chex.assert_trees_all_equal(state.bank, make_bank(config, [versions[expected]]))
                break
    assert min(lengths[0]) == min(lengths[1]) == 2 and max(lengths[0] + lengths[1]) > 2


def test_the_last_step_alone(lab):
    """The posterior is 1 + the step's counts, whatever came before."""
    config = dataclasses.replace(lab.config, discount="last_step")
    made = lab.state()
    trial = loop.start_trial(config.arms, np.ones(2), max_steps=config.max_trial_steps)
    state = made._replace(trial=jax.tree.map(jnp.asarray, trial))
    for successes, trials in (((3, 0), (4, 4)), ((1, 2), (5, 3))):
        won, played = jnp.array(successes), jnp.array(trials)
        state, trial, _, _ = decide(state, won, played, config=config)
        np.testing.assert_array_equal(trial.posterior.alpha, 1 + np.array(successes))
        np.testing.assert_array_equal(trial.posterior.beta, 1 + np.subtract(trials, successes))
    assert int(trial.steps) == 2
