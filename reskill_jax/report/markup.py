"""HTML and SVG as nested calls; every text is escaped unless it is Markup already."""

import html
from typing import Any


class Markup(str):
    """Text that is markup and is not escaped again."""

    __slots__ = ()


def escape(value: Any) -> Markup:
    """A value as text in a page; Markup stays what it is."""
    return value if isinstance(value, Markup) else Markup(html.escape(str(value), quote=True))


def join(*children: Any) -> Markup:
    """Concatenates; None and False are left out, lists and tuples are flattened."""
    parts = []
    for child in children:
        if child is None or child is False:
            continue
        parts.append(join(*child) if isinstance(child, (list, tuple)) else escape(child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Any, **attributes: Any) -> Markup:
    """One element. `class_` means class, other underscores become hyphens, None leaves it out."""
    text = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    content = join(*children)
    if not content and name in _VOID:
        return Markup(f"<{name}{text}>")
    return Markup(f"<{name}{text}>{content}</{name}>")


_VOID = frozenset({"meta", "br", "hr", "link"})


def _short(value: Any) -> Any:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
