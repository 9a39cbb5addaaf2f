"""Proposals one after another: how often does a run end with a harmful skill in its bank?

The bounds of a decision rule hold for a single trial. A run makes many, and what it proposes is
harmful more often than not; so effects are drawn from what proposals of real runs were measured to
be worth, and the whole sequence is what counts.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .outcomes import World
from .simulation import Design, run_trials

PROPOSALS = 10  # in a run
_STEPS = 16  # of the longest trial
_GRID = 0.01  # effects are rounded to it, so that few differences have to be simulated


def measured_effects(results: Path, *, condition: str = "reskill") -> list[float]:
    """Differences in success that proposals of stored runs made, as they were measured.

    Args:
      results: folder of the study of versions.
      condition: whose proposals.

    Raises:
      ValueError: there are none.
    """
    found = []
    for path in sorted(results.glob(f"{condition}-*.json")):
        for one in json.loads(path.read_text(encoding="utf-8"))["measurements"]:
            if one["kind"] == "proposal" and one["type"] != "retirement":
                found.append((one["won"][0] - one["won"][1]) / one["games"])
    if not found:
        raise ValueError(f"no measured proposal of {condition} in {results}")
    return found


def sequences(
    world: World,
    effects: Sequence[float],
    design: Design,
    *,
    trials: int,
    rules: Sequence[str],
    seed: int,
    horizons: dict[str, Any],
    runs: int = 100_000,
) -> dict[str, dict[str, float]]:
    """What runs of ten proposals end with, by rule.

    Every proposal's effect is drawn anew from `effects`; what is accepted stays. Retirements, which
    would mend some of it, are left out.

    Returns:
      rule -> share of the runs with any harmful skill in the bank, with one that costs 2 points or
      more, mean number of helpful and of harmful ones, and the mean effect of the bank.
    """
    rounded = np.round(np.asarray(effects) / _GRID) * _GRID
    known, index = np.unique(rounded, return_inverse=True)
    shares = np.empty((len(rules), len(known)))  # accepted
    for at, one in enumerate(known):
        _, said, _ = run_trials(
            world, float(one), design, trials, _STEPS, rules, seed + at, horizons
        )
        said = np.asarray(said)  # [steps, rules, trials]
        decided = np.take_along_axis(said, np.argmax(said >= 0, axis=0)[None], axis=0)[0]
        shares[:, at] = (decided > 0).mean(axis=1)
    rng = np.random.default_rng(seed)
    drawn = index[rng.integers(0, len(index), (runs, PROPOSALS))]
    effect = known[drawn]
    found = {}
    for rule, share in zip(rules, shares, strict=True):
        accepted = rng.random(drawn.shape) < share[drawn]
        harmful = accepted & (effect < 0)
        found[rule] = {
            "any harmful": float(harmful.any(axis=1).mean()),
            "any that costs 2 points": float((harmful & (effect <= -0.02)).any(axis=1).mean()),
            "helpful": float((accepted & (effect > 0)).sum(axis=1).mean()),
            "harmful": float(harmful.sum(axis=1).mean()),
            "effect": float((effect * accepted).sum(axis=1).mean()),
            "error": float(math.sqrt(0.25 / runs)),
        }
    return found
