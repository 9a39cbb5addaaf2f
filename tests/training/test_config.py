"""Validation of the settings of a run."""

import dataclasses
import json
import operator
from importlib import resources

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.devices.shape import MeshShape
from reskill_jax.training.config import PRESETS, ModelConfig, TrainConfig, program_of, replace
from reskill_jax.training.config_file import ConfigError, apply_config
from reskill_jax.training.sections import SHIPPED, OptimizerConfig, TrialConfig
from reskill_jax.training.state import games_key, make_optimizer
from reskill_jax.worlds.household.generator import RoomSpec


def test_presets_are_valid_and_named():
    for name, preset in PRESETS.items():
        assert preset().name == name
    assert TrainConfig() == PRESETS["household"]()


def with_setting(field, value):
    """The default with one setting changed, `group.name` inside a group."""
    group, _, name = field.rpartition(".")
    return replace(TrainConfig(), **{group: {name: value}} if group else {field: value})


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("steps", 0, "steps must be at least 1, got 0"),
        ("group_size", 0, "group_size must be at least 1, got 0"),
        ("optimizer.minibatches", 0, "optimizer.minibatches must be at least 1"),
        ("optimizer.minibatches", 3, "128 rollouts cannot be split into 3 equal minibatches"),
        ("trial.min_steps", 0, "trial.min_steps must be at least 1"),
        ("trial.concurrent", 0, "trial.concurrent must be at least 1, got 0"),
        ("creator.max_operations", 0, "creator.max_operations must be at least 1, got 0"),
        ("trial.floor", 0.0, r"trial.floor must lie in \(0, 0.5\]"),
        ("trial.floor", 0.6, r"trial.floor must lie in \(0, 0.5\]"),
        ("optimizer.learning_rate", 0.0, "optimizer.learning_rate must be positive"),
        ("optimizer.learning_rate", float("nan"), "optimizer.learning_rate must be positive"),
        ("algorithm.clip_low", -0.2, "algorithm.clip_low must be positive"),
        ("optimizer.max_grad_norm", 0.0, "optimizer.max_grad_norm must be positive"),
        ("algorithm.kl_weight", -1.0, "algorithm.kl_weight must not be negative"),
        ("temperature", -0.5, "temperature must not be negative"),
        ("seed", -1, "seed must not be negative"),
        ("eval_every", -1, "eval_every must not be negative"),
        ("policy_from", -1, "policy_from must not be negative"),
        ("policy_until", -1, "policy_until must not be negative"),
        ("skills_until", -2, "skills_until must not be negative, got -2"),
        ("trial.gain", 0.0, r"trial.gain must lie in \(0, 0.5\), got 0.0"),
        ("trial.false_accept", 0.5, r"trial.false_accept must lie in \(0, 0.5\)"),
        ("trial.false_reject", 1.0, r"trial.false_reject must lie in \(0, 0.5\)"),
        ("trial.rule", "luck", "trial.rule must be one of sequential, means, got 'luck'"),
        ("creator.reservoir", 0, "creator.reservoir must be at least 1"),
        ("creator.reservoir", 201, "it would never propose"),
        (
            "trial.scheme",
            "random",
            "trial.scheme must be one of stratified, independent, got 'random'",
        ),
        ("trial.assignment", "greedy", "trial.assignment must be one of thompson, uniform"),
        ("trial.discount", "some", "trial.discount must be one of adaptive, none"),
        (
            "trial.discount",
            None,
            "trial.discount must be one of adaptive, none, last_step, got None",
        ),
        ("seed", 2**32, "seed must be at most 4294967295, got 4294967296"),
        ("seed", 2**63, "seed must be at most 4294967295"),
        ("seed", True, "seed must be an integer, got True"),
        ("seed", 1.0, "seed must be an integer, got 1.0"),
        ("seed", None, "seed must be an integer, got None"),
        ("steps", 2**31, "steps must be at most 2147483647"),
        ("steps", 2**30, r"steps \* minibatches = 4294967296 updates of the policy, at most"),
        ("trial.max_steps", 2**25, "trial.max_steps must be at most 16777216"),
        ("train_games", 2**25, "train_games must be at most 16777216"),
        ("groups", 2**22, "groups \\* group_size must be at most 16777216, got 33554432"),
        ("eval_tasks", 2**25, "eval_tasks must be at most 16777216"),
        ("slots", 257, "slots must be at most 256"),
        ("trial.concurrent", 6, "trial.concurrent must be at most 5, got 6"),
        ("trial.concurrent", 10**9, "trial.concurrent must be at most 5"),
        ("trial.concurrent", True, "trial.concurrent must be an integer, got True"),
        ("creator.max_operations", 4, "creator.max_operations must be at most 3, got 4"),
        ("internalize", -0.1, r"internalize must lie in \[0, 1\], got -0.1"),
        ("internalize", 1.5, r"internalize must lie in \[0, 1\], got 1.5"),
        ("internalize", float("nan"), "internalize must be finite in float32, got nan"),
        ("creator.least_chance", -0.1, r"creator.least_chance must lie in \[0, 1\), got -0.1"),
        ("creator.least_chance", 1.0, r"creator.least_chance must lie in \[0, 1\), got 1.0"),
        (
            "creator.experience",
            "all",
            "creator.experience must be one of off, watch, own, shipped, got 'all'",
        ),
        (
            "optimizer.learning_rate",
            float("inf"),
            "optimizer.learning_rate must be positive and finite in float32",
        ),
        (
            "optimizer.learning_rate",
            1e39,
            "optimizer.learning_rate must be positive and finite in float32",
        ),
        (
            "optimizer.learning_rate",
            1e-50,
            "optimizer.learning_rate must be positive and finite in float32",
        ),
        (
            "optimizer.learning_rate",
            10**400,
            "optimizer.learning_rate must be positive and finite in float32",
        ),
        ("optimizer.learning_rate", True, "optimizer.learning_rate must be a number, got True"),
        (
            "optimizer.max_grad_norm",
            float("inf"),
            "optimizer.max_grad_norm must be positive and finite",
        ),
        (
            "algorithm.kl_weight",
            float("inf"),
            "algorithm.kl_weight must be finite in float32, got inf",
        ),
        (
            "algorithm.kl_weight",
            float("nan"),
            "algorithm.kl_weight must be finite in float32, got nan",
        ),
        ("temperature", 1e39, "temperature must be finite in float32"),
        ("trial.floor", float("nan"), "trial.floor must be finite"),
        ("trial.retire_margin", 0.5, "trial.retire_margin must be below 0.5, got 0.5"),
        ("algorithm.whiten", 1, "algorithm.whiten must be true or false, got 1"),
        ("name", 3, "name must be a text, got 3"),
        ("name", "../else", "'../else' is no name for a run: use letters, digits"),
        ("name", "", "'' is no name for a run"),
        ("name", "a b", "'a b' is no name for a run"),
        ("root", "a\0b", r"root has characters that no path should have: 'a\\x00b'"),
        ("root", "\ud800", r"root has characters that no path should have: '\\ud800'"),
        ("root", "gs://x", "root must be a folder, got gs://x; --mirror takes such places"),
        ("bank", "\x1b[31m", r"bank has characters that no path should have: '\\x1b"),
        ("rooms", RoomSpec(receptacles=257), "rooms.receptacles must be at most 256, got 257"),
        ("rooms", RoomSpec(objects=10**6), "rooms.objects must be at most 256, got 1000000"),
    ],
)
def test_a_bad_value_is_named(field, value, says):
    with pytest.raises(ValueError, match=says) as caught:
        with_setting(field, value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "field, value, says",
    [
        ("path", "a\nb", r"model.path has characters that no path should have: 'a\\nb'"),
        ("path", 3, "model.path must be a text, got 3"),
        ("path", "", "model.path must not be empty"),
        ("prompt", "loud", "model.prompt must be one of auto, plain, chat, got 'loud'"),
        ("dtype", "float16", "model.dtype must be one of float32, bfloat16, got 'float16'"),
        (
            *("attention", "flash"),
            "model.attention must be one of auto, xla, cudnn, pallas, got 'flash'",
        ),
        ("lora_rank", -1, "model.lora_rank must not be negative, got -1"),
        ("lora_rank", 1.5, "model.lora_rank must be an integer, got 1.5"),
        ("lora_alpha", 0.0, "model.lora_alpha must be positive and finite in float32, got 0.0"),
        (
            "lora_alpha",
            float("nan"),
            "model.lora_alpha must be positive and finite in float32, got nan",
        ),
    ],
)
def test_a_bad_value_of_the_model_is_named(field, value, says):
    with pytest.raises(ValueError, match=says):
        ModelConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [("eval_every", 0), ("temperature", 1e-3), ("trial.floor", 0.5), ("creator.cooldown", 0)],
)
def test_limits_are_valid(field, value):
    assert operator.attrgetter(field)(with_setting(field, value)) == value


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trial": {"min_steps": 20}}, "trial.min_steps = 20 is more than trial.max_steps = 16"),
        ({"temperature": 0.0}, "temperature must be positive: a policy that plays greedily"),
        ({"trial": {"max_steps": 1}}, "trial.min_steps = 2 is more than trial.max_steps = 1"),
        (
            {"groups": 2, "group_size": 2, "trial": {"max_steps": 12}},
            r"trial.min_episodes = 50 is more than groups \* group_size \* trial.max_steps = 48",
        ),
        ({"group_size": 1}, "group_size must be at least 2: a rollout alone in its group"),
        ({"bank": "good", "skills": False}, "bank = good has no effect with skills = False"),
        (
            {"trial": {"auto_accept": True}, "skills": False},
            "trial.auto_accept = True has no effect with skills",
        ),
        ({"policy_from": 9, "policy_until": 9}, "policy_until = 9 is not after policy_from = 9"),
        ({"policy_from": 60}, "policy_from = 60 is not before the last of steps = 60"),
        ({"skills_from": 9, "skills_until": 3}, "skills_until = 3 is not after skills_from = 9"),
        ({"skills_from": 99}, "skills_from = 99 is not before the last of steps = 60"),
        ({"skills_from": 9, "skills_until": 0}, "skills_until = 0 is not after skills_from = 9"),
    ],
)
def test_settings_that_contradict_each_other(changes, says):
    with pytest.raises(ValueError, match=says):
        replace(TrainConfig(), **changes)


def test_settings_that_only_seem_to_contradict_each_other():
    TrainConfig(group_size=1, skills=False, policy_until=0)  # nothing is compared
    TrainConfig(skills=False, skills_from=99)
    TrainConfig(groups=2, group_size=2, trial=TrialConfig(max_steps=13))
    TrainConfig(trial=TrialConfig(min_steps=16))
    TrainConfig(steps=2**30, policy_until=10)
    TrainConfig(temperature=0.0, policy_until=0)


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_every_seed_has_games_and_noise_of_its_own(seed):
    config = TrainConfig(seed=seed)
    one, other = jax.random.key(config.seed), jax.random.key((seed + 2**31) % 2**32)
    assert jax.random.key_data(one).tolist() != jax.random.key_data(other).tolist()
    assert games_key(seed) != games_key(seed - 1 if seed else 1)


@pytest.mark.parametrize("count", [True, 1.5, "2", 2**30])
def test_devices_and_things_in_a_room_are_counted_in_integers(count):
    with pytest.raises(ValueError, match="mesh.data must be a number of devices, got"):
        MeshShape(data=count)
    if count != 2**30:
        with pytest.raises(ValueError, match="rooms.objects must be an integer, got"):
            RoomSpec(objects=count)


def test_the_paper_keeps_the_rules_of_the_paper():
    paper = PRESETS["paper"]()
    assert (paper.trial.rule, paper.trial.min_steps, paper.trial.min_episodes) == ("means", 5, 50)
    assert (paper.trial.scheme, paper.trial.floor, paper.trial.discount) == (
        "independent",
        0.15,
        "adaptive",
    )


def test_a_config_can_be_static():
    assert hash(TrainConfig()) == hash(PRESETS["household"]())


@pytest.mark.parametrize(
    ("first", "until", "expected"),
    [(0, None, (0, 10)), (4, None, (4, 10)), (0, 4, (0, 4)), (2, 40, (2, 10)), (0, 0, (0, 0))],
)
def test_steps_that_train_the_policy(first, until, expected):
    config = TrainConfig(steps=10, policy_from=first, policy_until=until)
    assert config.policy_steps == range(*expected)


def test_a_version_for_every_choice_of_the_proposals():
    arms = [TrainConfig(trial=TrialConfig(concurrent=k)).arms for k in range(1, 6)]
    assert arms == [2, 4, 8, 16, 32]
    assert PRESETS["paper"]().arms == 2
    assert "arms" not in {field.name for field in dataclasses.fields(TrainConfig)}


def test_steps_that_propose_skills():
    config = TrainConfig(steps=10, skills_from=2, skills_until=5)
    assert [step for step in range(12) if config.proposes(step)] == [2, 3, 4]
    assert [step for step in range(12) if config.will_propose(step)] == [0, 1, 2, 3, 4]
    assert TrainConfig(steps=10).proposes(11)  # a run that is continued goes on proposing
    assert not TrainConfig(skills=False).will_propose(0)
    assert not TrainConfig(skills_until=0).will_propose(0)


def test_what_the_host_reads_is_not_in_the_program():
    one = TrainConfig()
    other = TrainConfig(
        name="b", root="r", seed=3, eval_tasks=1, bank="good", trial=TrialConfig(auto_accept=True)
    )
    other = replace(other, creator=dict(max_operations=2))
    assert program_of(one) == program_of(other)
    for changes in (
        *({"steps": 7}, {"policy_from": 1}, {"trial": {"discount": "none"}}),
        *({"trial": {"concurrent": 2}}, {"internalize": 0.0}, {"algorithm": {"whiten": True}}),
    ):
        assert program_of(replace(one, **changes)) != program_of(one)


def test_the_program_of_an_odd_number_of_devices():
    """The default's 256 games of an evaluation cannot be split over three devices."""
    config = TrainConfig(
        mesh=MeshShape(data=3), groups=3, eval_tasks=3, optimizer=OptimizerConfig(minibatches=1)
    )
    assert program_of(config) == program_of(dataclasses.replace(config, eval_tasks=6))


def test_an_integer_of_more_digits_than_python_writes():
    with pytest.raises(ValueError, match="steps must be at most 2147483647, got a far larger one"):
        TrainConfig(steps=10**5000)


SETTINGS = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
INSIDE = [
    f"{group}.{field.name}"
    for group, value in SETTINGS.items()
    if dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value)
]
ANYTHING = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 1, 2**31, 2**32, 2**63, 10**4000, 1e39, 1e-50, 5e-324, 10**400])
    | st.floats()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=2)
    | st.dictionaries(st.sampled_from(["data", "objects", "min_objects", "x"]), st.integers())
)


@given(st.lists(st.tuples(st.sampled_from(sorted(SETTINGS) + INSIDE), ANYTHING), max_size=3))
def test_whatever_a_file_says_is_a_configuration_or_one_line(pairs):
    try:
        config = apply_config(TrainConfig(), dict(pairs), where="c.json")
    except ConfigError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
    else:
        program_of(config)
        assert hash(config) == hash(dataclasses.replace(config))
        json.dumps(dataclasses.asdict(config), allow_nan=False).encode("utf-8")


@given(st.sampled_from(sorted(SETTINGS) + INSIDE), ANYTHING)
def test_whatever_python_says_is_a_configuration_or_one_line(field, value):
    group, _, name = field.rpartition(".")
    try:
        if group:
            value = dataclasses.replace(SETTINGS[group], **{name: value})
        config = dataclasses.replace(TrainConfig(), **{group or field: value})
    except ValueError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 500
    else:
        assert (
            type(value) is type(SETTINGS.get(field))
            or value is None
            or field not in ("seed", "root")
        )
        program_of(config)


def test_the_optimizer_counts_the_most_updates_that_a_configuration_may_ask_for():
    config = TrainConfig(steps=2**31 - 1, optimizer=OptimizerConfig(minibatches=1))
    optimizer, params = make_optimizer(config), {"weight": np.ones(2, np.float32)}
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert np.allclose(updates["weight"], -config.optimizer.learning_rate)


def test_shipped_weights_are_meant_even_beside_a_run_of_that_name(tmp_path, monkeypatch):
    shipped = resources.files("reskill_jax.models").iterdir()
    names = [one.name for one in shipped if one.name.endswith(".safetensors")]
    assert sorted(names) == sorted(f"{name}.safetensors" for name in SHIPPED)
    for name in ("household", "mine"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    assert not ModelConfig("household").is_folder and ModelConfig("mine").is_folder
    assert ModelConfig("./household").is_folder and not ModelConfig("./mine.safetensors").is_folder
