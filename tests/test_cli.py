"""The command line: what reaches the library, what a person reads, exit codes."""

import json
import os
import shutil
import subprocess
import sys
import types

import pytest

from reskill_jax import cli
from reskill_jax.cli_arguments import one_line
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import export_skill, import_skills
from reskill_jax.training.config import PRESETS
from reskill_jax.training.preemption import Interrupted, Preempted
from reskill_jax.training.run_folder import RunFolder, RunFolderError

OPEN = Skill("open-first", "When it is closed.", "open.", Trigger("action_pattern", "^go to"))
LOOK = Skill("look-around", "At the start.", "look.", Trigger("beginning"))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder, a wide terminal, no debug mode."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("RESKILL_DEBUG", raising=False)
    monkeypatch.delenv("ALFWORLD_DATA", raising=False)


@pytest.fixture
def training(monkeypatch):
    """Stands in for the loop: keeps what it was called with and writes a small run."""
    calls = []

    def train(config, *, resume, console):
        calls.append((config, resume))
        if not resume:
            with RunFolder.create(config.root, config.name, config) as run:
                run.write_metrics({"step": 1, "success": 0.5, "seconds": 2.0})
                for step, success in ((0, 0.25), (1, 0.75)):
                    line = {"step": step, "split": "unseen", "mode": "bank", "episodes": 100}
                    run.write_eval(line | {"success": success})

    loop = types.ModuleType("reskill_jax.training.loop")
    loop.train = train
    monkeypatch.setitem(sys.modules, "reskill_jax.training.loop", loop)
    monkeypatch.setattr("reskill_jax.training.loop", loop, raising=False)
    loop.calls = calls
    return loop


@pytest.fixture
def run_folder(tmp_path):
    with RunFolder.create("runs", "first", {"name": "first", "steps": 5}) as run:
        run.export_skills([OPEN, LOOK])
        run.write_metrics({"step": 1, "success": 0.5})
    return run.path


def refused(capsys, *arguments, code=2):
    """Runs a command that must fail; returns its only line on stderr."""
    assert cli.main(list(arguments)) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("reskill: ") and err.count("\n") == 1
    return err


# --- train --------------------------------------------------------------------------------------


def test_train_hands_over_the_configuration(training, capsys, tmp_path):
    (tmp_path / "c.yaml").write_text("learning_rate: 1e-3\nsteps: 9\nrooms: {objects: 11}\n")
    arguments = "train --preset paper --config c.yaml --steps 3 --name mine --whiten".split()
    assert cli.main(arguments) == 0
    ((config, resume),) = training.calls
    paper = PRESETS["paper"]()
    assert (config.learning_rate, config.steps, config.rooms.objects) == (1e-3, 3, 11)
    assert (config.name, config.scheme, resume) == ("mine", paper.scheme, False)
    out = capsys.readouterr().out
    assert "mine: 1 steps, 2.0 s per step" in out
    assert "unseen tasks  25% (18–34%)        75% (66–82%)        up, intervals apart" in out
    assert f"report        {os.path.join('runs', 'mine', 'report.html')}" in out
    assert (tmp_path / "runs" / "mine" / "report.html").read_text().startswith("<!doctype html>")


def test_resume_takes_the_stored_configuration(training):
    assert cli.main("train --name mine --seed 7 --learning-rate 0.01".split()) == 0
    assert cli.main("train --name mine --resume".split()) == 0
    (first, _), (second, resume) = training.calls
    assert resume and second == first and second.seed == 7


def test_training_that_was_ended_says_how_to_go_on(training, capsys, monkeypatch):
    """Each in a line that a terminal does not break in the middle of the command."""
    monkeypatch.setenv("COLUMNS", "60")
    train = training.train

    def ended(how):
        def work(config, **options):
            train(config, **options)
            raise how

        monkeypatch.setattr(training, "train", work)

    command = "reskill train --name mine --root 'my runs' --resume"
    for how, status, told in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (Interrupted(7), 130, "interrupted after step 7, everything is saved"),
        (Preempted(7), 143, "ended by SIGTERM after step 7, everything is saved"),
    ):
        shutil.rmtree("my runs", ignore_errors=True)
        ended(how)
        assert cli.main(["train", "--name", "mine", "--root", "my runs"]) == status
        assert f"{told}; go on with: {command}\n" in capsys.readouterr().out


def test_where_there_is_nothing_to_go_on_from_no_command_is_told(training, capsys, monkeypatch):
    def interrupted(config, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    assert cli.main(["train", "--name", "mine"]) == 130
    assert capsys.readouterr().out == "\ninterrupted\n"


@pytest.mark.parametrize(
    "arguments,message",
    [
        ("--stepz 3", "Unrecognized options: --stepz, 3; did you mean --steps?"),
        ("--rooms.objectz 3", "did you mean --rooms.objects?"),
        ("--steps many", "--steps: invalid literal for int() with base 10: 'many'"),
        ("--steps 0", "steps must be at least 1, got 0"),
        ("--scheme foo", "invalid choice 'foo' for argument '--scheme'"),
        ("--steps", "Missing value for argument '--steps'"),
        ("--preset papr", "there is no preset 'papr'; did you mean paper?"),
        ("--config none.json", "none.json: there is no such file"),
        ("--config bad.json", "bad.json cannot be read: Expecting"),
        (
            "--config key.json",
            "key.json: unknown key 'learning_rat'; did you mean 'learning_rate'?",
        ),
        ("--config room.json", "room.json: unknown key 'rooms.objectz'; did you mean 'rooms.obj"),
        ("--config value.json", "value.json: 'steps' should be an integer, is \"many\""),
        ("--config range.json", "range.json: steps must be at least 1, got 0"),
        ("--resume --name nope", "nothing to resume: there is no run in runs/nope"),
    ],
)
def test_mistakes_are_one_line(training, capsys, tmp_path, arguments, message):
    for name, text in {
        "bad": "{steps",
        "key": '{"learning_rat": 1}',
        "room": '{"rooms": {"objectz": 1}}',
        "value": '{"steps": "many"}',
        "range": '{"steps": 0}',
    }.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert message in refused(capsys, "train", *arguments.split())
    assert training.calls == []


def test_help_is_readable(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for part in ("--preset", "--config", "--resume", "--learning-rate", "Training steps"):
        assert part in out


# --- eval ---------------------------------------------------------------------------------------


@pytest.fixture
def evaluation(monkeypatch):
    calls = []

    def evaluate_run(folder, **options):
        options.pop("console")
        calls.append((folder, options))
        line = {"step": 5, "split": "seen", "mode": "bank", "success": 0.25, "episodes": 8}
        return [line | {"interval": [0.0714, 0.5907]}]

    monkeypatch.setattr("reskill_jax.training.replay.evaluate_run", evaluate_run)
    return calls


def test_eval_plays_and_prints(evaluation, run_folder, capsys, tmp_path):
    arguments = (
        "eval first --step 5 --splits seen --modes bank candidate --tasks 8 --output o.jsonl"
    )
    assert cli.main(arguments.split()) == 0
    ((folder, options),) = evaluation
    assert folder.resolve() == run_folder.resolve()
    assert options == {
        "step": 5, "world": "household", "splits": ("seen",), "modes": ("bank", "candidate"),
        "games": None, "tasks": 8,
    }  # fmt: skip
    out = capsys.readouterr().out
    assert "25.0 %" in out and "7.1 – 59.1 %" in out and "in use" in out
    assert json.loads((tmp_path / "o.jsonl").read_text())["success"] == 0.25


def test_eval_finds_the_games(evaluation, run_folder, monkeypatch, tmp_path):
    (tmp_path / "games").mkdir()
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "data"))
    assert cli.main(f"eval {run_folder} --world alfworld".split()) == 0
    assert cli.main(f"eval {run_folder} --world alfworld --games games".split()) == 0
    assert [str(options["games"]) for _, options in evaluation] == [str(tmp_path / "data"), "games"]


def test_eval_mistakes(evaluation, run_folder, capsys):
    assert "there is no run 'secnd'; runs/ holds: first" in refused(capsys, "eval", "secnd")
    line = refused(capsys, "eval", "first", "--world", "alfworld", "--games", "none")
    assert "--games none: there is no such file or folder" in line
    assert "needs --world alfworld" in refused(capsys, "eval", "first", "--games", "runs")
    assert "--tasks must be at least 1" in refused(capsys, "eval", "first", "--tasks", "0")
    assert "RUN" in refused(capsys, "eval")
    assert evaluation == []


# --- skills and report --------------------------------------------------------------------------


def test_skills(run_folder, capsys, tmp_path):
    assert cli.main(["skills", "list", "first"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "look-around  look.  [beginning]",
        "open-first   open.  [action_pattern ^go to]",
    ]
    assert cli.main(["skills", "show", str(run_folder), "open-first"]) == 0
    shown = capsys.readouterr().out
    assert shown == (run_folder / "skills" / "open-first" / "SKILL.md").read_text()
    assert cli.main(["skills", "export", "first", "out"]) == 0
    assert import_skills(tmp_path / "out") == (LOOK, OPEN)


def test_skills_mistakes(run_folder, capsys):
    line = refused(capsys, "skills", "show", "first", "open-frist")
    assert "no skill called 'open-frist'; did you mean open-first?" in line
    assert "'lst'; did you mean 'list'?" in refused(capsys, "skills", "lst")
    path = export_skill(OPEN, run_folder / "skills")
    path.write_text(path.read_text().replace("name: open-first", "name: ../../evil"))
    assert cli.main(["skills", "list", "first"]) == 0  # the others, and what was left out
    out, err = capsys.readouterr()
    assert out == "look-around  look.  [beginning]\n"
    assert err.startswith("reskill: left out: ") and err.count("\n") == 1
    assert "open-first/SKILL.md: the name '../../evil' is not kebab-case" in err
    shutil.rmtree(run_folder / "skills" / "look-around")
    assert "'../../evil' is not kebab-case" in refused(capsys, "skills", "list", "first", code=1)


def test_report(run_folder, capsys, tmp_path):
    with open(run_folder / "metrics.jsonl", "a") as log:
        log.write("noise\n")
    assert cli.main(["report", "first", "--output", "page.html"]) == 0
    out, err = capsys.readouterr()
    assert out == "page.html\n" and (tmp_path / "page.html").exists()
    assert err.startswith("reskill: metrics.jsonl line 2: ")
    (tmp_path / "runs" / "other").mkdir()
    assert "is no run folder" in refused(capsys, "report", "other", code=1)
    line = refused(capsys, "report", "first", "--output", "no/page.html", code=1)
    assert "No such file or directory" in line
    assert "which RUN?" in refused(capsys, "report")


def test_report_of_a_damaged_configuration(run_folder, capsys, tmp_path):
    """What can be read is drawn; without anything that can be there is no page about nothing."""
    (run_folder / "config.json").write_text('{"name": "first", "ste')
    assert cli.main(["report", "first"]) == 1
    out, err = capsys.readouterr()
    assert out == f"{os.path.join('runs', 'first', 'report.html')}\n"
    assert err.startswith("reskill: config.json cannot be read: ") and err.count("\n") == 1
    page = (run_folder / "report.html").read_text(encoding="utf-8")
    assert "config.json cannot be read: " in page and "open-first" in page
    shutil.copytree(run_folder, tmp_path / "runs" / "second")
    assert cli.main(["report", "first", "second"]) == 1
    capsys.readouterr()

    (run_folder / "report.html").unlink()
    (run_folder / "metrics.jsonl").write_text("noise")
    line = refused(capsys, "report", "first", code=1)
    assert "holds no run that can be read: config.json cannot be read: " in line
    assert not (run_folder / "report.html").exists()


def test_report_of_several_runs(run_folder, capsys, tmp_path):
    shutil.copytree(run_folder, tmp_path / "runs" / "second")
    assert cli.main(["report", "first", str(tmp_path / "runs" / "second")]) == 0
    assert capsys.readouterr().out == f"{os.path.join('runs', 'comparison.html')}\n"
    assert "2 runs" in (tmp_path / "runs" / "comparison.html").read_text(encoding="utf-8")
    assert "is given twice" in refused(capsys, "report", "first", "runs/first", code=1)


# --- entry --------------------------------------------------------------------------------------


def test_only_expected_errors_lose_their_traceback(training, capsys, monkeypatch):
    def failing(error):
        def train(config, **_):
            raise error

        monkeypatch.setattr(training, "train", train)

    failing(RunFolderError("runs/household exists\nalready"))
    assert refused(capsys, "train", code=1) == "reskill: runs/household exists already\n"
    failing(PermissionError(13, "Permission denied", "runs"))
    assert refused(capsys, "train", code=1) == "reskill: runs: Permission denied\n"
    failing(ValueError("a defect"))
    with pytest.raises(ValueError, match="a defect"):
        cli.main(["train"])
    failing(RunFolderError("x"))
    with pytest.raises(RunFolderError):
        cli.main(["train", "--debug"])
    monkeypatch.setenv("RESKILL_DEBUG", "1")
    with pytest.raises(RunFolderError):
        cli.main(["train"])


def test_usage_and_version(capsys):
    assert cli.main([]) == 2 and cli.main(["--help"]) == 0 and cli.main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.count("usage: reskill COMMAND") == 2 and "\nreskill 0." in out


def test_as_a_program():
    """Unknown commands answer before anything heavy is imported."""
    code = (
        "import sys; from reskill_jax.cli import main; code = main(['trian']);"
        "heavy = {'tyro', 'rich', 'flax', 'optax', 'orbax', 'yaml'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "reskill: reskill has no command 'trian'; did you mean 'train'?\n"


def test_boxed_and_plain_messages_become_one_line():
    boxed = "╭─ Title ──╮\n│ what is  │\n│ wrong    │\n│ ──────── │\n│ Perhaps you meant: │\n"
    boxed += "│ --size INT │\n╰──╯"
    plain = " Title \n -----\n  what is \n  wrong\n  ----\n  For full helptext, run x\n\n"
    assert one_line(boxed) == "what is wrong; did you mean --size?"
    assert one_line(plain) == "what is wrong"
    assert one_line("") == ""


def test_a_skill_whose_trigger_explodes_is_refused(tmp_path, capsys):
    skill = tmp_path / "skills" / "evil"
    skill.mkdir(parents=True)
    (skill / "SKILL.md").write_text(
        "---\nname: evil\ndescription: x\nmetadata:\n  trigger: action_pattern\n"
        '  trigger-pattern: "((a|aa){30}){30}$"\n---\n## When to use\nx\n## Action\nlook.\n'
    )
    assert cli.main(["skills", "list", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "evil: the trigger: the pattern is too large" in error
