"""The bank's arrays: triggers inside jit and vmap against triggers on text."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from reskill_jax.skills import bank as banks
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import Skill, SkillError, Trigger
from reskill_jax.worlds.household import symbols as household

LANGUAGE = household.SYMBOLS
SLOTS, WIDTH, LA, LO = 4, 12, 6, 20


def make(name, action, kind="general", pattern=None):
    return Skill(name, "when", action, Trigger(kind, pattern))


OPEN = make("open", "open.", "observation_pattern", "is closed")
GO = make("go", "if the task says clean, go to sinkbasin.", "action_pattern", "^take")
START = make("start", "do not look.", "beginning")
ALWAYS = make("always", "inventory.")
ARMS = [[OPEN, GO, START, ALWAYS], [ALWAYS, OPEN]]


def build(arms=ARMS, **more):
    return banks.build_bank(
        arms,
        language=LANGUAGE,
        encode=household.words,
        lacking=household.lacking,
        slots=SLOTS,
        width=WIDTH,
        **more,
    )


BANK = build()


def padded(texts, length):
    row = np.zeros(length, np.int32)
    row[: len(texts)] = [household.symbol(t) for t in texts]
    return row


TAKE = padded([" take", " apple", " 1", " from", " fridge", " 1"], LA)
LOOK = padded([" look"], LA)
CLOSED = padded(["\nYou arrive at", " fridge", " 1", ". The", " fridge", " 1", " is closed."], LO)
NOTHING = padded(["\nNothing happens."], LO)


def variants(function):
    return [function, jax.jit(function)]


def test_arrays():
    chex.assert_shape(BANK.symbols, (2, SLOTS, WIDTH))
    chex.assert_shape(BANK.table, (2, SLOTS, 32, len(LANGUAGE)))
    assert household.text(BANK.symbols[0, 1]) == "Skill: if the task says clean, go to sinkbasin."
    np.testing.assert_array_equal(BANK.kind[1], [1, 4, 0, 0])
    assert all(isinstance(leaf, np.ndarray) for leaf in BANK)


@pytest.mark.parametrize(
    "arm, turn, action, observation, expected",
    [
        (0, 0, TAKE, CLOSED, [True, False, True, True]),  # no action pattern at turn 0
        (0, 1, TAKE, CLOSED, [True, True, False, True]),
        (0, 1, LOOK, NOTHING, [False, False, False, True]),
        (0, 2, TAKE, NOTHING, [False, True, False, True]),
        (1, 3, TAKE, CLOSED, [True, True, False, False]),
        (1, 0, LOOK, NOTHING, [True, False, False, False]),
    ],
)
def test_fires(arm, turn, action, observation, expected):
    for function in variants(banks.fires):
        got = function(BANK, jnp.int32(arm), jnp.int32(turn), action, observation)
        chex.assert_type(got, bool)
        np.testing.assert_array_equal(got, expected)


def test_concerns_agrees_with_the_text_of_the_task():
    skills = [
        OPEN,
        Skill("a", "when", "open.", Trigger("general", None, r"\bclean\b")),
        Skill("b", "when", "look.", Trigger("beginning", None, "^put a (hot|cool)")),
    ]
    bank = build([skills, [ALWAYS]])
    tasks = [
        padded([" put", " a", " clean", " mug", " in", " desk", "."], 9),
        padded([" put", " a", " hot", " mug", " in", " desk", "."], 9),
        padded([" find", " two", " mug", "."], 9),
    ]
    for task in tasks:
        text = household.text(task)
        for function in variants(banks.applies_to_task):
            got = function(bank, jnp.int32(0), task)
            chex.assert_type(got, bool)
            expected = [skill.trigger.applies_to_task(text) for skill in skills] + [True]
            np.testing.assert_array_equal(got, expected)
            np.testing.assert_array_equal(function(bank, jnp.int32(1), task), True)
    batched = jax.vmap(banks.applies_to_task, in_axes=(None, None, 0))(bank, 0, np.stack(tasks))
    np.testing.assert_array_equal(batched[:, 1], [True, False, False])
    np.testing.assert_array_equal(batched[:, 2], [False, True, False])


def test_differs_where_other_skills_concern_the_task():
    clean = Skill("c", "when", "go to sinkbasin.", Trigger("general", None, r"\bclean\b"))
    renamed = Skill("d", "other", "go to sinkbasin.", Trigger("general", None, r"\bclean\b"))
    other = Skill("c", "when", "go to fridge.", Trigger("general", None, r"\bclean\b"))
    bank = build([[OPEN, clean], [renamed, OPEN], [OPEN, other], [OPEN], [clean], [ALWAYS]])
    cleaning = padded([" put", " a", " clean", " mug", " in", " desk", "."], 9)
    finding = padded([" find", " two", " mug", "."], 9)
    for function in variants(banks.arms_differ):
        got = function(bank, cleaning)
        chex.assert_type(got, bool)
        np.testing.assert_array_equal(got, [False, False, True, True, True, True])
        np.testing.assert_array_equal(
            function(bank, finding), [False, False, False, False, True, True]
        )
    batched = jax.vmap(banks.arms_differ, in_axes=(None, 0))(bank, np.stack([cleaning, finding]))
    chex.assert_shape(batched, (2, 6))


def test_fires_agrees_with_the_text_triggers_over_a_batch():
    rng = np.random.default_rng(0)
    n = 200
    arm = rng.integers(0, 2, n)
    turn = rng.integers(0, 3, n)
    action = rng.integers(1, len(LANGUAGE), (n, LA))
    action[:, 0] = rng.choice([household.symbol(" take"), household.symbol(" look")], n)
    observation = rng.integers(1, len(LANGUAGE), (n, LO))
    observation[::2, 3] = household.symbol(" is closed.")
    for row in range(n):
        action[row, rng.integers(1, LA + 1) :] = 0
        observation[row, rng.integers(0, LO + 1) :] = 0
    got = jax.jit(jax.vmap(banks.fires, in_axes=(None, 0, 0, 0, 0)))(
        BANK, arm, turn, action, observation
    )
    for row in range(n):
        expected = [
            skill.trigger.fires(
                turn=int(turn[row]),
                last_action=household.text(action[row]),
                observation=household.text(observation[row]),
            )
            for skill in ARMS[arm[row]]
        ]
        expected += [False] * (SLOTS - len(expected))
        np.testing.assert_array_equal(got[row], expected)
    assert 0.05 < np.mean(got[:, 0]) < 0.95


def test_skill_symbols_joins_lines_in_slot_order():
    for function in variants(lambda *a: banks.skill_symbols(*a, capacity=24)):
        got, length = function(BANK, jnp.int32(0), jnp.array([True, False, True, True]))
        text = "".join(LANGUAGE[i] for i in np.asarray(got))
        assert text == "\nSkill: open.\nSkill: do not look.\nSkill: inventory."
        assert int(length) == 3 + 4 + 3
        assert not np.any(np.asarray(got)[10:])


def test_a_line_that_does_not_fit_whole_is_dropped_and_a_shorter_one_still_fits():
    # lengths of the four lines: 3, 7, 4, 3
    got, length = banks.skill_symbols(BANK, jnp.int32(0), jnp.ones(4, bool), capacity=6)
    assert household.text(got) == "Skill: open.\nSkill: inventory." and int(length) == 6
    got, length = banks.skill_symbols(BANK, jnp.int32(0), jnp.ones(4, bool), capacity=2)
    assert int(length) == 0 and not np.any(got)
    got, length = banks.skill_symbols(BANK, jnp.int32(0), jnp.zeros(4, bool), capacity=6)
    assert int(length) == 0 and not np.any(got)


def test_skill_symbols_under_vmap():
    fire = jnp.array([[True] * 4, [False, True, False, False], [True, True, False, False]])
    got, length = jax.vmap(lambda a, f: banks.skill_symbols(BANK, a, f, capacity=17))(
        jnp.array([0, 0, 1]), fire
    )
    np.testing.assert_array_equal(length, [17, 7, 6])
    assert household.text(got[2]) == "Skill: inventory.\nSkill: open."


def test_a_bank_without_patterns_runs_no_automaton():
    plain = build([[ALWAYS, START]])
    jaxpr = jax.jit(banks.fires)(plain, 0, 5, TAKE, CLOSED)
    np.testing.assert_array_equal(jaxpr, [True, False, False, False])


@pytest.mark.parametrize(
    "arms, more, error, reason",
    [
        ([[ALWAYS] * 5], {}, SkillError, "5 skills; the bank has 4 slots"),
        (
            [[make("a", "go to moon.")]],
            {},
            SkillError,
            "the action of a has a word this world lacks: 'moon'$",
        ),
        (
            [[make("a", "open, Fly to " + "\N{ROCKET}" * 90 + "\n.")]],
            {},
            SkillError,
            r"a word this world lacks: 'Fly' \(and 1 more\)$",
        ),
        ([[make("a", "look" + " look" * 11)]], {}, SkillError, "takes 13 symbols; at most 12"),
        ([[GO]], {"states": 2}, TriggerError, "the trigger of go: .* needs 3 states"),
    ],
)
def test_refusals(arms, more, error, reason):
    with pytest.raises(error, match=reason):
        build(arms, **more)


def test_triggers_under_shard_map():
    """Every device has a rollout of its own; the loops over texts start from constants."""
    spec = PartitionSpec("data")
    arms, turns = jnp.array([0, 1]), jnp.array([1, 2])
    actions, seen = jnp.asarray([TAKE, LOOK]), jnp.asarray([CLOSED, NOTHING])

    def one(arm, turn, action, observation):
        fired = banks.fires(BANK, arm[0], turn[0], action[0], observation[0])
        return fired[None], banks.applies_to_task(BANK, arm[0], observation[0])[None]

    mesh = Mesh(np.array(jax.devices()[:2]), ("data",))
    split = jax.jit(jax.shard_map(one, mesh=mesh, in_specs=spec, out_specs=spec))
    fired, concerned = split(arms, turns, actions, seen)
    np.testing.assert_array_equal(fired, [[True, True, False, True], [True, False, False, False]])
    assert np.all(concerned)
