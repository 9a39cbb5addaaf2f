"""A server on the loopback address that answers as recorded, or as a function says."""

import dataclasses
import functools
import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

from reskill_jax.creators.creator import Library
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.llm.asking import Spent
from reskill_jax.creators.llm.beside import at_once
from reskill_jax.creators.llm.call import CallError
from reskill_jax.creators.llm.pipeline import Plan, run_pipeline
from reskill_jax.creators.llm.reading import ReplyError, parse_reply
from reskill_jax.creators.llm.state import Brief
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.household.symbols import SYMBOLS
from reskill_jax.worlds.household.vocabulary import household_vocabulary

STAGES = {
    "What tells these episodes apart?": "insight",
    "What is wrong with the agent?": "diagnosis",
    "Which changes are worth a trial?": "recommendation",
    "Write the change.": "authoring",
}


@dataclasses.dataclass(frozen=True)
class Said:
    """What the server answers."""

    text: Any = ""  # a text, or what is to be written as JSON
    status: int = 200
    stop: str = "end"  # | "length" | "refused"
    delay: float = 0.0
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    raw: bytes | None = None  # the whole body instead


@dataclasses.dataclass(frozen=True)
class Asked:
    """What the server was asked."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def system(self) -> str:
        system = self.body.get("system") or self.body["messages"][0]["content"]
        return system if isinstance(system, str) else system[0]["text"]

    @property
    def user(self) -> str:
        content = self.body["messages"][-1]["content"]
        return content if isinstance(content, str) else content[0]["text"]

    @property
    def stage(self) -> str:
        return STAGES[self.user.split("\n")[0]]

    @property
    def form(self) -> str:
        asked = self.body.get("response_format")
        if asked is None:
            structured = "output_config" in self.body or "outputConfig" in self.body
            return "json_schema" if structured else "text"
        return asked["type"] + ("_schema" if "schema" in asked else "")

    @property
    def data(self) -> Any:
        """The field of data in the question."""
        return json.loads(self.user.split("<data>\n")[1].split("\n</data>")[0])


STOPS = {
    "openai": {"end": "stop", "length": "length", "refused": "content_filter"},
    "anthropic": {"end": "end_turn", "length": "max_tokens", "refused": "refusal"},
    "bedrock": {"end": "end_turn", "length": "max_tokens", "refused": "guardrail_intervened"},
}


def body_of(path: str, said: Said) -> Any:
    text = said.text if isinstance(said.text, str) else json.dumps(said.text)
    if said.status != 200:
        return {"error": {"message": text}, "message": text}
    if path.endswith("/chat/completions"):
        stop = STOPS["openai"][said.stop]
        choice = {"message": {"role": "assistant", "content": text}, "finish_reason": stop}
        return {"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}}
    if path.endswith("/v1/messages"):
        return {
            "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}],
            "stop_reason": STOPS["anthropic"][said.stop],
            "usage": {"input_tokens": 100, "output_tokens": 20},
        }
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
        "stopReason": STOPS["bedrock"][said.stop],
        "usage": {"inputTokens": 100, "outputTokens": 20, "totalTokens": 120},
        "metrics": {"latencyMs": 1},
    }


class StubServer:
    """Answers what `answer` says: a function of what was asked, or a list used up in order."""

    def __init__(self, answer: Callable[[Asked], Said] | list[Said]) -> None:
        self.answer, self.asked, self._lock = answer, [], threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                data = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                said = stub.next(Asked(unquote(self.path), headers, json.loads(data)))
                time.sleep(said.delay)
                body = said.raw
                if body is None:
                    body = json.dumps(body_of(self.path, said)).encode()
                try:
                    self.send_response(said.status)
                    for name, value in said.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # nobody waits any more

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.host = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.url = self.host + "/v1"

    def next(self, asked: Asked) -> Said:
        with self._lock:
            self.asked.append(asked)
            if isinstance(self.answer, list):
                return self.answer.pop(0) if self.answer else Said("nothing is left", status=500)
        return self.answer(asked)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve():
    """Starts servers that end with the test: `serve(answer)`."""
    servers = []

    def start(answer):
        servers.append(StubServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def said():
    """What a server answers."""
    return Said


INSIGHT = {
    "finding": "Those that open closed places win.",
    "failure": {"mode": "walks past", "actions": ["go to cabinet 1", "fly"], "turn": 2},
    "success": {"pattern": "opens at once", "actions": ["open cabinet 1"]},
    "moment": {"kind": "observation", "pattern": "is closed"},
    "skills": [{"name": "nobody-was-shown-this", "effect": "helped"}],
    "confidence": "high",
}
DIAGNOSIS = {
    "assertions": [
        {
            **dict.fromkeys(("id", "second", "after_action", "prefix", "n", "min", "max")),
            "op": "add",
            "kind": "action_exists",
            "pattern": "^open",
            "why": "winners open",
        }
    ],
    "summary": "It does not open what is closed.",
    "priorities": ["open closed places"],
    "clusters": [{"label": "closed", "insights": [0, 1, 99], "representative": 1}],
}
RECOMMENDATION = {
    "strategy": "say it when it is seen",
    "operations": [
        {
            "op": "add",
            "target": None,
            "intent": "open what is closed",
            "evidence": "all findings",
            "insights": [0, 1, 77],
            "trigger": "observation_pattern",
        }
    ],
}
AUTHORING = {
    "operations": [
        {
            "op": "add",
            "name": "Open what is closed!",
            "when_to_use": "When a place is closed.",
            "action": "open.",
            "do": None,
            "do_not": None,
            "trigger": "observation_pattern",
            "pattern": "is closed",
            "task_pattern": None,
            "why": "it wins",
        }
    ]
}
ANSWERS = {
    "insight": INSIGHT,
    "diagnosis": DIAGNOSIS,
    "recommendation": RECOMMENDATION,
    "authoring": AUTHORING,
}


@pytest.fixture
def answers():
    """A good answer of every stage, which a test may change."""
    return json.loads(json.dumps(ANSWERS))


# --- evidence, and a creator without a thread -----------------------------------------------------


def made_up_episode(task, success, *, arm=0, opens=True, text="", step=1):
    """One episode in the household in which who opens what is closed wins."""
    actions = [
        "go to cabinet 1",
        "open cabinet 1" if opens else "look",
        "take mug 1 from cabinet 1",
    ]
    seen = [
        f"Welcome. You see a cabinet 1. Your task is to: put a mug in shelf.{text}",
        f"You arrive at cabinet 1. The cabinet 1 is closed.{text}",
        "You open the cabinet 1. In it, you see a mug 1." if opens else f"You see nothing.{text}",
        "You pick up the mug 1.",
    ]
    fired = ((), ("look-first",), ())
    return Episode(
        str(task), "put a mug in shelf", "f", arm, success, step, actions, seen, (), fired
    )


def made_up_episodes(tasks=10, *, first=0, **more):
    return [
        made_up_episode(task, success, opens=success, **more)
        for task in range(first, first + tasks)
        for success in (True, False)
    ]


@pytest.fixture
def episode():
    return made_up_episode


@pytest.fixture
def episodes():
    return made_up_episodes


@pytest.fixture
def household_rules():
    """The offline rules in the household, whose language they know."""
    return RulesCreator(
        household_vocabulary(), SYMBOLS, 200, settings=CreatorSettings(min_episodes=8)
    )


@pytest.fixture
def plain_rules():
    """The offline rules in a world of plain language."""
    return RulesCreator(None, (), 200, settings=CreatorSettings(min_episodes=8))


LOOK_FIRST = Skill("look-first", "Always.", "look.", Trigger("general"))


@pytest.fixture
def brief_of():
    """What a pipeline works from: `brief_of(rules, episodes, skills=...)`."""

    def make(rules, episodes, skills=(), number=0, **more):
        state = rules.observe(rules.init(0), episodes)
        library = Library(tuple(skills), {}, {}, 8)
        told = dict(checks=(), refused=(), spent=Spent()) | more
        return Brief(number, 5, state, library, **told)

    return make


@pytest.fixture
def look_first():
    return LOOK_FIRST


@pytest.fixture
def run_stages():
    """A pipeline without server and thread: `run_stages(brief, rules, answer_of)`.

    `answer_of(request)` gives a value or a text; what is asked is kept in the outcome's place.
    """

    def run(brief, rules, answer_of, **more):
        asked = []

        def ask(request, read):
            asked.append(request)
            answer = answer_of(request)
            if isinstance(answer, CallError):
                raise answer
            text = answer if isinstance(answer, str) else json.dumps(answer)
            try:
                return read(parse_reply(text, request.schema))
            except ReplyError as error:
                raise CallError("never", str(error)) from None

        plan = Plan(rules, **more)
        together = functools.partial(at_once, workers=3)
        outcome = run_pipeline(brief, plan, ask, together, calls_left=float("inf"))
        return outcome, asked

    return run
