"""The plan of the house: imports run downward only, no module reaches into another's own, and the
household is a world like any other."""

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "reskill_jax"
# Every room may import from those before it.
ROOMS = (
    *("core", "algorithms", "skills", "devices", "models", "network", "worlds", "storage"),
    *("creators", "rollouts"),
    *("training", "agents", "evaluation", "report", "cli"),
)
FILES = sorted(PACKAGE.rglob("*.py"))
HOUSEHOLD = "reskill_jax.worlds.household"
# Who may know it: worlds by name, and the same games in other engines. Presets know its settings,
# which are in worlds/settings.py.
KNOW_THE_HOUSEHOLD = {
    *("worlds/registry.py", "worlds/alfworld_games.py"),
    *("worlds/playing.py", "worlds/text_games.py"),
}


@functools.cache
def imports(file: Path) -> tuple[tuple[str, str], ...]:
    """(module, name) of everything of ours that a file imports; name "" = the module itself."""
    return tuple(_imports(file))


def _imports(file: Path) -> Iterator[tuple[str, str]]:
    package = ("reskill_jax", *file.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((module, alias.name) for alias in node.names)


def room_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "reskill_jax" and len(parts) > 1 else None


def test_every_room_has_its_place():
    found = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    assert found == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_run_downward(file):
    own = file.relative_to(PACKAGE).parts[0]
    if own not in ROOMS:  # the package itself: it offers the core, and the command
        return
    below = ROOMS[: ROOMS.index(own) + 1]
    for module, name in imports(file):
        room = room_of(module if module != "reskill_jax" else f"{module}.{name}")
        if room in ROOMS:
            assert room in below, f"{own} imports {module}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_no_private_name_of_another_module(file):
    ours = [(module, name) for module, name in imports(file) if module.startswith("reskill_jax")]
    private = [f"{module}.{name}" for module, name in ours if name.startswith("_")]
    assert [name for name in private if not name.endswith("__")] == []


def of_the_household(found: Iterable[tuple[str, str]]) -> list[str]:
    """Those of imports that are of the household."""
    names = [f"{module}.{name}" for module, name in found]
    return [name for name in names if f"{name}.".startswith(f"{HOUSEHOLD}.")]


def test_the_household_is_a_world_like_any_other():
    know = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        if file.parent != PACKAGE / "worlds" / "household" and of_the_household(imports(file))
    }
    assert know == KNOW_THE_HOUSEHOLD


def test_what_is_of_the_household():
    found = [
        (HOUSEHOLD, ""),
        ("reskill_jax.worlds", "household"),
        (f"{HOUSEHOLD}.engine", "won"),
        (f"{HOUSEHOLD}_text", "TextGame"),
        ("reskill_jax.worlds.settings", "RoomSpec"),
    ]
    assert len(of_the_household(found)) == 3


def test_what_is_found(tmp_path):
    source = "import reskill_jax.core.arms\nfrom . import a\nfrom ..core.b import c as d\n"
    file = PACKAGE / "skills" / "made_up.py"

    class Source(type(file)):
        def read_text(self, encoding=None):
            return source

    assert list(imports(Source(file))) == [
        ("reskill_jax.core.arms", ""),
        ("reskill_jax.skills", "a"),
        ("reskill_jax.core.b", "c"),
    ]
    assert room_of("reskill_jax.core.arms") == "core" and room_of("numpy.core") is None
