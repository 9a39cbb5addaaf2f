"""The examples, run small. Those with agents in frameworks are tested in tests/agents."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reskill_jax import cli
from reskill_jax.agents.trials import SkillTrials
from reskill_jax.training.config import PRESETS, smallest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """Imports an example, and runs it as a command would, in a folder of its own."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(PRESETS, "tiny", smallest)

    def start(name: str, *words: str):
        module = importlib.import_module(name)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *words])
        return module

    yield start
    for path in EXAMPLES.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_the_index_names_every_example():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+\.(?:py|yaml))`", index))
    assert named == {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".yaml")}


def test_a_loop_of_ones_own(example, capsys):
    example("own_loop", "--steps", "12").main()
    told = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in told] == ["step 10", "step 12"]
    assert "P(the skill is better) = 1.00" in told[-1]


def test_trials_in_a_plain_loop(example, capsys, tmp_path):
    module = example("trials_loop")
    with SkillTrials(tmp_path / "s.sqlite", settings=module.SETTINGS, creator=None) as trials:
        module.run(trials, 16)
        module.run(trials, 8)
        lines = list(trials.episodes())
    assert [line["task"] for line in lines[::8]] == ["egg-0", "egg-1", "egg-2"]
    assert "won; last 64" in capsys.readouterr().out


def test_a_creator_of_ones_own(example):
    from reskill_jax.creators.creator import Library, Proposal, Refusal
    from reskill_jax.creators.episode import Episode

    module = example("own_creator")
    creator, library = module.NextOfWinners(), Library((), {}, {}, 8)

    def episode(success, *actions):
        seen = ("here",) * (len(actions) + 1)
        return Episode("t", "g", "", 0, success, 0, actions, seen)

    memory = creator.observe(creator.init(0), [episode(True, "go", "open", "take")] * 10)
    _, refused = creator.propose(memory, library, step=1)
    assert isinstance(refused, Refusal) and not refused.looked
    memory = creator.observe(memory, [episode(False, "go", "look", "take")] * 10)
    memory, first = creator.propose(memory, library, step=1)
    assert isinstance(first, Proposal)
    (skill,) = first.version
    assert (skill.action, skill.trigger.pattern) == ("take.", "^open$")
    memory = creator.load(creator.dump(memory))  # what was tried stays tried after a restart
    _, second = creator.propose(memory, library, step=2)
    assert second.version[0].name == "open-after-go"


@pytest.mark.slow
def test_train_then_evaluate(example, capsys):
    example("train").main()
    told = capsys.readouterr().out
    assert "4 steps" in told and "success" in told
    example("evaluate", "runs/first", "--tasks", "4").main()
    told = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("unseen, ") for line in told) == 2
    assert re.fullmatch(r"unseen: the skills make [+-]\d+\.\d points", told[-1])


@pytest.mark.slow
def test_an_algorithm_of_ones_own(example, capsys, monkeypatch):
    module = example("own_algorithm", "--steps", "2")
    monkeypatch.setattr(module, "tiny", smallest)
    module.main()
    assert "best-of-group: 2 steps" in capsys.readouterr().out


def test_what_the_best_of_a_group_is(example):
    import jax.numpy as jnp

    from reskill_jax.algorithms.algorithm import Batch, Scores

    module = example("own_algorithm")
    reward = jnp.array([[1.0], [0.0], [0.0], [0.0], [1.0], [1.0]])  # groups of 2
    valid, mask = jnp.ones(6, bool), jnp.ones((6, 3), bool)
    batch = Batch(reward, valid, jnp.zeros((6, 3), jnp.int32), mask, jnp.zeros((6, 3)))
    targets = module.BestOfGroup().targets(batch, group_size=2)
    assert targets.advantages[:, 0].tolist() == [1, 0, 0, 0, 0, 0]
    scores = Scores(jnp.full((6, 3), -2.0))
    assert float(module.BestOfGroup().loss(scores, batch, targets)[0]) == pytest.approx(6 / 18)


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
