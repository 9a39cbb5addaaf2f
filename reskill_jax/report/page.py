"""The report: one self-contained HTML page about one run."""

import os
import statistics
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from reskill_jax.report import charts
from reskill_jax.report.history import skill_rows, timeline, trial_card, trial_table
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.plot import number, percent
from reskill_jax.report.reading import Run, read_run
from reskill_jax.skills.skillmd import SkillFileError, import_skill


def write_report(
    run_folder: str | os.PathLike[str], output: str | os.PathLike[str] | None = None
) -> tuple[Path, list[str]]:
    """Writes the page of a run.

    Args:
      run_folder: `runs/<name>/`, of a run that may be empty, interrupted or still going on.
      output: the file to write; default `<run_folder>/report.html`.

    Returns:
      (the file, what could not be read: one line "file line n: reason" each).

    Raises:
      ReportError: the folder is no run.
      OSError: the page cannot be written.
    """
    run = read_run(run_folder)
    target = Path(output) if output is not None else run.path / "report.html"
    partial = target.with_name(target.name + ".partial")
    partial.write_text(page(run), encoding="utf-8")
    os.replace(partial, target)
    return target, run.problems


def page(run: Run) -> str:
    """The page as text."""
    style = resources.files("reskill_jax.report").joinpath("style.css").read_text("utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # The page needs nothing from outside, and may not ask for it.
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        tag("title", f"{run.name} – training report"),
        tag("style", Markup(style)),
    )
    body = tag(
        "body",
        tag(
            "main",
            _header(run),
            _notices(run),
            _tiles(run),
            _success(run),
            _timeline(run),
            _skills(run),
            _trials(run),
            _cost(run),
            _optimization(run),
            _details(run),
        ),
    )
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


# --- top ----------------------------------------------------------------------------------------


def _header(run: Run) -> Markup:
    planned = run.planned_steps
    steps = f"{run.last_step} of {planned} steps" if planned else f"{run.last_step} steps"
    if run.metrics:
        steps += f", {_duration(_total_seconds(run))} of training steps"
    return join(tag("h1", run.name), tag("p", steps, class_="soft"))


def _notices(run: Run) -> Markup:
    out = []
    planned = run.planned_steps
    if not run.metrics and not run.evals:
        out.append(tag("p", "This run has logged nothing yet.", class_="notice"))
    elif planned and run.last_step < planned:
        text = f"The run was interrupted or is still going on: step {run.last_step} of {planned}."
        out.append(tag("p", text, class_="notice"))
    if run.problems:
        shown = [tag("li", problem) for problem in run.problems[:20]]
        if len(run.problems) > 20:
            shown.append(tag("li", f"and {len(run.problems) - 20} more"))
        text = "Some lines of the logs could not be read and are left out:"
        out.append(tag("div", text, tag("ul", *shown), class_="notice"))
    return join(out)


def _tiles(run: Run) -> Markup:
    tiles = [_success_tile(run, split) for split in ("unseen", "seen")]
    if run.lifecycle:
        removed = run.count("pruned", "retired")
        tiles.append(
            _tile(
                "Skill versions tested",
                str(run.count("accepted", "rejected", "pruned", "retired", "kept")),
                f"{run.count('accepted')} accepted, {run.count('rejected', 'kept')} rejected, "
                f"{removed} pruned or retired",
            )
        )
    seconds = [m["seconds"] for m in run.metrics if m.get("seconds") is not None]
    if seconds:
        tiles.append(
            _tile(
                "Time per step",
                f"{number(statistics.median(seconds))} s",
                f"median; {_duration(sum(seconds))} in all",
            )
        )
    return tag("div", *tiles, class_="tiles")


def _success_tile(run: Run, split: str) -> Markup | None:
    points = run.evaluations(split)
    if not points:
        return None
    first, last = points[0], points[-1]

    def span(line: dict[str, Any]) -> str:
        low, high = line["interval"]
        return f"{100 * low:.0f}–{percent(high)}"

    name = f"Success on {split} tasks"
    if first is last:
        return _tile(name, percent(first["success"]), f"{span(first)} (95 %)")
    apart = last["interval"][0] > first["interval"][1] or last["interval"][1] < first["interval"][0]
    return _tile(
        name,
        f"{percent(first['success'])} → {percent(last['success'])}",
        f"{span(first)} → {span(last)}; the 95\u00a0% intervals "
        + ("do not overlap" if apart else "overlap"),
    )


def _tile(name: str, value: str, more: str) -> Markup:
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, class_="value"),
        tag("div", more, class_="more"),
        class_="tile",
    )


# --- sections -----------------------------------------------------------------------------------


def _success(run: Run) -> Markup | None:
    if not run.metrics and not run.evals:
        return None
    note = (
        "Evaluations play the bank in use, each task once; the bands are Wilson intervals (95 %). "
        "Training rollouts mix the bank in use with the candidate under test."
    )
    return _section(
        "Success",
        tag("div", charts.success_chart(run), class_="card"),
        tag("p", note, class_="soft"),
    )


def _timeline(run: Run) -> Markup | None:
    rows = skill_rows(run)
    if not rows:
        return _section("Skills over time", tag("p", "No skill has been proposed.", class_="soft"))
    return _section("Skills over time", tag("div", timeline(run, rows), class_="card"))


def _skills(run: Run) -> Markup | None:
    known = {life.name: life for life in run.lives if life.end is None}
    files = {path.parent.name: path for path in sorted(run.path.glob("skills/*/SKILL.md"))}
    cards = []
    for name in [*known, *(name for name in files if name not in known)]:
        life = known.get(name)
        if life is not None and life.skill:
            since = f"in the bank since step {life.start}"
            cards.append(_skill_card(life.skill, name, since))
        elif name in files:
            cards.append(_file_card(files[name], name))
    if not cards:
        return _section("Skills at the end", tag("p", "The bank is empty.", class_="soft"))
    return _section("Skills at the end", tag("div", *cards, class_="cards"))


def _file_card(path: Path, name: str) -> Markup:
    """A skill the lifecycle log does not tell about: it was in the bank from the start."""
    try:
        return _skill_card(import_skill(path.parent).to_dict(), name, "in the bank from the start")
    except SkillFileError:
        text = path.read_text(encoding="utf-8", errors="replace")
        return tag("div", tag("h3", name), tag("pre", text), class_="card")


def _skill_card(skill: dict[str, Any], name: str, since: str) -> Markup:
    trigger = skill.get("trigger")
    trigger = trigger if isinstance(trigger, dict) else {}
    pattern = trigger.get("pattern")
    examples = skill.get("examples")
    examples = examples if isinstance(examples, list) else []
    return tag(
        "div",
        tag("h3", skill.get("name") or name),
        tag("p", skill.get("when_to_use") or "", class_="soft"),
        tag("div", skill.get("action") or "", class_="says"),
        tag(
            "dl",
            tag("dt", "shown"),
            tag(
                "dd",
                _trigger_text(str(trigger.get("kind"))),
                pattern and [" ", tag("code", pattern)],
            ),
            *[
                join(tag("dt", word), tag("dd", text))
                for word, text in zip(("do", "don’t"), examples, strict=False)
            ],
        ),
        tag("p", since, class_="soft"),
        class_="card",
    )


def _trigger_text(kind: str) -> str:
    return {
        "general": "every turn",
        "beginning": "at the beginning",
        "action_pattern": "after an action like",
        "observation_pattern": "when it reads",
    }.get(kind, kind)


def _trials(run: Run) -> Markup | None:
    if not run.trials:
        return None
    few = len(run.trials) <= 6
    cards = [
        trial_card(trial, unfolded=few or trial.decision not in ("rejected", "kept"))
        for trial in run.trials
    ]
    note = (
        "Every rollout group plays both versions. A version is accepted when its posterior mean is "
        "above that of the bank in use. Left: the posterior means with 95 % intervals by step; "
        "right: the posteriors at the end."
    )
    return _section(
        "Trials",
        tag("div", trial_table(run.trials), class_="card"),
        tag("p", note, class_="soft"),
        *cards,
    )


def _cost(run: Run) -> Markup | None:
    if not run.metrics:
        return None

    def mean(key: str, lines: list[dict[str, Any]]) -> float | None:
        values = [m[key] for m in lines if m.get(key) is not None]
        return statistics.fmean(values) if values else None

    def median_seconds(in_trial: bool) -> float | None:
        lines = [m for m in run.metrics if (m.get("trial") is not None) == in_trial]
        values = [m["seconds"] for m in lines if m.get("seconds") is not None]
        return statistics.median(values) if values else None

    context, skills = mean("context_tokens", run.metrics), mean("skill_tokens", run.metrics)
    rows = [
        ("Seconds per step, no trial (median)", median_seconds(False)),
        ("Seconds per step, trial under way (median)", median_seconds(True)),
        ("Tokens in an episode’s context (mean)", context),
        ("of these from skills (mean)", skills),
        ("Turns per episode (mean)", mean("turns", run.metrics)),
        ("Share of episodes cut off (mean)", mean("truncated", run.metrics)),
    ]
    body = [
        tag("tr", tag("td", name), tag("td", number(value), class_="nowrap"))
        for name, value in rows
        if value is not None
    ]
    if context and skills is not None and context > skills:
        ratio = context / (context - skills)
        body.append(
            tag(
                "tr", tag("td", "Context length relative to no skills"), tag("td", f"{ratio:.2f} ×")
            )
        )
    plots = [
        _titled(
            "Seconds per step", charts.series_chart(run, {"seconds": "seen"}, "Seconds per step")
        ),
        _titled(
            "Context tokens, and those from skills",
            charts.series_chart(
                run,
                {"context_tokens": "training", "skill_tokens": "arm1"},
                "Tokens in the context of an episode, and tokens of skills",
            ),
        ),
    ]
    return _section(
        "Cost",
        tag("div", tag("table", tag("tbody", *body)), class_="card") if body else None,
        tag("div", *plots, class_="pair"),
    )


def _optimization(run: Run) -> Markup | None:
    names = {
        "loss": "Loss",
        "kl": "KL to the reference policy",
        "entropy": "Entropy",
        "grad_norm": "Gradient norm",
        "turns": "Turns per episode",
    }
    plots = [
        _titled(title, charts.series_chart(run, {key: "seen"}, title))
        for key, title in names.items()
    ]
    if not any(plots):
        return None
    return _section("Optimization", tag("div", *plots, class_="pair"))


def _titled(title: str, plot: Markup | None) -> Markup | None:
    return plot and tag("div", tag("h3", title), plot, class_="card")


def _details(run: Run) -> Markup:
    config = [
        tag("tr", tag("td", tag("code", key)), tag("td", tag("code", value)))
        for key, value in _flat(run.config)
    ]
    log = [
        tag("li", tag("code", f"{line['step']:>4}"), f" {line['event']} {_names(line)}")
        for line in run.lifecycle
    ]
    return _section(
        "Details",
        tag("details", tag("summary", "Configuration"), tag("table", tag("tbody", *config))),
        tag("details", tag("summary", "All lifecycle events"), tag("ul", *log, class_="plain")),
    )


def _names(line: dict[str, Any]) -> str:
    names = ", ".join(f"{o['operation']} {o['name']}" for o in line["operations"])
    return ": ".join(str(part) for part in (names, line.get("reason")) if part)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key))
    else:
        yield name, str(value)


def _section(title: str, *children: Any) -> Markup:
    return tag("section", tag("h2", title), *children)


def _total_seconds(run: Run) -> float:
    return sum(m["seconds"] for m in run.metrics if m.get("seconds") is not None)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
