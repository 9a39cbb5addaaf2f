import dataclasses
import importlib.util
import io
import json
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.creators.creator import Proposal
from reskill_jax.evaluation import given_games, replay
from reskill_jax.evaluation.compiled_play import play_compiled
from reskill_jax.evaluation.figures import Trial, figures
from reskill_jax.evaluation.replay import ReplayError, evaluate_run, load_run
from reskill_jax.evaluation.text_play import episode_of_texts, play_texts
from reskill_jax.models import weights
from reskill_jax.models.config import household_small
from reskill_jax.models.model import Decoder
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger
from reskill_jax.storage import checkpoint
from reskill_jax.storage.intervals import wilson_interval
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training import evaluate
from reskill_jax.training.config import ModelConfig, replace
from reskill_jax.training.lifecycle import begin_library, creator_of, make_bank, versions
from reskill_jax.training.state import init_state
from reskill_jax.worlds import alfworld, text_games
from reskill_jax.worlds.alfworld import EngineError
from reskill_jax.worlds.alfworld_games import GamesError, write_games_file
from reskill_jax.worlds.household import TextGame
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.world import HouseholdWorld
from reskill_jax.worlds.language import symbol_language

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
    library = dataclasses.replace(begin_library(config, WORLD), skills=(USED,))
    bundle = Bundle((Operation("ADD", "tried", TRIED),))
    proposal = Proposal(1, "bundle", bundle, (USED, TRIED), "-", 0.0)
    tested = dataclasses.replace(library, proposals=(None, proposal, None))
    with RunFolder.create(root, config.name, config) as folder:
        for step, one in {2: library, 4: tested}.items():
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
    return given_games.own_games(load_run(run).world, "unseen", 1)[0]


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


@pytest.fixture
def opened(monkeypatch):
    """Games that an engine of texts opens; those whose names are added to `broken` fail."""
    real, found = text_games.GameSession, SimpleNamespace(games=[], broken=set())

    def open_game(record, engine):
        assert engine == "household"
        found.games.append((record.split, record.game))
        if record.game in found.broken:
            raise EngineError("died")
        return real(record, engine)

    monkeypatch.setattr(text_games, "GameSession", open_game)
    return found


TEXT = {"world": "household_text", "workers": 0}


def test_own_games_are_played_in_another_engine(run, console, opened):
    opened.broken = {"unseen-1"}
    options = TEXT | {"splits": ("unseen",), "tasks": 3, "console": console}
    (line,) = evaluate_run(run, modes=("bank",), **options)
    assert [game for _, game in opened.games] == ["unseen-0", "unseen-1", "unseen-2"]
    assert (line["episodes"], line["invalid"], line["step"]) == (2, 1, 4)
    assert (line["split"], line["mode"]) == ("unseen", "bank")
    told = " ".join(console.file.getvalue().split())
    assert (
        "unseen, bank: 1 of 3 episodes are invalid and left out; the first: raised: EngineError"
        in told
    )
    # Greedy, with its skills: the same turns as the compiled rollout of the same games.
    loaded = load_run(run)
    played = play_compiled(
        loaded.params,
        POLICY,
        LANGUAGE,
        loaded.bank,
        given_games.own_games(loaded.world, "unseen", 3),
        world=WORLD,
        max_turns=loaded.config.max_turns,
        context_length=loaded.config.context_length,
        batch=1,
    )
    assert line["turns"] == (len(played[0].commands) + len(played[2].commands)) / 2
    assert line["success"] == (played[0].won + played[2].won) / 2
    json.dumps(line)
    with pytest.raises(ReplayError, match="no candidate is under test at step 2"):
        evaluate_run(run, step=2, modes=("candidate",), **options)
    with pytest.raises(ValueError, match="world must be one of household, .* got 'moon'"):
        evaluate_run(run, **{**options, "world": "moon"})


def test_the_same_games_in_both_engines(run, record, console, tmp_path, monkeypatch):
    """On the device and as text, each game once: the same figures."""
    monkeypatch.setattr(replay, "REAL_TURNS", 4)
    games = [record._replace(split="valid_unseen", game=str(i)) for i in range(3)]
    write_games_file(tmp_path / "games.jsonl", games)
    shared = {"splits": ("unseen",), "games": tmp_path / "games.jsonl", "console": console}
    text = evaluate_run(run, **TEXT, **shared)
    assert text == evaluate_run(run, world="household", **shared)
    assert [line["mode"] for line in text] == ["bank", "none"]
    assert {line["episodes"] for line in text} == {3}


def test_several_trials(run, console):
    (line,) = evaluate_run(
        run, **TEXT, splits=("seen",), modes=("none",), tasks=3, trials=2, console=console
    )
    assert (line["episodes"], line["trials"]) == (6, 2)
    one, both = line["pass_hat_k"]
    assert one == pytest.approx(line["success"]) and both <= one


def test_nothing_valid_is_no_figure(run, console, opened):
    opened.broken = {"unseen-0"}
    with pytest.raises(ReplayError, match="no episode is valid: raised: EngineError: died"):
        evaluate_run(run, **TEXT, splits=("unseen",), tasks=1, console=console)


@pytest.mark.parametrize(
    ("there", "asked", "played"),
    [
        (("valid_seen", "valid_train"), ("seen", "unseen"), {"valid_seen": 2}),
        (("valid_seen", "valid_unseen"), ("unseen",), {"valid_unseen": 2}),
        (("mine", "yours"), ("seen",), {"mine": 2, "yours": 2}),
        (("seen", "other"), ("seen",), {"seen": 2}),
    ],
)
def test_published_splits(
    run, record, console, monkeypatch, opened, tmp_path, there, asked, played
):
    monkeypatch.setattr(replay, "REAL_TURNS", 1)
    games = [record._replace(split=s, game=str(i)) for s in there for i in range(5)]
    write_games_file(tmp_path / "games.jsonl", games)
    lines = evaluate_run(
        run,
        **TEXT,
        splits=asked,
        modes=("none",),
        games=tmp_path / "games.jsonl",
        tasks=2,
        console=console,
    )
    assert {line["split"]: line["episodes"] for line in lines} == played
    assert opened.games == [(split, game) for split in played for game in ("0", "2")]


def test_figures_of_episodes():
    def trial(task, kind, won, turns, cause=""):
        return Trial(task, kind, won, turns, cause)

    once = [
        *(trial("a", "clean", True, 2), trial("b", "clean", False, 4)),
        *(trial("c", "heat", True, 9, "died"), trial("d", "heat", False, 6)),
    ]
    found = figures([once])
    assert found["success"] == 1 / 3 and found["episodes"] == 3 and found["invalid"] == 1
    assert found["turns"] == 4 and found["interval"] == pytest.approx([0.0615, 0.7923], abs=1e-4)
    assert found["by_task_type"] == {"clean": [1, 2], "heat": [0, 1]}
    again = [trial(one.task, one.kind, True, 1) for one in once]
    twice = figures([once, again])
    # Of a and b, d: 2, 1, 1 successes in 2 trials; c has a single trial, which it won.
    assert twice["pass_hat_k"] == pytest.approx([(1 + 0.5 + 1 + 0.5) / 4, 1 / 3])
    assert twice["pass_hat_k_tasks"] == [4, 3]
    for chance, (low, high) in zip(twice["pass_hat_k"], twice["pass_hat_k_interval"]):
        assert 0 <= low < chance < high <= 1
    # A task counts once, with its mean: 3 of 4.
    assert twice["interval"] == pytest.approx(wilson_interval(3, 4))
    with pytest.raises(ReplayError, match="no episode is valid: there were no tasks"):
        figures([[]])


def test_games_are_read_at_a_common_size(record):
    loaded = WORLD.load_games([record, record._replace(pddl_problem="("), record])
    assert loaded.record == [0, 2] and list(loaded.errors) == [1]
    assert loaded.errors[1].startswith("PddlError: ")
    assert loaded.tasks.can_hold.shape == (2, 24, 16)
    with pytest.raises(GamesError, match="no game can be read: PddlError"):
        WORLD.load_games([record._replace(pddl_problem="(")])
    stem = record.pddl_problem.split("_bar_")[0].split()[-1].strip("(")
    odd = record._replace(pddl_problem=record.pddl_problem.replace(f"{stem}_bar_", "gizmo_bar_"))
    with pytest.raises(GamesError, match="the language lacks a name of this room .*gizmo"):
        WORLD.load_games([odd])


def test_a_goal_of_unknown_words_is_played_and_told(run, record):
    loaded = load_run(run)
    strange = record._replace(task="kindly put a shiny gadget in the attic", game="strange")
    broken = record._replace(pddl_problem="(", game="broken")
    settings = {
        "max_turns": loaded.config.max_turns,
        "context_length": loaded.config.context_length,
    }
    episodes = play_compiled(
        *(loaded.params, POLICY, LANGUAGE, loaded.bank, [broken, strange, record]),
        world=WORLD,
        batch=1,
        **settings,
    )
    assert [e.game for e in episodes] == ["broken", "strange", record.game]
    assert not episodes[0].valid and episodes[0].error.startswith("PddlError")
    played = play_texts(
        [strange, record],
        loaded.params,
        POLICY,
        LANGUAGE,
        (USED,),
        engine="household",
        **settings,
    )
    tokens = played.rollouts.transcript.tokens
    for n, one in enumerate((strange, record)):
        assert episodes[n + 1] == episode_of_texts(played.conversations[n])
        assert (sy.UNKNOWN in tokens[n]) == (one is strange)
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
