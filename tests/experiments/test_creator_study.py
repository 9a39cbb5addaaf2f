"""The study of a creator half of whose skills are harmful, and the script in the model's place."""

import json

import creator_study
import pytest
import scripted_expert
from scripted_expert import Habit, ScriptedExpert, answer, deed_of, verb_of

from reskill_jax.creators.llm.call import Request
from reskill_jax.creators.llm.clients import OpenAIClient
from reskill_jax.creators.llm.reading import parse_reply
from reskill_jax.creators.llm.schemas import SCHEMAS


def turn(number, saw, did):
    return {"turn": number, "saw": saw, "did": did}


def episode(won, *actions):
    log = [turn(0, "Welcome.", "go to cabinet 1")]
    log += [turn(n + 1, "The cabinet 1 is closed.", action) for n, action in enumerate(actions)]
    return {"won": won, "log": [*log, {"turn": 9, "saw": "The end."}], "turns": len(log)}


OPENED, LOOKED = ("open c 1", "go to c 2") * 3, ("look", "go to c 2") * 3


def asked(question, data):
    return answer(f"{question}\n<data>\n{json.dumps(data)}\n</data>")


def contrasted(*episodes):
    return asked(
        "What tells these episodes apart?", {"task": "put a mug", "episodes": list(episodes)}
    )


def test_verbs_and_deeds():
    assert verb_of("go to cabinet 1") == "go to" and verb_of("open cabinet 1") == "open"
    assert verb_of("") == ""
    assert deed_of("go to cabinet 1") == "go to cabinet" and deed_of("open cabinet 1") == "open"
    assert Habit.read("do not go to fridge after take for cool") == Habit(
        "go to fridge", "take", "cool"
    )


def test_the_script_reads_what_made_the_difference():
    found = contrasted(episode(True, *OPENED), episode(False, *LOOKED))
    assert found["finding"] == "look after go to: -; open after go to: +"
    assert found["confidence"] == "medium" and found["success"]["actions"] == ["open c 1"]
    nothing = contrasted(episode(False, "look", "look"))
    assert nothing["confidence"] == "low" and nothing["moment"] is None
    alike = contrasted(episode(True, *OPENED), episode(False, *OPENED))
    assert alike["moment"] is None


def test_it_believes_what_several_tasks_agree_on():
    told = {
        "0": ("cool a mug", "open after go to: +; look after go to: -"),
        "1": ("cool a pan", "open after go to: +"),
        "2": ("heat a pan", "open after go to: -"),
        "3": ("heat an egg", "look after go to: +"),
    }
    findings = {number: {"task": task, "finding": said} for number, (task, said) in told.items()}
    assert scripted_expert.pooled(findings) == {Habit("open", "go to", "cool"): [0, 1]}


@pytest.mark.parametrize("draw, action", [(0.2, "do not open."), (0.9, "open.")])
def test_half_of_its_skills_say_the_opposite(draw, action):
    cluster = {"label": "open after go to for put", "findings": [0, 1], "most_telling": 0}
    data = {
        "clusters": [cluster],
        "skills": {"in_use": [], "under_test": []},
        "history": {"decisions": []},
    }
    (told,) = scripted_expert.recommend(data, draw)["operations"]
    written = scripted_expert.write({"recommendation": told, "refused_attempts": []})
    (skill,) = written["operations"]
    assert (skill["action"], skill["pattern"]) == (action, "^go to")
    assert skill["task_pattern"] == "put"
    assert scripted_expert.is_harmful(action) == (draw < 0.5)
    again = scripted_expert.write({"recommendation": told, "refused_attempts": ["fires in 2%"]})
    assert again["operations"][0]["trigger"] == "general"
    # What was tried is not said again.
    data["skills"]["under_test"] = [skill]
    assert scripted_expert.recommend(data, draw)["operations"] == []


def test_its_answers_are_of_the_shapes_that_are_asked_for():
    findings = [contrasted(episode(True, *OPENED), episode(False, *LOOKED)) for _ in range(3)]
    told = {str(n): one | {"task": "put a mug"} for n, one in enumerate(findings)}
    diagnosis = asked("What is wrong with the agent?", {"findings": told, "assertions": []})
    assert [one["insights"] for one in diagnosis["clusters"]] == [[0, 1, 2]]
    for stage, value in (("insight", findings[0]), ("diagnosis", diagnosis)):
        parse_reply(json.dumps(value), SCHEMAS[stage])


def test_the_server_answers_and_dies():
    data = json.dumps({"task": "put a mug", "episodes": [episode(False, "look")]})
    user = f"What tells these episodes apart?\n<data>\n{data}\n</data>"
    request = Request("0/insight/0", "insight", "s", user, SCHEMAS["insight"], 100, 0.2)
    with ScriptedExpert(most_calls=1) as expert:
        client = OpenAIClient("scripted", expert.url)
        reply = client.complete(request, "json_schema", seconds=10)
        assert parse_reply(reply.text, SCHEMAS["insight"])["confidence"] == "low"
        with pytest.raises(Exception, match="HTTP 503"):
            client.complete(request, "json_schema", seconds=10)
        assert expert.calls == 2


def test_what_became_of_the_versions():
    def event(kind, action, difference):
        skill = {"name": "x", "action": action}
        operations = [{"operation": "ADD", "name": "x", "skill": skill}]
        return {"event": kind, "operations": operations, "difference": [0.0, difference]}

    events = [
        event("proposed", "open.", None),
        event("accepted", "open.", 0.1),
        event("rejected", "do not open.", -0.2),
        event("retired", "look.", 0.0),
    ]
    versions = creator_study.versions_of(events)
    assert [(v["adopted"], v["opposite"], v["difference"]) for v in versions] == [
        (True, False, 0.1),
        (False, True, -0.2),
    ]


def test_the_table(tmp_path, capsys):
    for seed, won in ((0, 100), (1, 120)):
        told = {
            "condition": "expert",
            "seed": seed,
            "success": {"unseen/bank": [won, 200], "seen/bank": [won, 200]},
            "versions": [
                {"adopted": True, "opposite": False},
                {"adopted": False, "opposite": True},
            ],
            "calls": 30,
        }
        (tmp_path / f"expert-{seed}.json").write_text(json.dumps(told))
    assert creator_study.main(["--report", "--results", str(tmp_path)]) == 0
    (line,) = capsys.readouterr().out.splitlines()[1:]
    assert line.startswith("expert") and "55.0%" in line
    assert "2 of 2" in line and "0 of 2" in line
    with pytest.raises(SystemExit):
        creator_study.main(["--only", "nobody"])


def test_the_conditions():
    rules, expert, auto = (
        creator_study.config_of(name, 7, "http://h/v1", quick=False)
        for name in creator_study.CONDITIONS
    )
    assert (rules.creator.kind, expert.creator.kind, auto.creator.kind) == ("rules", "llm", "llm")
    assert auto.trial.auto_accept and not expert.trial.auto_accept
    assert {one.steps for one in (rules, expert, auto)} == {40}
    assert {one.seed for one in (rules, expert, auto)} == {7}
