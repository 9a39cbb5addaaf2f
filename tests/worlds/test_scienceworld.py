import gzip
import json
import os
import pickle
import signal
import sys
import types
from pathlib import Path

import pytest

from reskill_jax.worlds import scienceworld
from reskill_jax.worlds.scienceworld import EngineError, ScienceWorld, ScienceWorldMissing
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.sessions.source import Source
from reskill_jax.worlds.world import TaskSpec

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
needs_engine = pytest.mark.skipif(
    not scienceworld.installed(), reason="needs the extra scienceworld and Java"
)

with gzip.open(GOLDEN / "scienceworld.json.gz", "rt") as _file:
    RECORDED = json.load(_file)
EPISODES = {f"{one['task']}/{one['variation']}": one for one in RECORDED["episodes"]}


def task(name="power-component", variation=3):
    return TaskSpec(f"{name}/{variation}", name, name, (name, variation))


# --- a simulator of ours, in place of the package ------------------------------------------------


class Server:
    """Commands have the scores that they name: "60", "100" (completed), "-100"."""

    def __init__(self):
        self.said, self.score, self.dead = [], 0, False

    def call(self, value):
        if self.dead:
            raise ConnectionError("Answer from Java side\nis empty")
        return value

    def reset(self):
        self.said, self.score = [], 0
        return self.call("")

    def step(self, command):
        self.said.append(command)
        if command.lstrip("-").isdigit():
            self.score = int(command) / 100
        return self.call(f"You {command}.")

    def getScore(self):
        return self.call(self.score)

    def getCompleted(self):
        return self.call(self.score == 1)

    def getValidActionObjectCombinationsJSON(self):
        actions = ["wait", "reset task", "task", "look at axe", "wait"]
        return self.call(json.dumps({"validActions": [{"action": one} for one in actions]}))


@pytest.fixture
def started(monkeypatch):
    """Simulators that were started, with the options that Java saw."""
    found = []

    class ScienceWorldEnv:
        def __init__(self):
            self.server, self.loaded, self.closed = Server(), [], False
            self.options = os.environ["JAVA_TOOL_OPTIONS"]
            found.append(self)

        def load(self, *what):
            if what[1] == 9:
                raise RuntimeError("no such house")
            self.loaded.append(self.server.call(what))

        def taskdescription(self):
            return self.server.call("Task Description:\nYour task is to wait.")

        def get_num_moves(self):
            return self.server.call(0)

        def close(self):
            self.closed = True
            raise ConnectionError("it is gone")

    module = types.SimpleNamespace(ScienceWorldEnv=ScienceWorldEnv)
    monkeypatch.setitem(sys.modules, "scienceworld", module)
    monkeypatch.setattr(scienceworld.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(scienceworld, "_idle", [])
    monkeypatch.delenv("JAVA_TOOL_OPTIONS", raising=False)
    return found


def test_the_table_is_what_was_recorded():
    recorded = {
        name: (one["train"], one["dev"], one["test"]) for name, one in RECORDED["tasks"].items()
    }
    assert scienceworld.VARIATIONS == recorded
    assert {n: sum(v) for n, v in recorded.items()} == {
        name: one["max"] for name, one in RECORDED["tasks"].items()
    }


def test_splits_of_the_reference(started):
    world = ScienceWorld()
    train, seen, unseen = map(world.tasks, ("train", "seen", "unseen"))
    assert [len(split) for split in (train, seen, unseen)] == [460, 230, 155]
    assert train[3] == TaskSpec(
        "power-component/3", "power component", "power-component", ("power-component", 3)
    )
    assert [one.data[1] for one in train] == [*range(10), *range(450)]
    assert [one.data[1] for one in seen] == [*range(10, 15), *range(450, 675)]
    assert [one.data[1] for one in unseen] == [*range(10, 15), *range(300, 450)]
    assert {one.kind for one in unseen}.isdisjoint(one.kind for one in train)
    assert world.tasks("train") == train and not started
    assert world.sessions_per_worker == 1


def test_other_tasks():
    world = ScienceWorld(tasks=["boil", "melt"], unseen=[])
    assert [one.id for one in world.tasks("seen")][:2] == ["boil/14", "boil/15"]
    assert len(world.tasks("train")) == 28 and world.tasks("unseen") == []


def test_the_instruction_names_the_commands():
    assert "connect OBJ to OBJ, " in ScienceWorld().instruction
    for episode in RECORDED["episodes"]:
        told = ScienceWorld(simplifications=episode["simplification"]).instruction
        listed = told.split(": ")[1].split(". ")[0].split(", ")
        assert [*listed, "reset task", "task"] == [
            *(c for c in episode["possible_actions"] if "task" not in c),
            *("reset task", "task"),
        ]
    assert "connect" not in ScienceWorld(tasks=["boil"], unseen=[]).instruction
    assert "connect" in ScienceWorld(tasks=["boil"], unseen=[], simplifications="").instruction


@pytest.mark.parametrize(
    "wrong, words",
    [
        (dict(tasks=["boil", "fly"]), "no task 'fly'; it has boil, "),
        (dict(unseen="boil"), "not as the text 'boil'"),
        (dict(tasks=["boil", "boil"]), "named twice"),
        (dict(simplifications="easy, openDoors"), "without spaces; got 'easy, openDoors'"),
        (dict(simplifications="noElectricalAction"), "power-component cannot be solved"),
        (dict(success="won"), "score>70, complete, got 'won'"),
        (dict(memory="256"), 'such as "256m"'),
    ],
)
def test_settings_are_checked(wrong, words):
    with pytest.raises(ValueError, match=words):
        ScienceWorld(**wrong)


def test_unknown_splits_and_tasks(started):
    with pytest.raises(ValueError, match="must be train, seen or unseen, got 'test'"):
        ScienceWorld().tasks("test")
    for wrong in (task("fly"), task(variation=20), task(variation=-1)):
        with pytest.raises(ValueError, match="no variation"):
            ScienceWorld().open(wrong)
    assert not started


def test_an_episode(started):
    world = pickle.loads(pickle.dumps(ScienceWorld()))
    session = world.open(task())
    assert started[0].loaded == [("power-component", 3, "easy")]
    assert session.reset() == "Task Description:\nYour task is to wait.\n\nYou look around."
    assert session.choices() is None
    turns = [session.step(command) for command in ("wait", "60", "70", "71", "100")]
    assert [turn.observation for turn in turns[:2]] == ["You wait.", "You 60."]
    assert [turn.reward for turn in turns] == [0, 0.6, 0.1, 0.01, 0.29]
    assert [turn.success for turn in turns] == [False, False, False, True, True]
    assert [turn.done for turn in turns] == [False] * 4 + [True]
    assert session.score == 100
    assert session.reset() and session.score == 0


def test_the_stricter_criterion(started):
    session = ScienceWorld(success="complete").open(task())
    session.reset()
    turns = [session.step(command) for command in ("71", "99", "100")]
    assert [turn.success for turn in turns] == [False, False, True]


def test_a_wrong_focus_ends_the_episode(started):
    session = ScienceWorld().open(task())
    session.reset()
    assert session.step("83").success
    failed = session.step("-100")  # of which the simulator says that it is not completed
    assert failed.done and not failed.success and failed.reward == -1.83
    assert session.score == -100


@pytest.mark.parametrize(
    "command", ["task", "reset task", " Reset  the\tTASK", "a task", "\x01task"]
)
def test_refused_commands(started, command):
    session = ScienceWorld().open(task())
    session.reset()
    session.step("80")
    refused = session.step(command)
    assert refused.observation == "This command is not available."
    assert (refused.reward, refused.success, refused.done) == (0, True, False)
    assert started[0].server.said == ["look around", "80"]


def test_choices_are_listed_where_they_are_asked_for(started):
    session = ScienceWorld(choices=True).open(task())
    session.reset()
    assert session.choices() == ["look at axe", "wait"]


def test_a_process_keeps_one_simulator(started):
    world = ScienceWorld()
    for variation in range(3):
        session = world.open(task(variation=variation))
        session.close()
        session.close()
    assert len(started) == 1 and [one[1] for one in started[0].loaded] == [0, 1, 2]
    first, second = world.open(task()), world.open(task())
    assert len(started) == 2
    second.close()
    first.close()
    assert [one.closed for one in started] == [True, False]
    with pytest.raises(EngineError, match="cannot carry out 'wait': the session is closed"):
        first.step("wait")
    forgotten = world.open(task())
    del forgotten
    world.open(task()).close()
    assert len(started) == 2


def test_a_simulator_of_another_size_is_replaced(started):
    ScienceWorld().open(task()).close()
    ScienceWorld(memory="1g").open(task()).close()
    assert [one.options for one in started] == [
        "-Xmx256m -XX:+UseSerialGC",
        "-Xmx1g -XX:+UseSerialGC",
    ]
    assert [one.closed for one in started] == [True, False]
    assert "JAVA_TOOL_OPTIONS" not in os.environ


@pytest.mark.parametrize(
    "own, options",
    [
        ("-Dfile.encoding=UTF-8", "-Dfile.encoding=UTF-8 -Xmx256m -XX:+UseSerialGC"),
        ("-Xmx2g", "-Xmx2g -XX:+UseSerialGC"),
        ("-XX:+UseG1GC", "-XX:+UseG1GC -Xmx256m"),
        ("-XX:MaxRAMPercentage=5 -XX:+UseZGC", "-XX:MaxRAMPercentage=5 -XX:+UseZGC"),
    ],
)
def test_own_options_of_java_come_first(started, monkeypatch, own, options):
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", own)
    ScienceWorld().open(task())
    assert started[0].options == options
    assert os.environ["JAVA_TOOL_OPTIONS"] == own


def test_a_dying_simulator_is_an_engine_error(started):
    world = ScienceWorld()
    session = world.open(task())
    session.reset()
    started[0].server.dead = True
    told = "failed to carry out 'wait': ConnectionError Answer from Java side is empty$"
    with pytest.raises(EngineError, match=told):
        session.step("wait")
    with pytest.raises(EngineError, match="closed"):
        session.reset()
    session.close()
    assert started[0].closed
    again = world.open(task())
    assert len(started) == 2 and again.reset()


def test_a_simulator_that_died_while_it_was_idle(started):
    ScienceWorld().open(task()).close()
    started[0].server.dead = True
    assert ScienceWorld().open(task()).reset()
    assert [one.closed for one in started] == [True, False]


def test_a_task_that_cannot_be_loaded(started):
    with pytest.raises(EngineError, match="failed to load boil/9: RuntimeError no such house"):
        ScienceWorld().open(task("boil", 9))
    assert started[0].closed
    ScienceWorld().open(task())
    assert len(started) == 2


def test_an_interrupted_call_leaves_no_simulator_behind(started, monkeypatch):
    session = ScienceWorld().open(task())

    def interrupted(command):
        raise KeyboardInterrupt

    monkeypatch.setattr(started[0].server, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.step("wait")
    session.close()
    assert started[0].closed and scienceworld._idle == []


def test_what_is_missing_is_told(started, monkeypatch):
    monkeypatch.setattr(scienceworld.shutil, "which", lambda name: None)
    with pytest.raises(ScienceWorldMissing, match="no program `java`; install a Java runtime"):
        ScienceWorld().open(task())
    monkeypatch.setitem(sys.modules, "scienceworld", None)
    with pytest.raises(ScienceWorldMissing, match=r"pip install .*reskill-jax\[scienceworld\]"):
        ScienceWorld().open(task())


@pytest.mark.parametrize("package, java", [(False, True), (True, False), (True, True)])
def test_whether_it_is_installed(monkeypatch, package, java):
    monkeypatch.setattr(
        scienceworld.importlib.util, "find_spec", lambda name: name if package else None
    )
    monkeypatch.setattr(scienceworld.shutil, "which", lambda name: name if java else None)
    assert scienceworld.installed() == (package and java)


def test_a_java_that_does_not_start(started, monkeypatch):
    def start():
        raise ValueError("invalid literal for int()")

    monkeypatch.setattr(sys.modules["scienceworld"], "ScienceWorldEnv", start)
    with pytest.raises(EngineError, match="failed to start .*: ValueError invalid literal"):
        ScienceWorld().open(task())
    assert "JAVA_TOOL_OPTIONS" not in os.environ


# --- the real package ----------------------------------------------------------------------------


@needs_engine
@pytest.mark.parametrize("name", EPISODES)
def test_a_recorded_episode(name):
    recorded = EPISODES[name]
    session = ScienceWorld(simplifications=recorded["simplification"]).open(
        task(recorded["task"], recorded["variation"])
    )
    opening = f"{recorded['task_description']}\n\n{recorded['first_observation']}"
    assert sorted(session.reset().splitlines()) == sorted(opening.splitlines())
    total = 0.0
    for step in recorded["steps"]:
        outcome = session.step(step["action"])
        if step["variants_as_line_sets"] == 1:
            assert sorted(outcome.observation.splitlines()) == sorted(
                step["observation"].splitlines()
            )
        assert session.score in step["score"], step["action"]
        assert outcome.done in step["completed"], step["action"]
        total += outcome.reward
        assert total == pytest.approx(session.score / 100)
        assert outcome.success == (session.score > 70)
        if outcome.done:
            break
    assert session.score == 100 and outcome.done and outcome.success
    session.close()


@needs_engine
def test_a_recorded_wrong_focus():
    recorded = next(one for one in RECORDED["wrapper_episodes"] if one["note"] == "wrong focus")
    session = ScienceWorld(simplifications="").open(task(recorded["task"], recorded["variation"]))
    session.reset()
    step = recorded["steps"][0]
    outcome = session.step(step["action"])
    assert outcome.observation == step["observation"]
    assert (outcome.reward, outcome.done, outcome.success) == (step["reward"] / 100, True, False)
    session.close()


@needs_engine
def test_a_wrong_answer_takes_the_points_of_the_circuit_away():
    recorded = EPISODES["test-conductivity/17"]
    session = ScienceWorld().open(task("test-conductivity", 17))
    session.reset()
    for step in recorded["steps"][:-1]:
        before = session.step(step["action"])
    assert before.success and not before.done and session.score == 74
    assert session.step("reset task").observation == "This command is not available."
    failed = session.step("move aluminum foil to orange box")
    assert failed.done and not failed.success and session.score == -100
    session.close()


@needs_engine
def test_choices_of_the_real_simulator():
    session = ScienceWorld(choices=True).open(task("power-component", 3))
    session.reset()
    choices = session.choices()
    assert len(choices) + 2 in EPISODES["power-component/3"]["first_valid_count"]
    assert {"wait1", "inventory", "look around"} <= set(choices)
    assert not {"task", "reset task"} & set(choices)
    session.close()


@needs_engine
def test_the_variations_of_the_real_simulator():
    session = ScienceWorld().open(task())
    environment = session._engine.environment
    for name in ("power-component", "test-conductivity-of-unknown-substances", "boil"):
        train, development, test = scienceworld.VARIATIONS[name]
        environment.load(name, 0, "")
        assert environment.get_variations_train() == [*range(train)]
        assert environment.get_variations_dev() == [*range(train, train + development)]
        assert len(environment.get_variations_test()) == test
    assert set(environment.get_task_names()) == set(scienceworld.VARIATIONS)
    session.close()


@needs_engine
def test_a_killed_simulator_makes_its_episode_invalid_and_is_replaced():
    world = ScienceWorld()
    session = world.open(task())
    session.reset()
    java = session._engine.environment._gateway.java_process
    java.send_signal(signal.SIGKILL)
    java.wait()
    with pytest.raises(EngineError, match="failed to carry out 'wait1'"):
        session.step("wait1")
    with_another = world.open(task())
    assert with_another.reset() and with_another.step("wait1").reward == 0
    with_another.close()


@needs_engine
def test_episodes_in_a_worker_process():
    world = ScienceWorld()
    with SessionPool(Source(world=world), workers=1, per_worker=1) as pool:
        for place, spec in enumerate(world.tasks("unseen")[:2]):
            pool.open(place, spec)
            (reply,) = pool.wait(120)
            assert "Your task is to turn on" in reply.observation and not reply.failed
            pool.step(place, "look around")
            (reply,) = pool.wait(60)
            assert reply.reward == 0 and not reply.done
            pool.close(place)
