"""The study of attribution: its measures by hand, and the reading of outside data."""

import gzip
import json

import numpy as np
import pytest

from experiments.attribution import scoring, who_and_when
from experiments.attribution.collapse import auc
from reskill_jax.creators.attribution.features import StepFeatures


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.95, 0.55, 0.55]), np.array([1, 1, 1, 0])
    # Two bins of two: |.95 - 1| and |.55 - .5|.
    assert scoring.calibration_error(confidence, right) == pytest.approx(0.05)


def test_orthogonality_by_hand():
    def sure(cells):
        posterior = np.full((4, 1, 4), -10.0)
        posterior[np.arange(4), 0, cells] = -0.01
        return posterior

    truth = np.array([0, 1, 2, 3])
    one, other = sure([0, 1, 0, 0]), sure([1, 0, 2, 3])
    found = scoring.orthogonality(one, other, sure([0, 1, 2, 0]), truth)
    assert found["phi"] == pytest.approx(-1)  # never wrong together
    assert found["gain_over_the_better"] == pytest.approx(0.25)


def test_noise():
    features = StepFeatures(np.zeros((20, 10, 8), bool), np.ones((20, 10), bool))
    assert not scoring.noisy(features, 0, 0, 0).evidence.any()
    assert scoring.noisy(features, 0.2, 0, 0).evidence.mean() == pytest.approx(0.2, abs=0.04)
    half = scoring.noisy(features, 0, 0.5, 0)
    assert 0 < half.evidence.shape[2] < 8
    again = scoring.noisy(StepFeatures(*(x[:3] for x in features)), 0, 0.5, 0)
    assert again.evidence.shape[2] == half.evidence.shape[2]  # the same ones for every set


def test_auc():
    assert auc([0, 1], [2, 3]) == 1 and auc([1], [1]) == 0.5 and auc([2], [0, 3]) == 0.5


@pytest.fixture
def folder(tmp_path):
    """12 conversations; the second speaker errs at step 1, and is told so behind it."""

    def turn(who, text):
        return {"role": "assistant", "name": who, "content": text}

    record = {
        "history": [
            turn("Planner", "Let us begin with the plan."),
            turn("Coder", "I assume example data 123456789012."),
            turn("Checker", "However, that is incorrect."),
            turn("Planner", "Then we are done. TERMINATE"),
        ],
        "mistake_agent": "Coder",
        "mistake_step": "1",
    }
    lines = [json.dumps({"file": f"{n}.json", "record": record}) for n in range(12)]
    for name in who_and_when.SETS:
        (tmp_path / f"{name}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    return tmp_path


def test_who_and_when(folder):
    found = who_and_when.who_and_when(folder)
    for name in who_and_when.SETS:
        rows = found[name]
        assert rows["records"] == 12
        assert rows["tables of text rules, 10 folds"]["step"] == 1
        assert rows["tables of text rules, 10 folds"]["agent"] == 1
        last = rows["last speaker, last step"]
        assert (last["agent"], last["step"], last["step_within_3"]) == (0, 0, 1)


def test_steps_are_compared_as_integers():
    record = who_and_when.Record(["a"] * 13, ["x"] * 13, "x", 1)
    found = who_and_when.scores([record], [("x", 12)])
    assert found["step"] == 0 and found["step_as_published"] == 1
    assert who_and_when._speaker({"role": "Orchestrator (-> WebSurfer)"}) == "Orchestrator"
