"""The creator in worlds that tell it no words: made-up ones, the household with its withheld."""

import dataclasses
import functools
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.creators.creator import Library, Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.creators.rules.recommend import CreatorSettings
from reskill_jax.skills.patterns import MAX_PATTERN_LENGTH
from reskill_jax.worlds.household import symbols as household
from reskill_jax.worlds.household.vocabulary import household_vocabulary

SURE = CreatorSettings(exploration=0.0, max_operations=1)
CREATOR = RulesCreator(None, (), 200, settings=SURE)
EMPTY = Library((), {}, {}, 8)


def load_made_up_households():
    """The trajectories that the creator's other tests are about."""
    path = Path(__file__).with_name("test_creator.py")
    spec = importlib.util.spec_from_file_location("made_up_households", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclasses.dataclass(frozen=True)
class Lamp:
    """A lamp on one of five floors, and a button that lights it there.

    `up`, `down`, `press` are the actions; `above`, `below`, `beside` tell where the lamp is.
    """

    goal: str
    up: str
    down: str
    press: str
    above: str
    below: str
    beside: str

    def sees(self, lamp, floor):
        return self.above if lamp > floor else self.below if lamp < floor else self.beside

    def play(self, rng, task, lamp, floor):
        """Whoever plays acts at random, and has eight turns."""
        seen, actions, won = [self.sees(lamp, floor)], [], False
        choices = (self.up, self.down, self.press)
        while len(actions) < 8 and not won:
            actions.append(str(rng.choice(choices, p=(0.4, 0.4, 0.2))))
            floor += {self.up: floor < 4, self.down: -(floor > 0)}.get(actions[-1], 0)
            won = actions[-1] == self.press and floor == lamp
            seen.append(self.sees(lamp, floor))
        possible = (choices,) * len(actions) if int(task) % 2 else ()  # some tell, some do not
        return Episode(task, self.goal, "lamp", 0, won, 0, actions, seen, possible)

    def episodes(self, seed, count):
        rng = np.random.default_rng(seed)
        return [
            self.play(rng, f"{task}", *places)
            for task in range(count // 8)
            for places in [rng.choice(5, 2, replace=False).tolist()]
            for _ in range(8)
        ]


def tool(name, **arguments):
    return json.dumps({"name": name, "arguments": arguments}, sort_keys=True)


ENGLISH = Lamp(
    *("Light the lamp.", "go up", "go down", "press"),
    *("The lamp is above you.", "The lamp is below you.", "The lamp is beside you."),
)
CHINESE = Lamp(*("点亮灯。", "向上", "向下", "按"), *("灯在上面。", "灯在下面。", "灯在这里。"))
TOOLS = dataclasses.replace(
    ENGLISH, up=tool("move", to="up"), down=tool("move", to="down"), press=tool("press")
)
SAID = {  # what is said of each action, and what of the actions that are right at each sight
    ENGLISH: ("go up.", "go down.", "press."),
    CHINESE: ("向上.", "向下.", "按."),
    TOOLS: ("move up.", "move down.", "press."),
}


def is_right(skill, lamp):
    """Whether a skill tells what helps at one sight, and speaks at no other."""
    sights = [
        skill.trigger.kind == "observation_pattern"
        and skill.trigger.fires(turn=1, last_action=lamp.press, observation=seen)
        for seen in (lamp.above, lamp.below, lamp.beside)
    ]
    if sum(sights) != 1:
        return False
    wanted = SAID[lamp][sights.index(True)]
    if not skill.action.startswith("do not "):
        return skill.action == wanted
    forbidden = skill.action.removeprefix("do not ").rstrip(".")
    return not wanted.startswith(forbidden)


def proposals(creator, episodes, seed, *, most):
    """The creator's first proposals; none of them is accepted."""
    memory = creator.observe(creator.init(seed), episodes)
    found = []
    for step in range(0, 40 * most, 20):
        memory, outcome = creator.propose(memory, EMPTY, step=step)
        if isinstance(outcome, Proposal):
            found.append(outcome.bundle.operations[0].skill)
            memory = creator.conclude(memory, outcome.id, False, step=step + 4, reason="")
        if len(found) == most:
            break
    return found


@functools.cache
def proposals_of(lamp):
    """Four of each of six seeds."""
    return [proposals(CREATOR, lamp.episodes(seed, 800), seed, most=4) for seed in range(6)]


@pytest.mark.parametrize("lamp", [ENGLISH, CHINESE, TOOLS], ids=["english", "chinese", "tools"])
def test_finds_what_helps_at_what_is_seen(lamp):
    """From 800 random episodes, in any language: most proposals are right, above all the first."""
    found = proposals_of(lamp)
    right = [[is_right(skill, lamp) for skill in some] for some in found]
    assert sum(some[0] for some in right) >= 5
    assert all(sum(some) >= 2 for some in right)
    assert sum(map(sum, right)) >= 0.7 * sum(map(len, right))
    told = {s.action for some in found for s in some if is_right(s, lamp)}
    assert told >= set(SAID[lamp])  # among them "go up." where the lamp is above


def test_the_skill_of_the_lamp_is_told_in_words():
    found = {skill.action: skill for some in proposals_of(ENGLISH) for skill in some}
    assert found["go up."].name == "go-up-when-above-you"
    assert found["go up."].when_to_use == ('Go up when the latest observation says "above you".')


def test_skills_of_other_scripts_and_of_tools_are_told_without_patterns():
    for lamp in (CHINESE, TOOLS):
        for skill in (skill for some in proposals_of(lamp) for skill in some):
            assert skill.name and "(?" not in skill.when_to_use and "{" not in skill.when_to_use


def test_proposes_the_same_without_the_words_of_the_household():
    """Trigger and action, on the trajectories of the creator's other tests: here all are the same.

    On real episodes of the household (750 of a player with habits, twelve draws of 200, of each
    five proposals in a row) 57 of 60 were.
    """
    made_up = load_made_up_households()
    given_words, none = (
        RulesCreator(vocabulary, household.SYMBOLS, 200, settings=SURE)
        for vocabulary in (household_vocabulary(), None)
    )
    same = []
    for decide in (made_up.open_helps, made_up.look_hurts, made_up.sink_helps_if_clean):
        episodes = made_up.experience(decide, tasks=100)
        told = proposals(given_words, episodes, 0, most=2)
        mined = proposals(none, episodes, 0, most=2)
        same += [
            (a.trigger, a.action) == (b.trigger, b.action) for a, b in zip(told, mined, strict=True)
        ]
    assert len(same) == 6 and sum(same) >= 5


def test_triggers_are_searched_on_the_host_where_no_language_is_given():
    """Each of the two may be missing; the longest patterns still pass."""
    made_up = load_made_up_households()
    episodes = made_up.experience(made_up.open_helps, tasks=100)
    creator = RulesCreator(household_vocabulary(), (), 200, settings=SURE)
    compiled = dataclasses.replace(creator, language=household.SYMBOLS)
    assert proposals(creator, episodes, 0, most=2) == proposals(compiled, episodes, 0, most=2)


def test_free_text_leaves_little_to_propose():
    """No two actions are alike: nothing is found, and that is told."""
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("bcdfgklmnprst"), 6)) for _ in range(3000)]
    episodes = [
        Episode(
            *(f"{i // 2}", "write a poem", "f", 0, i % 2 == 0, 0),
            [" ".join(rng.choice(words, 30)) for _ in range(3)],
            ["Go on."] * 4,
        )
        for i in range(200)
    ]
    memory, outcome = CREATOR.propose(CREATOR.observe(CREATOR.init(0), episodes), EMPTY, step=0)
    assert outcome == Refusal("no contrast is strong enough") and memory.next_attempt > 0


def test_a_skill_stays_readable_when_nobody_does_any_more_what_it_speaks_of():
    memory = CREATOR.observe(CREATOR.init(0), ENGLISH.episodes(0, 800))
    memory, outcome = CREATOR.propose(memory, EMPTY, step=0)
    (skill,) = outcome.version
    memory = CREATOR.conclude(memory, outcome.id, True, step=4, reason="")
    directive = CREATOR.vocabulary_for(memory).directive_of(skill)
    quiet = [
        Episode(f"q{i}", "g", "f", 0, i % 2 == 0, 0, ("wait", "wait"), ("a", "b", "c"))
        for i in range(200)
    ]
    memory = CREATOR.observe(memory, quiet)
    vocabulary = CREATOR.vocabulary_for(memory)
    assert set(vocabulary.verbs) == {"wait", directive.verb}
    assert vocabulary.directive_of(skill) == directive


ANY = st.text(st.characters(), max_size=20)
SAYING = st.sampled_from(["go up", "go down", "press", "", "\x00", "\ud800", "灯在上面", "1"]) | ANY
HOSTILE = CreatorSettings(min_episodes=4, support=2, exploration=0.5, trigger_rate=0.2, cooldown=1)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_said_the_creator_goes_on(data):
    """Lone surrogates, control characters, nothing at all, any script: proposals are valid."""
    few = data.draw(st.lists(SAYING, min_size=1, max_size=4))
    texts = st.sampled_from(few)
    kinds = {
        "tag": "<search>{}</search>",
        "call": "click[{}]",
        "json": '{{"name": "{}"}}',
        "": "{}",
    }
    form = data.draw(st.sampled_from(sorted(kinds.values())))
    creator = RulesCreator(None, (), 200, settings=HOSTILE)
    episodes = []
    for i in range(12):
        actions = [form.format(text) for text in data.draw(st.lists(texts, max_size=4))]
        seen = data.draw(st.lists(texts, min_size=len(actions) + 1, max_size=len(actions) + 1))
        possible = data.draw(st.sampled_from([(), (tuple(few),) * len(actions)]))
        episodes.append(
            Episode(f"{i // 4}{few[0]}", few[0], "f", i % 2, i % 3 == 0, 0, actions, seen, possible)
        )
    memory = creator.observe(creator.init(0), episodes)
    json.dumps(creator.dump(memory), ensure_ascii=False).encode()
    library = EMPTY
    for step in range(0, 60, 20):
        assert creator.propose(memory, library, step=step) == creator.propose(
            creator.load(creator.dump(memory)), library, step=step
        )
        memory, outcome = creator.propose(memory, library, step=step)
        if isinstance(outcome, Proposal):
            for operation in outcome.bundle.operations:
                assert len(operation.skill.trigger.pattern or "") <= MAX_PATTERN_LENGTH
                json.dumps(operation.skill.to_dict(), ensure_ascii=False).encode()
            library = library._replace(skills=outcome.version)
            memory = creator.conclude(memory, outcome.id, True, step=step + 4, reason="")


@pytest.mark.parametrize(
    "text", ["word " * 200_000, "灯" * 10**6, "\ud800\n" * 500_000, "a" * 10**6]
)
def test_megabytes_are_cut_before_they_are_kept(text):
    episodes = [
        Episode(f"{i // 2}", text, "f", 0, i % 2 == 0, 0, (text, "go"), (text,) * 3, ((text,),) * 2)
        for i in range(120)
    ]
    memory = CREATOR.observe(CREATOR.init(0), episodes)
    assert len(json.dumps(CREATOR.dump(memory), ensure_ascii=False)) < 4_000_000
    _, outcome = CREATOR.propose(memory, EMPTY, step=0)
    assert isinstance(outcome, Proposal | Refusal)
