"""The life of the skills between steps, with stand-in proposals."""

import dataclasses
import json
import types

import numpy as np
import pytest

from reskill_jax.creator.episode import Episode
from reskill_jax.creator.propose import Proposal, Refusal
from reskill_jax.creator.state import Record, observe, remember
from reskill_jax.skills.skill import Bundle, Operation, Skill, SkillError, Trigger
from reskill_jax.skills.skillmd import SkillFileError, SkillFileWarning, export_skills
from reskill_jax.training import lifecycle
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import (
    Life,
    begin_life,
    episodes_of,
    learn,
    make_bank,
    settle,
    suggest,
)
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.tables import TASK_TYPES, TEMPLATES

CONFIG = TrainConfig(cooldown=3)


def skill(name, action="open."):
    return Skill(name, "When it helps.", action, Trigger("action_pattern", "^go to"))


A, B, C = skill("a"), skill("b", "look."), skill("c", "do not look.")


def episode(**changes):
    told = {
        "task": "7",
        "goal": "clean some mug",
        "family": "f",
        "arm": 0,
        "success": True,
        "step": 2,
        "actions": ("look",),
        "observations": ("Hi.", "Nothing."),
    }
    return Episode(**told | changes)


def proposed(creator, bundle, skills, kind="bundle"):
    """A proposal as the creator makes one: pending in its history."""
    bundle = Bundle(tuple(bundle))
    number = creator.next_id
    record = Record(number, 4, kind, bundle, ("key",), (("look", None, True),), 2.5, 9)
    proposal = Proposal(number, kind, bundle, bundle.apply(skills), "it may help", 2.5)
    return remember(creator, record), proposal


def on_trial(bundle, skills=(A, B), kind="bundle", **changes):
    creator, proposal = proposed(begin_life(CONFIG).creator, bundle, skills, kind)
    served = {s.name: 5 for s in skills}
    return Life(creator, tuple(skills), proposal, **{"served": served} | changes)


def test_json_round_trip_is_exact():
    life = on_trial([Operation("MODIFY", "a", C), Operation("DELETE", "b")], next_proposal=8)
    creator = observe(life.creator, [episode(), episode(task="8", skills_fired=(("a",),))])
    life = dataclasses.replace(life, creator=creator)
    for one in (life, begin_life(CONFIG), dataclasses.replace(life, proposal=None)):
        text = json.dumps(one.to_dict())
        again = Life.from_dict(json.loads(text))
        assert again == one
        assert json.dumps(again.to_dict()) == text
        assert again.creator.generator().random() == one.creator.generator().random()


def test_accepted():
    life = on_trial([Operation("MODIFY", "a", skill("a", "help.")), Operation("ADD", "c", C)])
    after, lines = settle(life, 1, step=9, config=CONFIG, reason="better")
    assert after.skills == life.proposal.version == (skill("a", "help."), B, C)
    assert after.served == {"a": 0, "b": 5, "c": 0}  # a new text starts its service anew
    assert after.proposal is None and after.next_proposal == 12
    assert [line["event"] for line in lines] == ["accepted"]
    assert lines[0]["step"] == 9 and lines[0]["trial"] == 0 and lines[0]["reason"] == "better"
    assert lines[0]["operations"] == life.proposal.bundle.to_dict()["operations"]
    (record,) = after.creator.history
    assert (record.outcome, record.decided, record.reason) == ("accepted", 9, "better")
    json.dumps(lines)


def test_a_deleted_skill_is_pruned():
    life = on_trial([Operation("DELETE", "b"), Operation("ADD", "c", C)])
    after, lines = settle(life, 1, step=9, config=CONFIG, reason="better")
    assert after.skills == (A, C) and after.served == {"a": 5, "c": 0}
    assert [line["event"] for line in lines] == ["accepted", "pruned"]
    assert [o["name"] for o in lines[1]["operations"]] == ["b"]


def test_rejected():
    life = on_trial([Operation("ADD", "c", C), Operation("DELETE", "b")])
    after, lines = settle(life, 0, step=9, config=CONFIG, reason="worse")
    assert after.skills == (A, B) and after.served == {"a": 5, "b": 5}
    assert after.proposal is None and after.next_proposal == 12
    assert [line["event"] for line in lines] == ["rejected"]
    assert after.creator.history[0].outcome == "rejected"


@pytest.mark.parametrize(
    ("decision", "event", "skills", "outcome"),
    [(1, "retired", (A,), "accepted"), (0, "kept", (A, B), "rejected")],
)
def test_retirement(decision, event, skills, outcome):
    life = on_trial([Operation("DELETE", "b")], kind="retirement")
    after, lines = settle(life, decision, step=9, config=CONFIG, reason="")
    assert [line["event"] for line in lines] == [event]
    assert after.skills == skills and after.creator.history[0].outcome == outcome


def test_no_decision_without_a_proposal():
    with pytest.raises(ValueError, match="step 3: a decision without a proposal"):
        settle(begin_life(CONFIG), 1, step=3, config=CONFIG, reason="")


def test_learning_counts_service():
    life = Life(begin_life(CONFIG).creator, (A, B), served={"a": 3, "gone": 8})
    after = learn(life, [episode()])
    assert after.served == {"a": 4, "b": 1}
    assert len(after.creator.reservoir) == 1 and len(life.creator.reservoir) == 0


@pytest.fixture
def creator(monkeypatch):
    """Stand-ins for the creator: what they answer, and how often they were asked."""
    asked = types.SimpleNamespace(retire=0, bundle=0, retirement=None, proposal=None, pause=0)

    def retirement(state, skills, *, settings, **_):
        asked.retire += 1
        assert settings.retire_after == CONFIG.retire_after
        if asked.retirement is None:
            return state, Refusal("none is due")
        return proposed(state, asked.retirement, skills, "retirement")

    def propose(state, skills, *, settings, capacity, **_):
        asked.bundle += 1
        assert (settings.min_episodes, capacity) == (CONFIG.reservoir, CONFIG.slots)
        if asked.proposal is None:
            state = dataclasses.replace(state, next_attempt=state.next_attempt + asked.pause)
            return state, Refusal("nothing to contrast")
        return proposed(state, asked.proposal, skills)

    monkeypatch.setattr(lifecycle, "propose_retirement", retirement)
    monkeypatch.setattr(lifecycle, "propose", propose)
    return asked


def test_a_suggestion_goes_on_trial(creator):
    creator.proposal = [Operation("ADD", "a", A)]
    life, line = suggest(begin_life(CONFIG), step=6, config=CONFIG)
    assert life.proposal.version == (A,) and life.skills == ()
    assert line["event"] == "proposed" and line["trial"] == 0 and line["reason"] == "it may help"
    assert line["operations"][0]["skill"] == A.to_dict()
    # Nothing else while it is tested, and a pause after it.
    assert suggest(life, step=7, config=CONFIG) == (life, None)
    life, _ = settle(life, 0, step=8, config=CONFIG, reason="")
    assert suggest(life, step=10, config=CONFIG) == (life, None)
    assert (creator.retire, creator.bundle) == (1, 1)
    assert suggest(life, step=11, config=CONFIG)[1]["trial"] == 1


def test_a_retirement_that_is_due_goes_first(creator):
    creator.proposal, creator.retirement = [Operation("ADD", "c", C)], [Operation("DELETE", "a")]
    life = Life(begin_life(CONFIG).creator, (A, B), served={"a": 20, "b": 1})
    life, line = suggest(life, step=6, config=CONFIG)
    assert line["event"] == "retirement_started" and life.proposal.version == (B,)
    assert (creator.retire, creator.bundle) == (1, 0)


def test_a_refusal_is_told_once(creator):
    creator.pause = 4
    life, line = suggest(begin_life(CONFIG), step=6, config=CONFIG)
    assert life.proposal is None and life.creator.next_attempt == 4
    assert (line["event"], line["trial"], line["operations"]) == ("unproposed", None, [])
    assert line["reason"] == "nothing to contrast"
    creator.pause = 0  # it did not even look
    assert suggest(life, step=7, config=CONFIG)[1] is None


def test_arms_that_are_not_given_hold_the_bank_in_use():
    config = dataclasses.replace(CONFIG, arms=4)
    bank = make_bank(config, [(A,), (A, B)])
    for array in bank:
        np.testing.assert_array_equal(array[2], array[0])
        np.testing.assert_array_equal(array[3], array[0])
    assert (bank.kind != 0).sum(axis=1).tolist() == [1, 2, 1, 1]


# --- evidence -------------------------------------------------------------------------------------


def intro_of(goal):
    task = next(i for i, text in enumerate(sy.SYMBOLS) if text.endswith("Your task is to:"))
    return [task, *sy.words(goal), *sy.words(".")]


def padded(rows, width):
    return np.asarray([[*row, *[sy.PAD] * (width - len(row))] for row in rows], np.int32)


def test_episodes_of_a_step():
    intros = padded([intro_of("put a mug in fridge")] * 4 + [intro_of("clean a mug")] * 4, 16)
    arms = [0, 0, 1, 0, 0, 1, 1, 1]
    success = [True, True, True, False, False, False, True, False]
    turns = np.asarray([1, 2, 1, 2, 2, 2, 1, 0], np.int32)
    actions = np.stack([padded([sy.words("look"), sy.words("help")], 6)] * 8)
    observations = np.stack([padded([sy.words("mug"), sy.words("fridge")], 4)] * 8)
    fired = np.zeros((8, 2, 3), bool)
    fired[:, 0, 0] = fired[:, 1, 1] = True
    evidence = types.SimpleNamespace(
        arms=arms,
        success=success,
        valid=np.arange(8) != 5,
        turns=turns,
        intros=intros,
        actions=actions,
        observations=observations,
        possible=np.tile(np.arange(len(sy.VERBS)) < 2, (8, 2, 1)),
        fired=fired,
    )
    names = [["a"], ["a", "b"]]
    found = episodes_of(evidence, np.asarray([31, 5]), 9, names, group_size=4)
    # One of each (task, arm, outcome): the first.
    assert [(e.task, e.arm, e.success, len(e.actions)) for e in found] == [
        ("31", 0, True, 1),
        ("31", 1, True, 1),
        ("31", 0, False, 2),
        ("5", 0, False, 2),
        ("5", 1, True, 1),
        ("5", 1, False, 0),  # the one before is not valid
    ]
    assert found[2].actions == ("look", "help")
    assert found[2].observations[0].endswith("Your task is to: put a mug in fridge.")
    assert found[2].observations[1:] == ("mug", "fridge")
    assert found[2].skills_fired == (("a",), ())  # arm 0 has one skill
    assert found[5].skills_fired == ()  # it has no turns
    assert (found[0].goal, found[3].goal) == ("put a mug in fridge", "clean a mug")
    assert {e.step for e in found} == {9}
    assert found[0].possible == (tuple(sy.VERBS[:2]),)


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_family_of_every_goal(task_type):
    for template in TEMPLATES[task_type]:
        goal = template.format(obj="mug", recep="fridge", toggle="desklamp")
        evidence = types.SimpleNamespace(
            arms=[0],
            success=[False],
            valid=[True],
            turns=np.zeros(1, int),
            intros=padded([intro_of(goal)], 24),
            actions=np.zeros((1, 1, 6), int),
            observations=np.zeros((1, 1, 4), int),
            possible=np.zeros((1, 1, len(sy.VERBS)), bool),
            fired=np.zeros((1, 1, 2), bool),
        )
        (found,) = episodes_of(evidence, np.asarray([1]), 0, [[]], group_size=1)
        assert found.goal == goal
        assert found.family == task_type


def test_the_skills_a_run_begins_with(tmp_path):
    assert begin_life(CONFIG).skills == ()
    good = begin_life(dataclasses.replace(CONFIG, bank="good")).skills
    assert good and make_bank(CONFIG, [good]).kind.any()
    export_skills((A, B), tmp_path)
    assert begin_life(dataclasses.replace(CONFIG, bank=str(tmp_path))).skills == (A, B)
    assert begin_life(dataclasses.replace(CONFIG, skills=False)).skills == ()
    with pytest.raises(SkillFileError, match="there is no such folder"):
        begin_life(dataclasses.replace(CONFIG, bank=str(tmp_path / "none")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SkillFileError, match="empty: there is no folder with a SKILL.md in it"):
        begin_life(dataclasses.replace(CONFIG, bank=str(tmp_path / "empty")))


def test_skills_of_others_in_the_folder_a_run_begins_with(tmp_path):
    config = dataclasses.replace(CONFIG, bank=str(tmp_path))
    export_skills((A,), tmp_path)
    for name, text in (("broken", "# No front"), ("theirs", "---\nname: theirs\n---\n")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "SKILL.md").write_text(text)
    with pytest.warns(SkillFileWarning) as told:
        assert begin_life(config).skills == (A,)
    assert [str(one.message).split(": ")[2][:30] for one in told] == [
        "it does not begin with '---' a",
        "description must be a text, go",
    ]
    # One that can be read is still one that this world must be able to play.
    (tmp_path / "broken" / "SKILL.md").unlink()
    (tmp_path / "broken").rmdir()
    front = "---\nname: theirs\ndescription: d\n---\n"
    path = tmp_path / "theirs" / "SKILL.md"
    path.write_text(front + "# How to open\n\nGo to the " + "nearest " * 3000 + "place.\n")
    with pytest.raises(SkillError, match="of theirs has a word this world lacks: 'How'") as error:
        make_bank(config, [begin_life(config).skills])
    assert len(str(error.value)) < 120
    path.write_text(front + "open.\n")
    skills = begin_life(config).skills
    assert [one.name for one in skills] == ["a", "theirs"]
    assert make_bank(config, [skills]).kind[0, :2].tolist() == [3, 1]
    life = Life(begin_life(config).creator, skills)
    assert Life.from_dict(json.loads(json.dumps(life.to_dict()))) == life


def test_nothing_is_proposed_when_the_bank_is_fixed(creator):
    config = dataclasses.replace(CONFIG, skills_until=4)
    creator.proposal = [Operation("ADD", "a", A)]
    life = begin_life(CONFIG)
    assert suggest(life, step=4, config=config) == (life, None)
    assert suggest(life, step=3, config=config)[0].proposal is not None
