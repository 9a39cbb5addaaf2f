"""Draws, reports and decisions of a store."""

import collections
import dataclasses
import json
import math
import sqlite3
import threading

import numpy as np
import pytest

from reskill_jax.agents.audit import find_problems
from reskill_jax.agents.trials import (
    AgentEpisode,
    AgentStep,
    EpisodeError,
    SettingsError,
    SkillTrials,
    StoreError,
    TrialSettings,
)
from reskill_jax.core.contrast import Contrast
from reskill_jax.core.trial import sequential_log_odds
from reskill_jax.skills.skill import Skill, Trigger


def test_without_anything_under_test_every_episode_reads_the_bank_in_use(make, skills):
    trials = make(skills=skills[:1])
    draws = [trials.draw("a", text="open it", kind="box") for _ in range(6)]
    assert [draw.repetition for draw in draws] == [0, 1, 2, 3, 4, 5]
    assert {draw.arm for draw in draws} == {0} and draws[0].skills == skills[:1]
    assert (draws[0].text, draws[0].kind, draws[0].task) == ("open it", "box", "a")
    assert trials.draw("b\ud800").text == "b?"


def test_arms_are_balanced_within_every_group(make, skills):
    trials = make()
    trials.propose(skills)
    arms = collections.defaultdict(list)
    for n in range(32):
        draw = trials.draw(f"task-{n % 4}")
        arms[draw.task].append(draw.arm)
        held = [skill for part, skill in enumerate(skills) if draw.arm >> part & 1]
        assert draw.skills == tuple(held)
    for of_task in arms.values():
        for group in (of_task[:4], of_task[4:]):
            for part in range(2):
                assert sum(arm >> part & 1 for arm in group) == 2  # p = 1/2 of 4


def test_a_repetition_that_was_drawn_before_is_given_again(make, skills):
    trials = make()
    trials.propose(skills[:1])
    first = trials.draw("a", repetition=3)
    assert trials.draw("a", repetition=3) == first
    assert trials.draw("a").repetition == 4
    trials.report(AgentEpisode(first.id, (), True))
    assert trials.draw("a", repetition=3) == first


def test_strata_put_different_tasks_into_one_group(make, skills):
    trials = make()
    trials.propose(skills[:1])
    arms = [trials.draw(f"ticket-{n}", stratum="refunds").arm for n in range(4)]
    assert sorted(arms) == [0, 0, 1, 1]


def test_reports_that_count_and_that_do_not(make):
    trials = make()
    ids = [trials.draw("a").id for _ in range(5)]
    assert trials.report(AgentEpisode(ids[0], (), True)).status == "counted"
    assert trials.report(AgentEpisode(ids[0], (), False)).status == "duplicate"
    assert trials.report(AgentEpisode(ids[1], invalid="it crashed")).status == "invalid"
    assert trials.report(AgentEpisode(ids[1], (), True)).status == "duplicate"
    steps = (AgentStep("look()", "dark", ("a",)),)
    assert trials.report(AgentEpisode(ids[2], steps)).status == "unjudged"
    assert trials.report(AgentEpisode(ids[2], steps)).status == "duplicate"
    assert trials.judge(ids[2], True).status == "counted"
    assert trials.judge(ids[2], False).status == "duplicate"
    with pytest.raises(StoreError, match=f"draw {ids[3]} was not reported"):
        trials.judge(ids[3], True)
    with pytest.raises(StoreError, match="no draw 99"):
        trials.report(AgentEpisode(99, (), True))
    assert trials.status().reports == {"counted": 2, "invalid": 1}
    told = list(trials.episodes())
    assert [line["success"] for line in told] == [1, None, 1]
    assert told[1]["invalid"] == "it crashed" and told[2]["steps"][0]["skills_fired"] == ["a"]


def test_episodes_that_are_none_are_refused():
    for wrong in (
        {"draw": "1"},
        {"draw": 1, "success": 2},
        {"draw": 1, "invalid": ""},
        {"draw": 1, "steps": ("look",)},
    ):
        with pytest.raises(EpisodeError):
            AgentEpisode(**wrong)
    with pytest.raises(EpisodeError, match="not an episode"):
        AgentEpisode.from_dict({"draw": 1, "steps": [{"action": "a"}]})
    episode = AgentEpisode(1, (AgentStep("a", "b", ("c",)),), False, model="m", duration=2.5)
    assert AgentEpisode.from_dict(json.loads(json.dumps(episode.to_dict()))) == episode


def test_the_decisions_are_those_of_walds_test_on_differences_within_groups(make, skills, play):
    """The counts and the log odds by hand, from what the store kept."""
    trials = make()
    trials.propose(skills)
    receipts = play(trials, 64, effects={"good": 0.5, "bad": -0.3})
    decided = [event for receipt in receipts for event in receipt.events]
    events = {e["operations"][0]["name"]: e for e in decided if e["event"] != "unproposed"}
    assert events["good"]["event"] == "accepted" and events["bad"]["event"] == "rejected"
    assert [skill.name for skill in trials.skills] == ["good"]
    for part, name in enumerate(("good", "bad")):
        last = events[name]["step"]
        groups = collections.defaultdict(list)
        with trials.store.view() as connection:
            rows = connection.execute(
                'SELECT d."group", d.arm, r.success, r.step, d.version FROM draws d '
                "JOIN reports r ON r.draw = d.id JOIN tested t ON t.version = d.version "
                "WHERE t.trial = ?",
                (part,),
            ).fetchall()
        for group, arm, won, step, _ in rows:
            if step <= last:
                groups[group].append((arm >> part & 1, won))
        score = weight = variance = 0.0
        for played in groups.values():
            n, s = len(played), sum(won for _, won in played)
            with_ = [won for held, won in played if held]
            n1, n0 = len(with_), n - len(with_)
            score += sum(with_) - n1 * s / n
            weight += n1 * n0 / n
            variance += n1 * n0 * s * (n - s) / (n * n * (n - 1)) if n > 1 else 0
        assert events[name]["trials"][1] == sum(held for g in groups.values() for held, _ in g)
        assert events[name]["difference"][1] == pytest.approx(score / weight, abs=1e-4)
        line = [x for x in trials.lines("trials.jsonl") if x["trial"] == part][-1]
        odds = 0.3 * (score - 0.3 * weight / 2) * weight / variance
        assert line["sequential_test"]["log_odds"][1] == pytest.approx(odds, rel=1e-4)
        test = sequential_log_odds(
            Contrast(*(np.array([0, x], np.float32) for x in (score, weight, variance))),
            np.ones(2, bool),
            gain=0.3,
        )
        assert float(test.log_odds[1]) == pytest.approx(odds, rel=1e-4)
        assert math.isclose(
            line["sequential_test"]["accept_at"], math.log(0.95 / 0.1), rel_tol=1e-5
        )
    assert find_problems(trials) == []


def test_late_reports_are_evidence_and_not_counted(make, skills, play):
    trials = make()
    trials.propose(skills[:1])
    early = [trials.draw("late") for _ in range(4)]
    play(trials, 64, effects={"good": 0.6})
    assert trials.status().trials == () and trials.skills == skills[:1]
    counts = trials.lifecycle()[-1]["trials"]
    for draw in early[:2]:
        assert trials.report(AgentEpisode(draw.id, (), False)).status == "late"
    assert trials.lifecycle()[-1]["trials"] == counts
    assert trials.draw("late").skills == skills[:1]  # and new draws are of the new bank
    assert find_problems(trials) == []


def test_a_store_goes_on_where_it_was_left(make, skills, play):
    one, two = make("one.sqlite"), make("two.sqlite")
    for trials in (one, two):
        trials.propose(skills)
    play(one, 48, effects={"good": 0.3})
    play(two, 20, effects={"good": 0.3})
    two.close()
    again = make("two.sqlite", settings=None)
    assert again.settings == two.settings
    # The same episodes, the outcomes of the second half drawn anew from where they were.
    done = list(one.episodes())
    for line in done[20:]:
        draw = again.draw(line["task"])
        assert draw.arm == line["arm"]
        steps = tuple(AgentStep(**step) for step in line["steps"])
        again.report(AgentEpisode(draw.id, steps, bool(line["success"])))
    assert again.lifecycle() == one.lifecycle()
    assert again.lines("trials.jsonl") == one.lines("trials.jsonl")


def test_what_cannot_be_tried_is_told(make, skills):
    trials = make(skills=skills[:1])
    other = Skill("good", "Always.", "close the box.", Trigger("general"))
    told = trials.propose([skills[0], other, skills[1], skills[1]], origin="a folder")
    assert [(line["event"], line["reason"]) for line in told] == [
        ("unproposed", "good (a folder) is not tried: it is in use already"),
        ("proposed", "brought: a folder"),
        ("proposed", "brought: a folder"),
    ]
    assert [line["operations"][0]["operation"] for line in told[1:]] == ["MODIFY", "ADD"]
    assert trials.status().waiting == 1  # both parts are taken


def test_the_bank_never_outgrows_its_slots(make, skills, settings):
    trials = make(settings=dataclasses.replace(settings, slots=1))
    (first, second) = trials.propose(skills)
    assert first["event"] == "proposed"
    assert second["reason"].endswith("the bank would hold 1 skills; its capacity is 0")


def test_stores_that_cannot_be_used(make, tmp_path, settings):
    make().close()
    with pytest.raises(StoreError, match="group_size is 4, not 8"):
        make(settings=dataclasses.replace(settings, group_size=8))
    with pytest.raises(StoreError, match="there is no store"):
        SkillTrials(tmp_path / "none", create=False)
    with pytest.raises(StoreError, match="is a folder"):
        SkillTrials(tmp_path)
    (tmp_path / "text").write_text("hello " * 100)
    with pytest.raises(StoreError, match="cannot be used: file is not a database"):
        SkillTrials(tmp_path / "text")
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE x (y)")
    other.close()
    with pytest.raises(StoreError, match="database of something else"):
        SkillTrials(tmp_path / "other.sqlite")
    with pytest.raises(SettingsError, match="trial.gain"):
        SkillTrials(tmp_path / "new", settings=TrialSettings(gain=3.0))
    with pytest.raises(SettingsError, match="step_episodes"):
        TrialSettings(step_episodes=0)


def test_threads_share_a_store(make, skills):
    trials = make()
    trials.propose(skills)
    seen = collections.Counter()

    def work(number):
        for n in range(10):
            draw = trials.draw(f"task-{number}")
            seen[draw.id] += 1
            trials.report(AgentEpisode(draw.id, (), n % 2 == 0))
        trials.close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 40 and set(seen.values()) == {1}
    assert sum(trials.status().reports.values()) == 40
    assert find_problems(trials) == []


def test_an_audit_finds_what_was_changed_by_hand(make, skills, play):
    trials = make()
    trials.propose(skills)
    play(trials, 40, effects={"good": 0.5, "bad": -0.3})
    assert find_problems(trials) == []
    with trials.store.change() as connection:
        connection.execute("UPDATE reports SET success = 1 - success WHERE step = 1")
    assert any("reports say" in told or "does not follow" in told for told in find_problems(trials))
    with trials.store.change() as connection:
        connection.execute("DELETE FROM reports WHERE seq = 2")
    assert "step 1 has 15 episodes" in find_problems(trials)


def test_the_rules_propose_from_what_is_reported_and_a_trial_decides(make, settings):
    """An agent that opens the box wins; nobody says so, the creator finds it out."""
    trials = make(
        creator="rules",
        settings=dataclasses.replace(settings, reservoir=40, step_episodes=32),
    )
    rng = np.random.default_rng(0)
    for n in range(420):
        draw = trials.draw(f"task-{n // 4}", text="find the ball")
        observation, steps = "You are in a room with a box.", []
        opened = False
        for turn in range(3):
            told = draw.firing(
                turn=turn, last_action=steps[-1].action if turn else None, observation=observation
            )
            wanted = [one.action for one in told]
            verb = next((w for w in ("open", "kick", "look") if any(w in x for x in wanted)), None)
            action = f"{verb or rng.choice(['open', 'kick', 'look'])} box"
            opened |= action == "open box"
            observation = f"You {action}."
            steps.append(AgentStep(action, observation, tuple(one.name for one in told)))
        trials.report(AgentEpisode(draw.id, tuple(steps), opened and rng.random() < 0.9))
        if trials.skills:
            break
    (skill,) = trials.skills
    assert "open" in skill.action
    assert find_problems(trials) == []
