"""Problem files in and out: nothing is lost, and every malformed file has one clear complaint."""

import functools
import gzip
import json
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from reskill_jax.worlds.household import generator, pddl
from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.text_game import TextGame
from reskill_jax.worlds.household.types import MAX_SHARED, TASK_LENGTH

GOLDEN = Path(__file__).resolve().parents[2] / "golden"

FACTS = (
    "receptacleType Desk_bar_1 DeskType",
    "receptacleAtLocation Desk_bar_1 l1",
    "receptacleType Drawer_bar_1 DrawerType",
    "receptacleAtLocation Drawer_bar_1 l1",
    "openable Drawer_bar_1",
    "receptacleType Drawer_bar_2 DrawerType",
    "receptacleAtLocation Drawer_bar_2 l2",
    "objectType Pen_bar_1 PenType",
    "inReceptacle Pen_bar_1 Desk_bar_1",
    "objectAtLocation Pen_bar_1 l1",
    "pickupable Pen_bar_1",
    "canContain DrawerType PenType",
    "atLocation agent1 l0",
)
GOAL = """(and (exists (?r - receptacle) (exists (?o - object)
  (and (inReceptacle ?o ?r) (objectType ?o PenType) (receptacleType ?r DrawerType)))))"""


def problem(*, add=(), drop=(), goal=GOAL, objects="Desk_bar_1 - receptacle Pen - object"):
    facts = [fact for fact in FACTS if fact not in drop] + list(add)
    init = "\n".join(f"({fact})" for fact in facts)
    return (
        f"(define (problem p)\n(:domain alfred)\n(:objects {objects})\n"
        f"(:init\n{init}\n)\n(:goal {goal})\n)"
    )


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def names(game, kind):
    stems, numbers = getattr(game, f"{kind}_stem"), getattr(game, f"{kind}_number")
    return [sy.text(pair) for pair in zip(stems, numbers, strict=True) if pair[0]]


def test_arrays_of_a_small_problem():
    parsed = pddl.parse(problem(), receptacles=5, objects=3)
    game = parsed.game
    assert parsed.extra == ()
    assert parsed.task == "put a pen in drawer"  # made from the goal
    assert names(game, "recep") == ["desk 1", "drawer 2", "drawer 1"]  # numbers fall along ids
    assert names(game, "object") == ["pen 1"]
    assert game.recep_place.tolist() == [0, 0, 2, 0, 0]
    assert game.start.place == 5  # no receptacle there
    assert game.openable.tolist() == [False, True, False, False, False]
    assert game.can_hold[0].tolist() == [False, True, True, False, False]
    assert np.argwhere(game.start.inside).tolist() == [[0, 0]]
    assert np.argwhere(game.start.at).tolist() == [[0, 0]]
    assert game.goal_recep.tolist() == [False, True, True, False, False]
    assert game.goal_object.tolist() == [True, False, False]
    assert game.task.shape == (TASK_LENGTH,)
    assert game.task_type == 0
    assert game.recep_type.tolist()[3:] == [-1, -1]


def test_letters_comments_and_repetitions_do_not_matter():
    text = problem()
    wanted = pddl.parse(text).game
    assert_same(wanted, pddl.parse(text.upper()).game)
    commented = text.replace("\n(:init", " ; (a comment) ((\n(:init")
    assert_same(wanted, pddl.parse(commented).game)
    assert_same(wanted, pddl.parse(problem(add=FACTS)).game)
    assert_same(wanted, pddl.parse(problem(add=["= (total-cost) 0", "= (distance l0 l1) 3"])).game)
    assert_same(wanted, pddl.parse(problem(add=["somethingElse Pen_bar_1 l1"])).game)


def test_an_object_can_be_in_two_receptacles_and_at_two_places():
    game = pddl.parse(
        problem(add=["inReceptacle Pen_bar_1 Drawer_bar_2", "objectAtLocation Pen_bar_1 l2"])
    ).game
    assert np.argwhere(game.start.inside).tolist() == [[0, 0], [0, 2]]
    assert np.argwhere(game.start.at).tolist() == [[0, 0], [0, 2]]


def test_a_receptacle_without_type_holds_nothing():
    game = pddl.parse(problem(drop=["receptacleType Drawer_bar_1 DrawerType"])).game
    assert game.recep_type.tolist()[1] == -1
    assert game.can_hold[0].tolist() == [False, False, True]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_byte_order_mark_and_the_ends_of_lines_change_nothing(mark, end):
    text = "; a comment (\n" + problem(add=["coolable Pen_bar_1) ; one )\n(heatable Pen_bar_1"])
    plain = pddl.parse(text)
    found = pddl.parse(mark + text.replace("\n", end))
    assert_same(found.game, plain.game)
    assert (
        TextGame.from_pddl(mark + text.replace("\n", end)).intro == TextGame.from_pddl(text).intro
    )
    with pytest.raises(pddl.PddlError, match=r"line 3: '\\ufeff' stands outside"):
        pddl.parse(f"{end}{end}\ufeff{text}")


def test_words_the_language_lacks_become_symbols_of_the_game():
    text = problem(
        add=[
            "objectType Zebra_bar_1 ZebraType",
            "inReceptacle Zebra_bar_1 Desk_bar_1",
            "objectAtLocation Zebra_bar_1 l1",
            "pickupable Zebra_bar_1",
        ]
    )
    parsed = pddl.parse(text, task="move the  pen; NOW")
    assert parsed.extra == (" zebra", " ", " pen;", " NOW")  # spacing and letters are kept
    game = TextGame.from_pddl(text, task="move the  pen; NOW")
    assert game.intro.endswith("\n\nYour task is to: move the  pen; NOW.")
    assert game.step("go to desk 1") == (
        "You arrive at desk 1. On the desk 1, you see a pen 1, and a zebra 1.",
        False,
    )
    assert "take zebra 1 from desk 1" in game.admissible()
    assert game.step("take zebra 1 from desk 1")[0] == "You pick up the zebra 1 from the desk 1."
    plain = pddl.parse(text, task="bring every pen to the old drawer by the window today , quickly")
    shown = sy.text([s for s in plain.game.task if s], plain.extra)
    assert shown == "bring every pen to the old drawer by the window today , quickly"


def test_more_than_sixty_of_a_kind():
    add = []
    for i in range(70):
        add += [f"objectType Cd_bar_{i:03d} CDType", f"inReceptacle Cd_bar_{i:03d} Desk_bar_1"]
    text = problem(add=add)
    parsed = pddl.parse(text)
    assert parsed.extra == tuple(f" {n}" for n in range(70, 60, -1))
    seen = TextGame.from_pddl(text).step("examine desk 1")[0]
    assert seen == "Nothing happens."
    game = TextGame.from_pddl(text)
    assert game.step("go to desk 1")[0].startswith(
        "You arrive at desk 1. On the desk 1, you see a cd 70, a cd 69,"
    )
    assert_same(parsed.game, pddl.parse(pddl.write(parsed.game, parsed.extra)).game)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no (define"),
        ("hello", "line 1: 'hello' stands outside"),
        ("(define (problem p)", "line 1: '(define' is never closed"),
        (problem() + ")", "without a matching"),
        (problem() + problem(), "more than one (define"),
        ("(define (problem p))", "(:objects ...) is missing"),
        (problem().replace("(:init", "(:start"), "(:init ...) is missing"),
        (problem().replace("(:goal", "(:aim"), "(:goal ...) is missing"),
        (problem(add=["inReceptacle Pen_bar_1"]), "needs 2 argument(s), got 1"),
        (problem(add=["and (openable Desk_bar_1)"]), "may not contain another"),
        (problem(objects="Desk_bar_1 -"), "without a type"),
        (problem(objects="Desk_bar_1 - (either a b)"), "without a type"),
        (problem(add=["atLocation agent1 l2"]), "atLocation once, found 2"),
        (problem(drop=["atLocation agent1 l0"]), "atLocation once, found 0"),
        (problem(add=["receptacleAtLocation Desk_bar_1 l2"]), "desk_bar_1 is at l1 and at l2"),
        (problem(add=["inReceptacle Pen_bar_1 Shelf_bar_1"]), "shelf_bar_1 has no receptacleAt"),
        (problem(add=["openable Pen_bar_1"]), "as a receptacle and as an object"),
        (problem(add=["objectType Pen_bar_1 MugType"]), "pen_bar_1 has two types"),
        (problem(add=["objectType Pen PenType"]), "pen is not an id such as"),
        (problem(add=["holds agent1 Pen_bar_1"]), "something in hand"),
        (problem(goal="(and)"), "not one of ALFWorld's six goals"),
        (problem(goal="(or (a) (b))"), "unknown form, '(or"),
        (problem(goal="(forall (?o - object) (x ?o))"), "unknown form"),
        (problem(goal=GOAL.replace("(inReceptacle ?o ?r)", "(isSliced ?o)")), "it uses: issliced"),
        (problem(goal=GOAL.replace("(inReceptacle", "(isHot ?o) (inReceptacle")), "it uses"),
        (problem(goal=GOAL.replace("(inReceptacle ?o ?r)", "(not (inReceptacle ?o ?r))")), "uses"),
    ],
)
def test_complaints(text, complaint):
    with pytest.raises(pddl.PddlError) as caught:
        pddl.parse(text)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_complaint_names_the_line():
    text = problem().replace("(pickupable Pen_bar_1)", "(pickupable Pen_bar_1))")
    with pytest.raises(pddl.PddlError, match=r"^line \d+: "):
        pddl.parse(text)


def test_capacities():
    assert pddl.parse(problem(), receptacles=3, objects=1).game.can_hold.shape == (1, 3)
    with pytest.raises(pddl.PddlError, match="3 receptacles, more than the capacity of 2"):
        pddl.parse(problem(), receptacles=2)
    with pytest.raises(pddl.PddlError, match="1 objects, more than the capacity of 0"):
        pddl.parse(problem(), objects=0)
    crowd = [f"receptacleAtLocation Shelf_bar_{i} l9" for i in range(MAX_SHARED)]
    pddl.parse(problem(add=crowd))
    with pytest.raises(pddl.PddlError, match=f"{MAX_SHARED + 1} receptacles share l9"):
        pddl.parse(problem(add=[*crowd, "receptacleAtLocation Shelf_bar_9 l9"]))


def test_padding_a_game_is_parsing_it_larger():
    for start in ("l0", "l2"):
        text = problem(drop=["atLocation agent1 l0"], add=[f"atLocation agent1 {start}"])
        text = text.replace(
            "(objectAtLocation", "(objectAtLocation Pen_bar_1 l0)\n(objectAtLocation"
        )
        grown = pddl.pad(pddl.parse(text), receptacles=7, objects=4)
        assert_same(grown.game, pddl.parse(text, receptacles=7, objects=4).game)
    with pytest.raises(pddl.PddlError, match="capacity of 2"):
        pddl.pad(pddl.parse(problem()), receptacles=2, objects=4)


@pytest.mark.parametrize("depth", [50_000])
def test_depth_and_length_are_no_matter(depth):
    start = time.process_time()
    for text in ("(" * depth, "(" * depth + ")" * depth, ")" * depth):
        with pytest.raises(pddl.PddlError):
            pddl.parse(text)
    deep_goal = "(and " * depth + "(x)" + ")" * depth
    with pytest.raises(pddl.PddlError, match="it uses: x"):
        pddl.parse(problem(goal=deep_goal))
    with pytest.raises(pddl.PddlError, match="unknown form"):
        pddl.parse(problem(goal="(" * depth + ")" * depth))
    pddl.parse(problem(add=["somethingElse a b"] * depth) + " " * depth)
    assert time.process_time() - start < 10  # quadratic work would take minutes


def test_recorded_games_survive_writing():
    games = []
    for name in ("edge_cases", "transcripts"):
        with gzip.open(GOLDEN / f"alfworld_{name}.json.gz", "rt", encoding="utf-8") as file:
            games += json.load(file)
    for game in games:
        first = pddl.parse(game["pddl_problem"], task=game["task"])
        again = pddl.parse(pddl.write(first.game, first.extra), task=game["task"])
        assert_same(first.game, again.game)


def test_generated_games_survive_writing():
    spec, split = generator.SMALL, "unseen"
    make = jax.jit(jax.vmap(functools.partial(generator.generate, spec=spec, split=split)))
    games = jax.tree.map(np.asarray, make(jax.random.split(jax.random.key(7), 48)))
    for i in range(48):
        game = jax.tree.map(lambda x, i=i: x[i], games)
        task = sy.text(game.task)
        parsed = pddl.parse(
            pddl.write(game), task=task, receptacles=spec.receptacles, objects=spec.objects
        )
        assert parsed.extra == ()
        # Slots that hold nothing have no place of their own.
        exists = game.recep_stem > 0
        game = game._replace(recep_place=np.where(exists, game.recep_place, 0))
        assert_same(game, parsed.game)


def test_what_cannot_be_written():
    game = pddl.parse(problem()).game
    gap = game._replace(recep_number=game.recep_number + np.array([0, 1, 0], np.int32))
    with pytest.raises(pddl.PddlError, match="there is a drawer 3 but no drawer 2"):
        pddl.write(gap)
    twice = game._replace(recep_number=np.full(3, sy.symbol(" 1"), np.int32))
    with pytest.raises(pddl.PddlError, match="two things have the same name"):
        pddl.write(twice)
    reversed_order = game._replace(
        recep_stem=game.recep_stem[::-1], recep_number=game.recep_number[::-1]
    )
    with pytest.raises(pddl.PddlError, match="not in the order"):
        pddl.write(reversed_order)
    with pytest.raises(pddl.PddlError, match="goal's object"):
        pddl.write(game._replace(goal_object=np.zeros(1, bool)))
    with pytest.raises(pddl.PddlError, match="some DrawerType can hold a PenType"):
        pddl.write(game._replace(can_hold=np.array([[False, True, False]])))
