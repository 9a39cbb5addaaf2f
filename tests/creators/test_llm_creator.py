"""A creator with a language model beside training: pauses, arrivals, records, what a step costs."""

import dataclasses
import json
import threading
import time

import pytest

from reskill_jax.creators.creator import Library, Proposal, Refusal
from reskill_jax.creators.llm import beside
from reskill_jax.creators.llm.asking import Asker, Limits, Spent
from reskill_jax.creators.llm.beside import Desk, SharedDesk, at_once
from reskill_jax.creators.llm.clients import OpenAIClient
from reskill_jax.creators.llm.creator import LONGEST_PAUSE, LLMCreator, Prices
from reskill_jax.creators.llm.pipeline import Plan
from reskill_jax.storage.replies import ReplyStore
from reskill_jax.storage.run_folder import RunFolderError

EMPTY = Library((), {}, {}, 8)


@pytest.fixture
def at_desk(household_rules, tmp_path):
    """A creator at its desk: `at_desk(server, run="a", ...)`; every desk is closed at the end."""
    desks = []

    def make(server, run="a", *, recorded=None, lag=None, fallback=False, limits=None, **plan):
        folder = None if recorded is None else tmp_path / recorded
        store = ReplyStore(tmp_path / run, recorded=folder)
        client = None if server is None else OpenAIClient("stub", server.url)
        asker = Asker(client, store, limits or Limits(), wait=lambda seconds: False)
        desk = Desk(
            asker, store, Plan(household_rules, **{"contrasts": 3} | plan), parallel=2, lag=lag
        )
        desks.append(desk)
        return LLMCreator(household_rules, fallback=fallback, prices=Prices(3.0, 15.0), desk=desk)

    yield make
    for desk in desks:
        desk.close()


def good(said, answers):
    return lambda asked: said(answers[asked.stage])


def live(creator, memory, steps, *, library=EMPTY, seconds=0.0):
    """Asks for proposals at step boundaries: (memory, what came at which step)."""
    found = {}
    for step in steps:
        memory, outcome = creator.propose(memory, library, step=step)
        if isinstance(outcome, Proposal):
            return memory, found | {step: outcome}
        if outcome.looked:
            found[step] = outcome
        time.sleep(seconds)
    return memory, found


def with_evidence(creator, episodes):
    return creator.observe(creator.init(0), episodes())


def test_all_processes_take_what_the_first_has_found(
    at_desk, serve, said, answers, episodes, monkeypatch
):
    """The others have no server, and remember the same."""
    alone = at_desk(serve(good(said, answers)), lag=3)
    first, other = (
        dataclasses.replace(alone, desk=SharedDesk(desk)) for desk in (alone.desk, None)
    )
    memories = [with_evidence(alone, episodes)] * 2
    for step in range(1, 5):
        told = []

        def as_first(work, told=told):
            told.append(work())
            return [told[0], b""]

        def as_other(work, told=told):
            assert work() == b""
            return [told[0], b""]

        outcomes = []
        for number, (creator, exchange) in enumerate(((first, as_first), (other, as_other))):
            monkeypatch.setattr(beside, "exchange", exchange)
            memories[number], outcome = creator.propose(memories[number], EMPTY, step=step)
            outcomes.append(outcome)
        assert outcomes[0] == outcomes[1] and memories[0] == memories[1]
        assert isinstance(outcomes[0], Proposal) == (step == 4)
        assert bool(told) == (step > 1) and (not told or bool(told[0]) == (step == 4))
    other.desk.close()


def test_a_proposal_enters_at_a_step_boundary(at_desk, serve, said, answers, episodes):
    gate = threading.Event()

    def answer(asked):
        gate.wait(10)
        return said(answers[asked.stage])

    creator = at_desk(serve(answer))
    memory, nothing = live(creator, with_evidence(creator, episodes), range(1, 6))
    assert nothing == {} and memory.pending.step == 1
    gate.set()
    memory, found = live(creator, memory, range(6, 500), seconds=0.01)
    ((step, proposal),) = found.items()
    assert proposal.bundle.operations[0].name == "open-what-is-closed"
    assert proposal.kind == "bundle" and proposal.id == 0
    assert memory.pending is None and creator.notes(memory) == {"pipeline": 0}
    assert memory.rules.history[0].outcome == "pending"
    memory, (line,) = creator.tell(memory)
    assert (line["pipeline"], line["begun"], line["calls"]) == (0, 1, 6)
    assert line["cost"] == pytest.approx((600 * 3 + 120 * 15) / 1e6)
    assert creator.tell(memory)[1] == ()
    assert creator.figures(memory)["creator_calls"] == 6
    memory = creator.conclude(memory, 0, True, step=step + 5, reason="it helps")
    assert memory.rules.history[0].outcome == "accepted"
    json.dumps(creator.dump(memory))
    assert creator.load(creator.dump(memory)) == memory


def test_without_evidence_nobody_is_asked(at_desk, serve, said, answers):
    server = serve(good(said, answers))
    creator = at_desk(server)
    memory, found = live(creator, creator.init(0), range(1, 9))
    assert found == {} and memory.pending is None and server.asked == []


def test_a_retirement_that_is_due_is_proposed_as_by_the_rules(
    at_desk, serve, said, answers, episodes, look_first
):
    creator = at_desk(serve(good(said, answers)))
    library = Library((look_first,), {}, {"look-first": 100}, 8)
    _, outcome = creator.propose(with_evidence(creator, episodes), library, step=100)
    assert isinstance(outcome, Proposal) and outcome.kind == "retirement"


def test_repeated_failure_doubles_the_pause_and_says_so_once(at_desk, serve, said, episodes):
    server = serve(lambda asked: said("who are you?", status=401))
    creator = at_desk(server, lag=1)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 140))
    # It is begun, fails one step later, and pauses for 2, 4, 8, ... steps.
    assert list(found) == [2, 5, 10, 19, 36, 69, 134]
    assert all(isinstance(one, Refusal) and one.failed for one in found.values())
    assert [one.again for one in found.values()] == [False] + [True] * 6
    assert "HTTP 401" in found[2].reason and "pauses for 2 steps" in found[2].reason
    assert f"pauses for {LONGEST_PAUSE} steps" in found[69].reason
    assert len(server.asked) == 3 * 7
    memory, lines = creator.tell(memory)
    assert len(lines) == 7 and "HTTP 401" in lines[0]["failure"]


def test_the_rules_step_in_while_the_model_fails(at_desk, serve, said, episodes):
    server = serve(lambda asked: said("who are you?", status=401))
    creator = at_desk(server, lag=1, fallback=True)
    memory, found = live(creator, with_evidence(creator, lambda: episodes(40)), range(1, 140))
    assert found[2].failed
    step = max(found)
    assert isinstance(found[step], Proposal) and step == 3
    assert found[step].bundle.operations[0].skill.action.startswith("open")
    assert "pipeline" not in creator.notes(memory)


def test_a_server_that_comes_back_ends_the_pauses(at_desk, serve, said, answers, episodes):
    dead = []

    def answer(asked):
        if len(dead) < 3:
            dead.append(asked)
            return said("down", status=401)
        return said(answers[asked.stage])

    creator = at_desk(serve(answer), lag=1)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 20))
    assert [type(one) for one in found.values()] == [Refusal, Proposal]
    assert list(found) == [2, 5] and memory.failures == 0


def test_what_the_gate_stops_is_no_failure_of_the_server(at_desk, serve, said, answers, episodes):
    answers["authoring"]["operations"][0]["pattern"] = "never seen"
    creator = at_desk(serve(good(said, answers)), lag=1)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 4))
    assert found[2].failed is False and "no draft is worth a trial" in found[2].reason
    assert "its trigger fires in 0%" in found[2].reason
    memory, (line,) = creator.tell(memory)
    assert line["failure"] is None and len(line["drafts"]) == 3
    assert memory.refused and "its trigger fires in 0%" in memory.refused[0]


def test_the_first_failure_after_an_empty_pipeline_is_told(at_desk, serve, said, answers, episodes):
    answers["authoring"]["operations"][0]["pattern"] = "never seen"
    server = serve(good(said, answers))
    creator = at_desk(server, lag=1)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 4))
    server.answer = lambda asked: said("who are you?", status=401)
    memory, later = live(creator, memory, range(4, 20))
    found |= later
    assert [(step, one.failed, one.again) for step, one in found.items()] == [
        (2, False, False),
        (5, True, False),  # new, though the pause is twice as long as the last
        (10, True, True),
        (19, True, True),
    ]
    assert "pauses for 4 steps" in found[5].reason and memory.failures == 4


def test_the_rules_do_not_step_in_for_drafts_that_are_not_worth_a_trial(
    at_desk, serve, said, answers, episodes
):
    answers["authoring"]["operations"][0]["pattern"] = "never seen"
    creator = at_desk(serve(good(said, answers)), lag=1, fallback=True)
    memory, found = live(creator, with_evidence(creator, lambda: episodes(40)), range(1, 12))
    assert list(found) == [2, 5, 10] and not any(one.failed for one in found.values())
    assert all("no draft is worth a trial" in one.reason for one in found.values())
    assert memory.failures == 3


def test_several_changes_enter_one_after_the_other(at_desk, serve, said, answers, episodes):
    one = answers["recommendation"]["operations"][0]
    answers["recommendation"]["operations"] = [one, one | {"intent": "take"}]
    take = answers["authoring"]["operations"][0] | {"name": "take it", "action": "take."}

    def answer(asked):
        wants_take = asked.stage == "authoring" and asked.data["recommendation"]["intent"] == "take"
        return said({"operations": [take]} if wants_take else answers[asked.stage])

    creator = at_desk(serve(answer), lag=1)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 4))
    assert found[2].bundle.operations[0].name == "open-what-is-closed" and len(memory.written) == 1
    skill = found[2].bundle.operations[0].skill
    library = EMPTY._replace(under_test={skill.name: skill})
    memory, found = live(creator, memory, [2], library=library)
    assert found[2].bundle.operations[0].name == "take-it" and memory.written == ()
    assert found[2].id == 1 and found[2].version[-1].action == "take."


def test_the_gate_counts_as_things_are_when_a_proposal_enters(
    at_desk, serve, said, answers, episodes
):
    creator = at_desk(serve(good(said, answers)), lag=1)
    memory, _ = live(creator, with_evidence(creator, episodes), [1])
    _, found = live(creator, memory, [2])
    skill = found[2].bundle.operations[0].skill  # meanwhile somebody else has tested the same
    library = EMPTY._replace(under_test={"other": dataclasses.replace(skill, name="other")})
    memory, outcome = creator.propose(memory, library, step=2)
    assert isinstance(outcome, Refusal)
    _, lines = creator.tell(memory)
    assert "the bank has it already" in lines[-1]["turned_down"][0]


def test_what_goes_wrong_in_the_thread_is_not_swallowed(
    at_desk, serve, said, answers, episodes, monkeypatch
):
    def broken(*_, **__):
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr("reskill_jax.creators.llm.pipeline.told_bank", broken, raising=False)
    monkeypatch.setattr("reskill_jax.creators.llm.diagnosis.told_bank", broken)
    creator = at_desk(serve(good(said, answers)), lag=1)
    with pytest.raises(ZeroDivisionError, match="a mistake of ours"):
        live(creator, with_evidence(creator, episodes), range(1, 3))


def test_jobs_are_done_at_once_and_in_order():
    began = time.monotonic()
    assert at_once([lambda n=n: (time.sleep(0.1), n)[1] for n in range(8)], 8) == list(range(8))
    assert time.monotonic() - began < 0.7
    assert at_once([], 3) == []
    with pytest.raises(ValueError, match="1"):
        at_once([lambda: 0, lambda: int("1x"), lambda: int("2x")], 2)


# --- going on, and going through it again ---------------------------------------------------------


def told_line(line, timed):
    times = () if timed else ("seconds", "creator_seconds")
    return json.dumps({k: v for k, v in line.items() if k not in times}, sort_keys=True)


def journal(creator, memory, steps, episodes, *, timed=True, seconds=0.0):
    """A little life: every step brings episodes; every proposal is decided four steps later.

    Returns what happened at which step, and the last memory that a checkpoint (every third step)
    has, with its step.
    """
    events, library, due = [], EMPTY, {}
    saved = (steps.start - 1, creator.dump(memory), {}, EMPTY)
    for step in steps:
        memory = creator.observe(memory, episodes(2, first=2 * step, step=step))
        for trial, (when, proposal) in list(due.items()):
            if when == step:
                accepted = trial % 2 == 0
                memory = creator.conclude(memory, trial, accepted, step=step, reason=f"r{trial}")
                events.append((step, "decided", trial, accepted))
                del due[trial]
                skills = proposal.bundle.apply(library.skills) if accepted else library.skills
                library = library._replace(skills=skills)
        tested = {one.name: one.skill for _, p in due.values() for one in p.bundle.operations}
        library = library._replace(under_test=tested)
        memory, outcome = creator.propose(memory, library, step=step)
        if isinstance(outcome, Proposal):
            due[outcome.id] = step + 4, outcome
            events.append((step, "proposed", outcome.id, json.dumps(outcome.to_dict())))
        elif outcome.looked:
            events.append((step, "refused", outcome.reason))
        memory, lines = creator.tell(memory)
        events += [(step, "line", told_line(line, timed)) for line in lines]
        figures = dict(creator.figures(memory))
        events.append((step, "figures", told_line(figures, timed)))
        if step % 3 == 0:
            saved = step, json.loads(json.dumps(creator.dump(memory))), dict(due), library
        time.sleep(seconds)
    return events, saved


def varied(said, answers, *, delay=0.0):
    """Answers that differ by what is asked: every pipeline proposes something else."""
    actions = ("open.", "look.", "take.", "do not look.", "examine.", "go to.", "do not open.")

    def answer(asked):
        told = json.loads(json.dumps(answers[asked.stage]))
        if asked.stage == "authoring":
            seed = sum(map(ord, asked.user))
            told["operations"][0]["action"] = actions[seed % len(actions)]
            if seed % 5 == 0:
                return said("busy", status=503, delay=delay)
        return said(told, delay=delay)

    return answer


def test_a_killed_run_goes_as_it_went(at_desk, serve, said, answers, episodes):
    """Killed at 20 moments of its pipelines: what was logged before is logged again."""
    server = serve(varied(said, answers, delay=0.004))
    for moment in range(20):
        run = f"run-{moment}"
        creator = at_desk(server, run)
        last = 4 + moment
        seen, (step, memory, _, _) = journal(
            creator, creator.init(0), range(1, last + 1), episodes, seconds=0.005
        )
        creator.desk.close()  # killed; what is under way is lost
        again = at_desk(server, run)
        events, _ = journal(again, again.init(0), range(1, last + 1), episodes)
        assert events == seen
        assert again.load(memory).begun >= 0 and step % 3 == 0


def test_a_run_goes_on_from_a_checkpoint_as_it_went(at_desk, serve, said, answers, episodes):
    server = serve(varied(said, answers))
    creator = at_desk(server, "whole", lag=2)
    whole, _ = journal(creator, creator.init(0), range(1, 31), episodes, timed=False)
    assert sum(event[1] == "proposed" for event in whole) >= 3
    server.asked.clear()
    for last in range(3, 30, 3):
        first = at_desk(server, f"half-{last}", lag=2)
        before, (step, memory, due, library) = journal(
            first, first.init(0), range(1, last + 1), episodes, timed=False
        )
        assert step == last and before == whole[: len(before)]
        if due or library.skills:
            continue  # the little life keeps its own trials only in memory
        first.desk.close()
        second = at_desk(server, f"half-{last}", lag=2)
        after, _ = journal(second, second.load(memory), range(last + 1, 31), episodes, timed=False)
        assert after == whole[len(before) :]


def test_a_finished_run_is_replayed_without_a_network(at_desk, serve, said, answers, episodes):
    server = serve(varied(said, answers, delay=0.004))
    creator = at_desk(server, "first")
    events, _ = journal(creator, creator.init(0), range(1, 31), episodes, seconds=0.01)
    assert any(event[1] == "proposed" for event in events)
    creator.desk.close()
    replayed = at_desk(None, "second", recorded="first")
    again, _ = journal(replayed, replayed.init(0), range(1, 31), episodes)
    assert again == events
    with pytest.raises(RunFolderError, match="no replies of a creator to replay"):
        at_desk(None, "third", recorded="nowhere")


def test_a_replay_of_something_else_says_so(at_desk, serve, said, answers, episodes):
    creator = at_desk(serve(good(said, answers)), "first", lag=1)
    journal(creator, creator.init(0), range(1, 6), episodes)
    creator.desk.close()
    replayed = at_desk(None, "second", recorded="first", lag=1)
    memory, found = live(
        replayed, with_evidence(replayed, lambda: episodes(text=" Otherwise.")), range(1, 4)
    )
    assert found[2].failed and "no record of the reply" in found[2].reason


def test_a_slow_server_costs_the_steps_nothing(at_desk, serve, said, answers, episodes):
    creator = at_desk(serve(lambda asked: said(answers[asked.stage], delay=3.0)))
    memory = with_evidence(creator, episodes)
    memory, _ = creator.propose(memory, EMPTY, step=1)
    began = time.perf_counter()
    for step in range(2, 202):
        memory, outcome = creator.propose(memory, EMPTY, step=step)
        assert isinstance(outcome, Refusal) and not outcome.looked
    assert (time.perf_counter() - began) / 200 < 0.01


def test_a_budget_ends_the_asking(at_desk, serve, said, answers, episodes):
    server = serve(good(said, answers))
    creator = at_desk(server, lag=1, limits=Limits(calls=8), contrasts=5)
    memory, found = live(creator, with_evidence(creator, episodes), range(1, 3))
    assert isinstance(found[2], Proposal)
    assert len(server.asked) == 6  # the contrasts leave room for the other stages
    memory, found = live(creator, memory, range(3, 30))
    assert "budget of 8 calls" in found[4].reason and len(server.asked) == 8
    assert creator.figures(memory)["creator_calls"] == 8


def test_damaged_records_are_named(at_desk, serve, said, answers, episodes, tmp_path):
    creator = at_desk(serve(good(said, answers)), "a", lag=1)
    live(creator, with_evidence(creator, episodes), range(1, 3))
    creator.desk.close()
    for path in (tmp_path / "a/creator/replies").iterdir():
        path.write_text("{")
    again = at_desk(serve(good(said, answers)), "a", lag=1)
    with pytest.raises(RunFolderError, match="is damaged"):
        live(again, with_evidence(again, episodes), range(1, 3))


def test_a_note_after_a_torn_line_is_not_lost_with_it(tmp_path):
    path = tmp_path / "creator/arrivals.jsonl"
    first = ReplyStore(tmp_path)
    first.note("a", 3, there=True)
    first.note("b", 4, there=True)
    path.write_bytes(path.read_bytes()[:-9])  # killed in the middle of the write
    second = ReplyStore(tmp_path)
    assert (second.arrival("a"), second.arrival("b")) == (3, None)
    second.note("b", 5, there=True)
    second.note("c", 6, there=True)
    third = ReplyStore(tmp_path)
    assert [third.arrival(name) for name in "abc"] == [3, 5, 6]
    assert path.read_bytes().count(b"\n") == 4 and path.read_bytes().endswith(b"}\n")


def test_spending_adds_up():
    total = Spent(1, 2, 3, 0.1) + Spent(1, 20, 30, 0.2)
    assert total == Spent(2, 22, 33, 0.3) and total.tokens == 55
