"""The line about the machine."""

import os
import platform

import jax

from reskill_jax.devices.machine import describe_machine


def test_it_names_the_cores_the_versions_and_the_device():
    line = describe_machine()
    assert "\n" not in line
    assert f"of {os.cpu_count()} cores; Python {platform.python_version()}, numpy" in line
    assert line.endswith(f"({jax.devices()[0].platform})") and f"jax {jax.__version__}" in line
