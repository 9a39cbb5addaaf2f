"""Whole runs with a language model as creator, in the world where looking around wins."""

import dataclasses
import io
import json
import shutil
import time

import pytest
from rich.console import Console

from reskill_jax.cli.errors import CommandLineError
from reskill_jax.cli.train import parse_train
from reskill_jax.report import write_report
from reskill_jax.storage import log_schema
from reskill_jax.training import loop
from reskill_jax.training.config import TrainConfig, replace
from reskill_jax.training.creators import client_of, creator_of, lacks
from reskill_jax.training.sections import CreatorConfig
from reskill_jax.worlds import registry
from reskill_jax.worlds.household.world import HouseholdWorld
from tests.devices.two_processes import ends_of, free_port, start

KEY = "sk-very-secret-0123456789"
PRICES = {"input_price": 3.0, "output_price": 15.0}
TIMED = ("seconds", "compile_seconds", "creator_seconds")


class Killed(Exception):
    """What ends a run in a test."""


def lines(path, *without):
    return [
        {key: value for key, value in json.loads(line).items() if key not in without}
        for line in path.read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def train(lab, tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")

    def run(
        name, server, *, resume=False, die_after=None, told=None, once=False, mirror=None, **creator
    ):
        if once and (root / name).exists():
            return root / name
        settings = {"kind": "llm", "url": server and server.url, "model": "stub", "contrasts": 3}
        config = replace(
            lab.config, root=str(root), name=name, mirror=mirror, creator=settings | creator
        )

        def observer(step, *_):
            if step == die_after:
                raise Killed

        told = io.StringIO() if told is None else told
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "make_world", lab.make_world)
            patch.setenv("OPENAI_API_KEY", KEY)
            try:
                console = Console(file=told, width=200)
                loop.train(config, resume=resume, console=console, observer=observer)
            except Killed:
                assert die_after is not None
        return root / name

    return run


@pytest.fixture
def expert(said, answers):
    """A model that asks for another action each time it is asked for words."""
    actions = ("look.", "open.", "do not look.", "examine.", "take.", "go to.", "inventory.")
    words = answers["authoring"]["operations"][0] | {"trigger": "general", "pattern": None}

    def answer(asked, delay=0.0):
        told = answers[asked.stage]
        if asked.stage == "authoring":
            turn = len(asked.data["refused_attempts"]) + len(asked.data["skills"]["under_test"])
            told = {"operations": [words | {"action": actions[turn % len(actions)]}]}
        return said(told, delay=delay)

    return answer


def test_a_run(train, serve, expert):
    server = serve(expert)
    told = io.StringIO()
    run = train("whole", server, told=told, lag=1, **PRICES)
    events = lines(run / "lifecycle.jsonl")
    proposed = [event for event in events if event["event"] == "proposed"]
    assert proposed and all("pipeline" in event for event in proposed)
    assert proposed[0]["operations"][0]["skill"]["action"] == "look."
    assert {"accepted", "rejected"} & {event["event"] for event in events}
    # What it costs is in every line of the metrics, and adds up.
    metrics = lines(run / "metrics.jsonl")
    calls = [line["creator_calls"] for line in metrics]
    assert calls == sorted(calls) and 0 < calls[-1] <= len(server.asked)
    assert metrics[-1]["creator_input_tokens"] == 100 * calls[-1]
    assert metrics[-1]["creator_cost"] == pytest.approx(calls[-1] * (300 + 300) / 1e6)
    told_of = lines(run / "creator.jsonl")
    assert sum(line.get("calls", 0) for line in told_of) == calls[-1]
    for log, check in (
        ("metrics.jsonl", log_schema.check_metrics),
        ("lifecycle.jsonl", log_schema.check_lifecycle),
        ("creator.jsonl", log_schema.check_creator),
    ):
        for line in lines(run / log):
            check(line)
    assert "proposed ADD open-what-is-closed" in told.getvalue()
    page, problems = write_report(run)
    assert problems == []
    # The key was sent, and is nowhere else.
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) > 50 and KEY not in told.getvalue()
    assert all(KEY.encode() not in path.read_bytes() for path in files)


@pytest.mark.parametrize("die_after", [3, 6, 9])
def test_a_run_goes_on_as_if_it_had_not_been_killed(train, serve, expert, die_after):
    """Pipelines are under way all the time; checkpoints lie two steps apart."""
    server = serve(expert)
    whole = train("unbroken", server, lag=2, once=True)
    train(f"broken-{die_after}", server, die_after=die_after, lag=2)
    broken = train(f"broken-{die_after}", server, resume=True, lag=2)
    for log in ("lifecycle.jsonl", "trials.jsonl", "eval.jsonl"):
        assert (broken / log).read_text() == (whole / log).read_text()
    for log in ("metrics.jsonl", "creator.jsonl"):
        assert lines(broken / log, *TIMED) == lines(whole / log, *TIMED)


def test_what_a_killed_run_has_logged_is_logged_again(train, serve, expert):
    """Without waiting: at which step an answer was there is known from the record alone."""
    server = serve(lambda asked: expert(asked, delay=0.05))
    broken = train("timely", server, die_after=9)
    before = {
        log: lines(broken / log, "seconds", "compile_seconds")
        for log in ("lifecycle.jsonl", "metrics.jsonl", "creator.jsonl", "trials.jsonl")
    }
    assert before["metrics.jsonl"][-1]["step"] == 9
    server.answer = lambda asked: expert(asked)  # much faster than before
    train("timely", server, resume=True)
    for log, told in before.items():
        assert lines(broken / log, "seconds", "compile_seconds")[: len(told)] == told


def test_a_finished_run_is_replayed(train, serve, expert):
    server = serve(lambda asked: expert(asked, delay=0.02))
    first = train("recorded", server)
    asked = len(server.asked)
    server.close = lambda: None
    again = train("replayed", None, kind="replay", recording=str(first))
    assert len(server.asked) <= asked + 3  # of the first run, under way when it ended
    assert (again / "lifecycle.jsonl").read_text() == (first / "lifecycle.jsonl").read_text()
    figures = TIMED[:2]
    assert lines(again / "metrics.jsonl", *figures) == lines(first / "metrics.jsonl", *figures)
    third = train("replayed-again", None, kind="replay", recording=str(again))
    assert (third / "lifecycle.jsonl").read_text() == (first / "lifecycle.jsonl").read_text()


def test_a_run_goes_on_from_its_mirror_with_all_replies(train, serve, expert, tmp_path):
    server = serve(expert)
    whole = train("unbroken", server, lag=2, once=True)
    mirror = tmp_path / "mirror"
    lost = train("moved", server, die_after=6, lag=2, mirror=str(mirror))
    kept = {path.name for path in (mirror / "moved/creator").glob("*/*.json")}
    assert kept <= {path.name for path in (lost / "creator").glob("*/*.json")} and len(kept) > 10
    shutil.rmtree(lost)
    found = train("moved", server, resume=True, lag=2, mirror=str(mirror))
    assert (found / "lifecycle.jsonl").read_text() == (whole / "lifecycle.jsonl").read_text()


def test_a_slow_server_holds_nobody_up(train, serve, expert):
    server = serve(lambda asked: expert(asked, delay=30.0))
    began = time.monotonic()
    run = train("slow", server)
    assert time.monotonic() - began < 20
    assert lines(run / "lifecycle.jsonl") == [] and lines(run / "metrics.jsonl")[-1]["step"] == 12


def test_a_server_that_dies_in_the_middle(train, serve, said, expert):
    server, told = serve(expert), io.StringIO()

    def answer(asked):
        return expert(asked) if len(server.asked) < 8 else said("out of memory", status=400)

    server.answer = answer
    run = train("dying", server, told=told, lag=1, attempts=1)
    events = [event["event"] for event in lines(run / "lifecycle.jsonl")]
    assert "proposed" in events and events.count("creator_failed") >= 2
    assert lines(run / "metrics.jsonl")[-1]["step"] == 12
    assert told.getvalue().count("creator failed") == 1  # said once, logged every time


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(kind="llm"), "needs creator.model"),
        (dict(kind="replay"), "needs creator.recording"),
        (dict(model="m"), "has no effect with creator.kind = rules"),
        (dict(kind="llm", model="m", recording="runs/a"), "has no effect"),
        (dict(kind="llm", model="m", url="localhost:8000"), "must be http"),
        (dict(kind="llm", model="m", url="file:///etc/passwd"), "must be http"),
        (dict(kind="llm", model="m", url="http://me:secret@host/v1"), "no user, password"),
        (dict(kind="llm", model="m", url="http://host/v1?key=secret"), "no user, password"),
        (dict(kind="llm", model="m", url="http://host:99999/v1"), "must be http"),
        (dict(kind="llm", model="a\nb"), "creator.model has characters"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(creator=CreatorConfig(**settings))


def test_the_command_line():
    url = ["--creator.url", "http://localhost:8000/v1", "--creator.model", "some/model"]
    chosen = parse_train(["--creator", "llm", *url, "--creator.fallback", "rules"]).config.creator
    assert (chosen.kind, chosen.provider, chosen.model) == ("llm", "openai", "some/model")
    assert (chosen.url, chosen.fallback) == ("http://localhost:8000/v1", "rules")
    chosen = parse_train(["--creator=llm", "--creator.provider=bedrock", "--creator.model=m"])
    assert chosen.config.creator.provider == "bedrock"
    assert parse_train(["--creator.kind", "rules"]).config == parse_train([]).config
    with pytest.raises(CommandLineError, match="needs creator.model"):
        parse_train(["--creator", "llm"])
    with pytest.raises(CommandLineError):
        parse_train(["--creator", "nobody"])


def test_what_is_missing_is_said_before_a_run(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    assert lacks(CreatorConfig()) is None
    local = CreatorConfig(kind="llm", model="m", url="http://localhost:1/v1")
    assert lacks(local) is None  # a server of one's own asks for no key
    assert "OPENAI_API_KEY" in lacks(CreatorConfig(kind="llm", model="m"))
    anthropic = CreatorConfig(kind="llm", model="m", provider="anthropic")
    assert "ANTHROPIC_API_KEY" in lacks(anthropic)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert lacks(anthropic) is None and client_of(anthropic).key == KEY
    monkeypatch.setattr("reskill_jax.training.creators.boto3_is_missing", lambda: True)
    assert "pip install" in lacks(CreatorConfig(kind="llm", model="m", provider="bedrock"))


def test_the_creator_that_a_configuration_names():
    assert type(creator_of(TrainConfig(), HouseholdWorld())).__name__ == "RulesCreator"
    told = CreatorConfig(kind="llm", model="m", url="http://h", fallback="rules", input_price=2.0)
    found = creator_of(TrainConfig(creator=told), HouseholdWorld())
    assert (type(found).__name__, found.fallback) == ("LLMCreator", True)
    assert found.prices.input == 2.0 and found.desk is None
    assert client_of(told).url == "http://h/v1"


@pytest.mark.slow
def test_two_processes_with_one_model_decide_as_one(train, serve, expert, lab, tmp_path):
    """The first asks; what enters, is tried and is decided is the same as in one process."""
    config = replace(
        lab.config,
        root=str(tmp_path),
        name="two",
        eval_every=0,
        mesh={"data": 2},
        creator={
            "kind": "llm",
            "url": serve(expert).url,
            "model": "stub",
            "contrasts": 3,
            "lag": 1,
            **PRICES,
        },
    )
    settings, port = tmp_path / "settings.json", free_port()
    settings.write_text(json.dumps(dataclasses.asdict(config)))
    words = "-m", "tests.devices.two_processes"
    children = [start(*words, process, port, settings) for process in (0, 1)]
    try:
        ends = ends_of(children, seconds=500)
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], ends
    alone, two = train("whole", serve(expert), once=True, lag=1, **PRICES), tmp_path / "two"
    for log in ("lifecycle.jsonl", "creator.jsonl"):
        found = lines(two / log, *TIMED)
        assert found == lines(alone / log, *TIMED) and found
    calls = [
        [line["creator_calls"] for line in lines(run / "metrics.jsonl")] for run in (alone, two)
    ]
    assert calls[0] == calls[1]
