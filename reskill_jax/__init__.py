"""GRPO with co-evolving skills in JAX: the pure functions of the method.

Importing this package is quick and touches no device.
"""

__version__ = "0.1.0"
