"""pass^k, against hand-computed values and the recorded ones of tau-Rec."""

import gzip
import json
import math
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reskill_jax
from reskill_jax.core.reliability import pass_hat_k

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tau_rec.json.gz"


@pytest.fixture(scope="module")
def golden():
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


def test_by_hand():
    successes, trials = jnp.array([4, 2, 0, 3]), jnp.array([4, 4, 4, 3])
    assert float(pass_hat_k(successes, trials, 1)) == pytest.approx((1 + 0.5 + 0 + 1) / 4)
    assert float(pass_hat_k(successes, trials, 2)) == pytest.approx((1 + 1 / 6 + 0 + 1) / 4)
    # The last task has three trials: it counts as 0.
    assert float(pass_hat_k(successes, trials, 4)) == pytest.approx(1 / 4)
    assert float(pass_hat_k(jnp.zeros(0, int), jnp.zeros(0, int), 1)) == 0
    assert reskill_jax.pass_hat_k is pass_hat_k


def test_recorded(golden):
    compiled = jax.jit(jax.vmap(pass_hat_k, (0, 0, None)), static_argnums=2)
    for k in {case["k"] for case in golden["pass_k"]}:
        cases = [case for case in golden["pass_k"] if case["k"] == k]
        won, played = (np.array([[case[name]] for case in cases]) for name in "cn")
        expected = [case["value"] for case in cases]
        np.testing.assert_allclose(compiled(won, played, k), expected, atol=1e-6)
    for case in golden["pass_k_tables"] + golden["leaderboard"]:
        won = np.array([one["c"] for one in case["table"].values()], np.int32)
        played = np.array([one["n"] for one in case["table"].values()], np.int32)
        for k in (1, 2, 4):
            found = float(pass_hat_k(won, played, k))
            assert found == pytest.approx(case[f"pass_{k}"], abs=1e-6)


def test_compiled_and_mapped():
    successes, trials = jnp.array([[1, 2, 3], [0, 4, 4]]), jnp.array([[4, 4, 2], [4, 4, 4]])
    rows = [pass_hat_k(c, n, 2) for c, n in zip(jnp.minimum(successes, trials), trials)]
    mapped = jax.jit(jax.vmap(lambda c, n: pass_hat_k(c, n, 2)))
    found = mapped(jnp.minimum(successes, trials), trials)
    chex.assert_shape(found, (2,))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, jnp.stack(rows), rtol=1e-6)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1), st.integers(1, 6))
def test_is_the_ratio_of_binomials(tasks, k):
    counts = [(min(c, n), n) for c, n in tasks]
    expected = [math.comb(c, k) / math.comb(n, k) if n >= k else 0.0 for c, n in counts]
    won, played = map(np.array, zip(*counts))
    assert float(pass_hat_k(won, played, k)) == pytest.approx(np.mean(expected), abs=1e-5)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        pass_hat_k(jnp.ones(2, int), jnp.ones(2, int), 0)
    with pytest.raises(AssertionError):
        pass_hat_k(jnp.ones(2, int), jnp.ones(3, int), 1)
