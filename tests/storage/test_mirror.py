"""A second place for a run: what is copied, in which order, and what comes back."""

import dataclasses
import errno
import io
import os
import shutil

import fsspec
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.storage import checkpoint
from reskill_jax.storage.mirror import Mirror, MirrorError, bring_back, texts_of
from reskill_jax.storage.run_folder import RunFolder, RunFolderError
from reskill_jax.worlds import registry


@dataclasses.dataclass(frozen=True)
class Written:
    name: str

    def write(self, folder):
        (folder / self.name).mkdir()
        (folder / self.name / "SKILL.md").write_text(self.name)


@pytest.fixture
def place(tmp_path):
    """A location of a kind that is no folder of this machine."""
    yield f"memory://{tmp_path.name}"
    fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


@pytest.fixture
def run(tmp_path):
    with RunFolder.create(tmp_path / "runs", "one", {"seed": 3}) as folder:
        yield folder


def put_skills(run, *names):
    run.export_skills([Written(name) for name in names], lambda skill, path: skill.write(path))


def save(run, step, value=0.0, **options):
    run.write_metrics({"step": step, "value": value})
    sizes = {"sizes": run.sizes()}
    checkpoint.save(
        run.checkpoints, step, {"x": np.full(3, value)}, sizes, {}, block=True, **options
    )


def push(mirror, run, keep=3, **options):
    lines = []
    mirror.push(run.path, texts_of(run), keep=keep, notify=lines.append, **options)
    return lines


def files_below(folder):
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
             if p.is_file()}  # fmt: skip
    return found


def test_a_lost_run_comes_back_whole(run, place, tmp_path):
    mirror = Mirror(place, "one")
    assert not mirror.holds_run()
    put_skills(run, "a", "b")
    save(run, 1)
    assert push(mirror, run) == []
    put_skills(run, "b", "c")
    save(run, 2, 2.0, keep=1)
    assert push(mirror, run, keep=1) == []
    assert mirror.holds_run() and mirror.steps() == [2]
    bring_back(place, tmp_path / "elsewhere", "one")
    assert files_below(tmp_path / "elsewhere" / "one") == files_below(run.path)
    bring_back(place, tmp_path / "elsewhere", "one")  # it is here: nothing to do


def test_a_copy_that_was_cut_off_is_made_good(run, place, tmp_path, monkeypatch):
    mirror = Mirror(place, "one")
    save(run, 1)
    push(mirror, run)
    save(run, 2)
    original, count = mirror._files.put_file, [0]

    def fails(*arguments, **options):
        count[0] += 1
        if count[0] == 3:
            raise ConnectionError("the line is dead")
        return original(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mirror._files, "put_file", fails)
        (line,) = push(mirror, run)
    assert "not written" in line and "the line is dead" in line and mirror.behind is not None
    assert mirror.steps() == [1]
    bring_back(place, tmp_path / "half", "one")
    assert checkpoint.latest_step(tmp_path / "half" / "one" / "checkpoints") == 1
    assert push(mirror, run) == [] and mirror.behind is None
    bring_back(place, tmp_path / "whole", "one")
    assert files_below(tmp_path / "whole" / "one") == files_below(run.path)


def test_a_step_that_was_made_anew_replaces_the_old_one(run, place):
    mirror = Mirror(place, "one")
    save(run, 1)
    save(run, 2, 2.0)
    push(mirror, run)
    manifest = run.checkpoints / "step_00000002" / "MANIFEST.json"
    manifest.write_text("noise")
    save(run, 2, 3.0)
    push(mirror, run)
    restored = checkpoint.restore(run.checkpoints, {"x": np.zeros(3)}, {}, step=2)
    assert restored.arrays["x"][0] == 3.0
    files = fsspec.filesystem("memory")
    there = files.cat_file(f"{mirror._root}/checkpoints/step_00000002/MANIFEST.json")
    assert there == manifest.read_bytes()


def restorable(url, place):
    """Steps that come back from a mirror whole."""
    bring_back(url, place, "one")
    folder = place / "one" / "checkpoints"
    return [
        step for step in checkpoint.steps(folder) if checkpoint.damage(path(folder, step)) is None
    ]


def path(folder, step):
    return folder / f"step_{step:08d}"


HARMS = {
    "noise": lambda step: (step / "host.json").write_bytes(
        b"#" * (step / "host.json").stat().st_size
    ),
    "manifest": lambda step: (step / "MANIFEST.json").write_text("noise"),
    "no manifest": lambda step: (step / "MANIFEST.json").unlink(),
    "folder": lambda step: shutil.rmtree(step),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_here_does_no_harm_there(run, place, tmp_path, harm):
    """Neither at the next copy nor later; and it comes back before the run goes on."""
    mirror = Mirror(place, "one")
    for step in (1, 2):
        save(run, step, keep=2)
        assert push(mirror, run, keep=2) == []
    before = files_below(run.path)
    HARMS[harm](path(run.checkpoints, 2))
    assert push(mirror, run, keep=2) == []
    assert restorable(place, tmp_path / "copy") == [1, 2]
    bring_back(place, tmp_path / "runs", "one")
    now = files_below(run.path)
    assert {name: now[name] for name in before} == before
    # It is damaged again, and this time the run has gone further when it is copied.
    HARMS[harm](path(run.checkpoints, 2))
    save(run, 3, keep=2)
    assert push(mirror, run, keep=2) == []
    assert restorable(place, tmp_path / "later")[-2:] == [2, 3]


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_there_is_copied_again_and_takes_no_place(run, tmp_path, harm):
    url = str(tmp_path / "mirror")  # a folder: it can be harmed in the same ways
    save(run, 1, keep=9)
    save(run, 2, keep=9)
    assert push(Mirror(url, "one"), run) == []
    HARMS[harm](path(tmp_path / "mirror" / "one" / "checkpoints", 2))
    mirror = Mirror(url, "one")  # of another process, which has read nothing yet
    HARMS[harm](path(run.checkpoints, 2))
    save(run, 3, keep=2)
    assert push(mirror, run, keep=2) == []
    # Two were promised: 1 stays, here as there.
    assert restorable(url, tmp_path / "copy") == [1, 3]
    shutil.rmtree(path(run.checkpoints, 3))
    bring_back(url, tmp_path / "runs", "one")
    assert checkpoint.latest_step(run.checkpoints, notify=lambda _: None) == 3
    HARMS[harm](path(tmp_path / "mirror" / "one" / "checkpoints", 3))
    assert push(mirror, run, keep=2) == []
    assert restorable(url, tmp_path / "again") == [1, 3]


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_damaged_there_alone_takes_no_place(run, tmp_path, harm):
    url = str(tmp_path / "mirror")
    for step in (1, 2):
        save(run, step)
    assert push(Mirror(url, "one"), run) == []
    shutil.rmtree(run.checkpoints)
    HARMS[harm](path(tmp_path / "mirror" / "one" / "checkpoints", 2))
    save(run, 3, keep=2)
    assert push(Mirror(url, "one"), run, keep=2) == []
    assert restorable(url, tmp_path / "copy") == [1, 3]
    save(run, 4, keep=2)
    assert push(Mirror(url, "one"), run, keep=2) == []
    assert restorable(url, tmp_path / "later") == [3, 4]


def test_what_cannot_be_read_there_is_neither_replaced_nor_deleted(
    run, place, tmp_path, monkeypatch
):
    for step in (1, 2):
        save(run, step)
        push(Mirror(place, "one"), run)
    save(run, 3)
    mirror = Mirror(place, "one")
    before, original = mirror._steps.found(), mirror._files.open

    def fails(path, mode="rb", **options):
        if mode == "rb" and "step_00000001" in path:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return original(path, mode, **options)

    with monkeypatch.context() as patched:
        patched.setattr(mirror._files, "open", fails)
        (line,) = push(mirror, run, keep=1)
        shutil.rmtree(path(run.checkpoints, 1))
        (other,) = push(mirror, run, keep=3)
    assert "checkpoint of step 1: " in line and "cannot be read: Input/output error" in line
    assert "cannot be read: Input/output error" in other
    assert mirror.steps() == [1, 2, 3] and mirror._steps.found()[1].listed == before[1].listed
    assert push(mirror, run, keep=3) == [] and mirror.steps() == [1, 2, 3]


def test_what_was_read_once_is_not_fetched_again(run, place, monkeypatch):
    save(run, 1)
    push(Mirror(place, "one"), run)
    mirror, fetched = Mirror(place, "one"), []
    original = mirror._files.open

    def opened(path, mode="rb", **options):
        if mode == "rb":
            fetched.append(path.split("/")[-2])
        return original(path, mode, **options)

    monkeypatch.setattr(mirror._files, "open", opened)

    def pushed(step):
        save(run, step)
        fetched.clear()
        push(mirror, run)
        return {name for name in fetched if name.startswith("step_")}

    assert pushed(2) == {"step_00000001"}  # written by another process
    assert pushed(3) == set() and pushed(4) == set()
    assert mirror.steps() == [2, 3, 4]


def test_a_line_that_dies_while_a_step_is_replaced(run, place, tmp_path, monkeypatch):
    """Wherever it is cut off, the old or the new step comes back."""
    mirror = Mirror(place, "one")
    save(run, 2, 2.0, keep=1)
    push(mirror, run, keep=1)
    (path(run.checkpoints, 2) / "host.json").write_text("noise")
    save(run, 2, 3.0, keep=1)
    files = mirror._files
    for calls in range(60):
        mirror._steps._files = Cut(files, calls)
        mirror._steps.__dict__["_digests"].clear()
        try:
            mirror._steps.copy(run.checkpoints)
            done = True
        except OSError:
            done = False
        mirror._steps._files = files
        assert restorable(place, tmp_path / f"copy{calls}") == [2]
        if done:
            break
    assert done and calls > 10
    folder = tmp_path / f"copy{calls}" / "one" / "checkpoints"
    assert checkpoint.restore(folder, {"x": np.zeros(3)}, {}).arrays["x"][0] == 3.0
    assert not list(folder.glob("*.partial"))


def test_a_step_that_was_being_replaced_counts(run, place, tmp_path, monkeypatch):
    """The line died before it was in its place; then it is damaged here, and the run goes on."""
    mirror = Mirror(place, "one")
    save(run, 2, 2.0, keep=2)
    push(mirror, run, keep=2)
    (path(run.checkpoints, 2) / "host.json").write_text("noise")
    save(run, 2, 3.0, keep=2)
    upload = mirror._steps._upload

    def cut(source, name):
        if not name.endswith(".partial"):
            raise ConnectionError("the line is dead")
        upload(source, name)

    with monkeypatch.context() as patched:
        patched.setattr(mirror._steps, "_upload", cut)
        assert len(push(mirror, run, keep=2)) == 1
    saved = files_below(path(run.checkpoints, 2))
    (path(run.checkpoints, 2) / "host.json").write_text("noise")
    for step, there in ((3, [2, 3]), (4, [3, 4])):
        assert restorable(place, tmp_path / f"before{step}")[0] == 2
        bring_back(place, tmp_path / "runs", "one")
        assert files_below(path(run.checkpoints, 2)) == saved
        (path(run.checkpoints, 2) / "host.json").write_text("noise")
        save(run, step, keep=2)
        assert push(mirror, run, keep=2) == []
        assert [s for s in restorable(place, tmp_path / f"after{step}") if s in there] == there
    assert [s for s in restorable(place, tmp_path / "last")][-2:] == [3, 4]


class Cut:
    """A file system whose line dies after so many calls."""

    def __init__(self, files, calls):
        self.files, self.left = files, calls

    def __getattr__(self, name):
        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the line is dead")
            return getattr(self.files, name)(*arguments, **options)

        return call


def test_a_folder_half_deleted_comes_back(run, place, tmp_path):
    mirror = Mirror(place, "one")
    put_skills(run, "a")
    for step in (1, 2, 3):
        save(run, step)
        push(mirror, run)
    run.close()
    before = files_below(run.path)
    (run.path / "config.json").unlink()
    (run.path / "metrics.jsonl").write_bytes(before["metrics.jsonl"][:20])
    (run.path / "lifecycle.jsonl").unlink()
    for step in (1, 3):
        shutil.rmtree(path(run.checkpoints, step))
    bring_back(place, tmp_path / "runs", "one")
    with RunFolder.reopen(tmp_path / "runs", "one") as again:
        restored = checkpoint.restore(again.checkpoints, {"x": np.zeros(3)}, {})
        assert restored.step == 3
        again.check_sizes(restored.host["sizes"])
    now = files_below(run.path)
    newest = {name for name in before if "/" not in name or "step_00000003" in name}
    assert {name: now[name] for name in newest} == {name: before[name] for name in newest}


def test_a_first_copy_that_was_cut_off_hinders_nothing(run, place, tmp_path):
    """A run goes on from what it has here."""
    save(run, 1)
    mirror = Mirror(place, "one")
    mirror._files.pipe_file(f"{mirror._root}/config.json", b"{}")
    before = files_below(run.path)
    bring_back(place, tmp_path / "runs", "one")
    (run.path / "metrics.jsonl").write_bytes(b"")  # nor can it help
    bring_back(place, tmp_path / "runs", "one")
    mirror.check(run.path)
    assert files_below(run.path) == before | {"metrics.jsonl": b""}


def test_another_history_is_not_mixed_in(run, place, tmp_path):
    """A run that has gone on without its mirror, from an earlier step."""
    mirror = Mirror(place, "one")
    for step in (1, 2, 3):
        save(run, step)
        push(mirror, run)
    sizes = checkpoint.restore(run.checkpoints, {"x": np.zeros(3)}, {}, step=1).host["sizes"]
    checkpoint.set_aside_later_steps(run.checkpoints, 1, notify=lambda _: None)
    run.truncate_to(sizes)
    save(run, 2, 2.5)
    before = files_below(run.path)
    bring_back(place, tmp_path / "runs", "one")
    assert files_below(run.path) == before
    with pytest.raises(MirrorError, match="is at step 3, .* at step 2: move the folder away"):
        mirror.check(run.path)
    save(run, 4, 2.5)  # past it: the mirror follows
    mirror.check(run.path)
    push(mirror, run)
    assert restorable(place, tmp_path / "copy") == [1, 2, 3, 4]
    copies = tmp_path / "copy" / "one" / "checkpoints"
    assert files_below(path(copies, 2)) == files_below(path(run.checkpoints, 2))


@pytest.mark.parametrize("name", ["..", "../x", "/tmp/x", ""])
def test_the_name_of_a_run_leads_nowhere_else(tmp_path, place, name):
    fsspec.filesystem("memory").pipe_file(place.removeprefix("memory:/") + "/config.json", b"{}")
    with pytest.raises(RunFolderError, match="is no name for a run"):
        bring_back(place, tmp_path / "runs", name)
    assert list(tmp_path.iterdir()) == []


def test_what_would_lose_something_is_refused(run, place, tmp_path):
    mirror = Mirror(place, "one")
    save(run, 1)
    save(run, 5)
    push(mirror, run)
    mirror.check(run.path)
    with RunFolder.create(tmp_path / "old", "one", {}) as old:
        save(old, 1)
        with pytest.raises(MirrorError, match="is at step 5, .* at step 1: move the folder away"):
            mirror.check(old.path)


def test_a_place_with_a_name_that_could_be_a_pattern(run, tmp_path):
    url = str(tmp_path / "runs[1]*?")
    mirror = Mirror(url, "one")
    put_skills(run, "a", "b")
    save(run, 1)
    assert push(mirror, run) == []
    put_skills(run, "b")
    save(run, 2)
    assert push(mirror, run, keep=1) == []
    assert mirror.steps() == [1, 2]  # 1 is here still
    bring_back(url, tmp_path / "copy", "one")
    assert files_below(tmp_path / "copy" / "one") == files_below(run.path)
    with pytest.raises(MirrorError, match=r"memory://x\[1\]: .* must not hold"):
        Mirror("memory://x[1]", "one")


def test_places_that_do_not_work(tmp_path, place):
    with pytest.raises(MirrorError, match="--mirror nowhere://x: Protocol not known: nowhere"):
        Mirror("nowhere://x", "one")
    fsspec.filesystem("memory").makedirs(place.removeprefix("memory:/"))
    with pytest.raises(MirrorError, match="nothing to resume: there is no run in .*one, nor in"):
        bring_back(place, tmp_path, "one")


class Files:
    """A file system that holds what it should not, or cannot be reached."""

    def __init__(self, *names):
        self.names = names

    def exists(self, path):
        return bool(self.names)

    def find(self, root):
        if not self.names[0]:
            raise ConnectionResetError("the line\nis dead")
        return [f"{root}/{name}" for name in self.names]


@pytest.mark.parametrize(
    ("name", "word"), [("../../x", "leads out of it"), ("", "cannot be read: the line is dead")]
)
def test_what_comes_from_a_mirror_stays_in_its_folder(tmp_path, name, word):
    mirror = Mirror("memory://evil", "one")
    mirror._files = Files(name)
    with pytest.raises(MirrorError, match=word):
        mirror.pull(tmp_path / "here" / "one")
    assert not (tmp_path / "here" / "one").exists() and not (tmp_path / "x").exists()


def test_a_run_goes_on_from_its_mirror_on_another_machine(lab, tmp_path, monkeypatch, place):
    from reskill_jax.training import loop

    monkeypatch.setattr(registry, "make_world", lab.make_world)
    config = dataclasses.replace(lab.config, name="m", keep_best=True, keep=1)

    def train(root, *, resume=False, observer=None, **changes):
        settings = dataclasses.replace(config, root=str(tmp_path / root), **changes)
        console = Console(file=io.StringIO())
        return loop.train(settings, resume=resume, console=console, observer=observer)

    def interrupt(step, *_):
        if step == 5:
            raise KeyboardInterrupt

    alone = train("alone")
    with pytest.raises(KeyboardInterrupt):
        train("first", mirror=place, observer=interrupt)
    with pytest.raises(RunFolderError, match="exists already: continue it with --resume"):
        train("third", mirror=place)
    moved = train("second", mirror=place, resume=True)
    for log in ("trials.jsonl", "eval.jsonl", "lifecycle.jsonl"):
        assert (alone.folder / log).read_text() == (moved.folder / log).read_text()
    best = checkpoint.best_step(moved.folder / "checkpoints", "unseen")
    assert best in (0, 4, 8, 12)
    assert set(Mirror(place, "m").steps()) == {best, 12}
