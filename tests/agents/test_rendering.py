"""Actions are written one way, and triggers match what traces hold."""

import json

from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.agents.openai import SkillChat
from reskill_jax.agents.rendering import Call, Message, moment_of, render_action, steps_of
from reskill_jax.agents.trials import AgentStep, Draw
from reskill_jax.creators.rules.speech import read_action
from reskill_jax.skills.skill import Skill, Trigger

OPEN = Skill("open", "w", "open it.", Trigger("action_pattern", "^go to"), ("open", "wait"))
BEGIN = Skill("begin", "w", "look first.", Trigger("beginning"))
CLOSED = Skill("closed", "w", "knock.", Trigger("observation_pattern", "closed", r"\bdoor\b"))


def test_tool_calls_by_hand():
    assert render_action("search", {"to": "Rome", "from": "Bern"}) == (
        'search(from="Bern", to="Rome")'
    )
    assert render_action("act", {"command": "go  to\nfridge 1"}) == "go to fridge 1"
    assert render_action("act", '{"action": "look"}') == "look"
    assert render_action("pay", '{"amount": 3.5, "now": true, "to": {"b": 1, "a": []}}') == (
        'pay(amount=3.5, now=true, to={"a": [], "b": 1})'
    )
    assert render_action("look", {}) == render_action("look", "") == "look()"
    assert render_action("act", "not json") == 'act(arguments="not json")'
    assert render_action("t", {"a": "\u2028\ud800"}) == 't(a="\\u2028\\ud800")'
    assert render_action("act", {"command": "a", "n": 1}) == 'act(command="a", n=1)'


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.dictionaries(st.from_regex(r"\A[a-z_]{1,9}\Z"), VALUES, max_size=4), st.randoms())
def test_a_line_whatever_the_order_and_the_form(arguments, rng):
    told = render_action("tool", arguments)
    assert len(told.splitlines()) == 1 and told.encode()
    items = list(arguments.items())
    rng.shuffle(items)
    assert render_action("tool", dict(items)) == told
    assert render_action("tool", json.dumps(dict(items))) == told


def test_the_creator_reads_a_call_as_a_call():
    told = read_action(render_action("book_flight", {"city": "Rome", "day": 3}))
    assert (told.form, told.name) == ("call", "book_flight") and "rome" in told.words


def test_moments_and_steps_of_a_conversation():
    first, second = Call("1", "act", {"command": "go to door"}), Call("2", "knock", {})
    messages = [
        Message("system", "rules"),
        Message("user", "Open the door."),
        Message("assistant", "", (first, second), key="a"),
        Message("tool", "nobody", answers="2"),  # answers in any order
        Message("tool", "it is closed", answers="1"),
        Message("assistant", "Shall I\nbreak it?", key="b"),
        Message("user", "No."),
        Message("assistant", "Then not.", key="c"),
    ]
    assert moment_of(messages[:2]) == (0, None, "Open the door.")
    assert moment_of(messages[:5]) == (2, "knock()", "it is closed")
    assert moment_of(messages) == (3, "Shall I break it?", "No.")
    opening, steps = steps_of(messages, {"a": ("begin",), "b": ("open", "closed")})
    assert opening == "Open the door."
    assert steps == (
        AgentStep("go to door", "it is closed", ("begin",)),
        AgentStep("knock()", "nobody", ("begin",)),
        AgentStep("Shall I break it?", "No.", ("open", "closed")),
    )


def test_a_plain_loop_shows_skills_for_one_call_and_keeps_the_trace():
    draw = Draw(7, "t", 0, 1, 1, text="open the door", skills=(OPEN, BEGIN, CLOSED))
    chat, messages, counts, notes = SkillChat(draw, model="m"), [], [], []
    messages.append({"role": "user", "content": "open the door"})
    world = {"go to door": "it is closed", "open door": "it is open"}
    for number, command in enumerate([*world, None]):
        asked = chat.with_skills(messages)
        counts.append(len(asked))
        notes.append(asked[-1]["content"] if len(asked) > len(messages) else "")
        if command is None:
            messages.append({"role": "assistant", "content": [{"type": "text", "text": "done"}]})
            break
        call = {"name": "act", "arguments": json.dumps({"command": command})}
        called = [{"id": str(number), "type": "function", "function": call}]
        messages.append({"role": "assistant", "content": None, "tool_calls": called})
        messages.append({"role": "tool", "tool_call_id": str(number), "content": world[command]})
    assert counts == [2, 4, 5]
    assert "- look first." in notes[0] and "- open it.\n  Do: open\n  Don't: wait" in notes[1]
    assert "- knock." in notes[1] and notes[2] == ""
    episode = chat.episode(messages, success=True)
    assert episode.steps == (
        AgentStep("go to door", "it is closed", ("begin",)),
        AgentStep("open door", "it is open", ("open", "closed")),
    )
    assert (episode.draw, episode.success, episode.model) == (7, True, "m")
    # What fired is what the same triggers say of the trace.
    for turn, step in enumerate(episode.steps):
        last = episode.steps[turn - 1].action if turn else None
        seen = episode.steps[turn - 1].observation if turn else episode.opening
        told = draw.firing(turn=turn, last_action=last, observation=seen)
        assert tuple(skill.name for skill in told) == step.skills_fired
