"""Hands hostile input to every way into the library and counts what happens.

    python experiments/hostile_input.py             # 2,000 inputs each
    python experiments/hostile_input.py --quick     # 100 each

Inputs are drawn by hypothesis from experiments/hostile/inputs.py, the same for the same seed. An
input may be accepted or refused in one clear line; anything else is a defect, shown with the
smallest input that causes it.
"""

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostile.surfaces import Surface, attempt, surfaces
from hypothesis import HealthCheck, Phase, given, seed, settings
from results_page import table

from reskill_jax.devices.machine import describe_machine


def real_game() -> dict[str, str]:
    """A small game in the real engine's format, as a record of a games file."""
    path = Path(__file__).resolve().parent / "hostile" / "game.json"
    return json.loads(path.read_text(encoding="utf-8"))


def count(surface: Surface, tries: int, folder: Path, *, start: int = 0) -> dict[str, Any]:
    """Tries a surface; returns how many inputs, how many accepted, the slowest, and defects."""
    told: dict[str, Any] = {"tried": 0, "accepted": 0, "slowest": 0.0, "defect": None}

    @seed(start)
    @settings(
        max_examples=tries, deadline=None, database=None, suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(surface.strategy)
    def every(value):
        began = time.process_time()
        told["tried"] += 1
        try:
            told["accepted"] += attempt(surface, value, folder)
        finally:
            told["slowest"] = max(told["slowest"], time.process_time() - began)

    try:
        every()
    except Exception:
        told["defect"] = traceback.format_exc()
    return told


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a table; the exit code tells whether there were defects."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, help="inputs a surface; default 2000, quick 100")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a surface's name, or part of it")
    options = parser.parse_args(arguments)
    tries = options.tries or (100 if options.quick else 2000)
    game = real_game()
    rows, defects = [], []
    with tempfile.TemporaryDirectory() as folder:
        for surface in surfaces(game["pddl_problem"], game):
            if options.only and options.only not in surface.name:
                continue
            told = count(surface, tries, Path(folder) / "input", start=options.seed)
            rows.append(
                [
                    surface.name,
                    f"{told['tried']:,}",
                    f"{told['accepted']:,}",
                    "0" if told["defect"] is None else "yes",
                    f"{1000 * told['slowest']:.0f} ms",
                ]
            )
            defects += [told["defect"]] if told["defect"] else []
    print(describe_machine())
    print(table(["way in", "inputs", "accepted", "defects", "slowest (CPU)"], rows))
    for defect in defects:
        print(f"\n{defect}", file=sys.stderr)
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
