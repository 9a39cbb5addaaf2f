"""Validation of the settings of a run."""

import dataclasses

import pytest

from reskill_jax.training.config import PRESETS, TrainConfig


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


def test_a_config_can_be_static():
    assert hash(TrainConfig()) == hash(PRESETS["household"]())
