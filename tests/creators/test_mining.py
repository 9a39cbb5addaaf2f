"""The words of actions, mined: against the household's, in other forms, of hostile texts."""

import gzip
import json
import random
import string
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.bounds import bounded
from reskill_jax.creators.rules.deeds import (
    deed_pattern,
    moment_pattern,
    told_pattern,
    verb_pattern,
)
from reskill_jax.creators.rules.mining import (
    MOST_NOUNS,
    MOST_TURNS,
    MOST_VERBS,
    mine_vocabulary,
    remembering,
)
from reskill_jax.creators.rules.phrases import where
from reskill_jax.creators.rules.speech import MOST_TEXT, read_action
from reskill_jax.skills.patterns import MAX_PATTERN_LENGTH, search
from reskill_jax.worlds.household.vocabulary import household_vocabulary
from reskill_jax.worlds.vocabulary import Deed, Directive

GOLDEN = Path(__file__).parents[1] / "golden" / "alfworld_transcripts.json.gz"
HOUSEHOLD = household_vocabulary()
ANY = st.text(st.characters(), max_size=12) | st.text(
    st.characters(categories=["Cs", "Cc", "Lo", "Zs"]), max_size=12
)
FORMED = ANY.flatmap(
    lambda text: st.sampled_from(
        [
            text,
            f"go {text}",
            f"<search>{text}</search>",
            f"<{text}>",
            f"click[{text}]",
            json.dumps({"name": text, "arguments": {"x": text}}),
            f'{{"name": "{text}", "arguments": ["{text}"]}}',
            '{"name":' * 5000,
        ]
    )
)


def episode(*actions, number=0, possible=(), goal="do it"):
    seen = ("start",) + ("Nothing.",) * len(actions)
    return Episode(f"{number}", goal, "f", 0, True, 0, actions, seen, possible)


def repeated(*actions, times=3):
    """Each action in as many episodes."""
    return [episode(*actions, number=i) for i in range(times)]


@pytest.fixture(scope="module")
def recorded():
    with gzip.open(GOLDEN, "rt") as file:
        games = json.load(file)
    return [
        Episode(
            *(game["game_id"], game["task"], game["task_type"], 0, game["steps"][-1]["won"], 0),
            tuple(step["command"] for step in game["steps"]),
            (game["intro"], *(step["observation"] for step in game["steps"])),
        )
        for game in games
        if game["steps"]
    ]


def test_the_household_is_found_in_recorded_episodes(recorded):
    """What its vocabulary would have told, from 48 games of experts and of random commands."""
    mined = mine_vocabulary(recorded)
    verbs, nouns = Counter(), Counter()
    for one in recorded:
        deeds = [HOUSEHOLD.abstract(action) for action in one.actions]
        verbs.update({deed.verb for deed in deeds if deed.verb is not None})
        nouns.update({noun for deed in deeds for noun in deed.nouns})
    right = set(mined.verbs) & set(HOUSEHOLD.verbs)
    assert right == {verb for verb, often in verbs.items() if often >= 3}  # recall 1
    assert right == set(HOUSEHOLD.verbs)
    assert len(right) >= 0.9 * len(mined.verbs)  # "xyzzy" was tried often
    things = mined.nouns & HOUSEHOLD.nouns
    assert things == {noun for noun, often in nouns.items() if often >= 2}
    assert len(things) >= 0.95 * len(mined.nouns)
    assert len(things) >= 0.75 * len(nouns)  # of all, those of a single episode too
    actions = {action for one in recorded for action in one.actions}
    alike = sum(mined.abstract(action) == HOUSEHOLD.abstract(action) for action in actions)
    assert alike >= 0.85 * len(actions)
    assert set(mined.task_words) <= set(HOUSEHOLD.task_words)
    assert len(mined.task_words) >= 5


@pytest.mark.parametrize(
    ("actions", "expected"),
    [
        (("go to desk 1", "go to mug 2"), {"go to"}),
        (("go up", "go down", "press"), {"go up", "go down", "press"}),
        (("pick up pen", "pick up pan", "put down pan"), {"pick up", "put down"}),
        (("get out of car", "get out of bus"), {"get out of"}),
        (("go north", "go south", "go up"), {"go", "go up"}),
        (("look", "look at map", "look around"), {"look", "look at", "look around"}),
        (("say it", "ask who", "eat fish", "wait 2"), {"say it", "ask who", "eat", "wait"}),
        (("Look.", "OPEN the box!"), {"look", "open"}),
        (("open fridge with key", "open box with key"), {"open"}),
        (("click[Buy Now]", "search[red shoes]"), {"click", "search"}),
        (('goto(3, "kitchen")', "stop()"), {"goto", "stop"}),
        (("<search>rain in may</search>", "<answer>no</answer>"), {"search", "answer"}),
        (('{"name": "getWeather", "arguments": {"city": "Rome"}}',), {"getWeather"}),
        (('[{"type": "function", "function": {"name": "run", "arguments": "{}"}}]',), {"run"}),
        (('<tool_call>{"name": "run", "arguments": {}}</tool_call>',), {"run"}),
        (("打开门", "关上门。"), {"打开门", "关上门"}),
        (("открыть дверь", "открыть окно"), {"открыть"}),
        (("1", "2", "+", "a"), {"1", "2", "+", "a"}),
        (("i give up", "the end"), {"i give up", "the end"}),
        (("", " ", "\x00", "\ud800"), {"?"}),
        (("{", "[]", "<>", "<a", "()"), {"{", "[]", "<>", "a", "()"}),
    ],
)
def test_verbs_of_actions(actions, expected):
    assert set(mine_vocabulary(repeated(*actions)).verbs) == expected


@pytest.mark.parametrize(
    ("action", "deed"),
    [
        ("go to the desk 1", Deed("go to", ("desk",))),
        ("take mug_12 from desk 1", Deed("take", ("mug", "desk"))),
        ("take the old sea-chart", Deed("take", ("old", "sea-chart"))),
        ("take", Deed("take", ())),
        ("takes mug", Deed(None, ())),
        ("", Deed(None, ())),
        ('{"arguments": {"to": "up", "by": 3}, "name": "move"}', Deed("move", ("up",))),
        ('{"arguments": {"note": "a long note of many words"}, "name": "move"}', Deed("move", ())),
        ("click[Buy Now]", Deed("click", ("buy", "now"))),
        ("<ask>who is the king</ask>", Deed("ask", ("king",))),
        ("открыть дверь 2", Deed("открыть", ("дверь",))),
        ("1", Deed("1", ())),
        ("1 2", Deed(None, ())),
    ],
)
def test_deeds(action, deed):
    known = (
        "go to the desk 1",
        "go to mug",
        "take mug_12 from desk 1",
        "take the old sea-chart",
        '{"arguments": {"to": "up"}, "name": "move"}',
        "click[Buy Now]",
        "<ask>who is the king</ask>",
        "открыть дверь",
        "1",
    )
    assert mine_vocabulary(repeated(*known)).abstract(action) == deed


def test_the_most_frequent_are_kept_and_the_alphabet_decides_among_equals():
    letters = string.ascii_lowercase
    words = [f"q{a}{b}" for a in letters for b in letters]
    common = [episode("zap zebra", "zap yak", number=i) for i in range(9)]
    many = repeated(*(f"{verb} thing" for verb in reversed(words[:MOST_TURNS])))
    found = mine_vocabulary([*many, *common])
    assert found.verbs == ("zap", *words[: MOST_VERBS - 1])
    things = [repeated(*(f"zap {n}" for n in words[i : i + 100])) for i in range(0, 676, 100)]
    found = mine_vocabulary([one for some in (*things, common) for one in some])
    assert found.nouns == {"zebra", "yak", *words[: MOST_NOUNS - 2]}


def test_what_is_rare_or_prose_is_left_out():
    assert mine_vocabulary([]).verbs == ()
    assert mine_vocabulary(repeated("jump", times=2)).verbs == ()
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(4000)]
    prose = [episode(*(" ".join(rng.choices(words, k=40)),) * 3, number=i) for i in range(50)]
    lines = [episode("first do this\nthen that", number=i) for i in range(9)]
    found = mine_vocabulary(prose + lines)
    assert found.verbs == () and found.nouns == frozenset()
    assert found.abstract(prose[0].actions[0]) == Deed(None, ())


def test_an_episode_that_repeats_itself_counts_once():
    found = mine_vocabulary([episode(*("dance",) * 50), *repeated("sing")])
    assert found.verbs == ("sing",)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_order_of_episodes_does_not_matter(data):
    names = st.sampled_from(
        ["go up", "go to desk 1", "go to mug_2", "1", "look at", "打开", "a[b c]"]
    )
    some = data.draw(st.lists(st.lists(names | FORMED, max_size=5), max_size=9))
    episodes = [episode(*actions, number=i) for i, actions in enumerate(some)]
    mixed = data.draw(st.permutations(episodes))
    assert mine_vocabulary(mixed) == mine_vocabulary(episodes)


def test_directives_are_said_and_read():
    known = ("go to desk", "go north", "go up", "do not", "打开", "click[Buy Now]", "<ask>a</ask>")
    vocabulary = mine_vocabulary(repeated(*known))
    for verb in vocabulary.verbs:
        for noun in (None, *sorted(vocabulary.nouns)):
            for negative in (False, True):
                one = Directive(verb, noun, negative)
                assert vocabulary.read(vocabulary.say(one)) == one
    assert vocabulary.say(Directive("go to", "desk", True)) == "do not go to desk."
    assert vocabulary.encodable("anything")


@pytest.mark.parametrize(
    "actions",
    [
        (
            "go up",
            "go down",
            "go to desk 1",
            "go to desk_2",
            "take mug 1 from desk 1",
            "take pen 2",
        ),
        ("press", "press lamp", "presser"),
        ("打开门", "关上门", "打开窗"),
        ("открыть дверь 1", "открыть окно", "закрыть дверь"),
        ("click[Buy Now]", "click[back]", "search[mug]", "click"),
        ("<search>mug</search>", "<answer>mug</answer>", "<searches>mug</searches>"),
        tuple(
            json.dumps({"arguments": {"to": to}, "name": name}, sort_keys=True)
            for name in ("move", "move_all")
            for to in ("up", "desk_1", "a.b")
        ),
        ('{"name":"move","arguments":["up"]}', '{"name" : "move", "arguments": ["down"]}'),
        ("1", "11", "1 1", "+", "++"),
    ],
)
def test_patterns_find_what_the_words_tell(actions):
    """Triggers and assertions search for patterns where the evidence counts deeds."""
    vocabulary = mine_vocabulary(repeated(*actions))
    deeds = {action: vocabulary.abstract(action) for action in actions}
    assert any(deed.verb for deed in deeds.values())
    for verb, nouns in ((deed.verb, deed.nouns) for deed in deeds.values() if deed.verb):
        longer = [v for v in vocabulary.verbs if v.startswith(verb + " ")]
        longer = [] if vocabulary.forms[verb] == "whole" else longer
        pattern = verb_pattern(verb, vocabulary)
        assert told_pattern(pattern, vocabulary) == verb
        for action, deed in deeds.items():
            expected = deed.verb == verb or deed.verb in longer
            if deed.verb is not None:
                assert search(pattern, action) is expected, (pattern, action)
        for noun in nouns:
            pattern = deed_pattern(verb, noun, vocabulary)
            for action, deed in deeds.items():
                if deed.verb is not None and deed.verb not in longer:
                    expected = deed.verb == verb and noun in deed.nouns
                    assert search(pattern, action) is expected, (pattern, action)
    for action, deed in deeds.items():
        if deed.verb is not None and deed.nouns:
            pattern = moment_pattern(action, deed.verb, deed.nouns[0], vocabulary)
            assert search(pattern, action)
            assert told_pattern(pattern, vocabulary) == f"{deed.verb} {deed.nouns[0]}"


def test_patterns_are_never_too_long():
    name = "_" * 32
    noun = "a-" * 11 + "bc"
    calls = [json.dumps({"arguments": {"x": noun}, "name": name}), json.dumps({"name": name})]
    for actions in (calls, [f"{'q' * 31} {noun}2"]):
        vocabulary = mine_vocabulary(repeated(*actions))
        (verb,) = vocabulary.verbs
        assert vocabulary.nouns == {noun}
        for action in actions:
            for pattern in (
                deed_pattern(verb, noun, vocabulary),
                moment_pattern(action, verb, noun, vocabulary),
            ):
                assert len(pattern) <= MAX_PATTERN_LENGTH
        assert search(deed_pattern(verb, noun, vocabulary), actions[0])


def test_patterns_occur_together_as_one_by_one():
    patterns = ["above you", r"\d+ is", "^go\\b", "灯在", r"^x[^\pL\pN]*$", "straße"]
    texts = ["ABOVE YOU", "The 3 is red", "go", "gone", "灯在上面", "X!", "", "STRAßE", "\x00"]
    found = where(patterns, texts)
    assert found.tolist() == [[search(p, text) for text in texts] for p in patterns]
    assert where([], texts).shape == (0, len(texts))


def test_what_is_possible_may_be_verbs_or_whole_actions():
    vocabulary = mine_vocabulary(repeated("go to desk", "look", "click[a]"))
    assert vocabulary.possible(("go to", "look")) == {"go to", "look"}
    assert vocabulary.possible(("go to desk 1", "click[Buy Now]", "fly")) == {"go to", "click"}
    assert vocabulary.possible(("fly",)) == frozenset()
    assert vocabulary.possible(()) is None  # the world did not tell


def test_words_of_earlier_skills_stay_known():
    vocabulary = mine_vocabulary(repeated("look"))
    more = remembering(vocabulary, [("press", "knob", True), ("look", None, False)])
    assert more.verbs == ("look", "press") and more.nouns == {"knob"}
    assert more.read("do not press knob.") == Directive("press", "knob", True)
    assert remembering(vocabulary, [("look", None, True)]) is vocabulary


def test_task_words_tell_tasks_apart():
    goals = ("put a hot mug in desk", "put a cool mug in desk", "le café chaud")
    episodes = [
        Episode(f"{i}", goals[i % 3], "f", 0, True, 0, ("take mug",), ("", "")) for i in range(30)
    ]
    found = mine_vocabulary(episodes)
    # No thing, no article, no fragment ("caf"), in the order of frequency.
    assert found.task_words == ("desk", "put", "chaud", "cool", "hot", "le")


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(FORMED, max_size=6), min_size=3, max_size=6))
def test_any_text_is_mined(some):
    episodes = [
        Episode(
            "t", (actions or [""])[0], "f", 0, True, 0, actions, ["\ud800"] * (len(actions) + 1)
        )
        for actions in some
    ]
    for found in (mine_vocabulary(episodes), mine_vocabulary([*episodes, *episodes, *episodes])):
        assert len(found.verbs) <= MOST_VERBS and len(found.nouns) <= MOST_NOUNS
        for text in (*found.verbs, *found.nouns, *found.task_words):
            assert text.strip() == text != "" and len(text) <= 32
            text.encode()
        for one in episodes:
            for action in one.actions:
                deed = found.abstract(action)
                assert deed.verb is None or deed.verb in found.verbs
                assert found.nouns.issuperset(deed.nouns)
        for verb in found.verbs:
            search(verb_pattern(verb, found), "text")


def test_megabytes_are_read_at_their_beginning():
    long = [
        "go to " + "x" * 10**6,
        "a " * 10**6,
        "<search>" + "mug " * 10**6,
        "[" * 10**6,
        json.dumps({"name": "write", "arguments": {"text": "mug " * 10**6, "to": "file"}}),
        "\ud800" * 10**6,
        "灯" * 10**6,
    ]
    found = mine_vocabulary([episode(*long, number=i) for i in range(200)])
    assert set(found.verbs) == {"search", "go to"}
    kept = bounded(episode(*long))
    assert all(len(action) <= MOST_TEXT for action in kept.actions)
    # A call that is too long keeps its name and its short arguments.
    assert read_action(kept.actions[4])[:3] == ("tool", "write", ("file",))


def test_episodes_are_bounded():
    plain = episode("go to desk 1", "look", possible=(("go to", "look"),) * 2)
    assert bounded(plain) is plain
    turns = 1000
    texts = ["x" * 9000 + "end"] + ["y" * 300] * turns
    long = Episode(
        *("\ud800", "g" * 9000 + "\ud800", "f\udfff", 0, True, 0),
        ("look",) * turns,
        texts,
        (("go to desk 1", "go to desk 1", "go to desk 2 \ud800 now"), ()) * (turns // 2),
        (("skill",),) * turns,
    )
    kept = bounded(long)
    assert len(kept.actions) == len(kept.possible) == len(kept.skills_fired) == MOST_TURNS
    assert sum(map(len, kept.observations)) <= 24_000
    assert kept.observations[0].endswith("end") and "[...]" in kept.observations[0]
    assert kept.possible[:2] == (("go to desk",), ())
    json.dumps(kept.to_dict(), ensure_ascii=False).encode()
    assert bounded(kept) is kept
    silent = bounded(Episode("t", "g", "f", 0, True, 0, ("a",), ("", ""), ((),)))
    assert silent.possible == ()


@settings(max_examples=60, deadline=None)
@given(FORMED, FORMED, st.lists(FORMED, max_size=4))
def test_any_episode_is_bounded_and_read_alike(goal, seen, possible):
    one = Episode("t", goal, "f", 0, True, 0, (goal, seen), (seen,) * 3, (possible, possible))
    kept = bounded(one)
    json.dumps(kept.to_dict(), ensure_ascii=False).encode()
    assert [read_action(a) for a in kept.actions] == [read_action(a) for a in one.actions]
    vocabulary = mine_vocabulary([one, one, one, episode(*possible), episode(*possible)] * 2)
    for before, after in zip(one.possible, kept.possible, strict=False):
        told = vocabulary.possible(before) or frozenset()
        assert told == (vocabulary.possible(after) or frozenset())
