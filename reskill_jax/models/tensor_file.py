"""Safetensors files as float32 arrays, whatever floating type they were written in."""

import json
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

# Every finite value of these, float64 aside, is a float32 as well.
_FLOATS: dict[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": jnp.bfloat16,
    "F8_E4M3": jnp.float8_e4m3fn,
    "F8_E5M2": jnp.float8_e5m2,
}


class TensorFileError(ValueError):
    """Bytes that are no safetensors file, or hold something else than floats; one line."""


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Reads the bytes of a safetensors file.

    Returns:
      Name -> float32 array. bfloat16, float16 and float8 become the same numbers in float32,
      float64 is rounded.

    Raises:
      TensorFileError: the bytes are damaged, a name comes twice, or a tensor is not of floats.
    """
    try:
        entries = safetensors.deserialize(content)
        _check_names(content)
    except (safetensors.SafetensorError, ValueError, RecursionError, OverflowError) as error:
        raise TensorFileError(f"damaged, not a safetensors file ({_reason(error)})") from error
    arrays = {}
    for name, entry in entries:
        kind = _FLOATS.get(entry["dtype"])
        if kind is None:
            raise TensorFileError(
                f"{shown(name)} is of type {entry['dtype']}; weights are floats "
                f"({', '.join(_FLOATS)})"
            )
        stored = np.frombuffer(entry["data"], np.dtype(kind).newbyteorder("<"))
        with np.errstate(over="ignore"):  # infinity is refused by whoever uses it
            arrays[name] = stored.reshape(entry["shape"]).astype(np.float32)
    return arrays


def write_tensors(arrays: dict[str, np.ndarray]) -> bytes:
    """The bytes of a safetensors file."""
    return safetensors.numpy.save(arrays)


def shown(name: str) -> str:
    """A name from a file as a part of one line."""
    told = "".join(c if c.isprintable() else repr(c)[1:-1] for c in name[:80])
    return told if len(name) <= 80 else told + "..."


def _check_names(content: bytes) -> None:
    """The library keeps one tensor of two that have the same name, and does not say so."""
    size = int.from_bytes(content[:8], "little")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = dict(pairs)
        if len(names) < len(pairs):
            told = [name for name, _ in pairs]
            twice = next(name for name in told if told.count(name) > 1)
            raise ValueError(f"{shown(twice)} comes twice in its header")
        return names

    json.loads(content[8 : 8 + size], object_pairs_hook=unique)


def _reason(error: Exception) -> str:
    told = " ".join(str(error).split()).removeprefix("Error while deserializing: ")
    return shown(told.split(", expected one of")[0]) if len(told) > 80 else told
