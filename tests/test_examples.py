"""The examples, run small."""

import subprocess
import sys
from pathlib import Path

import pytest

from reskill_jax import cli

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_a_world_has_under_forty_lines():
    text = (EXAMPLES / "guess.py").read_text()
    code = [line for line in text.split('"""', 2)[2].splitlines() if line.strip()]
    assert len(code) < 40


@pytest.mark.slow
def test_a_model_is_made_and_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))
    made = [sys.executable, str(EXAMPLES / "guess_model.py"), "guess-model", "--steps", "2"]
    subprocess.run(made, check=True)
    words = (
        "train --world guess:Guess --model ./guess-model --max-turns 3 --context-length 240 "
        "--groups 2 --group-size 4 --steps 1 --eval-tasks 2 --minibatches 1 --workers 0 "
        "--trial.min-episodes 8"
    )
    assert cli.main(words.split()) == 0
    assert "1 steps" in capsys.readouterr().out
