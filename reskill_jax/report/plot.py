"""A small SVG plot: axes, lines, bands, steps of a scale. No fonts or files from outside."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from reskill_jax.report.markup import Markup, join, tag

Point = tuple[float, float]
Span = tuple[float, float, str]  # from, to, tooltip

_SPAN_PITCH = 8  # of rows of spans


def ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers in [low, high]; only integers if `whole`."""
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    factors = (1, 2, 5, 10) if whole else (1, 2, 2.5, 5, 10)
    step = next(power * m for m in factors if power * m >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def number(value: float) -> str:
    """A short text for a figure: 0.25, 1,240, 3.1e-05."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:.3g}"


def percent(value: float) -> str:
    """A share as a percentage."""
    return f"{100 * value:.0f}\u00a0%"


def rows_of(spans: Sequence[Span], *, most: int = 6) -> list[int]:
    """The row of each span, so that none hides another, as far as `most` rows are enough.

    Args:
      spans: in the order of their beginnings.
      most: rows.
    """
    ends: list[float] = []  # of each row
    rows = []
    for start, end, _ in spans:
        row = next((row for row, taken in enumerate(ends) if taken <= start), len(ends))
        if row == most:
            row = ends.index(min(ends))
        elif row == len(ends):
            ends.append(end)
        ends[row] = max(end, ends[row])
        rows.append(row)
    return rows


def spans_height(spans: Sequence[Span]) -> int:
    """Room that bars along the top of a frame take."""
    return _SPAN_PITCH * (max(rows_of(spans), default=-1) + 1)


@dataclasses.dataclass
class Plot:
    """A frame with linear scales. Marks are added with the methods, `svg` closes it."""

    width: int
    height: int
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    label: str  # for screen readers
    y_percent: bool = False
    x_percent: bool = False
    x_name: str = "step"
    y_ticks: int = 4
    show_y: bool = True
    left: int = 44
    right: int = 14
    top: int = 12
    bottom: int = 34

    def __post_init__(self) -> None:
        """Widens empty ranges, so that a single point has a place."""
        self.x_range = _widened(self.x_range)
        self.y_range = _widened(self.y_range)
        self.marks: list[Markup] = []

    def x(self, value: float) -> float:
        """The place of a value on the x axis."""
        low, high = self.x_range
        inner = self.width - self.left - self.right
        return round(self.left + (value - low) / (high - low) * inner, 2)

    def y(self, value: float) -> float:
        """The place of a value on the y axis; values beyond the frame are held at its edge."""
        low, high = self.y_range
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return round(self.height - self.bottom - share * (self.height - self.top - self.bottom), 2)

    def line(self, points: Sequence[Point], class_: str) -> None:
        """A polyline; a single point becomes a dot."""
        if len(points) == 1:
            self.dots(points, class_, radius=3.0)
        elif points:
            self.marks.append(tag("path", d=self._path(points), class_=f"line {class_}"))

    def band(self, points: Sequence[tuple[float, float, float]], class_: str) -> None:
        """The area between (x, low) and (x, high)."""
        if len(points) == 1:
            x, low, high = points[0]
            self.marks.append(
                tag("path", d=self._path([(x, low), (x, high)]), class_=f"whisker {class_}")
            )
        elif points:
            around = [(x, high) for x, _, high in points]
            around += [(x, low) for x, low, _ in reversed(points)]
            self.marks.append(tag("path", d=self._path(around) + "Z", class_=f"band {class_}"))

    def dots(
        self,
        points: Sequence[Point],
        class_: str,
        *,
        radius: float = 2.5,
        titles: Sequence[str] | None = None,
    ) -> None:
        """Circles, with a tooltip each if titles are given."""
        for index, (x, y) in enumerate(points):
            title = tag("title", titles[index]) if titles else None
            self.marks.append(
                tag("circle", title, cx=self.x(x), cy=self.y(y), r=radius, class_=f"dot {class_}")
            )

    def squares(self, points: Sequence[Point], class_: str, *, titles: Sequence[str]) -> None:
        """Open squares with a tooltip each."""
        for (x, y), title in zip(points, titles, strict=True):
            self.marks.append(
                tag(
                    "rect",
                    tag("title", title),
                    x=self.x(x) - 4,
                    y=self.y(y) - 4,
                    width=8,
                    height=8,
                    class_=f"dot hollow {class_}",
                )
            )

    def spans(self, spans: Sequence[Span], class_: str) -> None:
        """Bars with a tooltip along the top of the frame, which must leave `spans_height` free."""
        for (start, end, title), row in zip(spans, rows_of(spans), strict=True):
            left, right = self.x(start), self.x(end)
            self.marks.append(
                tag(
                    "rect",
                    tag("title", title),
                    x=left,
                    y=1 + _SPAN_PITCH * row,
                    width=max(right - left, 1.5),
                    height=_SPAN_PITCH - 2,
                    rx=2,
                    class_=f"span {class_}",
                ),
            )

    def end_labels(self, labels: Sequence[tuple[float, float, str, str]]) -> None:
        """Texts right of the points (x, y, text, class), moved apart where they would overlap."""
        order = sorted(labels, key=lambda label: -label[1])
        heights = [self.y(y) + 4 for _, y, _, _ in order]
        for i in range(1, len(heights)):
            heights[i] = max(heights[i], heights[i - 1] + 13)
        limit = float(self.height - self.bottom + 4)
        for i in reversed(range(len(heights))):
            heights[i] = min(heights[i], limit)
            limit = heights[i] - 13
        for (x, _, text, class_), y in zip(order, heights, strict=True):
            self.marks.append(tag("text", text, x=self.x(x) + 6, y=y, class_=f"label {class_}"))

    def svg(self, class_: str = "") -> Markup:
        """The finished drawing."""
        return tag(
            "svg",
            self._axes(),
            *self.marks,
            viewBox=f"0 0 {self.width} {self.height}",
            role="img",
            aria_label=self.label,
            class_=f"plot {class_}".strip(),
        )

    def _path(self, points: Sequence[Point]) -> str:
        return "M" + "L".join(f"{self.x(x):g},{self.y(y):g}" for x, y in points)

    def _share(self, value: float) -> str:
        """A share on the y axis, with decimals where all of them are small."""
        return percent(value) if self.y_range[1] >= 0.08 else f"{number(100 * value)}\u00a0%"

    def _x_ticks(self) -> list[float]:
        # There is no step 7.5.
        return ticks(*self.x_range, max(3, self.width // 100), whole=self.x_name == "step")

    def _axes(self) -> Markup:
        bottom, parts = self.height - self.bottom, []
        for value in ticks(*self.y_range, self.y_ticks) if self.show_y else []:
            y = self.y(value)
            parts.append(
                tag("line", x1=self.left, x2=self.width - self.right, y1=y, y2=y, class_="grid")
            )
            text = self._share(value) if self.y_percent else number(value)
            parts.append(_text(text, self.left - 6, y + 4, "end"))
        for value in self._x_ticks():
            text = percent(value) if self.x_percent else number(value)
            # The outermost labels are kept inside the drawing.
            x = self.x(value)
            anchor = "end" if x > self.width - self.right - 8 else "middle"
            parts.append(_text(text, min(x, self.width - 2.0), bottom + 15, anchor))
        parts.append(
            tag("line", x1=self.left, x2=self.width - self.right, y1=bottom, y2=bottom,
                class_="axis")
        )  # fmt: skip
        middle = (self.left + self.width - self.right) / 2
        parts.append(_text(self.x_name, middle, self.height - 4, "middle"))
        return join(parts)


def _text(text: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", text, x=float(x), y=float(y), text_anchor=anchor)


def _widened(span: tuple[float, float]) -> tuple[float, float]:
    low, high = span
    largest = max(abs(low), abs(high))
    if high - low > max(1e-6 * largest, 1e-30):
        return low, high
    pad = 0.1 * largest if largest > 1e-30 else 0.5
    return low - pad, high + pad


def typical_range(values: Sequence[float]) -> tuple[float, float]:
    """The range of the values without those that would flatten all others.

    Left out is what lies further from the middle half of the values than 8 times its width.
    """
    if len(values) < 4:
        return min(values), max(values)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    reach = 8 * (high - low)
    if reach == 0:
        return min(values), max(values)
    kept = [value for value in values if low - reach <= value <= high + reach]
    return min(kept), max(kept)


def responsive(draw: Any, *, wide: tuple[int, int], narrow: tuple[int, int]) -> Markup:
    """The same drawing in two sizes; the style sheet shows the one that fits the screen."""
    return tag("div", draw(*wide).svg("wide"), draw(*narrow).svg("narrow"), class_="figure")
