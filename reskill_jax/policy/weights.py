"""Weights of a decoder on disk: safetensors, and beside it a description.

`name.safetensors` holds the arrays ("layer_0.attention.qkv", ...), `name.json` the configuration,
the provenance and the digest of the arrays' file.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from . import decoder
from .decoder import DecoderConfig, Params

_FORMAT = 1


class WeightsError(ValueError):
    """Weights that cannot be used; the message says which file, what is wrong and what to do."""


def save(
    path: str | Path, params: Params, provenance: Mapping[str, Any], config: DecoderConfig
) -> None:
    """Writes `path` (.safetensors) and the description beside it (same stem, .json).

    Both are written aside and moved into place, so a reader never meets half a file.

    Args:
      path: ends in .safetensors; the folder exists.
      params: of `decoder.init(key, config)` or of training from there.
      provenance: where the weights come from; anything JSON can hold.
      config: the decoder's shape; `params` is checked against it.

    Raises:
      WeightsError: `params` is not of this configuration, or the path has another ending.
    """
    path = _checked_path(path)
    arrays = {name: np.ascontiguousarray(array) for name, array in _flatten(params).items()}
    _check(arrays, config, "params")
    content = safetensors.numpy.save(arrays)
    description = {
        "format": _FORMAT,
        "sha256": hashlib.sha256(content).hexdigest(),
        "config": dataclasses.asdict(config),
        "provenance": dict(provenance),
    }
    text = json.dumps(description, indent=2) + "\n"
    for target, data in ((path, content), (path.with_suffix(".json"), text.encode())):
        aside = target.with_name(target.name + ".partial")
        aside.write_bytes(data)
        os.replace(aside, target)


def load(path: str | Path) -> tuple[Params, DecoderConfig, dict[str, Any]]:
    """Reads what `save` wrote.

    Returns:
      (params, config, provenance).

    Raises:
      WeightsError: a file is missing, damaged or of another configuration.
    """
    path = _checked_path(path)
    config, provenance, digest = _read_description(path.with_suffix(".json"))
    content = _read(path)
    try:
        arrays = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: damaged, not a safetensors file ({error})") from error
    _check(arrays, config, str(path))
    if hashlib.sha256(content).hexdigest() != digest:
        raise WeightsError(
            f"{path}: the arrays are not those described in {path.with_suffix('.json').name} "
            "(SHA-256 differs); fetch both files again"
        )
    return _unflatten(arrays), config, provenance


def load_pretrained(name: str) -> tuple[Params, DecoderConfig, dict[str, Any]]:
    """Loads weights that ship with the package, e.g. "household"; see `load`."""
    folder = resources.files(__package__)
    known = sorted(
        entry.name.removesuffix(".safetensors")
        for entry in folder.iterdir()
        if entry.name.endswith(".safetensors")
    )
    if name not in known:
        raise WeightsError(f"no pretrained weights {name!r}; there are: {', '.join(known) or '-'}")
    with resources.as_file(folder.joinpath(name + ".json")) as description:
        with resources.as_file(folder.joinpath(name + ".safetensors")) as arrays:
            if description.parent != arrays.parent:
                raise WeightsError("the package must be installed unpacked to load its weights")
            return load(arrays)


def _checked_path(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".safetensors":
        raise WeightsError(f"{path}: a weights file ends in .safetensors")
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def _read_description(path: Path) -> tuple[DecoderConfig, dict[str, Any], str]:
    try:
        description = json.loads(_read(path))
        if description["format"] != _FORMAT:
            raise WeightsError(f"{path}: format {description['format']!r}, not {_FORMAT}")
        config = DecoderConfig(**description["config"])
        return config, description["provenance"], description["sha256"]
    except KeyError as error:
        raise WeightsError(f"{path}: no entry {error}") from error
    except WeightsError:
        raise
    except (ValueError, TypeError) as error:
        raise WeightsError(f"{path}: not a description of weights ({error})") from error


def _flatten(params: Params) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {".".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def _unflatten(arrays: Mapping[str, np.ndarray]) -> Params:
    params: dict[str, Any] = {}
    for name, array in arrays.items():
        *parents, last = name.split(".")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = jnp.asarray(array)
    return params


def _check(arrays: Mapping[str, np.ndarray], config: DecoderConfig, where: str) -> None:
    """Raises WeightsError unless names, shapes and dtypes are exactly those of the config."""
    wanted = _flatten_shapes(config)
    missing = sorted(wanted.keys() - arrays.keys())
    extra = sorted(arrays.keys() - wanted.keys())
    for kind, names in (("is missing", missing), ("is not part of the configuration", extra)):
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise WeightsError(f"{where}: {names[0]} {kind}{more}")
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise WeightsError(
                f"{where}: {name} has shape {arrays[name].shape}, the configuration says {shape}"
            )
        if arrays[name].dtype != np.float32:
            raise WeightsError(f"{where}: {name} is {arrays[name].dtype}, not float32")


def _flatten_shapes(config: DecoderConfig) -> dict[str, tuple[int, ...]]:
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), config))
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    return {".".join(str(key.key) for key in path): leaf.shape for path, leaf in leaves}
