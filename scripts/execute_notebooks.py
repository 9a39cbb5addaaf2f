"""Runs notebooks top to bottom, each in a fresh kernel, and stores what they show.

usage: python scripts/execute_notebooks.py [NOTEBOOK ...]        default: all of notebooks/
"""

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def execute(
    notebook: nbformat.NotebookNode,
    *,
    folder: str | os.PathLike[str],
    environment: Mapping[str, str],
) -> nbformat.NotebookNode:
    """Runs every cell, in place.

    Args:
      notebook: as read by nbformat.
      folder: where the kernel works and leaves its files.
      environment: of the kernel.

    Returns:
      The notebook with its outputs.

    Raises:
      CellExecutionError: a cell failed.
    """
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=None,
        resources={"metadata": {"path": os.fspath(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    return client.execute(env=dict(environment))


def main(arguments: list[str]) -> None:
    """Runs the notebooks named, or all, and writes them back."""
    for path in [Path(a) for a in arguments] or sorted(NOTEBOOKS.glob("*.ipynb")):
        print(f"running {path.name}", flush=True)
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            # The compiler's complaint about a busy machine is nothing to keep.
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            execute(notebook, folder=folder, environment=environment)
        # What the kernel adds to the metadata is that of this machine.
        notebook.metadata.language_info = {"name": "python"}
        for cell in notebook.cells:
            if "remove-output" in cell.metadata.get("tags", ()):
                cell.outputs = []
        nbformat.write(notebook, path)
        print(f"  {path.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
