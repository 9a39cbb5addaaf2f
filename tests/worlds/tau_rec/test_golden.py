"""Against what the benchmark's own code gave on the same input: no difference."""

import pytest

from reskill_jax.worlds.tau_rec.catalog import Constraint
from reskill_jax.worlds.tau_rec.trial import GREETING, Reply, ToolCall

VERDICT = (
    *("checks", "constraint_score", "per_constraint", "policy_score", "violations", "reward"),
    *("turns_to_first_recommendation", "total_tool_calls", "redundant_tool_call_rate"),
    "rejection_count",
)


def test_digests(benchmark_data, golden):
    for name in ("catalog", "policy"):
        assert benchmark_data.digests[name] == golden["meta"][f"{name}_sha256"]
    assert len(benchmark_data.catalog) == 153 and len(benchmark_data.tasks) == 60


def test_search(benchmark_data, golden):
    assert golden["search"]
    for case in golden["search"]:
        found = benchmark_data.search(case["query"])
        assert [item for item, _ in found] == case["ids"], case["query"]
        assert [score for _, score in found] == pytest.approx(case["scores"], rel=0, abs=1e-9)
        scores = benchmark_data.index.scores(case["query"])
        assert sum(score > 0 for score in scores) == case["positive"]
        assert sum(score < 0 for score in scores) == case["negative"]


def test_index(benchmark_data, golden):
    index, told = benchmark_data.index, golden["bm25"]
    assert len(index.lengths) == told["corpus_size"] and len(index.idf) == told["vocabulary"]
    assert index.mean_length == pytest.approx(told["avgdl"], abs=1e-12)
    assert index.average_idf == pytest.approx(told["average_idf"], abs=1e-9)
    for token, weight in told["floored"].items():
        assert index.idf[token] == pytest.approx(weight, abs=1e-9)
    for one in golden["bm25_idf"]:
        assert index.idf[one["token"]] == pytest.approx(one["idf"], abs=1e-9)
    lengths = {film["id"]: n for film, n in zip(benchmark_data.catalog.films, index.lengths)}
    assert all(lengths[one["id"]] == one["length"] for one in golden["bm25_doc_len"])


def test_tools(benchmark_data, golden):
    for case in golden["tools"]:
        given = benchmark_data.call(case["task"], case["name"], case["arguments"])
        assert given == case["result"], case


def test_constraints_and_feasible_films(benchmark_data, golden):
    for case in golden["constraints"]:
        wish = case["constraint"]
        constraint = Constraint(wish["field"], wish["op"], wish["value"])
        found = benchmark_data.catalog.satisfying([constraint])
        assert [film["id"] for film in found] == case["ids"], wish
    for task, ids in golden["feasible"].items():
        assert [film["id"] for film in benchmark_data.feasible(task)] == ids, task


@pytest.mark.parametrize("kind", ["verdicts_by_rule", "verdicts_random"])
def test_verdicts(benchmark_data, first_release, golden, kind):
    for case in golden[kind]:
        trace = case["task"], case["events"], case["recommendations"], case["stop_reason"]
        given = benchmark_data.score(*trace)
        assert given == {key: case[key] for key in VERDICT}, case["label"]
        expected = {key: case[key] for key in VERDICT} | case.get("in_v1_0", {})
        assert first_release.score(*trace) == expected, case["label"]


class Scripted:
    """An agent that says what a recording says, and counts what it was given."""

    def __init__(self, script):
        self.script, self.given = list(script), []

    def respond(self, heard):
        self.given.append(None if heard.results is None else [one.id for one in heard.results])
        if not self.script:
            return Reply("...")
        said = self.script.pop(0)
        if "raise" in said:
            raise RuntimeError(said["raise"])
        return Reply(said.get("message"), [ToolCall(*one) for one in said.get("tool_calls") or ()])


class Counting:
    """A user that numbers its messages, and counts those it saw."""

    def __init__(self):
        self.seen = []

    def respond(self, messages):
        self.seen.append(len(messages))
        return f"user message {len(self.seen)}"


def run(data, case):
    agent, user = Scripted(case["script"]), Counting()
    trace = data.play(case["task"], agent, user, max_turns=case["max_turns"])
    verdict = data.score(case["task"], *trace)
    greeted = [
        event | {"content": "<greeting>"} if event.get("content") == GREETING else event
        for event in trace.events
    ]
    return {
        "events": greeted,
        "recommendations": trace.recommendations,
        "stop_reason": trace.stop_reason,
        "final_recommendation": trace.recommendations[-1] if trace.recommendations else None,
        "agent_calls": agent.given,
        "user_calls": user.seen,
        "turn_count": len(trace.messages("user")),
        "tool_call_count": verdict["total_tool_calls"],
        **{key: verdict[key] for key in VERDICT if key in case},
    }


def test_orchestrator(benchmark_data, first_release, golden):
    for case in golden["orchestrator"]:
        if "raises" in case:
            with pytest.raises(RuntimeError):
                run(benchmark_data, case)
            continue
        given = run(benchmark_data, case)
        assert given == {key: case[key] for key in given}, case["label"]
        given = run(first_release, case)
        expected = {key: case[key] for key in given} | case.get("in_v1_0", {})
        assert given == expected, case["label"]
