"""The command `reskill pretrain`."""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from reskill_jax.cli.arguments import SHORT, parse, peek, spelled_out
from reskill_jax.cli.errors import CommandLineError
from reskill_jax.training.pretrain_config import PRESETS, PretrainConfig


@dataclasses.dataclass(frozen=True)
class PretrainArguments(PretrainConfig):
    """Fit a model to demonstrations: expert play with mistakes, and directives that are obeyed.

    Writes ROOT/NAME/: configuration, metrics, a checkpoint to go on from, and the model.
    """

    preset: str = "model"
    """Settings to start from: "model" (a language model) or "small" (a small policy, from random
    weights)."""
    resume: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Go on from the last checkpoint of ROOT/NAME; give the same options."""


def pretrain_and_tell(arguments: Sequence[str]) -> int:
    """Pretrains, says where the model lies."""
    arguments = [spelled_out(argument, SHORT) for argument in arguments]
    preset = peek(arguments, "--preset") or "model"
    if preset not in PRESETS:
        raise CommandLineError(f"there is no preset {preset[:60]!r}; there are: model, small")
    default = PretrainArguments(**_settings(PRESETS[preset]()), preset=preset)
    parsed = parse(
        PretrainArguments,
        arguments,
        prog="reskill pretrain",
        description=PretrainArguments.__doc__,
        default=default,
    )

    from rich.console import Console

    from reskill_jax.devices.compilation_cache import keep_compiled_programs
    from reskill_jax.devices.preemption import Interrupted, Preempted
    from reskill_jax.training.pretraining import pretrain

    keep_compiled_programs()
    console = Console()
    try:
        config = PretrainConfig(**_settings(parsed))
        path = pretrain(config, resume=parsed.resume, console=console)
    except (KeyboardInterrupt, Preempted) as end:
        console.print(str(end) or "interrupted", highlight=False, markup=False, soft_wrap=True)
        return end.status if isinstance(end, Preempted) else Interrupted.status
    console.print(f"model  {path}", highlight=False, markup=False, soft_wrap=True)
    return 0


def _settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings of a run among the arguments."""
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(PretrainConfig)}
