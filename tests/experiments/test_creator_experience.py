"""What ships of the creator's experience is what the kept trials teach."""

import json

import creator_experience
import numpy as np
import pytest

from reskill_jax.creators.rules.experience import TRAITS, shipped


def test_the_shipped_weights_are_fitted_to_the_kept_trials(tmp_path, capsys):
    assert creator_experience.main(["--output", str(tmp_path / "x.json")]) == 0
    told, weights = json.loads((tmp_path / "x.json").read_text()), shipped()
    np.testing.assert_allclose(told["mean"], weights.mean, atol=2e-3)
    np.testing.assert_allclose(told["precision"], weights.precision, atol=2e-3)
    assert told["about"] in capsys.readouterr().out and told["about"].startswith("190 trials of 8")


def event(trial, kind, **more):
    return {"event": kind, "trial": trial, "step": 1, "operations": [{"name": f"s{trial}"}]} | more


def test_trials_are_read_from_run_folders(tmp_path):
    """A run without traits, an undecided trial and a retirement teach nothing."""
    traits = [1.0] * len(TRAITS)
    events = [
        event(0, "proposed", traits=traits),
        event(1, "proposed", traits=traits),
        event(2, "proposed", traits=traits),
        event(3, "retirement_started"),
        event(0, "accepted", difference=[0.0, 0.2]),
        event(1, "rejected", difference=[0.0, -0.1]),
        event(3, "kept"),
    ]
    for name, lines in (("one", events), ("two", [event(0, "proposed"), event(0, "accepted")])):
        (tmp_path / "runs" / name).mkdir(parents=True)
        log = tmp_path / "runs" / name / "lifecycle.jsonl"
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run,) = creator_experience.collect([tmp_path / "runs"])
    assert run["run"] == "one"
    assert [(t["name"], t["accepted"]) for t in run["trials"]] == [("s0", True), ("s1", False)]
    given = ["--runs", str(tmp_path / "runs"), "--kept", str(tmp_path / "kept.json")]
    assert creator_experience.main([*given, "--output", str(tmp_path / "x.json")]) == 0
    assert json.loads((tmp_path / "kept.json").read_text())["runs"] == [run]
    assert json.loads((tmp_path / "x.json").read_text())["mean"] == pytest.approx([0] * len(TRAITS))


def test_nothing_to_learn_from(tmp_path, capsys):
    given = ["--runs", str(tmp_path), "--kept", str(tmp_path / "kept.json")]
    assert creator_experience.main([*given, "--output", str(tmp_path / "x.json")]) == 1
    assert "no trials with traits" in capsys.readouterr().err and not list(tmp_path.iterdir())
