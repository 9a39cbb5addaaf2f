"""Tables of the studies of algorithms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import table

from reskill_jax.algorithms.names import KINDS

from .algorithms import best_rates
from .report_versions import proposals
from .results import BASELINE, METHOD, final, over_seeds, percent, step_seconds
from .statistics import Estimate, estimate, paired

Runs = Mapping[int, Mapping[str, Any]]


def by_variant(results: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[int, dict]]]:
    """Variant -> condition -> seed -> result."""
    found: dict[str, dict[str, dict[int, dict]]] = {}
    for one in results:
        found.setdefault(one["variant"]["algorithm"], {}).setdefault(one["condition"], {})[
            one["seed"]
        ] = one
    return found


def write_algorithms(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """The tables; there are no figures."""
    found = by_variant(results)
    rows, trials = [], []
    for name in sorted(found, key=_place):
        runs = found[name]
        base = runs.get(BASELINE) or found.get(name.partition("-")[0], {}).get(BASELINE, {})
        method = runs.get(METHOD, {})
        rate = next(iter((method or base).values()))["identity"]["config"]["optimizer"]
        rows.append(
            [
                name,
                f"{rate['learning_rate']:g}",
                *(percent(_unseen(each)) for each in (base, method)),
                percent(paired(_by_seed(method), _by_seed(base)), signed=True),
                percent(_unseen(method, "none")),
                *(_median(each, step_seconds, "{:.2f}") for each in (base, method)),
                *(_median(each, _megabytes, "{:.0f}") for each in (base, method)),
                str(len(set(base) & set(method))),
            ]
        )
        if method:
            trials.append([name, *_versions(method)])
    head = ["algorithm", "rate", "without skills", "with skills", "difference"]
    head += ["with skills, played without", "s a step", "with skills", "MB", "with skills", "pairs"]
    text = "Unseen success in per cent, with 95 % t intervals over seeds; seconds of a step on one "
    text += "core with another run beside it, medians; MB that the compiled step holds at most: "
    text += f"state, batch and temporaries.\n\n{table(head, rows)}"
    gains = [percent(_gain(found, mode), signed=True) for mode in (None, "none")]
    text += f"\n\nWith skills less without, the mean over the {len(KINDS)} algorithms, one value a "
    text += f"seed: {gains[0]} points; played without the skills {gains[1]}."
    head = ["algorithm", "accepted", "rejected", "rollouts a decision", "extra rollouts"]
    head += ["of accepted helpful", "harmful"]
    return f"{text}\n\nTrials of a run, on average:\n\n{table(head, trials)}", []


def write_rates(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """Unseen success of every algorithm at every rate, the chosen one in bold."""
    found: dict[str, dict[float, dict[int, dict]]] = {}
    for one in results:
        of_kind = found.setdefault(one["variant"]["algorithm"], {})
        of_kind.setdefault(float(one["variant"]["rate"]), {})[one["seed"]] = one
    rates, chosen = sorted({rate for each in found.values() for rate in each}), best_rates(results)
    rows = []
    for name in sorted(found, key=_place):
        told = {rate: percent(_unseen(found[name].get(rate, {}))) for rate in rates}
        told[chosen[name]] = f"**{told[chosen[name]]}**"
        rows.append([name, *told.values()])
    return table(["unseen success, %, at the rate", *(f"{rate:g}" for rate in rates)], rows), []


def _place(name: str) -> tuple[int, str]:
    """For the order of the rows: variants follow their algorithm."""
    return KINDS.index(name.partition("-")[0]), name


def _gain(found: Mapping[str, Mapping[str, Runs]], mode: str | None) -> Estimate | None:
    """What skills add, over the algorithms; one value a seed, as runs of a seed have their games in
    common."""
    every = [found.get(kind, {}) for kind in KINDS]
    whole = [_by_seed(runs.get(METHOD, {}), mode) for runs in every]
    base = [_by_seed(runs.get(BASELINE, {})) for runs in every]
    seeds = set.intersection(*(set(each) for each in (*whole, *base)))
    gains = [np.mean([w[s] - b[s] for w, b in zip(whole, base, strict=True)]) for s in seeds]
    return estimate([float(gain) for gain in gains]) if gains else None


def _by_seed(runs: Runs, mode: str | None = None) -> dict[int, float]:
    return over_seeds(runs, lambda r: final(r, "unseen", mode))


def _unseen(runs: Runs, mode: str | None = None) -> Estimate | None:
    values = list(_by_seed(runs, mode).values())
    return estimate(values) if values else None


def _median(runs: Runs, measure, told: str) -> str:
    values = [value for value in map(measure, runs.values()) if value is not None]
    return told.format(float(np.median(values))) if values else "–"


def _megabytes(result: Mapping[str, Any]) -> float | None:
    """The most that the compiled step holds: state, batch, temporaries."""
    memory = result.get("memory")
    return memory["peak"] / 1e6 if memory else None


def _versions(runs: Runs) -> list[str]:
    """Decisions, what they took, and what accepted versions were worth where it was measured."""
    ended = [
        line
        for one in runs.values()
        for line in one["lifecycle"]
        if line["event"] in ("accepted", "rejected", "retired", "kept")
    ]
    accepted = sum(line["event"] in ("accepted", "retired") for line in ended)
    spent = [sum(line["trials"]) for line in ended if "trials" in line]
    extra = [sum(one["metrics"].get("evaluation_rollouts", [0])) for one in runs.values()]
    measured = [p for one in runs.values() for p in proposals(one) if p["accepted"]]
    helpful = sum(p["verdict"] == "helpful" for p in measured)
    harmful = sum(p["verdict"] == "harmful" for p in measured)
    was_measured = any(one["measurements"] for one in runs.values())
    return [
        f"{accepted / len(runs):.1f}",
        f"{(len(ended) - accepted) / len(runs):.1f}",
        f"{np.mean(spent):.0f}" if spent else "–",
        f"{np.mean(extra):.0f}",
        *((str(helpful), str(harmful)) if was_measured else ("–", "–")),
    ]
