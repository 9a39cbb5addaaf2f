"""The creator on made-up trajectories in which a known behaviour decides, and on pure noise."""

import dataclasses
import json
import time

import numpy as np
import pytest

from reskill_jax.creators.creator import Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.experience import TRAITS
from reskill_jax.creators.rules.propose import propose, propose_retirement
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.creators.rules.state import CreatorState, conclude, init_state, observe
from reskill_jax.skills.dfa import compile_dfa
from reskill_jax.skills.skill import Skill, Trigger, trigger_rate
from reskill_jax.worlds.household import symbols as household
from reskill_jax.worlds.household.vocabulary import encodable, household_vocabulary

VOCABULARY = household_vocabulary()
SURE = CreatorSettings(exploration=0.0)
PLACES = ("cabinet", "drawer", "shelf", "desk", "dresser")
GOALS = ("put a mug in shelf", "put a clean mug in shelf", "clean some mug and put it in desk")


def play(rng, task, goal, decide, *, turns=14, habits=0.5):
    """One episode; `decide` maps (followed, chances) of three behaviours to P(success)."""
    actions, observations = [], [f"Welcome. You see a cabinet 1. Your task is to: {goal}."]
    counts = {"open": [0, 0], "look": [0, 0], "sink": [0, 0]}
    closed = taken = False
    for _ in range(turns):
        place = f"{rng.choice(PLACES)} {rng.integers(1, 4)}"
        choice = rng.random()
        counts["look"][1] += 1
        if closed:
            counts["open"][1] += 1
        if taken:
            counts["sink"][1] += 1
        if closed and choice < habits:
            counts["open"][0] += 1
            actions.append(f"open {place}")
            observations.append(
                f"You open the {place}. The {place} is open. In it, you see a mug 1."
            )
            closed = taken = False
        elif taken and choice < habits:
            counts["sink"][0] += 1
            actions.append("go to sinkbasin 1")
            observations.append("You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing.")
            closed = taken = False
        elif habits <= choice < habits + 0.15:
            counts["look"][0] += 1
            actions.append("look")
            observations.append(f"You are facing the {place}. Next to it, you see nothing.")
            closed = taken = False
        elif habits + 0.15 <= choice < habits + 0.4:
            actions.append(f"take mug 1 from {place}")
            observations.append(f"You pick up the mug 1 from the {place}.")
            closed, taken = False, True
        else:
            actions.append(f"go to {place}")
            closed, taken = bool(rng.random() < 0.6), False
            state = "is closed" if closed else "is open. In it, you see nothing"
            observations.append(f"You arrive at {place}. The {place} {state}.")
    success = bool(rng.random() < decide({k: f / max(n, 1) for k, (f, n) in counts.items()}, goal))
    return Episode(task, goal, "family", 0, success, 0, tuple(actions), tuple(observations))


def experience(decide, *, tasks=90, group=8, seed=0, habits=0.5, arm=0, start=0):
    rng = np.random.default_rng(seed)
    return [
        dataclasses.replace(
            play(rng, f"task-{start + t}", GOALS[t % len(GOALS)], decide, habits=habits), arm=arm
        )
        for t in range(tasks)
        for _ in range(group)
    ]


def open_helps(share, goal):
    return 0.02 + 0.96 * (share["open"] > 0.5)


def look_hurts(share, goal):
    return 0.95 if share["look"] < 0.08 else 0.05


def sink_helps_if_clean(share, goal):
    if "clean" not in goal:
        return 0.5
    return 0.02 + 0.96 * (share["sink"] > 0.5)


def chance(share, goal):
    return 0.5


def compile_trigger(pattern):
    return compile_dfa(pattern, household.SYMBOLS)


def ask(state, skills=(), *, step=10, settings=SURE, **more):
    return propose(
        state,
        skills,
        step=step,
        vocabulary=VOCABULARY,
        compile_trigger=compile_trigger,
        settings=settings,
        **more,
    )


@pytest.fixture(scope="module")
def opened():
    return observe(init_state(0), experience(open_helps))


def test_finds_the_planted_positive_behaviour(opened):
    state, proposal = ask(opened)
    assert isinstance(proposal, Proposal), proposal
    operation = proposal.bundle.operations[0]
    assert operation.operation == "ADD"
    skill = operation.skill
    directive = VOCABULARY.read(skill.action)
    assert directive.verb == "open" and not directive.negative
    # Whatever cue it chose, it fires when the agent stands before something closed.
    assert skill.trigger.fires(
        turn=3,
        last_action="go to cabinet 1",
        observation="You arrive at cabinet 1. The cabinet 1 is closed.",
    )
    assert proposal.version[-len(proposal.bundle.operations) :][0] == skill
    assert proposal.score > 2
    assert state.history[-1].outcome == "pending" and opened.history == ()


def test_finds_the_planted_negative_behaviour():
    state = observe(init_state(0), experience(look_hurts, seed=1))
    _, proposal = ask(state)
    assert isinstance(proposal, Proposal), proposal
    assert VOCABULARY.read(proposal.bundle.operations[0].skill.action).deed == ("look", None, True)


def test_finds_a_behaviour_that_helps_only_some_tasks():
    state = observe(init_state(0), experience(sink_helps_if_clean, seed=2, tasks=150))
    _, proposal = ask(state)
    assert isinstance(proposal, Proposal), proposal
    skill = proposal.bundle.operations[0].skill
    directive = VOCABULARY.read(skill.action)
    assert (directive.verb, directive.noun, directive.negative) == ("go to", "sinkbasin", False)
    assert skill.trigger.fires(
        turn=3,
        last_action="take mug 1 from desk 1",
        observation="You pick up the mug 1 from the desk 1.",
    )


def test_proposals_pass_the_gate_on_noise():
    proposed = 0
    for seed in range(6):
        state = observe(init_state(seed), experience(chance, seed=seed, tasks=60))
        state, outcome = ask(state, settings=CreatorSettings(exploration=0.5))
        if isinstance(outcome, Refusal):
            assert outcome.reason
            continue
        proposed += 1
        assert 1 <= len(outcome.bundle.operations) <= 3
        for operation in outcome.bundle.operations:
            skill = operation.skill
            episodes = [
                (e.actions, e.observations)
                for e in state.reservoir.episodes
                if skill.trigger.applies_to_task(e.goal)
            ]
            assert trigger_rate(skill.trigger, episodes) >= 0.5
            assert encodable(skill.action) and skill.content_length <= 500
            if skill.trigger.pattern:
                compile_trigger(skill.trigger.pattern)
    assert proposed > 0


def test_is_quick_and_deterministic(opened):
    start = time.process_time()
    first, one = ask(opened)
    assert time.process_time() - start < 1.5  # seconds, on a busy core
    second, two = ask(opened)
    assert one == two and first == second


def test_state_survives_json_and_continues_identically(opened):
    settings = CreatorSettings(exploration=0.5)
    state, outcome = ask(opened, settings=settings)
    state = conclude(state, outcome.id, "rejected", step=15, reason="0.4 < 0.5")
    again = CreatorState.from_json(state.to_json())
    assert again == state
    assert json.loads(again.to_json()) == json.loads(state.to_json())
    assert again.generator().random() == state.generator().random()
    assert ask(again, step=20, settings=settings) == ask(state, step=20, settings=settings)
    with pytest.raises(ValueError, match="format"):
        CreatorState.from_dict({**state.to_dict(), "format": 0})


def under_test(*proposals):
    """As `lifecycle.under_test` tells it."""
    return {o.name: o.skill for one in proposals for o in one.bundle.operations}


def names_of(proposal):
    operations = proposal.bundle.operations
    return {o.name for o in operations} | {o.skill.name for o in operations if o.skill}


def all_versions(skills, proposals):
    """The bank with every choice of the proposals; each must apply to it."""
    found = []
    for choice in range(2 ** len(proposals)):
        version = skills
        for k, one in enumerate(proposals):
            version = one.bundle.apply(version) if choice >> k & 1 else version
        found.append(version)
    return found


@pytest.mark.parametrize("exploration", [0.0, 1.0], ids=["sure", "blind"])
def test_proposals_leave_what_others_test_alone(opened, exploration):
    """Also the skill that another proposal gives a new name, and its old name."""
    vague = Skill("open-always", "w", "open.", Trigger("general"))
    idle = Skill("idle", "w", "slice apple.", Trigger("beginning"))
    settings = dataclasses.replace(SURE, exploration=exploration, max_operations=1, cooldown=1)
    for seed in range(2):
        state = dataclasses.replace(opened, random=dict(np.random.PCG64(seed).state))
        state, first = ask(state, (vague, idle), settings=SURE)  # makes the vague one narrower
        assert names_of(first) > {"open-always"} and len(first.bundle.operations) == 1
        pending = [first]
        for _ in range(4):
            tested = under_test(*pending)
            step = 10 + state.next_attempt
            state, outcome = ask(
                state, (vague, idle), step=step, settings=settings, under_test=tested
            )
            if isinstance(outcome, Refusal):
                continue
            assert not any(names_of(outcome) & names_of(one) for one in pending)
            pending.append(outcome)
        assert len(pending) > 2
        every = all_versions((vague, idle), pending)
        assert max(map(len, every)) == len(every[-1]) <= 8
        for version in every:
            assert len({s.name for s in version}) == len(version)


def test_what_is_under_test_is_not_proposed_again(opened):
    """It counts as a part of the bank, and so does its room."""
    _, first = ask(opened)
    (added,) = (o.skill for o in first.bundle.operations[:1])
    more = dataclasses.replace(SURE, max_operations=1)
    _, second = ask(opened, under_test=under_test(first), settings=more)
    assert isinstance(second, Proposal)
    key = (added.trigger, added.action)
    assert all((o.skill.trigger, o.skill.action) != key for o in second.bundle.operations)
    # A proposal under test takes the last slot: nothing is left to exchange it for.
    tested = {added.name: added}
    _, third = ask(opened, under_test=tested, capacity=1, settings=more)
    assert isinstance(third, Refusal)
    # A skill that may be taken away is no room yet, nor may another proposal change it.
    bad = Skill("never-open", "w", "do not open.", Trigger("observation_pattern", "is closed"))
    _, alone = ask(opened, (bad,), capacity=1)
    assert "never-open" in names_of(alone)
    _, fourth = ask(opened, (bad,), under_test={"never-open": None}, capacity=1)
    assert isinstance(fourth, Refusal)
    _, fifth = ask(opened, (bad,), under_test={"never-open": None}, settings=more)
    assert isinstance(fifth, Proposal) and "never-open" not in names_of(fifth)


def test_what_contradicts_a_proposal_under_test_waits(opened):
    """Two different actions at the same moment are not tried at once."""
    _, first = ask(opened)
    (operation,) = first.bundle.operations[:1]
    wanted = operation.skill
    rival = dataclasses.replace(wanted, name="rival", action="look.")
    tested = {"rival": rival}
    one = dataclasses.replace(SURE, max_operations=1, contradictions=False)
    allowed = dataclasses.replace(one, contradictions=True)
    _, beside = ask(opened, under_test=tested, settings=allowed)
    assert VOCABULARY.read(beside.bundle.operations[0].skill.action).verb == "open"
    _, other = ask(opened, under_test=tested, settings=one)
    for operation in other.bundle.operations if isinstance(other, Proposal) else ():
        directive = VOCABULARY.directive_of(operation.skill)
        assert directive.negative or operation.skill.trigger != rival.trigger
    # In the bank it is no obstacle: the trial of the new one is beside it.
    _, after = ask(opened, (rival,), settings=one)
    assert VOCABULARY.read(after.bundle.operations[0].skill.action).verb == "open"


def test_trials_teach_what_to_propose(opened):
    """After rejections of its kind a contrast is not proposed, however strong it is."""
    settings = dataclasses.replace(SURE, experience="own", least_chance=0.3, max_operations=1)
    state, first = ask(opened, settings=settings)
    assert isinstance(first, Proposal) and "chance of acceptance 0.50" in first.reason
    record = state.history[-1]
    assert len(record.traits) == len(TRAITS) and record.traits[0] == 1.0
    state = conclude(state, first.id, "rejected", step=12, reason="worse")
    # As often rejected in other words: nothing of the kind is left to propose.
    taught = state.history[-1]
    many = [dataclasses.replace(taught, id=100 + i, keys=(f"{i}",), deeds=()) for i in range(12)]
    weary = dataclasses.replace(state, history=(*state.history, *many))
    after, outcome = ask(weary, step=20, settings=settings)
    assert outcome == Refusal("earlier trials speak for none of the contrasts")
    assert (after.next_attempt, after.refusals) == (22, 0)  # this pause does not grow
    after, outcome = ask(after, step=22, settings=settings)
    assert isinstance(outcome, Refusal) and after.next_attempt == 24
    # Who does not ask experience still proposes, and may note what there was to learn.
    for kind, noted in (("off", 0), ("watch", len(TRAITS))):
        others = dataclasses.replace(settings, experience=kind)
        after, outcome = ask(weary, step=20, settings=others)
        assert isinstance(outcome, Proposal) and "chance" not in outcome.reason
        assert len(after.history[-1].traits) == noted
    # And after as many that were accepted the chance is high.
    won = [dataclasses.replace(one, outcome="accepted") for one in many]
    glad = dataclasses.replace(opened, history=tuple(won))
    _, outcome = ask(glad, settings=settings)
    assert float(outcome.reason.rpartition(" ")[2]) > 0.7


def test_waits_for_evidence():
    state = observe(init_state(0), experience(open_helps, tasks=10))
    _, outcome = ask(state)
    assert isinstance(outcome, Refusal) and "of 100 episodes" in outcome.reason
    lost = [
        dataclasses.replace(e, success=False, task=f"{i}")
        for i, e in enumerate(experience(chance, tasks=20))
    ]
    state, outcome = ask(observe(init_state(0), lost), step=10)
    assert isinstance(outcome, Refusal) and "nothing to contrast" in outcome.reason
    state, outcome = ask(state, step=11)
    assert "pausing until step 12" in outcome.reason
    state, outcome = ask(state, step=12)
    assert state.next_attempt == 16  # the pause doubles


def test_a_rejected_bundle_is_not_repeated_without_new_evidence(opened):
    state, first = ask(opened)
    state = conclude(state, first.id, "rejected", step=15)
    later, second = ask(state, step=15)
    if isinstance(second, Proposal):
        assert set(later.history[-1].keys) != set(state.history[-1].keys)
    # Many new episodes later it may be tried again.
    state = dataclasses.replace(
        state, reservoir=dataclasses.replace(state.reservoir, seen=state.reservoir.seen + 5000)
    )
    undiscounted = dataclasses.replace(SURE, rejected_discount=1.0, related_discount=1.0)
    again, third = ask(state, step=40, settings=undiscounted)
    assert isinstance(third, Proposal) and again.history[-1].keys == first_keys(opened)


def first_keys(state):
    return ask(state)[0].history[-1].keys


def test_what_the_bank_has_is_not_added_again(opened):
    _, first = ask(opened)
    _, second = ask(opened, first.version)
    assert isinstance(second, Refusal) or second.version != first.version
    if isinstance(second, Proposal):
        assert len({skill.action + str(skill.trigger) for skill in second.version}) == len(
            second.version
        )


def test_a_harmful_skill_is_deleted_or_changed(opened):
    bad = Skill("never-open", "w", "do not open.", Trigger("observation_pattern", "is closed"))
    _, proposal = ask(opened, (bad,))
    assert isinstance(proposal, Proposal)
    assert "never-open" not in {skill.name for skill in proposal.version}


def test_a_full_bank_exchanges_its_weakest_skill(opened):
    full = tuple(
        Skill(f"idle-{i}", "w", f"slice {noun}.", Trigger("beginning"))
        for i, noun in enumerate(("apple", "bread"))
    )
    _, proposal = ask(opened, full, capacity=2)
    assert isinstance(proposal, Proposal)
    assert len(proposal.version) == 2
    assert {o.operation for o in proposal.bundle.operations} == {"ADD", "DELETE"}


def test_a_skill_the_world_cannot_run_is_not_proposed(opened):
    def refuse(pattern):
        from reskill_jax.skills.patterns import TriggerError

        raise TriggerError("too large")

    _, outcome = propose(
        opened, (), step=10, vocabulary=VOCABULARY, compile_trigger=refuse, settings=SURE
    )
    if isinstance(outcome, Refusal):
        assert outcome.reason.count("too large") == 3
    else:
        assert all(o.skill.trigger.pattern is None for o in outcome.bundle.operations)
    mute = dataclasses.replace(VOCABULARY, encodable=lambda text: False)
    state, outcome = propose(opened, (), step=10, vocabulary=mute, settings=SURE)
    assert isinstance(outcome, Refusal) and outcome.reason.count("cannot read") == 3
    assert state.next_attempt > 10


def test_assertions_follow_the_evidence(opened):
    state, _ = ask(opened)
    assert 0 < len(state.assertions) <= 15
    assert any("open" in str(one.assertion) and one.difference > 0.1 for one in state.assertions)
    # With outcomes that no longer depend on it, they go or change.
    state = observe(
        dataclasses.replace(state, next_attempt=0), experience(chance, seed=9, start=1000)
    )
    later, _ = ask(state, step=30)
    assert all(one.difference >= 0.02 for one in later.assertions)
    assert later.assertions != state.assertions


def test_retirement(opened):
    good = Skill("open-it", "w", "open.", Trigger("observation_pattern", "is closed"))
    idle = Skill("idle", "w", "slice apple.", Trigger("general"))
    more = dict(vocabulary=VOCABULARY, settings=SURE)
    state, outcome = propose_retirement(
        opened, (good, idle), step=30, served={"open-it": 5, "idle": 19}, **more
    )
    assert isinstance(outcome, Refusal)
    served = {"open-it": 50, "idle": 25}
    state, outcome = propose_retirement(opened, (good, idle), step=60, served=served, **more)
    assert outcome.kind == "retirement" and outcome.version == (good,)
    state = conclude(state, outcome.id, "rejected", step=66)
    state, outcome = propose_retirement(state, (good, idle), step=70, served=served, **more)
    assert outcome.version == (idle,)  # the other one has just been kept
    state = conclude(state, outcome.id, "withdrawn", step=71)
    state, outcome = propose_retirement(state, (good, idle), step=80, served=served, **more)
    assert isinstance(outcome, Refusal)


def test_conclude_checks_its_arguments(opened):
    state, proposal = ask(opened)
    with pytest.raises(ValueError, match="unknown outcome"):
        conclude(state, proposal.id, "maybe", step=1)
    done = conclude(state, proposal.id, "accepted", step=20, reason="0.6 > 0.5")
    assert done.history[-1].outcome == "accepted" and done.history[-1].decided == 20
    with pytest.raises(ValueError, match="no pending proposal"):
        conclude(done, proposal.id, "accepted", step=20)


def test_a_vague_skill_gets_a_narrower_trigger(opened):
    vague = Skill("open-always", "w", "open.", Trigger("general"))
    state, proposal = ask(opened, (vague,))
    operation = proposal.bundle.operations[0]
    assert (operation.operation, operation.name) == ("MODIFY", "open-always")
    assert operation.skill.trigger == Trigger("observation_pattern", "is closed")
    assert operation.skill.action == "open."
    # The narrow one is not made vague again.
    narrow = conclude(state, proposal.id, "accepted", step=20)
    _, later = ask(narrow, proposal.version, step=20)
    actions = [skill.action for skill in getattr(later, "version", proposal.version)]
    assert actions.count("open.") == 1
    kept = next(s for s in getattr(later, "version", proposal.version) if s.action == "open.")
    assert kept.trigger == operation.skill.trigger
