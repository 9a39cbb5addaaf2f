"""The pure functions are held to stricter rules: no implicit rank promotion, no NaN on the way."""

import json
from pathlib import Path

import jax
import pytest

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


@pytest.fixture(autouse=True)
def _strict_numerics():
    with jax.numpy_rank_promotion("raise"), jax.debug_nans(True):
        yield


@pytest.fixture(scope="session")
def reference_numbers():
    """Recorded by running the reference implementation on random inputs."""
    return json.loads((GOLDEN / "reference_numbers.json").read_text())
