"""The studies of algorithms: their jobs, and the learning rate that each of them gets.

Every algorithm is trained with and without skills at equal rollouts. PPO plays as many tasks as the
others play rollouts, each once. Before that, learning rates are chosen, for all alike and without
skills, on seeds that serve nothing else.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reskill_jax.algorithms.registry import ALGORITHMS

from .jobs import Job, Study
from .results import BASELINE, METHOD, final, read

RATES = (2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4)
MEASURED = ("grpo", "ppo", "ppo-evaluation", "dpo")  # whose versions are measured one by one
VERSION_GAMES = 256


def variants(settings: Study) -> dict[str, dict[str, Any]]:
    """Name -> what it changes of the configuration."""
    alone = {"groups": settings.groups * settings.group_size, "group_size": 1}
    found: dict[str, dict[str, Any]] = {kind: {"algorithm": {"kind": kind}} for kind in ALGORITHMS}
    apart = {"evidence": "evaluation_batch", "evaluation_tasks": alone["groups"] // 2}
    found["ppo"] |= alone | {"trial": {"evidence": "paired"}}
    found["ppo-evaluation"] = {"algorithm": {"kind": "ppo"}, **alone, "trial": apart}
    seeing = {"kind": "ppo", "value_sees_arms": True}
    found["ppo-sees-arms"] = {"algorithm": seeing, **alone, "trial": {"evidence": "paired"}}
    return found


def algorithm_jobs(settings: Study, seeds: Sequence[int], rates: Mapping[str, float]) -> list[Job]:
    """Runs with and without skills, seed by seed; `rates` are those of `chosen_rates`."""
    settings = dataclasses.replace(settings, version_games=min(VERSION_GAMES, settings.eval_games))
    jobs = []
    for seed in seeds:
        for name, changes in variants(settings).items():
            kind = changes["algorithm"]["kind"]
            rate = rates.get(kind, settings.learning_rate)
            own = dataclasses.replace(settings, learning_rate=rate, final_learning_rate=rate)
            for condition in (BASELINE, METHOD):
                if condition == BASELINE and name != kind:  # without skills they are the same
                    continue
                changes_here = changes if condition == METHOD else _without_skills(changes)
                config = own.config(seed=seed, **changes_here)
                measured = condition == METHOD and name in MEASURED
                variant = {"algorithm": name}
                jobs.append(Job("algorithms", condition, seed, own, config, variant, measured))
    return jobs


def rate_jobs(settings: Study, seeds: Sequence[int]) -> list[Job]:
    """Runs without skills at every rate."""
    jobs = []
    for seed in seeds:
        for kind, changes in variants(settings).items():
            for rate in RATES if kind in ALGORITHMS else ():
                own = dataclasses.replace(settings, learning_rate=rate, final_learning_rate=rate)
                config = own.config(seed=seed, **_without_skills(changes))
                variant = {"algorithm": kind, "rate": f"{rate:g}"}
                jobs.append(Job("rates", BASELINE, seed, own, config, variant))
    return jobs


def _without_skills(changes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changes.items() if name != "trial"} | {"skills": False}


def chosen_rates(results: Path) -> dict[str, float]:
    """Those of `best_rates` in a folder of results; {} before the study of rates."""
    return best_rates(read(results / "rates"))


def best_rates(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Algorithm -> the rate with the highest unseen success."""
    found: dict[str, dict[float, list[float]]] = {}
    for one in results:
        of_kind = found.setdefault(one["variant"]["algorithm"], {})
        of_kind.setdefault(float(one["variant"]["rate"]), []).append(final(one, "unseen"))
    return {
        kind: max(rates, key=lambda rate: float(np.mean(rates[rate])))
        for kind, rates in found.items()
    }
