"""Which checkpoints stay, whatever is damaged, in whatever order: here, and in a mirror."""

import errno
import itertools
import json
import math
import os
import random
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.storage import checkpoint, checkpoint_files
from reskill_jax.storage.checkpoint_files import CheckpointError, Damage
from reskill_jax.storage.checkpoint_retention import outdated
from reskill_jax.storage.mirror import Mirror, MirrorError, bring_back, texts_of
from reskill_jax.storage.run_folder import RunFolder

FILES = "MANIFEST.json", "host.json", "config.json", "leaves.json"


def save(folder, step, *, score=None, keep=2, best=False, told=None, **options):
    """A checkpoint without arrays: nothing but files, as all the others are."""
    metrics = {} if score is None else {"unseen": score}
    checkpoint.save(
        folder, step, {}, {"step": step}, {}, metrics=metrics, keep=keep, block=True,
        best_by="unseen" if best else None,
        notify=(lambda _: None) if told is None else told.append, **options,
    )  # fmt: skip


def path_of(folder, step):
    return folder / f"step_{step:08d}"


# --- the rule -------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.integers(0, 12),
        st.tuples(st.sampled_from(["whole", "damaged", "unreadable", "no manifest"]),
                  st.sampled_from([None, 0.1, 0.5, 0.9, math.nan])),
    ),
    st.integers(1, 4),
    st.booleans(),
)  # fmt: skip
@settings(max_examples=300)
def test_the_rule(found, keep, best):
    harms = {
        "whole": None,
        "damaged": Damage("x"),
        "unreadable": Damage("x", certain=False),
        "no manifest": Damage("x"),
    }
    metrics = {
        step: {} if score is None else {"unseen": score}
        for step, (state, score) in found.items()
        if state != "no manifest"
    }
    doomed, damaged = outdated(
        found, metrics, lambda step: harms[found[step][0]], keep=keep,
        best_by="unseen" if best else None,
    )  # fmt: skip
    whole = sorted(step for step, (state, _) in found.items() if state == "whole")
    scored = [s for s in whole if found[s][1] is not None and math.isfinite(found[s][1])]
    stay = set(whole[-keep:])
    if best and scored:
        stay.add(max(scored, key=lambda step: (found[step][1], step)))
    # Of those that can be restored exactly these stay.
    assert set(whole) - doomed == stay
    if len(whole) < keep:
        assert not doomed
    assert all(found[step][0] != "no manifest" for step in doomed)
    assert all(found[step][0] != "whole" for step in damaged)
    # What may be the best, once it can be read again, stays too.
    if best and scored:
        best_score = max(found[step][1] for step in scored)
        perhaps = {
            step
            for step, (state, score) in found.items()
            if state == "unreadable" and score is not None and score > best_score
        }
        assert not doomed & perhaps


# --- examples -------------------------------------------------------------------------------------


def damage_host(folder, step):
    path = path_of(folder, step) / "host.json"
    path.write_bytes(b"#" * path.stat().st_size)


def test_a_damaged_checkpoint_takes_no_place(tmp_path):
    """The newest of three is damaged; its number is written again, others follow."""
    for step in (2, 4, 6):
        save(tmp_path, step)
    assert checkpoint.steps(tmp_path) == [4, 6]
    damage_host(tmp_path, 6)
    assert checkpoint.latest_step(tmp_path, notify=lambda _: None) == 4
    told = []
    save(tmp_path, 7, told=told)  # not 6: the run saves at another step now
    assert checkpoint.steps(tmp_path) == [4, 6, 7]
    assert told == [
        "checkpoint of step 6 does not count among those to keep: host.json is damaged (its "
        "checksum differs)"
    ]
    save(tmp_path, 8)
    assert checkpoint.steps(tmp_path) == [7, 8]  # two whole ones are newer


def test_the_best_that_can_be_restored_stays(tmp_path):
    for step, score in ((1, 0.5), (2, 0.9), (3, 0.1), (4, 0.7)):
        save(tmp_path, step, score=score, keep=9)
    damage_host(tmp_path, 2)
    told = []
    assert checkpoint.best_step(tmp_path, "unseen", notify=told.append) == 4
    assert told == ["checkpoint of step 2 skipped: host.json is damaged (its checksum differs)"]
    for step in (5, 6, 7):
        save(tmp_path, step, score=0.2, best=True, keep=2)
    assert checkpoint.steps(tmp_path) == [4, 6, 7]
    damage_host(tmp_path, 4)
    save(tmp_path, 8, score=0.0, best=True, keep=1)
    assert checkpoint.steps(tmp_path) == [7, 8]  # 0.2, the later of two
    damage_host(tmp_path, 7)
    damage_host(tmp_path, 8)
    assert checkpoint.best_step(tmp_path, "unseen", notify=lambda _: None) is None


def test_what_cannot_be_read_now_may_be_the_best(tmp_path, monkeypatch):
    for step, score in ((1, 0.9), (2, 0.5), (3, 0.1)):
        save(tmp_path, step, score=score, best=True, keep=1)
    assert checkpoint.steps(tmp_path) == [1, 3]
    sha256, told = checkpoint_files.sha256, []

    def failing(file):
        if "step_00000001/" in file.as_posix():
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return sha256(file)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint_files, "sha256", failing)
        assert checkpoint.damage(path_of(tmp_path, 1)) == (
            "config.json cannot be read: Input/output error"
        )
        checkpoint_files._sha256_of.cache_clear()
        save(tmp_path, 4, score=0.2, best=True, keep=1, told=told)
    assert checkpoint.steps(tmp_path) == [1, 4]
    assert "config.json cannot be read" in told[0]
    assert checkpoint.best_step(tmp_path, "unseen") == 1


def test_old_checkpoints_are_read_in_full_once(tmp_path, monkeypatch):
    """And again when something was done to them: then they take no place."""
    monkeypatch.setattr(checkpoint_files, "SETTLES_AFTER", 0.0)
    checkpoint_files._sha256_of.cache_clear()
    sha256, read = checkpoint_files.sha256, []

    def counted(file):
        read.append(file.parent.name.removesuffix(".partial"))
        return sha256(file)

    monkeypatch.setattr(checkpoint_files, "sha256", counted)
    for step in range(1, 9):
        read.clear()
        save(tmp_path, step, keep=4)
        # The new one for its manifest; the one before for the first time since it was renamed.
        assert set(read) <= {f"step_{step:08d}", f"step_{step - 1:08d}"}
        assert len(read) <= 2 * (len(FILES) - 1)
    file = path_of(tmp_path, 6) / "host.json"
    kept = file.stat()
    file.write_bytes(bytes(kept.st_size))
    os.utime(file, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # as if it had not been touched
    save(tmp_path, 9, keep=4)
    assert checkpoint.steps(tmp_path) == [5, 6, 7, 8, 9]


def test_what_has_changed_only_just_now_is_not_remembered(tmp_path, monkeypatch):
    """A clock that ticks every two seconds does not tell two changes from one."""
    file = tmp_path / "file"
    file.write_bytes(b"one")
    first = checkpoint_files.remembered_sha256(file)
    stat = Path.stat
    same = stat(file)
    monkeypatch.setattr(Path, "stat", lambda *_, **__: same)
    with open(file, "wb") as stream:
        stream.write(b"two")
    assert checkpoint_files.remembered_sha256(file) != first


@pytest.mark.parametrize("call", ["rmtree", "rename"])
def test_what_cannot_be_deleted_does_not_fail_the_save(tmp_path, monkeypatch, call):
    for step in (1, 2):
        save(tmp_path, step)
    module = {"rmtree": shutil, "rename": os}[call]
    original, told = getattr(module, call), []

    def refuses(path, *arguments, **options):
        if "step_00000001" in str(path):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return original(path, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(module, call, refuses)
        save(tmp_path, 3, told=told)
        save(tmp_path, 4, told=told)
    assert checkpoint.steps(tmp_path)[-2:] == [3, 4] and told
    for line in told:
        assert "/step_00000001" in line
        assert line.endswith(" cannot be deleted and stays for now: Device or resource busy")
    save(tmp_path, 5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000004", "step_00000005"]


def test_leftovers_take_no_room_from_a_save(tmp_path, monkeypatch):
    save(tmp_path, 1)
    left = tmp_path / "step_00000000.partial" / "arrays"
    left.mkdir(parents=True)
    (left / "large").write_bytes(b"x" * 1000)
    usage = shutil.disk_usage(tmp_path)

    def free(_):
        return usage._replace(free=0 if left.exists() else 10**9)

    monkeypatch.setattr(shutil, "disk_usage", free)
    checkpoint.save(tmp_path, 2, {"x": np.ones(3)}, {}, {}, block=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_00000001", "step_00000002"]


@pytest.mark.parametrize("name", ["step_000000009", "step_٠٠٠٠٠٠٠٩", "step_9", "step_00000009x"])
def test_other_names_are_no_steps(tmp_path, name):
    save(tmp_path, 3)
    path_of(tmp_path, 3).rename(tmp_path / name)
    assert checkpoint.steps(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        b"", b"\xff\xfe", b"[" * 100_000, b"null", b"{}", b'{"body": 1, "sha256": 2}',
        b'{"body": {"format": 1' + b"0" * 5000 + b'}, "sha256": ""}',
    ],
)  # fmt: skip
def test_any_manifest_is_judged(tmp_path, text):
    save(tmp_path, 1)
    (path_of(tmp_path, 1) / "MANIFEST.json").write_bytes(text)
    assert checkpoint.damage(path_of(tmp_path, 1)) == "MANIFEST.json is damaged"
    assert checkpoint.best_step(tmp_path, "unseen") is None


def test_a_link_that_leads_nowhere_is_set_aside(tmp_path):
    path_of(tmp_path, 5).symlink_to(tmp_path / "gone")
    save(tmp_path, 5)
    assert checkpoint.damage(path_of(tmp_path, 5)) is None
    assert (tmp_path / "step_00000005.damaged1").is_symlink()


def test_a_step_made_anew_is_not_mixed_up_with_the_old_one(tmp_path):
    """A run goes on from step 4, as step 6 is damaged; then the old step 6 is repaired."""
    for step in (2, 4, 6):
        save(tmp_path, step, keep=3)
    host = path_of(tmp_path, 6) / "host.json"
    content = host.read_bytes()
    host.write_bytes(b"noise")
    checkpoint.set_aside_later_steps(tmp_path, 4)
    (tmp_path / "step_00000006.damaged1" / "host.json").write_bytes(content)
    assert checkpoint.latest_step(tmp_path) == 4
    save(tmp_path, 6, keep=3)
    with pytest.raises(CheckpointError, match="exists already"):
        save(tmp_path, 6, keep=3)
    assert checkpoint.steps(tmp_path) == [2, 4, 6]


# --- any order ------------------------------------------------------------------------------------


class Cut:
    """A file system whose line dies after so many calls."""

    def __init__(self, files, calls):
        self.files, self.left = files, calls

    def __getattr__(self, name):
        found = getattr(self.files, name)
        if not callable(found):
            return found

        def call(*arguments, **options):
            self.left -= 1
            if self.left < 0:
                raise ConnectionError("the line is dead")
            return found(*arguments, **options)

        return call


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")
            if p.is_file()}  # fmt: skip


class History:
    """A run and its mirror, with what they must hold, judged by the bytes that were saved."""

    def __init__(self, place, url, keep, best):
        self.place, self.url, self.keep, self.best = place, url, keep, best
        self.files = fsspec.filesystem("memory")
        self.below = url.removeprefix("memory:/") + "/one/checkpoints"
        self.saved = {}  # step -> [(contents, score)] of all that was written under this number
        self.step = 0
        self.run = RunFolder.create(place, "one", {})
        self.mirror = Mirror(url, "one")
        self.numbers = itertools.count()

    @property
    def folder(self):
        return self.run.checkpoints

    def whole(self, folder):
        """Step -> score, of those whose files are those that were saved."""
        found = {}
        for step in checkpoint.steps(folder):
            now = contents(path_of(folder, step))
            for then, score in self.saved.get(step, []):
                if then == now:
                    found[step] = score
        return found

    def whole_there(self):
        """Those that would come back from the mirror."""
        target = self.place / f"pulled{next(self.numbers)}"
        if not self.mirror.holds_run():
            return {}
        Mirror(self.url, "one").pull(target)
        return self.whole(target / "checkpoints")

    def to_stay(self, whole):
        """The newest, and the best."""
        stay = set(sorted(whole)[-self.keep :])
        scored = [step for step, score in whole.items() if score is not None]
        if self.best and scored:
            stay.add(max(scored, key=lambda step: (whole[step], step)))
        return stay

    def save(self, ahead, score, cut):
        self.step += ahead
        step = self.step
        here, there = self.whole(self.folder), self.whole_there()
        self.run.write_metrics({"step": step, "score": score, "attempt": next(self.numbers)})
        host = {"sizes": self.run.sizes(), "attempt": next(self.numbers)}
        texts, best = texts_of(self.run), "unseen" if self.best else None

        def after(path):
            self.saved.setdefault(step, []).append((contents(path), score))

        checkpoint.save(
            self.folder, step, {}, host, {}, metrics={} if score is None else {"unseen": score},
            keep=self.keep, best_by=best, block=True, after=after, notify=lambda _: None,
        )  # fmt: skip
        here[step] = score
        assert set(self.whole(self.folder)) == self.to_stay(here)
        if cut is not None:
            self.mirror._files = self.mirror._steps._files = Cut(self.files, cut)
        lines = []
        self.mirror.push(
            self.run.path, texts, keep=self.keep, best_by=best, notify=lines.append
        )  # fmt: skip
        self.mirror._files = self.mirror._steps._files = self.files
        now, here = set(self.whole_there()), self.whole(self.folder)
        stay = self.to_stay(there | here)
        if lines:  # nothing is deleted there before everything here is there
            assert "the line is dead" in self.mirror.behind
            assert set(there) <= now or set(here) | stay <= now
            return
        # Every step here is there; what else was whole there stays as long as it has to.
        assert set(here) | stay <= now <= stay | set(checkpoint.steps(self.folder))

    def has_another_history(self, step):
        """Whether the logs here are not those that a step in the mirror counts on."""
        there = self.place / f"pulled{next(self.numbers)}"
        Mirror(self.url, "one").pull(there)
        host = json.loads((path_of(there / "checkpoints", step) / "host.json").read_bytes())
        size = host["sizes"]["metrics.jsonl"]
        logs = [(path / "metrics.jsonl").read_bytes()[:size] for path in (there, self.run.path)]
        return len(logs[0]) < size or not logs[0].startswith(logs[1])

    def harm(self, where, which, how, number):
        if where == "here":
            folder = self.folder
            if numbers := checkpoint.steps(folder):
                damage_in(path_of(folder, numbers[which % len(numbers)]), how, number)
        elif steps := self.mirror.steps():
            step = steps[which % len(steps)]
            target = f"{self.below}/step_{step:08d}"
            copy = self.place / f"harm{next(self.numbers)}"
            self.files.get(target, str(copy), recursive=True)
            before = contents(copy)
            damage_in(copy, how, number)
            after = contents(copy) if copy.is_dir() else {}
            for name in before:
                if name not in after:
                    self.files.rm(f"{target}/{name}")
                elif after[name] != before[name]:
                    self.files.pipe_file(f"{target}/{name}", after[name])

    def resume(self):
        here, there = self.whole(self.folder), self.whole_there()
        self.run.close()
        bring_back(self.url, self.place, "one")
        self.mirror = Mirror(self.url, "one")
        self.run = RunFolder.reopen(self.place, "one")
        assert set(here) <= set(self.whole(self.folder))
        try:
            self.mirror.check(self.run.path)
        except MirrorError:
            assert max(there) > max(here, default=-1) and self.has_another_history(max(there))
            return False
        newest = checkpoint.latest_step(self.folder, notify=lambda _: None)
        assert newest == max({*here, *there}, default=None)
        if newest is None:
            return False
        host = checkpoint.restore(self.folder, {}, {}, newest).host
        self.run.check_sizes(host["sizes"])
        checkpoint.set_aside_later_steps(self.folder, newest, notify=lambda _: None)
        self.run.truncate_to(host["sizes"])
        assert set(there) <= set(self.whole_there()) and set(here) <= set(self.whole(self.folder))
        self.step = newest
        return True


def damage_in(path, how, number):
    """Harms one file of a step, or the whole folder."""
    draw = random.Random(number)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    if how == "folder" or not files:
        shutil.rmtree(path)
        return
    file = path / "MANIFEST.json" if how == "manifest" else draw.choice(files)
    content = file.read_bytes() if file.exists() else b""
    if how == "missing" or not content:
        file.unlink(missing_ok=True)
    elif how == "flipped":
        place = draw.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    else:  # truncated, manifest
        file.write_bytes(content[: len(content) // 2])


def events(draw, count=24):
    """What happens to a run, mostly saves, and mostly to its newest checkpoints."""
    for _ in range(count):
        event = draw.choices(["save", "harm", "resume"], [6, 4, 2])[0]
        if event == "save":
            cut = draw.randrange(40) if draw.random() < 0.2 else None
            yield event, draw.randint(1, 2), draw.choice([None, 0.1, 0.5, 0.9]), cut
        elif event == "harm":
            how = draw.choice(["flipped", "truncated", "missing", "folder", "manifest"])
            which = draw.choice([-1, -1, -1, -2, -2, 0, 1])
            yield event, draw.choice(["here", "there"]), which, how, draw.randrange(100)
        else:
            yield (event,)


@pytest.mark.parametrize("seed", range(24))
def test_nothing_that_is_promised_is_lost(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # nobody pulls the plug here
    draw = random.Random(seed)
    history = History(
        tmp_path, f"memory://{tmp_path.name}", draw.randint(1, 3), draw.random() < 0.5
    )
    try:
        for name, *arguments in events(draw):
            if getattr(history, name)(*arguments) is False:
                break
    finally:
        history.run.close()
        if history.files.exists(f"/{tmp_path.name}"):
            history.files.rm(f"/{tmp_path.name}", recursive=True)
