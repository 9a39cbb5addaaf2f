"""Tables and figures of the household study, from its JSON results alone."""

import collections
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import study_figures as figures
from results_page import table, write_section
from study_statistics import (
    Estimate,
    area,
    estimate,
    game_difference,
    paired,
    steps_to,
)

SPLITS = ("seen", "unseen")
BASELINE, METHOD = "grpo", "reskill"
NAMES = {
    "grpo": "GRPO",
    "reskill": "ReSkill",
    "auto_accept": "every proposal adopted",
    "fixed_bank": "GRPO with hand-written skills",
    "skills_first": "skills first, then policy",
    "policy_first": "policy first, then skills",
    "paper_rules": "ReSkill, the paper's rules",
    "no_assertions": "without assertions",
    "uniform": "uniform assignment",
    "no_discount": "the paper's rules, no discount",
    "last_step": "the paper's rules, posterior of the last step",
}
_ROOMS = ("tiny", "small", "medium", "large")
Results = dict[str, dict[int, dict[str, Any]]]  # condition -> seed -> result


def read(folder: Path) -> list[dict[str, Any]]:
    """All results of a study."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def by_condition(results: Sequence[Mapping[str, Any]]) -> Results:
    """Condition -> seed -> result; the baseline and the method first."""
    found: Results = {}
    order = list(NAMES)
    for one in sorted(results, key=lambda r: (order.index(r["condition"]), r["seed"])):
        found.setdefault(one["condition"], {})[one["seed"]] = dict(one)
    return found


# --- one run --------------------------------------------------------------------------------------


def mode_of(result: Mapping[str, Any]) -> str:
    """The mode in which a run is evaluated while it trains."""
    return "none" if result["condition"] == BASELINE else "bank"


def curve(result: Mapping[str, Any], split: str) -> tuple[list[int], list[float]]:
    """Steps and success with the bank in use."""
    lines = [
        line
        for line in result["evaluations"]
        if line["split"] == split and line["mode"] == mode_of(result)
    ]
    return [line["step"] for line in lines], [line["success"] for line in lines]


def final(result: Mapping[str, Any], split: str, mode: str | None = None) -> float:
    """Success at the end, over all games that were played for it."""
    mode = mode or mode_of(result)
    last = max(line["step"] for line in result["evaluations"])
    successes = episodes = 0.0
    for line in result["evaluations"]:
        if (line["step"], line["split"], line["mode"]) == (last, split, mode):
            successes += line["success"] * line["episodes"]
            episodes += line["episodes"]
    for line in result["final"]:
        if (line["split"], line["mode"]) == (split, mode):
            successes += line["successes"]
            episodes += line["episodes"]
    return successes / episodes


def step_seconds(result: Mapping[str, Any]) -> float:
    """Median seconds of a step: neither compilation nor a pause of the machine counts."""
    return float(np.median(result["metrics"]["seconds"][1:]))


def context_tokens(result: Mapping[str, Any]) -> float:
    """Tokens of an episode, on average over the run."""
    return float(np.mean(result["metrics"]["context_tokens"]))


def early(result: Mapping[str, Any], split: str) -> float:
    """Mean success in the first third of the steps."""
    steps, values = curve(result, split)
    return area(steps, values, until=steps[-1] / 3)


# --- over runs ------------------------------------------------------------------------------------


def over_seeds(
    runs: Mapping[int, Mapping[str, Any]], measure: Callable[[Mapping[str, Any]], float]
) -> dict[int, float]:
    """A figure of each run."""
    return {seed: measure(result) for seed, result in runs.items()}


def percent(value: Estimate | None, *, signed: bool = False) -> str:
    """A success rate (or difference) in per cent with its t interval."""
    if value is None:
        return "–"
    sign = "+" if signed else ""
    told = f"{100 * value.mean:{sign}.1f}"
    if value.runs < 2:
        return told
    return f"{told} [{100 * value.low:{sign}.1f}, {100 * value.high:{sign}.1f}]"


def bootstrap(value: Estimate | None) -> str:
    """The bootstrap interval of a difference, in per cent."""
    if value is None or value.runs < 2:
        return "–"
    return f"[{100 * value.bootstrap_low:+.1f}, {100 * value.bootstrap_high:+.1f}]"


def ratio(one: Mapping[int, float], other: Mapping[int, float]) -> str:
    """Mean of the ratios over common seeds."""
    seeds = sorted(set(one) & set(other))
    return f"{np.mean([one[s] / other[s] for s in seeds]):.2f}" if seeds else "–"


def mean_curve(
    runs: Mapping[int, Mapping[str, Any]], split: str
) -> tuple[list[int], list[Estimate]]:
    """Success over steps, over all runs of a condition."""
    curves = [dict(zip(*curve(result, split), strict=True)) for result in runs.values()]
    steps = sorted(set.intersection(*(set(one) for one in curves)))
    return steps, [estimate([one[step] for one in curves]) for step in steps]


def provenance(results: Sequence[Mapping[str, Any]]) -> str:
    """What the results were made with, in a line."""
    seeds = sorted({one["seed"] for one in results})
    hours = sum(one["seconds"] for one in results) / 3600
    config = results[0]["identity"]["config"]
    told = [
        f"{len(results)} runs",
        f"seeds {', '.join(map(str, seeds))}",
        f"{config['steps']} steps of {config['groups']} x {config['group_size']} rollouts",
        f"{results[0]['identity']['final_games']} games per split at the end",
        f"{hours:.1f} hours of single workers",
        "; ".join(sorted({one["machine"] for one in results})),
        "version " + ", ".join(sorted({one["version"] for one in results})),
    ]
    return ", ".join(told) + "."


def main_tables(results: Results) -> str:
    """Success, differences to GRPO, and costs, of every condition."""
    base = results.get(BASELINE, {})
    goal = float(np.mean([final(one, "unseen") for one in base.values()])) if base else None
    rows, differences = [], []
    for condition, runs in results.items():
        steps, means = mean_curve(runs, "unseen")
        reached = "–"
        if goal is not None:
            at = steps_to(steps, [one.mean for one in means], goal)
            reached = "never" if at == float("inf") else f"{at:.0f}"
        rows.append(
            [
                NAMES[condition],
                str(len(runs)),
                *(
                    percent(estimate(list(over_seeds(runs, lambda r, s=s: final(r, s)).values())))
                    for s in SPLITS
                ),
                *(
                    f"{100 * np.mean([area(*curve(one, split)) for one in runs.values()]):.1f}"
                    for split in SPLITS
                ),
                reached,
                ratio(over_seeds(runs, context_tokens), over_seeds(base, context_tokens)),
                ratio(over_seeds(runs, step_seconds), over_seeds(base, step_seconds)),
            ]
        )
        if condition == BASELINE:
            continue
        against = {
            split: paired(
                over_seeds(runs, lambda r, s=split: final(r, s)),
                over_seeds(base, lambda r, s=split: final(r, s)),
            )
            for split in SPLITS
        }
        areas = paired(
            over_seeds(runs, lambda r: area(*curve(r, "unseen"))),
            over_seeds(base, lambda r: area(*curve(r, "unseen"))),
        )
        differences.append(
            [NAMES[condition], str(against["unseen"].runs if against["unseen"] else 0)]
            + [percent(against[s], signed=True) for s in SPLITS]
            + [bootstrap(against["unseen"]), percent(areas, signed=True)]
        )
    head = ["condition", "runs", "seen", "unseen", "seen, along training", "unseen, along training"]
    head += ["steps to GRPO's end", "context", "step time"]
    text = table(head, rows)
    if differences and base:
        head = ["less GRPO, paired", "pairs", "seen", "unseen", "unseen, bootstrap"]
        text += "\n\n" + table([*head, "unseen, along training"], differences)
    notes = (
        "Success in per cent with 95 % intervals over seeds (Student's t; the bootstrap's "
        "percentiles are too narrow for so few runs and stand beside). *Along training*: area "
        "under the curve, divided by its length. *Steps to GRPO's end*: where the mean unseen "
        "curve first reaches GRPO's final success. Context and step time relative to GRPO."
    )
    return f"{text}\n\n{notes}"


def by_task_type(results: Results) -> str:
    """Where the difference to GRPO comes from: unseen success at the end by kind of task."""
    base, method = results.get(BASELINE, {}), results.get(METHOD, {})
    seeds = sorted(set(base) & set(method))
    if not seeds:
        return ""

    def rates(result: Mapping[str, Any]) -> dict[str, float]:
        steps = [line["step"] for line in result["evaluations"]]
        return {
            kind: won / played
            for line in result["evaluations"]
            if (line["step"], line["split"], line["mode"])
            == (max(steps), "unseen", mode_of(result))
            for kind, (won, played) in line["by_task_type"].items()
            if played
        }

    ends = {seed: (rates(base[seed]), rates(method[seed])) for seed in seeds}
    rows = []
    for kind in ends[seeds[0]][0]:
        if not all(kind in one for pair in ends.values() for one in pair):
            continue  # too few games to have met it in every run
        grpo = {seed: ends[seed][0][kind] for seed in seeds}
        ours = {seed: ends[seed][1][kind] for seed in seeds}
        told = [percent(estimate(list(one.values()))) for one in (grpo, ours)]
        rows.append([kind.replace("_", " "), *told, percent(paired(ours, grpo), signed=True)])
    return table(["kind of task (unseen, at the end)", "GRPO", "ReSkill", "difference"], rows)


def forest(results: Results) -> dict[str, dict[str, Estimate]]:
    """Condition -> split -> paired difference to GRPO at the end."""
    base = results.get(BASELINE, {})
    found: dict[str, dict[str, Estimate]] = {}
    for condition, runs in results.items():
        for split in SPLITS:
            difference = paired(
                over_seeds(runs, lambda r, s=split: final(r, s)),
                over_seeds(base, lambda r, s=split: final(r, s)),
            )
            if condition != BASELINE and difference is not None:
                found.setdefault(NAMES[condition], {})[f"{split} tasks, at the end"] = difference
    return found


def _main(results: list[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    found = by_condition(results)
    shown = [c for c in (BASELINE, METHOD) if c in found]
    curves = {
        split: {NAMES[c]: mean_curve(found[c], split) for c in shown or list(found)}
        for split in SPLITS
    }
    names = [figures.learning_curves(curves, folder / "household_study_curves.svg")]
    differences = forest(found)
    if differences:
        names.append(figures.forest(differences, folder / "household_study_differences.svg"))
    return f"{main_tables(found)}\n\n{by_task_type(found)}", names


# --- versions -------------------------------------------------------------------------------------

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


def _versions(results: list[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
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


# --- frozen policy, map ---------------------------------------------------------------------------


def _group(results: Sequence[dict[str, Any]], *keys: str) -> dict[tuple[str, ...], list]:
    found: dict[tuple[str, ...], list] = {}
    for one in sorted(results, key=lambda result: _ROOMS.index(result["variant"]["world"])):
        found.setdefault(tuple(one["variant"][key] for key in keys), []).append(one)
    return dict(sorted(found.items(), key=lambda item: item[0][:-1]))  # stable: rooms by size


def _frozen(results: list[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    rows, curves = [], {}
    for (world,), runs in _group(results, "world").items():
        by_seed = {one["seed"]: one for one in runs}
        for split in SPLITS:
            with_skills = over_seeds(by_seed, lambda r, s=split: final(r, s, "bank"))
            without = over_seeds(by_seed, lambda r, s=split: final(r, s, "none"))
            rows.append(
                [
                    f"{world}, {split}",
                    str(len(runs)),
                    percent(estimate(list(without.values()))),
                    percent(estimate(list(with_skills.values()))),
                    percent(paired(with_skills, without), signed=True),
                ]
            )
            curves.setdefault(world, {})[split] = mean_curve(by_seed, split)
    head = ["rooms, split", "runs", "frozen policy", "with its skills", "difference"]
    text = table(head, rows)
    text += "\n\nThe weights never change; only the skills do. Success in per cent, with 95 % t "
    text += "intervals over seeds (they tell how runs differ; the games are the same in all)."
    return text, [figures.frozen(curves, folder / "household_study_frozen.svg")]


def _map(results: list[dict[str, Any]], folder: Path) -> tuple[str, list[str]]:
    rows: list[list[str]] = []
    found: dict[str, dict[str, Estimate]] = {}
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for one in results:
        by_cell.setdefault(one["variant"]["cell"], []).append(one)
    for cell in sorted(by_cell, key=lambda name: (name != "default", name)):
        runs = by_condition(by_cell[cell])
        base, method = runs.get(BASELINE, {}), runs.get(METHOD, {})
        start = [curve(one, "unseen")[1][0] for one in base.values()]
        end = [final(one, "unseen") for one in base.values()]
        row = [cell.replace("-", " ", 1)]
        row += [f"{100 * np.mean(values):.0f}" if values else "–" for values in (start, end)]
        for when, measure in (("early", early), ("end", final)):
            for split in SPLITS:
                difference = paired(
                    over_seeds(method, lambda r, m=measure, s=split: m(r, s)),
                    over_seeds(base, lambda r, m=measure, s=split: m(r, s)),
                )
                row.append(percent(difference, signed=True))
                if difference is not None and split == "unseen":
                    found.setdefault(row[0], {})[f"unseen, {when}"] = difference
        rows.append([*row, str(len(set(base) & set(method)))])
    head = ["what is changed", "start", "GRPO's end", "seen, early", "unseen, early"]
    text = table([*head, "seen, end", "unseen, end", "pairs"], rows)
    text += "\n\nReSkill less GRPO, paired over seeds, in points. *Start* and *GRPO's end*: its "
    text += "unseen success, per cent. *Early*: area under the first third of the curve."
    if not found:
        return text, []
    return text, [figures.forest(found, folder / "household_study_map.svg")]


_STUDIES = {"main": _main, "versions": _versions, "frozen": _frozen, "map": _map}


def write(study: str, results: Path, docs: Path) -> str:
    """Writes the figures and the section of docs/results.md; returns the tables.

    Args:
      study: its name.
      results: folder of all studies.
      docs: gets figures/ and results.md.
    """
    found = read(results / study)
    if not found:
        return f"no results in {results / study}"
    folder = docs / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    text, pictures = _STUDIES[study](found, folder)
    made = f"`python experiments/household_study.py --study {study}`: {provenance(found)}"
    shown = "\n\n".join(f"![{study}](figures/{name})" for name in pictures)
    write_section(docs / "results.md", f"household_study:{study}", f"{made}\n\n{text}\n\n{shown}")
    return f"{made}\n\n{text}"
