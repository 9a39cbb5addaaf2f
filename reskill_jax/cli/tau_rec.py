"""The command `reskill tau-rec`: any agent on tau-Rec, with a scripted user or a language model."""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.table import Table

from reskill_jax.cli.arguments import parse
from reskill_jax.cli.errors import CommandLineError


@dataclasses.dataclass(frozen=True)
class TauRecArguments:
    """Play tau-Rec: a language model behind an address, or an agent that follows rules."""

    data: Annotated[
        str,
        tyro.conf.arg(
            metavar="DATA", help="Folder of the benchmark's data, or made:SEED, tasks of our own."
        ),
    ]
    agent: str = "rules"
    """"rules" (asks fixed questions, filters the catalog), or the address of a language model, such
    as http://localhost:8000/v1; RESKILL_CHAT_KEY is sent as its key."""
    agent_model: str = ""
    """Its name there."""
    agent_temperature: float | None = 0.0
    """Of sampling; None is not sent, which some models ask for."""
    user: str = "scripted"
    """"scripted", "stated" (scripted, and judges by what the agent states), or the address of a
    language model."""
    user_model: str = ""
    """Its name there."""
    trials: int = 4
    """Times that every task is played."""
    tasks: int | None = None
    """The first tasks alone."""
    offers: int = 0
    """Of the agent that follows rules: films that it names before it commits to one."""
    topics: tuple[Literal["services", "length", "genre", "score", "age"], ...] = (
        "services",
        "length",
        "genre",
        "score",
        "age",
    )
    """Of the agent that follows rules: what it asks about, in this order; `--topics` with nothing
    behind it asks nothing."""
    generation: Literal["g1", "v1.0"] = "g1"
    """Of the rules."""
    at_once: int = 16
    """Trials at a time."""
    max_turns: int = 20
    """Turns of a trial."""
    output: Path | None = None
    """Write the figures here too, as JSON."""


def play_and_print(arguments: Sequence[str]) -> int:
    """Plays, prints a table, writes --output."""
    asked = parse(TauRecArguments, arguments, prog="reskill tau-rec")
    for name, most in (("trials", 1000), ("at_once", 1000), ("max_turns", 1000)):
        if not 1 <= getattr(asked, name) <= most:
            raise CommandLineError(f"--{name.replace('_', '-')} must be 1 to {most}")

    from reskill_jax.evaluation.tau_rec import play_tasks, summary

    benchmark = _benchmark(asked)
    agent_name, make_agent = _agent(asked, benchmark)
    user_name, make_user = _user(asked, benchmark)
    played = play_tasks(
        benchmark,
        make_agent,
        make_user,
        tasks=list(benchmark.tasks)[: asked.tasks],
        trials=asked.trials,
        max_turns=asked.max_turns,
        at_once=asked.at_once,
    )
    found = summary(played, benchmark, agent=agent_name, user=user_name)
    if asked.output is not None:
        asked.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    _print(found)
    return 0 if found["n"] else 1


def _benchmark(asked: TauRecArguments) -> Any:
    from reskill_jax.worlds.tau_rec import TauRec
    from reskill_jax.worlds.tau_rec.generator import generate

    made, _, seed = asked.data.partition(":")
    if made == "made" and seed.isdigit():
        return TauRec(generate(int(seed[:9])), generation=asked.generation)
    return TauRec(asked.data, generation=asked.generation)


def _client(address: str, model: str, temperature: float | None) -> Any:
    from reskill_jax.worlds.registry import CHAT_KEY
    from reskill_jax.worlds.tau_rec.chat import ChatClient

    if not model:
        raise CommandLineError(f"the model at {address} needs a name: --agent-model, --user-model")
    return ChatClient(address, model, key=os.environ.get(CHAT_KEY), temperature=temperature)


def _agent(asked: TauRecArguments, benchmark: Any) -> tuple[str, Any]:
    from reskill_jax.worlds.tau_rec.agents import RuleAgent
    from reskill_jax.worlds.tau_rec.chat_players import ChatAgent

    if asked.agent == "rules":
        numbers = {name: number for number, name in enumerate(benchmark.tasks)}

        def rules(task: Any, trial: int) -> Any:
            seed = 1000 * trial + numbers[task.id]
            return RuleAgent(
                benchmark.catalog,
                topics=asked.topics,
                offers=asked.offers,
                seed=seed,
                user_id=task.user_id,
            )

        return f"rules, {len(asked.topics)} questions, {asked.offers} offers", rules
    client = _client(asked.agent, asked.agent_model, asked.agent_temperature)
    return (
        f"language model {client.model}",
        lambda task, trial: ChatAgent(client, benchmark.policy, user_id=task.user_id),
    )


def _user(asked: TauRecArguments, benchmark: Any) -> tuple[str, Any]:
    from reskill_jax.worlds.tau_rec.chat_players import ChatUser, chat_user_name
    from reskill_jax.worlds.tau_rec.users import Listener, ScriptedUser, user_name

    if asked.user in ("scripted", "stated"):
        judge: Any = "stated" if asked.user == "stated" else "catalog"
        listener = Listener(benchmark.catalog)
        return user_name(judge), lambda task: ScriptedUser(task, listener, judge=judge)
    client = _client(asked.user, asked.user_model, 1.0)
    return chat_user_name(client), lambda task: ChatUser(client, task)


def _print(found: dict[str, Any]) -> None:
    console = Console()
    table = Table("agent", "user", "rules", "valid trials", *(f"pass^{k}" for k in (1, 2, 4)))
    told = []
    for k, (low, high) in found["pass_hat_k_interval"].items():
        told.append(f"{100 * found['pass_hat_k'][k]:.1f} % ({100 * low:.1f} – {100 * high:.1f})")
    of_all = f"{found['n']} of {found['trials']}"
    table.add_row(found["agent"], found["user"], found["generation"], of_all, *told)
    console.print(table)
    for cause, count in found["causes"].items():
        console.print(f"invalid {count}: {cause}", highlight=False, markup=False)
    if found["invalid"]:
        fewest = found["fewest"]
        console.print(f"a task with fewer than k valid trials counts as 0; fewest: {fewest}")
