"""Plays the same games in the compiled household world and in the real ALFWorld engine.

    python experiments/alfworld_agreement.py --games games.jsonl.gz --run runs/household
    python experiments/alfworld_agreement.py --games games.jsonl.gz --weights household
    python experiments/alfworld_agreement.py --generated 3 --quick    # random play, a minute

Both worlds must show the player the same texts and so see the same commands, action for action, and
the same wins. With --run (a policy and its skills) or --weights (a policy alone) the compiled side
is the batched rollout of training and the real side is the same policy reading the engine's texts,
both greedy; otherwise the commands are random. A game that an engine cannot play counts as invalid,
not as lost. Ends with exit code 1 if anything differs. Needs the extra `alfworld`.
"""

import argparse
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from reskill_jax.evaluation.compiled_play import play_compiled
from reskill_jax.evaluation.replay import REAL_CAPACITY, load_run
from reskill_jax.evaluation.text_play import episode_of_texts, margins, play_texts
from reskill_jax.models.model import Model
from reskill_jax.models.params import Params
from reskill_jax.rollouts.host import HostRollouts
from reskill_jax.skills.bank import Bank, build_bank
from reskill_jax.skills.skill import Skill
from reskill_jax.storage.intervals import wilson_interval
from reskill_jax.training.config import ModelConfig
from reskill_jax.training.settings import load_policy
from reskill_jax.worlds import alfworld
from reskill_jax.worlds.alfworld_games import GameRecord, game_record, read_games
from reskill_jax.worlds.household import symbols
from reskill_jax.worlds.household.generator import LARGE, SMALL, generate
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import Language
from reskill_jax.worlds.playing import (
    Comparison,
    Episode,
    PlayerFactory,
    RandomPlayer,
    compare,
    open_alfworld,
    play,
)

AT_ONCE = 32  # games of a policy in the real engine

# Plays a list of games, all of them, and tells their episodes as text.
PlayAll = Callable[[Sequence[GameRecord], int], Sequence[Episode]]


def spread(records: Sequence[GameRecord], count: int) -> list[GameRecord]:
    """Chooses `count` games, evenly over the task types and evenly within each; always the same."""
    of_type: dict[str, list[GameRecord]] = defaultdict(list)
    for record in records:
        of_type[record.task_type].append(record)
    quota = dict.fromkeys(of_type, 0)
    for _ in range(min(count, len(records))):  # one more for the type with the fewest so far
        open_types = [t for t in TASK_TYPES if t in quota and quota[t] < len(of_type[t])]
        quota[min(open_types, key=quota.__getitem__)] += 1
    return [
        of_type[kind][i * len(of_type[kind]) // n] for kind, n in quota.items() for i in range(n)
    ]


def generated(count: int, *, large: bool, split: str, seed: int) -> list[GameRecord]:
    """Makes games with our generator and writes them as problem files."""
    spec = LARGE if large else SMALL
    make = jax.jit(lambda key: generate(key, spec=spec, split=split))
    size = "large" if large else "small"
    return [
        game_record(
            jax.tree.map(np.asarray, make(jax.random.key(seed + i))),
            name=f"{size}-{seed + i}",
            split=split,
        )
        for i in range(count)
    ]


def run(
    records: Sequence[GameRecord],
    player_factory: PlayerFactory,
    *,
    max_turns: int,
    compiled: PlayAll | None = None,
    real: PlayAll | None = None,
    report: Callable[[str], None] = print,
) -> list[Comparison]:
    """Plays every game in both worlds.

    Args:
      records: the games.
      player_factory: makes a fresh player for a game.
      max_turns: commands per episode.
      compiled: plays the compiled side all at once on the device; None lets the same players play
        it through `TextGame`.
      real: plays the real side all at once; None lets the players play it.
      report: takes one line per game.
    """
    ready = None if compiled is None else compiled(records, max_turns)
    there = None if real is None else real(records, max_turns)
    found: list[Comparison] = []
    start = time.perf_counter()
    for i, record in enumerate(records):
        if ready is None:
            comparison = compare(record, player_factory, max_turns=max_turns)
        else:
            second = (
                there[i]
                if there is not None
                else play(record, open_alfworld, player_factory(record), max_turns=max_turns)
            )
            comparison = Comparison(record, ready[i], second)
        found.append(comparison)
        left = (time.perf_counter() - start) / (i + 1) * (len(records) - i - 1)
        report(f"[{i + 1}/{len(records)}, {left:.0f} s left] {record.game}: {verdict(comparison)}")
    return found


class Policy:
    """A policy with its skills as both sides of the comparison, greedy."""

    def __init__(
        self,
        params: Params,
        model: Model,
        language: Language,
        skills: Sequence[Skill],
        *,
        context_length: int,
        workers: int,
    ):
        """Takes the model, the skills in slot order and the symbols a context may have."""
        self._params, self._model, self._language = params, model, language
        self._skills = tuple(skills)
        self._context_length, self._workers = context_length, workers
        self._played: HostRollouts | None = None

    def real(self, records: Sequence[GameRecord], max_turns: int) -> list[Episode]:
        """Plays the games in the real engine, a batch at a time."""
        self._played = play_texts(
            records,
            self._params,
            self._model,
            self._language,
            self._skills,
            engine="alfworld",
            max_turns=max_turns,
            context_length=self._context_length,
            workers=self._workers,
            rows=AT_ONCE,
        )
        return [episode_of_texts(told) for told in self._played.conversations]

    def compiled(self, records: Sequence[GameRecord], max_turns: int) -> list[Episode]:
        """Plays the games on the device."""
        bank: Bank = build_bank(
            [self._skills],
            language=symbols.SYMBOLS,
            encode=symbols.words,
            lacking=symbols.lacking,
            slots=max(len(self._skills), 1),
        )
        return play_compiled(
            self._params,
            self._model,
            self._language,
            bank,
            records,
            world=HouseholdWorld(),
            max_turns=max_turns,
            context_length=self._context_length,
        )

    def margins(self, found: Sequence[Comparison]) -> list[str]:
        """How near to a tie the decisions were: the nearest of all, and where games part."""
        assert self._played is not None
        leads = margins(self._played, self._params, self._model)
        nearest = min((min(one, default=float("inf")) for one in leads), default=float("inf"))
        full = int(self._played.rollouts.truncated.sum())
        lines = [
            f"The nearest to a tie any greedy choice came: {nearest:.2g} nats.",
            f"Episodes that ended because the context was full: {full}.",
        ]
        for c, of_game in zip(found, leads, strict=True):
            turn = first_difference(c)
            if c.valid and turn is not None:
                margin = f"{of_game[turn]:.2g} nats" if turn < len(of_game) else "none"
                lines.append(f"{c.record.game}: command {turn} differs; margin there {margin}")
        return lines


def first_difference(comparison: Comparison) -> int | None:
    """The first command that differs; None when the two sides gave the same."""
    one, two = comparison.first.commands, comparison.second.commands
    for turn, (a, b) in enumerate(zip(one, two)):
        if a != b:
            return turn
    return None if len(one) == len(two) else min(len(one), len(two))


def load(options: argparse.Namespace) -> Policy | None:
    """The policy that the command line asks for; None = random play."""
    skills: Sequence[Skill] = ()
    if options.run:
        run = load_run(options.run, step=options.step)
        params, policy, skills = run.params, run.policy, run.skills_of(options.mode)
    if options.weights:
        policy = load_policy(ModelConfig(options.weights), HouseholdWorld())
        params = policy.params
    elif not options.run:
        return None
    return Policy(
        params,
        policy.model,
        policy.language,
        skills,
        context_length=options.context,
        workers=options.workers,
    )


def verdict(comparison: Comparison) -> str:
    """Says how one game went."""
    if not comparison.valid:
        return f"invalid ({comparison.first.error or comparison.second.error})"
    if comparison.difference:
        return f"DIFFERENT, {comparison.difference}"
    outcome = "won" if comparison.first.won else "not won"
    return f"same, {len(comparison.first.commands)} commands, {outcome}"


def summary(found: Sequence[Comparison]) -> dict[str, int]:
    """Counts games, agreement, commands and wins; invalid games are in no other count."""
    valid = [c for c in found if c.valid]
    return {
        "games": len(found),
        "invalid": len(found) - len(valid),
        "same": sum(c.difference is None for c in valid),
        "different": sum(c.difference is not None for c in valid),
        "commands": sum(len(c.second.commands) for c in valid),
        "won_compiled": sum(c.first.won for c in valid),
        "won_real": sum(c.second.won for c in valid),
    }


def success(found: Sequence[Comparison]) -> str:
    """The success rate of each split in both worlds, with Wilson's 95 % intervals."""
    lines = []
    for split in dict.fromkeys(c.record.split for c in found):
        valid = [c for c in found if c.valid and c.record.split == split]
        for world, side in (("compiled", 0), ("real", 1)) if valid else ():
            won = sum((c.first, c.second)[side].won for c in valid)
            low, high = wilson_interval(won, len(valid))
            share = won / len(valid)
            lines.append(
                f"{split}, {world}: {won}/{len(valid)} = {share:.3f} [{low:.3f}, {high:.3f}]"
            )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """Returns the command line."""
    parse = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parse.add_argument(
        "--games",
        default=os.environ.get("RESKILL_ALFWORLD_GAMES"),
        help="games file (.jsonl, .jsonl.gz), problem file or ALFWORLD_DATA folder "
        "(default: $RESKILL_ALFWORLD_GAMES)",
    )
    parse.add_argument("--split", help="only this split of the games")
    parse.add_argument("--count", type=int, default=60, help="games chosen from --games")
    parse.add_argument("--generated", type=int, default=0, help="games of our generator besides")
    parse.add_argument("--large", action="store_true", help="generate rooms of ALFRED's size")
    parse.add_argument("--max-turns", type=int, default=50, help="commands per episode")
    parse.add_argument("--run", type=Path, help="folder of a run: its policy and its skills")
    parse.add_argument("--step", type=int, help="checkpoint of the run (default: the newest)")
    parse.add_argument("--mode", choices=("bank", "none", "candidate"), default="bank")
    parse.add_argument(
        "--weights",
        help='"household" (shipped) or a .safetensors file, instead of the weights of the run',
    )
    parse.add_argument(
        "--context", type=int, default=REAL_CAPACITY, help="symbols the policy can read"
    )
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes of the real engine"
    )
    parse.add_argument("--out", type=Path, help="write the episodes here, one JSON object a line")
    parse.add_argument("--quick", action="store_true", help="3 games of each kind, 10 commands")
    return parse


def main(
    arguments: Sequence[str] | None = None,
    *,
    player_factory: PlayerFactory | None = None,
    compiled: PlayAll | None = None,
) -> int:
    """Runs the command line; see `run` for the two functions. Default player: random."""
    options = parser().parse_args(arguments)
    if not alfworld.installed():
        print(f"the real ALFWorld engine is not installed: {alfworld.INSTALL_HINT}")
        return 2
    count, made = options.count, options.generated
    max_turns = options.max_turns
    if options.quick:
        count, made, max_turns = min(count, 3), min(made, 3), min(max_turns, 10)
    try:
        records = (
            spread(read_games(options.games, split=options.split), count) if options.games else []
        )
        records += generated(made, large=options.large, split="unseen", seed=options.seed)
        policy = load(options)
    except ValueError as error:
        print(f"error: {error}")
        return 2
    if not records:
        print("no games: give --games a file or folder, or --generated a number")
        return 2
    real: PlayAll | None = None
    if policy is not None:
        compiled, real = policy.compiled, policy.real
    player_factory = player_factory or (
        lambda record: RandomPlayer(f"{options.seed} {record.game}")
    )
    found = run(records, player_factory, max_turns=max_turns, compiled=compiled, real=real)
    counts = summary(found)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", encoding="utf-8") as file:
            for c in found:
                row = {
                    "split": c.record.split,
                    "game": c.record.game,
                    "task": c.record.task,
                    "difference": c.difference if c.valid else None,
                    "compiled": c.first._asdict(),
                    "real": c.second._asdict(),
                }
                file.write(json.dumps(row) + "\n")
    for line in policy.margins(found) if policy is not None else ():
        print(line)
    print(success(found))
    played = counts["games"] - counts["invalid"]
    print(
        f"{played} games, {counts['commands']} commands: {counts['same']} the same action for "
        f"action, {counts['different']} different, {counts['invalid']} invalid. "
        f"Won: {counts['won_compiled']}/{played} compiled, {counts['won_real']}/{played} real."
    )
    return 1 if counts["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
