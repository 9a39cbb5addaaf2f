"""What a value of the settings may be, and which settings contradict each other."""

import functools
import re
import typing
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from reskill_jax.skills.skill import MAX_OPERATIONS
from reskill_jax.storage.run_folder import check_run_name

if TYPE_CHECKING:
    from reskill_jax.training.config import ModelConfig, TrainConfig

RESERVOIR_CAPACITY = 200  # episodes the creator keeps
MAX_SEED = 2**32 - 1  # JAX's keys are made of 32 bits: more would be another seed's run
MAX_INTEGER = 2**31 - 1
MAX_SIZE = 2**24  # of what is played, kept or drawn from at once
MAX_SKILLS = 256
MAX_RANK = 4096  # of adapters
MAX_TRIALS = 5  # at once: a version of the bank for every choice of them
MAX_THINGS = 256  # of a kind in a room: far more than ALFRED's largest rooms have
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")

_AT_LEAST_ONE = (
    *("steps", "horizon", "capacity", "train_games", "groups", "group_size", "minibatches"),
    *("slots", "concurrent_trials", "max_operations", "min_trial_steps", "min_trial_episodes"),
    *("max_trial_steps", "reservoir"),
    *("retire_after", "eval_tasks", "checkpoint_every", "keep"),
)
_NOT_NEGATIVE = (
    *("seed", "kl_weight", "temperature", "cooldown", "retire_margin", "eval_every"),
    *("policy_from", "skills_from", "policy_until", "skills_until"),
)
_POSITIVE = ("learning_rate", "final_learning_rate", "max_grad_norm", "clip_low", "clip_high")
_SIZES = (
    *("horizon", "capacity", "train_games", "groups", "group_size", "eval_tasks"),
    "max_trial_steps",
)
_TEXTS = ("name", "root", "bank", "mirror")
_BELOW_HALF = ("trial_gain", "trial_false_accept", "trial_false_reject")


def validate(config: "TrainConfig") -> None:
    """Checks every setting, and those that have to fit together.

    Raises:
      ValueError: with one line that names the setting, its value and what it may be.
    """
    _check_types(config)
    _check_ranges(config)
    _check_batches(config)
    _check_trials(config)
    _check_spans(config)


def validate_model(model: "ModelConfig") -> None:
    """Checks the settings of a model, as `validate`."""
    _check_types(model, under="model.")
    _check_text("model.path", model.path)
    if not model.path:
        raise ValueError("model.path must not be empty")
    if not 0 <= model.lora_rank <= MAX_RANK:
        raise ValueError(
            f"model.lora_rank must be at least 0 and at most {MAX_RANK}, got {model.lora_rank}"
        )
    if not model.lora_alpha > 0:
        raise ValueError(f"model.lora_alpha must be positive, got {model.lora_alpha}")


@functools.cache
def _hints(type_: Any) -> dict[str, Any]:
    return typing.get_type_hints(type_)


def _check_types(config: Any, under: str = "") -> None:
    for name, hint in _hints(type(config)).items():  # type: ignore[arg-type]
        value, field = getattr(config, name), under + name
        options = typing.get_args(hint) if typing.get_origin(hint) is not Literal else ()
        if typing.get_origin(hint) is Literal:
            known = typing.get_args(hint)
            if not isinstance(value, str) or value not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {_told(value)}")
        elif not (value is None and type(None) in options):
            _check_type(field, value, options[0] if options else hint)


def _check_type(field: str, value: Any, hint: Any) -> None:
    is_bool = isinstance(value, (bool, np.bool_))
    if hint is int and (is_bool or not isinstance(value, (int, np.integer))):
        raise ValueError(f"{field} must be an integer, got {_told(value)}")
    if hint is float and (is_bool or not isinstance(value, (int, float, np.number))):
        raise ValueError(f"{field} must be a number, got {_told(value)}")
    if hint is bool and not is_bool:
        raise ValueError(f"{field} must be true or false, got {_told(value)}")
    if hint is str and not isinstance(value, str):
        raise ValueError(f"{field} must be a text, got {_told(value)}")
    if hint not in (int, float, bool, str) and not isinstance(value, hint):
        raise ValueError(f"{field} must be a {hint.__name__}, got {_told(value)}")
    if hint is int:
        most = MAX_SEED if field == "seed" else MAX_INTEGER
        if field in _SIZES:
            most = MAX_SIZE
        elif field == "slots":
            most = MAX_SKILLS
        if value > most:
            raise ValueError(f"{field} must be at most {most}, got {_told(value)}")
    if hint is float and field not in _POSITIVE and not _is_finite(value):
        raise ValueError(f"{field} must be finite in float32, got {_told(value)}")


def _is_finite(value: Any) -> bool:
    """As the float32 it is computed with: 1e39 is none."""
    try:
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.float32(value)))
    except OverflowError:  # an integer beyond every float
        return False


def _told(value: Any) -> str:
    """A value in a message: one line, not long, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a far larger one"
    return text if len(text) <= 60 else text[:60] + "..."


def _check_ranges(config: "TrainConfig") -> None:
    for field in _AT_LEAST_ONE:
        if getattr(config, field) < 1:
            raise ValueError(f"{field} must be at least 1, got {_told(getattr(config, field))}")
    for field in _NOT_NEGATIVE:
        if (getattr(config, field) or 0) < 0:
            raise ValueError(f"{field} must not be negative, got {_told(getattr(config, field))}")
    for field in _POSITIVE:
        value = getattr(config, field)
        if not (_is_finite(value) and np.float32(value) > 0):
            raise ValueError(f"{field} must be positive and finite in float32, got {_told(value)}")
    for field in _BELOW_HALF:
        if not 0 < getattr(config, field) < 0.5:
            raise ValueError(f"{field} must lie in (0, 0.5), got {getattr(config, field)}")
    if not 0 < config.floor <= 0.5:
        raise ValueError(f"floor must lie in (0, 0.5], got {config.floor}")
    if config.temperature == 0 and config.policy_steps:
        raise ValueError(
            "temperature must be positive: a policy that plays greedily has nothing to learn from "
            "(policy_until = 0 trains none)"
        )
    if not config.retire_margin < 0.5:
        raise ValueError(f"retire_margin must be below 0.5, got {config.retire_margin}")
    if not 0 <= config.internalize <= 1:
        raise ValueError(f"internalize must lie in [0, 1], got {config.internalize}")
    if not 0 <= config.least_chance < 1:
        raise ValueError(f"least_chance must lie in [0, 1), got {config.least_chance}")
    for field, most in (("concurrent_trials", MAX_TRIALS), ("max_operations", MAX_OPERATIONS)):
        if getattr(config, field) > most:
            raise ValueError(f"{field} must be at most {most}, got {getattr(config, field)}")
    for field in _TEXTS:
        value = getattr(config, field)
        _check_text(field, value)
    check_run_name(config.name)
    for field in ("receptacles", "objects"):  # the minima are not larger
        if (count := getattr(config.rooms, field)) > MAX_THINGS:
            raise ValueError(f"rooms.{field} must be at most {MAX_THINGS}, got {_told(count)}")
    if "://" in config.root:
        raise ValueError(f"root must be a folder, got {config.root}; --mirror takes such places")


def _check_text(field: str, value: str | None) -> None:
    if value is not None and _UNPRINTABLE.search(value):
        raise ValueError(f"{field} has characters that no path should have: {_told(value)}")


def _check_batches(config: "TrainConfig") -> None:
    rollouts = config.groups * config.group_size
    if rollouts > MAX_SIZE:
        raise ValueError(f"groups * group_size must be at most {MAX_SIZE}, got {rollouts}")
    if rollouts % config.minibatches:
        raise ValueError(
            f"groups * group_size = {rollouts} rollouts cannot be split into {config.minibatches} "
            "equal minibatches"
        )
    updates = len(config.policy_steps) * config.minibatches
    if updates > MAX_INTEGER:  # the optimizer counts them in 32 bits
        raise ValueError(
            f"steps * minibatches = {updates} updates of the policy, at most {MAX_INTEGER} can be "
            "counted"
        )
    if config.group_size == 1 and (config.policy_steps or config.skills):
        raise ValueError(
            "group_size must be at least 2: a rollout alone in its group has none to be compared "
            "with"
        )
    for count, things in (
        (rollouts // config.minibatches, "rollouts of a minibatch"),
        (config.eval_tasks, "games of an evaluation"),
    ):
        if count % config.mesh.rows:
            raise ValueError(
                f"{count} {things} cannot be split over mesh.data * mesh.fsdp = "
                f"{config.mesh.rows} devices"
            )


def _check_trials(config: "TrainConfig") -> None:
    if config.min_trial_steps > config.max_trial_steps:
        raise ValueError(
            f"min_trial_steps = {config.min_trial_steps} is more than max_trial_steps = "
            f"{config.max_trial_steps}"
        )
    most = config.groups * config.group_size * config.max_trial_steps
    if config.min_trial_episodes > most:
        raise ValueError(
            f"min_trial_episodes = {config.min_trial_episodes} is more than groups * group_size * "
            f"max_trial_steps = {most}"
        )
    if config.reservoir > RESERVOIR_CAPACITY:
        raise ValueError(
            f"reservoir must be at most {RESERVOIR_CAPACITY}, the episodes the creator keeps: "
            f"with {config.reservoir} it would never propose"
        )
    if not config.skills and (config.bank is not None or config.auto_accept):
        told = f"bank = {config.bank}" if config.bank is not None else "auto_accept = True"
        raise ValueError(f"{told} has no effect with skills = False")


def _check_spans(config: "TrainConfig") -> None:
    """From some step on, until some step; `until` 0 is how a part is switched off."""
    parts = ("policy", "skills") if config.skills else ("policy",)
    for part in parts:
        first, end = getattr(config, f"{part}_from"), getattr(config, f"{part}_until")
        if first > 0 and end is not None and end <= first:
            raise ValueError(f"{part}_until = {end} is not after {part}_from = {first}")
        if first > 0 and first >= config.steps:
            raise ValueError(
                f"{part}_from = {first} is not before the last of steps = {config.steps}"
            )
