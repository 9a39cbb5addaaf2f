import dataclasses
import importlib.util
import io
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.creators.creator import Proposal
from reskill_jax.evaluation import replay
from reskill_jax.evaluation.compiled_play import load_games, play_compiled
from reskill_jax.evaluation.replay import ReplayError, evaluate_run, load_run
from reskill_jax.models import weights
from reskill_jax.models.config import household_small
from reskill_jax.models.model import Decoder
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger
from reskill_jax.storage import checkpoint
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training import evaluate
from reskill_jax.training.config import ModelConfig, replace
from reskill_jax.training.lifecycle import begin_library, creator_of, make_bank, versions
from reskill_jax.training.state import init_state
from reskill_jax.worlds import alfworld
from reskill_jax.worlds.alfworld import EngineError
from reskill_jax.worlds.alfworld_games import GameRecord, write_games_file
from reskill_jax.worlds.household import TextGame
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.tables import TASK_TYPES
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language
from reskill_jax.worlds.playing import Episode, open_compiled, play

WORLD = HouseholdWorld()

ROOT = Path(__file__).resolve().parents[2]
POLICY = Decoder(
    household_small(sy.VOCABULARY_SIZE, width=16, layers=1, heads=2, kv_heads=1, mlp=32)
)
LANGUAGE = symbol_language(WORLD)
USED = Skill("used", "-", "open.", Trigger("general"))
TRIED = Skill("tried", "-", "do not look.", Trigger("beginning"))
needs_engine = pytest.mark.skipif(not alfworld.installed(), reason="needs the extra alfworld")


@pytest.fixture(scope="module")
def run(smallest, tmp_path_factory):
    """A run with two checkpoints: nothing under test at step 2, a candidate at step 4."""
    root = tmp_path_factory.mktemp("runs")
    params = POLICY.init(jax.random.key(1))
    weights.save(root / "start.safetensors", params, {}, POLICY.config)
    config = dataclasses.replace(
        smallest, model=ModelConfig(str(root / "start.safetensors")), root=str(root), eval_tasks=4
    )
    # A stored run differs from its start, so that reading the wrong one is noticed.
    trained = jax.tree.map(lambda x: 3.0 * x if x.ndim > 1 else x, params)
    life = dataclasses.replace(begin_library(config, WORLD), skills=(USED,))
    bundle = Bundle((Operation("ADD", "tried", TRIED),))
    proposal = Proposal(1, "bundle", bundle, (USED, TRIED), "-", 0.0)
    tested = dataclasses.replace(life, proposals=(None, proposal, None))
    with RunFolder.create(root, config.name, config) as folder:
        for step, one in {2: life, 4: tested}.items():
            state = init_state(config, trained, make_bank(config, WORLD, versions(one, config)))
            state = state._replace(step=np.int32(step))
            host = {"life": one.to_dict(creator_of(config, WORLD)), "sizes": folder.sizes()}
            checkpoint.save(folder.checkpoints, step, state, host, config, block=True)
    return folder.path


@pytest.fixture
def console():
    return Console(file=io.StringIO())


@pytest.fixture(scope="module")
def record(run):
    return replay.own_games(load_run(run).config, "unseen", 1)[0]


def test_a_run_is_read_at_a_checkpoint(run):
    newest, older = load_run(run), load_run(run, step=2)
    assert (newest.step, older.step) == (4, 2)
    assert newest.skills_of("bank") == older.skills_of("bank") == (USED,)
    assert newest.skills_of("candidate") == (USED, TRIED) and newest.skills_of("none") == ()
    with pytest.raises(ReplayError, match="no candidate is under test at step 2"):
        older.skills_of("candidate")
    with pytest.raises(ReplayError, match="mode must be one of none, bank, candidate, got 'all'"):
        older.skills_of("all")


def test_a_run_is_evaluated_in_the_compiled_world(run, console):
    lines = evaluate_run(run, splits=("unseen",), modes=("bank", "candidate"), console=console)
    loaded = load_run(run)
    one_at_a_time = replace(loaded.config, trial=dict(concurrent=1))
    for line, mode in zip(lines, ("bank", "candidate"), strict=True):
        direct = evaluate.evaluate(
            loaded.params,
            make_bank(one_at_a_time, WORLD, [(USED,), (USED, TRIED)]),
            world=HouseholdWorld(spec=loaded.config.rooms),
            model=POLICY,
            language=LANGUAGE,
            split="unseen",
            mode=mode,
            max_turns=loaded.config.max_turns,
            context_length=loaded.config.context_length,
            games=loaded.config.eval_tasks,
            temperature=loaded.config.temperature,
        )
        assert line == {"step": 4} | direct.to_json()
        assert line["episodes"] == 4 and line["split"] == "unseen"


def test_own_games_are_played_in_another_engine(run, console, monkeypatch):
    opened = []

    def open_game(record):
        opened.append(record.game)
        if record.game == "unseen-1":
            raise EngineError("died")
        return open_compiled(record)

    monkeypatch.setattr(replay, "open_alfworld", open_game)
    options = {"world": "alfworld", "splits": ("unseen",), "tasks": 3, "console": console}
    (line,) = evaluate_run(run, modes=("bank",), **options)
    assert opened == ["unseen-0", "unseen-1", "unseen-2"]
    assert (line["episodes"], line["invalid"], line["step"]) == (2, 1, 4)
    assert (line["split"], line["mode"]) == ("unseen", "bank")
    told = " ".join(console.file.getvalue().split())
    assert "unseen, bank: 1 of 3 episodes are invalid and left out; the first: EngineError" in told
    # Greedy, with its skills: the same turns as the compiled rollout of the same games.
    loaded = load_run(run)
    played = play_compiled(
        loaded.params,
        POLICY,
        LANGUAGE,
        loaded.bank,
        replay.own_games(loaded.config, "unseen", 3),
        max_turns=loaded.config.max_turns,
        context_length=loaded.config.context_length,
        batch=1,
    )
    assert line["turns"] == (len(played[0].commands) + len(played[2].commands)) / 2
    assert line["success"] == (played[0].won + played[2].won) / 2
    json.dumps(line)
    with pytest.raises(ReplayError, match="no candidate is under test at step 2"):
        evaluate_run(run, step=2, modes=("candidate",), **options)
    with pytest.raises(ReplayError, match="world must be household or alfworld"):
        evaluate_run(run, **{**options, "world": "moon"})


def test_nothing_valid_is_no_figure(run, console, monkeypatch):
    def broken(record):
        raise EngineError("no planner")

    monkeypatch.setattr(replay, "open_alfworld", broken)
    with pytest.raises(ReplayError, match="no episode is valid: EngineError: no planner"):
        evaluate_run(run, world="alfworld", splits=("unseen",), tasks=1, console=console)


@pytest.mark.parametrize(
    ("there", "asked", "played"),
    [
        (("valid_seen", "valid_train"), ("seen", "unseen"), {"valid_seen": 2}),
        (("valid_seen", "valid_unseen"), ("unseen",), {"valid_unseen": 2}),
        (("mine", "yours"), ("seen",), {"mine": 2, "yours": 2}),
        (("seen", "other"), ("seen",), {"seen": 2}),
    ],
)
def test_published_splits(run, record, console, monkeypatch, tmp_path, there, asked, played):
    opened = []

    def open_game(record):
        opened.append((record.split, record.game))
        return open_compiled(record)

    monkeypatch.setattr(replay, "open_alfworld", open_game)
    monkeypatch.setattr(replay, "REAL_TURNS", 1)
    games = [record._replace(split=s, game=str(i)) for s in there for i in range(5)]
    write_games_file(tmp_path / "games.jsonl", games)
    lines = evaluate_run(
        run,
        world="alfworld",
        splits=asked,
        modes=("none",),
        games=tmp_path / "games.jsonl",
        tasks=2,
        console=console,
    )
    assert {line["split"]: line["episodes"] for line in lines} == played
    assert opened == [(split, game) for split in played for game in ("0", "2")]


def test_figures_of_episodes():
    def episode(won, commands=2, error=None):
        return Episode("g", ("look",) * commands, (), won, error)

    clean, heat = TASK_TYPES[2], TASK_TYPES[3]
    records = [GameRecord("s", "g", kind, "t", "p") for kind in (clean, clean, heat, heat)]
    found = replay.summarise(
        records, [episode(True), episode(False, 4), episode(True, 9, "died"), episode(False, 6)]
    )
    assert found["success"] == 1 / 3 and found["episodes"] == 3 and found["invalid"] == 1
    assert found["turns"] == 4 and found["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-4)
    assert found["by_task_type"][clean] == [1, 2] and found["by_task_type"][heat] == [0, 1]


def test_games_are_read_at_a_common_size(record):
    loaded = load_games([record, record._replace(pddl_problem="("), record])
    assert loaded.record == [0, 2] and list(loaded.errors) == [1]
    assert loaded.errors[1].startswith("PddlError: ")
    assert loaded.games.can_hold.shape == (2, 24, 16)
    with pytest.raises(ReplayError, match="no game can be read: PddlError"):
        load_games([record._replace(pddl_problem="(")])
    stem = record.pddl_problem.split("_bar_")[0].split()[-1].strip("(")
    odd = record._replace(pddl_problem=record.pddl_problem.replace(f"{stem}_bar_", "gizmo_bar_"))
    with pytest.raises(ReplayError, match="the language lacks a name of this room .*gizmo"):
        load_games([odd])


def test_a_goal_of_unknown_words_is_played_and_told(run, record):
    loaded = load_run(run)
    strange = record._replace(task="kindly put a shiny gadget in the attic", game="strange")
    broken = record._replace(pddl_problem="(", game="broken")
    settings = {
        "max_turns": loaded.config.max_turns,
        "context_length": loaded.config.context_length,
    }
    episodes = play_compiled(
        loaded.params, POLICY, LANGUAGE, loaded.bank, [broken, strange, record], batch=1, **settings
    )
    assert [e.game for e in episodes] == ["broken", "strange", record.game]
    assert not episodes[0].valid and episodes[0].error.startswith("PddlError")
    for one, episode in zip((strange, record), episodes[1:]):
        player = replay.PolicyPlayer(
            loaded.params, POLICY, LANGUAGE, (USED,), context_length=loaded.config.context_length
        )
        theirs = play(one, open_compiled, player, max_turns=loaded.config.max_turns)
        assert episode == theirs
        assert (sy.UNKNOWN in player.tokens) == (one is strange)
    assert (
        episodes[1].observations[0]
        == TextGame.from_pddl(strange.pddl_problem, task=strange.task).intro
    )


@needs_engine
def test_the_policy_agrees_with_itself_in_the_real_engine(run, capsys):
    path = ROOT / "experiments" / "alfworld_agreement.py"
    spec = importlib.util.spec_from_file_location("alfworld_agreement", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    code = module.main(
        f"--run {run} --mode candidate --generated 2 --max-turns 4 --context 120".split()
    )
    printed = capsys.readouterr().out
    assert code == 0
    assert "2 the same action for action, 0 different, 0 invalid" in printed
    assert "unseen, compiled: " in printed and "nearest to a tie" in printed
