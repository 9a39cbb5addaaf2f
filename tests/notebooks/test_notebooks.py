"""The notebooks run top to bottom in a fresh kernel, and what is stored in them is such a run."""

import ast
import importlib.util
import os
import re
import tomllib
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 300_000  # bytes
LOCAL_PATH = re.compile(
    r"(?<![\w.:/])(?:/(?:home|root|Users|tmp|work|mnt|var|usr|content)/|[A-Z]:\\)"
)

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def executor():
    place = ROOT / "scripts" / "execute_notebooks.py"
    spec = importlib.util.spec_from_file_location("execute_notebooks", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plots(cells):
    outputs = [output for cell in cells for output in cell.outputs]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.slow
def test_runs_in_a_fresh_kernel(path, tmp_path):
    environment = os.environ | {"RESKILL_NOTEBOOK_STEPS": "2", "PYTHONPATH": str(ROOT)}
    # One device, as readers have; programs that run for two steps need no optimization.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    notebook = executor().execute(read(path), folder=tmp_path, environment=environment)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert plots(cells) >= 3


def test_what_the_cells_import_exists(path):
    """Of this package and of others; running the cells takes minutes."""
    tree = ast.parse("\n".join(cell.source for cell in code_cells(path)))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in imports:
        exec(ast.unparse(node), {})
    assert any("reskill_jax" in ast.unparse(node) for node in imports)


def test_stored_outputs_are_those_of_one_run(path):
    nbformat.validate(read(path))
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    streams = [o for cell in cells for o in cell.outputs if o.output_type == "stream"]
    assert all(stream.name == "stdout" for stream in streams)
    assert plots(cells) >= 3
    assert path.stat().st_size < LARGEST


def test_holds_no_local_path(path):
    text = path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and str(Path.home()) not in text
    pictures = re.sub(r'"image/png": "[^"]*"', "", text)
    assert not LOCAL_PATH.search(pictures), LOCAL_PATH.search(pictures)


def test_first_cell_installs_from_the_address_of_the_project(path):
    first = code_cells(path)[0].source
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(first).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert assigned["REPOSITORY"] == project.get("urls", {}).get("Repository", "")
    others = "\n".join(cell.source for cell in code_cells(path)[1:])
    assert "reskill_jax" not in first.split("find_spec")[0] and "reskill_jax" in others
