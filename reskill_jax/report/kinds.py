"""Success by kind of task: where the policy and the skills got better, and where not."""

from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.report.charts import SPLITS, legend
from reskill_jax.report.document import section, titled
from reskill_jax.report.markup import Markup, tag
from reskill_jax.report.plot import percent
from reskill_jax.report.reading import Run
from reskill_jax.storage.intervals import wilson_interval

Counts = Mapping[str, Sequence[int]]  # kind of task -> [successes, episodes]


def kinds_section(run: Run) -> Markup | None:
    """The first and the last evaluation of each split, by kind of task; None if no log tells."""
    cards = [titled(f"{split.capitalize()} tasks", _rows(run, split)) for split in SPLITS]
    if not any(cards):
        return None
    names = [("start", "first evaluation"), ("point", "last, with its 95 % interval")]
    if any(_without(run, split) for split in SPLITS):
        names.append(("square", "last, without skills"))
    return section("Success by kind of task", legend(names), tag("div", *cards, class_="pair"))


def _without(run: Run, split: str) -> Counts:
    """The last evaluation without skills, if the run has any."""
    return {} if run.plain else _counts(run.evaluations(split, "none")[-1:])


def _counts(lines: Sequence[Mapping[str, Any]]) -> Counts:
    return (lines[0].get("by_task_type") or {}) if lines else {}


def _rows(run: Run, split: str) -> Markup | None:
    points = run.evaluations(split)
    first, last, without = _counts(points[:1]), _counts(points[-1:]), _without(run, split)
    rows = [
        _row(kind, first.get(kind) if len(points) > 1 else None, last[kind], without.get(kind))
        for kind in sorted(last)
        if last[kind][1]
    ]
    if not rows:
        return None
    scale = [tag("span", percent(x), style=f"left:{100 * x:.0f}%") for x in (0, 0.25, 0.5, 0.75, 1)]
    foot = tag("div", tag("div", *scale, class_="scale"), class_="row foot")
    return tag("div", *rows, foot, class_=f"forest kinds {split}")


def _row(
    kind: str, first: Sequence[int] | None, last: Sequence[int], without: Sequence[int] | None
) -> Markup:
    rate = last[0] / last[1]
    low, high = wilson_interval(*last)
    marks = [
        tag(
            "span",
            class_="interval",
            style=f"left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%",
        )
    ]
    text = f"{percent(rate)} of {last[1]}"
    title = f"last: {last[0]} of {last[1]}"
    for name, class_, counts in (("first", "start", first), ("without skills", "square", without)):
        if counts and counts[1]:
            share = counts[0] / counts[1]
            marks.append(tag("span", class_=class_, style=f"left:{100 * share:.2f}%"))
            title += f"; {name}: {counts[0]} of {counts[1]}"
            if class_ == "start":
                text = f"{percent(share)} → {text}"
    marks.append(tag("span", class_="point", style=f"left:{100 * rate:.2f}%"))
    words = [tag("div", kind.replace("_", " ")), tag("div", text, class_="nowrap")]
    return tag("div", *words, tag("div", *marks, class_="track"), class_="row", title=title)
