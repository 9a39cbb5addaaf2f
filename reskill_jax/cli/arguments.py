"""The arguments of the command `reskill`, and how they are parsed.

tyro does the parsing; its boxed messages become one line.
"""

import contextlib
import dataclasses
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tyro

from reskill_jax.cli.errors import CommandLineError

T = TypeVar("T")
SHORT = {"--model": "--model.path", "--creator": "--creator.kind"}

RunName = Annotated[
    str, tyro.conf.arg(metavar="RUN", help="The run: a folder, or the name of one in runs/.")
]


@dataclasses.dataclass(frozen=True)
class EvalArguments:
    """Play the policy of a run, with and without its skills."""

    run: RunName
    step: int | Literal["best"] | None = None
    """Checkpoint to load: a number, or the best on unseen tasks; else the newest good one."""
    world: str | None = None
    """Where to play: the run's own world if not given, another that `reskill worlds` lists, or
    MODULE:CLASS."""
    splits: tuple[Literal["seen", "unseen"], ...] = ("seen", "unseen")
    """Tasks to play."""
    modes: tuple[Literal["bank", "none", "candidate"], ...] = ("bank", "none")
    """With the bank in use, without skills, with the candidate under test."""
    games: Path | None = None
    """ALFWorld's games, for either engine: a games file (.jsonl, .jsonl.gz), a folder of ALFWorld
    data, or a problem (.pddl). If not given, alfworld plays those of ALFWORLD_DATA if it is set;
    else games of our generator. For other worlds what `reskill worlds` says."""
    tasks: int | None = None
    """Tasks per split; the run's own number if not given."""
    trials: int = 1
    """Times that every task is played; with more than one pass^k is told, too."""
    temperature: float | None = None
    """Of sampling, 0 is greedy. If not given: greedy for one trial of given games or in another
    world than the run's, else as in training."""
    workers: int | None = None
    """Processes of a world on the host; the run's own number if not given."""
    output: Path | None = None
    """Write the figures here too, one JSON object per line."""


@dataclasses.dataclass(frozen=True)
class ExportArguments:
    """Write the trained model of a run: a folder that others load, or a .safetensors file."""

    run: RunName
    target: Annotated[
        Path,
        tyro.conf.arg(
            metavar="TARGET",
            help="A folder, in the layout of the Hub; of a small policy a .safetensors file.",
        ),
    ]
    step: int | Literal["best"] | None = None
    """Checkpoint to load: a number, or the best on unseen tasks; else the newest good one."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the stored weights of a language model."""
    adapters: bool = False
    """Write low-rank adapters alone, as a PEFT folder, instead of merging them."""


@dataclasses.dataclass(frozen=True)
class SkillsListArguments:
    """Names and actions of the skills of a run."""

    run: RunName


@dataclasses.dataclass(frozen=True)
class SkillsShowArguments:
    """The SKILL.md of one skill."""

    run: RunName
    name: Annotated[str, tyro.conf.arg(metavar="NAME", help="Name of the skill.")]


@dataclasses.dataclass(frozen=True)
class SkillsExportArguments:
    """Write the skills of a run as SKILL.md folders."""

    run: RunName
    folder: Annotated[
        Path,
        tyro.conf.arg(
            metavar="FOLDER",
            help="Where to write; made when missing. Skills of the same name are replaced.",
        ),
    ]


@dataclasses.dataclass(frozen=True)
class ReportArguments:
    """Write the HTML page of a run, or one page that compares several."""

    runs: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="RUN...",
            help="Folders of runs, or names of some in runs/. The others are compared with the "
            "first; runs that differ in nothing but the seed are drawn as their mean.",
            help_behavior_hint="",
        ),
    ]
    output: Path | None = None
    """The file to write; if not given RUN/report.html, or comparison.html beside the first run."""


@dataclasses.dataclass(frozen=True)
class WorldsArguments:
    """List the worlds there are, what each needs, and how to get it."""


def parse(
    type_: type[T],
    arguments: Sequence[str],
    *,
    prog: str,
    description: str | None = None,
    default: T | None = None,
    config: tuple[Any, ...] = (),
) -> T:
    """Fills a dataclass from arguments; prints the help and exits on --help.

    Args:
      type_: the dataclass.
      arguments: of the command line.
      prog, description: for the help.
      default: values of all fields; without it those without a default are positional.
      config: further markers of tyro.

    Raises:
      CommandLineError: in one line.
    """
    options: dict[str, Any] = {"default": default, "config": config}
    if default is None:
        options = {"config": (tyro.conf.PositionalRequiredArgs, *config)}
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(
                type_,
                args=list(arguments),
                prog=prog,
                description=description or type_.__doc__,
                **options,
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        text = one_line(messages.getvalue()) or "the command line is not valid"
    except ValueError as error:  # of the dataclass itself
        text = " ".join(str(error).split())
    raise CommandLineError(f"{text} (see {prog} --help)")


def one_line(message: str) -> str:
    """What a boxed message says, without title, frame and the help of options."""
    frame = re.compile(r"[\s─╰╯├┤-]*")
    parts: list[list[str]] = [[]]
    for line in (line.strip(" │") for line in message.splitlines()):
        if line.startswith("╭"):  # the frame holds the title
            parts += [[line], []]
        elif frame.fullmatch(line):
            parts.append([])
        else:
            parts[-1].append(line)
    parts = [part for part in parts if part]
    if not parts:
        return ""
    text = " ".join(parts[min(1, len(parts) - 1)])
    text = re.sub(r"'\(('[^']*'),\)'", r"\1", text)  # tyro 1.0 names an option as a tuple
    near = re.search(r"Perhaps you meant.*?(--[\w.-]+)", message, flags=re.DOTALL)
    return f"{text}; did you mean {near.group(1)}?" if near else text


def spelled_out(argument: str, short: Mapping[str, str]) -> str:
    """An option that is short for one in a group of settings, as that one."""
    option, equals, value = argument.partition("=")
    return short.get(option.replace("_", "-"), option) + equals + value


def peek(arguments: Sequence[str], option: str) -> str | None:
    """The value of an option that is needed before the others can be parsed; the last one wins."""
    value = None
    for index, argument in enumerate(arguments):
        if argument == option and index + 1 < len(arguments):
            value = arguments[index + 1]
        elif argument.startswith(option + "="):
            value = argument[len(option) + 1 :]
    return value
