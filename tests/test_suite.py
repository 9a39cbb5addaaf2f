"""The quick selection of `make test`: it leaves no room out, and CI runs everything."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
ROOT = TESTS.parent


def rooms():
    """Name of a room -> its test files; a file at the top is a room of its own."""
    found = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        parts = file.relative_to(TESTS).parts
        found.setdefault(parts[0].removesuffix(".py"), []).append(file)
    return found


def is_slow(nodes):
    """Whether decorators, or the value of `pytestmark`, hold the marker."""
    return any(
        isinstance(inner, ast.Attribute) and inner.attr == "slow"
        for node in nodes
        for inner in ast.walk(node)
    )


def functions_of(source):
    """(tests that are quick, tests that are slow): names of functions that assert something."""
    tree = ast.parse(source)
    marks = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and "pytestmark" in map(ast.unparse, node.targets)
    ]
    quick, slow = [], []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marked = is_slow([*marks, *node.decorator_list])
            (slow if marked else quick).append(node.name)
    return quick, slow


@pytest.mark.parametrize("room", rooms())
def test_every_room_is_in_the_quick_selection(room):
    counts = [[len(names) for names in functions_of(file.read_text())] for file in rooms()[room]]
    quick, slow = map(sum, zip(*counts, strict=True))
    assert quick >= max(1, slow), f"{room}: {quick} quick tests beside {slow} slow ones"


def test_the_rooms_are_all_there():
    folders = {"core", "skills", "creators", "models", "worlds", "rollouts", "training", "report"}
    folders |= {"devices", "storage", "evaluation", "experiments", "docs", "notebooks"}
    assert folders | {"test_cli", "test_readme"} <= set(rooms())


def test_slow_tests_are_told_from_quick_ones():
    source = """
import pytest
@pytest.mark.parametrize("x", [1])
@pytest.mark.slow
def test_one(x): ...
def test_two(): ...
def helper(): ...
"""
    assert functions_of(source) == (["test_two"], ["test_one"])
    everything = source + "pytestmark = [pytest.mark.slow]"
    assert functions_of(everything) == ([], ["test_one", "test_two"])


def test_make_and_ci_select_what_they_promise():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = dict(re.findall(r"^(test\S*):.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE))
    assert "--quick" in recipes["test"]
    assert "--quick" not in recipes["test-all"] and " -m " not in recipes["test-all"]
    ci = ROOT / ".ci" / "run"
    commands = re.findall(r"^make ([\w-]+)", ci.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {"check", "test-all"} <= set(commands)
