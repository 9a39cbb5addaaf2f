"""Names of numbers, TensorBoard's files, runs of W&B: without the packages, and with them."""

import importlib.util
import json
import math
import os
import struct
import sys
import types

import numpy as np
import pytest

from reskill_jax.storage import log_schema
from reskill_jax.storage.writers import WRITERS, WriterMissing, open_writers, tensorboard
from reskill_jax.storage.writers import wandb as wandb_writer
from reskill_jax.storage.writers.names import scalars_of
from reskill_jax.storage.writers.writer import Guarded

CONFIG = {"name": "first", "steps": 4, "trial": {"rule": "means", "sizes": (1, 2)}, "bank": None}

# --- names ----------------------------------------------------------------------------------------

METRICS = {
    "step": 3,
    "trials": [7],
    "success": np.float32(0.5),
    "loss": -0.25,
    "kl": np.asarray(0.125),
    "entropy": None,
    "grad_norm": math.inf,
    "clipped": math.nan,
    "turns": 4.5,
    "context_tokens": 300.0,
    "invalid": 0,
    "new metric": 2,
    "flag": True,
    "seconds": 1.5,
    "compile_seconds": 20.0,
}
EVAL = {
    "step": 3,
    "split": "unseen",
    "mode": "none",
    "success": 0.25,
    "episodes": 8,
    "interval": [0.1, 0.5],
    "turns": 6.0,
    "invalid": 1,
    "by_task_type": {"look/at it": [1, 4], "never_played": [0, 0]},
}
TRIAL = {
    "step": 3,
    "trial": 7,
    "arm_trials": [4, 0],
    "arm_success": [0.75, None],
    "assignment": [0.5, 0.5],
    "posterior": {"alpha": [3.0, 1.0], "beta": [1.0, 1.0]},
    "horizon": math.inf,
    "difference": [0.0, -0.125],
    "sequential_test": {"log_odds": [0.0, 0.5], "accept_at": 2.25, "reject_at": -2.0},
}
TABLE = [
    (
        "metrics.jsonl",
        METRICS,
        {
            "train/success": 0.5,
            "train/loss": -0.25,
            "train/kl": 0.125,
            "train/turns": 4.5,
            "train/context_tokens": 300.0,
            "train/invalid": 0.0,
            "train/new_metric": 2.0,
            "time/seconds_per_step": 1.5,
            "time/compile_seconds": 20.0,
        },
    ),
    (
        "eval.jsonl",
        EVAL,
        {
            "eval/unseen/none/success": 0.25,
            "eval/unseen/none/episodes": 8.0,
            "eval/unseen/none/interval_low": 0.1,
            "eval/unseen/none/interval_high": 0.5,
            "eval/unseen/none/turns": 6.0,
            "eval/unseen/none/invalid": 1.0,
            "eval/unseen/none/look_at_it/success": 0.25,
        },
    ),
    (
        "trials.jsonl",
        TRIAL,
        {
            "trial/7/success_old": 0.75,
            "trial/7/episodes_old": 4.0,
            "trial/7/episodes_new": 0.0,
            "trial/7/assignment_old": 0.5,
            "trial/7/assignment_new": 0.5,
            "trial/7/posterior_old": 0.75,
            "trial/7/posterior_new": 0.5,
            "trial/7/difference": -0.125,
            "trial/7/log_odds": 0.5,
            "trial/7/accept_at": 2.25,
            "trial/7/reject_at": -2.0,
        },
    ),
    ("lifecycle.jsonl", {"step": 3, "event": "accepted", "trial": 7, "horizon": 2.0}, {}),
]


@pytest.mark.parametrize("log, line, expected", TABLE, ids=[row[0] for row in TABLE])
def test_names_of_a_line(log, line, expected):
    found = scalars_of(log, line)
    assert found == expected
    assert all(type(value) is float for value in found.values())


def test_what_is_missing_has_no_name():
    assert scalars_of("metrics.jsonl", {"step": 1}) == {}
    line = {"step": 1, "split": "seen", "mode": "bank", "success": 1}
    assert scalars_of("eval.jsonl", line) == {"eval/seen/bank/success": 1.0}
    nothing = {"arm_success": [None, None], "posterior": None, "sequential_test": None}
    assert scalars_of("trials.jsonl", {"step": 1, "trial": "a/b"} | nothing) == {}
    assert scalars_of("trials.jsonl", {"step": 1, "trial": "a/b", "horizon": 2}) == {
        "trial/a_b/horizon": 2.0
    }


def test_every_number_of_the_metrics_has_a_name():
    numbers = set(log_schema.METRICS) - {"step", "trials"}
    found = scalars_of("metrics.jsonl", dict.fromkeys(numbers, 1))
    elsewhere = {name for name in numbers if name.startswith("creator_")}
    elsewhere |= {"seconds", "compile_seconds"}
    assert {name for name in found if name.startswith("train/")} == {
        f"train/{name}" for name in numbers - elsewhere
    }
    assert found["creator/calls"] == found["creator/cost"] == 1
    assert len(found) == len(numbers)


def test_an_unknown_log_is_an_error():
    with pytest.raises(ValueError, match="no log 'metrics'; there are: metrics.jsonl, eval.jsonl"):
        scalars_of("metrics", METRICS)


# --- stand-ins for the packages -------------------------------------------------------------------


def forget(monkeypatch, package):
    """As if nothing of a package had been imported."""
    for name in list(sys.modules):
        if name == package or name.startswith(package + "."):
            monkeypatch.delitem(sys.modules, name)


class Message(types.SimpleNamespace):
    """Stands for any message of an event file."""

    START = "START"
    Value = types.SimpleNamespace


class FakeTensorboardX:
    """The parts of tensorboardX that are used; every file and its events are in `files`."""

    def __init__(self, monkeypatch):
        self.files = files = {}
        self.full = False

        class EventsWriter:
            def __init__(self, prefix, suffix):
                self.name = prefix + ".out.tfevents.0.host" + suffix
                assert self.name not in files
                files[self.name] = self.events = []
                with open(self.name, "w"):
                    pass

            def write_event(this, event):
                if self.full:
                    raise OSError("no space left\non the disk")
                this.events.append(event)

            def flush(self):
                self.events.append("flushed")

            def close(self):
                self.events.append("closed")

        def text(tag, text):
            return Message(value=[Message(tag=tag, text=text)])

        parts = {
            "tensorboardX": {},
            "tensorboardX.event_file_writer": {"EventsWriter": EventsWriter},
            "tensorboardX.proto": {},
            "tensorboardX.proto.event_pb2": {"Event": Message, "SessionLog": Message},
            "tensorboardX.proto.summary_pb2": {"Summary": Message},
            "tensorboardX.summary": {"text": text},
        }
        forget(monkeypatch, "tensorboardX")
        for name, content in parts.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            monkeypatch.setitem(sys.modules, name, module)

    def events(self):
        """Of each file in the order of making, without flushes."""
        return [[e for e in events if e != "flushed"] for events in self.files.values()]


class FakeWandb(types.ModuleType):
    """A module wandb whose server keeps the steps of its runs."""

    class Error(Exception):
        pass

    class Settings(types.SimpleNamespace):
        pass

    def __init__(self, monkeypatch, *, online=True, refused=None):
        super().__init__("wandb")
        self.online, self.refused = online, refused
        self.run, self.history, self.inits, self.calls = None, {}, [], []
        self.Html = lambda text, inject: ("html", text, inject)
        forget(monkeypatch, "wandb")
        monkeypatch.setitem(sys.modules, "wandb", self)

    def setup(self, settings):
        assert settings.silent
        self.calls.append("setup")

    def teardown(self):
        self.calls.append("teardown")

    def init(self, **arguments):
        assert self.calls[0] == "setup"
        self.inits.append(arguments)
        offline = arguments["mode"] == "offline" or os.environ.get("WANDB_MODE") == "offline"
        if not offline and self.refused:
            raise self.Error(self.refused)
        if offline and self.refused:
            assert self.calls[-1] == "teardown"
        rows = [] if offline else self.history.setdefault(arguments["id"], [])
        return FakeRun(rows, offline, arguments["dir"])


class FakeRun:
    def __init__(self, rows, offline, folder):
        self.rows, self.offline, self.disabled = rows, offline, False
        self.url = None if offline else "https://somewhere/run"
        self.dir = f"{folder}/wandb/run-1/files"
        self.late = False

    @property
    def step(self):
        return self.rows[-1][0] + 1 if self.rows else 0

    def log(self, values, step):
        assert not self.rows or step >= self.rows[-1][0], "W&B refuses smaller steps"
        self.rows.append((step, values))

    def finish(self):
        if self.late:
            raise TimeoutError("timed out")
        self.rows.append((self.rows[-1][0] if self.rows else -1, "finished"))


@pytest.fixture
def told():
    return []


@pytest.fixture
def opened(tmp_path, told):
    """Opens writers of the run in tmp_path; lines for the person go to `told`."""

    def opened(*names, resume=False, config=CONFIG):
        return open_writers(names, tmp_path, config, resume=resume, notify=told.append)

    return opened


# --- opening --------------------------------------------------------------------------------------


def test_no_names_no_writers(opened):
    assert opened() == ()


def test_an_unknown_name_names_the_known_ones(opened, tmp_path):
    with pytest.raises(ValueError, match="no writer 'csv'; there are: tensorboard, wandb"):
        opened("tensorboard", "csv")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name, package", [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_missing_package_says_what_to_install(name, package, monkeypatch, opened, tmp_path):
    if name == "wandb":
        FakeTensorboardX(monkeypatch)
    forget(monkeypatch, package)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(WriterMissing) as error:
        opened(*WRITERS)
    assert str(error.value).endswith(f'install it with pip install "reskill-jax[{name}]"')
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_called_wandb_is_no_package(monkeypatch, tmp_path):
    forget(monkeypatch, "wandb")
    monkeypatch.setitem(sys.modules, "wandb", types.ModuleType("wandb"))
    with pytest.raises(WriterMissing, match="only a folder"):
        wandb_writer.load()


def test_both_get_the_same_names(monkeypatch, opened, told):
    boards, package = FakeTensorboardX(monkeypatch), FakeWandb(monkeypatch)
    writers = opened("tensorboard", "wandb", "tensorboard")
    assert len(writers) == 2
    for log, line, _ in TABLE:
        for writer in writers:
            writer.scalars(3, scalars_of(log, line))
    for writer in writers:
        writer.close()
    expected = {name: value for _, _, row in TABLE for name, value in row.items()}
    (events,) = boards.events()
    values = [value for event in events[1:-1] for value in event.summary.value]
    assert {value.tag: value.simple_value for value in values} == expected
    (rows,) = package.history.values()
    assert {name: x for _, row in rows[:-1] for name, x in row.items()} == expected
    assert told == ["W&B: https://somewhere/run"]


# --- the guard ------------------------------------------------------------------------------------


class Broken:
    def __init__(self):
        self.calls = 0

    def scalars(self, step, values):
        self.calls += 1
        if step == 2:
            raise RuntimeError("no\nnetwork")

    def text(self, step, name, text):
        self.calls += 1

    def close(self):
        self.calls += 1
        raise KeyError


def test_the_first_failure_is_told_and_is_the_last(told):
    broken = Broken()
    guarded = Guarded("x", lambda: broken, told.append)
    for step in range(1, 5):
        guarded.scalars(step, {"a": 1.0})
        guarded.text(step, "b", "c")
    guarded.close()
    assert broken.calls == 3  # step 1 twice, step 2 once
    assert told == ["nothing more goes to x, training goes on: no network"]


def test_a_failure_in_closing_is_told_once(told):
    guarded = Guarded("x", Broken, told.append)
    guarded.close()
    guarded.close()
    assert told == ["nothing more goes to x, training goes on: KeyError"]


def test_a_writer_that_cannot_be_opened_does_nothing(told):
    guarded = Guarded("x", lambda: 1 // 0, told.append)  # type: ignore[arg-type]
    guarded.scalars(1, {"a": 1.0})
    guarded.close()
    assert len(told) == 1 and "division" in told[0]


def test_who_interrupts_is_not_held_up(told):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Guarded("x", interrupt, told.append)


# --- TensorBoard ----------------------------------------------------------------------------------


def test_tensorboard_writes_numbers_and_texts(monkeypatch, opened, tmp_path):
    boards = FakeTensorboardX(monkeypatch)
    (writer,) = opened("tensorboard")
    assert boards.files == {}
    writer.scalars(1, {"train/loss": 0.5, "train/kl": 0.25})
    writer.scalars(1, {})
    writer.text(2, "accepted", "because")
    writer.close()
    ((_, numbers, text, closed),) = boards.events()
    assert numbers.step == 1 and numbers.wall_time > 0
    assert [(v.tag, v.simple_value) for v in numbers.summary.value] == [
        ("train/loss", 0.5),
        ("train/kl", 0.25),
    ]
    assert text.step == 2 and text.summary.value[0].text == "because"
    assert closed == "closed"
    assert all(name.startswith(str(tmp_path / "tensorboard" / "events")) for name in boards.files)


def test_tensorboard_purges_from_the_first_step_that_is_written_again(monkeypatch, opened):
    boards = FakeTensorboardX(monkeypatch)
    for resume, step in ((False, 0), (True, 11), (True, 11)):
        (writer,) = opened("tensorboard", resume=resume)
        writer.scalars(step, {"a": 1.0})
        writer.close()
    files = boards.events()  # of names that differ, even within one second
    # TensorBoard takes the first mark for the beginning, every later one for a restart.
    assert [events[0].session_log.status for events in files] == ["START"] * 3
    assert [[event.step for event in events[:-1]] for events in files] == [
        [0] * 2,
        [11] * 2,
        [11] * 2,
    ]
    assert [events[1].summary.value[0].tag for events in files] == ["a"] * 3


def test_a_run_that_adds_nothing_makes_no_file(monkeypatch, opened, tmp_path):
    FakeTensorboardX(monkeypatch)
    (writer,) = opened("tensorboard", resume=True)
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_flushes_the_first_and_then_at_intervals(monkeypatch, opened):
    boards = FakeTensorboardX(monkeypatch)
    now = [100.0]
    clock = types.SimpleNamespace(time=lambda: 5.0, monotonic=lambda: now[0])
    monkeypatch.setattr(tensorboard, "time", clock)
    (writer,) = opened("tensorboard")
    for moment in (100.0, 100.5, 101.25, 101.5):
        now[0] = moment
        writer.scalars(1, {"a": 1.0})
    (events,) = boards.files.values()
    assert [event == "flushed" for event in events] == [
        *(False, False, True),  # the mark, and the first number
        *(False, False, True, False),
    ]


def test_a_full_disk_does_not_end_training(monkeypatch, opened, told):
    boards = FakeTensorboardX(monkeypatch)
    (writer,) = opened("tensorboard")
    writer.scalars(1, {"a": 1.0})
    boards.full = True
    for step in range(2, 50):
        writer.scalars(step, {"a": 1.0})
    writer.close()
    assert told == ["nothing more goes to tensorboard, training goes on: no space left on the disk"]


# --- W&B ------------------------------------------------------------------------------------------


def kept(folder):
    return json.loads((folder / "wandb.json").read_text())


def test_wandb_begins_a_run(monkeypatch, opened, tmp_path):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    package = FakeWandb(monkeypatch)
    (writer,) = opened("wandb")
    (begun,) = package.inits
    assert begun["id"] == kept(tmp_path)["id"] and begun["resume"] == "allow"
    assert begun["dir"] == str(tmp_path) and begun["name"] == tmp_path.name
    assert begun["project"] == "reskill-jax" and begun["mode"] is None
    assert begun["config"] == {
        "name": "first",
        "steps": 4,
        "trial.rule": "means",
        "trial.sizes": [1, 2],
        "bank": None,
    }
    writer.scalars(0, {"a": 1.0})
    writer.scalars(0, {})
    writer.scalars(0, {"b": 2.0})
    writer.text(1, "accepted", "<because>")
    writer.close()
    (rows,) = package.history.values()
    page = ("html", "<pre>&lt;because&gt;</pre>", False)
    assert rows == [(0, {"a": 1.0}), (0, {"b": 2.0}), (1, {"accepted": page}), (1, "finished")]


def test_wandb_goes_on_with_the_same_run(monkeypatch, opened, tmp_path):
    package = FakeWandb(monkeypatch)
    (writer,) = opened("wandb")
    for step in range(5):
        writer.scalars(step, {"a": float(step)})
    assert kept(tmp_path)["step"] == 3  # killed here: of step 4 not all may have come
    (again,) = opened("wandb", resume=True)
    for step in range(3, 7):
        again.scalars(step, {"a": float(step)})
        again.text(step, "b", "c")
    again.close()
    assert kept(tmp_path)["step"] == 6
    ((_, rows),) = package.history.items()
    numbers = [(step, row["a"]) for step, row in rows if "a" in row]
    assert numbers == [(step, float(step)) for step in range(7)]
    assert [step for step, row in rows if "b" in row] == [5, 6]


def test_wandb_offline_takes_no_step_twice_either(monkeypatch, opened, tmp_path, told):
    monkeypatch.setenv("WANDB_MODE", "offline")
    package, runs = FakeWandb(monkeypatch), []
    init = package.init
    monkeypatch.setattr(package, "init", lambda **a: runs.append(init(**a)) or runs[-1])
    for resume, steps in ((False, range(5)), (True, range(3, 7))):
        (writer,) = opened("wandb", resume=resume)
        for step in steps:
            writer.scalars(step, {"a": 1.0})
        writer.close()
    assert [[step for step, row in run.rows if "a" in row] for run in runs] == [
        [0, 1, 2, 3, 4],
        [5, 6],
    ]
    assert len({begun["id"] for begun in package.inits}) == 1
    place = tmp_path / "wandb" / "run-1"
    assert told[0] == (
        "W&B is offline (as WANDB_MODE or the settings of wandb say); send the run with: "
        f"wandb sync {place}"
    )


@pytest.mark.parametrize("reason", ["No API key configured.", "dial tcp:\nconnection refused"])
def test_wandb_goes_offline_without_a_key_or_a_network(reason, monkeypatch, opened, told):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    package = FakeWandb(monkeypatch, refused=reason)
    (writer,) = opened("wandb")
    writer.scalars(1, {"a": 1.0})
    writer.close()
    assert [begun["mode"] for begun in package.inits] == [None, "offline"]
    assert len({begun["id"] for begun in package.inits}) == 1
    (line,) = told
    assert line.startswith(f"W&B is offline ({' '.join(reason.split())}); send the run with: ")


def test_a_lost_id_begins_a_new_run_and_a_damaged_one_none(monkeypatch, opened, tmp_path, told):
    package = FakeWandb(monkeypatch)
    for _ in range(2):
        opened("wandb", resume=True)[0].close()
        (tmp_path / "wandb.json").unlink()
    assert len(package.history) == 2
    (tmp_path / "wandb.json").write_text('{"id": ')
    told.clear()
    (writer,) = opened("wandb", resume=True)
    writer.scalars(1, {"a": 1.0})
    assert len(package.history) == 2
    assert len(told) == 1 and "wandb.json is damaged" in told[0]


def test_a_server_that_is_lost_on_the_way_is_told(monkeypatch, opened, told, tmp_path):
    package, runs = FakeWandb(monkeypatch), []
    init = package.init
    monkeypatch.setattr(package, "init", lambda **a: runs.append(init(**a)) or runs[-1])
    (writer,) = opened("wandb")
    writer.scalars(1, {"a": 1.0})
    runs[0].late = True
    writer.close()
    assert told[1:] == [
        "nothing more goes to wandb, training goes on: the server did not get everything; send it "
        f"with: wandb sync {tmp_path / 'wandb' / 'run-1'}"
    ]


# --- the packages themselves ----------------------------------------------------------------------


def real(package):
    """Marks a test that needs a package; asked without importing it."""
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"the package {package} is not installed")


def events_of(path):
    """The events in a file: length, its checksum, the event, its checksum; again and again."""
    from tensorboardX.proto.event_pb2 import Event

    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        found.append(Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


@real("tensorboardX")
def test_the_real_tensorboardx(opened, tmp_path, told):
    for resume, step in ((False, 3), (True, 2)):
        (writer,) = opened("tensorboard", resume=resume)
        for log, line, _ in TABLE:
            writer.scalars(step, scalars_of(log, line))
        writer.text(step, "accepted", "because")
        writer.close()
    expected = {name: value for _, _, row in TABLE for name, value in row.items()}
    files = sorted((tmp_path / "tensorboard").iterdir())
    first, second = map(events_of, files)
    assert [event.file_version for event in (first[0], second[0])] == ["brain.Event:2"] * 2
    for step, events in ((3, first), (2, second)):
        mark = events.pop(1)
        assert mark.step == step and mark.session_log.status == mark.session_log.START
        assert {event.step for event in events[1:]} == {step}
        values = [value for event in events[1:] for value in event.summary.value]
        text = values.pop()
        assert text.tag == "accepted/text_summary"
        assert list(text.tensor.string_val) == [b"because"]
        found = {value.tag: value.simple_value for value in values}
        assert found == pytest.approx(expected)
    assert told == []


@real("tensorboardX")
def test_the_real_tensorboardx_keeps_our_names():
    from tensorboardX.summary import scalar

    line = EVAL | {"mode": "ünïcode: 1.5-b_c", "by_task_type": {"": [1, 2], "a\\b/c": [1, 2]}}
    for name in scalars_of("eval.jsonl", line):
        assert scalar(name, 1.0).value[0].tag == name
    assert scalars_of("eval.jsonl", line)["eval/unseen/ünïcode__1.5-b_c/_/success"] == 0.5


@real("tensorboardX")
def test_a_real_file_that_cannot_be_written(opened, tmp_path, told):
    (tmp_path / "tensorboard").write_text("in the way")
    (writer,) = opened("tensorboard")
    for step in range(3):
        writer.scalars(step, {"a": 1.0})
    writer.close()
    assert len(told) == 1 and told[0].startswith("nothing more goes to tensorboard")


@pytest.fixture
def alone(monkeypatch, tmp_path_factory):
    """The real wandb without what this machine knows of it: no key, no settings, no server."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.teardown()
    yield monkeypatch
    wandb.teardown()


@real("wandb")
@pytest.mark.parametrize("mode", ["offline", None])
def test_the_real_wandb_offline(mode, alone, opened, tmp_path, told, capfd):
    if mode:
        alone.setenv("WANDB_MODE", mode)
    for resume in (False, True):
        (writer,) = opened("wandb", resume=resume, config=CONFIG | {"steps": 4 + 4 * resume})
        for step in (3, 4, 5 + resume):
            for log, line, _ in TABLE:
                writer.scalars(step, scalars_of(log, line))
            writer.text(step, "accepted", "because")
        writer.close()
    sys.modules["wandb"].teardown()  # what is handed over is on disk then
    folders = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and len(told) == 2
    reason = "as WANDB_MODE" if mode else "No API key configured"
    for line, folder in zip(told, folders, strict=True):
        assert line.startswith(f"W&B is offline ({reason}")
        assert line.endswith(f"wandb sync {folder}")
        assert kept(tmp_path)["id"] in folder.name
        content = next(folder.glob("*.wandb")).read_bytes()
        for name in (name for _, _, row in TABLE for name in row):
            assert name.encode() in content, name
        assert b"trial.rule" in content
    texts = [len(list(folder.glob("files/media/html/accepted_*"))) for folder in folders]
    assert texts == [3, 1]
    assert kept(tmp_path)["step"] == 6
    assert "wandb" not in capfd.readouterr().err


@real("wandb")
def test_the_real_wandb_without_a_network(alone, opened, tmp_path, told):
    alone.setenv("WANDB_API_KEY", "0" * 40)
    alone.setattr(wandb_writer, "_INIT_SECONDS", 3.0)
    (writer,) = opened("wandb")
    writer.scalars(1, {"a": 1.0})
    writer.close()
    assert len(told) == 1 and told[0].startswith("W&B is offline (")
    assert "127.0.0.1" in told[0] and "API key" not in told[0]
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 1


@real("wandb")
def test_the_real_wandb_switched_off(alone, opened, tmp_path, told):
    alone.setenv("WANDB_MODE", "disabled")
    (writer,) = opened("wandb")
    writer.scalars(1, {"a": 1.0})
    writer.close()
    assert told == [] and not (tmp_path / "wandb").exists()
