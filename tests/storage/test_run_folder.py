"""The run folder: logs that can be cut back exactly, skills, clear errors."""

import dataclasses
import errno
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.skills.skill import Skill as RealSkill
from reskill_jax.skills.skill import Trigger
from reskill_jax.skills.skillmd import import_skills
from reskill_jax.storage.run_folder import LOGS, RunFolder, RunFolderError


@dataclasses.dataclass(frozen=True)
class Config:
    name: str = "first"
    sizes: tuple[int, ...] = (1, 2)
    out: Path = Path("runs")


@dataclasses.dataclass(frozen=True)
class Skill:
    name: str


def write_skill(skill, folder):
    (folder / skill.name).mkdir()
    (folder / skill.name / "SKILL.md").write_text(skill.name)


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "runs", "first", Config()) as run:
        yield run


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_create_writes_the_configuration(run, tmp_path):
    assert run.path == tmp_path / "runs" / "first"
    assert json.loads((run.path / "config.json").read_text()) == {
        "name": "first",
        "sizes": [1, 2],
        "out": "runs",
    }
    assert run.checkpoints == run.path / "checkpoints"
    assert run.report == run.path / "report.html"


def test_every_start_adds_what_it_was_made_with(run):
    before = json.loads((run.path / "config.json").read_text())
    run.add_provenance({"step": 0, "python": "3.11"})
    run.add_provenance({"step": jnp.int32(4), "python": "3.14"})
    assert json.loads((run.path / "config.json").read_text()) == before | {
        "provenance": [{"step": 0, "python": "3.11"}, {"step": 4, "python": "3.14"}]
    }
    assert not list(run.path.glob("*.partial"))
    (run.path / "config.json").write_text("{")
    with pytest.raises(RunFolderError, match="config.json cannot be read: "):
        run.add_provenance({"step": 4})
    assert (run.path / "config.json").read_text() == "{"


def test_every_line_is_on_disk_at_once(run):
    run.write_metrics({"step": 1, "arm_success": jnp.array([0.5, 0.25]), "turns": np.float32(2)})
    run.write_metrics({"step": jnp.int32(2), "horizon": float("inf"), "kl": np.array([np.nan, 1])})
    assert lines(run.path / "metrics.jsonl") == [
        {"step": 1, "arm_success": [0.5, 0.25], "turns": 2.0},
        {"step": 2, "horizon": None, "kl": [None, 1.0]},
    ]
    run.write_trial({"trial": 3, "assignment": np.float32([0.25, 0.75])})
    run.write_eval({"split": "seen"})
    run.write_lifecycle({"reason": 'é\n"\u2028'})
    assert lines(run.path / "trials.jsonl") == [{"trial": 3, "assignment": [0.25, 0.75]}]
    assert lines(run.path / "eval.jsonl") == [{"split": "seen"}]
    text = (run.path / "lifecycle.jsonl").read_text(encoding="utf-8")
    assert text.count("\n") == 1 and json.loads(text) == {"reason": 'é\n"\u2028'}


def test_truncate_returns_to_the_checkpoint(run, tmp_path):
    run.write_metrics({"step": 1})
    sizes = run.sizes()
    empty = dict.fromkeys(LOGS[1:], 0)
    assert sizes == {"metrics.jsonl": 12} | empty
    run.write_metrics({"step": 2})
    run.write_trial({"step": 2})
    run.write_eval({"step": 2})
    with open(run.path / "metrics.jsonl", "a") as log:
        log.write('{"step": 3, "half')  # the process died here
    run.close()
    with RunFolder.reopen(tmp_path / "runs", "first") as again:
        again.truncate_to(sizes)
        assert again.sizes() == sizes
        again.write_metrics({"step": 20})
        assert lines(again.path / "metrics.jsonl") == [{"step": 1}, {"step": 20}]
        assert lines(again.path / "trials.jsonl") == lines(again.path / "eval.jsonl") == []
        again.truncate_to({})
        assert set(again.sizes().values()) == {0}


def test_truncate_refuses_a_changed_log(run):
    run.write_metrics({"step": 1})
    run.write_eval({"step": 1})
    with pytest.raises(RunFolderError, match="has 12 bytes but had 50 at the checkpoint"):
        run.truncate_to({"eval.jsonl": 50})
    with pytest.raises(RunFolderError, match="no line ends at byte 5"):
        run.truncate_to({"metrics.jsonl": 12, "eval.jsonl": 5})
    assert run.sizes()["metrics.jsonl"] == 12  # nothing was changed


def test_an_existing_run_is_not_overwritten(run, tmp_path):
    with pytest.raises(RunFolderError, match="exists already: continue it with --resume or"):
        RunFolder.create(tmp_path / "runs", "first", Config())
    (tmp_path / "runs" / "empty").mkdir()
    RunFolder.create(tmp_path / "runs", "empty", {"a": 1}).close()
    # Of a process that died before it had written its configuration there is nothing to resume.
    (tmp_path / "runs" / "died").mkdir()
    (tmp_path / "runs" / "died" / "config.json.partial").write_text('{"a"')
    RunFolder.create(tmp_path / "runs", "died", {"a": 1}).close()


def test_nothing_to_resume(tmp_path):
    with pytest.raises(RunFolderError, match="nothing to resume: there is no run in .*second"):
        RunFolder.reopen(tmp_path, "second")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "a/b", "../a", "-x", ".hidden", "a b", "x" * 200])
def test_bad_names(tmp_path, name):
    with pytest.raises(RunFolderError, match="is no name for a run"):
        RunFolder.create(tmp_path, name, {})
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot make .*first: Not a directory"):
        RunFolder.create(tmp_path / "file", "first", {})

    def read_only(*args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(RunFolderError, match="cannot make .*first: Read-only file system"):
        RunFolder.create(tmp_path, "first", {})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_one_clear_line(tmp_path):
    run = RunFolder.create(tmp_path, "first", {})
    run.close()
    (run.path / "metrics.jsonl").unlink()
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    run = RunFolder.reopen(tmp_path, "first")
    with pytest.raises(
        RunFolderError, match="cannot write .*metrics.jsonl: No space left"
    ) as error:
        run.write_metrics({"step": 1})
    assert "\n" not in str(error.value)
    with pytest.raises(OSError):
        run.close()


def test_skills_folder_holds_exactly_the_bank(run):
    run.export_skills([Skill("a"), Skill("b")], write_skill)
    (run.skills / "a" / "more.txt").write_text("old")
    run.export_skills([Skill("b"), Skill("c")], write_skill)
    assert sorted(str(p.relative_to(run.skills)) for p in run.skills.rglob("*.md")) == [
        "b/SKILL.md",
        "c/SKILL.md",
    ]
    run.export_skills([], write_skill)
    assert list(run.skills.iterdir()) == []
    assert not list(run.path.glob("skills.*"))


def test_real_skills_are_written_as_skill_md(run):
    trigger = Trigger("action_pattern", "^go to")
    skill = RealSkill("open-first", "When it is closed.", "open.", trigger)
    run.export_skills([skill])
    assert import_skills(run.skills) == (skill,)


def test_a_failed_export_leaves_the_old_skills(run):
    run.export_skills([Skill("a")], write_skill)

    def broken(skill, folder):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunFolderError, match="cannot write .*skills: No space left on device"):
        run.export_skills([Skill("b")], broken)
    assert [p.name for p in run.skills.iterdir()] == ["a"]
