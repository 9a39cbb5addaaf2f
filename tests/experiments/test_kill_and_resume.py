"""The script that kills runs and compares what they come to."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "kill_and_resume.py"


@pytest.mark.slow
def test_a_run_that_is_killed_comes_to_the_same(tmp_path):
    told = tmp_path / "told.json"
    words = ["--kills", "1", "--folder", str(tmp_path / "runs"), "--results", str(told)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "1 kills of 1 runs" in done.stdout and "1 followed by an exact resume" in done.stdout
    assert json.loads(told.read_text())
