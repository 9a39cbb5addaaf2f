"""The client of Bedrock: its threads, and how boto3's clients are made."""

import importlib.util
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from reskill_jax.creators.llm.bedrock import BedrockClient
from reskill_jax.creators.llm.call import CallError, Reply, Request

REQUEST = Request("0/insight/0", "insight", "Be brief.", "Say a word.", {}, 50, 0.2)
needs_boto3 = pytest.mark.skipif(
    importlib.util.find_spec("boto3") is None, reason="needs boto3 (the extra bedrock)"
)


@pytest.fixture
def converse(monkeypatch):
    """Puts a function in the place of the call: `converse(function)`; it needs no boto3."""
    monkeypatch.setattr(BedrockClient, "_runtime", lambda self, seconds: None)
    return lambda told: monkeypatch.setattr(BedrockClient, "_converse", lambda *_: told())


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a mistake of ours"), SystemExit(3), CallError("form", "HTTP 400")]
)
def test_whatever_goes_wrong_in_the_thread_reaches_who_asked(converse, error):
    def broken():
        raise error

    converse(broken)
    with pytest.raises(type(error)) as found:
        BedrockClient("m").complete(REQUEST, "text", seconds=20)
    assert found.value is error


def test_an_answer_and_none_in_time(converse):
    client, gate = BedrockClient("m"), threading.Event()
    converse(lambda: Reply("yes", "end", 1, 1))
    assert client.complete(REQUEST, "text", seconds=20).text == "yes"
    converse(lambda: gate.wait(20))
    with pytest.raises(CallError, match="no answer within 0.05 s") as found:
        client.complete(REQUEST, "text", seconds=0.05)
    gate.set()
    assert found.value.remedy == "later"


@needs_boto3
def test_clients_are_made_one_at_a_time_and_once(monkeypatch):
    lock, making, made = threading.Lock(), [], []

    class Session:
        def client(self, name, **_):
            assert lock.acquire(blocking=False), "two at a time"
            making.append(name)
            time.sleep(0.02)
            lock.release()
            made.append(object())
            return made[-1]

    monkeypatch.setattr("boto3.session.Session", Session)
    clients = [BedrockClient("a"), BedrockClient("b")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: clients[n % 2]._runtime(60.0), range(8)))
    assert making == ["bedrock-runtime"] * 2 and len(set(map(id, found))) == 2


@needs_boto3
@pytest.mark.parametrize("seconds", [5.0, 60.0, 600.0])
def test_boto3_waits_as_long_as_a_call_may_take(monkeypatch, seconds):
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    config = BedrockClient("m")._runtime(seconds).meta.config
    assert seconds < config.read_timeout <= seconds + 60
    assert config.retries["total_max_attempts"] == 1
