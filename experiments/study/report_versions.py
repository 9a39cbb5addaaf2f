"""Tables and figures of the study of single versions."""

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from results_page import table

from . import figures
from .results import NAMES, Results, by_condition
from .statistics import Estimate, estimate, game_difference

_OUTCOMES = {"accepted": True, "retired": True, "rejected": False, "kept": False}


def proposals(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Measured proposals of a run: kind of operation, outcome, verdict of the measurement."""
    outcomes = {
        line["trial"]: _OUTCOMES[line["event"]]
        for line in result["lifecycle"]
        if line["event"] in _OUTCOMES
    }
    found = []
    for line in result["measurements"]:
        if line["kind"] != "proposal":
            continue
        kinds = {operation["operation"] for operation in line["operations"]}
        difference = game_difference(line["gained"], line["lost"], line["games"])
        kind = "retirement" if line["type"] == "retirement" else " + ".join(sorted(kinds))
        found.append(
            {
                "kind": kind,
                "accepted": outcomes.get(line["trial"]),  # None: undecided at the end
                "verdict": difference.verdict,
                "difference": difference.difference,
            }
        )
    return found


def _proposal_rows(results: Results) -> list[list[str]]:
    rows = []
    for condition, runs in results.items():
        every = [one for result in runs.values() for one in proposals(result)]
        kinds = sorted(
            {one["kind"] for one in every}, key=lambda kind: (kind == "retirement", kind)
        )
        for kind in (*kinds, "all"):
            chosen = [one for one in every if kind in (one["kind"], "all")]
            rows.append([NAMES[condition] if kind == (kinds or ["all"])[0] else "", kind])
            for part in (chosen, [one for one in chosen if one["accepted"]]):
                count = collections.Counter(one["verdict"] for one in part)
                differences = [one["difference"] for one in part]
                rows[-1] += [
                    str(len(part)),
                    *(str(count[verdict]) for verdict in ("helpful", "neutral", "harmful")),
                    f"{100 * np.mean(differences):+.1f}" if differences else "–",
                ]
    return rows


def benefits(results: Mapping[int, Mapping[str, Any]]) -> list[tuple[int, float, str, bool]]:
    """(age, benefit, verdict, whether at the end) of every measurement of a skill in a bank."""
    found = []
    for result in results.values():
        last = result["identity"]["config"]["steps"]
        for line in result["measurements"]:
            if line["kind"] == "skill":
                one = game_difference(line["gained"], line["lost"], line["games"])
                found.append((line["age"], one.difference, one.verdict, line["step"] == last))
    return found


def _hurting_rows(results: Results) -> list[list[str]]:
    rows = []
    for condition, runs in results.items():
        every = benefits(runs)
        for when, part in (
            ("along training", every),
            ("in the final bank", [one for one in every if one[3]]),
        ):
            if not part:
                continue
            verdicts = collections.Counter(one[2] for one in part)
            rows.append(
                [
                    f"{NAMES[condition]}, {when}",
                    str(len(part)),
                    f"{100 * np.mean([one[1] for one in part]):+.1f}",
                    f"{100 * np.mean([one[1] < 0 for one in part]):.0f}",
                    f"{100 * verdicts['harmful'] / len(part):.0f}",
                    f"{100 * verdicts['helpful'] / len(part):.0f}",
                ]
            )
    return rows


def by_age(
    measured: Sequence[tuple[int, float, str, bool]], *, width: int
) -> tuple[list[float], list[Estimate]]:
    """Mean benefit of skills by the steps they have been in use, in bins of `width` steps."""
    bins: dict[int, list[float]] = {}
    for age, benefit, _, _ in measured:
        bins.setdefault(age // width, []).append(benefit)
    kept = sorted(bins)
    return [width * (k + 0.5) for k in kept], [estimate(bins[k]) for k in kept]


def write_versions(results: Sequence[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    """Draws the figures into a folder; returns the tables and the figures' names."""
    found = by_condition(results)
    head = ["condition", "operations", "proposed", "helpful", "neutral", "harmful", "mean"]
    head += ["accepted", "helpful", "neutral", "harmful", "mean"]
    text = "What proposals were worth when they were made, measured on games of their own: the "
    text += "difference in success (points) between the version and the bank it would replace.\n\n"
    text += table(head, _proposal_rows(found))
    text += "\n\nWhat skills in use were worth: the bank against the bank without the skill.\n\n"
    head = ["skills", "measurements", "mean benefit", "% below 0", "% harmful", "% helpful"]
    text += table(head, _hurting_rows(found))
    text += "\n\n*Helpful*, *harmful*: the 95 % interval of the difference on the same games lies "
    text += "above, below 0; *neutral*: it holds 0. Measurements of one skill at several steps are "
    text += "not independent."
    width = max(1, results[0]["identity"]["measures"]["drift_every"])
    measured = {NAMES[c]: benefits(runs) for c, runs in found.items() if benefits(runs)}
    if not measured:
        return text, []
    curves = {name: by_age(every, width=width) for name, every in measured.items()}
    path = folder / "household_study_versions.svg"
    return text, [figures.conflict(curves, measured, path)]
