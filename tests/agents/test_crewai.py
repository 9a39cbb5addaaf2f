"""Skills in CrewAI, played by a scripted model. Needs the extra `crewai`."""

import asyncio
import os

import pytest

from reskill_jax.skills.skill import Skill, Trigger

if "RESKILL_TEST_AGENTS" not in os.environ:  # where it is set, they have to be there
    pytest.importorskip("crewai")
os.environ |= {
    "CREWAI_DISABLE_TELEMETRY": "true",
    "OTEL_SDK_DISABLED": "true",
    "CREWAI_TRACING_ENABLED": "false",
}

from crewai import Agent, BaseLLM, Crew, Task  # noqa: E402
from crewai.tools import tool  # noqa: E402

from reskill_jax.agents import crewai as adapter  # noqa: E402

AFTER_GOING = Skill("after-going", "w", "open it.", Trigger("action_pattern", "^go to"))
SCRIPT = ["go to fridge 1", "open fridge 1", "take egg 1"]


class Scripted(BaseLLM):
    """Plays the script, with native tool calls or in the ReAct loop's text."""

    log: list = []
    native: bool = True
    together: bool = False

    def call(self, messages, tools=None, **more):
        messages = [dict(message) for message in messages]
        self.log.append(messages)
        if self.native:
            done = sum(m.get("role") == "tool" for m in messages)
            commands = SCRIPT if self.together else SCRIPT[done : done + 1]
            if done >= len(SCRIPT):
                return "Final Answer: done" if not self.native else "done"
            return [
                {
                    "id": f"c{done + n}",
                    "type": "function",
                    "function": {"name": "act", "arguments": f'{{"command": "{command}"}}'},
                }
                for n, command in enumerate(commands)
            ]
        done = sum("Observation:" in str(m.get("content")) for m in messages[2:])
        if done >= len(SCRIPT):
            return "Thought: I know.\nFinal Answer: done"
        return f'Thought: go on.\nAction: act\nAction Input: {{"command": "{SCRIPT[done]}"}}\n'

    async def acall(self, *arguments, **more):
        await asyncio.sleep(0.01)
        return self.call(*arguments, **more)

    def supports_function_calling(self):
        return self.native


@tool("act")
def act(command: str) -> str:
    """Does something."""
    return f"You {command}."


@pytest.fixture(autouse=True)
def storage(monkeypatch, tmp_path):
    monkeypatch.setenv("CREWAI_STORAGE_DIR", str(tmp_path / "crewai"))


@pytest.fixture
def trials(make):
    trials = make()
    trials.propose([AFTER_GOING])
    return trials


def crew_of(**options):
    llm = Scripted(model="scripted", log=[], **options)
    agent = Agent(role="r", goal="g", backstory="b", tools=[act], llm=llm)
    task = Task(description="cool an egg", expected_output="done", agent=agent)
    return Crew(agents=[agent], tasks=[task]), llm


def arms(trials):
    draws = [trials.draw("cool an egg") for _ in range(4)]
    return [next(d for d in draws if d.arm == arm) for arm in (0, 1)]


def judge(output, draw):
    return "done" in output.raw and draw.arm == 1


def noted(llm):
    return [sum("open it." in str(m.get("content")) for m in messages) for messages in llm.log]


@pytest.mark.parametrize("native", [True, False])
def test_the_note_is_in_one_call_and_nothing_is_left_behind(trials, native):
    counts = {}
    for draw in arms(trials):
        crew, llm = crew_of(native=native)
        output = adapter.kickoff(crew, trials, draw, judge=judge)
        assert output.raw == "done"
        assert noted(llm) == ([0, 1, 0, 0] if draw.arm else [0, 0, 0, 0])
        counts[draw.arm] = [len(messages) for messages in llm.log]
    assert [b - a for a, b in zip(counts[0], counts[1])] == [0, 1, 0, 0]
    without, with_ = trials.episodes()
    assert [step["action"] for step in with_["steps"]] == SCRIPT
    assert [step["observation"] for step in with_["steps"]] == [f"You {c}." for c in SCRIPT]
    assert [step["skills_fired"] for step in with_["steps"]] == [[], ["after-going"], []]
    assert (without["success"], with_["success"]) == (0, 1)
    assert with_["framework"] == "crewai" and with_["model"] == "scripted"


def test_tools_of_one_message_are_told_in_its_order(trials):
    crew, _ = crew_of(together=True)
    draw = trials.draw("a")
    adapter.kickoff(crew, trials, draw, judge=judge)
    (told,) = trials.episodes()
    assert [step["action"] for step in told["steps"]] == SCRIPT


def test_two_crews_at_once_see_their_own_skills(trials):
    draws = arms(trials)
    crews = [crew_of() for _ in draws]

    async def run():
        await asyncio.gather(
            *(
                adapter.akickoff(crew, trials, draw, judge=judge)
                for (crew, _), draw in zip(crews, draws)
            )
        )

    asyncio.run(run())
    assert [noted(llm) for _, llm in crews] == [[0, 0, 0, 0], [0, 1, 0, 0]]
    told = {line["arm"]: line for line in trials.episodes()}
    assert [step["action"] for step in told[1]["steps"]] == SCRIPT
    assert told[1]["success"] == 1 and told[0]["success"] == 0


def test_what_goes_wrong_in_a_hook_is_not_silent(trials, monkeypatch):
    def broken(skills):
        raise RuntimeError("no paper")

    monkeypatch.setattr(adapter, "render_note", broken)
    draw = arms(trials)[1]
    crew, _ = crew_of()
    assert adapter.kickoff(crew, trials, draw, judge=judge).raw == "done"  # CrewAI goes on
    (told,) = trials.episodes()
    assert told["invalid"] == "a hook failed: RuntimeError: no paper" and told["success"] is None


def test_an_exception_of_the_crew_makes_the_episode_invalid(trials):
    def fails(output, draw):
        raise ValueError("cannot tell")

    draw = trials.draw("a")
    crew, _ = crew_of()
    with pytest.raises(ValueError, match="cannot tell"):
        adapter.kickoff(crew, trials, draw, judge=fails)
    (told,) = trials.episodes()
    assert told["invalid"] == "ValueError: cannot tell"
