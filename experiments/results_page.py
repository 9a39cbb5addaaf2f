"""Tables that scripts make, inside pages that people write: text between two marker comments."""

from pathlib import Path

_TITLE = "# Results\n"


def write_section(page: Path, name: str, text: str) -> None:
    """Replaces what stands between `<!-- name -->` and `<!-- end -->`, else appends it.

    Everything outside the markers stays as it is. The page is made when missing.

    Raises:
      ValueError: the opening marker has no end.
    """
    opening, end = f"<!-- {name} -->", "<!-- end -->"
    old = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    section = f"{opening}\n{text.strip()}\n{end}"
    before, found, rest = old.partition(opening)
    if found:
        _, closed, after = rest.partition(end)
        if not closed:
            raise ValueError(f"{page}: {opening} without {end}")
        new = before + section + after
    else:
        new = f"{old.rstrip()}\n\n{section}\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(new, encoding="utf-8")


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
