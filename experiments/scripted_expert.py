"""A stand-in for a language model as creator: an OpenAI-compatible server with a script behind it.

It answers from the evidence in the request alone: right after every kind of action that it reads in
the episodes, what do those that won do next more often than those that did not, and do several
tasks with a word in common agree on it? Of its skills one half says that; the other half says the
opposite, as a bad creator would. Which half a skill belongs to is drawn from the request itself, so
that the same request gets the same answer.

    python experiments/scripted_expert.py --port 8000
    reskill train --creator llm --creator.url http://127.0.0.1:8000/v1 --creator.model scripted
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HARMFUL = 0.5  # share of the skills that say the opposite
_LEAST = 2  # findings for a habit, less those against it
_CLEAR = 0.3  # by which the shares of those that won and of the others must differ
_MOST_HABITS = 10  # that a finding tells


def verb_of(action: str) -> str:
    """The verb of an action: its first word, and "to" behind it."""
    words = re.findall("[a-z]+", action.lower())[:2]
    return " ".join(words if words[1:] == ["to"] else words[:1])


def deed_of(action: str) -> str:
    """What an action does: its verb, and where it goes to."""
    words, verb = re.findall("[a-z]+", action.lower()), verb_of(action)
    return " ".join(words[:3]) if verb.endswith(" to") else verb


@dataclasses.dataclass(frozen=True)
class Habit:
    """To do something right after another action, in tasks that a word occurs in."""

    deed: str
    after: str
    task: str

    def __str__(self) -> str:
        return f"{self.deed} after {self.after} for {self.task}"

    @classmethod
    def read(cls, text: str) -> "Habit":
        """Undoes `str`; "do not" before it is left out."""
        deed, _, rest = text.removeprefix("do not ").partition(" after ")
        after, _, task = rest.partition(" for ")
        return cls(deed, after, task)


def contrast(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 1: after which action those that won did what the others did less often, or more."""
    done: dict[bool, Any] = {True: collections.Counter(), False: collections.Counter()}
    moments: dict[bool, Any] = {True: collections.Counter(), False: collections.Counter()}
    quoted: dict[str, str] = {}
    for episode in data["episodes"]:
        won, before = episode["won"], ""
        for turn in episode["log"]:
            action = turn.get("did", "")
            if action and before:
                quoted[deed_of(action)] = action
                moments[won][verb_of(before)] += 1
                done[won][verb_of(before), deed_of(action)] += 1
            before = action
    gains = {
        (after, deed): done[True][after, deed] / moments[True][after]
        - done[False][after, deed] / moments[False][after]
        for after, deed in done[True] | done[False]
        if moments[True][after] and moments[False][after]
    }
    ranked = sorted(gains, key=lambda habit: (-abs(gains[habit]), habit))
    ranked = [habit for habit in ranked if abs(gains[habit]) > _CLEAR][:_MOST_HABITS]
    best = next((habit for habit in ranked if gains[habit] > 0), None)
    told = [
        f"{deed} after {after}: {'+' if gains[after, deed] > 0 else '-'}" for after, deed in ranked
    ]
    return {
        "finding": "; ".join(told) or "nothing to be seen",
        "failure": None,
        "success": best and {"pattern": best[1], "actions": [quoted[best[1]]]},
        "moment": best and {"kind": "action", "pattern": f"^{best[0]}"},
        "skills": [],
        "confidence": "medium" if best else "low",
    }


def pooled(findings: Mapping[str, Any]) -> dict[Habit, list[int]]:
    """Habits that help in several tasks with a word in common -> the findings that say so.

    The clearest first: by findings for it less findings against it, then by how few tasks have
    the word.
    """
    votes: dict[Habit, dict[int, int]] = {}
    tasks: collections.Counter[str] = collections.Counter()
    for number, finding in findings.items():
        words = set(re.findall("[a-z]{3,}", finding["task"].lower()))
        tasks.update(words)
        for said in finding["finding"].split("; "):
            deed, _, rest = said.partition(" after ")
            after, _, sign = rest.partition(": ")
            for word in words if sign else ():
                habit = Habit(deed, after, word)
                votes.setdefault(habit, {})[int(number)] = 1 if sign == "+" else -1
    balance = {habit: sum(cast.values()) for habit, cast in votes.items()}
    clear = [habit for habit in votes if balance[habit] >= _LEAST]
    ranked = sorted(clear, key=lambda one: (-balance[one], tasks[one.task], str(one)))
    found: dict[Habit, list[int]] = {}
    for habit in ranked:  # of several words for the same, the first
        if (habit.deed, habit.after) not in {(one.deed, one.after) for one in found}:
            found[habit] = [number for number, vote in votes[habit].items() if vote > 0]
    return found


def diagnose(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 2: habits that several tasks agree on, and an assertion for each of them."""
    ranked = [(str(habit), members) for habit, members in pooled(data["findings"]).items()][:8]
    nothing = dict.fromkeys(("id", "second", "after_action", "prefix", "n", "min", "max"))
    known = {one.get("pattern") for one in data["assertions"]}
    patterns = {f"^{Habit.read(label).deed}" for label, _ in ranked} - known
    return {
        "assertions": [
            nothing | {"op": "add", "kind": "action_exists", "pattern": pattern, "why": "won"}
            for pattern in sorted(patterns)
        ],
        "summary": f"{len(ranked)} habits tell those that won from the others.",
        "priorities": [label for label, _ in ranked],
        "clusters": [
            {"label": label, "insights": members, "representative": members[0]}
            for label, members in ranked
        ],
    }


def recommend(data: Mapping[str, Any], draw: float) -> dict[str, Any]:
    """Stage 3: the most frequent habit that nobody has tried, or the opposite of it."""
    tried = {
        (
            skill.get("action", "").removeprefix("do not "),
            skill.get("pattern"),
            skill.get("task_pattern"),
        )
        for skill in [
            *data["skills"]["in_use"],
            *data["skills"]["under_test"],
            *(op["skill"] for d in data["history"]["decisions"] for op in d["operations"]
              if "skill" in op),
        ]
    }  # fmt: skip
    for cluster in data["clusters"]:
        habit = Habit.read(cluster["label"])
        if habit.task and (f"{habit.deed}.", f"^{habit.after}", habit.task) not in tried:
            return {
                "strategy": cluster["label"],
                "operations": [
                    {
                        "op": "add",
                        "target": None,
                        "intent": f"do not {habit}" if draw < HARMFUL else str(habit),
                        "evidence": f"{len(cluster['findings'])} tasks",
                        "insights": cluster["findings"][:3],
                        "trigger": "action_pattern",
                    }
                ],
            }
    return {"strategy": "everything has been tried", "operations": []}


def write(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 4: the words; after a refusal by the gate the skill is shown at every turn."""
    intent = data["recommendation"]["intent"]
    habit, refused = Habit.read(intent), bool(data["refused_attempts"])
    said = f"do not {habit.deed}" if is_harmful(intent) else habit.deed
    return {
        "operations": [
            {
                "op": "add",
                "name": intent,
                "when_to_use": f"Right after an action of the form {habit.after}.",
                "action": f"{said}.",
                "do": None,
                "do_not": None,
                "trigger": "general" if refused else "action_pattern",
                "pattern": None if refused else f"^{habit.after}",
                "task_pattern": habit.task,
                "why": "those that won do it",
            }
        ]
    }


def is_harmful(action: str) -> bool:
    """Whether a skill of this script says the opposite of what it found."""
    return action.startswith("do not ")


def answer(user: str) -> dict[str, Any]:
    """The answer to a question, from nothing but its text."""
    question = user.split("\n")[0]
    data = json.loads(user.split("<data>\n")[1].split("\n</data>")[0])
    if question.startswith("What tells"):
        return contrast(data)
    if question.startswith("What is wrong"):
        return diagnose(data)
    if question.startswith("Which changes"):
        draw = hashlib.sha256(user.encode("utf-8", "replace")).digest()[0] / 256
        return recommend(data, draw)
    return write(data)


class ScriptedExpert:
    """The server; use it with `with`.

    Attributes:
      url: to give to --creator.url.
      calls: that were answered.
    """

    def __init__(self, *, port: int = 0, delay: float = 0.0, most_calls: int | None = None) -> None:
        """Opens a port on the loopback address.

        Args:
          port: 0 = any that is free.
          delay: seconds that every reply takes.
          most_calls: after which every call is answered with an error; None = never.
        """
        self.calls = 0
        expert = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                time.sleep(delay)
                expert.calls += 1
                dead = most_calls is not None and expert.calls > most_calls
                self._send(503 if dead else 200, {} if dead else _told(body["messages"]))

            def _send(self, status: int, value: Any) -> None:
                told = json.dumps(value).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(told)))
                    self.end_headers()
                    self.wfile.write(told)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # whoever asked is gone

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> "ScriptedExpert":
        """Begins to answer."""
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self._server.shutdown()
        self._server.server_close()


def _told(messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    text = json.dumps(answer(messages[-1]["content"]))
    asked = sum(len(message["content"]) for message in messages)
    usage = {"prompt_tokens": asked // 4, "completion_tokens": len(text) // 4}
    message = {"role": "assistant", "content": text}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds of every reply")
    parsed = parser.parse_args(arguments)
    with ScriptedExpert(port=parsed.port, delay=parsed.delay) as expert:
        print(f"answering at {expert.url}; Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
