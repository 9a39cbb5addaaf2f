"""What every page of a report is made of: the document, sections, tiles, writing the file."""

import os
from importlib import resources
from pathlib import Path
from typing import Any

from reskill_jax.report.markup import Markup, tag


def document(title: str, *children: Any, class_: str | None = None) -> str:
    """A self-contained page as text; the children are its body, `class_` is that of <main>."""
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
        tag("title", title),
        tag("style", Markup(style)),
    )
    body = tag("body", tag("main", *children, class_=class_))
    return f'<!doctype html>\n<html lang="en">{head}{body}</html>\n'


def write_page(target: Path, text: str) -> None:
    """Writes a page whole or not at all."""
    partial = target.with_name(target.name + ".partial")
    # A log may hold half of a surrogate pair, which is no text in UTF-8.
    partial.write_text(text, encoding="utf-8", errors="replace")
    os.replace(partial, target)


def section(title: str, *children: Any) -> Markup:
    """A part of the page with its heading."""
    return tag("section", tag("h2", title), *children)


def tile(name: str, value: str, more: str) -> Markup:
    """One figure in large type."""
    return tag(
        "div",
        tag("div", name, class_="name"),
        tag("div", value, class_="value"),
        tag("div", more, class_="more"),
        class_="tile",
    )


def titled(title: str, plot: Markup | None) -> Markup | None:
    """A plot in a card under a heading; None stays None."""
    return plot and tag("div", tag("h3", title), plot, class_="card")


def stacked_table(heads: Any, rows: Any, *, class_: str = "stack") -> Markup:
    """A table whose rows become blocks on a narrow screen.

    Args:
      heads: texts of the header.
      rows: sequences of cells, each a value or (value, class).
      class_: of the table.
    """
    lines = []
    for row in rows:
        cells = []
        for index, (head, cell) in enumerate(zip(heads, row, strict=True)):
            value, kind = cell if isinstance(cell, tuple) else (cell, None)
            name, scope = ("th", "row") if index == 0 else ("td", None)
            inner = tag("div", value, data_name=head if scope else None)
            cells.append(tag(name, inner, class_=kind, data_label=head, scope=scope))
        lines.append(tag("tr", *cells))
    head = tag("thead", tag("tr", *[tag("th", name, scope="col") for name in heads]))
    return tag("table", head, tag("tbody", *lines), class_=class_)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
