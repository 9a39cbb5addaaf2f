"""The YAML front matter of a Markdown file, read as nothing but texts, lists and mappings.

Every scalar is a text (`version: 1.0` is "1.0", `name: yes` is "yes"), so that nothing is lost to
YAML's guesses. No tags, no merge keys, no duplicate keys; aliases are followed as long as what they
stand for stays small.
"""

from typing import Any

import yaml

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16
MAX_NODES = 10_000  # with every alias written out
_QUOTED = 160  # characters of a parser's complaint that are worth repeating


class FrontMatterError(ValueError):
    """Front matter that cannot be read, with the reason in one line."""


class _Loader(yaml.SafeLoader):
    """A safe loader that counts what it is asked to build."""

    def __init__(self, source: str) -> None:
        super().__init__(source)
        self.depth = 0
        self.nodes = 0
        self.sizes: dict[int, int] = {}  # id of a node that is complete -> nodes in it

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self.sizes:
                raise FrontMatterError("the front matter has an alias that holds itself")
            self._count(self.sizes[id(node)])
            return node
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise FrontMatterError("the front matter is nested too deeply")
        before = self.nodes
        self._count(1)
        node = super().compose_node(parent, index)
        self.sizes[id(node)] = self.nodes - before
        self.depth -= 1
        return node

    def _count(self, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise FrontMatterError(f"the front matter holds more than {MAX_NODES} things")

    def flatten_mapping(self, node: Any) -> None:
        """Nothing: merge keys multiply what is there, and no skill needs them."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise FrontMatterError(f"the front matter gives {key.value[:60]!r} twice")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}  # `2024-01-01` and `no` are texts to their authors
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (*(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")), None)
}


def split_front_matter(text: str) -> tuple[dict[str, Any], list[str]]:
    """Splits a Markdown text into its front matter and the lines behind it.

    Args:
      text: begins with a line `---`; its lines end in "\\n".

    Returns:
      (front, lines): a mapping of texts to texts, lists and mappings; the lines of the body.

    Raises:
      FrontMatterError: there is none, it is not closed, not YAML, or more than it should be.
    """
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise FrontMatterError("it does not begin with '---' and YAML front matter")
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise FrontMatterError("the front matter has no closing '---'")
    source = "\n".join(lines[1:end])
    if len(source.encode("utf-8", "replace")) > MAX_BYTES:
        raise FrontMatterError(f"the front matter is larger than {MAX_BYTES} bytes")
    try:
        front = yaml.load(source, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FrontMatterError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise FrontMatterError(f"the front matter is not valid YAML: {_reason(error)}") from None
    if not isinstance(front, dict):
        raise FrontMatterError("the front matter is not a mapping")
    return front, lines[end + 1 :]


def quoted(text: str) -> str:
    """A text as a YAML scalar in double quotes, in one line, which every reader takes for a text.

    Some readers look for the end of the front matter before they know of quotes: three hyphens in a
    row are escaped.
    """
    told: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=1 << 20)
    return (told.replace("--", "-\\x2D") if "---" in told else told).rstrip("\n")


def _reason(error: Exception) -> str:
    """What is wrong and in which line of the file, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    told = " ".join("".join(c if c.isprintable() else " " for c in problem).split())[:_QUOTED]
    return told if mark is None else f"line {mark.line + 2}: {told}"
