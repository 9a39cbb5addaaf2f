"""Skills in LangGraph and deepagents, played by a scripted model. Needs the extra `langgraph`."""

import asyncio
import collections
import os
from typing import Any

import pytest

from reskill_jax.agents.audit import find_problems
from reskill_jax.agents.trials import Draw
from reskill_jax.skills.skill import Skill, Trigger

if "RESKILL_TEST_AGENTS" not in os.environ:  # where it is set, they have to be there
    pytest.importorskip("deepagents")

from langchain.agents import create_agent  # noqa: E402
from langchain_core.language_models import BaseChatModel  # noqa: E402
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage  # noqa: E402
from langchain_core.outputs import ChatGeneration, ChatResult  # noqa: E402
from langchain_core.tools import tool  # noqa: E402

from reskill_jax.agents.langgraph import SkillMiddleware  # noqa: E402

AFTER_GOING = Skill("after-going", "w", "open it.", Trigger("action_pattern", "^go to"))
SCRIPT = ["go to fridge 1", "open fridge 1", "take egg 1"]


class Scripted(BaseChatModel):
    """Plays the script; which line follows is told by the answers in the conversation."""

    log: Any = None  # list of (task, messages)
    script: list[str] = SCRIPT
    fails: bool = False

    @property
    def _llm_type(self):
        return "scripted"

    def bind_tools(self, tools, **more):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **more):
        task = next(m.text for m in messages if isinstance(m, HumanMessage))
        self.log.append((task, list(messages)))
        turn = sum(isinstance(m, AIMessage) for m in messages)
        if self.fails and turn == 1:
            raise TimeoutError("no answer\nfrom the model")
        if turn >= len(self.script):
            message = AIMessage("done")
        else:
            call = {"name": "act", "args": {"command": self.script[turn]}, "id": f"c{turn}"}
            message = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=message)])


@tool
def act(command: str) -> str:
    """Does something."""
    return f"You {command}."


def judge(state, draw):
    return state["messages"][-1].text == "done" and draw.arm == 1


@pytest.fixture
def trials(make):
    trials = make()
    trials.propose([AFTER_GOING])
    return trials


def agent_of(trials, make_agent=create_agent, **options):
    log = []
    skills = SkillMiddleware(trials, judge)
    model = Scripted(log=log, **options)
    agent = make_agent(
        model, tools=[act], system_prompt="Act.", middleware=[skills], context_schema=Draw
    )
    return agent, skills, log


def start(draw):
    return {"messages": [HumanMessage(draw.text)]}


def arms(trials):
    """A draw of each arm."""
    draws = [trials.draw("cool an egg") for _ in range(4)]
    return [next(d for d in draws if d.arm == arm) for arm in (0, 1)]


def test_the_note_is_in_one_call_and_nothing_is_left_behind(trials):
    agent, skills, log = agent_of(trials)
    for draw in arms(trials):
        state = skills.invoke(agent, start(draw), draw)
        assert len(state["messages"]) == 8
        assert not any("open it." in message.text for message in state["messages"])
        counts = [len(messages) for _, messages in log]
        assert counts == ([2, 4, 6, 8] if draw.arm == 0 else [2, 5, 6, 8])
        if draw.arm:
            assert "open it." in log[1][1][-1].text
        log.clear()
        assert skills.receipts[draw.id].status == "counted"
    without, with_ = trials.episodes()
    assert [step["action"] for step in with_["steps"]] == SCRIPT
    assert [step["observation"] for step in with_["steps"]] == [f"You {c}." for c in SCRIPT]
    assert [step["skills_fired"] for step in with_["steps"]] == [[], ["after-going"], []]
    assert [step["skills_fired"] for step in without["steps"]] == [[], [], []]
    assert (without["success"], with_["success"]) == (0, 1)
    assert with_["framework"] == "langgraph" and with_["framework_version"].count(".") == 2
    assert with_["opening"] == "cool an egg" and with_["model"] == "Scripted"


def test_in_a_deep_agent_too(trials, tmp_path):
    from deepagents import create_deep_agent

    agent, skills, log = agent_of(trials, create_deep_agent)
    for draw in arms(trials):
        state = skills.invoke(agent, start(draw), draw)
        noted = [sum("open it." in m.text for m in messages) for _, messages in log]
        assert noted == ([0, 0, 0, 0] if draw.arm == 0 else [0, 1, 0, 0])
        assert not any("open it." in message.text for message in state["messages"])
        log.clear()
    assert [line["success"] for line in trials.episodes()] == [0, 1]


def test_twenty_graphs_at_once(trials):
    agent, skills, log = agent_of(trials)
    draws = [trials.draw(f"task-{n // 4}") for n in range(20)]

    async def run():
        await asyncio.gather(*(skills.ainvoke(agent, start(draw), draw) for draw in draws))

    asyncio.run(run())
    calls = collections.defaultdict(list)
    for task, messages in log:
        calls[task].append(len(messages))
    for task, counts in calls.items():
        ones = sum(draw.arm for draw in draws if draw.task == task)
        assert sorted(counts) == sorted([2, 5, 6, 8] * ones + [2, 4, 6, 8] * (4 - ones))
    told = {line["draw"]: line for line in trials.episodes()}
    assert sorted(told) == sorted(draw.id for draw in draws)
    for draw in draws:
        fired = [step["skills_fired"] for step in told[draw.id]["steps"]]
        assert fired == [[], ["after-going"] * draw.arm, []]
    assert skills._playing == {} and find_problems(trials) == []


def test_what_breaks_makes_the_episode_invalid_and_is_raised(trials):
    agent, skills, _ = agent_of(trials, fails=True)
    draw = trials.draw("a")
    with pytest.raises(TimeoutError):
        skills.invoke(agent, start(draw), draw)
    (told,) = trials.episodes()
    assert told["invalid"] == "TimeoutError: no answer from the model" and told["success"] is None
    skills.judge = lambda state, draw: 1 / 0
    agent, skills2, _ = agent_of(trials)
    skills2.judge = skills.judge
    draw = trials.draw("a")
    with pytest.raises(ZeroDivisionError):
        skills2.invoke(agent, start(draw), draw)
    assert [*trials.episodes()][-1]["invalid"].startswith("the judge failed: ZeroDivisionError")


def test_without_a_judge_the_outcome_comes_later(trials):
    agent, skills, _ = agent_of(trials)
    skills.judge = None
    draw = trials.draw("a")
    agent.invoke(start(draw), context=draw)  # LangGraph's own call does as well
    assert skills.receipts[draw.id].status == "unjudged"
    assert trials.judge(draw.id, True).status == "counted"


def test_an_agent_without_a_draw_is_told_what_is_missing(trials):
    agent, _, _ = agent_of(trials)
    with pytest.raises(TypeError, match="context=draw"):
        agent.invoke({"messages": [HumanMessage("x")]})


def test_the_last_call_of_several_is_the_last_action(trials):
    from reskill_jax.agents.langgraph import read_messages
    from reskill_jax.agents.rendering import moment_of

    calls = [{"name": n, "args": {"x": 1}, "id": n} for n in ("first", "second")]
    messages = [HumanMessage("go"), AIMessage("", tool_calls=calls)]
    messages += [ToolMessage("2", tool_call_id="second"), ToolMessage("1", tool_call_id="first")]
    assert moment_of(read_messages(messages)) == (2, "second(x=1)", "1")
