"""The world that is trained in: the menu, free text, and whatever tools may be given."""

import json
import pickle
import random

import pytest

from reskill_jax.worlds.registry import WORLDS, WorldError, make_named_world
from reskill_jax.worlds.tau_rec import TauRec, TauRecError, TauRecWorld
from reskill_jax.worlds.tau_rec.agents import QUESTIONS
from reskill_jax.worlds.tau_rec.calls import reply_of
from reskill_jax.worlds.tau_rec.chat import ChatClient, ChatError
from reskill_jax.worlds.tau_rec.generator import generate, write_folder
from reskill_jax.worlds.tau_rec.menu import ACTIONS, OF_A_PICK
from reskill_jax.worlds.tau_rec.tools import SCHEMAS
from reskill_jax.worlds.tau_rec.trial import Reply, ToolCall
from reskill_jax.worlds.tau_rec.users import Listener, ScriptedUser


@pytest.fixture(scope="module")
def world():
    return TauRecWorld()


@pytest.fixture(scope="module")
def data():
    return TauRec(generate(5, films=60, tasks=40))


def test_splits(world):
    train, seen, unseen = (world.tasks(split) for split in world.splits)
    assert (len(train), len(seen), len(unseen)) == (1000, 200, 200)
    assert not {one.id for one in train} & {one.id for one in seen}
    assert world.benchmark("train") is world.benchmark("seen")
    titles = [
        {f["id"]: f["title"] for f in world.benchmark(s).catalog.films} for s in ("seen", "unseen")
    ]
    assert titles[0] != titles[1]
    assert {one.kind for one in unseen} == {"simple", "medium", "complex", "no solution"}
    with pytest.raises(ValueError, match="split must be"):
        world.tasks("test")
    assert pickle.loads(pickle.dumps(world)).tasks("seen") == seen


def test_nothing_trains_on_a_folder(tmp_path):
    write_folder(generate(9, films=30, tasks=12), tmp_path)
    given = make_named_world("tau_rec", rooms=None, seed=0, games=str(tmp_path)).world
    assert len(given.tasks("unseen")) == 12
    assert len(given.benchmark("train").catalog) == len(given.benchmark("seen").catalog) == 200
    with pytest.raises(WorldError, match="catalog.json: cannot be read"):
        make_named_world("tau_rec_calls", rooms=None, seed=0, games=str(tmp_path / "none"))
    assert {"tau_rec", "tau_rec_calls"} <= set(WORLDS)


def play(session, choose):
    """Observations and the last outcome."""
    told, outcome = [session.reset()], None
    while outcome is None or not outcome.done:
        outcome = session.step(choose(session, told[-1], len(told) - 1))
        told.append(outcome.observation)
    return told, outcome


def careful(session, observation, turn):
    """Asks everything, looks, picks, checks, discloses, commits."""
    asks = [f"ask {topic}" for topic in QUESTIONS]
    first = [*asks, "check history", "pick", "check rating", "disclose", "recommend"]
    wanted = first[turn]
    return wanted if wanted in session.choices() else "abstain"


def test_a_careful_agent_wins_and_a_hasty_one_does_not(world):
    def hasty(session, observation, turn):
        return "recommend" if "recommend" in session.choices() else "pick"

    def hasty_or_not(session, observation, turn):
        return "abstain" if "Nothing" in observation else hasty(session, observation, turn)

    tasks = world.tasks("unseen")[:60]
    won = {
        agent: sum(play(world.open(task), agent)[1].success for task in tasks)
        for agent in (careful, hasty_or_not)
    }
    assert won[careful] > 50 and won[hasty_or_not] < 20


def test_a_menu_session(world):
    task = next(t for t in world.tasks("seen") if t.kind != "no solution")
    session = world.open(task)
    assert session.reset().startswith("The user wants a film")
    assert not set(session.choices()) & set(OF_A_PICK)
    assert "There is no such action" in session.step("recommend").observation
    assert "names services" in session.step("ask services").observation
    session.step("pick")
    session.step("disclose")
    spent = {"ask services", "disclose"}  # what would change nothing is not possible any more
    assert session.choices() == tuple(one for one in ACTIONS if one not in spent)
    assert "There is no such action" in session.step("disclose").observation
    session.step("pick")
    assert "disclose" in session.choices() and "ask services" not in session.choices()
    outcome = session.step("abstain")
    assert outcome.done and not outcome.success and "That was wrong" in outcome.observation
    assert [event.get("name") for event in session.trial.events][-2:] == ["recommend", None]


def test_trials_of_a_task_can_be_repeated(world):
    task = world.tasks("seen")[0]
    actions = ["ask services", "pick", "pick", "recommend"]

    def picked(first):
        session = world.open(task)
        session.reset()
        for action in [*first, *actions]:
            session.step(action)
        return session.trial.recommendations

    assert picked([]) == picked([])
    assert len({tuple(picked(["pick"] * n)) for n in range(8)}) > 1


def test_tool_calls_are_read_in_every_form():
    call = ToolCall("1", "get_metadata", {"item_id": "x"})
    inner = '{"name": "get_metadata", "arguments": {"item_id": "x"}}'
    for text in (
        f"<tool_call>\n{inner}\n</tool_call>",
        inner,
        inner.replace("arguments", "parameters"),
        f"<|python_tag|>{inner}<|eom_id|>",
        '<function=get_metadata>{"item_id": "x"}</function>',
        '{"function": {"name": "get_metadata", "arguments": "{\\"item_id\\": \\"x\\"}"}}',
        f"<think>{{ I could }} call {inner}</think>{inner}",
        f"```[{inner}]```",
    ):
        assert reply_of(text) == Reply(None, [call]), text
    two = reply_of(f"Let me see. <tool_call>{inner}</tool_call>\n<tool_call>{inner}</tool_call>")
    assert two.message == "Let me see." and [one.id for one in two.calls] == ["1", "2"]
    assert reply_of("Do you like {braces}?") == Reply("Do you like {braces}?", [])
    assert reply_of("  ") == Reply(None, [])
    assert reply_of('{"name": 3}').calls == [] and reply_of("{" * 100_000).calls == []
    assert reply_of('{"name": "recommend", "arguments": null}').calls[0].arguments == {}


def test_free_text():
    world = TauRecWorld(speech="calls")
    assert all(schema["function"]["name"] in world.instruction for schema in SCHEMAS)
    assert "user_1" in world.instruction and world.benchmark("train").policy in world.instruction
    session = world.open(world.tasks("seen")[0])
    assert session.reset().startswith("User: I'm looking for") and session.choices() is None
    assert session.step("Which services?").observation.startswith("User: I have")
    found = session.step('{"name": "search_catalog", "arguments": {"query": "drama"}}')
    assert found.observation.startswith("Result: [{") and not found.done
    assert session.step("").observation == "(nothing was said)"
    outcome = session.step('{"name": "recommend", "parameters": {"item_id": "nowhere"}}')
    assert outcome.done and not outcome.success


def test_who_the_user_is(monkeypatch):
    assert TauRecWorld().user == "scripted user"
    stated = TauRecWorld(speech="calls", judge="stated")
    assert stated.user.endswith("judging by what is stated")
    session = stated.open(stated.tasks("seen")[0])
    session.reset()
    title = stated.benchmark("seen").catalog.films[0]["title"]
    assert "###ACCEPTED###" in session.step(title).observation  # nothing is said against it
    monkeypatch.setenv("RESKILL_CHAT_USER", "http://127.0.0.1:9/v1,some-model")
    made = make_named_world("tau_rec_calls", rooms=None, seed=0, games=None).world
    assert made.user == "language model some-model"
    assert make_named_world("tau_rec", rooms=None, seed=0, games=None).world.user == "scripted user"
    with pytest.raises(TauRecError, match="a scripted user alone"):
        TauRecWorld(chat_user=ChatClient("http://127.0.0.1:9/v1", "m"))
    monkeypatch.setenv("RESKILL_CHAT_USER", "nowhere,m")
    with pytest.raises(WorldError, match="RESKILL_CHAT_USER: 'nowhere' is no address"):
        make_named_world("tau_rec_calls", rooms=None, seed=0, games=None)


def test_a_language_model_as_user_in_a_session():
    client = ChatClient("http://127.0.0.1:9/v1", "m", attempts=1)
    client.complete = lambda messages, tools=(): {"content": f"({len(messages)})"}
    world = TauRecWorld(speech="calls", chat_user=client)
    session = world.open(world.tasks("seen")[0])
    assert session.reset() == "User: (2)" and session.step("Hm?").observation == "User: (4)"
    del client.complete
    with pytest.raises(ChatError, match="cannot be reached"):  # the episode is invalid
        session.step("Hm?")


def test_a_conversation_without_an_end_is_ended():
    world = TauRecWorld(speech="calls", max_turns=3)
    told, outcome = play(world.open(world.tasks("seen")[0]), lambda *_: "Hm.")
    assert len(told) == 4 and not outcome.success


ODD = (
    *("", " ", "null", "R", "made_1001", "\0", "\ud800", "ñ" * 300, "%s%n", "../..", "-0"),
    *(None, True, 0, -1, 1e308, float("nan"), [], {}, [[]], {"a": {"b": [1]}}, [None, "Cinora"]),
    *(("x",), b"bytes", {1, 2}, object()),
)


def random_arguments(rng, depth=0):
    names = [
        *("query", "item_id", "services", "user_id", "content_rating", "name", "", "\ud800"),
    ]
    if rng.random() < 0.1:
        return rng.choice(ODD)
    return {
        rng.choice(names): random_arguments(rng, depth + 1) if depth < 2 else rng.choice(ODD)
        for _ in range(rng.randint(0, 4))
    }


def test_no_arguments_end_a_session(data):
    rng = random.Random(0)
    names = [schema["function"]["name"] for schema in SCHEMAS]
    kit = data.toolkit("task_001")
    for _ in range(10_000):
        name = rng.choice([*names, "foo", "", None, 3])
        arguments = random_arguments(rng)
        if isinstance(arguments, dict) and rng.random() < 0.5:
            arguments |= {"item_id": rng.choice(ODD), "services": rng.choice(ODD)}
            arguments |= {"query": rng.choice(ODD), "content_rating": rng.choice(ODD)}
        result = kit.call(name, arguments)
        json.loads(result)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    for name in names:
        arguments = dict.fromkeys(("item_id", "content_rating", "query"), deep)
        json.loads(kit.call(name, arguments))
        event = {"type": "tool_call", "name": name, "arguments": arguments, "result": "["}
        for odd in (event, event | {"arguments": {1: 2, "a": {3}}}, event | {"arguments": None}):
            assert data.score("task_001", [odd], [deep], "recommended")["reward"] == 0


def test_a_thousand_conversations(data):
    """Random answers with random legal calls: every one ends, and is scored."""
    rng = random.Random(1)
    listener = Listener(data.catalog)
    items = [film["id"] for film in data.catalog.films]
    rewards = []
    for number in range(1000):
        name = f"task_{1 + number % 40:03}"
        trial = data.trial(name, ScriptedUser(data.task(name), listener), max_rounds=30)
        trial.begin()
        while not trial.done:
            trial.respond(random_reply(rng, items, data))
        verdict = data.score(name, *trial.trace)
        assert verdict["reward"] in (0.0, 1.0)
        assert verdict["reward"] == verdict["constraint_score"] * verdict["policy_score"]
        rewards.append(verdict["reward"])
    assert 0 < sum(rewards) < 500


def random_reply(rng, items, data):
    calls = []
    while rng.random() < 0.5:
        name = rng.choice([schema["function"]["name"] for schema in SCHEMAS])
        arguments = {
            "search_catalog": {"query": rng.choice(["drama", "a pass in", ""])},
            "get_metadata": {"item_id": rng.choice(items)},
            "check_availability": {"item_id": rng.choice(items), "services": ["Cinora"]},
            "get_user_history": {"user_id": rng.choice(["user_1", "user_2"])},
            "check_content_preference": {"content_rating": rng.choice(["R", "PG"])},
            "recommend": rng.choice([{}, {"item_id": rng.choice(items)}]),
        }[name]
        calls.append(ToolCall(str(len(calls)), name, arguments))
    title = rng.choice(data.catalog.films)["title"]
    said = [None, "", "Which services?", title, f"Is it {title}?", "Nothing.", "Sponsored."]
    return Reply(rng.choice(said), calls)
