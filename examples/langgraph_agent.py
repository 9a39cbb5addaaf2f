"""A LangGraph agent that is never trained, and whose skills are found, tried and adopted.

    pip install "reskill-jax[langgraph]"
    python examples/langgraph_agent.py skills.sqlite --episodes 320

A scripted model stands in for somebody's API: it does what the latest advice says, else it does
anything that is possible. Put a model of your own in its place: `init_chat_model("...")`.
"""

import argparse
import random

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from pantry import Pantry

from reskill_jax.agents.langgraph import SkillMiddleware
from reskill_jax.agents.rendering import NOTE
from reskill_jax.agents.trials import Draw, SkillTrials, TrialSettings

SETTINGS = TrialSettings(
    group_size=8, step_episodes=32, gain=0.2, min_episodes=32, reservoir=20, max_steps=8
)


class Obedient(BaseChatModel):
    """Does what it is advised, else anything possible; says "done" when it is over."""

    seed: int = 0

    @property
    def _llm_type(self) -> str:
        return "obedient"

    def bind_tools(self, tools, **more):
        return self

    def _generate(self, messages, stop=None, run_manager=None, **more):
        noted = messages[-1].text if messages[-1].text.startswith(NOTE) else ""
        told = messages[-2 if noted else -1].text
        if "Possible: " not in told:
            return _answer(AIMessage("done"))
        possible = told.split("Possible: ")[1].split("; ")
        advised = [c for c in possible if any(line == f"- {c}." for line in noted.split("\n"))]
        rng = random.Random(f"{self.seed}/{len(messages)}/{messages[0].id}")
        command = rng.choice(advised or possible)
        call = {"name": "act", "args": {"command": command}, "id": f"call-{len(messages)}"}
        return _answer(AIMessage("", tool_calls=[call]))


def _answer(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def play(skills: SkillMiddleware, model: BaseChatModel, number: int) -> Draw:
    """One episode; what it was played with. Its receipt is among `skills.receipts`."""
    room = Pantry()

    @tool
    def act(command: str) -> str:
        """Does something in the kitchen."""
        return room.act(command)

    draw = skills.trials.draw(f"egg-{number // SETTINGS.group_size}", text=Pantry.task)
    skills.judge = lambda state, draw: room.won
    agent = create_agent(model, tools=[act], middleware=[skills], context_schema=Draw)
    first = HumanMessage(room.begin(), id=f"{draw.task}/{draw.repetition}")
    skills.invoke(agent, {"messages": [first]}, draw)
    return draw


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--episodes", type=int, default=320)
    chosen = parser.parse_args()
    with SkillTrials(chosen.store, settings=SETTINGS) as trials:
        skills = SkillMiddleware(trials)
        for number in range(chosen.episodes):
            draw = play(skills, Obedient(), number)
            for event in skills.receipts.pop(draw.id).events:
                changes = [f"{one['operation']} {one['name']}" for one in event["operations"]]
                print(f"episode {number + 1}: {event['event']} {', '.join(changes)}")
        won = [line["success"] for line in trials.episodes()]
        for first in range(0, len(won), 64):
            part = won[first : first + 64]
            print(f"episodes {first + 1}-{first + len(part)}: {sum(part) / len(part):.0%} won")
        for skill in trials.skills:
            print(f"{skill.name}: {skill.action} {skill.when_to_use}")
