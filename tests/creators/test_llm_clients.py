"""Clients against a server on the loopback address, and the policy that is one for all of them."""

import importlib.util
import json
import socket
import threading
import time

import pytest

from reskill_jax.creators.llm import asking, clients
from reskill_jax.creators.llm.asking import Asker, Limits, Spent, Stopped
from reskill_jax.creators.llm.bedrock import BedrockClient
from reskill_jax.creators.llm.call import CallError, Request
from reskill_jax.creators.llm.clients import AnthropicClient, OpenAIClient, base_url, key_of
from reskill_jax.creators.llm.reading import ReplyError
from reskill_jax.storage.replies import ReplyStore

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["word"],
    "properties": {"word": {"type": "string"}},
}
REQUEST = Request("0/insight/0", "insight", "Be brief.", "Say a word.", SCHEMA, 50, 0.2)
KEY = "sk-very-secret-0123456789"
GOOD = {"word": "yes"}


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Keys of whoever runs the tests stay out of them, and nobody goes through a proxy."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA0123456789")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")


def openai(server):
    return OpenAIClient("some/model", server.url, KEY)


def anthropic(server):
    return AnthropicClient("some-model", server.host, KEY)


def bedrock(server):
    if importlib.util.find_spec("boto3") is None:
        pytest.skip("boto3 is not installed (the extra bedrock)")
    return BedrockClient("eu.some-model:0", server.host)


ALL = pytest.mark.parametrize("client_of", [openai, anthropic, bedrock])


class Waits(list):
    """Notes pauses instead of making them."""

    def __call__(self, seconds):
        self.append(seconds)
        return False


def asker_of(client, tmp_path, **limits):
    waits = Waits()
    asker = Asker(client, ReplyStore(tmp_path), Limits(**limits), wait=waits)
    asker.waits = waits
    return asker


def ask(asker, request=REQUEST, read=lambda answer: answer["word"]):
    """The answer, and what all calls cost."""
    costs = []
    try:
        return asker.ask(request, read, costs.append), costs
    except CallError as error:
        return error, costs


# --- one call of each client ---------------------------------------------------------------------


@ALL
def test_a_call(serve, said, client_of):
    server = serve([said(GOOD)])
    client = client_of(server)
    reply = client.complete(REQUEST, "json_schema", seconds=10)
    assert json.loads(reply.text) == GOOD and reply.stop == "end"
    assert (reply.input_tokens, reply.output_tokens) == (100, 20)
    (asked,) = server.asked
    assert (asked.system, asked.user, asked.form) == ("Be brief.", "Say a word.", "json_schema")
    assert KEY not in repr(client) and KEY not in json.dumps(asked.body)


def test_what_is_sent_to_an_openai_compatible_server(serve, said):
    server = serve(lambda asked: said(GOOD))
    for form in clients.FORMS:
        openai(server).complete(REQUEST, form, seconds=10)
    first, second, third, last = server.asked
    assert first.path == "/v1/chat/completions"
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "insight", "strict": True, "schema": SCHEMA},
    }
    assert second.body["response_format"] == {"type": "json_object", "schema": SCHEMA}
    assert third.body["response_format"] == {"type": "json_object"}
    assert "response_format" not in last.body
    assert first.body["max_tokens"] == 50 and first.body["temperature"] == 0.2
    OpenAIClient("m", server.url).complete(REQUEST, "text", seconds=10)
    assert "authorization" not in server.asked[-1].headers


def test_what_is_sent_to_anthropic(serve, said):
    server = serve([said(GOOD)])
    anthropic(server).complete(REQUEST, "json_schema", seconds=10)
    (asked,) = server.asked
    assert asked.path == "/v1/messages"
    assert asked.headers["x-api-key"] == KEY and asked.headers["anthropic-version"] == "2023-06-01"
    assert asked.body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert "temperature" not in asked.body  # newer models refuse one


def test_what_is_sent_to_bedrock(serve, said):
    server = serve([said(GOOD)])
    bedrock(server).complete(REQUEST, "json_schema", seconds=20)
    (asked,) = server.asked
    assert asked.path == "/model/eu.some-model:0/converse"
    told = asked.body["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(told["schema"]) == SCHEMA  # a string there
    assert asked.body["inferenceConfig"] == {"maxTokens": 50, "temperature": 0.2}


@ALL
@pytest.mark.parametrize("stop", ["length", "refused"])
def test_why_a_reply_ended_is_read_from_it(serve, said, client_of, stop):
    client = client_of(serve([said('{"wo', stop=stop)]))
    reply = client.complete(REQUEST, "text", seconds=20)
    assert (reply.stop, reply.text) == (stop, '{"wo')  # what there is of it is kept


def test_a_refusal_in_a_field_of_its_own(serve, said):
    message = {"content": None, "refusal": "I would rather not."}
    raw = json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()
    reply = openai(serve([said(raw=raw)])).complete(REQUEST, "text", seconds=10)
    assert (reply.stop, reply.text) == ("refused", "I would rather not.")
    assert reply.input_tokens is None  # it does not count


def remedy(client, form="text", seconds=10):
    with pytest.raises(CallError) as found:
        client.complete(REQUEST, form, seconds=seconds)
    return found.value


@pytest.mark.parametrize("client_of", [openai, anthropic])
@pytest.mark.parametrize(
    "status, text, form, expected",
    [
        (429, "slow down", "text", "later"),
        (429, "You exceeded your quota (insufficient_quota).", "text", "never"),
        (503, "overloaded", "text", "later"),
        (529, "overloaded", "text", "later"),
        (408, "timeout", "text", "later"),
        (400, "This model's maximum context length is 2048 tokens", "text", "less"),
        (400, "prompt is too long: 210000 tokens", "json_schema", "less"),
        (413, "too large", "text", "less"),
        (400, "'required' must list every property", "json_schema", "form"),
        (422, "response_format", "json_object", "form"),
        (500, "No such grammar", "json_schema", "form"),
        (500, "oops", "text", "later"),
        (400, "bad request", "text", "never"),
        (401, f"Incorrect API key provided: {KEY}", "text", "never"),
        (403, "no", "text", "never"),
        (404, "there is no such model", "json_schema", "never"),
        (302, "", "text", "never"),
    ],
)
def test_errors_are_classified_once(serve, said, client_of, status, text, form, expected):
    error = remedy(client_of(serve([said(text, status=status)])), form)
    assert error.remedy == expected and f"HTTP {status}" in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize(
    "name, message, form, expected",
    [
        ("ThrottlingException", "slow", "text", "later"),
        ("ModelTimeoutException", "late", "text", "later"),
        ("AccessDeniedException", "no", "text", "never"),
        ("ValidationException", "Input is too long", "text", "less"),
        ("ValidationException", "outputConfig is not supported", "json_schema", "form"),
        ("ValidationException", "bad", "text", "never"),
    ],
)
def test_errors_of_bedrock(serve, said, name, message, form, expected):
    answer = said(message, status=400, headers={"x-amzn-errortype": name})
    error = remedy(bedrock(serve([answer])), form, seconds=20)
    assert error.remedy == expected and name in str(error)


@ALL
def test_a_server_that_does_not_answer_is_given_up(serve, said, client_of):
    server = serve([said(GOOD, delay=5.0)])
    client = client_of(server)
    began = time.monotonic()
    error = remedy(client, seconds=0.5)
    assert error.remedy == "later" and "0.5 s" in str(error)
    assert time.monotonic() - began < 3.0


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    error = remedy(OpenAIClient("m", f"http://127.0.0.1:{port}/v1", KEY))
    assert error.remedy == "later" and "Connection refused" in str(error)
    assert KEY not in str(error)


@pytest.mark.parametrize(
    "raw",
    [b"<html>a proxy</html>", b"", b"[]", b'{"choices": []}', b'{"choices": [1]}', b"\xff\xfe"]
    + [b"[" * 100_000, b'{"choices": [{"message": 7}]}'],
)
def test_what_is_no_reply(serve, said, raw):
    assert remedy(openai(serve([said(raw=raw)]))).remedy == "later"


def test_a_reply_that_does_not_end_is_not_read_to_the_end(serve, said):
    error = remedy(openai(serve([said(raw=b" " * (1 << 23))])))
    assert error.remedy == "never" and "bytes" in str(error)


def test_addresses():
    assert base_url("http://host:1/", "/v1") == "http://host:1/v1"
    assert base_url("http://host:1/api/v3/", "/v1") == "http://host:1/api/v3"


def test_keys_come_from_the_environment(monkeypatch):
    assert key_of("OPENAI_API_KEY") is None
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    assert key_of("OPENAI_API_KEY") == KEY
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\r\nHost: evil")
    with pytest.raises(ValueError) as found:
        key_of("OPENAI_API_KEY")
    assert KEY not in str(found.value)


# --- one policy for all ---------------------------------------------------------------------------


@ALL
def test_what_may_pass_is_tried_again(serve, said, client_of, tmp_path):
    answers = [said("slow down", status=429, headers={"retry-after": "7"}), said(GOOD)]
    if client_of is bedrock:
        answers[0] = said("slow", status=429, headers={"x-amzn-errortype": "ThrottlingException"})
    server = serve(answers)
    asker = asker_of(client_of(server), tmp_path)
    found, costs = ask(asker)
    assert found == "yes" and len(server.asked) == 2
    assert asker.waits == ([2.0] if client_of is bedrock else [7.0])
    total = sum(costs, Spent())
    assert (total.calls, total.input_tokens, total.output_tokens) == (2, 100, 20)


def test_attempts_are_counted_in_one_place(serve, said, tmp_path):
    server = serve(lambda asked: said("busy", status=503))
    asker = asker_of(openai(server), tmp_path, attempts=3)
    error, costs = ask(asker)
    assert error.remedy == "later" and len(server.asked) == len(costs) == 3
    assert asker.waits == [2.0, 4.0]


def test_what_cannot_pass_is_asked_once(serve, said, tmp_path):
    server = serve(lambda asked: said("who are you?", status=401))
    error, _ = ask(asker_of(openai(server), tmp_path))
    assert error.remedy == "never" and len(server.asked) == 1


@pytest.mark.parametrize(
    "known, refusal",
    [
        ("json_object_schema", 500),  # llama-cpp-python: 500 to what it lacks
        ("json_object", 400),
        ("text", 400),  # LM Studio refuses json_object
    ],
)
def test_the_form_that_a_server_knows_is_found_and_remembered(
    serve, said, tmp_path, known, refusal
):
    def answer(asked):
        if asked.form == "json_schema_schema" or asked.form != known:
            return said("no such response_format", status=refusal)
        return said(GOOD)

    server = serve(lambda asked: answer(asked))
    asker = asker_of(openai(server), tmp_path)
    assert ask(asker)[0] == "yes"
    tried = clients.FORMS[: clients.FORMS.index(known) + 1]
    assert [asked.form for asked in server.asked] == list(tried)
    server.asked.clear()
    assert ask(asker, REQUEST.after("more"))[0] == "yes"
    assert [asked.form for asked in server.asked] == [known]


def test_a_form_that_worked_is_not_given_up_for_an_outage(serve, said, tmp_path):
    server = serve([said(GOOD), said("oops", status=500), said(GOOD)])
    asker = asker_of(openai(server), tmp_path)
    assert ask(asker)[0] == "yes" and ask(asker, REQUEST.after("more"))[0] == "yes"
    assert [asked.form for asked in server.asked] == ["json_schema"] * 3


@pytest.mark.parametrize(
    "ignored", ["yes", "```json\nyes\n```", '{"other": 1}', '{"word": 3}', '["word"]']
)
def test_a_server_that_ignores_the_schema_is_told_what_is_wrong(serve, said, tmp_path, ignored):
    server = serve([said(ignored), said(f"<think>{ignored}</think>```json\n{json.dumps(GOOD)}```")])
    assert ask(asker_of(openai(server), tmp_path))[0] == "yes"
    assert "could not be used" in server.asked[1].user


def test_a_cut_off_answer_is_not_asked_for_again_with_the_same_limit(serve, said, tmp_path):
    server = serve(lambda asked: said('{"word": "ye', stop="length"))
    error, _ = ask(asker_of(openai(server), tmp_path, attempts=4))
    assert error.remedy == "less"
    assert [asked.body["max_tokens"] for asked in server.asked] == [50, 100, 200, 200]
    assert all("cut off" in asked.user for asked in server.asked[1:])
    replies = sorted((tmp_path / "creator" / "replies").iterdir())
    assert len(replies) == 4  # the partial texts are kept
    assert all(json.loads(one.read_text())["text"] == '{"word": "ye' for one in replies)


def test_an_answer_that_is_complete_is_used_though_it_was_cut_off_behind(serve, said, tmp_path):
    server = serve([said(json.dumps(GOOD) + "   \n ", stop="length")])
    assert ask(asker_of(openai(server), tmp_path))[0] == "yes"


def test_a_refusal_is_final(serve, said, tmp_path):
    server = serve(lambda asked: said("I must not.", stop="refused"))
    error, _ = ask(asker_of(openai(server), tmp_path))
    assert error.remedy == "never" and "I must not." in str(error) and len(server.asked) == 1


def test_what_the_reader_cannot_use_is_told_to_the_model(serve, said, tmp_path):
    server = serve(lambda asked: said(GOOD))

    def read(answer):
        raise ReplyError("'word' must be no.")

    error, _ = ask(asker_of(openai(server), tmp_path, attempts=2), read=read)
    assert "'word' must be no." in str(error)
    assert "'word' must be no." in server.asked[1].user and len(server.asked) == 2


def test_temperature_is_above_zero_and_answers_are_limited(serve, said, tmp_path):
    server = serve(lambda asked: said(GOOD))
    ask(asker_of(openai(server), tmp_path))
    assert server.asked[0].body["temperature"] > 0 and server.asked[0].body["max_tokens"] == 50


def test_a_budget_of_calls(serve, said, tmp_path):
    server = serve(lambda asked: said(GOOD))
    asker = asker_of(openai(server), tmp_path, calls=3)
    asker.begin(Spent(calls=2))
    assert ask(asker)[0] == "yes"
    error, costs = ask(asker, REQUEST.after("more"))
    assert error.remedy == "never" and "budget of 3 calls" in str(error)
    assert len(server.asked) == 1 and sum(costs, Spent()).calls == 0


def test_a_budget_of_tokens(serve, said, tmp_path):
    server = serve(lambda asked: said(GOOD))
    asker = asker_of(openai(server), tmp_path, tokens=200)
    assert ask(asker)[0] == "yes" and ask(asker, REQUEST.after("a"))[0] == "yes"
    assert "budget of 200 tokens" in str(ask(asker, REQUEST.after("b"))[0])
    assert len(server.asked) == 2


def test_tokens_are_estimated_where_a_server_does_not_count(serve, said, tmp_path):
    message = {"message": {"content": json.dumps(GOOD)}, "finish_reason": "stop"}
    server = serve([said(raw=json.dumps({"choices": [message]}).encode())])
    _, (cost,) = ask(asker_of(openai(server), tmp_path))
    assert (cost.input_tokens, cost.output_tokens) == (5, 4)  # 20 and 15 characters


def test_after_the_end_nothing_is_asked(serve, said, tmp_path):
    server = serve(lambda asked: said("busy", status=503))
    asker = Asker(openai(server), ReplyStore(tmp_path), Limits())
    threading.Timer(0.2, asker.close).start()
    began = time.monotonic()
    with pytest.raises(Stopped):  # in the middle of a pause of 2 s
        ask(asker)
    assert time.monotonic() - began < 1.5
    with pytest.raises(Stopped):
        ask(asker, REQUEST.after("more"))
    assert len(server.asked) == 1


# --- the record of calls --------------------------------------------------------------------------


def test_recorded_calls_are_not_made_again(serve, said, tmp_path):
    answers = [said("no", status=500), said("busy", status=503), said("what?"), said(GOOD)]
    server = serve(list(answers))
    first = asker_of(openai(server), tmp_path / "run")
    found, costs = ask(first)
    assert found == "yes" and len(server.asked) == 4
    # Without a server, in the same run or from the record of another: the same, pauses left out.
    for store in (
        ReplyStore(tmp_path / "run"),
        ReplyStore(tmp_path / "other", recorded=tmp_path / "run"),
    ):
        again = Asker(None, store, Limits(), wait=pytest.fail)
        assert ask(again) == ("yes", costs)
    missing, _ = ask(again, REQUEST.after("more"))
    assert missing.remedy == "never" and "no record" in str(missing)


def test_recorded_failures_are_met_again(serve, said, tmp_path):
    server = serve(lambda asked: said("busy", status=503))
    first, costs = ask(asker_of(openai(server), tmp_path))
    again, told = ask(Asker(None, ReplyStore(tmp_path), Limits(), wait=pytest.fail))
    assert (str(again), told) == (str(first), costs)


def test_a_form_is_remembered_from_the_record(serve, said, tmp_path):
    server = serve([said("no", status=500), said(GOOD), said(GOOD)])
    ask(asker_of(openai(server), tmp_path))
    asker = asker_of(openai(server), tmp_path)  # as after a crash
    assert ask(asker)[0] == "yes" and ask(asker, REQUEST.after("more"))[0] == "yes"
    forms = [asked.form for asked in server.asked]
    assert forms == ["json_schema", "json_object_schema", "json_object_schema"]


def test_keys_are_in_no_file(serve, said, tmp_path):
    echo = f"Authorization: Bearer {KEY}"
    answers = [said(f"Incorrect API key provided: {KEY}", status=401), said(GOOD)]
    answers += [said(raw=f"<html>{echo}</html>".encode()), said(json.dumps({"a": echo}))]
    server = serve([*answers, said(echo)])
    asker = asker_of(openai(server), tmp_path, attempts=1)
    for number in range(5):
        ask(asker, REQUEST.after("more" * number))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (
        len(server.asked) == 5
        and len(files) == 10
        and server.asked[1].headers["authorization"] == f"Bearer {KEY}"
    )
    assert all(KEY.encode() not in path.read_bytes() for path in files)


def test_the_longest_pause_is_bounded(serve, said, tmp_path):
    server = serve(lambda asked: said("busy", status=429, headers={"retry-after": "86400"}))
    asker = asker_of(openai(server), tmp_path, attempts=2)
    ask(asker)
    assert asker.waits == [120.0] and asking.Limits().seconds == 60.0
