"""Curves of several conditions in one frame, and their last values side by side.

A condition is told by its letter and its dashes as well as by its colour.
"""

from collections.abc import Sequence

from reskill_jax.report.conditions import Condition, Estimate
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.plot import Plot, number, percent, responsive, ticks, typical_range

TONES, DASHES = 8, 4
_BANDS = 4  # conditions; with more, bands hide each other

Curve = Sequence[tuple[int, Estimate]]


def tone(condition: Condition) -> str:
    """Colour and dashes of a condition, as classes."""
    return f"c{condition.index % TONES} d{condition.index % DASHES}"


def key(condition: Condition) -> Markup:
    """A piece of the condition's line with its letter."""
    line = tag("path", d="M1,6L27,6", class_=f"line {tone(condition)}")
    sample = tag("svg", line, viewBox="0 0 28 12", class_="sample", aria_hidden="true")
    letter = tag("b", condition.letter, class_=f"letter c{condition.index % TONES}")
    return join(sample, letter)


def conditions_legend(conditions: Sequence[Condition]) -> Markup:
    """Which line is which condition."""
    names = []
    for condition in conditions:
        count = f" ({len(condition.runs)} runs)" if len(condition.runs) > 1 else ""
        names.append(tag("span", key(condition), condition.name, count, class_="key"))
    return tag("div", *names, class_="legend")


def overlay_chart(
    conditions: Sequence[Condition],
    curves: Sequence[Curve],
    label: str,
    *,
    share: bool = True,
    points: bool = True,
    low: float = 0.0,
) -> Markup | None:
    """One curve per condition with its band.

    Args:
      conditions: of the curves.
      curves: (step, estimate) of each condition; may be empty.
      label: for screen readers.
      share: values are shares of 1.
      points: mark each step.
      low: smallest value of the axis.
    """
    drawn = [(c, curve) for c, curve in zip(conditions, curves, strict=True) if curve]
    if not drawn:
        return None
    last = max(1, *(step for _, curve in drawn for step, _ in curve))
    bands = len(drawn) <= _BANDS
    values = [e.value for _, curve in drawn for _, e in curve]
    if bands and share:
        values += [e.high for _, curve in drawn for _, e in curve if e.high is not None]
    if share:
        top = next(t for t in (0.05, *(n / 10 for n in range(1, 11))) if t >= min(max(values), 1.0))
    else:
        # One slow step must not flatten everything else.
        top = max(1.15 * typical_range(values)[1], low)

    def draw(width: int, height: int) -> Plot:
        plot = Plot(
            width, height, (0, last), (low, top), label, y_percent=share, right=24, left=46,
            y_ticks=4 if height > 200 else 3,
        )  # fmt: skip
        for condition, curve in drawn if bands else []:
            band = [
                (s, e.low, e.high) for s, e in curve if e.low is not None and e.high is not None
            ]
            plot.band(band, tone(condition))
        for condition, curve in drawn:
            where = [(float(step), e.value) for step, e in curve]
            plot.line(where, tone(condition))
            if points:
                titles = [f"{condition.label}, step {s}: {estimate_text(e)}" for s, e in curve]
                plot.dots(where, tone(condition), titles=titles if share else None)
        plot.end_labels(
            [(c[-1][0], c[-1][1].value, k.letter, f"c{k.index % TONES}") for k, c in drawn]
        )
        return plot

    return responsive(draw, wide=(420, 250), narrow=(350, 230))


def estimate_text(estimate: Estimate | None) -> str:
    """A share with its interval: 43 % (37–49 %)."""
    if estimate is None:
        return "–"
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value)
    return f"{percent(estimate.value)} ({100 * estimate.low:.0f}–{percent(estimate.high)})"


def estimate_cell(estimate: Estimate | None) -> Markup | str:
    """The same for a narrow cell: the interval below."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return estimate_text(estimate)
    interval = f"{100 * estimate.low:.0f}–{percent(estimate.high)}"
    return join(percent(estimate.value), tag("div", interval, class_="soft nowrap"))


def gain_text(estimate: Estimate) -> str:
    """A difference of shares in points: +6 (−2 to +14)."""

    def signed(value: float) -> str:
        value = round(100 * value)
        return f"{'−' if value < 0 else '+' if value > 0 else '±'}{abs(value)}"

    if estimate.low is None or estimate.high is None:
        return signed(estimate.value)
    return f"{signed(estimate.value)} ({signed(estimate.low)} to {signed(estimate.high)})"


def forest(conditions: Sequence[Condition], estimates: Sequence[Estimate | None]) -> Markup | None:
    """Value and interval of each condition on one scale. Plain boxes, so that the text wraps."""
    drawn = [(c, e) for c, e in zip(conditions, estimates, strict=True) if e is not None]
    if not drawn:
        return None
    top = max(e.high if e.high is not None else e.value for _, e in drawn)
    top = min(1.0, next(n / 10 for n in range(1, 12) if n / 10 >= top - 1e-9))
    rows = []
    for condition, e in drawn:
        low, high = (e.value if x is None else x for x in (e.low, e.high))
        place = f"left:{100 * low / top:.2f}%;width:{100 * (high - low) / top:.2f}%"
        colour = f"c{condition.index % TONES}"
        name = tag("b", condition.letter, class_=f"letter {colour}")
        marks = [
            tag("span", class_=f"interval {colour}", style=place),
            tag("span", class_=f"point {colour}", style=f"left:{100 * e.value / top:.2f}%"),
        ]
        words = [tag("div", name, condition.name), tag("div", estimate_text(e), class_="nowrap")]
        rows.append(tag("div", *words, tag("div", *marks, class_="track"), class_="row"))
    scale = [
        tag("span", percent(value), style=f"left:{100 * value / top:.2f}%")
        for value in ticks(0, top, 4)
    ]
    foot = tag("div", tag("div", *scale, class_="scale"), class_="row foot")
    return tag("div", *rows, foot, class_="forest")


def ratio_text(value: float, base: float | None) -> str:
    """A figure and how it relates to that of the first condition."""
    return number(value) + (f" ({value / base:.2f} ×)" if base else "")
