"""An algorithm or a creator of one's own: handed in as a value, or named as MODULE:CLASS."""

import dataclasses
from typing import Any

from reskill_jax.algorithms.algorithm import Algorithm
from reskill_jax.algorithms.registry import make_algorithm
from reskill_jax.creators.creator import Creator
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.sections import AlgorithmConfig
from reskill_jax.training.validate import check_algorithm
from reskill_jax.worlds.sessions.messages import line_of
from reskill_jax.worlds.sessions.serve import object_named

__all__ = [
    "OwnPartError",
    "algorithm_for",
    "algorithm_named",
    "check_part",
    "creator_named",
    "naming",
]

_PARTS: dict[str, Any] = {"algorithm": Algorithm, "creator": Creator}


class OwnPartError(ValueError):
    """An algorithm or a creator that cannot be used; the message is one line."""


def naming(
    config: TrainConfig, algorithm: Algorithm | None, creator: Creator[Any] | None
) -> TrainConfig:
    """A configuration that names what is handed in, so that a run tells what it was made with.

    Args:
      config: of the run.
      algorithm: takes the place of `config.algorithm`: its class, and of its fields those that are
        options there. creator: its class becomes `config.creator.kind`. None = as configured.

    Raises:
      OwnPartError: one of them cannot be used.
      ValueError: a field of the algorithm is not what the option of this name may be.
    """
    if algorithm is not None:
        check_part(algorithm, "algorithm")
        there = {field.name for field in dataclasses.fields(AlgorithmConfig)} - {"kind"}
        own: Any = algorithm
        fields = dataclasses.fields(own) if dataclasses.is_dataclass(own) else ()
        told = {f.name: getattr(own, f.name) for f in fields if f.init and f.name in there}
        config = replace(config, algorithm=AlgorithmConfig(_kind_of(algorithm), **told))
    if creator is not None:
        check_part(creator, "creator")
        config = replace(config, creator={"kind": _kind_of(creator)})
    return config


def algorithm_for(config: TrainConfig, given: Algorithm | None = None) -> Algorithm:
    """The algorithm that a run learns with: what is given, else what its configuration names.

    Raises:
      WorldNameError, OwnPartError: it is one of one's own, and there is none, or it cannot be used,
        or not with groups and minibatches of these sizes.
    """
    algorithm = config.algorithm.make() if given is None else given
    if config.algorithm.is_own:
        try:
            check_algorithm(config, algorithm)
        except ValueError as error:
            raise OwnPartError(str(error)) from error
    return algorithm


def _kind_of(part: Any) -> str:
    """MODULE:CLASS of a value."""
    return f"{type(part).__module__}:{type(part).__qualname__}"


def algorithm_named(kind: str, **options: Any) -> Algorithm:
    """The algorithm that MODULE:CLASS names.

    Args:
      kind: MODULE:CLASS.
      **options: fields of the class, which is a dataclass then; those that are None stay as they
        are.

    Raises:
      WorldNameError: there is no such module or class.
      OwnPartError: it has no such field, cannot be made, or is no algorithm.
    """
    class_ = _callable_named(kind, "algorithm")
    try:
        made = make_algorithm(kind, class_, **options)
    except ValueError as error:  # an option that it does not have
        raise OwnPartError(" ".join(str(error).split())) from error
    except (Exception, SystemExit) as error:
        raise OwnPartError(f"the algorithm {kind} cannot be made ({line_of(error)})") from error
    return check_part(made, "algorithm", kind)


def creator_named(kind: str) -> Creator[Any]:
    """The creator that MODULE:CLASS names, made without arguments.

    Raises:
      WorldNameError: there is no such module or class.
      OwnPartError: it cannot be made, or is no creator.
    """
    class_ = _callable_named(kind, "creator")
    try:
        made = class_()
    except (Exception, SystemExit) as error:
        raise OwnPartError(f"the creator {kind} cannot be made ({line_of(error)})") from error
    return check_part(made, "creator", kind)


def _callable_named(kind: str, what: str) -> Any:
    found = object_named(kind, f"the {what} {kind}")
    if not callable(found):
        raise OwnPartError(f"the {what} {kind} is no class")
    return found


def check_part(part: Any, what: str, name: str | None = None) -> Any:
    """The part itself, if it has all that is asked of it.

    Args:
      part: a value.
      what: "algorithm" or "creator".
      name: what it is called in messages; None = MODULE:CLASS of it.

    Raises:
      OwnPartError: something is missing, it is a class, or an algorithm is not hashable.
    """
    if isinstance(part, type):
        raise OwnPartError(
            f"the {what} {part.__qualname__} is a class; give a value: {part.__qualname__}()"
        )
    name = name or _kind_of(part)
    asked = [member for member in vars(_PARTS[what]) if not member.startswith("_")]
    if missing := [member for member in asked if not hasattr(part, member)]:
        raise OwnPartError(
            f"the {what} {name} has no {', '.join(missing)} (see docs/your_{what}.md)"
        )
    if what == "algorithm":
        try:
            hash(part)
        except TypeError as error:
            raise OwnPartError(
                f"the algorithm {name} is not hashable; make it a frozen dataclass"
            ) from error
    return part
