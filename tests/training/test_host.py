"""Runs in worlds on the host: through the command and as a library, to the end and resumed."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from reskill_jax import cli
from reskill_jax.creators.creator import Proposal
from reskill_jax.evaluation.replay import evaluate_run, load_run
from reskill_jax.models import load_model
from reskill_jax.skills.skill import Bundle, Operation, Skill, Trigger
from reskill_jax.storage import checkpoint
from reskill_jax.training import conversations, loop
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.proposals import put_on_trial, with_versions
from reskill_jax.training.sections import ModelConfig
from reskill_jax.training.settings import TrainingError
from reskill_jax.worlds.text_games import TextGames

from . import guess_worlds

HERE = Path(__file__).parent
GUESS = "guess_worlds:Guess"


@pytest.fixture(scope="module", autouse=True)
def _worlds():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(HERE))
        yield


@pytest.fixture(scope="module")
def settings(checkpoint_folder):
    """A short run with a tiny language model that guesses numbers."""
    return replace(
        TrainConfig(),
        world=GUESS,
        model=ModelConfig(str(checkpoint_folder)),
        steps=3,
        groups=2,
        group_size=4,
        max_turns=3,
        context_length=240,
        optimizer=dict(minibatches=2),
        trial=dict(concurrent=1, min_steps=1, min_episodes=4, max_steps=2),
        creator=dict(reservoir=4),
        prompt=dict(answer_tokens=8),
        sessions=dict(workers=0, patience=0.5),
        eval_every=0,
        eval_tasks=4,
        checkpoint_every=1,
    )


@pytest.fixture(scope="module")
def train(settings, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def run(name, *, resume=False, world=None, model=None, observer=None, changes=None, **further):
        config = replace(settings, name=name, root=str(root), **(changes or {}), **further)
        console = Console(file=io.StringIO(), width=200)
        summary = loop.train(
            config, world=world, model=model, resume=resume, console=console, observer=observer
        )
        return summary, console.file.getvalue()

    return run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def plain(line):
    """A line of a log without what differs from run to run."""
    told = ("seconds", "per_second", "restarts")
    return {k: v for k, v in line.items() if not any(word in k for word in told)}


@pytest.fixture(scope="module")
def whole(train):
    """A run from its beginning to its end."""
    return train("whole")


def test_a_run_by_the_name_of_its_world(whole):
    summary, printed = whole
    assert summary.steps == 3 and "step 3/3" in printed
    metrics = lines(summary.folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == [1, 2, 3]
    for line in metrics:
        assert line["invalid"] == 0 and line["invalid_causes"] == {}
        assert line["turns_per_second"] > 0 and line["encoded_tokens"] > 0
        assert 0 < line["entropy"] and line["grad_norm"] >= 0
    evaluations = lines(summary.folder / "eval.jsonl")
    assert [(e["step"], e["split"], e["mode"]) for e in evaluations] == [
        *((0, split, "bank") for split in ("seen", "unseen")),
        *((3, split, mode) for mode in ("bank", "none") for split in ("seen", "unseen")),
    ]
    assert all(sum(n for _, n in e["by_task_type"].values()) == 4 for e in evaluations)


def test_the_same_in_worker_processes_and_as_objects(train, whole, checkpoint_folder):
    """Where sessions run changes nothing, nor does who made the world and the model."""
    expected = [plain(line) for line in lines(whole[0].folder / "metrics.jsonl")]
    inside, _ = train(
        "objects", world=guess_worlds.Guess(), model=load_model(checkpoint_folder), steps=2
    )
    apart, _ = train("apart", sessions=dict(workers=2), steps=2)
    for summary in (inside, apart):
        assert [plain(line) for line in lines(summary.folder / "metrics.jsonl")] == expected[:2]


def test_a_resumed_run_is_the_same_to_the_last_bit(train, whole):
    class Ended(Exception):
        pass

    def stop(step, *_):
        if step == 2:
            raise Ended

    with pytest.raises(Ended):
        train("resumed", observer=stop)
    summary, printed = train("resumed", resume=True)
    assert "going on after step 2" in printed
    for name in ("metrics.jsonl", "eval.jsonl", "lifecycle.jsonl"):
        found, expected = (lines(s.folder / name) for s in (summary, whole[0]))
        assert [plain(line) for line in found] == [plain(line) for line in expected]
    one, other = (load_run(s.folder) for s in (summary, whole[0]))
    chex.assert_trees_all_equal(one.params, other.params)


def test_a_frozen_policy_stays_to_the_last_bit_while_its_skills_are_tried(settings):
    tried = Skill("first", "-", "guess 5.", Trigger("beginning"))
    proposal = Proposal(7, "bundle", Bundle((Operation("ADD", "first", tried),)), (tried,), "", 1.0)
    config = replace(settings, name="frozen", policy_until=0)
    runner, policy = loop.open_runner(config, world=guess_worlds.Guess())
    with contextlib.closing(runner):
        state, life = loop._start(config, policy.params, runner)
        life = dataclasses.replace(life, proposals=(proposal,))
        state = with_versions(put_on_trial(state, 0, proposal, config), life, config, runner.world)
        decisions = []
        for step in range(2):
            arms = loop.versions(life, config)
            state, metrics, _ = runner.advance(state, runner.numbers(step), arms)
            assert metrics.trial_trials.sum() == 8 * (step + 1) and metrics.grad_norm == 0
            decisions += metrics.decision.tolist()
    assert decisions[0] == -1 and decisions[1] in (0, 1)
    assert jax.tree.leaves(state.opt_state) == []
    start = load_model(config.model.path).params
    chex.assert_trees_all_equal(jax.device_get(state.params), jax.device_get(start))


@pytest.mark.slow
def test_ppo_without_groups_is_resumed_exactly(train):
    """With an evaluation batch where something is on trial; values and their optimizer go on."""
    settings = dict(
        groups=8,
        group_size=1,
        algorithm=dict(kind="ppo"),
        trial=dict(evidence="evaluation_batch", evaluation_tasks=4, min_episodes=8),
    )
    first, _ = train("ppo", changes=settings)
    metrics = lines(first.folder / "metrics.jsonl")
    for line in metrics:
        assert line["evaluation_rollouts"] == 8 * bool(line["trials"]) and line["value_loss"] >= 0
    for line in lines(first.folder / "trials.jsonl"):
        assert line["arm_trials"] == [4, 4]

    class Ended(Exception):
        pass

    def stop(step, *_):
        if step == 2:
            raise Ended

    with pytest.raises(Ended):
        train("ppo-resumed", changes=settings, observer=stop)
    again, _ = train("ppo-resumed", changes=settings, resume=True)
    found = lines(again.folder / "metrics.jsonl")
    assert [plain(line) for line in found] == [plain(line) for line in metrics]


@pytest.mark.slow
def test_a_killed_run_is_resumed(settings, tmp_path):
    """The command in a process of its own, killed in the middle."""
    config = replace(settings, name="killed", root=str(tmp_path), steps=6, sessions=dict(workers=1))
    (tmp_path / "c.json").write_text(json.dumps(dataclasses.asdict(config)))
    words = [sys.executable, "-m", "reskill_jax", "train", "--config", str(tmp_path / "c.json")]
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    checkpoints = tmp_path / "killed" / "checkpoints"
    deadline = time.monotonic() + 300
    while max(checkpoint.steps(checkpoints) if checkpoints.exists() else [0], default=0) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*words, "--resume"], env=environment, check=True, stdout=subprocess.DEVNULL)
    found = [plain(line) for line in lines(tmp_path / "killed" / "metrics.jsonl")]
    whole = replace(config, name="whole", sessions=dict(workers=0))
    loop.train(whole, console=Console(file=io.StringIO()))
    expected = [plain(line) for line in lines(tmp_path / "whole" / "metrics.jsonl")]
    assert found == expected


def test_free_text(train):
    summary, _ = train("free", world=guess_worlds.Free(), steps=2)
    for line in lines(summary.folder / "metrics.jsonl"):
        assert line["turns"] == 3 and line["entropy"] > 1  # of hundreds of tokens
        assert line["grad_norm"] > 0  # rewards differ, by the length of answers


@pytest.mark.parametrize("given", [None, guess_worlds.Guess()], ids=["by name", "as an object"])
def test_a_reward_of_ones_own(settings, given):
    """It comes with the last turn; success is counted all the same."""
    config = replace(settings, name="reward", reward="guess_worlds:ended_by_length")
    runner, policy = loop.open_runner(config, world=given)
    with contextlib.closing(runner):
        state, library = loop._start(config, policy.params, runner)
        _, metrics, evidence = runner.advance(
            state, runner.numbers(0), loop.versions(library, config)
        )
    rollouts = evidence.played.rollouts
    for n, told in enumerate(evidence.played.conversations):
        turns = len(told.actions)
        expected = [0.0] * (turns - 1) + [1.0 - 0.1 * turns]
        np.testing.assert_allclose(rollouts.reward[n, :turns], expected, rtol=1e-6)
    assert metrics.success == pytest.approx(np.mean(rollouts.success))


@pytest.mark.slow
def test_a_run_goes_on_with_full_contexts(settings):
    """Turns are left out, whatever was decided in them is learned from, with and without skills."""
    config = replace(
        settings, max_turns=4, prompt=dict(overflow="drop_oldest", contexts=3), internalize=1.0
    )
    runner, policy = loop.open_runner(config, world=guess_worlds.Talkative())
    advice = (Skill("low", "-", "guess higher.", Trigger("general")),)
    with contextlib.closing(runner):
        state, _ = loop._start(config, policy.params, runner)
        start = jax.device_get(state.params)
        state, metrics, evidence = runner.advance(state, runner.numbers(0), [advice, advice])
    rows = evidence.played.rollouts.transcript
    assert rows.tokens.shape == (8, 3 * 240) and rows.position.max() >= 240
    assert metrics.invalid == metrics.truncated == 0 and metrics.turns == 4
    assert runner.figures(evidence)["dropped_turns"] > 8
    assert 0 < metrics.grad_norm < np.inf and metrics.skipped == 0
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start, jax.device_get(state.params))
    assert max(jax.tree.leaves(moved)) > 0


def test_turns_are_left_out_in_worlds_of_plain_language(settings):
    config = replace(
        settings,
        world="household_text",
        model=ModelConfig(),
        context_length=448,
        prompt=dict(overflow="drop_oldest"),
    )
    with pytest.raises(TrainingError, match="prompt.overflow = drop_oldest is for worlds of plain"):
        loop.open_runner(config)
    with pytest.raises(TrainingError, match="overflow = drop_oldest is for worlds on the host"):
        loop.open_runner(replace(config, world="household"))


def test_all_of_an_evaluation_may_be_lost_but_then_there_is_no_figure(settings):
    config = replace(settings, name="lost", sessions=dict(max_invalid=1.0))
    runner, policy = loop.open_runner(config, world=guess_worlds.Broken())
    with contextlib.closing(runner):
        state, library = loop._start(config, policy.params, runner)
        with pytest.raises(TrainingError, match="is valid: raised: RuntimeError: no license"):
            runner.evaluate(state, "seen", "none", loop.versions(library, config))


@pytest.mark.parametrize(
    "mesh",
    [dict(data=2), pytest.param(dict(data=2, tensor=2), marks=pytest.mark.slow)],
    ids=["rows", "rows and heads"],
)
def test_rows_are_split_over_the_devices_of_a_process(settings, mesh):
    """The same is said on several devices, also where rows have to be filled up."""
    tasks, played = guess_worlds.Guess().tasks("seen")[:3], []
    for devices in ({}, mesh):
        config = replace(settings, name="mesh", mesh=devices)
        runner, policy = loop.open_runner(config, world=guess_worlds.Guess())
        with contextlib.closing(runner):
            state, _ = loop._start(config, policy.params, runner)
            played.append(runner.play(runner._read(state), tasks, ()))
    assert played[0].conversations == played[1].conversations
    one, other = (found.rollouts.transcript for found in played)
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(one.log_prob, other.log_prob, atol=1e-5)


def test_failures_of_the_world_are_no_failures_of_the_agent(train):
    failing = guess_worlds.Fragile()
    summary, _ = train("fragile", world=failing, steps=3, sessions=dict(max_invalid=1.0))
    metrics = lines(summary.folder / "metrics.jsonl")
    lost = sum(line["invalid"] for line in metrics)
    assert 0 < lost < 24
    assert sum(line["invalid_causes"].get("raised", 0) for line in metrics) == lost
    for line in lines(summary.folder / "eval.jsonl"):
        assert line["episodes"] + line.get("invalid", 0) == 4


def test_a_world_that_is_mostly_broken_ends_the_run(train):
    with pytest.raises(TrainingError) as caught:
        train("broken", world=guess_worlds.Broken())
    told = str(caught.value)
    assert "4 of 4 episodes of an evaluation are invalid, 4 because of 'raised'" in told
    assert "RuntimeError: no license" in told and "\n" not in told


def test_no_tasks_are_named(train):
    with pytest.raises(TrainingError, match="has no tasks of the split train"):
        train("empty", world=guess_worlds.Empty())


def test_the_small_policy_needs_the_words_of_the_household(train):
    with pytest.raises(TrainingError, match="plain language is spoken here"):
        train("words", changes=dict(model=ModelConfig("household")))


def test_skills_are_read_and_tried(train, settings):
    """A skill in use and one under test: both are read where they fire, and counted."""
    used = Skill("low", "-", "guess higher.", Trigger("observation_pattern", "too low"))
    tried = Skill("first", "-", "guess 5.", Trigger("beginning"))
    proposal = Proposal(
        7, "bundle", Bundle((Operation("ADD", "first", tried),)), (used, tried), "", 1.0
    )
    config = replace(settings, name="skills")
    runner, policy = loop.open_runner(config, world=guess_worlds.Guess())
    state, library = loop._start(config, policy.params, runner)
    library = dataclasses.replace(library, skills=(used,), proposals=(proposal,))
    arms = loop.versions(library, config)
    assert [[s.name for s in version] for version in arms] == [["low"], ["low", "first"]]
    numbers = runner.numbers(0)
    with contextlib.closing(runner):
        state, metrics, evidence = runner.advance(state, numbers, arms)
    rollouts = evidence.played.rollouts
    np.testing.assert_array_equal(rollouts.fired[:, 0, 1], evidence.arms == 1)
    assert metrics.skill_tokens > 0
    for arm, told in zip(evidence.arms, evidence.played.conversations):
        assert told.fired[0] == (("first",) if arm == 1 else ())
        for turn in range(1, len(told.actions)):
            assert (told.fired[turn] == ("low",)) == ("too low" in told.observations[turn])
    episodes = runner.episodes(evidence, 0, arms)
    assert episodes and all(e.family in ("odd", "even") for e in episodes)
    assert all("guess 5" in e.possible[0] for e in episodes)


def test_a_world_of_symbols_answered_in_free_text(settings, checkpoint_folder):
    """Its commands are then written like any text; those that it does not know do nothing."""
    config = replace(
        settings,
        name="plain",
        world="household_text",
        context_length=1200,
        max_turns=2,
        prompt=dict(constrained=False),
    )
    runner, policy = loop.open_runner(config)
    with contextlib.closing(runner):
        assert policy.prompt is not None and not runner.plan.constrained
        state, library = loop._start(config, policy.params, runner)
        _, _, evidence = runner.advance(state, runner.numbers(0), loop.versions(library, config))
    rows = evidence.played.rollouts.transcript
    assert rows.support.shape[-1] == 0 and rows.count.min() > 2
    said = [one for told in evidence.played.conversations for one in told.observations[1:]]
    assert "Nothing happens." in said
    small = replace(config, model=dict(path="household"))
    with pytest.raises(TrainingError, match="plain language is spoken here"):
        loop.open_runner(small)


def test_arms_that_differ_in_a_task():
    everywhere = Skill("a", "-", "look.", Trigger("general"))
    cups = Skill("b", "-", "look.", Trigger("general", None, "cup"))
    arms = [(everywhere,), (everywhere, cups), (everywhere,), ()]
    assert conversations.arms_differ_in(arms, "find the cup").tolist() == [False, True, False, True]
    assert conversations.arms_differ_in(arms, "find the pan").tolist() == [
        False,
        False,
        False,
        True,
    ]


def test_a_run_is_evaluated_again(whole):
    summary, _ = whole
    (stored,) = (
        line
        for line in lines(summary.folder / "eval.jsonl")
        if (line["step"], line["split"], line["mode"]) == (3, "seen", "none")
    )
    (line,) = evaluate_run(summary.folder, splits=("seen",), modes=("none",))
    assert {k: line[k] for k in ("success", "episodes", "turns")} == {
        k: stored[k] for k in ("success", "episodes", "turns")
    }


@pytest.mark.slow
def test_the_household_through_the_interface_is_the_compiled_one(lab, tmp_path):
    """Two steps of a whole run: the same metrics, trials and evaluations to the last digit."""
    shared = dict(root=str(tmp_path), steps=2, eval_tasks=4, checkpoint_every=2, eval_every=0)
    config = dataclasses.replace(lab.config, **shared)
    console = Console(file=io.StringIO())
    loop.train(dataclasses.replace(config, name="compiled"), console=console)
    text = replace(
        config, name="text", world="household_text", sessions=dict(workers=0, patience=60.0)
    )
    loop.train(text, console=console)
    for name in ("metrics.jsonl", "trials.jsonl", "eval.jsonl"):
        if not (tmp_path / "compiled" / name).exists():
            continue
        for one, other in zip(*(lines(tmp_path / run / name) for run in ("compiled", "text"))):
            told = {k: v for k, v in plain(other).items() if k in one}
            if name == "eval.jsonl":  # only kinds that were played are named
                kinds = one["by_task_type"]
                one["by_task_type"] = {k: v for k, v in sorted(kinds.items()) if v[1]}
            assert plain(one) == told


def test_games_of_a_seed_are_those_of_the_compiled_world(lab):
    world = TextGames(engine="household", rooms=lab.config.rooms, seed=lab.config.seed)
    made = jax.jit(lambda key: lab.world.make(key, "train"))(
        jax.random.fold_in(lab.state().games, 3)
    )
    assert world.tasks("train")[3].text == lab.world.text(np.asarray(lab.world.task_text(made)))


def test_the_command_trains_in_a_world_of_ones_own(settings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_world.py").write_text((HERE / "guess_worlds.py").read_text())
    model = settings.model.path
    words = (
        f"train --world my_world:Guess --model {model} --steps 1 --groups 2 --group-size 2 "
        "--max-turns 2 --name mine --root here --context-length 240 --minibatches 1 "
        "--eval-tasks 2 --answer-tokens 8 --workers 0 --trial.min-episodes 4"
    )
    assert cli.main(words.split()) == 0
    assert (tmp_path / "here" / "mine" / "report.html").is_file()
    assert cli.main("train --world my_world:Nothing --steps 1 --root here".split()) == 2
    assert "the world my_world:Nothing: my_world has no Nothing" in capsys.readouterr().err
