"""What a value of the settings may be, and which settings contradict each other."""

import functools
import math
import numbers
import re
import struct
import typing
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from reskill_jax.storage.run_folder import check_run_name
from reskill_jax.storage.writers import WRITERS
from reskill_jax.training import ranges
from reskill_jax.worlds.registry import WORLDS

if TYPE_CHECKING:
    from reskill_jax.algorithms.algorithm import Algorithm
    from reskill_jax.training.config import TrainConfig

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def validate(config: "TrainConfig") -> None:
    """Checks every setting outside of the groups, and those that have to fit together.

    Raises:
      ValueError: with one line that names the setting, its value and what it may be.
    """
    validate_section(config)
    _check_places(config)
    _check_batches(config)
    _check_trials(config)
    _check_creator(config)
    _check_spans(config)


def validate_section(section: Any, group: str = "") -> None:
    """Checks every setting of a group alone; the group "" is the configuration itself.

    Raises:
      ValueError: as of `validate`.
    """
    hints = _hints(type(section))  # type: ignore[arg-type]
    names = {f"{group}.{name}" if group else name: name for name in hints}
    values = {field: getattr(section, name) for field, name in names.items()}
    for field, name in names.items():
        _check_type(field, values[field], hints[name])
    for field, value in values.items():
        if value is not None:
            _check_range(field, value)


@functools.cache
def _hints(type_: Any) -> dict[str, Any]:
    return typing.get_type_hints(type_)


def _check_type(field: str, value: Any, hint: Any) -> None:
    options = typing.get_args(hint)
    if type(None) in options:  # X | None
        if value is None:
            return
        hint = options[0]
        options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, tuple) or not all(isinstance(one, str) for one in value):
            raise ValueError(f"{field} must be a list of texts, got {_told(value)}")
        return
    if typing.get_origin(hint) is Literal:
        if not isinstance(value, str) or value not in options:
            raise ValueError(f"{field} must be one of {', '.join(options)}, got {_told(value)}")
        return
    is_bool = type(value).__name__ in ("bool", "bool_")  # Python's, NumPy's
    if hint is int and (is_bool or not isinstance(value, numbers.Integral)):
        raise ValueError(f"{field} must be an integer, got {_told(value)}")
    if hint is float and (is_bool or not isinstance(value, numbers.Real)):
        raise ValueError(f"{field} must be a number, got {_told(value)}")
    if hint is bool and not is_bool:
        raise ValueError(f"{field} must be true or false, got {_told(value)}")
    if hint is str and not isinstance(value, str):
        raise ValueError(f"{field} must be a text, got {_told(value)}")
    if hint not in (int, float, bool, str) and not isinstance(value, hint):
        raise ValueError(f"{field} must be a {hint.__name__}, got {_told(value)}")
    if hint is int and value > (most := ranges.AT_MOST.get(field, ranges.MAX_INTEGER)):
        raise ValueError(f"{field} must be at most {most}, got {_told(value)}")
    if hint is float and field not in ranges.POSITIVE and not math.isfinite(_float32(value)):
        raise ValueError(f"{field} must be finite in float32, got {_told(value)}")


def _float32(value: Any) -> float:
    """A number as the float32 it is computed with: 1e39 is infinite, 1e-50 is zero."""
    try:
        (rounded,) = struct.unpack("f", struct.pack("f", float(value)))
    except OverflowError:
        return math.inf
    return float(rounded)


def _told(value: Any) -> str:
    """A value in a message: one line, not long, whatever it is."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        return "a far larger one"
    return text if len(text) <= 60 else text[:60] + "..."


def _check_range(field: str, value: Any) -> None:
    if field in ranges.AT_LEAST_ONE and value < 1:
        raise ValueError(f"{field} must be at least 1, got {_told(value)}")
    if field in ranges.NOT_NEGATIVE and value < 0:
        raise ValueError(f"{field} must not be negative, got {_told(value)}")
    if field in ranges.POSITIVE and not 0 < _float32(value) < math.inf:
        raise ValueError(f"{field} must be positive and finite in float32, got {_told(value)}")
    if field in ranges.INTERVALS:
        low, high, ends = ranges.INTERVALS[field]
        above = low <= value if ends[0] == "[" else low < value
        below = value <= high if ends[1] == "]" else value < high
        if not (above and below):
            raise ValueError(
                f"{field} must lie in {ends[0]}{low}, {high}{ends[1]}, got {_told(value)}"
            )
    if field == "trial.retire_margin" and not value < 0.5:
        raise ValueError(f"{field} must be below 0.5, got {value}")
    if field == "creator.reservoir" and value > ranges.RESERVOIR_CAPACITY:
        raise ValueError(
            f"{field} must be at most {ranges.RESERVOIR_CAPACITY}, the episodes the creator keeps: "
            f"with {value} it would never propose"
        )
    if field in ranges.TEXTS and _UNPRINTABLE.search(value):
        raise ValueError(f"{field} has characters that no path should have: {_told(value)}")
    if field in ranges.NAMES and value not in ranges.NAMES[field] and ":" not in value:
        known = ", ".join(ranges.NAMES[field])
        raise ValueError(f"{field} must be one of {known}, or MODULE:CLASS, got {_told(value)}")
    if field == "model.path" and not value:
        raise ValueError("model.path must not be empty")


def _check_places(config: "TrainConfig") -> None:
    check_run_name(config.name)
    if config.world not in WORLDS and ":" not in config.world:
        known = ", ".join(WORLDS)
        raise ValueError(
            f"world must be one of {known}, or MODULE:CLASS, got {_told(config.world)}"
        )
    for name in config.log:
        if name not in WRITERS:
            raise ValueError(f"log must be of {', '.join(WRITERS)}, got {_told(name)}")
    if config.reward is not None and ":" not in config.reward:
        raise ValueError(f"reward must be MODULE:FUNCTION, got {_told(config.reward)}")
    if "://" in config.root:
        raise ValueError(f"root must be a folder, got {config.root}; --mirror takes such places")
    for field in ("receptacles", "objects"):  # the minima are not larger
        if (count := getattr(config.rooms, field)) > ranges.MAX_THINGS:
            raise ValueError(
                f"rooms.{field} must be at most {ranges.MAX_THINGS}, got {_told(count)}"
            )
    if config.temperature == 0 and config.policy_steps:
        raise ValueError(
            "temperature must be positive: a policy that plays greedily has nothing to learn from "
            "(policy_until = 0 trains none)"
        )


def _check_batches(config: "TrainConfig") -> None:
    rollouts, minibatches = config.groups * config.group_size, config.optimizer.minibatches
    if rollouts > ranges.MAX_SIZE:
        raise ValueError(f"groups * group_size must be at most {ranges.MAX_SIZE}, got {rollouts}")
    if rollouts % minibatches:
        raise ValueError(
            f"groups * group_size = {rollouts} rollouts cannot be split into {minibatches} equal "
            "minibatches"
        )
    if (warmup := config.optimizer.warmup_steps) and warmup >= len(config.policy_steps):
        raise ValueError(
            f"optimizer.warmup_steps = {warmup} is not less than the {len(config.policy_steps)} "
            "steps that update the policy"
        )
    if config.mesh.devices > 1 and config.optimizer.name in ("adafactor", "muon"):
        raise ValueError(
            f"optimizer.name = {config.optimizer.name} works on a single device; on a mesh choose "
            "adam or adamw"
        )
    updates = len(config.policy_steps) * minibatches
    if updates > ranges.MAX_INTEGER:  # the optimizer counts them in 32 bits
        raise ValueError(
            f"steps * minibatches = {updates} updates of the policy, at most "
            f"{ranges.MAX_INTEGER} can be counted"
        )
    # GRPO suits any group of two or more. It is not made for that, because making it imports jax.
    if config.group_size == 1 or config.algorithm.kind != "grpo":
        if not config.algorithm.is_own:  # that one is checked when the run begins
            check_algorithm(config, config.algorithm.make())
    if config.skills:
        _check_evidence(config)
    for count, things in (
        (rollouts // minibatches, "rollouts of a minibatch"),
        (config.eval_tasks, "games of an evaluation"),
    ):
        if count % config.mesh.rows:
            raise ValueError(
                f"{count} {things} cannot be split over mesh.data * mesh.fsdp = "
                f"{config.mesh.rows} devices"
            )


def check_algorithm(config: "TrainConfig", algorithm: "Algorithm") -> None:
    """Whether groups and minibatches are such that an algorithm can learn from them.

    Raises:
      ValueError: in one line.
    """
    if not config.policy_steps:
        return
    together, size = algorithm.rows_together, config.group_size
    if size % together:
        told = "even" if together == 2 else f"a multiple of {together}"
        raise ValueError(
            f"group_size must be {told} for algorithm.kind = {config.algorithm.kind}, which learns "
            f"from {'pairs' if together == 2 else f'{together} rollouts together'}; got {size}"
        )
    rows = config.groups * size // config.optimizer.minibatches
    if together > 1 and rows % (together * config.mesh.rows):
        raise ValueError(
            f"the {rows} rollouts of a minibatch cannot be split into "
            f"{'pairs' if together == 2 else f'{together} together'} on {config.mesh.rows} devices"
        )
    if size == 1 and algorithm.needs_groups:
        raise ValueError(
            "group_size must be at least 2: a rollout alone in its group has none to be compared "
            "with (algorithm.kind = ppo needs none)"
        )


def _check_evidence(config: "TrainConfig") -> None:
    """Whether rollouts can be compared as `trial.evidence` says."""
    evidence, size, devices = config.trial.evidence, config.group_size, config.mesh.rows
    if evidence == "within_group" and size == 1:
        raise ValueError(
            "group_size must be at least 2 for trial.evidence = within_group: a rollout alone in "
            "its group has none to be compared with; paired and evaluation_batch need no groups"
        )
    control = config.trial.control
    if control and evidence != "within_group":
        raise ValueError(
            f"trial.control = {control} needs trial.evidence = within_group, got {evidence}"
        )
    if control and size - control < 2:
        raise ValueError(
            f"trial.control = {control} leaves fewer than 2 of group_size = {size} rollouts to "
            "compare versions of the skills by"
        )
    if evidence == "paired" and size > 1 and size % 2:
        raise ValueError(f"group_size must be even, or 1, for trial.evidence = paired, got {size}")
    if evidence == "paired" and size == 1 and config.groups % (2 * devices):
        raise ValueError(
            f"groups = {config.groups} tasks cannot be split into pairs on {devices} devices"
        )
    if evidence == "evaluation_batch" and config.trial.evaluation_tasks % devices:
        raise ValueError(
            f"trial.evaluation_tasks = {config.trial.evaluation_tasks} cannot be split over "
            f"{devices} devices"
        )


def _check_trials(config: "TrainConfig") -> None:
    if config.trial.min_steps > config.trial.max_steps:
        raise ValueError(
            f"trial.min_steps = {config.trial.min_steps} is more than trial.max_steps = "
            f"{config.trial.max_steps}"
        )
    rows, told = config.groups * config.group_size, "groups * group_size"
    if config.trial.evidence == "evaluation_batch":
        rows, told = 2 * config.trial.evaluation_tasks, "2 * trial.evaluation_tasks"
    most = rows * config.trial.max_steps
    if config.trial.min_episodes > most:
        raise ValueError(
            f"trial.min_episodes = {config.trial.min_episodes} is more than {told} * "
            f"trial.max_steps = {most}"
        )
    useless = {
        f"bank = {config.bank}": config.bank is not None,
        "trial.auto_accept = True": config.trial.auto_accept,
        f"trial.control = {config.trial.control}": config.trial.control > 0,
    }
    for told, given in useless.items():
        if given and not config.skills:
            raise ValueError(f"{told} has no effect with skills = False")


def _check_creator(config: "TrainConfig") -> None:
    creator = config.creator
    needs = {"llm": ("model",), "replay": ("recording",)}.get(creator.kind, ())
    takes = {"llm": ("model", "url"), "replay": ("recording", "model", "url")}
    for field in needs:
        if not getattr(creator, field):
            raise ValueError(f"creator.kind = {creator.kind} needs creator.{field}")
    for field in ("model", "url", "recording"):
        if getattr(creator, field) is not None and field not in takes.get(creator.kind, ()):
            raise ValueError(
                f"creator.{field} = {_told(getattr(creator, field))} has no effect with "
                f"creator.kind = {creator.kind}"
            )
    if creator.kind == "self" and not config.model.is_folder:
        raise ValueError(
            "creator.kind = self needs a language model: model.path must be the folder of one, got "
            f"{_told(config.model.path)}"
        )
    if creator.kind == "self" and config.mesh.devices > 1:
        raise ValueError("creator.kind = self works on a single device")
    if creator.url is not None:
        _check_url(creator.url)


def _check_url(url: str) -> None:
    """Of the creator's server: nothing in it may be a secret, because it is kept and shown."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ValueError(f"creator.url must be http://... or https://..., got {_told(url)}")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "creator.url must hold no user, password or query: it is written down with the run; "
            "keys are read from the environment"
        )


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
