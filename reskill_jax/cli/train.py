"""The options of `reskill train`: from a preset, files and single options to a configuration."""

import ast
import dataclasses
import functools
import inspect
import json
import re
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import tyro

from reskill_jax.cli.arguments import SHORT, parse, peek, spelled_out
from reskill_jax.cli.errors import CommandLineError, mistakes_of_the_command_line
from reskill_jax.devices.shape import MeshShape
from reskill_jax.training.config import PRESETS, TrainConfig
from reskill_jax.training.config_file import (
    apply_config,
    convert,
    merged,
    nearest,
    read_config,
    read_stored_config,
)
from reskill_jax.training.sections import (
    AlgorithmConfig,
    CreatorConfig,
    EvidenceConfig,
    ModelConfig,
    OptimizerConfig,
    PromptConfig,
    SessionConfig,
    TrialConfig,
)
from reskill_jax.worlds.settings import RoomSpec

# How --help arranges the settings; the groups that have a name of their own come last.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "run": (
        "What it is called, what it starts from, how long it goes on.",
        ("name", "root", "seed", "steps"),
    ),
    "task": (
        "What is played in a step.",
        (
            *(
                "world",
                "games",
                "reward",
                "groups",
                "group_size",
                "train_games",
                "max_turns",
                "context_length",
            ),
            "temperature",
        ),
    ),
    "policy": ("When the policy learns.", ("policy_from", "policy_until", "internalize")),
    "skills": (
        "The bank of skills, and when it may change.",
        ("skills", "bank", "slots", "skills_from", "skills_until"),
    ),
    "evaluation": ("How progress is measured.", ("eval_every", "eval_tasks")),
    "checkpoint": (
        "What is kept to go on from.",
        ("checkpoint_every", "keep", "keep_best", "mirror", "log"),
    ),
}
NESTED: dict[str, Any] = {
    "model": ModelConfig,
    "algorithm": AlgorithmConfig,
    "optimizer": OptimizerConfig,
    "trial": TrialConfig,
    "creator": CreatorConfig,
    "evidence": EvidenceConfig,
    "prompt": PromptConfig,
    "sessions": SessionConfig,
    "rooms": RoomSpec,
    "mesh": MeshShape,
}


LANGUAGE_MODEL_CONTEXT = 2048  # tokens, unless an option or a file says another number


class Join(NamedTuple):
    """How several processes find each other; None = as their engine tells (`jax.distributed`)."""

    coordinator: str | None  # HOST:PORT of process 0
    processes: int | None
    process: int | None  # the number of this one


class TrainChoice(NamedTuple):
    """What the arguments of `reskill train` ask for."""

    config: TrainConfig
    resume: bool
    print_config: bool
    join: Join | None = None  # None = this process trains alone


def parse_train(arguments: Sequence[str]) -> TrainChoice:
    """The configuration that the arguments ask for, and what to do with it.

    Later ones win: preset, stored configuration of the run to resume, --config, single options.

    Raises:
      CommandLineError: in one line. ConfigError: the stored configuration cannot be read.
    """
    arguments = [spelled_out(argument, _short_forms()) for argument in arguments]
    arguments = _with_values(arguments)
    preset = peek(arguments, "--preset") or next(iter(PRESETS))
    if preset not in PRESETS:
        near = nearest(preset, PRESETS)
        hint = f"did you mean {near}?" if near else f"there are: {', '.join(PRESETS)}"
        raise CommandLineError(f"there is no preset {preset[:60]!r}; {hint}")
    config = PRESETS[preset]()
    file = peek(arguments, "--config")
    values: Mapping[str, Any] = {}
    if file is not None:
        with mistakes_of_the_command_line():
            values = read_config(file)
    if "--resume" in arguments:
        config = _stored(arguments, values, config)
    else:
        config = _with_room(config, arguments, values)
    with mistakes_of_the_command_line():
        draft = merged(dataclasses.asdict(config), convert(config, values, where=str(file)))
    parsed = _parse_options(arguments, preset, draft)
    final = {
        name: getattr(getattr(parsed, group), name)
        for group, (_, names) in GROUPS.items()
        for name in names
    }
    final |= {group: dataclasses.asdict(getattr(parsed, group)) for group in NESTED}
    if parsed.frozen:
        if final["policy_until"]:
            raise CommandLineError("--frozen and --policy-until contradict each other")
        final["policy_until"] = 0
    try:
        config = _config(final)
    except ValueError as error:
        told, where = _one_line(error), _blamed(error, draft)
        raise CommandLineError(
            f"{file}: {told}" if where else f"{told} (see reskill train --help)"
        ) from error
    return TrainChoice(config, parsed.resume, parsed.print_config, _join(parsed))


def _join(parsed: Any) -> Join | None:
    """The processes to train with.

    Raises:
      CommandLineError: some of what one process has to say of itself is missing.
    """
    told = (parsed.coordinator, parsed.processes, parsed.process)
    if not parsed.distributed:
        if any(one is not None for one in told):
            raise CommandLineError("--coordinator, --processes and --process need --distributed")
        return None
    if any(one is not None for one in told) and None in told:
        raise CommandLineError("--coordinator, --processes and --process go together")
    if parsed.processes is not None and not 0 <= parsed.process < parsed.processes:
        raise CommandLineError(
            f"--process must be from 0 to {parsed.processes - 1}, got {parsed.process}"
        )
    return Join(*told)


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Switches that may also be left open, with their value: tyro has flags for others alone."""
    options = {
        f"--{group}.{field}"
        for group, type_ in NESTED.items()
        for field, hint in typing.get_type_hints(type_).items()
        if hint == bool | None
    }
    switches = {option.replace("_", "-"): (option, "True") for option in options}
    negated = {
        option.replace(".", ".no-", 1): (positive, "False")
        for option, (positive, _) in switches.items()
    }
    out: list[str] = []
    for at, argument in enumerate(arguments):
        following = arguments[at + 1] if at + 1 < len(arguments) else ""
        is_told = following in ("True", "False", "None")
        name = argument.replace("_", "-")
        if name in negated or (name in switches and not is_told):
            out += (switches | negated)[name]
        else:
            out.append(argument)
    return out


@functools.cache
def _short_forms() -> Mapping[str, str]:
    """Options of a group that can be given without it, because no other option is called so, and
    groups whose name alone chooses of what kind they are."""
    of_all = {name for _, names in GROUPS.values() for name in names} | set(NESTED)
    owners: dict[str, list[str]] = {}
    short = dict(SHORT)
    for group, type_ in NESTED.items():
        for field in dataclasses.fields(type_):
            if field.name == "kind":  # what the rest of the group belongs to: --GROUP KIND
                short[f"--{group}"] = f"--{group}.kind"
            else:
                owners.setdefault(field.name, []).append(group)
    for name, groups in owners.items():
        if len(groups) == 1 and name not in of_all:
            option = name.replace("_", "-")
            for prefix in ("", "no-"):
                short[f"--{prefix}{option}"] = f"--{groups[0]}.{prefix}{option}"
    return short


def _with_room(
    config: TrainConfig, arguments: Sequence[str], values: Mapping[str, Any]
) -> TrainConfig:
    """A context that suits a language model, where one is asked for and its length is not said."""
    told = values.get("model")
    path = told.get("path") if isinstance(told, Mapping) else None
    path = peek(arguments, "--model.path") or values.get("model.path", path)
    try:
        chosen = ModelConfig() if path is None else ModelConfig(path)
    except ValueError:  # told when everything is put together
        return config
    return (
        dataclasses.replace(config, context_length=LANGUAGE_MODEL_CONTEXT)
        if chosen.is_folder
        else config
    )


def _config(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration of these values; only what is put together in the end has to be valid."""
    nested = {name: type_(**values[name]) for name, type_ in NESTED.items()}
    return TrainConfig(**{**values, **nested})


def _blamed(error: ValueError, draft: Mapping[str, Any]) -> bool:
    """Whether the same is wrong before single options are applied: the file is to blame."""
    try:
        _config(draft)
    except ValueError as first:
        return str(first) == str(error)
    return False


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _stored(
    arguments: Sequence[str], values: Mapping[str, Any], config: TrainConfig
) -> TrainConfig:
    """The configuration of the run to resume, brought back from its mirror if it is not here."""
    root = peek(arguments, "--root") or values.get("root", config.root)
    name = peek(arguments, "--name") or values.get("name", config.name)
    mirror = peek(arguments, "--mirror") or values.get("mirror")
    with mistakes_of_the_command_line():
        apply_config(config, {"root": root, "name": name, "mirror": mirror}, where="--resume")
    if mirror:
        from reskill_jax.storage.mirror import Mirror, bring_back

        with mistakes_of_the_command_line():
            Mirror(mirror, name)
        bring_back(mirror, root, name)
    stored = Path(root) / name / "config.json"
    if not stored.is_file():
        raise CommandLineError(f"nothing to resume: there is no run in {stored.parent}")
    config = read_stored_config(stored, config)
    return dataclasses.replace(config, root=root, name=name)


def _parse_options(arguments: Sequence[str], preset: str, draft: Mapping[str, Any]) -> Any:
    """Single options on top of a draft, in the groups of the help."""
    description = (
        "Train a policy and its skills. Writes ROOT/NAME/: configuration, metrics, the life of "
        "every skill, checkpoints, SKILL.md files and report.html."
    )
    type_, default = _options(preset, draft)
    return parse(
        type_,
        arguments,
        prog="reskill train",
        description=description,
        default=default,
        config=(tyro.conf.HelptextFromCommentsOff,),  # every help is in an annotation
    )


def _options(preset: str, draft: Mapping[str, Any]) -> tuple[type, Any]:
    """The type that tyro fills, a nested dataclass for each group of the help, and its defaults."""
    flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
    of_the_command: list[tuple[str, Any, str]] = [
        ("preset", Literal[tuple(PRESETS)], "Settings to start from."),
        ("config", Path | None, "JSON or YAML file with options; single options win."),
        (
            "resume",
            flag,
            "Continue the run ROOT/NAME from its last checkpoint, with its configuration.",
        ),
        (
            "frozen",
            flag,
            "Train the skills alone; the policy stays as it is. The same as --policy-until 0.",
        ),
        (
            "print_config",
            flag,
            "Print the configuration that results, as YAML for --config, and train nothing.",
        ),
    ]
    of_the_command += [
        (
            "distributed",
            flag,
            "Train together with other processes that run the same command: a TPU pod, Slurm and "
            "Open MPI tell them of each other, elsewhere the next three options do.",
        ),
        ("coordinator", str | None, "HOST:PORT of process 0, for --distributed."),
        ("processes", int | None, "How many there are, for --distributed."),
        ("process", int | None, "The number of this one, from 0, for --distributed."),
    ]
    fields: list[Any] = [(n, Annotated[t, tyro.conf.arg(help=h)]) for n, t, h in of_the_command]
    defaults: dict[str, Any] = dict(preset=preset, config=None, resume=False, print_config=False)
    defaults |= dict(
        frozen=False, distributed=False, coordinator=None, processes=None, process=None
    )
    hints, helps = typing.get_type_hints(TrainConfig), field_helps(TrainConfig)
    for group, (description, names) in GROUPS.items():
        type_ = _plain(description, {name: (hints[name], helps[name]) for name in names})
        fields.append((group, Annotated[type_, tyro.conf.OmitArgPrefixes]))
        defaults[group] = type_(**{name: draft[name] for name in names})
    for name, nested in NESTED.items():
        inner, told = typing.get_type_hints(nested), field_helps(nested)
        type_ = _plain(helps[name], {field: (inner[field], told[field]) for field in told})
        fields.append((name, type_))
        defaults[name] = type_(**draft[name])
    arguments_type = dataclasses.make_dataclass("TrainArguments", fields, frozen=True)
    return arguments_type, arguments_type(**defaults)


def _plain(description: str, fields: Mapping[str, tuple[Any, str]]) -> type:
    """A dataclass that checks nothing; of each field the type and the help."""
    members: list[Any] = [
        (name, Annotated[hint, tyro.conf.arg(help=told)]) for name, (hint, told) in fields.items()
    ]
    type_ = dataclasses.make_dataclass("Options", members, frozen=True)
    type_.__doc__ = description
    return type_


def field_helps(type_: type) -> dict[str, str]:
    """Field -> the text below it in the source of a dataclass, on one line; "" without one."""
    helps = {field.name: "" for field in dataclasses.fields(type_)}
    try:
        source = inspect.getsource(type_)
    except OSError:  # installed without its source
        return helps
    (definition,) = ast.parse(textwrap.dedent(source)).body
    assert isinstance(definition, ast.ClassDef)
    last = ""
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            last = statement.target.id
        elif last and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
            helps[last] = " ".join(str(statement.value.value).split())
            last = ""
    return helps


def config_text(config: TrainConfig) -> str:
    """A configuration as YAML, which `read_config` reads back."""
    return "".join(f"{line}\n" for line in _lines(dataclasses.asdict(config)))


def _lines(values: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "  ")
        else:
            yield f"{indent}{name}: {_scalar(value)}"


def _scalar(value: Any) -> str:
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z][A-Za-z0-9_./-]*", value)
    if plain and value.lower() not in ("null", "true", "false", "yes", "no", "on", "off", "y", "n"):
        return value
    return json.dumps(value, ensure_ascii=False)
