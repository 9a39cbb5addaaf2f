"""Runs of ten proposals, simulated with the effects that stored proposals had."""

import json

import numpy as np
import pytest
from bandit.outcomes import World
from bandit.rules import CHOSEN, MEANS
from bandit.sequences import PROPOSALS, measured_effects, sequences
from bandit.simulation import Design


def write(folder, name, measurements):
    (folder / name).write_text(json.dumps({"measurements": measurements}))


def test_effects_are_those_of_measured_proposals(tmp_path):
    proposal = {"kind": "proposal", "type": "bundle", "won": [30, 20], "games": 100}
    retirement = proposal | {"type": "retirement"}
    skill = proposal | {"kind": "skill"}
    write(tmp_path, "reskill-1.json", [proposal, retirement, skill])
    write(tmp_path, "reskill-2.json", [proposal | {"won": [10, 35]}])
    write(tmp_path, "auto_accept-1.json", [proposal | {"won": [0, 100]}])
    assert measured_effects(tmp_path) == pytest.approx([0.1, -0.25])
    with pytest.raises(ValueError, match="no measured proposal of uniform"):
        measured_effects(tmp_path, condition="uniform")


def test_what_runs_end_with():
    """Half of the proposals help by 20 points, half harm by 5: who lets the latter in?"""
    found = sequences(
        World(),
        [0.2, -0.05],
        Design(discount="none"),
        trials=400,
        rules=(MEANS, CHOSEN),
        seed=3,
        horizons={},
        runs=20_000,
    )
    paper, ours = found[MEANS], found[CHOSEN]
    for one in (paper, ours):
        assert one["helpful"] == pytest.approx(PROPOSALS / 2, abs=0.1)
        assert one["any harmful"] == one["any that costs 2 points"]
        # Each of the ten is harmful and accepted with the same chance, independently.
        chance = one["harmful"] / PROPOSALS
        assert one["any harmful"] == pytest.approx(1 - (1 - chance) ** PROPOSALS, abs=0.02)
        effect = 0.2 * one["helpful"] - 0.05 * one["harmful"]
        assert one["effect"] == pytest.approx(effect, abs=1e-6)
    assert ours["any harmful"] < 0.05 < 0.2 < paper["any harmful"]
    assert np.isfinite(ours["error"])
