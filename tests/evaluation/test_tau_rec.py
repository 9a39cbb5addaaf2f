"""tau-Rec with language models: a stub server plays the agent and the user."""

import http.server
import json
import re
import threading

import pytest

from reskill_jax import cli
from reskill_jax.evaluation.tau_rec import play_tasks, summary
from reskill_jax.worlds.tau_rec import TauRec
from reskill_jax.worlds.tau_rec.agents import RuleAgent
from reskill_jax.worlds.tau_rec.chat import ChatClient, ChatError
from reskill_jax.worlds.tau_rec.chat_players import ChatAgent, ChatUser
from reskill_jax.worlds.tau_rec.generator import generate, write_folder
from reskill_jax.worlds.tau_rec.prompts import user_instruction
from reskill_jax.worlds.tau_rec.scoring import ACCEPTED
from reskill_jax.worlds.tau_rec.users import Listener, ScriptedUser


def called(number, name, **arguments):
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"id": f"c{number}", "type": "function", "function": function}


def as_agent(messages):
    """Asks, looks, searches, and recommends what was found first."""
    results = [json.loads(one["content"]) for one in messages if one["role"] == "tool"]
    heard = [one["content"] for one in messages if one["role"] == "user"]
    if not results and len(heard) == 1:
        return {"content": "Which services do you have?"}
    if not results:
        calls = [called(1, "get_user_history", user_id="user_1")]
        calls.append(called(2, "search_catalog", query=heard[0].lower()))
        return {"content": "One moment.", "tool_calls": calls}
    if not results[1]:
        return {"content": '<tool_call>{"name": "recommend", "arguments": {}}</tool_call>'}
    return {"content": None, "tool_calls": [called(3, "recommend", item_id=results[1][0]["id"])]}


def as_user(messages):
    """Says what the instruction lists as to be said first."""
    if len(messages) == 2:
        wishes = messages[0]["content"].partition("whoever you are:\n")[2].partition("\nSay")[0]
        return {"content": wishes.replace("- genres contains", "").replace('"', "")}
    return {"content": f"{ACCEPTED} I have all of them."}


class Stub(http.server.BaseHTTPRequestHandler):
    """Answers as an OpenAI-compatible server; `server.fails` says which requests fail, and how."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers), body))
            number = len(self.server.requests)
        status, told = self.server.fails(number, body) or (200, None)
        if told is None:
            message = as_agent(body["messages"]) if "tools" in body else as_user(body["messages"])
            told = json.dumps({"choices": [{"message": {"role": "assistant"} | message}]})
        self.send_response(status)
        data = told.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    made.requests, made.lock = [], threading.Lock()
    made.fails = lambda number, body: None
    made.address = f"http://127.0.0.1:{made.server_port}/v1"
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture(scope="module")
def data():
    return TauRec(generate(2, films=40, tasks=10))


def play(data, server, *, attempts=1, **options):
    client = ChatClient(
        server.address, "stub", key="secret", attempts=attempts, wait=0, timeout=20, **options
    )
    played = play_tasks(
        data,
        lambda task, trial: ChatAgent(client, data.policy),
        lambda task: ChatUser(client, task),
        trials=2,
        at_once=4,
    )
    return played, summary(played, data, agent="stub", user="language model stub")


def test_whole_conversations(data, server):
    played, found = play(data, server, temperature=0.5)
    assert found["n"] == found["trials"] == 20 and found["invalid"] == 0 and found["fewest"] == 2
    assert found["user"] == "language model stub" and found["digests"] == data.digests
    trace = played[0].trace
    assert [event.get("name") or event["role"] for event in trace.events] == [
        *("agent", "user", "agent", "user"),
        *("get_user_history", "search_catalog", "recommend"),
    ]
    assert trace.stop_reason == "recommended" and trace.messages("agent")[-1].startswith("Which")
    assert sum(row["c"] for row in found["table"].values()) > 0
    assert found["pass_hat_k"]["4"] == 0  # of two trials nothing is known about four
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    assert body["model"] == "stub" and body["temperature"] == 0.5
    of_agent = [body for _, _, body in server.requests if "tools" in body]
    assert len(of_agent[0]["tools"]) == 6 and data.policy in of_agent[0]["messages"][0]["content"]
    last = max(of_agent, key=lambda body: len(body["messages"]))["messages"]
    assert [one["role"] for one in last[-3:]] == ["assistant", "tool", "tool"]
    assert last[-2]["tool_call_id"] == last[-3]["tool_calls"][0]["id"]


def test_a_server_that_fails_makes_trials_invalid(data, server):
    server.fails = lambda number, body: (503, "busy") if number % 9 == 0 else None
    played, found = play(data, server)
    assert 0 < found["invalid"] < 20 and found["n"] + found["invalid"] == found["trials"] == 20
    (cause,) = found["causes"]
    assert cause == "ChatError: the model's server answered with status 503: busy (tried 1 times)"
    assert found["fewest"] < 2
    counted = {name: sum(1 for p in played if p.task == name and p.trace) for name in data.tasks}
    assert {name: row["n"] for name, row in found["table"].items()} == counted
    assert play(data, server, attempts=3)[1]["invalid"] == 0  # it passes


def test_what_is_final_is_not_tried_again(data, server):
    server.fails = lambda number, body: (401, "no\n key") if "tools" in body else None
    _, found = play(data, server, attempts=5)
    assert found["n"] == 0 and len(server.requests) == 40
    assert list(found["causes"]) == [
        "ChatError: the model's server answered with status 401: no key"
    ]
    server.fails = lambda number, body: (200, "[]")
    assert "has no message" in next(iter(play(data, server)[1]["causes"]))
    server.fails = lambda number, body: (200, "{")
    assert "is not JSON" in next(iter(play(data, server)[1]["causes"]))


def test_a_conversation_that_is_too_long_is_a_failure_of_the_agent(data, server):
    told = '{"error": "the maximum context length is 9 tokens"}'
    server.fails = lambda number, body: (400, told) if "tools" in body else None
    played, found = play(data, server)
    assert found["n"] == 20 and {one.trace.stop_reason for one in played} == {"timeout"}


def test_addresses():
    for address in ("localhost:1", "ftp://x/v1", "http://user@x/v1", ""):
        with pytest.raises(ChatError, match="is no address of a model"):
            ChatClient(address, "m")
    waits = []
    client = ChatClient("http://127.0.0.1:9/v1", "m", attempts=3, sleep=waits.append)
    with pytest.raises(ChatError, match=r"cannot be reached .* \(tried 3 times\)"):
        client.complete([])
    assert waits == [30, 60]


def test_what_a_user_is_told(data):
    task = next(t for t in data.tasks.values() if t.revealed("on_ask") and t.user_services)
    told = user_instruction(task)
    first, _, rest = told.partition("\nSay these only")
    for one in task.revealed("volunteer"):
        assert f"- {one.field} {one.op} " in first
    for one in task.revealed("on_ask"):
        assert f"- {one.field} {one.op} {json.dumps(one.value)}" in rest
    assert ", ".join(task.user_services) in told and task.persona in told
    (hopeless,) = [t for t in data.tasks.values() if t.no_valid_recommendation]
    assert "No film can satisfy you" in user_instruction(hopeless)


def test_the_command(tmp_path, server, capsys):
    write_folder(generate(2, films=40, tasks=10), tmp_path / "data")
    words = ["tau-rec", str(tmp_path / "data"), "--trials", "2", "--output", str(tmp_path / "o")]
    assert cli.main([*words, "--offers", "3"]) == 0
    by_rules = json.loads((tmp_path / "o").read_text())
    assert by_rules["pass_hat_k"]["1"] > 0.9 and by_rules["user"] == "scripted user"
    assert "100.0 %" in capsys.readouterr().out
    model = ["--agent", server.address, "--agent-model", "stub", "--user", "stated"]
    assert cli.main([*words, *model, "--tasks", "3"]) == 0
    found = json.loads((tmp_path / "o").read_text())
    assert found["trials"] == 6 and found["agent"] == "language model stub"
    assert found["user"] == "scripted user, judging by what is stated"
    assert cli.main([*words, "--agent", server.address]) == 2
    assert "needs a name" in capsys.readouterr().err
    assert cli.main(["tau-rec", str(tmp_path)]) == 1
    assert "catalog.json: cannot be read" in capsys.readouterr().err


def test_the_fewer_questions_the_less_is_won(capsys):
    shares = []
    for topics in ([], ["services"], ["services", "length", "genre", "score", "age"]):
        assert cli.main(["tau-rec", "made:0", "--trials", "1", "--topics", *topics]) == 0
        told = " ".join(capsys.readouterr().out.split())
        assert f"rules, {len(topics)}" in told
        shares.append(float(re.search(r"([0-9.]+) %", told).group(1)))
    assert shares[0] < shares[1] < shares[2]


def test_agents_that_fail_are_counted(data):
    def agent(task, trial):
        if trial:
            raise RuntimeError("no\nagent")
        return RuleAgent(data.catalog)

    listener = Listener(data.catalog)
    played = play_tasks(data, agent, lambda task: ScriptedUser(task, listener), trials=2)
    found = summary(played, data, agent="rules", user="scripted user")
    assert (found["n"], found["invalid"]) == (10, 10)
    assert found["causes"] == {"RuntimeError: no agent": 10}
