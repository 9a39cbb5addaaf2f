"""The leaves of a state: described, copied to the host, checked and put back."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1

from reskill_jax.devices.mesh import place
from reskill_jax.storage.checkpoint_files import CheckpointError, shorten


@dataclasses.dataclass(frozen=True)
class Leaf:
    """What is written down about one leaf."""

    name: str
    kind: str  # "array", "key" (typed random key), "bool", "int", "float"
    shape: list[int]
    dtype: str
    implementation: str | None = dataclasses.field(default=None, compare=False)  # of a key

    def __str__(self) -> str:
        if self.kind in ("bool", "int", "float"):
            return f"a Python {self.kind}"
        return f"{self.dtype}{self.shape}"


def describe(tree: Any) -> list[Leaf]:
    """Name, kind, shape and dtype of every leaf, in tree order; refuses what cannot be stored."""
    leaves, names = [], set()
    for path, value in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/") or "state"
        if name in names:
            raise CheckpointError(f"two leaves of the state share the name '{name}'")
        names.add(name)
        if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
            leaves.append(Leaf(name, type(value).__name__, [], np.asarray(value).dtype.name))
        elif not hasattr(value, "dtype") or not hasattr(value, "shape"):
            raise CheckpointError(f"leaf '{name}' of type {type(value).__name__} is no array")
        elif jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            # A shape struct carries no implementation; its dtype tells it well enough.
            known = isinstance(value, jax.Array)
            implementation = str(jax.random.key_impl(value)) if known else None
            leaves.append(Leaf(name, "key", list(value.shape), str(value.dtype), implementation))
        else:
            dtype = np.dtype(value.dtype)
            if dtype.hasobject or dtype.kind in "SUMm":
                raise CheckpointError(f"leaf '{name}' has dtype {dtype}, which cannot be stored")
            leaves.append(Leaf(name, "array", list(value.shape), dtype.name))
    return leaves


def flatten(tree: Any) -> tuple[list[Leaf], dict[str, Any]]:
    """Describes the leaves and copies them to the host; empty ones need no storage."""
    leaves = describe(tree)
    values: dict[str, Any] = {}
    for leaf, value in zip(leaves, jax.tree.leaves(tree), strict=True):
        if math.prod(leaf.shape) == 0:
            continue
        if leaf.kind == "key":
            value = jax.random.key_data(value)
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            # Orbax writes what lies in each process. A copy on the device where one is needed.
            values[leaf.name] = jnp.copy(value) if jax.default_backend() == "cpu" else value
        else:
            # A copy, because a view of a CPU buffer would change when the step donates it.
            values[leaf.name] = np.array(value, copy=True)
    return leaves, values


def check(path: Path, stored: list[Leaf], expected: list[Leaf], *, partly: bool = False) -> None:
    """Raises CheckpointError when the stored leaves are not the expected ones.

    Args:
      path: of the checkpoint.
      stored, expected: what is compared.
      partly: more may be stored than is expected.
    """
    old = {leaf.name: leaf for leaf in stored}
    new = {leaf.name: leaf for leaf in expected}
    problems = [
        f"{name} is {old[name]} in the checkpoint, {new[name]} here"
        for name in new
        if name in old and old[name] != new[name]
    ]
    problems += [f"{name} is missing in the checkpoint" for name in new if name not in old]
    if not partly:
        problems += [f"{name} is not part of this state" for name in old if name not in new]
    if problems:
        raise CheckpointError(f"checkpoint {path} holds another state: {shorten(problems)}")


def unflatten(path: Path, leaves: list[Leaf], like: Any) -> Any:
    """Reads the leaves of one step into the structure and the places of `like`."""
    kinds = {leaf.name: leaf for leaf in leaves}
    targets, structure = jax.tree.flatten(like)
    names = [leaf.name for leaf in describe(like)]
    asked = set(names)
    spread = {
        name: jax.ShapeDtypeStruct(target.shape, target.dtype, sharding=target.sharding)
        for name, target in zip(names, targets, strict=True)
        if getattr(target, "sharding", None) is not None
        and not target.sharding.is_fully_addressable
        and not target.sharding.is_fully_replicated
    }
    # Arrays are asked for as they shall lie here, not as they lay in the processes that wrote them.
    stored = [name for name, leaf in kinds.items() if math.prod(leaf.shape)]
    abstract = {
        name: spread.get(name, _stored_as(kinds[name])) if name in asked else ...  # is not read
        for name in stored
    }
    values = v1.load(path / "arrays", abstract) if asked.intersection(stored) else {}
    out = []
    for name, target in zip(names, targets, strict=True):
        leaf = kinds[name]
        if leaf.kind in ("bool", "int", "float"):
            out.append(np.asarray(values[name]).item())
        elif name in spread:
            out.append(values[name])
        else:
            out.append(_place(leaf, values.get(name), target))
    return jax.tree.unflatten(structure, out)


def _stored_as(leaf: Leaf) -> np.ndarray:
    """An array like the stored one, on the host."""
    if leaf.kind == "key":
        data = jax.random.key_data(jax.random.key(0, impl=leaf.implementation))
        return np.empty((*leaf.shape, *data.shape), data.dtype)
    return np.empty(leaf.shape, leaf.dtype)


def _place(leaf: Leaf, value: Any, target: Any) -> Any:
    if leaf.kind == "key":
        if value is None:
            return jax.random.split(jax.random.key(0, impl=leaf.implementation), tuple(leaf.shape))
        array = jax.random.wrap_key_data(jnp.array(value), impl=leaf.implementation)
    else:
        value = np.empty(leaf.shape, leaf.dtype) if value is None else np.asarray(value)
        if isinstance(target, (np.ndarray, np.generic)):
            return value if isinstance(target, np.ndarray) else value[()]
        array = jnp.array(value)  # copies: the buffer may be donated
    sharding = getattr(target, "sharding", None)
    # An uncommitted array stays so, else the compiled step would be traced a second time.
    if sharding is None or not getattr(target, "committed", True):
        return array
    return place(array, sharding)
