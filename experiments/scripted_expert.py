"""A stand-in for a language model as creator: an OpenAI-compatible server with a script behind it.

It answers from the evidence in the request alone: for every moment that it reads in the episodes,
which verb do those that won use more often than those that did not? Of its skills one half says
that; the other half says the opposite, as a bad creator would. Which half a skill belongs to is
drawn from the request itself, so that the same request gets the same answer.

    python experiments/scripted_expert.py --port 8000
    reskill train --creator llm --creator.url http://127.0.0.1:8000/v1 --creator.model scripted
"""

import argparse
import collections
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HARMFUL = 0.5  # share of the skills that say the opposite
_LEAST = 2  # moments on each side, to say anything


def verb_of(action: str) -> str:
    """The verb of an action: its first word, and "to" behind it."""
    words = re.findall("[a-z]+", action.lower())[:2]
    return " ".join(words if words[1:] == ["to"] else words[:1])


def cues_of(text: str) -> set[str]:
    """Pairs of words that a text holds, numbers aside."""
    words = re.findall("[a-z]+", text.lower())
    return {f"{one} {other}" for one, other in zip(words, words[1:], strict=False)}


def contrast(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 1: the moment and the verb in which those that won differ most."""
    shares: dict[bool, Any] = {True: collections.Counter(), False: collections.Counter()}
    moments: dict[bool, Any] = {True: collections.Counter(), False: collections.Counter()}
    quoted: dict[str, str] = {}
    for episode in data["episodes"]:
        won = episode["won"]
        for turn in episode["log"][1:]:  # the introduction is no moment
            if "did" not in turn:
                continue
            verb = verb_of(turn["did"])
            quoted[verb] = turn["did"]
            for cue in cues_of(turn["saw"]):
                moments[won][cue] += 1
                shares[won][cue, verb] += 1
    best: tuple[float, str, str] = (0.0, "", "")
    for (cue, verb), count in sorted(shares[True].items()):
        seen, lost = moments[True][cue], moments[False][cue]
        if min(count, lost) < _LEAST:
            continue
        gain = count / seen - shares[False][cue, verb] / lost
        best = max(best, (round(gain, 6), cue, verb))
    gain, cue, verb = best
    found = gain > 0.2
    return {
        "finding": f"{verb} when it says {cue}" if found else "nothing to be seen",
        "failure": None,
        "success": {"pattern": verb, "actions": [quoted[verb]]} if found else None,
        "moment": {"kind": "observation", "pattern": cue} if found else None,
        "skills": [],
        "confidence": "high" if gain > 0.5 else "medium" if found else "low",
    }


def diagnose(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 2: findings that say the same, and an assertion for each verb."""
    groups: dict[str, list[int]] = {}
    for number, finding in data["findings"].items():
        if finding["moment"] is not None:
            groups.setdefault(finding["finding"], []).append(int(number))
    ranked = sorted(groups.items(), key=lambda pair: (-len(pair[1]), pair[0]))[:8]
    nothing = dict.fromkeys(("id", "second", "after_action", "prefix", "n", "min", "max"))
    known = {one.get("pattern") for one in data["assertions"]}
    patterns = {f"^{label.split(' when ')[0]}" for label, _ in ranked} - known
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
        (skill.get("action"), skill.get("pattern"))
        for skill in [
            *data["skills"]["in_use"],
            *data["skills"]["under_test"],
            *(op["skill"] for d in data["history"]["decisions"] for op in d["operations"]
              if "skill" in op),
        ]
    }  # fmt: skip
    harmful = draw < HARMFUL
    for cluster in data["clusters"]:
        verb, _, cue = cluster["label"].partition(" when it says ")
        action = f"do not {verb}." if harmful else f"{verb}."
        if cue and (action, cue) not in tried:
            return {
                "strategy": cluster["label"],
                "operations": [
                    {
                        "op": "add",
                        "target": None,
                        "intent": f"{action[:-1]} when it says {cue}",
                        "evidence": f"{len(cluster['findings'])} tasks",
                        "insights": cluster["findings"][:3],
                        "trigger": "observation_pattern",
                    }
                ],
            }
    return {"strategy": "everything has been tried", "operations": []}


def write(data: Mapping[str, Any]) -> dict[str, Any]:
    """Stage 4: the words; after a refusal by the gate the skill is shown at every turn."""
    said, _, cue = data["recommendation"]["intent"].partition(" when it says ")
    refused = bool(data["refused_attempts"])
    return {
        "operations": [
            {
                "op": "add",
                "name": f"{said} when {cue}",
                "when_to_use": f"When what you see says: {cue}.",
                "action": f"{said}.",
                "do": None,
                "do_not": None,
                "trigger": "general" if refused else "observation_pattern",
                "pattern": None if refused else cue,
                "task_pattern": None,
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
