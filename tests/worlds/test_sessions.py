import contextlib
import gc
import importlib
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import threading
import time
import types
from multiprocessing.connection import Pipe
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.worlds.sessions import pool as pools
from reskill_jax.worlds.sessions.messages import (
    MOST_CHOICES,
    MOST_OF_A_CHOICE,
    Reply,
    SessionError,
    choices_of,
    decode,
    encode,
    failed,
    line_of,
    reply_of,
)
from reskill_jax.worlds.sessions.pool import PoolError, SessionPool, Source, choose_workers
from reskill_jax.worlds.sessions.serve import WorldNameError, serve, world_named
from reskill_jax.worlds.world import Outcome, TaskSpec

# Worlds whose sessions do what they are told; workers import them, so they are a module.
ODD = '''
import gc
import os
import signal
import subprocess
import sys
import time
import types
from multiprocessing.connection import Connection
from pathlib import Path

from reskill_jax.worlds.sessions.messages import Reply, encode
from reskill_jax.worlds.world import Outcome


class Mute(Exception):
    def __str__(self):
        raise ValueError("not a word")


class Gone:
    """Can be pickled, but the other end cannot read it."""

    def __reduce__(self):
        return _gone, ()


def _gone():
    raise RuntimeError("cannot be\\nread here")


NONSENSE = {
    "None": None,
    "number": 7,
    "pair": ("text", 1.0),
    "dict": {"observation": "text"},
    "bytes": b"text",
    "observation": Outcome(None),
    "nan": Outcome("text", float("nan")),
    "reward": Outcome("text", "much"),
    "success": Outcome("text", success="False"),
    "done": types.SimpleNamespace(observation="text", done=len),
}
ERRORS = {
    "ValueError": ValueError("no\\n  way"),
    "SystemExit": SystemExit(3),
    "KeyboardInterrupt": KeyboardInterrupt(),
    "RecursionError": RecursionError(),
    "Mute": Mute(),
}


def speaks_to_parent(data):
    for found in gc.get_objects():
        if isinstance(found, Connection):
            found.send_bytes(data)


class Session:
    def __init__(self, task):
        self.task, self.data = task, task.data or {}
        self.count, self.possible = 0, None
        self.do(self.data.get("open", ""))

    def reset(self):
        return self.do(self.data.get("reset", "")) or f"{self.task.id} begins"

    def step(self, action):
        self.count += 1
        found = self.do(action)
        if found is None or isinstance(found, str):
            return Outcome(f"{self.task.id} {self.count}: {found or action}")
        return found

    def choices(self):
        return self.possible

    def close(self):
        if "log" in self.data:
            with open(self.data["log"], "a") as file:
                file.write(self.task.id + "\\n")
        self.do(self.data.get("close", ""))

    def do(self, action):
        what, _, which = action.partition(" ")
        if what == "raise":
            raise ERRORS[which]
        if what == "nonsense":
            return NONSENSE[which] if which != "None" else types.SimpleNamespace(reward=1.0)
        if what == "win":
            return Outcome("won", 0.5, success=True, done=True)
        if what == "choices":
            self.possible = eval(which)
        if what == "sleep":
            time.sleep(float(which))
        if what == "exit":
            os._exit(int(which))
        if what == "print":
            print("printed by a session")
            os.system("echo echoed by a session")
        if what == "speak":
            speaks_to_parent(eval(which))
        if what == "say":
            return str(eval(which))
        if what == "long":
            return int(which) * "x"
        if what == "engine":  # which outlives whoever has started it
            os.system("sleep 300 & echo $! > " + which)
        return None


class Odd:
    def tasks(self, split):
        return []

    def open(self, task):
        return Session(task)


class Unwilling(Odd):
    def __init__(self):
        raise ValueError("there is\\nno data")


class Leaving(Odd):
    def __init__(self):
        raise SystemExit("bye")


class Dying(Odd):
    def __init__(self):
        os._exit(3)


class Slow(Odd):
    def __init__(self):
        time.sleep(300)


class DyingOnce(Odd):
    """Dies while it is made, unless it has done so before."""

    def __init__(self):
        mark = Path(os.environ["ODD_MARK"])
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Unreadable(Odd):
    def __setstate__(self, state):
        raise RuntimeError("made by\\nanother version")

    def __getstate__(self):
        return {"version": 1}


class Closed(Odd):
    def __init__(self):
        self.held = lambda: None  # which cannot be pickled


class NoTasks:
    def open(self, task):
        return None


class NoOpen:
    tasks = Odd.tasks
    open = "shut"


class Lazy:
    def __getattr__(self, name):
        raise ImportError(f"{name} needs\\nmore")


class Outer:
    Odd = Odd


made, lazy, number = Odd(), Lazy(), 7


def make():
    return made
'''


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    """Where the module of worlds lies; workers find it because their parent does."""
    folder = tmp_path_factory.mktemp("worlds")
    (folder / "odd_worlds.py").write_text(ODD)
    (folder / "odd_broken.py").write_text("def f(:\n")
    (folder / "odd_ending.py").write_text("import sys\nsys.exit('no\\narguments')\n")
    before = list(sys.path)
    sys.path.append(str(folder))
    yield folder
    sys.path[:] = before
    for name in ("odd_worlds", "odd_broken", "odd_ending"):
        sys.modules.pop(name, None)


@pytest.fixture(autouse=True)
def bounded():
    """What never ends is an error."""

    def ring(*_):
        raise TimeoutError("a test has taken two minutes")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def task(name="task", **data):
    return TaskSpec(name, "Do what you are told.", data=data)


def source(name="Odd"):
    return Source(f"odd_worlds:{name}")


def collect(pool, count, seconds=60.0):
    """That many replies, by place."""
    found, end = {}, time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        for reply in pool.wait(1.0):
            assert reply.place not in found
            found[reply.place] = reply
    assert len(found) == count
    return found


def ask(pool, place, action):
    pool.step(place, action)
    return collect(pool, 1)[place]


def open_all(pool, places, **data):
    for place in places:
        pool.open(place, task(f"task-{place}", **data))
    return collect(pool, len(places))


def alive(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# --- what a session may say ----------------------------------------------------------------------


def test_a_text_is_an_outcome():
    assert reply_of(3, "Hello.", None, most=99) == Reply(3, "Hello.")
    assert reply_of(3, "", None, most=99) == Reply(3)


def test_the_fields_of_an_outcome():
    outcome = Outcome("Done.", 0.5, success=True, done=True)
    assert reply_of(0, outcome, None, most=99) == Reply(0, "Done.", None, 0.5, True, True)
    assert reply_of(0, Outcome("On."), ["a", "b"], most=99) == Reply(0, "On.", ("a", "b"))


def test_whatever_has_an_observation_is_an_outcome():
    plain = types.SimpleNamespace(observation="x")
    assert reply_of(0, plain, None, most=9) == Reply(0, "x")
    plain.success = plain.done = plain.reward = None
    assert reply_of(0, plain, None, most=9) == Reply(0, "x")


@pytest.mark.parametrize(
    ("reward", "number"),
    [
        (None, None),
        (0, 0.0),
        (-0.25, -0.25),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.float64(0.1), 0.1),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(2.5), 2.5),
        (1e308, 1e308),
    ],
)
def test_rewards(reward, number):
    reply = reply_of(0, Outcome("x", reward), None, most=9)
    assert reply.reward == number and type(reply.reward) in (float, type(None))
    assert decode(encode(reply)) == reply


@pytest.mark.parametrize("true", [True, 1, 1.0, np.bool_(True), np.array(True), np.int32(1)])
def test_flags_of_other_libraries(true):
    reply = reply_of(0, Outcome("x", success=true, done=true), None, most=9)
    assert reply.success is True and reply.done is True
    false = type(true)(0) if not isinstance(true, np.ndarray) else np.array(False)
    reply = reply_of(0, Outcome("x", success=false, done=false), None, most=9)
    assert reply.success is False and reply.done is False
    assert decode(encode(reply)) == reply


class Loud:
    """Says what it is over several lines."""

    observation, reward = "x", object()


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (None, "NoneType is no outcome: it has no observation"),
        (7, "int is no outcome"),
        (b"x", "bytes is no outcome"),
        (("x", 1.0, True), "tuple is no outcome"),
        ({"observation": "x"}, "dict is no outcome"),
        (Outcome, "Outcome is no outcome|type is no outcome"),
        (Outcome(None), "an observation is a text, not NoneType"),
        (Outcome(b"x"), "an observation is a text, not bytes"),
        (Outcome(["x"]), "an observation is a text, not list"),
        (Outcome("x", float("nan")), "a reward is a finite number, not nan"),
        (Outcome("x", float("inf")), "a reward is a finite number, not inf"),
        (Outcome("x", np.float32("-inf")), "a reward is a finite number"),
        (Outcome("x", 10**400), "a reward is a finite number, not 1000"),
        (Outcome("x", "1.0"), "a reward is a finite number, not '1.0'"),
        (Outcome("x", [1.0]), "a reward is a finite number, not"),
        (Outcome("x", 1j), "a reward is a finite number, not 1j"),
        (Outcome("x", np.ones(2)), "a reward is a finite number, not array"),
        (Loud(), "a reward is a finite number, not <object"),
        (Outcome("x", success="False"), "success is true or false, not str"),
        (Outcome("x", success=np.zeros(2)), "success is true or false, not ndarray"),
        (Outcome("x", done=len), "done is true or false, not builtin_function_or_method"),
        (Outcome("x", done=[]), "done is true or false, not list"),
    ],
)
def test_what_is_no_outcome(outcome, told):
    with pytest.raises(SessionError, match=told):
        reply_of(0, outcome, None, most=9)


def test_a_long_observation_is_cut():
    assert reply_of(0, "12345", None, most=5) == Reply(0, "12345")
    assert reply_of(0, "123456", None, most=5) == Reply(0, "12345", cut=True)
    assert reply_of(0, Outcome("ab"), None, most=0) == Reply(0, "", cut=True)


@pytest.mark.parametrize(
    "choices",
    [
        ["go", "look"],
        ("go", "look"),
        ["go", "look", "go"],
        iter(["go", "look"]),
        {"go": 1, "look": 2},
        {"go": 1, "look": 2}.keys(),
        np.array(["go", "look"]),
        (word for word in ("go", "look")),
    ],
)
def test_choices_are_texts_in_their_order(choices):
    found = choices_of(choices)
    assert found == ("go", "look")
    reply = Reply(0, choices=found)
    assert decode(encode(reply)) == reply


def test_any_text_is_possible_where_there_are_no_choices():
    assert choices_of(None) is None
    assert decode(encode(Reply(0))).choices is None


def test_as_many_and_as_long_choices_as_there_may_be():
    assert len(choices_of([str(i) for i in range(MOST_CHOICES)])) == MOST_CHOICES
    assert choices_of(["x" * MOST_OF_A_CHOICE]) == ("x" * MOST_OF_A_CHOICE,)
    assert choices_of([" \nx"]) == (" \nx",)


def endless():
    while True:
        yield "x"


@pytest.mark.parametrize(
    ("choices", "told"),
    [
        ("go", "choices are a list of texts, not str"),
        (b"go", "choices are a list of texts, not bytes"),
        (7, "choices are a list of texts, not int"),
        (len, "choices are a list of texts, not builtin"),
        ({"go", "look"}, "choices are a list of texts, not set"),
        (frozenset({"go"}), "choices are a list of texts, not frozenset"),
        ([], "no choices; there have to be 1 to 4096"),
        (iter(()), "no choices; there have to be 1 to 4096"),
        (["x"] * (MOST_CHOICES + 1), "more than 4096 choices"),
        (endless(), "more than 4096 choices"),
        ([""], "'' is no choice"),
        (["go", " \n\t"], "is no choice: a text of 1 to 1000 characters is"),
        (["go", None], "None is no choice"),
        (["go", 7], "7 is no choice"),
        ([b"go"], "b'go' is no choice"),
        ([["go"]], "is no choice"),
        (["x" * (MOST_OF_A_CHOICE + 1)], "'xxxx"),
    ],
)
def test_what_are_no_choices(choices, told):
    with pytest.raises(SessionError, match=re.escape(told)) as raised:
        choices_of(choices)
    assert len(str(raised.value)) < 150
    with pytest.raises(SessionError):
        reply_of(0, "x", ["x"] if choices is None else choices, most=9)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
REPLIES = st.builds(
    Reply,
    st.integers(0, 2**40),
    ANY_TEXT,
    st.none() | st.lists(ANY_TEXT, min_size=1, max_size=4).map(tuple),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    *[st.booleans()] * 3,
    ANY_TEXT,
    ANY_TEXT,
)


@given(REPLIES)
def test_replies_come_back_as_they_were(reply):
    assert decode(encode(reply)) == reply


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\ud800",
        "\udc00 and \ud800",
        "\ud83d\ude00",  # two lone surrogates are not the letter that they would be together
        "\N{GRINNING FACE}",
        "".join(map(chr, range(32))) + "\x7f\x80\x9f\xa0",
        "\u2028\u2029\ufeff\uffff",
        '"\\/{}[]',
        "  \n ",
    ],
)
def test_odd_texts_come_back_as_they_were(text):
    reply = reply_of(0, Outcome(text), [text or "x", text + "!"] if text.strip() else None, most=99)
    back = decode(encode(reply))
    assert back == reply and back.observation == text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b'"choices"',
        b"{}",
        b'{"choices": null}',
        b'{"choices": 7, "place": 0}',
        b'{"choices": null, "place": 0, "more": 1}',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_what_is_no_reply(data):
    with pytest.raises(ValueError):
        decode(data)


def test_the_reply_of_a_lost_session_is_one_short_line():
    reply = failed(3, "raised", "  several\n\tlines \x1b[31m \ud800 " + "x" * 1000)
    assert reply.failed and reply.place == 3 and reply.cause == "raised"
    assert reply.detail.startswith("several lines ?[31m ? xxx") and len(reply.detail) == 300
    assert decode(encode(reply)) == reply
    assert not Reply(3).failed


def test_errors_in_one_line():
    class Mute(Exception):
        def __str__(self):
            raise ValueError("not a word")

    assert line_of(ValueError("a\n  b")) == "ValueError: a b"
    assert line_of(ValueError()) == "ValueError"
    assert line_of(Mute()) == "Mute"


# --- worlds by name ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Odd", "made", "make", "Outer.Odd"])
def test_what_can_be_named(name):
    world = world_named(f"odd_worlds:{name}")
    assert type(world).__name__ == "Odd"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("odd_worlds", "the world odd_worlds: something of your own is named MODULE:NAME"),
        ("odd_worlds:", "named MODULE:NAME"),
        (":Odd", "named MODULE:NAME"),
        ("odd_absent:Odd", "cannot import odd_absent (ModuleNotFoundError: No module named"),
        ("odd_worlds.more:Odd", "cannot import odd_worlds.more (ModuleNotFoundError"),
        (".odd_worlds:Odd", "cannot import .odd_worlds (TypeError"),
        ("odd_broken:Odd", "cannot import odd_broken (SyntaxError"),
        ("odd_ending:Odd", "cannot import odd_ending (SystemExit: no arguments)"),
        ("odd_worlds:Even", "the world odd_worlds:Even: odd_worlds has no Even"),
        ("odd_worlds:Odd.Even", "odd_worlds has no Odd.Even"),
        ("odd_worlds:lazy.World", "cannot import odd_worlds (ImportError: World needs more)"),
        ("odd_worlds:Unwilling", "cannot be made (ValueError: there is no data)"),
        ("odd_worlds:Leaving", "cannot be made (SystemExit: bye)"),
        ("odd_worlds:Session", "cannot be made (TypeError: "),
        ("odd_worlds:NoTasks", "odd_worlds:NoTasks is no world: it has no method tasks"),
        ("odd_worlds:NoOpen", "odd_worlds:NoOpen is no world: it has no method open"),
        ("odd_worlds:number", "odd_worlds:number is no world: it has no method tasks"),
    ],
)
def test_a_world_that_cannot_be_had_is_told_in_one_line(name, told):
    with pytest.raises(WorldNameError) as raised:
        world_named(name)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_module_is_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "odd_local.py").write_text(ODD)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert type(world_named("odd_local:Odd")).__module__ == "odd_local"
    del sys.modules["odd_local"]


# --- the loop that steps sessions ----------------------------------------------------------------


@contextlib.contextmanager
def served(world, **named):
    """Our end of a connection to a thread that serves a world."""
    ours, theirs = Pipe()
    thread = threading.Thread(target=serve, args=(theirs, world), kwargs=named, daemon=True)
    thread.start()
    yield ours
    ours.close()
    thread.join(10)
    assert not thread.is_alive()


def call(connection, *request):
    connection.send(request)
    return decode(connection.recv_bytes())


def test_serving_sessions(tmp_path):
    log = tmp_path / "log"
    with served(world_named("odd_worlds:Odd"), most=12) as connection:
        spec = pickle.dumps(task("one", log=str(log)))
        assert call(connection, "open", 5, spec) == Reply(5, "one begins")
        assert call(connection, "open", 6, pickle.dumps(task("two"))).observation == "two begins"
        assert call(connection, "step", 5, "look") == Reply(5, "one 1: look")
        assert call(connection, "step", 5, "look around").cut
        connection.send(("close", 5, None))
        connection.send(("close", 5, None))  # which is no error
        assert call(connection, "step", 5, "look").cause == "raised"
        assert call(connection, "step", 6, "x") == Reply(6, "two 1: x")
        assert log.read_text() == "one\n"


def test_sessions_are_closed_when_nobody_listens_any_more(tmp_path):
    log = tmp_path / "log"
    with served(world_named("odd_worlds:Odd")) as connection:
        for place in range(3):
            spec = task(str(place), log=str(log), close="raise SystemExit" if place else "")
            call(connection, "open", place, pickle.dumps(spec))
    assert log.read_text() == "0\n1\n2\n"


def test_a_session_is_asked_for_choices_only_while_it_goes_on():
    class Session:
        reset = staticmethod(lambda: "begins")

        def step(self, action):
            return Outcome(action, done=action == "end")

        def choices(self):
            asked.append(True)
            return ["end", "on"]

    asked = []
    world = types.SimpleNamespace(open=lambda task: Session())
    with served(world) as connection:
        assert call(connection, "open", 0, pickle.dumps(None)).choices == ("end", "on")
        assert call(connection, "step", 0, "on").choices == ("end", "on")
        assert call(connection, "step", 0, "end") == Reply(0, "end", done=True)
    assert len(asked) == 2


def test_a_session_needs_neither_choices_nor_close():
    session = types.SimpleNamespace(reset=lambda: "begins", step=lambda action: Outcome(action))
    with served(types.SimpleNamespace(open=lambda task: session)) as connection:
        assert call(connection, "open", 0, pickle.dumps(None)) == Reply(0, "begins")
        assert call(connection, "step", 0, "x") == Reply(0, "x")


# --- a pool: in a thread, and in processes -------------------------------------------------------

anywhere = pytest.mark.parametrize("workers", [0, 1, 2])
either = pytest.mark.parametrize("workers", [0, 1], ids=["thread", "process"])


@anywhere
def test_sessions_side_by_side(workers):
    with SessionPool(source(), workers=workers) as pool:
        assert len(pool.pids) == workers and pool.places is None and pool.restarts == 0
        opened = open_all(pool, range(5))
        assert opened[3] == Reply(3, "task-3 begins")
        for turn in range(1, 3):
            for place in range(5):
                pool.step(place, f"look {place}")
            for place, reply in collect(pool, 5).items():
                assert reply == Reply(place, f"task-{place} {turn}: look {place}")
        assert ask(pool, 4, "choices ['a', 'b', 'a']").choices == ("a", "b")
        assert ask(pool, 4, "choices None").choices is None
        assert ask(pool, 2, "win") == Reply(2, "won", None, 0.5, True, True)
        pool.close(2)
        pool.close(2)
        pool.open(2, task("again"))
        assert collect(pool, 1)[2] == Reply(2, "again begins")
        assert ask(pool, 2, "look").observation == "again 1: look"
        assert pool.wait(0.0) == [] and pool.restarts == 0


@either
def test_a_world_that_was_handed_in(workers):
    with SessionPool(Source(world=world_named("odd_worlds:Odd")), workers=workers) as pool:
        assert open_all(pool, [0])[0].observation == "task-0 begins"
        assert ask(pool, 0, "\ud800\x00 \N{GRINNING FACE}\n").observation == (
            "task-0 1: \ud800\x00 \N{GRINNING FACE}\n"
        )


def test_several_calls_of_a_session_are_answered_in_order():
    with SessionPool(source(), workers=1) as pool:
        pool.open(0, task("t"))
        for number in range(20):
            pool.step(0, str(number))
        replies = []
        while len(replies) < 21:
            replies += pool.wait(10)
        assert [reply.observation for reply in replies] == [
            "t begins",
            *(f"t {n + 1}: {n}" for n in range(20)),
        ]


ODDITIES = {
    "raise ValueError": ("raised", "ValueError: no way"),
    "raise SystemExit": ("raised", "SystemExit: 3"),
    "raise KeyboardInterrupt": ("raised", "KeyboardInterrupt"),
    "raise RecursionError": ("raised", "RecursionError"),
    "raise Mute": ("raised", "Mute"),
    "nonsense None": ("malformed", "SessionError: SimpleNamespace is no outcome"),
    "nonsense number": ("malformed", "SessionError: int is no outcome"),
    "nonsense pair": ("malformed", "SessionError: tuple is no outcome"),
    "nonsense dict": ("malformed", "SessionError: dict is no outcome"),
    "nonsense bytes": ("malformed", "SessionError: bytes is no outcome"),
    "nonsense observation": ("malformed", "SessionError: an observation is a text, not NoneType"),
    "nonsense nan": ("malformed", "SessionError: a reward is a finite number, not nan"),
    "nonsense reward": ("malformed", "SessionError: a reward is a finite number, not 'much'"),
    "nonsense success": ("malformed", "SessionError: success is true or false, not str"),
    "nonsense done": ("malformed", "SessionError: done is true or false, not builtin"),
    "choices 'go'": ("malformed", "SessionError: choices are a list of texts, not str"),
    "choices []": ("malformed", "SessionError: no choices"),
    "choices [1]": ("malformed", "SessionError: 1 is no choice"),
    "choices 1": ("malformed", "SessionError: choices are a list of texts, not int"),
}


@anywhere
def test_a_session_that_fails_is_lost_alone(workers, tmp_path):
    log = tmp_path / "log"
    with SessionPool(source(), workers=workers) as pool:
        open_all(pool, range(len(ODDITIES) + 2), log=str(log))
        for place, action in enumerate(ODDITIES):
            pool.step(place, action)
        replies = collect(pool, len(ODDITIES))
        for place, (cause, detail) in enumerate(ODDITIES.values()):
            assert replies[place].failed and replies[place].cause == cause
            assert replies[place].detail.startswith(detail)
            assert replies[place].observation == ""
        closed = {f"task-{place}" for place in range(len(ODDITIES))}
        assert set(log.read_text().split()) == closed
        for place in range(len(ODDITIES)):
            with pytest.raises(KeyError):
                pool.step(place, "look")
            pool.close(place)  # which is no error
        for place in range(len(ODDITIES), len(ODDITIES) + 2):
            assert ask(pool, place, "look").observation == f"task-{place} 1: look"
        assert open_all(pool, [0])[0].observation == "task-0 begins"
        assert pool.restarts == 0


@anywhere
def test_a_session_that_cannot_be_opened_is_lost_alone(workers):
    gone = importlib.import_module("odd_worlds").Gone()
    with SessionPool(source(), workers=workers) as pool:
        pool.open(0, task("zero"))
        pool.open(1, task("one", open="raise ValueError"))
        pool.open(2, task("two", reset="raise SystemExit"))
        pool.open(3, task("three", reset="nonsense number"))
        pool.open(4, task("four", held=lambda: None))
        pool.open(5, task("five", held=gone))
        pool.open(6, task("six", reset="choices []"))
        pool.open(7, None)
        replies = collect(pool, 8)
        assert replies[0].observation == "zero begins"
        causes = [replies[place].cause for place in range(1, 8)]
        assert causes == ["raised", "raised", *["malformed"] * 2, "raised", "malformed", "raised"]
        assert replies[1].detail == "ValueError: no way"
        assert "its task cannot be pickled (" in replies[4].detail
        assert replies[5].detail == "RuntimeError: cannot be read here"
        assert ask(pool, 0, "look").observation == "zero 1: look" and pool.restarts == 0
        with pytest.raises(KeyError):
            pool.step(4, "look")


def test_the_failure_of_a_place_that_was_closed_is_not_told():
    with SessionPool(source(), workers=0) as pool:
        pool.open(0, task("zero", held=lambda: None))
        pool.close(0)
        assert pool.wait(0.1) == []
        pool.open(0, task("zero", held=lambda: None))
        pool.open(0, task("again"))
        assert [reply.observation for reply in pool.wait(10)] == ["again begins"]


@either
def test_a_session_that_fails_to_close(workers):
    with SessionPool(source(), workers=workers) as pool:
        open_all(pool, range(4), close="raise KeyboardInterrupt")
        pool.close(0)
        assert ask(pool, 1, "raise ValueError").cause == "raised"
        assert ask(pool, 2, "look").observation == "task-2 1: look" and pool.restarts == 0


def test_a_long_observation_says_that_it_is_cut():
    with SessionPool(source(), workers=1, most=20) as pool:
        pool.open(0, task("t" * 100))
        assert collect(pool, 1)[0] == Reply(0, "t" * 20, cut=True)


# --- closing -------------------------------------------------------------------------------------


@either
def test_what_a_closed_session_owes_is_not_answered(workers):
    with SessionPool(source(), workers=workers) as pool:
        open_all(pool, [0, 1])
        pool.step(0, "sleep .2")
        pool.close(0)
        pool.step(1, "look")
        assert collect(pool, 1)[1].observation == "task-1 1: look"
        assert pool.wait(0.5) == []


@either
def test_the_next_session_of_a_place_does_not_get_the_answers_of_the_last(workers):
    with SessionPool(source(), workers=workers) as pool:
        open_all(pool, [0, 1])
        pool.step(0, "sleep .2")
        pool.step(0, "raise ValueError")
        pool.close(0)
        pool.open(0, task("next"))  # by the same worker
        pool.step(0, "look")
        replies = []
        while len(replies) < 2:
            replies += pool.wait(10)
        assert replies == [Reply(0, "next begins"), Reply(0, "next 1: look")]
        assert pool.wait(0.1) == []


def test_opening_again_closes_the_session_that_is_there(tmp_path):
    log = tmp_path / "log"
    with SessionPool(source(), workers=1, per_worker=1) as pool:
        for name in ("one", "two"):
            pool.open(0, task(name, log=str(log)))
        assert collect(pool, 1)[0].observation == "two begins"
        assert log.read_text() == "one\n"


def test_a_session_that_was_closed_while_it_hangs_takes_others_along():
    with SessionPool(source(), workers=1, time_limit=0.5) as pool:
        open_all(pool, [0, 1])
        pool.step(0, "sleep 100")
        pool.close(0)
        assert collect(pool, 1)[1].cause == "lost" and pool.restarts == 1


# --- places --------------------------------------------------------------------------------------


def test_sessions_go_to_the_worker_with_the_fewest():
    with SessionPool(source(), workers=2, per_worker=2) as pool:
        assert pool.places == 4
        open_all(pool, range(4))

        def pids():
            for place in range(4):
                pool.step(place, "say os.getpid()")
            return [
                reply.observation.split(": ")[1] for _, reply in sorted(collect(pool, 4).items())
            ]

        found = pids()
        assert sorted(found) == sorted([*map(str, pool.pids)] * 2)
        with pytest.raises(ValueError, match="no more than 4 sessions"):
            pool.open(9, task())
        gone = [place for place in range(4) if found[place] == found[0]]
        for place in gone:
            pool.close(place)
        for place in gone:
            pool.open(place, task())
        collect(pool, 2)
        assert pids() == found


def test_how_many_workers():
    assert choose_workers(3, 2, 1) == 3 and choose_workers(0, 9, 9) == 0
    assert choose_workers(None, 5, 8) == 5 and choose_workers(None, 8, 5) == 5
    assert choose_workers(None, 8, None) == 1 and choose_workers(None, 0, 4) == 1


# --- workers that hang or die --------------------------------------------------------------------


def test_a_session_that_hangs_costs_its_worker_alone():
    with SessionPool(source(), workers=2, time_limit=1.0) as pool:
        open_all(pool, range(4))
        pids = pool.pids
        pool.step(0, "sleep 100")  # by the first worker, as place 2
        replies = collect(pool, 2)
        assert replies[0] == Reply(0, cause="hung", detail="a call took too long")
        assert replies[2].cause == "lost"
        assert replies[2].detail == "its worker hung over another session"
        assert pool.restarts == 1 and not alive(pids[0]) and pool.pids[1] == pids[1]
        assert ask(pool, 1, "look").observation == "task-1 1: look"
        assert set(open_all(pool, [0, 2])) == {0, 2}
        assert ask(pool, 2, "look").observation == "task-2 1: look"


def test_a_thread_that_hangs_is_left_alone(tmp_path):
    log = tmp_path / "log"
    with SessionPool(source(), workers=0, time_limit=0.5) as pool:
        open_all(pool, [0, 1], log=str(log))
        pool.step(0, "sleep 1.5")
        pool.step(1, "look")  # which is not carried out any more
        replies = collect(pool, 2)
        assert replies[0].cause == "hung" and replies[1].cause == "lost" and pool.restarts == 1
        open_all(pool, [0, 1])
        while not log.exists() or len(log.read_text().split()) < 2:  # until it comes back
            assert ask(pool, 0, "sleep .05").observation.startswith("task-0 ")
        assert pool.wait(0.1) == [] and sorted(log.read_text().split()) == ["task-0", "task-1"]


def test_opening_has_a_limit_of_its_own():
    with SessionPool(source(), workers=0, time_limit=0.1, open_limit=1.5) as pool:
        pool.open(0, task("slow", open="sleep .2", reset="sleep .2"))
        assert collect(pool, 1)[0].observation == "slow begins"
        pool.open(1, task("slower", reset="sleep 3"))
        replies = collect(pool, 2)
        assert replies[1].cause == "hung" and replies[0].cause == "lost"


def test_every_call_has_the_whole_limit():
    with SessionPool(source(), workers=1, time_limit=1.0) as pool:
        open_all(pool, range(5))
        for place in range(5):
            pool.step(place, "sleep .3")
        assert not any(reply.failed for reply in collect(pool, 5).values())


@either
def test_an_answer_that_is_read_late_was_not_late(workers):
    with SessionPool(source(), workers=workers, time_limit=0.5) as pool:
        open_all(pool, range(4))
        for place in range(4):
            pool.step(place, "sleep .02")
        time.sleep(0.8)  # somebody else is busy
        assert not any(reply.failed for reply in collect(pool, 4).values())


def test_a_worker_that_ends_in_a_call():
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, range(3))
        pool.step(0, "look")
        pool.step(1, "exit 3")
        pool.step(2, "look")
        answer = collect(pool, 1)  # which was given before
        assert answer[0].observation == "task-0 1: look"
        replies = collect(pool, 3)
        assert replies[1] == Reply(1, cause="died", detail="a call ended its process")
        for place in (0, 2):
            assert replies[place].cause == "lost"
            assert replies[place].detail == "its worker died over another session"
        assert pool.wait(0.0) == [] and pool.restarts == 1


def test_a_worker_that_is_killed_while_it_has_nothing_to_do():
    with SessionPool(source(), workers=2) as pool:
        open_all(pool, range(2))
        os.kill(pool.pids[0], signal.SIGKILL)
        (reply,) = pool.wait(10)
        assert reply == Reply(0, cause="lost", detail="its worker died")
        assert open_all(pool, [0])[0].observation == "task-0 begins"
        assert ask(pool, 1, "look").observation == "task-1 1: look" and pool.restarts == 1


def test_a_worker_without_sessions_that_is_killed():
    with SessionPool(source(), workers=1) as pool:
        os.kill(pool.pids[0], signal.SIGKILL)
        pool.open(0, task())  # nobody has noticed yet
        reply = collect(pool, 1)[0]
        assert reply.cause == "died" and pool.restarts == 1
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_is_killed_in_a_call():
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, [0, 1])
        pool.step(0, "sleep 100")
        assert pool.wait(0.2) == []
        os.kill(pool.pids[0], signal.SIGKILL)
        replies = collect(pool, 2)
        assert replies[0].cause == "died" and replies[1].cause == "lost"
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_is_stopped_hangs():
    with SessionPool(source(), workers=1, time_limit=0.5) as pool:
        open_all(pool, [0])
        os.kill(pool.pids[0], signal.SIGSTOP)
        assert ask(pool, 0, "look").cause == "hung"
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_is_killed_while_it_starts_again():
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, [0])
        assert ask(pool, 0, "exit 3").cause == "died"
        os.kill(pool.pids[0], signal.SIGKILL)
        pool.open(1, task("one"))
        assert collect(pool, 1)[1].failed and pool.restarts == 2
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_is_stopped_while_it_starts_again():
    with SessionPool(source(), workers=1, open_limit=2.0) as pool:
        open_all(pool, [0])
        assert ask(pool, 0, "exit 3").cause == "died"
        os.kill(pool.pids[0], signal.SIGSTOP)
        pool.open(1, task("one"))
        assert collect(pool, 1)[1].failed and pool.restarts == 2
        assert open_all(pool, [0])[0].observation == "task-0 begins"


@pytest.mark.parametrize("data", ["b'[]'", "encode(Reply(0))"])
def test_a_worker_that_says_what_nobody_asked(data):
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, [0, 1])
        pool.step(1, f"speak {data}")
        replies = collect(pool, 2)
        assert all(reply.failed for reply in replies.values()) and pool.restarts == 1
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_an_engine_of_a_worker_that_ends_is_ended_and_does_not_hold_its_connection(tmp_path):
    file = tmp_path / "pid"
    with SessionPool(source(), workers=1, time_limit=50) as pool:
        open_all(pool, [0])
        ask(pool, 0, f"engine {file}")
        engine = int(file.read_text())
        assert alive(engine)
        began = time.monotonic()
        assert ask(pool, 0, "exit 3").cause == "died" and time.monotonic() - began < 25
        wait_until(lambda: not alive(engine))


def test_nobody_waits_for_a_worker_that_does_not_read():
    big = "x" * 300_000  # more than a connection holds
    with SessionPool(source(), workers=1, time_limit=1.0) as pool:
        for place in range(8):
            pool.open(place, task(f"task-{place}", held=big, reset="long 90000"))
        assert all(len(reply.observation) == 90_000 for reply in collect(pool, 8).values())
        pool.step(0, "sleep 100")
        for place in range(8, 16):
            pool.open(place, task(held=big))
        replies = collect(pool, 16)
        assert replies[0].cause == "hung" and replies[15].cause == "lost"
    with SessionPool(source(), workers=0, time_limit=0.3) as pool:
        open_all(pool, [0])
        pool.step(0, "sleep 2")
        for place in range(1, 9):
            pool.open(place, task(held=big))
        assert collect(pool, 9)[0].cause == "hung"


# --- workers that do not start -------------------------------------------------------------------


@either
@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("odd_worlds:Unwilling", "cannot be made (ValueError: there is no data)"),
        ("odd_worlds:Leaving", "cannot be made (SystemExit: bye)"),
        ("odd_worlds:NoTasks", "it has no method tasks"),
        ("odd_absent:Odd", "cannot import odd_absent"),
    ],
)
def test_a_world_that_cannot_be_made(workers, name, told):
    with pytest.raises(PoolError) as raised:
        SessionPool(Source(name), workers=workers)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_world_that_a_worker_cannot_read():
    world = importlib.import_module("odd_worlds").Unreadable()
    with pytest.raises(PoolError, match=r"unpickled \(RuntimeError: made by another version\)"):
        SessionPool(Source(world=world), workers=1)
    with SessionPool(Source(world=world), workers=0) as pool:
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_dies_whenever_it_starts():
    with pytest.raises(PoolError, match="died 3 times while it made its world"):
        SessionPool(source("Dying"), workers=2)


def test_a_worker_that_dies_once_when_it_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("ODD_MARK", str(tmp_path / "mark"))
    with SessionPool(source("DyingOnce"), workers=1) as pool:
        assert pool.restarts == 1
        assert open_all(pool, [0])[0].observation == "task-0 begins"


def test_a_worker_that_does_not_get_started(monkeypatch):
    monkeypatch.setattr(pools, "GRACE", 0.1)
    with pytest.raises(PoolError, match=r"a worker did not start within 0\.5 seconds"):
        SessionPool(source("Slow"), workers=1, open_limit=0.5)


def test_workers_that_never_answer_are_given_up():
    pool = SessionPool(source(), workers=1)
    pids = set()
    with pytest.raises(PoolError, match="a worker died 3 times without answering once"):
        for attempt in range(9):
            pids.update(pool.pids)
            pool.open(0, task(open="exit 3"))
            assert collect(pool, 1)[0].cause == "died" and attempt < 2
    assert len(pids) == 3 and not any(map(alive, pids)) and pool.pids == ()
    pool.close(0)  # whoever tidies up is not troubled
    with pytest.raises(PoolError, match="shut down"):
        pool.open(0, task())


def test_an_answer_in_between_keeps_a_worker():
    with SessionPool(source(), workers=1) as pool:
        for _ in range(4):
            open_all(pool, [0])
            assert ask(pool, 0, "exit 3").cause == "died"
        assert pool.restarts == 4


def test_a_program_that_cannot_be_started(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(PoolError, match="a worker cannot be started .FileNotFoundError"):
        SessionPool(source(), workers=1)


MINE = """
import sys
from odd_worlds import Odd
from reskill_jax.worlds.sessions.pool import PoolError, SessionPool, Source
from reskill_jax.worlds.world import TaskSpec

class Mine(Odd):
    pass

class Part:
    pass

def function():
    pass

class Kept:
    pass

worlds = [Mine(), Odd(), Odd(), Odd()]
worlds[1].part, worlds[2].part, worlds[3].part = Part(), [function], {"class": Part}
for world in worlds:
    source = Source(world=world)
    assert not source.crosses
    try:
        SessionPool(source, workers=1)
    except PoolError as error:
        print(error)
    with SessionPool(source, workers=0) as pool:
        pool.open(0, TaskSpec("mine", "x"))
        print(pool.wait(10)[0].observation)
world = Odd()
world.text = "__main__"
assert Source(world=world).crosses
"""


def run(program, folder, *arguments, **named):
    """The output of a script of its own, which finds the module of worlds."""
    (folder / "script.py").write_text(program)
    command = [sys.executable, str(folder / "script.py"), *map(str, arguments)]
    named = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) | named
    return subprocess.Popen(command, cwd=folder, **named)


def output(program, folder, *arguments):
    with run(program, folder, *arguments) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return out, errors


def test_worlds_of_a_script_are_played_in_a_thread_alone(folder):
    lines = output(MINE, folder)[0].splitlines()
    assert len(lines) == 8 and lines[1::2] == ["mine begins"] * 4
    for line in lines[::2]:
        assert "this process alone" in line and "MODULE:CLASS, or use 0 workers" in line


def test_a_world_that_cannot_be_pickled():
    given_world = Source(world=world_named("odd_worlds:Closed"))
    assert not given_world.crosses
    with pytest.raises(PoolError, match="name it as MODULE:CLASS, or use 0 workers"):
        SessionPool(given_world, workers=1)
    with SessionPool(given_world, workers=0) as pool:
        assert open_all(pool, [0])[0].observation == "task-0 begins"
    assert source("Closed").crosses  # by its name


# --- what workers leave behind, and what they do not disturb -------------------------------------


def test_shutting_down(tmp_path):
    log = tmp_path / "log"
    pool = SessionPool(source(), workers=2)
    open_all(pool, range(4), log=str(log))
    pids = pool.pids
    assert all(map(alive, pids))
    pool.shutdown()
    assert not any(map(alive, pids)) and pool.pids == ()
    assert sorted(log.read_text().split()) == [f"task-{place}" for place in range(4)]
    pool.shutdown()
    pool.close(0)
    assert pool.wait(0.0) == []
    with pytest.raises(PoolError, match="shut down"):
        pool.open(0, task())


def test_shutting_down_does_not_wait_for_sessions_that_hang(monkeypatch):
    monkeypatch.setattr(pools, "GRACE", 0.3)
    with pytest.raises(ZeroDivisionError), SessionPool(source(), workers=2) as pool:
        open_all(pool, range(4))
        pids, began = pool.pids, time.monotonic()
        for place in range(4):
            pool.step(place, "sleep 100")
        _ = 1 / 0
    assert not any(map(alive, pids)) and time.monotonic() - began < 30


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files")
def test_connections_are_closed():
    def count():
        return len(os.listdir("/proc/self/fd"))

    before, threads = count(), threading.active_count()
    for workers in (0, 1, 2):
        with SessionPool(source(), workers=workers, time_limit=0.5) as pool:
            open_all(pool, [0, 1])
            assert ask(pool, 0, "raise ValueError").cause == "raised"
            pool.step(1, "sleep 1")
            assert collect(pool, 1)[1].cause == "hung"
    wait_until(lambda: count() <= before and threading.active_count() <= threads)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_pool_that_is_forgotten():
    pool = SessionPool(source(), workers=2)
    open_all(pool, range(2))
    pids = pool.pids
    del pool
    gc.collect()
    wait_until(lambda: not any(map(alive, pids)))


def test_an_interrupt_is_for_the_parent():
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, [0])
        assert os.getsid(pool.pids[0]) == pool.pids[0]  # the terminal's does not reach it
        os.kill(pool.pids[0], signal.SIGINT)
        assert ask(pool, 0, "look").observation == "task-0 1: look"


ORPHANS = """
import time
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.sessions.source import Source
from reskill_jax.worlds.world import TaskSpec

pool = SessionPool(Source("odd_worlds:Odd"), workers=3)
for place in range(3):
    pool.open(place, TaskSpec(str(place), "x"))
left = 3
while left:
    left -= len(pool.wait(1))
pool.step(0, "sleep 300")
print(*pool.pids, flush=True)
time.sleep(300)
"""


def test_workers_end_with_their_parent(folder):
    with run(ORPHANS, folder, stderr=None) as process:
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 3 and all(map(alive, pids))
        process.kill()
    wait_until(lambda: not any(map(alive, pids)))


FORGETFUL = """
import sys
from reskill_jax.worlds.sessions.pool import SessionPool
from reskill_jax.worlds.sessions.source import Source
from reskill_jax.worlds.world import TaskSpec

def play():
    pool = SessionPool(Source("odd_worlds:Odd"), workers=1)
    pool.open(0, TaskSpec("it", "x"))
    assert pool.wait(60)
    pool.step(0, "print")
    assert len(pool.wait(60)[0].observation) > 0
    return pool

print("printed by the parent", *play().pids)
kept = play()
print(*kept.pids)
"""


def test_what_worlds_print_is_no_output_of_the_parent(folder):
    out, errors = output(FORGETFUL, folder)
    first, second = out.splitlines()
    assert first.startswith("printed by the parent ")
    assert errors.count("printed by a session") == errors.count("echoed by a session") == 2
    pids = [int(first.split()[-1]), int(second)]  # of pools that nobody has shut down
    wait_until(lambda: not any(map(alive, pids)))


def test_a_worker_is_light_and_finds_what_its_parent_finds(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with SessionPool(source(), workers=1) as pool:
        open_all(pool, [0])

        def said(what):
            return eval(ask(pool, 0, f"say repr({what})").observation.split(": ", 1)[1])

        modules = said("sorted(sys.modules)")
        assert "reskill_jax.worlds.world" in modules and "odd_worlds" in modules
        assert not {"jax", "jaxlib", "chex", "numpy", "scipy"} & set(modules)
        assert said("sys.path") == sys.path and said("os.getcwd()") == os.getcwd()
        assert said("sys.argv[1:]") == [] and said("sys.stdin.read()") == ""
        assert said("os.environ['JAX_PLATFORMS']") == "cpu"  # the accelerator is the parent's


# --- everything at once --------------------------------------------------------------------------


class Soak:
    """Plays episodes while sessions fail and workers are killed; every episode has one end."""

    actions = {"look": 300, "raise ValueError": 6, "nonsense nan": 6, "exit 3": 2}
    actions |= {"sleep 100": 1, "raise SystemExit": 6, "sleep .02": 100}

    def __init__(self, pool, *, episodes, rows, seed):
        self.pool, self.episodes, self.rows = pool, episodes, rows
        self.random = random.Random(seed)
        self.playing = {}  # place -> [episode, turns that were answered, whether it is answered]
        self.ends = {}  # episode -> how it ended
        self.next = self.kills = 0

    def play(self):
        for place in range(self.rows):
            self.begin(place)
        killed = time.monotonic()
        while len(self.ends) < self.episodes:
            for reply in self.pool.wait(5.0):
                self.take(reply)
            if time.monotonic() > killed + 0.4:  # one after another, so that each gets to answer
                pid = self.pool.pids[self.kills % len(self.pool.pids)]
                os.kill(pid, self.random.choice([signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM]))
                killed, self.kills = time.monotonic(), self.kills + 1

    def begin(self, place):
        if self.next < self.episodes:
            self.playing[place] = [self.next, -1, False]
            self.pool.open(place, task(f"episode-{self.next}"))
            self.next += 1

    def end(self, place, how):
        episode = self.playing.pop(place)[0]
        assert episode not in self.ends
        self.ends[episode] = how
        self.pool.close(place)
        self.begin(place)

    def take(self, reply):
        if reply.place not in self.playing:
            assert self.next == self.episodes and reply.failed, "an answer to nobody"
            return
        found = self.playing[reply.place]
        episode, turn, answered = found
        if reply.failed:
            self.end(reply.place, reply.cause)
            return
        assert not answered, "two answers to one call"
        found[1] = turn = turn + 1
        told = f"episode-{episode} {turn}:" if turn else f"episode-{episode} begins"
        assert reply.observation.startswith(told)
        if turn == 6:
            self.end(reply.place, "played")
        elif self.random.random() < 0.02:  # while the call is carried out
            self.pool.step(reply.place, "sleep .05")
            self.end(reply.place, "left")
        else:
            action = self.random.choices([*self.actions], [*self.actions.values()])[0]
            self.pool.step(reply.place, action)


@pytest.mark.slow
def test_every_episode_has_one_end_whatever_happens():
    with SessionPool(source(), workers=4, time_limit=1.0, open_limit=4.0) as pool:
        soak = Soak(pool, episodes=200, rows=16, seed=0)
        soak.play()
        assert sorted(soak.ends) == list(range(200))
        causes = {"played", "left", "raised", "malformed", "hung", "died", "lost"}
        assert {"played", "left", "raised", "lost"} <= set(soak.ends.values()) <= causes
        assert soak.kills >= 3 and pool.restarts >= 3 and not soak.playing
        pids = pool.pids
    assert len(pids) == 4 and not any(map(alive, pids))
