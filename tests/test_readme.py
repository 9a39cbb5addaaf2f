"""What the README tells people to do works."""

import re
from pathlib import Path

import pytest

import reskill_jax
from reskill_jax.cli.command import COMMANDS
from reskill_jax.training import pretraining
from reskill_jax.training.config import PRESETS

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[number], f"README.md, example {number + 1}", "exec"), {})


def test_there_are_examples():
    assert len(BLOCKS) == 4
    assert sum("rs." in block for block in BLOCKS) == 1


def test_commands_presets_and_files_exist():
    for command in re.findall(r"^reskill (\w+)", TEXT, flags=re.MULTILINE):
        assert command in COMMANDS
    for preset in re.findall(r"--preset (\w+)", TEXT):
        assert preset in PRESETS or preset in pretraining.PRESETS
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXT, flags=re.MULTILINE):
        assert f"\n{target}:" in makefile
    files = re.findall(r"(?:experiments|benchmarks|reskill_jax)/[\w/]+\.\w+", TEXT)
    assert len(files) >= 5
    for file in files:
        assert (ROOT / file).is_file(), file
    for room in re.findall(r"^\| `(\w+)/` \|", TEXT, flags=re.MULTILINE):
        assert any((base / room).is_dir() for base in (Path(reskill_jax.__file__).parent, ROOT)), (
            room
        )
