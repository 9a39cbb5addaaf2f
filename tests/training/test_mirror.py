"""A second place for a run: what is copied, in which order, and what comes back."""

import dataclasses
import io

import fsspec
import numpy as np
import pytest
from rich.console import Console

from reskill_jax.training import checkpoint
from reskill_jax.training.mirror import Mirror, MirrorError, bring_back, texts_of
from reskill_jax.training.run_folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Written:
    name: str

    def write(self, folder):
        (folder / self.name).mkdir()
        (folder / self.name / "SKILL.md").write_text(self.name)


@pytest.fixture
def place(tmp_path, request):
    """A location of a kind that is no folder of this machine, and its files."""
    url = f"memory://{request.node.name}"
    yield url
    fsspec.filesystem("memory").rm(f"/{request.node.name}", recursive=True)


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


def push(mirror, run):
    lines = []
    mirror.push(run.path, texts_of(run), notify=lines.append)
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
    assert push(mirror, run) == []
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
    there = files.cat_file(f"{mirror._step(2)}/MANIFEST.json")
    assert there == manifest.read_bytes()


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
    from reskill_jax.training.run_folder import RunFolderError

    monkeypatch.setattr(loop, "HouseholdWorld", lab.world_type)
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
    for log in ("eval.jsonl", "lifecycle.jsonl"):
        assert (alone.folder / log).read_text() == (moved.folder / log).read_text()
    best = checkpoint.best_step(moved.folder / "checkpoints", "unseen")
    assert best in (0, 4, 8, 12)
    assert set(Mirror(place, "m").steps()) == {best, 12}
