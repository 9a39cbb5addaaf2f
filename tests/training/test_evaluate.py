"""Evaluation: the same games, never a mixture of arms."""

import jax
import numpy as np
import pytest

from reskill_jax.training.config import replace
from reskill_jax.training.evaluate import Evaluation, evaluate, play_games
from reskill_jax.training.lifecycle import make_bank
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()


def options(lab):
    """What all evaluations here share, the split of seen tasks among it."""
    return dict(
        world=lab.world,
        model=lab.model,
        language=lab.language,
        split="seen",
        max_turns=lab.config.max_turns,
        context_length=lab.config.context_length,
        games=lab.config.eval_tasks,
    )


@pytest.fixture(scope="module")
def bank_of(lab):
    """The arrays of two arms: of a run that tests one proposal at a time."""
    one_at_a_time = replace(lab.config, trial=dict(concurrent=1))
    return lambda *arms: make_bank(one_at_a_time, WORLD, arms)


@pytest.fixture(scope="module")
def play(lab, bank_of):
    def run(arms=((),), mode="bank", **changes):
        asked = options(lab) | {"mode": mode} | changes
        return evaluate(lab.params(), bank_of(*arms), **asked)

    return run


def test_games_a_few_at_a_time_are_the_same(play):
    assert play(seed=4, at_once=6) == play(seed=4) == play(seed=4, at_once=99)


@pytest.fixture(scope="module")
def versions(lab):
    return [[lab.skill(name, action)] for name, action in (("a", "open."), ("b", "do not look."))]


def test_same_seed_same_result(play):
    first = play(seed=4)
    assert play(seed=4) == first
    others = [play(seed=seed) for seed in (5, 6, 7)]
    assert any(other != first for other in others)
    assert first.episodes == 16 and 0 < first.successes < 16
    assert first.success == first.successes / 16
    won, played = np.sum(list(first.by_task_type.values()), axis=0)
    assert (won, played) == (first.successes, 16)


def test_splits_are_different_games(play):
    seen, unseen = play(split="seen"), play(split="unseen")
    assert (seen.split, unseen.split) == ("seen", "unseen")
    assert seen.by_task_type != unseen.by_task_type


def test_modes_do_not_mix_arms(play, versions):
    one, other = versions
    outcomes = lambda found: (found.successes, found.turns, found.by_task_type)  # noqa: E731
    nothing = outcomes(play(mode="none"))
    assert outcomes(play(mode="none")) == outcomes(play([one, other], "none")) == nothing
    bank = outcomes(play([one, one], "bank"))
    assert outcomes(play([one, other], "bank")) == bank
    assert outcomes(play([other, one], "candidate")) == bank
    candidate = outcomes(play([one, other], "candidate"))
    assert outcomes(play([other, other], "bank")) == candidate
    assert len({repr(x) for x in (nothing, bank, candidate)}) == 3


def test_the_candidate_is_all_that_is_under_test(lab, play, versions):
    """The last arm, which holds every part, and not those that hold some."""
    one, other = versions
    bank = make_bank(lab.config, WORLD, [one] * 7 + [other])
    assert lab.config.arms == 8
    for mode, skills in (("candidate", other), ("bank", one)):
        found = evaluate(lab.params(), bank, mode=mode, **options(lab))
        assert (found.split, found.mode) == ("seen", mode)
        assert found[2:] == play([skills])[2:]
    assert play([one])[2:] != play([other])[2:]


def test_greedy_needs_no_seed_for_noise(play):
    assert play(temperature=0.0) == play(temperature=0.0)


def test_bad_requests(lab, play, bank_of):
    with pytest.raises(ValueError, match="mode must be one of none, bank, candidate, got 'best'"):
        play(mode="best")
    with pytest.raises(ValueError, match="games must be at least 1"):
        play(games=0)
    with pytest.raises(ValueError, match="split must be one of train, seen, unseen, got 'dev'"):
        play(split="dev")
    bank = jax.tree.map(lambda x: x[:1], bank_of(()))
    with pytest.raises(ValueError, match="two arms"):
        evaluate(
            lab.params(),
            bank,
            world=lab.world,
            model=lab.model,
            language=lab.language,
            split="seen",
            mode="candidate",
            max_turns=2,
            context_length=60,
            games=2,
        )


def test_line_of_the_log():
    found = Evaluation("unseen", "none", 1, 4, 3.5, {"heat": (1, 2), "cool": (0, 2)})
    line = found.to_json()
    assert line == {
        "split": "unseen",
        "mode": "none",
        "success": 0.25,
        "episodes": 4,
        "interval": pytest.approx([0.045587, 0.699358], abs=1e-5),
        "turns": 3.5,
        "by_task_type": {"heat": [1, 2], "cool": [0, 2]},
    }


def test_games_one_by_one(lab, bank_of, versions):
    """Two versions are compared on the same games: arms of equal skills do exactly the same."""
    one, other = versions
    bank = bank_of(one, other)
    first, second = (play_games(lab.params(), bank, arm=arm, **options(lab)) for arm in (0, 1))
    np.testing.assert_array_equal(first.task_type, second.task_type)
    swapped = bank_of(other, one)
    again = play_games(lab.params(), swapped, arm=1, **options(lab))
    np.testing.assert_array_equal(first.won, again.won)
    np.testing.assert_array_equal(first.turns, again.turns)
    assert first.won.shape == (16,) and (first.turns != second.turns).any()
    with pytest.raises(ValueError, match="there is no arm 2"):
        play_games(lab.params(), bank, arm=2, **options(lab))
