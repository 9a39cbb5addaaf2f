"""Rollouts inside the compiled step against the same episodes told on the host."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models.sampling import masked_log_probs
from reskill_jax.rollouts import compiled
from reskill_jax.rollouts.transcript import without
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.training.scoring import decision_logits
from reskill_jax.worlds.household import TextGame, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()

ROWS = 8
ARMS = np.asarray([0, 1, -1, 0, 1, 0, 1, -1], np.int32)


@pytest.fixture(scope="module")
def arms_of_skills(lab):
    return (
        (
            lab.skill("always", "open."),
            lab.skill("after-going", "do not look.", "action_pattern", "^go to .* 1$"),
        ),
        (
            lab.skill("at-first", "if the task says clean, go to sinkbasin.", "beginning"),
            lab.skill("closed", "open.", "observation_pattern", "is closed"),
            lab.skill("after-help", "examine.", "action_pattern", "help|inventory"),
        ),
    )


@pytest.fixture(scope="module")
def bank(lab, arms_of_skills):
    return make_bank(lab.config, WORLD, arms_of_skills)


@pytest.fixture(scope="module")
def logits_of(lab):
    """(params, transcripts) -> [N, D, K], as the loss computes them."""
    return jax.jit(functools.partial(decision_logits, model=lab.model))


def keys_of(seed, rows=ROWS):
    return jax.random.split(jax.random.key(seed), rows)


@pytest.fixture(scope="module")
def episodes(lab, bank):
    """(games, rollouts) of 5 x 8 episodes."""
    found = []
    for seed in range(5):
        games = lab.make(keys_of(100 + seed))
        played = lab.play(keys_of(seed), lab.params(), games, bank, ARMS)
        found.append((jax.device_get(games), jax.device_get(played)))
    return found


def rows_of(episodes):
    for games, played in episodes:
        for n in range(ROWS):
            yield jax.tree.map(lambda x, n=n: x[n], (games, played)), int(ARMS[n])


def unpad(row):
    return [int(x) for x in row if x != sy.PAD]


def told(row, skills, horizon, capacity):
    """The tokens of an episode, told again from its texts; who fired at each turn; and which of the
    tokens are lines of skills."""
    turns, tokens, fired, places = int(row.turns), unpad(row.introductions), [], []
    action, observation = None, sy.text(row.introductions)
    for turn in range(turns + 1):
        firing = [
            s.trigger.fires(turn=turn, last_action=action, observation=observation) for s in skills
        ]
        fired.append(firing)
        for skill, on in zip(skills, firing, strict=True):
            if on:
                line = [sy.SKILL, *sy.words(skill.action)]
                places += range(len(tokens), len(tokens) + len(line))
                tokens += line
        tokens.append(sy.PROMPT)
        if turn == turns:
            break
        action, observation = sy.text(row.actions[turn]), sy.text(row.observations[turn])
        tokens += unpad(row.actions[turn]) + unpad(row.observations[turn])
        if turn == turns - 1 and row.success:
            break
    of_skills = np.isin(np.arange(capacity), places)  # what lies beyond there is no room for
    return tokens, fired[:horizon], of_skills


def test_tokens_are_what_was_read_and_written(lab, episodes, arms_of_skills):
    horizon, capacity = lab.config.max_turns, lab.config.context_length
    fired_at_all = np.zeros((2, 3), int)
    for (_, row), arm in rows_of(episodes):
        skills = arms_of_skills[arm] if arm >= 0 else ()
        tokens, fired, of_skills = told(row, skills, horizon, capacity)
        assert int(row.transcript.length) == len(tokens)
        kept = row.transcript.tokens[: len(tokens)].tolist()
        assert kept == tokens[:capacity]
        assert not row.transcript.tokens[len(tokens) :].any()
        expected = np.zeros_like(row.fired)
        for turn, firing in enumerate(fired):
            expected[turn, : len(firing)] = firing
        np.testing.assert_array_equal(row.fired, expected)
        np.testing.assert_array_equal(row.of_skills, of_skills)
        assert of_skills.any() == bool(expected.any())
        if arm >= 0:
            fired_at_all[arm, : len(skills)] += expected.any(axis=0)[: len(skills)]
    # Every trigger was seen to fire; only the general one fires in every episode.
    assert (fired_at_all[[0, 0, 1, 1, 1], [0, 1, 0, 1, 2]] > 0).all(), fired_at_all
    assert fired_at_all[0, 1] < fired_at_all[0, 0] and fired_at_all[1, 2] < fired_at_all[1, 0]


def test_episodes_end_by_success_horizon_or_context(lab, episodes):
    reasons = set()
    for (_, row), _ in rows_of(episodes):
        turns = int(row.turns)
        looked = [sy.text(a) == "look" for a in row.actions]
        assert row.success == any(looked)
        assert not any(looked[: turns - 1])
        # Finished rows are frozen.
        assert not row.actions[turns:].any() and not row.observations[turns:].any()
        assert all(unpad(a) for a in row.actions[:turns])
        full = int(row.transcript.length) + lab.world.action_length > lab.config.context_length
        early = turns < lab.config.max_turns and not row.success
        assert bool(row.truncated) == early
        assert full or not early
        reasons.add("won" if row.success else "truncated" if early else "horizon")
    assert {"won", "truncated"} <= reasons


def test_real_text_game_tells_the_same(episodes):
    games, played = episodes[0]
    for n in (0, 1, 3):
        game, row = jax.tree.map(lambda x, n=n: x[n], (games, played))
        host = TextGame.from_pddl(pddl.write(game), task=sy.text(game.task))
        assert host.intro.split("Your task")[0] == sy.text(row.introductions).split("Your task")[0]
        for turn in range(int(row.turns)):
            command = sy.text(row.actions[turn])
            assert command in host.admissible()
            assert host.step(command)[0] == sy.text(row.observations[turn])


def test_recorded_log_probs_are_those_of_the_loss(lab, episodes, logits_of):
    decisions = 0
    for _, played in episodes:
        rows = played.transcript
        used = np.arange(rows.position.shape[1]) < rows.count[:, None]
        found = np.asarray(masked_log_probs(logits_of(lab.params(), rows), rows.support >= 0))
        behind = np.take_along_axis(rows.tokens, rows.position + 1, axis=1)
        chosen = rows.support == behind[:, :, None]
        again = np.where(chosen, found, 0).sum(-1)
        np.testing.assert_allclose(again[used], rows.log_prob[used], atol=1e-4)
        np.testing.assert_array_equal(chosen.sum(-1)[used], 1)
        assert ((rows.support >= 0).sum(-1)[used] > 1).all()
        assert (rows.weight == used).all()
        assert (np.diff(rows.turn) >= 0)[used[:, 1:]].all()
        assert (rows.turn < played.turns[:, None])[used].all() and played.valid.all()
        decisions += used.sum()
    assert decisions > 100


def test_numbers_of_observations_are_equal_where_observations_are(episodes):
    seen, numbers = [], []
    for _, played in episodes:
        for row in range(ROWS):
            turns = int(played.turns[row])
            texts = [played.introductions[row], *played.observations[row]][:turns]
            seen += [tuple(unpad(text)) for text in texts]
            numbers += played.rollouts.observation[row, :turns].tolist()
    by_text, by_number = dict(zip(seen, numbers)), dict(zip(numbers, seen))
    assert len(by_text) == len(by_number) == len(set(zip(seen, numbers))) > 20
    assert len(seen) > len(by_text)  # some were seen more than once


def test_a_row_does_not_depend_on_the_others(lab, bank):
    games, keys = lab.make(keys_of(100)), keys_of(0)
    played = lab.play(keys, lab.params(), games, bank, ARMS)
    turned = np.roll(np.arange(ROWS), 3)
    moved = lab.play(
        keys[turned], lab.params(), jax.tree.map(lambda x: x[turned], games), bank, ARMS[turned]
    )
    expected = jax.tree.map(lambda x: x[turned], played)
    chex.assert_trees_all_close(moved, expected, atol=1e-5)
    chex.assert_trees_all_equal(moved.transcript.tokens, expected.transcript.tokens)
    # In other company: only row 0 is the same.
    strange = lab.make(keys_of(7).at[0].set(keys_of(100)[0]))
    other_keys = keys_of(8).at[0].set(keys[0])
    other = lab.play(other_keys, lab.params(), strange, bank, ARMS[::-1].copy() * 0 + ARMS[0])
    first = jax.tree.map(lambda x: x[0], (played, other))
    chex.assert_trees_all_close(*first, atol=1e-5)
    assert (played.transcript.tokens[3] != other.transcript.tokens[3]).any()


def test_greedy_needs_no_noise(lab, bank, logits_of):
    games = lab.make(keys_of(100))
    tokens = [
        lab.play(keys_of(seed), lab.params(), games, bank, ARMS, temperature=temperature)
        for seed, temperature in ((0, 0.0), (1, 0.0), (0, 1.0), (1, 1.0))
    ]
    greedy, again, noisy, other = (np.asarray(p.transcript.tokens) for p in tokens)
    np.testing.assert_array_equal(greedy, again)
    assert (noisy != other).any(axis=1).sum() > ROWS // 2  # short ones may agree by chance
    best = tokens[0].transcript
    logits = logits_of(lab.params(), best)
    place = jnp.argmax(jnp.where(best.support >= 0, logits, -jnp.inf), axis=-1)
    highest = jnp.take_along_axis(best.support, place[:, :, None], axis=-1)[..., 0]
    used = np.arange(best.position.shape[1]) < np.asarray(best.count)[:, None]
    choice = jnp.take_along_axis(best.tokens, best.position + 1, axis=1)
    np.testing.assert_array_equal(np.asarray(highest)[used], np.asarray(choice)[used])


def test_without_arms_no_skill_speaks(lab, bank):
    games, nobody = lab.make(keys_of(100)), np.full(ROWS, -1, np.int32)
    silent = lab.play(keys_of(0), lab.params(), games, bank, nobody)
    empty = lab.play(
        keys_of(0),
        lab.params(),
        games,
        make_bank(lab.config, WORLD, [()]),
        np.zeros(ROWS, np.int32),
    )
    chex.assert_trees_all_equal(silent, empty)
    assert not np.asarray(silent.fired).any() and not np.asarray(silent.of_skills).any()


def test_an_episode_without_its_skill_lines(lab, bank, episodes, logits_of):
    """It holds the same decisions, which the policy sees as had it never read a skill."""
    for _, played in episodes[:2]:
        rows = played.transcript
        left = jax.device_get(jax.jit(jax.vmap(without))(rows, played.of_skills))
        used = np.arange(rows.position.shape[1]) < rows.count[:, None]
        behind = np.take_along_axis(left.tokens, left.position + 1, axis=1)
        before = np.take_along_axis(rows.tokens, rows.position + 1, axis=1)
        np.testing.assert_array_equal(behind[used], before[used])
        assert not (left.tokens == sy.SKILL).any() and (rows.tokens == sy.SKILL).any()
        # Rows that read none are the same; what the others are likely to say has changed.
        spoken = played.of_skills.any(axis=1)
        np.testing.assert_array_equal(left.tokens[~spoken], rows.tokens[~spoken])
        logits = [np.asarray(logits_of(lab.params(), one)) for one in (rows, left)]
        moved = np.abs(logits[0] - logits[1]).max(axis=2)
        assert not moved[~spoken].any() and spoken.any() and not spoken.all()
        assert (moved[used & spoken[:, None]] > 1e-6).mean() > 0.9


def test_numbers_that_are_not_finite_say_nothing_about_the_agent(lab, bank):
    params = lab.params() | {"final_norm": lab.params()["final_norm"] * np.nan}
    played = lab.play(keys_of(0), params, lab.make(keys_of(100)), bank, ARMS)
    assert not played.valid.any()
    assert lab.play(keys_of(0), lab.params(), lab.make(keys_of(100)), bank, ARMS).valid.all()


def test_a_decision_with_too_many_candidates_makes_its_row_invalid(lab, bank, monkeypatch):
    """Three are kept: the first decision of every episode has more verbs than that."""
    monkeypatch.setattr(compiled, "CANDIDATES", 3)
    program = functools.partial(
        compiled.play,
        world=lab.world,
        model=lab.model,
        language=lab.language,
        max_turns=1,
        context_length=lab.config.context_length,
    )
    games = lab.make(keys_of(100))
    played, record = jax.jit(program)(keys_of(0), lab.params(), games, bank, ARMS)
    assert (np.asarray(record.affordances)[:, 0].sum(axis=1) > 3).all()
    assert not played.valid.any() and (played.turns == 1).all()
