"""The snippets of docs/agents.md run; those of a framework where it is installed."""

import importlib.util
import os
import re
import types
from pathlib import Path

TEXT = (Path(__file__).parents[2] / "docs" / "agents.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


class Reply(types.SimpleNamespace):
    """An answer as OpenAI's client gives it."""

    def model_dump(self, exclude_none):
        calls = self.tool_calls and [
            {"id": c.id, "type": "function", "function": vars(c.function)} for c in self.tool_calls
        ]
        found = {"role": "assistant", "content": self.content, "tool_calls": calls}
        return {key: value for key, value in found.items() if value is not None}


def client():
    """Calls a tool, then says that it is done."""

    def create(model, messages, tools):
        if any(message["role"] == "tool" for message in messages):
            message = Reply(content="paid", tool_calls=None)
        else:
            function = types.SimpleNamespace(name="search_flights", arguments='{"to": "Oslo"}')
            call = types.SimpleNamespace(id="1", function=function)
            message = Reply(content=None, tool_calls=[call])
        return types.SimpleNamespace(choices=[types.SimpleNamespace(message=message)])

    completions = types.SimpleNamespace(create=create)
    return types.SimpleNamespace(chat=types.SimpleNamespace(completions=completions))


def langchain_names():
    """A model and tools for the snippet of LangGraph."""
    from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage

    return {"model": GenericFakeChatModel(messages=iter([AIMessage("paid")])), "tools": []}


def crewai_names():
    """Agents and tasks for the snippet of CrewAI."""
    from crewai import Agent, BaseLLM, Task

    class Paying(BaseLLM):
        def call(self, messages, tools=None, **more):
            return "Thought: I know.\nFinal Answer: paid"

    agent = Agent(role="r", goal="g", backstory="b", llm=Paying(model="scripted"))
    task = Task(description="book", expected_output="paid", agent=agent)
    return {"crew_agents": [agent], "crew_tasks": [task]}


def test_every_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("CREWAI_DISABLE_TELEMETRY", "OTEL_SDK_DISABLED"):
        monkeypatch.setenv(name, "true")
    names = {"client": client(), "act": lambda call: "2 flights"}
    ran = 0
    for snippet in SNIPPETS:
        needs = next((m for m in ("langchain", "crewai") if f"from {m}" in snippet), None)
        if needs is not None:
            if "RESKILL_TEST_AGENTS" not in os.environ and not importlib.util.find_spec(needs):
                continue
            names |= langchain_names() if needs == "langchain" else crewai_names()
        exec(compile(snippet, "docs/agents.md", "exec"), names)
        ran += 1
    assert ran >= 3
    told = list(names["trials"].episodes())
    assert told[0]["task"] == "task-17" and told[-1]["task"] == "task-20"
    assert told[-1]["steps"][0]["action"] == 'search_flights(to="Oslo")'
    assert {line["success"] for line in told} == {1}
    names["trials"].close()
