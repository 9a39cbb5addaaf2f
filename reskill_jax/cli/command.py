"""The command `reskill`: train, pretrain, eval, export, skills, report, worlds, doctor, ...

Everything heavy is imported inside the commands, so that help and mistakes answer at once. What a
person did wrong is one line on stderr and an exit code: 2 for the command line, files of --config
included, 1 for everything else, 130 for Ctrl-C. RESKILL_DEBUG=1 or --debug shows tracebacks.
"""

import contextlib
import difflib
import io
import os
import shlex
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from reskill_jax.cli.errors import (
    CommandLineError,
    is_expected,
    message_of,
    mistakes_of_the_command_line,
)
from reskill_jax.cli.runs import check_briefly, check_run, find_run

__all__ = ["main"]

USAGE = """\
usage: reskill COMMAND [OPTIONS]

Train an LLM agent with GRPO while a library of skills evolves beside it.

commands:
  train     train a policy and its skills; writes runs/NAME/
  pretrain  fit a model to demonstrations of the household
  eval      play the policy of a run, with and without its skills
  export    write the trained model of a run, for others to load
  skills    list, show or export the skills of a run
  report    write the HTML page of a run, or of several side by side
  worlds    list the worlds there are, and what is missing for them
  doctor    tell what is installed, which devices there are, and how to get the rest
  adapt     compare and adopt skills of an agent that is never trained
  tau-rec   play tau-Rec with any agent: a language model behind an address, or rules

reskill COMMAND --help shows the options of a command; --debug shows tracebacks.
Compiled programs are kept in the user's cache folder, or where RESKILL_COMPILATION_CACHE or
JAX_COMPILATION_CACHE_DIR says; RESKILL_COMPILATION_CACHE=off keeps none."""

SKILLS_USAGE = """\
usage: reskill skills {list,show,export} RUN [OPTIONS]

  reskill skills list RUN             names and actions
  reskill skills show RUN NAME        the SKILL.md of one skill
  reskill skills export RUN FOLDER    write FOLDER/NAME/SKILL.md for every skill

RUN is a folder, or the name of one in runs/."""


# --- commands -----------------------------------------------------------------------------------


def train(arguments: Sequence[str]) -> int:
    """`reskill train`."""
    from reskill_jax.cli.train import config_text, parse_train

    chosen = parse_train(arguments)
    config, resume = chosen.config, chosen.resume
    if chosen.print_config:
        print(config_text(config), end="")
        return 0

    from reskill_jax.devices.compilation_cache import keep_compiled_programs
    from reskill_jax.devices.preemption import Interrupted, Preempted
    from reskill_jax.devices.processes import join_processes
    from reskill_jax.training import loop
    from reskill_jax.training.progress import PipedConsole
    from reskill_jax.training.settings import check_settings

    if chosen.join is not None:
        join_processes(*chosen.join)
    keep_compiled_programs()
    with mistakes_of_the_command_line():
        check_settings(config, resume=resume)
    console = PipedConsole()

    try:
        loop.train(config, resume=resume, console=console)
    except (KeyboardInterrupt, Preempted) as end:
        told = str(end) or "interrupted"
        if (Path(config.root) / config.name / "config.json").is_file():
            told += f"; go on with: reskill train {_shell_words(config)} --resume"
        console.print(f"\n{told}", highlight=False, markup=False, soft_wrap=True)
        if console.quiet:
            print(f"reskill: nobody reads what is printed: {told}", file=sys.stderr)
        return end.status if isinstance(end, Preempted) else Interrupted.status

    from reskill_jax.devices.processes import is_first
    from reskill_jax.report import read_run, summary_lines, summary_text, write_report

    if not is_first():  # of several processes: the first one tells
        return 0
    folder = Path(config.root) / config.name
    page, problems = write_report(folder)
    for problem in problems:
        print(f"reskill: {problem}", file=sys.stderr)
    lines = ["", *summary_lines(read_run(folder), width=console.width), ""]
    lines += [f"{'report':<14}{page}", f"{'skills':<14}{folder / 'skills'}"]
    console.print(summary_text(lines), soft_wrap=True)
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """`reskill eval`."""
    from reskill_jax.cli.evaluate import evaluate_and_print

    return evaluate_and_print(arguments)


def tau_rec(arguments: Sequence[str]) -> int:
    """`reskill tau-rec`."""
    from reskill_jax.cli.tau_rec import play_and_print

    return play_and_print(arguments)


def pretrain(arguments: Sequence[str]) -> int:
    """`reskill pretrain`."""
    from reskill_jax.cli.pretrain import pretrain_and_tell

    return pretrain_and_tell(arguments)


def export(arguments: Sequence[str]) -> int:
    """`reskill export`."""
    from reskill_jax.cli.arguments import ExportArguments, parse

    parsed = parse(ExportArguments, arguments, prog="reskill export")
    run = find_run(parsed.run)
    check_run(run)

    from reskill_jax.evaluation.export import export_model
    from reskill_jax.evaluation.replay import ChoiceError

    try:
        path = export_model(
            run,
            parsed.target,
            step=parsed.step,
            dtype=parsed.dtype,
            adapters=parsed.adapters,
        )
        print(path)
    except ChoiceError as error:  # --step, --adapters
        raise CommandLineError(str(error)) from error
    return 0


def skills(arguments: Sequence[str]) -> int:
    """`reskill skills list | show | export`."""
    actions = {"list": _list_skills, "show": _show_skill, "export": _export_skills}
    if not arguments or arguments[0] in ("-h", "--help"):
        print(SKILLS_USAGE)
        return 0 if arguments else 2
    if arguments[0] not in actions:
        raise CommandLineError(_unknown("reskill skills", arguments[0], actions))
    return actions[arguments[0]](arguments[1:])


def _list_skills(arguments: Sequence[str]) -> int:
    from reskill_jax.cli.arguments import SkillsListArguments, parse

    parsed = parse(SkillsListArguments, arguments, prog="reskill skills list")
    found = _read_skills(parsed.run)
    if not found:
        print("the bank is empty")
    width = max((len(skill.name) for skill in found), default=0)
    for skill in found:
        trigger = skill.trigger
        shown = trigger.kind if trigger.pattern is None else f"{trigger.kind} {trigger.pattern}"
        if trigger.task_pattern is not None:
            shown += f", tasks with {trigger.task_pattern}"
        print(f"{skill.name:<{width}}  {' '.join(skill.action.split())}  [{shown}]")
    return 0


def _show_skill(arguments: Sequence[str]) -> int:
    from reskill_jax.cli.arguments import SkillsShowArguments, parse
    from reskill_jax.skills.skillmd import to_markdown
    from reskill_jax.training.config_file import nearest

    parsed = parse(SkillsShowArguments, arguments, prog="reskill skills show")
    found = {skill.name: skill for skill in _read_skills(parsed.run)}
    if parsed.name not in found:
        near = nearest(parsed.name, found)
        hint = f"did you mean {near}?" if near else f"there is: {', '.join(found) or 'none'}"
        raise CommandLineError(f"the run has no skill called '{parsed.name}'; {hint}")
    print(to_markdown(found[parsed.name]), end="")
    return 0


def _export_skills(arguments: Sequence[str]) -> int:
    from reskill_jax.cli.arguments import SkillsExportArguments, parse

    parsed = parse(SkillsExportArguments, arguments, prog="reskill skills export")

    from reskill_jax.report.lines import read_lines
    from reskill_jax.skills.skillmd import export_skills
    from reskill_jax.skills.standing import standings
    from reskill_jax.storage.log_schema import check_lifecycle

    found = _read_skills(parsed.run)
    problems: list[str] = []
    log = read_lines(find_run(parsed.run) / "lifecycle.jsonl", check_lifecycle, problems)
    for problem in problems:
        print(f"reskill: {problem}", file=sys.stderr)
    told = standings(found, [line for _, line in log])
    for path in export_skills(found, parsed.folder, told):
        print(path)
    return 0


def _read_skills(run: str) -> Sequence[Any]:
    from reskill_jax.skills.dfa import check_size
    from reskill_jax.skills.skillmd import import_skills

    path = find_run(run)
    folder = path / "skills"
    found = import_skills(folder) if folder.is_dir() else ()
    for skill in found:
        for pattern in (skill.trigger.pattern, skill.trigger.task_pattern):
            if pattern is not None:
                try:
                    check_size(pattern)
                except ValueError as error:
                    raise type(error)(f"{folder / skill.name}: the trigger: {error}") from None
    check_briefly(path)
    return found


def report(arguments: Sequence[str]) -> int:
    """`reskill report`."""
    from reskill_jax.agents.store import is_store
    from reskill_jax.cli.arguments import ReportArguments, parse

    parsed = parse(ReportArguments, arguments, prog="reskill report")
    if not parsed.runs:
        raise CommandLineError("which RUN? (see reskill report --help)")

    from reskill_jax.report import lacks_configuration, write_comparison, write_report

    with contextlib.ExitStack() as stack:
        folders = [_readable_run(run, stack) for run in parsed.runs]
        output = parsed.output
        if is_store(parsed.runs[0]) and output is None:
            ending = ".html" if len(folders) == 1 else ".comparison.html"
            output = Path(parsed.runs[0]).with_suffix(ending)
        if len(folders) == 1:
            page, problems = write_report(folders[0], output)
        else:
            page, problems = write_comparison(folders, output)
    for problem in problems:
        print(f"reskill: {problem}", file=sys.stderr)
    print(page)
    return 1 if lacks_configuration(problems) else 0


def _readable_run(run: str, stack: contextlib.ExitStack) -> Path:
    """The folder of a run, or of what a store has instead."""
    from reskill_jax.agents.store import is_store

    if not is_store(run):
        return find_run(run)
    from reskill_jax.cli.adapt import run_of_store

    return run_of_store(run, stack.enter_context(tempfile.TemporaryDirectory()))


def worlds(arguments: Sequence[str]) -> int:
    """`reskill worlds`."""
    from reskill_jax.cli.arguments import WorldsArguments, parse

    parse(WorldsArguments, arguments, prog="reskill worlds")

    from reskill_jax.worlds.registry import WORLDS, missing

    for name, entry in WORLDS.items():
        absent = missing(entry)
        state = f"missing: {', '.join(absent)}" if absent else "ready"
        print(f"{name:<16}{entry.about}\n{'':<16}{state}")
        if absent:
            print(f"{'':<16}{entry.install}")
        if entry.games:
            print(f"{'':<16}--games: {entry.games}")
    print(f"{'MODULE:CLASS':<16}a world of your own: docs/worlds.md")
    return 0


def doctor(arguments: Sequence[str]) -> int:
    """`reskill doctor`."""
    from reskill_jax.cli.doctor import doctor as look_and_print

    return look_and_print(arguments)


def adapt(arguments: Sequence[str]) -> int:
    """`reskill adapt`."""
    from reskill_jax.cli.adapt import adapt as adapt_and_print

    return adapt_and_print(arguments)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "train": train,
    "pretrain": pretrain,
    "eval": evaluate,
    "export": export,
    "skills": skills,
    "report": report,
    "worlds": worlds,
    "doctor": doctor,
    "tau-rec": tau_rec,
    "adapt": adapt,
}


def _unknown(prog: str, word: str, known: Any) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"expected one of: {', '.join(known)}"
    return f"{prog} has no command '{word}'; {hint}"


def _shell_words(config: Any) -> str:
    root = "" if config.root == type(config)().root else f" --root {shlex.quote(str(config.root))}"
    return f"--name {shlex.quote(config.name)}{root}"


# --- entry --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit code; the entry point of `reskill`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what an encoding lacks ends no run
        sys.stdout.reconfigure(errors="replace")
    with warnings.catch_warnings():
        warnings.showwarning = _teller(warnings.showwarning)
        return _main(arguments)


def _teller(otherwise: Callable[..., None]) -> Callable[..., None]:
    """Tells each warning of ours once, in one line as everything else; the rest goes its way."""
    told = set()

    def tell(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if category.__module__.split(".")[0] != "reskill_jax":
            otherwise(message, category, *where, **more)
        elif str(message) not in told:
            told.add(str(message))
            print(f"reskill: {' '.join(str(message).split())}", file=sys.stderr)

    return tell


def _main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("RESKILL_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if words else 2
    if words[0] == "--version":
        from reskill_jax import __version__

        print(f"reskill {__version__}")
        return 0
    try:
        if words[0] not in COMMANDS:
            raise CommandLineError(_unknown("reskill", words[0], COMMANDS))
        status = COMMANDS[words[0]](words[1:])
        sys.stdout.flush()  # a pipe that nobody reads is noticed here, not at exit
        return status
    except KeyboardInterrupt:
        print("reskill: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # e.g. `reskill skills list | head`
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (nothing may flush the pipe at exit)
        return 0
    except Exception as error:
        if debug or not is_expected(error):
            raise
        told = "".join(c if c.isprintable() else repr(c)[1:-1] for c in message_of(error))
        print(f"reskill: {told}", file=sys.stderr)
        return 2 if isinstance(error, CommandLineError) else 1
