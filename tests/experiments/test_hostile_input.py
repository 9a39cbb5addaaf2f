"""Every way into the library, with input meant to hurt: accepted, or refused in one line."""

import dataclasses

import hostile_input
import pytest
from hostile.surfaces import surfaces

GAME = hostile_input.real_game()
SURFACES = {surface.name: surface for surface in surfaces(GAME["pddl_problem"], GAME)}


@pytest.mark.parametrize("name", SURFACES)
def test_input_is_accepted_or_refused_in_one_line(name, tmp_path):
    told = hostile_input.count(SURFACES[name], 40, tmp_path / "input")
    assert told["defect"] is None, told["defect"]
    assert told["tried"] >= 40 and told["slowest"] < 60


def test_a_defect_is_told(tmp_path):
    def breaks(given, folder):
        raise KeyError(given)

    def rambles(given, folder):
        raise ValueError("two\nlines")

    for accepts, told in ((breaks, "KeyError"), (rambles, "should be one line")):
        surface = dataclasses.replace(
            SURFACES["configurations"], accepts=accepts, refusals=(ValueError,)
        )
        assert told in hostile_input.count(surface, 3, tmp_path / "input")["defect"]


def test_the_command_counts(capsys):
    assert hostile_input.main(["--tries", "5", "--only", "SKILL.md"]) == 0
    told = capsys.readouterr().out
    assert "| SKILL.md files | 5 |" in told and "| way in | inputs |" in told
