"""Every family is possible, its goal is in the language, and the unseen ones stay unseen."""

import numpy as np
import pytest

from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household import tables
from reskill_jax.worlds.household.families import SPLITS, all_families, is_held_out

FAMILIES = all_families()


def pairs(member):
    return set(zip(FAMILIES.object_type[member], FAMILIES.target_type[member], strict=True))


def test_no_pair_is_in_both_parts_and_both_have_every_task_type():
    assert not pairs(FAMILIES.unseen) & pairs(~FAMILIES.unseen)
    for member in (FAMILIES.unseen, ~FAMILIES.unseen):
        assert set(FAMILIES.task_type[member]) == set(range(6))
    assert 0.15 < FAMILIES.unseen.mean() < 0.35


def test_split_of_known_pairs_never_changes():
    # crc32 of "Mug:Cabinet" and so on, modulo 4; the shipped weights rely on the split.
    targets = ("Cabinet", "Shelf", "CoffeeMachine", "Desk")
    assert [is_held_out("Mug", target) for target in targets] == [False, True, True, True]


def test_rooms_and_treatments_follow_the_tables():
    for i in range(len(FAMILIES.room)):
        task_type = tables.TASK_TYPES[FAMILIES.task_type[i]]
        room = tables.ROOMS[FAMILIES.room[i]]
        name = tables.OBJECT_TYPES[FAMILIES.object_type[i]]
        assert room in tables.TASK_ROOMS[task_type]
        assert name in tables.ROOM_OBJECTS[room] and name not in tables.NOT_PICKUPABLE
        if task_type == "look_at_obj_in_light":
            assert FAMILIES.target_type[i] == -1
        else:
            target = tables.RECEPTACLE_TYPES[FAMILIES.target_type[i]]
            assert name in tables.CAN_CONTAIN[target] and target in tables.ROOM_RECEPTACLES[room]
        treated = {"pick_heat_then_place_in_recep": ("Microwave", tables.HEATABLE)}
        if task_type in treated:
            device, treatable = treated[task_type]
            assert name in treatable
            assert tables.RECEPTACLE_TYPES[FAMILIES.device_type[i]] == device


def test_goal_texts_are_whole_sentences_of_the_language():
    assert sy.UNKNOWN not in FAMILIES.text
    for i in range(0, len(FAMILIES.room), 17):
        task_type = tables.TASK_TYPES[FAMILIES.task_type[i]]
        name = tables.OBJECT_TYPES[FAMILIES.object_type[i]].lower()
        target = FAMILIES.target_type[i]
        target = "desklamp" if target < 0 else tables.RECEPTACLE_TYPES[target].lower()
        for template, row in zip(tables.TEMPLATES[task_type], FAMILIES.text[i], strict=True):
            said = template.format(obj=name, recep=target, toggle=target)
            assert sy.text(row) == said


@pytest.mark.parametrize("split", SPLITS)
def test_cumulative_gives_each_task_type_a_sixth(split):
    cumulative = FAMILIES.cumulative(split)
    share = np.diff(cumulative, prepend=0.0)
    assert cumulative[-1] == pytest.approx(1.0, abs=1e-6)
    assert not share[FAMILIES.unseen != (split == "unseen")].any()
    for task_type in range(6):
        assert share[FAMILIES.task_type == task_type].sum() == pytest.approx(1 / 6, abs=1e-5)
