"""Eight simulated CPU devices and a persistent compilation cache, set before jax starts."""

import os
from pathlib import Path

_CACHE = Path(__file__).resolve().parent.parent / ".cache" / "jax"

os.environ["JAX_PLATFORMS"] = "cpu"
_flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "0")

import dataclasses  # noqa: E402

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from reskill_jax.worlds.household import symbols  # noqa: E402
from reskill_jax.worlds.household.world import HouseholdWorld  # noqa: E402

# Compilation makes the first example slow, so there is no deadline; examples are the same each run.
# `make test` asks for the quick profile. A test that needs more takes a multiple of the profile's.
settings.register_profile("full", deadline=None, max_examples=25, derandomize=True)
settings.register_profile("quick", settings.get_profile("full"), max_examples=5)
settings.load_profile("full")

LOOK = symbols.symbol(" look")


@dataclasses.dataclass(frozen=True)
class LookingWorld(HouseholdWorld):
    """A household in which looking around wins: an untrained policy has both outcomes at once."""

    def play(self, game, state, cursor):
        state, (command, length), seen, _ = super().play(game, state, cursor)
        return state, (command, length), seen, command[0] == LOOK


@pytest.fixture(scope="session")
def looking_world():
    """The class of `LookingWorld`, to be put in place of `HouseholdWorld`."""
    return LookingWorld
