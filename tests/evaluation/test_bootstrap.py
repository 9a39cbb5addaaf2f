"""BCa intervals, against the recorded ones of tau-Rec."""

import gzip
import json
import math
from pathlib import Path

import pytest

from reskill_jax.evaluation.bootstrap import bca_interval
from reskill_jax.evaluation.figures import reliability

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tau_rec.json.gz"


@pytest.fixture(scope="module")
def tables():
    found = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return found["pass_k_tables"] + found["leaderboard"]


def test_recorded(tables):
    assert len(tables) > 10
    for case in tables:
        for k in (1, 2, 4):
            counts = [(one["c"], one["n"]) for one in case["table"].values()]
            of_tasks = [math.comb(c, k) / math.comb(n, k) if n >= k else 0.0 for c, n in counts]
            found = bca_interval(of_tasks)
            if not of_tasks:  # there is no recorded interval of nothing
                assert found == (0.0, 0.0) and f"interval_{k}" not in case
                continue
            assert found == pytest.approx(case[f"interval_{k}"], abs=1e-9), case["table"]


def test_reliability_of_a_complete_table(tables):
    (case,) = [one for one in tables if one.get("name") == "g0-dsv4-flash"]
    counts = [(one["c"], one["n"]) for one in case["table"].values()]
    found = reliability(counts)
    assert found["pass_hat_k_tasks"] == [60] * 4
    for k in (1, 2, 4):
        assert found["pass_hat_k"][k - 1] == pytest.approx(case[f"pass_{k}"], abs=1e-6)
        assert found["pass_hat_k_interval"][k - 1] == pytest.approx(case[f"interval_{k}"])


def test_without_spread():
    assert bca_interval([0.5, 0.5, 0.5]) == (0.5, 0.5) and bca_interval([0.25]) == (0.25, 0.25)
    assert bca_interval([]) == (0.0, 0.0)
    assert reliability([]) == {
        "pass_hat_k": [],
        "pass_hat_k_interval": [],
        "pass_hat_k_tasks": [],
    }
