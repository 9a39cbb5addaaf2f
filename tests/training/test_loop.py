"""The loop: a whole run, its files, and going on after an end of any kind."""

import dataclasses
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path
from typing import NamedTuple

import chex
import jax
import numpy as np
import pytest
from rich.console import Console

from reskill_jax import cli
from reskill_jax.core.contrast import Contrast
from reskill_jax.core.posterior import BetaPosterior
from reskill_jax.creators.creator import Proposal
from reskill_jax.models import weights
from reskill_jax.models.model import Decoder
from reskill_jax.skills.skill import Bundle, Operation
from reskill_jax.skills.skillmd import SkillFileError, export_skill
from reskill_jax.storage import checkpoint, log_schema
from reskill_jax.storage.run_folder import RunFolder
from reskill_jax.training import loop, step_log
from reskill_jax.training import runner as runners
from reskill_jax.training.config import ModelConfig, TrainConfig, replace
from reskill_jax.training.config_file import apply_config, read_config
from reskill_jax.training.lifecycle import SkillLibrary, begin_library, creator_of, make_bank
from reskill_jax.training.proposals import put_on_trial, with_versions
from reskill_jax.training.sections import TrialConfig
from reskill_jax.training.state import init_state
from reskill_jax.training.storage import MAY_DIFFER
from reskill_jax.worlds import registry
from reskill_jax.worlds.household.handwritten import GOOD
from reskill_jax.worlds.household.world import HouseholdWorld

WORLD = HouseholdWorld()
SCHEMA = {
    "metrics": (log_schema.METRICS, log_schema.check_metrics),
    "trials": (log_schema.TRIALS, log_schema.check_trials),
    "eval": (log_schema.EVAL, log_schema.check_eval),
    "lifecycle": (log_schema.LIFECYCLE, log_schema.check_lifecycle),
}
CREATOR = creator_of(TrainConfig(), WORLD)

STEPS = 40
TIMED = ("seconds", "compile_seconds")


def lines(path, *without):
    return [
        {key: value for key, value in json.loads(line).items() if key not in without}
        for line in path.read_text().splitlines()
    ]


def restored(lab, folder, step=None):
    """The state and the library in a checkpoint."""
    config = apply_config(TrainConfig(), read_config(folder / "config.json"), where="")
    like = init_state(config, lab.params(), make_bank(config, WORLD, [()]))
    found = checkpoint.restore(folder / "checkpoints", like, config, step, may_differ=MAY_DIFFER)
    return found.step, jax.device_get(found.arrays._replace(key=())), found.host["life"]


def same_runs(lab, one, other):
    """Every file tells the same, the state is the same bit for bit."""
    assert lines(one / "metrics.jsonl", *TIMED) == lines(other / "metrics.jsonl", *TIMED)
    for log in ("trials.jsonl", "eval.jsonl", "lifecycle.jsonl"):
        assert (one / log).read_text() == (other / log).read_text()
    (step, arrays, library), (step2, arrays2, library2) = restored(lab, one), restored(lab, other)
    assert step == step2 and library == library2
    chex.assert_trees_all_equal(arrays, arrays2)
    skills = [
        sorted((p.name, (p / "SKILL.md").read_text()) for p in (run / "skills").iterdir())
        for run in (one, other)
    ]
    assert skills[0] == skills[1]


# --- in this process, where something can be won --------------------------------------------------


@pytest.fixture(scope="module")
def train(lab, tmp_path_factory):
    """Trains in the world where looking around wins."""
    root = tmp_path_factory.mktemp("runs")

    def run(name, *, resume=False, observer=None, **changes):
        config = replace(lab.config, root=str(root), name=name, **changes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "make_world", lab.make_world)
            console = Console(file=io.StringIO())
            return loop.train(config, resume=resume, console=console, observer=observer)

    return run


@pytest.fixture(scope="module")
def whole(train):
    return train("whole")


def check_lifecycle(run):
    """Events, metrics and trials tell the same, and the folder holds the skills at the end."""
    events = lines(run.folder / "lifecycle.jsonl")
    kinds = [event["event"] for event in events]
    assert "proposed" in kinds and {"accepted", "rejected"} & set(kinds)
    metrics = lines(run.folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, run.steps + 1))
    tested = lines(run.folder / "trials.jsonl")
    open_trials, begun = set(), {}
    for event in events:
        trial = event["trial"]
        if event["event"] in ("accepted", "rejected", "retired", "kept"):
            assert trial in open_trials
            steps = [line for line in tested if line["trial"] == trial]
            assert [s["step"] for s in steps] == list(range(begun[trial] + 1, event["step"] + 1))
            assert event["trials"] == np.sum([s["arm_trials"] for s in steps], 0).tolist()
            assert all(0 <= won <= n for won, n in zip(event["successes"], event["trials"]))
            assert event["posterior"] == steps[-1]["posterior"]
            open_trials.remove(trial)
        elif event["event"] in ("proposed", "retirement_started"):
            assert trial not in begun
            open_trials.add(trial)
            begun[trial] = event["step"]
            assert len(open_trials) <= 3
    rollouts = 8
    for line in metrics:
        of_step = [one for one in tested if one["step"] == line["step"]]
        assert [one["trial"] for one in of_step] == line["trials"]
        assert all(sum(one["arm_trials"]) == rollouts for one in of_step)
        assert all(sum(one["assignment"]) == pytest.approx(1) for one in of_step)
    assert {one["trial"] for one in tested} <= begun.keys()
    assert max(len(line["trials"]) for line in metrics) > 1
    names = sorted(path.name for path in (run.folder / "skills").iterdir())
    assert names == sorted(skill.name for skill in run.skills)


def test_compiling_is_told_apart(whole):
    """In the first step of every start alone."""
    metrics = lines(whole.folder / "metrics.jsonl")
    assert [line["step"] for line in metrics if "compile_seconds" in line] == [1]
    assert metrics[0]["compile_seconds"] > 0 and all(line["seconds"] > 0 for line in metrics)


def test_every_start_says_what_the_run_was_made_with(whole):
    config = json.loads((whole.folder / "config.json").read_text())
    (entry,) = config["provenance"]
    assert entry["step"] == 0 and entry["devices"] == jax.device_count()
    assert read_config(whole.folder / "config.json").keys() == config.keys() - {"provenance"}


@pytest.mark.parametrize("kind", ["bundle", "retirement"])
def test_the_log_tells_where_the_test_stands(kind):
    """By the function that decides, with the settings of the run."""
    contrast = Contrast(*(np.array([[9, 9], [0, x], [9, 9.0]]) for x in (4.0, 20.0, 5.0)))
    config = TrainConfig(trial=TrialConfig(gain=0.1))
    library = types.SimpleNamespace(proposals=(None, types.SimpleNamespace(kind=kind, id=7), None))
    metrics = types.SimpleNamespace(
        contrast=contrast,
        arm_trials=np.array([[9, 9], [8, 4], [9, 9]]),
        arm_successes=np.array([[9, 9], [2, 3], [9, 9]]),
        assignment=np.array([[9, 9], [0.75, 0.25], [9, 9]]),
        posterior=BetaPosterior(*(np.array([[9, 9], x, [9, 9]]) for x in ([3, 4], [7, 2]))),
        horizon=np.float32(40),
    )
    (line,) = step_log.trial_lines(metrics, library, 5, config)
    test = line.pop("sequential_test")
    assert line.pop("difference") == pytest.approx([0, 4 / 20])
    assert line == {
        "step": 5,
        "trial": 7,
        "arm_trials": [8, 4],
        "arm_success": [0.25, 0.75],
        "assignment": [0.75, 0.25],
        "posterior": {"alpha": [3, 4], "beta": [7, 2]},
        "horizon": 40.0,
    }
    # By hand in tests/core/test_trial.py.
    expected = {"bundle": (1.2, 9.5, 0.05 / 0.9), "retirement": (1.536, 18.0, 0.1 / 0.95)}[kind]
    assert test["log_odds"][0] == -np.inf
    assert test["log_odds"][1] == pytest.approx(expected[0], rel=1e-5)
    assert test["accept_at"] == pytest.approx(np.log(expected[1]), rel=1e-5)
    assert test["reject_at"] == pytest.approx(np.log(expected[2]), rel=1e-5)
    idle = types.SimpleNamespace(proposals=(None, None, None))
    assert step_log.trial_lines(metrics, idle, 5, config) == []
    means = replace(config, trial=dict(rule="means"))
    metrics.arm_trials[1, 1] = metrics.arm_successes[1, 1] = 0
    (line,) = step_log.trial_lines(metrics, library, 5, means)
    assert line["sequential_test"] is None
    assert line["arm_trials"] == [8, 0] and np.isnan(line["arm_success"][1])


def check_evaluations(run, steps):
    """Both splits at these steps, with the bank and, at the end, without."""
    evals = lines(run.folder / "eval.jsonl")
    told = [(line["step"], line["mode"], line["split"]) for line in evals]
    both = ("seen", "unseen")
    expected = [(step, "bank", split) for step in steps for split in both]
    assert told == expected + [(run.steps, "none", split) for split in both]
    for line in evals:
        assert line["interval"][0] <= line["success"] <= line["interval"][1]
        assert line["episodes"] == 16


def test_skills_are_tried_and_decided(whole):
    assert whole.steps == 12
    check_lifecycle(whole)


def test_evaluations_of_a_run(whole):
    check_evaluations(whole, (0, 4, 8, 12))


@pytest.mark.slow
def test_a_longer_life(train):
    """Long enough for skills to be due for retirement."""
    run = train("longer", steps=30, eval_every=10)
    assert run.steps == 30
    check_lifecycle(run)
    check_evaluations(run, (0, 10, 20, 30))


def stop(monkeypatch, method, step):
    """Ctrl-C in the middle of a step: after some of its lines, before the others."""
    original = getattr(RunFolder, method)

    def interrupted(self, line):
        if line["step"] == step:
            raise KeyboardInterrupt
        original(self, line)

    monkeypatch.setattr(RunFolder, method, interrupted)


def trial_step(run):
    """A step inside several trials that a checkpoint was taken in as well."""
    trials = {line["step"]: line["trials"] for line in lines(run.folder / "metrics.jsonl")}
    for step in range(2, 11, 2):
        if len(trials[step]) > 1 and trials[step] == trials[step + 1]:
            return step + 1
    raise AssertionError("no trials go on over a checkpoint")


@pytest.mark.parametrize("method", ["write_metrics", "write_trial"])
def test_going_on_in_the_middle_of_a_trial(lab, train, whole, monkeypatch, method):
    step, name = trial_step(whole), f"stopped-{method.replace('_', '-')}"
    with monkeypatch.context() as patched:
        stop(patched, method, step)
        with pytest.raises(KeyboardInterrupt):
            train(name)
    folder = whole.folder.parent / name
    found, arrays, library = restored(lab, folder)
    assert found == step - 1 and arrays.trials.active.sum() > 1
    under_test = [
        proposal is not None for proposal in SkillLibrary.from_dict(library, CREATOR).proposals
    ]
    np.testing.assert_array_equal(arrays.trials.active, under_test)
    assert train(name, resume=True).skills == whole.skills
    same_runs(lab, whole.folder, folder)


def test_a_run_that_is_asked_to_end_saves_its_step(train, lab, whole):
    """Before the first step, and in the middle of others, where no checkpoint is due."""
    folder = whole.folder.parent / "asked"
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    told = []

    def end(number, at, **options):
        def observer(step, *_):
            told.append(step)
            if step == at:
                signal.raise_signal(number)

        with pytest.raises((SystemExit, KeyboardInterrupt)) as ended:
            train("asked", observer=observer, **options)
        return ended.value

    interrupted = end(signal.SIGINT, 0)
    assert isinstance(interrupted, KeyboardInterrupt) and told == [0]
    assert str(interrupted) == "interrupted after step 0, everything is saved"
    preempted = end(signal.SIGTERM, 4, resume=True)
    assert preempted.code == 143 and told == [0, *range(6)]
    assert str(preempted) == "ended by SIGTERM after step 5, everything is saved"
    assert checkpoint.steps(folder / "checkpoints")[-1] == 5
    assert end(signal.SIGINT, 8, resume=True).step == 9
    assert checkpoint.steps(folder / "checkpoints")[-1] == 9
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    train("asked", resume=True)
    same_runs(lab, whole.folder, folder)


@pytest.mark.parametrize("method", ["write_eval", "write_metrics"])
def test_going_on_at_the_very_beginning(lab, train, whole, monkeypatch, method):
    """Before the first checkpoint; and after it, but before any other."""
    name = f"early-{method.replace('_', '-')}"
    with monkeypatch.context() as patched:
        stop(patched, method, {"write_eval": 0, "write_metrics": 2}[method])
        with pytest.raises(KeyboardInterrupt):
            train(name)
    train(name, resume=True)
    same_runs(lab, whole.folder, whole.folder.parent / name)


def test_a_finished_run_stays_as_it_is(train, whole):
    before = (whole.folder / "metrics.jsonl").read_text()
    assert train("whole", resume=True) == whole
    assert (whole.folder / "metrics.jsonl").read_text() == before


def test_going_on_without_the_folder_of_the_first_skills(train, lab, tmp_path):
    """The checkpoint has them."""
    bank = tmp_path / "bank"
    export_skill(lab.skill("peek", "help."), bank)
    options = {"bank": str(bank), "skills_until": 0, "eval_every": 0}

    def stop(step, *_):
        if step == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train("banked", observer=stop, **options)
    shutil.rmtree(bank)
    assert [skill.name for skill in train("banked", resume=True, **options).skills] == ["peek"]
    with pytest.raises(SkillFileError, match="there is no such folder"):
        train("anew", **options)


def test_adopting_without_a_trial(train):
    played = []

    def observer(step, state, library, runner):
        played.append((bool(state.trials.active.any()), any(library.proposals)))
        arms = make_bank(runner.config, WORLD, [library.skills])
        chex.assert_trees_all_equal(jax.device_get(state.bank), arms)

    run = train("auto", trial=dict(auto_accept=True), eval_every=0, observer=observer)
    events = lines(run.folder / "lifecycle.jsonl")
    kinds = [e["event"] for e in events if e["event"] not in ("unproposed", "pruned")]
    assert kinds and kinds[1::2] == [
        "accepted" if k == "proposed" else "retired" for k in kinds[::2]
    ]
    # No rollout reads anything but the bank in use.
    assert set(played) == {(False, False)} and len(played) == 13
    assert lines(run.folder / "trials.jsonl") == []
    assert all(m["trials"] == [] for m in lines(run.folder / "metrics.jsonl"))
    fired = [m["skill_tokens"] for m in lines(run.folder / "metrics.jsonl")]
    assert fired[0] == 0 and max(fired) > 0


@pytest.mark.slow
def test_a_frozen_policy_is_the_same_to_the_last_bit_and_its_skills_are_tried(train, lab):
    seen = []

    def observer(step, state, life, runner):
        chex.assert_trees_all_equal(jax.device_get(state.params), jax.device_get(lab.params()))
        assert jax.tree.leaves(state.opt_state) == []
        seen.append(step)

    run = train("frozen", policy_until=0, eval_every=0, observer=observer)
    assert seen == list(range(13))
    check_lifecycle(run)
    assert all(line["grad_norm"] == 0 for line in lines(run.folder / "metrics.jsonl"))
    (step, arrays, _) = restored(lab, run.folder)
    assert step == 12
    chex.assert_trees_all_equal(arrays.params, jax.device_get(lab.params()))


def test_a_fixed_bank_and_an_observer(train):
    seen = []

    def observer(step, state, library, runner):
        assert int(state.step) == step and runner.config.bank == "good"
        seen.append((step, library.skills, int(np.asarray(state.bank.kind[0] > 0).sum())))

    run = train("fixed", bank="good", skills_until=0, eval_every=0, observer=observer)
    assert [step for step, _, _ in seen] == list(range(13))
    assert {(skills, used) for _, skills, used in seen} == {(GOOD, len(GOOD))}
    assert run.skills == GOOD and lines(run.folder / "lifecycle.jsonl") == []
    assert sorted(path.name for path in (run.folder / "skills").iterdir()) == sorted(
        skill.name for skill in GOOD
    )


def test_games_of_a_pass_are_all_different():
    config = TrainConfig(groups=6, train_games=24, seed=3)
    steps = [runners.games_of_step(config, step) for step in range(8)]
    assert all(step.dtype == np.int32 and step.shape == (6,) for step in steps)
    first, second = np.concatenate(steps[:4]), np.concatenate(steps[4:])
    assert sorted(first) == sorted(second) == list(range(24))
    assert first.tolist() != second.tolist()
    # A pass may end within a step.
    config = dataclasses.replace(config, train_games=9)
    drawn = np.concatenate([runners.games_of_step(config, step) for step in range(3)])
    assert sorted(drawn[:9]) == sorted(drawn[9:]) == list(range(9))


def test_a_proposal_goes_on_trial_in_its_own_part(lab):
    config = replace(lab.config, trial=dict(retire_margin=0.03))
    before = lab.on_trial(lab.state(), 0)
    trials = before.trials._replace(steps=before.trials.steps.at[0].set(2))
    before = before._replace(trials=trials)
    after = put_on_trial(before, 2, types.SimpleNamespace(kind="retirement"), config)
    assert after._replace(trials=None) == before._replace(trials=None)
    np.testing.assert_array_equal(after.trials.active, [True, False, True])
    np.testing.assert_array_equal(after.trials.steps, [2, 0, 0])
    np.testing.assert_allclose(after.trials.margin, [0, 0, 0.03])
    np.testing.assert_array_equal(
        after.trials.arm_mask, [[True, True], [True, False]] + [[True] * 2]
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(after, before)
    # A trial that begins anew in a part has nothing of the one before it.
    again = put_on_trial(after, 0, types.SimpleNamespace(kind="bundle"), config)
    np.testing.assert_array_equal(again.trials.steps, [0, 0, 0])


def test_every_arm_holds_its_choice_of_the_proposals(lab):
    open_, look = lab.skill("open", "open."), lab.skill("look", "look.")
    library = dataclasses.replace(begin_library(lab.config, WORLD), skills=(open_,))
    changes = Operation("DELETE", "open"), Operation("ADD", "look", look)
    proposals = [Proposal(0, "bundle", Bundle((one,)), (), "for tests", 1.0) for one in changes]
    library = dataclasses.replace(library, proposals=(proposals[0], None, proposals[1]))
    state = with_versions(lab.state(), library, lab.config, WORLD)
    arms = [(open_,), (), (open_,), (), (open_, look), (look,), (open_, look), (look,)]
    chex.assert_trees_all_equal(jax.device_get(state.bank), make_bank(lab.config, WORLD, arms))
    library = dataclasses.replace(library, proposals=(None,) * 3)
    state = with_versions(state, library, lab.config, WORLD)
    chex.assert_trees_all_equal(
        jax.device_get(state.bank), make_bank(lab.config, WORLD, [(open_,)])
    )


# --- the real command -----------------------------------------------------------------------------


def command(*words):
    return [sys.executable, "-m", "reskill_jax", *map(str, words)]


def reskill(folder, *words):
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(Path.cwd())}
    return subprocess.run(
        command(*words), cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return tmp_path_factory.mktemp("here")


@pytest.fixture(scope="module")
def options(here, smallest, weights_file):
    """Words of a command that trains the smallest run."""
    file = here / "smallest.json"
    file.write_text(json.dumps(dataclasses.asdict(smallest)))
    return ["train", "--config", str(file), "--model", str(weights_file), "--eval-every", "0"]


@pytest.fixture(scope="module")
def commanded(here, options):
    done = reskill(here, *options, "--steps", STEPS, "--name", "whole")
    assert done.returncode == 0, done.stderr
    return done


def check_run(folder, printed, steps):
    """The folder of a run that evaluated at its ends alone and kept its last three checkpoints."""
    config = json.loads((folder / "config.json").read_text())
    assert (config["name"], config["steps"], config["groups"]) == (folder.name, steps, 2)
    metrics = lines(folder / "metrics.jsonl")
    assert [line["step"] for line in metrics] == list(range(1, steps + 1))
    keys = {"success", "trials", "mixed_groups", "clipped", "invalid", "skipped"}
    keys |= {"loss", "kl", "entropy", "grad_norm", "turns", "context_tokens", "skill_tokens"}
    assert keys | {"step", "truncated", "seconds", "compile_seconds"} == set(metrics[0])
    tested = lines(folder / "trials.jsonl")
    keys = {"step", "trial", "arm_success", "arm_trials", "assignment", "posterior", "horizon"}
    assert all(set(line) == keys | {"difference", "sequential_test"} for line in tested)
    assert sum(len(line["trials"]) for line in metrics) == len(tested)
    for log, (fields, check) in SCHEMA.items():
        for line in lines(folder / f"{log}.jsonl"):
            check(line)
            assert set(line) <= set(fields), log
    told = [(line["step"], line["mode"]) for line in lines(folder / "eval.jsonl")]
    assert told == [(0, "bank")] * 2 + [(steps, "bank")] * 2 + [(steps, "none")] * 2
    assert (folder / "lifecycle.jsonl").is_file() and (folder / "skills").is_dir()
    assert checkpoint.steps(folder / "checkpoints") == [steps - 4, steps - 2, steps]
    assert "<html" in (folder / "report.html").read_text()
    assert "report.html" in printed


def test_the_command_in_this_process(lab, options, tmp_path, monkeypatch, capsys):
    """With the program that the other tests have compiled; the real one is below."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(registry, "make_world", lab.make_world)
    assert cli.main([*options, "--name", "here"]) == 0
    check_run(tmp_path / "runs" / "here", capsys.readouterr().out, lab.config.steps)


@pytest.mark.slow
def test_the_command_writes_a_run(here, commanded):
    check_run(here / "runs" / "whole", commanded.stdout, STEPS)


def ended_by(number, words, here, when):
    """The output of a training command that gets a signal as soon as `when()` holds."""
    process = subprocess.Popen(
        command(*words),
        cwd=here,
        env=os.environ | {"COLUMNS": "60", "PYTHONPATH": str(Path.cwd())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        began = time.monotonic()
        while not when():
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() - began < 300
            time.sleep(0.01)
        process.send_signal(number)
        out, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    return process.returncode, out


@pytest.mark.slow  # three processes, each of which starts and compiles
def test_interrupted_killed_and_continued(lab, here, options, commanded):
    """Ctrl-C keeps the step it came in; SIGKILL loses what came after a checkpoint."""
    folder = here / "runs" / "killed"
    words = [*options, "--steps", STEPS, "--name", "killed"]

    def logged():
        log = folder / "metrics.jsonl"
        return len(log.read_text().splitlines()) if log.is_file() else 0

    status, out = ended_by(
        signal.SIGINT, [*words, "--checkpoint-every", 1000], here, lambda: logged() >= 3
    )
    step = logged()
    assert status == 130 and 3 <= step < STEPS, out
    assert "interrupted: ends as soon as this step is done; Ctrl-C again ends at once\n" in out
    assert out.endswith(
        f"\ninterrupted after step {step}, everything is saved; go on with: reskill train "
        "--name killed --resume\n"
    )
    assert checkpoint.steps(folder / "checkpoints") == [0, step]

    words = [*words, "--resume", "--checkpoint-every", 2]
    status, _ = ended_by(signal.SIGKILL, words, here, lambda: logged() >= step + 5)
    assert status == -signal.SIGKILL and logged() < STEPS
    done = reskill(here, *words)
    assert done.returncode == 0, done.stderr
    assert "going on after step" in done.stdout
    same_runs(lab, here / "runs" / "whole", folder)


def refused(here, *words):
    done = reskill(here, *words)
    assert done.returncode != 0
    assert done.stderr.startswith("reskill: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_unknown_key(here):
    (here / "bad.yaml").write_text("learnin_rate: 0.1\n")
    error = refused(here, *"train --name bad --config bad.yaml".split())
    assert "unknown key 'learnin_rate'; did you mean 'optimizer.learning_rate'?" in error


def test_missing_weights(here):
    error = refused(here, *"train --name none --model none.safetensors".split())
    assert error == "reskill: the model none.safetensors: there is no such file\n"
    assert not (here / "runs" / "none").exists()


@pytest.mark.slow
def test_checkpoint_of_another_configuration(here, options, commanded):
    metrics = (here / "runs" / "whole" / "metrics.jsonl").read_text()
    words = [*options, "--steps", STEPS, "--name", "whole"]
    error = refused(here, *words, "--resume", "--learning-rate", "0.5")
    assert "another configuration: optimizer.learning_rate (checkpoint 5e-05, now 0.5)" in error
    assert (here / "runs" / "whole" / "metrics.jsonl").read_text() == metrics


def test_a_context_without_room_for_a_command(train):
    with pytest.raises(loop.TrainingError, match="--context-length must be at least 40"):
        train("narrow", context_length=39)


def test_weights_of_another_language(train, tmp_path, lab):
    model = Decoder(dataclasses.replace(lab.model.config, vocabulary=300))
    path = tmp_path / "other.safetensors"
    weights.save(path, model.init(jax.random.key(0)), {}, model.config)
    with pytest.raises(loop.TrainingError, match="300 tokens, but the language .* has 259"):
        train("other", model=ModelConfig(str(path)))


@pytest.mark.slow
def test_the_preset_tiny_shows_a_skill_decided(tmp_path, monkeypatch, capsys):
    """A demonstration: success that can be seen, a skill proposed, tried and decided about."""
    monkeypatch.chdir(tmp_path)
    assert cli.main("train --preset tiny".split()) == 0
    folder = tmp_path / "runs" / "tiny"
    kinds = [event["event"] for event in lines(folder / "lifecycle.jsonl")]
    assert "proposed" in kinds and {"accepted", "rejected"} & set(kinds)
    evals = lines(folder / "eval.jsonl")
    assert all(line["success"] > 0.1 for line in evals) and evals[0]["episodes"] >= 64
    told = capsys.readouterr().out
    assert re.search(r"^step \d+: proposed ", told, flags=re.MULTILINE)
    assert re.search(r"^step \d+: (accepted|rejected) .*\(.+\)$", told, flags=re.MULTILINE)
    assert "compiled the training step in" in told


class Counter(NamedTuple):
    """As much of a state as `_compile` reads."""

    step: jax.Array


def test_the_step_is_compiled_before_the_first_one_and_once(tmp_path):
    compiled = []

    def listener(event, seconds, **_):
        compiled.extend([event] * event.endswith("backend_compile_duration"))

    out = io.StringIO()
    runner = loop.Runner(
        TrainConfig(groups=2, group_size=2, train_games=4, trial=TrialConfig(min_episodes=4)),
        None, None, None, None,
        jax.jit(lambda state, games: (Counter(state.step + 1), games), donate_argnums=0),
    )  # fmt: skip
    state = Counter(jax.numpy.int32(0))
    games = runner.games(runners.games_of_step(runner.config, 0))
    jax.monitoring.register_event_duration_secs_listener(listener)
    try:
        with loop.TrainingProgress(Console(file=out, width=80), total=3) as progress:
            loop._compile(state, runner, progress)
        assert len(compiled) == 1
        state, _ = runner.step(state, games)
        runner.step(state, games)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listener)
    told = out.getvalue().splitlines()
    assert told[0] == "compiling the training step"
    assert re.fullmatch(r"compiled the training step in \d+\.\d s", told[1])


def test_a_function_put_around_the_step_is_compiled_by_its_first_call():
    runner = loop.Runner(TrainConfig(), None, None, None, None, lambda state, games: state)
    out = io.StringIO()
    with loop.TrainingProgress(Console(file=out, width=80), total=3) as progress:
        loop._compile(Counter(jax.numpy.int32(0)), runner, progress)
    assert out.getvalue() == ""


def test_what_is_told_is_printed_as_it_is():
    line = "[/tmp/x] " + "a word of a long line " * 9
    for terminal in (False, True):
        out = io.StringIO()
        loop._notify(Console(file=out, width=40, force_terminal=terminal), line)
        assert (out.getvalue().count("\n") == 1) == (not terminal)
        assert " ".join(out.getvalue().split()) == line.strip()


@pytest.mark.parametrize(
    ("rule", "weight", "expected"),
    [
        ("sequential", 20.0, "success +12.0 ± 5.0 points"),  # 2.4 / 20, and sqrt(1) / 20
        ("sequential", 0.0, "nothing to compare"),
        ("means", 20.0, "success 75% against 50%"),  # Beta(3, 1) against Beta(2, 2)
    ],
)
def test_the_effect_that_a_trial_found_in_words(rule, weight, expected):
    contrast = Contrast(*(np.float32([[0, 9], [0, value]]) for value in (2.4, weight, 1.0)))
    posterior = BetaPosterior(np.float32([[9, 8], [2, 3]]), np.float32([[9, 7], [2, 1]]))
    metrics = types.SimpleNamespace(contrast=contrast, posterior=posterior)
    assert step_log.effect_words(metrics, 1, TrainConfig(trial=TrialConfig(rule=rule))) == expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("sequential", "success +0.120 (standard error 0.050) within groups, in the tasks where "
                       "the versions differ"),
        ("means", "posterior mean 0.750 of the candidate against 0.500"),
    ],
)  # fmt: skip
def test_what_decided_a_trial_is_told_of_its_part(rule, expected):
    contrast = Contrast(*(np.float32([[0, 9], [0, value]]) for value in (2.4, 20.0, 1.0)))
    posterior = BetaPosterior(np.float32([[9, 8], [2, 3]]), np.float32([[9, 7], [2, 1]]))
    metrics = types.SimpleNamespace(
        contrast=contrast,
        posterior=posterior,
        horizon=np.float32(np.inf),
        trial_successes=np.array([[9, 9], [4, 6]]),
        trial_trials=np.array([[9, 9], [8, 9]]),
    )
    config = TrainConfig(trial=TrialConfig(rule=rule))
    assert step_log.reason_of(metrics, 1, config) == expected
    more = "; posterior mean of success 0.50 without and 0.75 with it (episodes: 8, 9)"
    assert step_log.found_by(metrics, 1, config) == expected + more * (rule == "sequential")
    assert step_log.evidence_of(metrics, 1) == {
        "successes": [4, 6],
        "trials": [8, 9],
        "posterior": {"alpha": [2, 3], "beta": [2, 1]},
        "horizon": np.inf,
        "difference": [0.0, 0.12],
    }


def test_how_the_trials_stand_in_words():
    metrics = types.SimpleNamespace(
        arm_trials=np.array([[20, 0], [25, 0], [8, 20]]),
        arm_successes=np.array([[4, 0], [5, 0], [2, 9]]),
        decision=np.array([-1, -1, -1]),
    )
    first, second = (types.SimpleNamespace(id=number) for number in (4, 6))
    for proposals, expected in (
        ((None, None, None), None),
        ((first, None, None), "trial 4"),  # not a rollout has it yet
        ((None, first, second), "trial 4; trial 6: 45% new, 25% old"),
    ):
        library = types.SimpleNamespace(proposals=proposals)
        assert step_log.trial_words(metrics, library) == expected
    metrics.decision[2] = 0  # what is in its place now has not been played
    library = types.SimpleNamespace(proposals=(None, None, second))
    assert step_log.trial_words(metrics, library) == "trial 6"
