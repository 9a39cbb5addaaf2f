"""Validation of the settings of a run."""

import dataclasses

import pytest

from reskill_jax.training.config import PRESETS, TrainConfig, program_of


def test_presets_are_valid_and_named():
    for name, preset in PRESETS.items():
        assert preset().name == name
    assert TrainConfig() == PRESETS["household"]()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "steps must be at least 1, got 0"),
        ("group_size", 0, "group_size must be at least 1, got 0"),
        ("minibatches", 0, "minibatches must be at least 1"),
        ("minibatches", 3, "128 rollouts cannot be split into 3 equal minibatches"),
        ("min_trial_steps", 0, "min_trial_steps must be at least 1"),
        ("arms", 1, "arms must be at least 2"),
        ("floor", 0.0, r"floor must lie in \(0, 0.5\]"),
        ("floor", 0.6, r"floor must lie in \(0, 0.5\]"),
        ("learning_rate", 0.0, "learning_rate must be positive"),
        ("learning_rate", float("nan"), "learning_rate must be positive"),
        ("clip_low", -0.2, "clip_low must be positive"),
        ("max_grad_norm", 0.0, "max_grad_norm must be positive"),
        ("kl_weight", -1.0, "kl_weight must not be negative"),
        ("temperature", -0.5, "temperature must not be negative"),
        ("seed", -1, "seed must not be negative"),
        ("eval_every", -1, "eval_every must not be negative"),
        ("policy_from", -1, "policy_from must not be negative"),
        ("policy_until", -1, "policy_until must not be negative"),
        ("skills_until", -2, "skills_until must not be negative, got -2"),
        ("trial_gain", 0.0, r"trial_gain must lie in \(0, 0.5\), got 0.0"),
        ("trial_false_accept", 0.5, r"trial_false_accept must lie in \(0, 0.5\)"),
        ("trial_false_reject", 1.0, r"trial_false_reject must lie in \(0, 0.5\)"),
        ("trial_rule", "luck", "trial_rule must be one of sequential, means, got 'luck'"),
        ("reservoir", 0, "reservoir must be at least 1"),
        ("reservoir", 201, "it would never propose"),
        ("scheme", "random", "scheme must be one of stratified, independent, got 'random'"),
        ("assignment", "greedy", "assignment must be one of thompson, uniform"),
        ("discount", "some", "discount must be one of adaptive, none"),
    ],
)
def test_a_bad_value_is_named(field, value, says):
    with pytest.raises(ValueError, match=says) as caught:
        dataclasses.replace(TrainConfig(), **{field: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"), [("eval_every", 0), ("temperature", 0.0), ("floor", 0.5), ("cooldown", 0)]
)
def test_limits_are_valid(field, value):
    assert getattr(dataclasses.replace(TrainConfig(), **{field: value}), field) == value


def test_the_paper_keeps_the_rules_of_the_paper():
    paper = PRESETS["paper"]()
    assert (paper.trial_rule, paper.min_trial_steps, paper.min_trial_episodes) == ("means", 5, 50)
    assert (paper.scheme, paper.floor, paper.discount) == ("independent", 0.15, "adaptive")


def test_a_config_can_be_static():
    assert hash(TrainConfig()) == hash(PRESETS["household"]())


@pytest.mark.parametrize(
    ("first", "until", "expected"),
    [(0, None, (0, 10)), (4, None, (4, 10)), (0, 4, (0, 4)), (2, 40, (2, 10)), (0, 0, (0, 0))],
)
def test_steps_that_train_the_policy(first, until, expected):
    config = TrainConfig(steps=10, policy_from=first, policy_until=until)
    assert config.policy_steps == range(*expected)


def test_steps_that_propose_skills():
    config = TrainConfig(steps=10, skills_from=2, skills_until=5)
    assert [step for step in range(12) if config.proposes(step)] == [2, 3, 4]
    assert [step for step in range(12) if config.will_propose(step)] == [0, 1, 2, 3, 4]
    assert TrainConfig(steps=10).proposes(11)  # a run that is continued goes on proposing
    assert not TrainConfig(skills=False).will_propose(0)
    assert not TrainConfig(skills_until=0).will_propose(0)


def test_what_the_host_reads_is_not_in_the_program():
    one = TrainConfig()
    other = TrainConfig(name="b", root="r", seed=3, eval_tasks=1, bank="good", auto_accept=True)
    assert program_of(one) == program_of(other)
    for changes in ({"steps": 7}, {"policy_from": 1}, {"discount": "none"}, {"arms": 3}):
        assert program_of(TrainConfig(**changes)) != program_of(one)
