"""What a measurement ran on, in one line: it stands beside every figure that depends on it."""

import os
import platform
from pathlib import Path

import jax
import numpy as np


def describe_machine() -> str:
    """The processor, the cores this process may use, the versions, and JAX's device."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    cores = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    device = jax.devices()[0]
    return (
        f"{model}, {usable} of {cores} cores; Python {platform.python_version()}, "
        f"numpy {np.__version__}, jax {jax.__version__} on {device.device_kind} ({device.platform})"
    )
