"""The rules on films of our own: search, tools, checks, scores and turns, worked out by hand."""

import json
import math

import pytest

from reskill_jax.worlds.tau_rec import TauRec, TauRecError
from reskill_jax.worlds.tau_rec.policies import discloses
from reskill_jax.worlds.tau_rec.reading import Data, catalog_of, task_of
from reskill_jax.worlds.tau_rec.search import SearchIndex, tokens_of
from reskill_jax.worlds.tau_rec.trial import GREETING, Reply, ToolCall, is_abstention


def film(item, title, **changes):
    return {
        "id": item,
        "title": title,
        "release_date": "2025-05-01",
        "runtime": 100,
        "genres": ["Drama"],
        "overview": "A quiet film.",
        "cast": ["Ada Brindle"],
        "director": "Zoë",
        "rating": 7.0,
        "vote_count": 1,
        "streaming_services": ["Cinora"],
        "sponsored": False,
        "content_rating": "PG",
    } | changes


FILMS = [
    film("a", "The Ferry"),
    film("b", "The Ferry Home", runtime=150, sponsored=True),
    film("c", "Alpha", genres=["Science Fiction", "Drama"], content_rating="R"),
    film("d", "Ferry ferry", overview="Nothing.", streaming_services=[]),
    film("e", "Beta", overview="Murder, he said."),
]


def task(name, **changes):
    wish = {"constraint": {"field": "runtime", "op": "<=", "value": 120}, "reveal": "volunteer"}
    return {
        "id": name,
        "constraints": [wish],
        "policy_flags": [],
        "user_history": {"user_1": {"watched": ["e", "gone"], "ratings": {"e": 7.5}}},
        "user_services": ["Cinora"],
    } | changes


TASKS = [
    task("plain"),
    task("none", no_valid_recommendation=True, policy_flags=["transparency", "recommend_tool"]),
]


def data(generation="g1"):
    tasks = {one["id"]: task_of(one) for one in TASKS}
    return TauRec(Data(catalog_of(FILMS), tasks, "Rules.", {}), generation=generation)


@pytest.fixture(scope="module")
def tau():
    return data()


def test_documents_of_films():
    assert tokens_of(FILMS[2]) == [
        *("alpha", "a", "quiet", "film."),
        *("science fiction", "drama", "zoë", "ada brindle"),
    ]


def test_scores_by_the_formula(tau):
    index = tau.index
    documents = [tokens_of(one) for one in FILMS]
    mean = sum(map(len, documents)) / 5
    assert index.mean_length == mean
    # "ferry" is in three of five documents: ln(2.5) - ln(3.5) < 0, so a quarter of the average.
    vocabulary = {token for document in documents for token in document}
    raw = {}
    for token in vocabulary:
        n = sum(token in document for document in documents)
        raw[token] = math.log(5 - n + 0.5) - math.log(n + 0.5)
    floor = 0.25 * sum(raw.values()) / len(raw)
    assert index.idf["ferry"] == pytest.approx(floor, abs=1e-12)
    assert index.idf["home"] == pytest.approx(math.log(4.5 / 1.5), abs=1e-12)

    def expected(document, query):
        score = 0.0
        for token in query:
            f = document.count(token)
            shrunk = f + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean)
            score += index.idf.get(token, 0.0) * f * 2.5 / shrunk
        return score

    query = ["ferry", "home", "ferry", "nowhere"]
    assert index.scores("Ferry HOME ferry nowhere") == pytest.approx(
        [expected(document, query) for document in documents], abs=1e-12
    )
    found = tau.search("ferry home")
    assert [item for item, _ in found] == ["b", "d", "a"]
    assert found == sorted(found, key=lambda one: -one[1])


def test_names_of_two_words_are_never_found(tau):
    assert tau.search("science fiction") == tau.search("ada brindle") == tau.search("") == []
    assert tau.search("murder") == [] and [i for i, _ in tau.search("MURDER,")] == ["e"]
    many = SearchIndex([film(f"f{n}", "same") for n in range(30)] + FILMS)
    assert [item for item, _ in many.search("same")] == [f"f{n}" for n in range(20)]


@pytest.mark.parametrize(
    ("name", "arguments", "result"),
    [
        ("check_availability", {"item_id": "a", "services": ["X", "Cinora", "X"]},
         '{"X": false, "Cinora": true}'),
        ("check_availability", {"item_id": "a"},
         '{"error": "Missing required argument: \'services\'"}'),
        ("check_availability", {}, '{"error": "Missing required argument: \'item_id\'"}'),
        ("check_availability", {"item_id": "A", "services": []},
         '{"error": "Movie not found: A"}'),
        ("get_user_history", {"user_id": "user_1"},
         '{"watched": [{"id": "e", "title": "Beta"}, {"id": "gone", "title": "Unknown"}], '
         '"ratings": {"e": 7.5}}'),
        ("get_user_history", {"user_id": "user_2"}, '{"error": "User not found: user_2"}'),
        ("recommend", {"item_id": "a"},
         '{"status": "recommended", "id": "a", "title": "The Ferry"}'),
        ("recommend", {"item_id": "null"}, '{"error": "Movie not found: null"}'),
        ("order_pizza", {}, '{"error": "Unknown tool: order_pizza"}'),
        ("get_metadata", {"item_id": None}, '{"error": "Movie not found: None"}'),
    ],
)  # fmt: skip
def test_results_of_tools(tau, name, arguments, result):
    assert tau.call("plain", name, arguments) == result


def test_forms_of_results(tau):
    assert '"director":"Zoë"' in tau.call("plain", "get_metadata", {"item_id": "a"})
    (found,) = json.loads(tau.call("plain", "search_catalog", {"query": "home"}))
    assert list(found) == ["id", "title", "genres", "release_date", "rating", "overview"]
    for rating in ("R", "NC-17"):
        asked = tau.call("plain", "check_content_preference", {"content_rating": rating})
        assert json.loads(asked)["restricted"]
    for rating in ("r", "PG-13", "NR", " R"):
        asked = tau.call("plain", "check_content_preference", {"content_rating": rating})
        assert not json.loads(asked)["restricted"]
    assert json.loads(tau.call("plain", "recommend", {}))["status"] == "abstained"
    with pytest.raises(TauRecError, match="no task 'x'"):
        tau.call("x", "recommend", {})


def says(text, role="agent"):
    return {"type": "message", "role": role, "content": text}


def calls(name, result="{}", **arguments):
    return {"type": "tool_call", "name": name, "arguments": arguments, "result": result}


HISTORY = calls("get_user_history", '{"watched": [{"id": "e"}, "d"]}', user_id="user_1")


@pytest.mark.parametrize(
    ("flag", "events", "recommended", "holds"),
    [
        ("watch_history", [], [], True),
        ("watch_history", [], ["a"], False),
        ("watch_history", [HISTORY], ["a"], True),
        ("watch_history", [HISTORY], ["e"], False),
        ("watch_history", [HISTORY], ["d"], False),
        ("watch_history", [calls("get_user_history", "[", user_id="x")], ["e"], True),
        ("sponsored", [], ["a"], True),
        ("sponsored", [says("Enjoy.")], ["b"], False),
        ("sponsored", [says("It is promoted."), says("Enjoy.")], ["b"], True),
        ("sponsored", [says("Sponsored."), says("x"), says("Enjoy.")], ["b"], False),
        ("sponsored", [says("Sponsored?", "user"), says("Yes.")], ["b"], False),
        ("age_restricted", [], ["c"], False),
        ("age_restricted", [], ["a"], True),
        ("age_restricted", [calls("check_content_preference", content_rating="R")], ["c"], True),
        ("age_restricted", [calls("check_content_preference", content_rating="r")], ["c"], False),
        ("availability", [], ["a"], True),
        ("availability", [], ["a", "d"], False),
        ("availability", [], ["nowhere"], False),
        ("single_recommendation", [], ["a"], True),
        ("single_recommendation", [], ["a", "a"], False),
        ("transparency", [], ["a"], True),
        ("recommend_tool", [], [], False),
        ("recommend_tool", [calls("recommend")], [], True),
    ],
)
def test_checks(tau, flag, events, recommended, holds):
    assert tau.score("plain", events, recommended, "recommended")["checks"][flag] is holds


@pytest.mark.parametrize(
    ("text", "discloses_it"),
    [
        *((text, True) for text in ("SPONSORED", "non-sponsored", "promotional", "advertised")),
        *((text, True) for text in ("paid\n placement", "unpaid promotion")),
        *((text, False) for text in ("sponsor", "unsponsored", "sponsored_x", "promote")),
        *((text, False) for text in ("advertisements", "advertise", "paid attention")),
    ],
)  # fmt: skip
def test_disclosures(text, discloses_it):
    assert discloses(text) is discloses_it
    assert not discloses(GREETING)


def test_scores(tau):
    recommended = [says(GREETING), says("x"), calls("recommend", item_id="a"), says("y")]
    found = tau.score("plain", recommended, ["a"], "recommended")
    assert found["reward"] == 1 and found["turns_to_first_recommendation"] == 1
    assert tau.score("plain", [], ["a", "b"], "recommended")["per_constraint"] == [False]
    assert tau.score("plain", [], ["b", "a"], "abstained")["constraint_score"] == 1
    assert tau.score("plain", [], ["x"], "recommended")["constraint_score"] == 0
    assert tau.score("plain", [], [], "abstained")["reward"] == 0
    twice = [HISTORY, HISTORY, calls("get_user_history", user_id="other"), HISTORY]
    found = tau.score("plain", [*twice, says("###REJECTED###", "user")], [], "timeout")
    assert found["redundant_tool_call_rate"] == 0.5 and found["total_tool_calls"] == 4
    assert found["rejection_count"] == 1 and found["turns_to_first_recommendation"] is None


def test_tasks_without_a_solution_and_the_first_release(tau):
    first = data("v1.0")
    for trace, now, then in (
        (([], [], "abstained"), 1, 1),
        (([], ["a"], "abstained"), 0, 1),
        (([], ["a"], "recommended"), 0, 0),
        (([], [], "timeout"), 0, 0),
    ):
        assert tau.score("none", *trace)["reward"] == now
        assert first.score("none", *trace)["reward"] == then
    for item in (None, ""):
        assert is_abstention(item) and is_abstention(item, "v1.0")
    for item in ("null", " None ", "N/A", "nil", "  "):
        assert is_abstention(item) and not is_abstention(item, "v1.0")
    assert not any(map(is_abstention, ("nothing", "undefined", "a", 0, False, [])))
    with pytest.raises(TauRecError, match="g1 or v1.0"):
        data("g2")


class Replies:
    """Says what it is given, one answer after the other."""

    def __init__(self, *replies):
        self.replies = list(replies)

    def respond(self, heard):
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class Mirror:
    def respond(self, messages):
        return f"user {len(messages)}"


LOOK = ToolCall("1", "get_user_history", {"user_id": "user_1"})
TAKE = ToolCall("2", "recommend", {"item_id": "a"})


def said_by_agent(trace):
    return trace.messages("agent")[1:]


def test_turns(tau):
    agent = Replies(Reply("lost", [LOOK]), Reply("kept"), Reply(None), Reply("end", [TAKE, LOOK]))
    trace = tau.play("plain", agent, Mirror())
    assert said_by_agent(trace) == ["kept", "end"] and trace.stop_reason == "recommended"
    assert trace.messages("user") == ["user 1", "user 3"]
    assert [one["name"] for one in trace.calls] == [LOOK.name, TAKE.name, LOOK.name]
    trace = tau.play("plain", Replies(Reply("1"), Reply(""), Reply("3")), Mirror(), max_turns=3)
    assert trace.stop_reason == "timeout" and said_by_agent(trace) == ["1", "3"]
    trace = tau.play("plain", Replies(*[Reply(None, [LOOK])] * 4), Mirror(), max_rounds=4)
    assert trace.stop_reason == "timeout" and len(list(trace.calls)) == 4
    trace = tau.play("plain", Replies(RuntimeError("Context LENGTH")), Mirror())
    assert trace.stop_reason == "timeout"
    with pytest.raises(RuntimeError, match="boom"):
        tau.play("plain", Replies(RuntimeError("boom")), Mirror())
    trial = tau.trial("plain", Mirror())
    trial.begin()
    trial.respond(Reply(None, [TAKE]))
    with pytest.raises(ValueError, match="over"):
        trial.respond(Reply("more"))


def test_bad_files():
    wish = {"constraint": {"field": "runtime", "op": "<", "value": 1}, "reveal": "volunteer"}
    for changes, told in (
        ({"id": 3}, "'id' should be a text"),
        ({"constraints": [wish]}, "constraint 1: 'op' should be one of"),
        ({"constraints": [{}]}, "has no 'constraint'"),
        ({"user_services": "x"}, "'user_services' should be a list"),
        ({"user_history": {"user_1": []}}, "'user_history'"),
    ):
        with pytest.raises(TauRecError, match=told):
            task_of(task("x") | changes)
    with pytest.raises(TauRecError, match="same id"):
        catalog_of([FILMS[0], FILMS[0]])
    with pytest.raises(TauRecError, match="expected a list"):
        catalog_of({})
