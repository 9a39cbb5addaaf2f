"""Self-reflection: the policy's episodes scored again under each skill alone, and without."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.rollouts import transcript as transcripts
from reskill_jax.training import loop
from reskill_jax.training.config import program_of, replace
from reskill_jax.training.creators import creator_settings
from reskill_jax.training.reflection import (
    account,
    line_lengths,
    maybe_reflect,
    rows_of_step,
    shuffled_evidence,
    skill_slots,
    step_lost,
)
from reskill_jax.training.scoring import decision_log_probs
from reskill_jax.training.settings import TrainingError

SKILLS = (("look-first", "look.", "general"), ("no-help", "do not help.", "beginning"))


@pytest.fixture(scope="module")
def played(lab):
    """16 episodes: half of them read two skills, the others none."""
    state = lab.state([[lab.skill(*one) for one in SKILLS], []])
    keys = jax.random.split(jax.random.key(3), 16)
    games = lab.make(jax.random.split(jax.random.key(4), 16))
    arms = jnp.arange(16) % 2
    rollouts = lab.play(keys, lab.params(), games, state.bank, arms).rollouts
    return state.bank, arms, rollouts


@pytest.fixture(scope="module")
def look(lab, played):
    """The account of all 16 in a step that looks."""
    bank, arms, rollouts = played
    function = functools.partial(
        maybe_reflect,
        every=5,
        looked_at=16,
        model=lab.model,
        language=lab.language,
        temperature=1.0,
    )
    reflect = jax.jit(
        lambda step: function(jax.random.key(0), step, lab.params(), rollouts, bank, arms)
    )
    return reflect


def test_tokens_are_told_apart_by_skill(lab, played):
    bank, arms, rollouts = played
    symbols, tokens = (x[arms] for x in line_lengths(bank, lab.language))
    slots = np.asarray(jax.vmap(skill_slots)(rollouts.of_skills, rollouts.fired, symbols, tokens))
    lines = [np.asarray(line)[np.asarray(line) != 0] for line in bank.symbols[0, :2]]
    for row in range(16):
        told = np.asarray(rollouts.transcript.tokens[row])
        for slot, line in enumerate(lines):
            found = told[slots[row] == slot]
            times = np.asarray(rollouts.fired[row, :, slot]).sum()
            full = int(rollouts.transcript.length[row]) > len(told)  # the last lines had no room
            assert len(found) == times * len(line) or full
            np.testing.assert_array_equal(found, np.tile(line, times)[: len(found)])
        assert not np.any(np.isin(slots[row], (0, 1)) & ~np.asarray(rollouts.of_skills[row]))


def test_what_follows_the_last_recorded_turn_belongs_to_no_skill():
    of_skills = jnp.array([0, 1, 1, 0, 1, 1, 0, 1, 1], bool)
    fired = jnp.array([[True, False], [True, False]])
    found = skill_slots(of_skills, fired, jnp.array([2, 3]), jnp.array([2, 3]))
    np.testing.assert_array_equal(found, [2, 0, 0, 2, 0, 0, 2, 2, 2])


def test_a_line_without_room_is_left_out():
    fired = jnp.ones((1, 3), bool)
    symbols = jnp.array([20, 20, 12])  # the second does not fit behind the first
    of_skills = jnp.arange(40) < 32
    found = np.asarray(skill_slots(of_skills, fired, symbols, symbols))
    np.testing.assert_array_equal(np.bincount(found, minlength=4), [20, 0, 12, 8])


def test_without_skills_nothing_can_be_told(look):
    seen = look(jnp.int32(4))
    assert bool(seen.done) and seen.rows.shape == (16,)
    odd = np.asarray(seen.rows) % 2 == 1
    np.testing.assert_array_equal(np.asarray(seen.gain)[odd], 0)
    np.testing.assert_array_equal(np.asarray(seen.sensitivity)[odd], 0)
    np.testing.assert_array_equal(np.asarray(seen.candidate)[odd].sum(axis=1), 1)
    np.testing.assert_allclose(np.asarray(seen.posterior).sum(axis=1), 1, rtol=1e-5)


def test_the_likelihoods_are_those_of_the_episode_with_one_skill_alone(lab, played, look):
    """Slot 0 alone, computed in another way; for whom nothing was read, as sampled."""
    bank, arms, rollouts = played
    seen = look(jnp.int32(4))
    symbols, tokens = (x[arms] for x in line_lengths(bank, lab.language))
    slots = jax.vmap(skill_slots)(rollouts.of_skills, rollouts.fired, symbols, tokens)
    record = rollouts.transcript
    used = np.arange(record.position.shape[1]) < np.asarray(record.count)[:, None]
    score = jax.jit(
        functools.partial(decision_log_probs, lab.params(), model=lab.model, temperature=1.0)
    )
    turns = np.asarray(record.turn)
    for utility, dropped in ((1, slots == 1), (0, rollouts.of_skills)):
        alone = jax.vmap(transcripts.without)(record, dropped & rollouts.of_skills)
        log_probs = np.where(used, np.asarray(score(alone, used)), 0)
        expected = np.zeros(seen.log_likelihood.shape[:2])
        for row in range(16):
            np.add.at(expected[row], turns[row][used[row]], log_probs[row][used[row]])
        np.testing.assert_allclose(seen.log_likelihood[:, :, utility], expected, atol=2e-4)
    sampled = np.where(used, np.asarray(record.log_prob), 0).sum(axis=1)[1::2]
    np.testing.assert_allclose(seen.log_likelihood[1::2, :, 0].sum(axis=1), sampled, atol=2e-3)


def test_evidence_adds_up_and_sensitivity_is_where_skills_fire(played, look):
    _, _, rollouts = played
    seen = look(jnp.int32(4))
    fired = np.asarray(rollouts.fired)
    assert np.all(np.asarray(seen.sensitivity)[~fired] == 0)
    assert np.asarray(seen.sensitivity)[fired].mean() > 1e-4
    weight = np.asarray(seen.weight).sum(axis=1)  # the prior is even among candidates
    posterior, candidate = np.asarray(seen.posterior), np.asarray(seen.candidate)
    for row in np.flatnonzero(candidate.sum(axis=1) > 1):
        of = candidate[row] & (posterior[row] < 0.999) & (posterior[row] > 1e-3)
        odds = np.log(posterior[row][of] / (1 - posterior[row][of]))
        prior = -np.log(candidate[row].sum() - 1)
        np.testing.assert_allclose(weight[row][of], odds - prior, atol=1e-3)
    assert np.all(np.asarray(seen.gain) >= 0) and np.all(np.asarray(seen.null_gain) >= 0)


def test_steps_agree_with_the_skills_read_there_unless_shuffled():
    rng = np.random.default_rng(0)
    fired = jnp.asarray(rng.random((64, 6, 3)) < 0.5)
    # Every skill that is read makes its step likelier by 2 nats.
    likelihood = jnp.concatenate([jnp.zeros((64, 6, 1)), 2.0 * fired], axis=2) - 3.0
    candidate = jnp.ones((64, 4), bool)
    mask = jnp.ones((64, 6), bool)
    make = jax.jit(account)
    told = make(jax.random.key(0), likelihood, candidate, mask, fired, jnp.zeros(4))
    assert np.all(np.asarray(told["agreement"]) > 0)
    mixed = shuffled_evidence(jax.random.key(1), likelihood, candidate)
    np.testing.assert_allclose(jnp.sort(mixed, axis=2), jnp.sort(likelihood, axis=2))
    lost = np.asarray(
        make(jax.random.key(0), mixed, candidate, mask, fired, jnp.zeros(4))["agreement"]
    )
    assert abs(lost.mean()) < 3 * lost.std() / 8 and lost.mean() < 0.3 * told["agreement"].mean()
    sure = make(jax.random.key(0), likelihood, candidate, mask, fired, jnp.array([50.0, 0, 0, 0]))
    assert np.all(np.asarray(sure["posterior"])[:, 0] > 0.99)  # a prior that nothing changes


def test_only_candidates_are_shuffled():
    likelihood = jnp.arange(24.0).reshape(2, 3, 4)
    candidate = jnp.array([[True, False, True, False], [True, True, True, True]])
    mixed = np.asarray(shuffled_evidence(jax.random.key(2), likelihood, candidate))
    np.testing.assert_array_equal(mixed[0][:, [1, 3]], likelihood[0][:, jnp.array([1, 3])])
    np.testing.assert_array_equal(np.sort(mixed, axis=2), likelihood)


def test_the_moment_a_skill_is_lost():
    weight = jnp.zeros((1, 3, 4)).at[0, :, 1].set(jnp.array([2.0, -3.0, -5.0]))
    weight = weight.at[0, :, 2].set(jnp.array([0.0, -0.5, 0.0])).at[0, 2, 3].set(-9.0)
    fired = jnp.array([[[True, True, False], [True, True, False], [False, True, False]]])
    np.testing.assert_array_equal(step_lost(weight, fired), [[1, -1, -1]])


def test_other_steps_do_not_look(look):
    seen = look(jnp.int32(5))
    assert not any(np.any(np.asarray(x)) for x in jax.tree.leaves(seen))


def test_every_row_gets_its_turn():
    rows = [np.asarray(rows_of_step(jnp.int32(step), 32, 4, 5)) for step in range(4, 44, 5)]
    assert sorted(np.concatenate(rows).tolist()) == list(range(32))
    np.testing.assert_array_equal(rows_of_step(jnp.int32(0), 3, 16, 1), [0, 1, 2])


def test_settings(smallest):
    assert not smallest.looks(10)  # off unless asked for
    asked = replace(smallest, evidence=dict(every=5))
    assert asked.looks(10) and not asked.looks(11)
    assert not replace(asked, skills=False).looks(10)
    with pytest.raises(TrainingError, match="evidence.every must be 0 in a world on the host"):
        loop.open_runner(replace(asked, world="household_text"))
    with pytest.raises(ValueError, match="evidence.rows"):
        replace(smallest, evidence=dict(rows=0))


def test_bundles_are_tested_by_parts(smallest):
    bundles = replace(smallest, creator=dict(max_operations=3))
    split = replace(bundles, trial=dict(split_bundles=True))
    assert creator_settings(bundles).max_operations == 3
    assert creator_settings(split).max_operations == 1
    assert program_of(split) == program_of(bundles)  # the host decides what is tested
