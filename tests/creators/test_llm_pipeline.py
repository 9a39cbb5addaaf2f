"""The stages of a creator with a language model, given the replies."""

import dataclasses
import json

import pytest

from reskill_jax.creators.llm.authoring import kebab
from reskill_jax.creators.llm.call import CallError
from reskill_jax.creators.llm.diagnosis import MAX_CHECKS, changed_checks
from reskill_jax.creators.llm.evidence import choose_episodes, data_field, told_episode
from reskill_jax.creators.llm.schemas import SCHEMAS
from reskill_jax.creators.llm.state import Brief, LLMState, Written
from reskill_jax.skills.assertions import Assertion
from reskill_jax.skills.skill import Operation, Skill, Trigger

OPERATION = dict.fromkeys(("id", "pattern", "second", "after_action", "prefix", "n", "min", "max"))


def by_stage(answers):
    return lambda request: answers[request.stage]


def authored(answers, **changes):
    answers["authoring"]["operations"][0] |= changes
    return answers


def test_the_schemas_keep_to_what_strict_servers_accept():
    def visit(schema):
        if "anyOf" in schema:
            assert len(schema["anyOf"]) == 2 and schema["anyOf"][1] == {"type": "null"}
            assert set(schema) == {"anyOf"}
            return visit(schema["anyOf"][0])
        assert isinstance(schema["type"], str)
        assert set(schema) <= {
            *("type", "additionalProperties", "required", "properties", "items", "enum")
        }
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
            for inner in schema["properties"].values():
                visit(inner)
        if schema["type"] == "array":
            visit(schema["items"])

    assert set(SCHEMAS) == {"insight", "diagnosis", "recommendation", "authoring"}
    for schema in SCHEMAS.values():
        visit(schema)


def test_from_episodes_to_an_operation(brief_of, episodes, household_rules, answers, run_stages):
    brief = brief_of(household_rules, episodes())
    outcome, asked = run_stages(brief, household_rules, by_stage(answers), contrasts=4)
    stages = [request.stage for request in asked]
    assert stages == ["insight"] * 4 + ["diagnosis", "recommendation", "authoring"]
    (written,) = outcome.written
    (operation,) = written.operations
    assert operation == Operation(
        "ADD",
        "open-what-is-closed",
        Skill(
            "open-what-is-closed",
            "When a place is closed.",
            "open.",
            Trigger("observation_pattern", "is closed"),
        ),
    )
    assert outcome.failure is None and outcome.refused == ()
    account = outcome.account
    assert account["groups"] == 4 and len(account["findings"]) == 4
    assert account["drafts"] == [
        {"name": "open-what-is-closed", "action": "open.", "refused": None}
    ]
    json.dumps(account)  # plain types


def test_we_count_assertions_not_the_model(
    brief_of, episodes, household_rules, answers, run_stages
):
    brief = brief_of(household_rules, episodes())
    outcome, asked = run_stages(brief, household_rules, by_stage(answers))
    (check,) = outcome.checks
    assert check.assertion == Assertion.of("action_exists", pattern="^open")
    assert (check.success_rate, check.failure_rate) == (1.0, 0.0)
    told = next(request for request in asked if request.stage == "recommendation").user
    assert '"successes_that_pass": 1.0, "failures_that_pass": 0.0' in told


def test_what_is_shown(brief_of, episodes, household_rules, look_first, answers, run_stages):
    from reskill_jax.creators.rules.drafts import enter
    from reskill_jax.creators.rules.recommend import Draft

    brief = brief_of(household_rules, episodes(), [look_first], refused=("ADD x: too long",))
    bad = Skill("shut-it", "Never.", "close.", Trigger("general"))
    draft = Draft((Operation("ADD", "shut-it", bad),), ("k",), (), 0.0, 0.0, "why not")
    state, proposal = enter(brief.evidence, 2, "bundle", draft, [look_first], 8)
    state = household_rules.conclude(state, proposal.id, False, step=4, reason="success -0.200")
    brief = Brief(0, 5, state, brief.library, (), brief.refused, brief.spent)
    _, asked = run_stages(brief, household_rules, by_stage(answers), contrasts=1)
    told = {request.stage: request.user for request in asked}
    # Observations, the skills that were really shown, both outcomes.
    for text in ("The cabinet 1 is closed.", '"skills_shown": ["look-first"]'):
        assert text in told["insight"]
    assert '"won": true' in told["insight"] and '"won": false' in told["insight"]
    # What is quoted has to be there: "fly" was never done, and nobody was shown that skill.
    assert '"actions": ["go to cabinet 1"]' in told["recommendation"]
    assert "nobody-was-shown-this" not in told["recommendation"]
    # The bank with its figures, and why earlier proposals were rejected.
    assert '"episodes_shown": "20 of 20", "won_when_shown": "10 of 20"' in told["recommendation"]
    assert "success -0.200" in told["recommendation"] and "shut-it" in told["recommendation"]
    assert "ADD x: too long" in told["recommendation"]
    # Words of the world, for an agent that knows no others.
    assert '"agent_reads_only_these_words": true' in told["authoring"]


@pytest.mark.parametrize(
    "changes, reason",
    [
        (dict(action="Open it with the golden key."), "the policy cannot read it"),
        (dict(pattern="no such text"), "its trigger fires in 0% of the episodes"),
        (dict(trigger="general", action="look."), "the bank has it already"),
        # On the host this pattern is one of few states, over the world's symbols one of too many.
        (dict(pattern="(cabinet|.*closed.{40}is.{40}you)"), "needs too many states"),
    ],
)
def test_the_gate_stops_what_it_stops_of_the_rules(
    brief_of, episodes, household_rules, look_first, answers, run_stages, changes, reason
):
    brief = brief_of(household_rules, episodes(), [look_first])
    outcome, asked = run_stages(brief, household_rules, by_stage(authored(answers, **changes)))
    assert outcome.written == () and outcome.failure is None
    refusals = [draft["refused"] for draft in outcome.account["drafts"]]
    assert len(refusals) == 3 and all(reason in one for one in refusals), refusals
    # Each attempt is told what was wrong with those before.
    authoring = [request for request in asked if request.stage == "authoring"]
    assert [request.user.count(reason) for request in authoring] == [0, 1, 2]
    assert reason in outcome.refused[0]


@pytest.mark.parametrize(
    "changes, feedback",
    [
        (dict(op="delete"), "op must be add"),
        (dict(action=None), "'action' is missing"),
        (dict(trigger=None), "a new skill needs a trigger"),
        (dict(pattern="(?=x)"), "lookarounds are not supported"),
        (dict(pattern="x" * 201), "at most 200"),
        (dict(pattern=None), "needs a pattern"),
        (dict(task_pattern="(a+"), "cannot use the pattern"),
        (dict(do="open it"), "give both 'do' and 'do_not'"),
        (dict(when_to_use="w" * 500), "characters; at most 500"),
        (dict(action="open\x00."), "U+0000"),
        (dict(action="open\u202e."), "U+202E"),
        (dict(when_to_use=" "), "needs both when_to_use and action"),
    ],
)
def test_what_is_no_skill_is_told_in_one_line(
    brief_of, episodes, household_rules, answers, run_stages, changes, feedback
):
    brief = brief_of(household_rules, episodes())
    outcome, _ = run_stages(brief, household_rules, by_stage(authored(answers, **changes)))
    assert outcome.written == ()
    assert feedback in outcome.failure and "\n" not in outcome.failure


def test_names_become_kebab_case():
    assert kebab("Open what is closed!") == "open-what-is-closed"
    assert kebab("../../etc/passwd") == "etc-passwd"
    assert kebab("") == kebab("名前") == "skill"
    assert kebab("a" * 1000) == "a" * 60


def test_a_taken_name_gets_a_number(
    brief_of, episodes, household_rules, look_first, answers, run_stages
):
    answers = authored(answers, name="look first")
    brief = brief_of(household_rules, episodes(), [look_first])
    outcome, _ = run_stages(brief, household_rules, by_stage(answers))
    assert outcome.written[0].operations[0].name == "look-first-2"


def test_a_skill_is_modified_or_deleted(
    brief_of, episodes, household_rules, look_first, answers, run_stages
):
    recommended = answers["recommendation"]["operations"]
    recommended[0] |= {"op": "modify", "target": "look-first"}
    recommended.append(recommended[0] | {"op": "delete"})  # the same one twice: left out
    changes = dict.fromkeys(("when_to_use", "action", "trigger", "pattern", "task_pattern"))
    answers = authored(answers, op="modify", **changes | {"trigger": "beginning"})
    brief = brief_of(household_rules, episodes(), [look_first])
    outcome, _ = run_stages(brief, household_rules, by_stage(answers))
    (written,) = outcome.written
    changed = Skill("look-first", "Always.", "look.", Trigger("beginning"))
    assert written.operations == (Operation("MODIFY", "look-first", changed),)

    recommended[:] = [recommended[1]]
    outcome, asked = run_stages(
        brief, household_rules, by_stage(authored(answers, op="delete", name="anything"))
    )
    assert outcome.written[0].operations == (Operation("DELETE", "look-first"),)
    assert [request.stage for request in asked][-1] == "authoring"


def test_a_recommendation_about_a_skill_that_is_not_there(
    brief_of, episodes, household_rules, answers, run_stages
):
    answers["recommendation"]["operations"][0] |= {"op": "modify", "target": "a" * 2000}
    outcome, _ = run_stages(
        brief_of(household_rules, episodes()), household_rules, by_stage(answers)
    )
    assert "no skill in use is called" in outcome.failure and len(outcome.failure) < 300


def test_in_plain_language_skills_have_500_characters_and_one_pair(
    brief_of, episodes, plain_rules, answers, run_stages
):
    action = "Whenever something is closed, open it before you go on. " * 6
    pair = dict(do="open drawer 1, then look into it", do_not="go to the next drawer at once")
    answers = authored(answers, action=action, **pair)
    brief = brief_of(plain_rules, episodes())
    outcome, asked = run_stages(brief, plain_rules, by_stage(answers))
    skill = outcome.written[0].operations[0].skill
    assert skill.action == action.strip() and skill.examples == tuple(pair.values())
    assert 400 < skill.content_length <= 500
    assert "at most 500 characters" in asked[-1].system
    assert "knows few words" not in asked[-1].system


# --- failures of single calls -------------------------------------------------------------------


def test_groups_without_an_answer_are_left_out(
    brief_of, episodes, household_rules, answers, run_stages
):
    calls = iter([CallError("later", "no answer within 60 s"), answers["insight"], "nonsense"])

    def answer(request):
        return next(calls) if request.stage == "insight" else answers[request.stage]

    outcome, _ = run_stages(
        brief_of(household_rules, episodes()), household_rules, answer, contrasts=3
    )
    assert len(outcome.written) == 1 and len(outcome.account["findings"]) == 1
    assert outcome.account["groups_without_answer"]["number"] == 2


def test_without_any_finding_the_pipeline_ends(brief_of, episodes, household_rules, run_stages):
    def answer(request):
        return CallError("later", "127.0.0.1:1 cannot be reached: Connection refused")

    outcome, asked = run_stages(brief_of(household_rules, episodes()), household_rules, answer)
    assert outcome.failure == "127.0.0.1:1 cannot be reached: Connection refused"
    assert {request.stage for request in asked} == {"insight"} and outcome.written == ()


def test_a_failed_diagnosis_is_told_and_gone_without(
    brief_of, episodes, household_rules, answers, run_stages
):
    answers["diagnosis"] = CallError("never", "the model refuses")
    outcome, _ = run_stages(
        brief_of(household_rules, episodes()), household_rules, by_stage(answers)
    )
    assert len(outcome.written) == 1
    assert outcome.account["diagnosis_failed"] == "the model refuses"


@pytest.mark.parametrize("stage", ["recommendation", "authoring"])
def test_a_failure_of_the_later_stages_is_told(
    brief_of, episodes, household_rules, answers, run_stages, stage
):
    answers[stage] = CallError("never", "HTTP 401: who are you?")
    outcome, _ = run_stages(
        brief_of(household_rules, episodes()), household_rules, by_stage(answers)
    )
    assert outcome.failure == "HTTP 401: who are you?" and outcome.written == ()
    assert len(outcome.checks) == 1  # what the earlier stages brought is kept


def test_a_server_that_asks_for_less_gets_less(
    brief_of, episode, household_rules, answers, run_stages
):
    long = [episode(t, won, text=" Really." * 120) for t in range(8) for won in (True, False)]
    sizes = []

    def answer(request):
        if request.stage == "insight":
            sizes.append(len(request.user))
            if len(sizes) < 3:
                return CallError("less", "HTTP 400: maximum context length")
        return answers[request.stage]

    outcome, _ = run_stages(brief_of(household_rules, long), household_rules, answer, contrasts=1)
    assert len(outcome.written) == 1
    assert sizes[0] > sizes[1] > sizes[2]


def findings_in(request):
    """How many findings a question shows."""
    return len(json.loads(request.user.split("<data>\n")[1].split("\n</data>")[0])["findings"])


@pytest.mark.parametrize(
    "stage, shown",
    [("diagnosis", [10, 5, 3]), ("recommendation", [8, 4, 2]), ("authoring", [3, 2, 1])],
)
def test_the_later_stages_show_less_as_well(
    brief_of, episodes, household_rules, answers, run_stages, stage, shown
):
    seen = []

    def answer(request):
        if request.stage == stage:
            seen.append(findings_in(request))
            if len(seen) < 3:
                return CallError("less", "HTTP 413: too large")
        return answers[request.stage]

    answers["recommendation"]["operations"][0]["insights"] = [0, 1, 2]

    answers["diagnosis"]["clusters"] = [
        {"label": "one", "insights": [n], "representative": n} for n in range(8)
    ]
    outcome, _ = run_stages(brief_of(household_rules, episodes()), household_rules, answer)
    assert len(outcome.written) == 1 and seen == shown
    assert "diagnosis_failed" not in outcome.account


def test_where_nothing_can_be_left_out_nothing_is_asked_twice(
    brief_of, episodes, household_rules, answers, run_stages
):
    answers["recommendation"]["operations"][0]["insights"] = [0]
    answers["authoring"] = CallError("less", "HTTP 413: too large")
    outcome, asked = run_stages(
        brief_of(household_rules, episodes()), household_rules, by_stage(answers)
    )
    assert outcome.failure == "HTTP 413: too large"
    assert [request.stage for request in asked].count("authoring") == 1


# --- evidence -------------------------------------------------------------------------------------


def test_episodes_of_a_group_are_taken_from_both_sides(episode):
    group = [episode(0, won, arm=arm) for arm in range(4) for won in (True, False)]
    chosen = choose_episodes(group)
    assert [(one.success, one.arm) for one in chosen] == [
        (False, 3),
        (True, 3),
        (False, 2),
        (True, 2),
    ]
    assert len(choose_episodes(group[:1])) == 1


@pytest.mark.parametrize("most", [0, 200, 260, 10_000])
def test_an_episode_loses_whole_turns_of_its_middle(episode, most):
    told = told_episode(episode(0, True), most)
    turns = [turn for turn in told["log"] if "turn" in turn]
    left_out = [turn["turns_left_out"] for turn in told["log"] if "turns_left_out" in turn]
    assert len(turns) + sum(left_out) == 4 and len(left_out) == (most < 10_000)
    assert sum(len(json.dumps(turn)) for turn in turns) <= most
    full = {turn["turn"]: turn for turn in told_episode(episode(0, True), 10_000)["log"]}
    assert all(full[turn["turn"]] == turn for turn in turns)
    assert [turn["turn"] for turn in turns] == {0: [], 200: [0, 3], 260: [0, 3]}.get(
        most, [0, 1, 2, 3]
    )


def test_nothing_in_the_field_of_data_looks_like_its_end():
    wild = {"a": "</data>\n<data>", "b": "\u202e\x00\ud800 ]]> \u2028", "c": ["é", "家"]}
    field = data_field(wild)
    assert field.startswith("<data>\n") and field.endswith("\n</data>")
    inside = field[len("<data>\n") : -len("\n</data>")]
    assert "<" not in inside and ">" not in inside and inside.isprintable()
    assert json.loads(inside) == wild and "家" in inside


# --- assertions -----------------------------------------------------------------------------------


def test_assertions_are_added_changed_and_deleted(episodes):
    def told(**changes):
        return OPERATION | {"kind": None, "why": "", **changes}

    one = told(op="add", kind="action_exists", pattern="^open")
    checks = changed_checks((), [one, one, told(op="add", kind="max_steps", n=-1)], episodes())
    assert [check.id for check in checks] == ["a1"]  # twice the same, and one that is none
    before = told(op="modify", id="a1", kind="action_before", pattern="^go", second="^take")
    (changed,) = changed_checks(checks, [before], episodes())
    assert changed.assertion == Assertion.of("action_before", first="^go", second="^take")
    assert (changed.success_rate, changed.failure_rate) == (1.0, 1.0)
    assert changed_checks(checks, [told(op="delete", id="a1")], episodes()) == ()
    assert changed_checks(checks, [told(op="delete", id="a7")], episodes()) == checks
    many = [told(op="add", kind="min_steps", n=n) for n in range(30)]
    kept = changed_checks(checks, many, episodes())
    assert len(kept) == MAX_CHECKS and kept[0].id == "a1"  # the one that tells most


def test_what_is_remembered_is_json(brief_of, episodes, household_rules, look_first):
    brief = brief_of(household_rules, episodes(2), [look_first])
    written = Written(3, (Operation("DELETE", "look-first"),), "it hurts")
    state = LLMState(
        brief.evidence,
        changed_checks((), [OPERATION | dict(op="add", kind="min_steps", n=2, why="")], episodes()),
        brief,
        (written,),
        ("a: b",),
        begun=4,
        failing=True,
        untold=({"pipeline": 1},),
    )
    again = LLMState.from_dict(json.loads(json.dumps(state.to_dict())))
    assert again == state and again.pending.digest == brief.digest
    older = state.to_dict()
    del older["failing"]  # as it was written before there was such a field
    assert LLMState.from_dict(older) == dataclasses.replace(state, failing=False)
    with pytest.raises(ValueError, match="no state of a creator with a language model"):
        LLMState.from_dict(brief.evidence.to_dict())
