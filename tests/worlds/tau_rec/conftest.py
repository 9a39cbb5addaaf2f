import gzip
import json
import os
from pathlib import Path

import pytest

from reskill_jax.worlds.tau_rec import TauRec

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "tau_rec.json.gz"
DATA = os.environ.get("TAU_REC_DATA")


@pytest.fixture(scope="session")
def golden():
    """What the benchmark's own code gave."""
    return json.loads(gzip.decompress(GOLDEN.read_bytes()))


@pytest.fixture(scope="session")
def benchmark_data():
    """The benchmark's data: TAU_REC_DATA is its folder."""
    if not DATA:
        pytest.skip("TAU_REC_DATA names no folder of the benchmark's data")
    return TauRec(DATA)


@pytest.fixture(scope="session")
def first_release():
    """The same under the rules of v1.0."""
    if not DATA:
        pytest.skip("TAU_REC_DATA names no folder of the benchmark's data")
    return TauRec(DATA, generation="v1.0")
