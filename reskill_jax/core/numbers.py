"""How the pure functions treat numbers: types, averages, values that are not finite, bounds.

Types. Arrays of bool, of integers and of float16, bfloat16, float32 and float64 are accepted alike,
as are numpy arrays and nested lists of numbers. Results are floats of at least 32 bits: float64
where the input is float64 and `jax_enable_x64` is on, else float32. Complex numbers and objects
raise a TypeError; an integer that JAX could only wrap around raises a ValueError.

Averages are taken of what lies beyond a reference among the values, subtracted in the input's own
type, so a large common offset costs no precision.

Values that are not finite are never hidden. A NaN or an infinity that counts (inside the mask)
makes every result that depends on it NaN or infinite: the advantages of its group, a mean, a
posterior, a horizon. What lies outside a mask may be anything and has no influence.

Outcomes, validity and masks are bools, or numbers that are 0 or 1. Bounds of arguments are checked
wherever the value can be seen, whatever its type: out of range raises a ValueError. Under a
transformation (jit, vmap, ...) values cannot be seen: bounded arguments are clipped, and an outcome
counts where it equals 1.
"""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np


def as_real(values: Any, name: str) -> jax.Array | np.ndarray:
    """The values as an array of a real type, not yet rounded to what JAX can hold.

    Args:
      values: array, or nested lists of numbers.
      name: of the argument, for the message.

    Returns:
      JAX arrays as they are, everything else as a numpy array in its own type.

    Raises:
      TypeError: complex numbers, no numbers at all, or an array with a mask of its own.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask would be lost; give the two apart")
    if not isinstance(values, jax.Array):
        traced = any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(values))
        values = jnp.asarray(values) if traced else np.asarray(values)
    if not any(
        jnp.issubdtype(values.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)
    ):
        raise TypeError(f"{name} must be bools, integers or floats, got {values.dtype}")
    return values


def as_array(values: Any, name: str) -> jax.Array:
    """The values as a JAX array of a real type.

    Raises:
      TypeError: see `as_real`.
      ValueError: an integer is beyond what JAX can hold, so it would wrap around.
    """
    values = as_real(values, name)
    if isinstance(values, np.ndarray) and np.issubdtype(values.dtype, np.integer):
        held = np.iinfo(jax.dtypes.canonicalize_dtype(values.dtype))
        if values.size and (values.max() > held.max or values.min() < held.min):
            raise ValueError(
                f"{name} has integers beyond {held.dtype}; give floats, or enable jax_enable_x64"
            )
    return jnp.asarray(values)


def float_type(*dtypes: Any) -> Any:
    """The float type to compute in: the widest given, at least float32."""
    floats = [d for d in map(jnp.dtype, dtypes) if jnp.issubdtype(d, jnp.floating)]
    plain = jnp.result_type(float) if len(floats) < len(dtypes) else jnp.float32
    wide = [jax.dtypes.canonicalize_dtype(d) for d in floats if jnp.finfo(d).bits > 32]
    return jnp.result_type(plain, *wide)


def as_float(values: Any, name: str) -> jax.Array:
    """The values as floats of at least 32 bits.

    Raises:
      TypeError: see `as_real`.
    """
    values = as_real(values, name)
    return jnp.asarray(values.astype(float_type(values.dtype)))


def seen(values: Any) -> np.ndarray | None:
    """The values on the host; None where they cannot be seen (traced, or on other machines)."""
    if isinstance(values, jax.core.Tracer) or not getattr(values, "is_fully_addressable", True):
        return None
    return np.asarray(values)


def bounded(value: Any, low: float, high: float, name: str) -> Any:
    """The value, which must lie in [low, high]; clipped where it is traced.

    Raises:
      TypeError: see `as_real`.
      ValueError: it can be seen and lies outside, or is NaN.
    """
    value = as_real(value, name)
    known = seen(value)
    if known is None:
        return jnp.clip(value, low, high)
    if not np.all((known >= low) & (known <= high)):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {known}")
    return value


def as_bool(values: Any, name: str, *, where: Any = True) -> jax.Array:
    """Bools from bools, or from numbers that are 0 or 1; traced, what equals 1 is True.

    Args:
      values: of any shape.
      name: of the argument, for the message.
      where: bool, broadcastable; elsewhere any value will do, and gives False.

    Raises:
      TypeError: see `as_real`.
      ValueError: a value can be seen and is neither 0 nor 1.
    """
    values = as_real(values, name)
    if values.dtype != bool:
        known, counts = seen(values), seen(where)
        if known is not None and counts is not None:
            wrong = ~((known == 0) | (known == 1)) & counts
            if np.any(wrong):
                raise ValueError(f"{name} must be bool, or 0 or 1; got {known[wrong].flat[0]}")
        values = values == 1
    return jnp.asarray(values) & where


def power_of_two(values: chex.Array) -> chex.Array:
    """The largest power of two not above positive values; 1 for 0 and what is not finite.

    Multiplying and dividing by it rounds nothing.
    """
    usable = jnp.isfinite(values) & (values > 0)
    _, exponent = jnp.frexp(jax.lax.stop_gradient(jnp.where(usable, values, 1)))
    return jnp.ldexp(jnp.ones_like(values), jnp.clip(exponent - 1, -125, 125))


def excess_over_reference(
    values: Any, mask: chex.Array, *, axis: int | None = None, axis_name: str | None = None
) -> tuple[chex.Array, chex.Array, chex.Array]:
    """What values have beyond a reference of their group, without loss where it is small.

    The reference is the smallest value, or 0 where there are values on both sides of it. It is
    subtracted in the input's own type, so values with a large common offset, integers that no
    float32 tells apart and numpy's float64 keep what distinguishes them.

    Args:
      values: array of real numbers (see `as_real`).
      mask: bool, same shape; the values that count.
      axis: that runs over the members of a group; None = one group.
      axis_name: mapped axis that groups also run over (data parallel).

    Returns:
      (excess, unit, reference): value = reference + excess * unit. `excess` has the shape of
      `values` and is 0 outside the mask, and throughout in a group of equal values; `unit` is a
      power of two that keeps squares of the excess in range; `reference` is rounded to a float.
      Both keep `axis` with size 1, and no gradient flows through them. In a group with a NaN or an
      infinity the results are not finite.
    """
    values = as_real(values, "values")
    dtype = float_type(values.dtype)
    known = None if isinstance(values, jax.Array) or axis_name is not None else seen(mask)
    xp: Any = jnp if known is None else np
    if xp is jnp:
        values = as_array(values, "values")
    else:
        mask = known
    integers = not jnp.issubdtype(values.dtype, jnp.floating)
    if values.dtype == bool:
        values = values.astype(np.uint8)
    elif not integers and jnp.finfo(values.dtype).bits < 32:
        values = values.astype(np.float32)
    constant = values if integers or xp is np else jax.lax.stop_gradient(values)
    smallest, largest = _ends(xp, constant, mask, axis, axis_name)
    reference = xp.where((smallest < 0) & (largest > 0), xp.zeros_like(smallest), smallest)
    values = xp.where(mask, values, reference)
    if integers:  # modulo 2^bits the difference is right as an unsigned number
        unsigned = np.dtype(f"uint{max(jnp.iinfo(values.dtype).bits, 8)}")
        x, r = values.astype(unsigned), reference.astype(unsigned)
        apart = xp.where(values >= reference, (x - r).astype(dtype), -(r - x).astype(dtype))
        excess, size = jnp.asarray(apart), jnp.max(jnp.abs(apart), axis, keepdims=True, initial=0)
        size = size if axis_name is None else jax.lax.pmax(size, axis_name)
        unit = power_of_two(size)
        return excess / unit, unit, jnp.asarray(reference.astype(dtype))
    size = xp.maximum(xp.abs(smallest), xp.abs(largest)).astype(dtype)
    unit = power_of_two(jnp.asarray(size))
    exact = np.asarray(unit).astype(values.dtype) if xp is np else unit
    with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, as it should be
        excess = jnp.asarray((values / exact - reference / exact).astype(dtype))
    return excess, unit, jnp.asarray(reference.astype(dtype))


def _ends(xp: Any, values: Any, mask: Any, axis: int | None, axis_name: str | None) -> Any:
    """The smallest and the largest value of each group; 0 where a group is empty."""
    if jnp.issubdtype(values.dtype, jnp.floating):
        top, bottom = np.asarray(np.inf, values.dtype), np.asarray(-np.inf, values.dtype)
    else:
        limits = jnp.iinfo(values.dtype)
        top, bottom = (np.asarray(x, values.dtype) for x in (limits.max, limits.min))
    smallest = xp.min(xp.where(mask, values, top), axis, keepdims=True, initial=top)
    largest = xp.max(xp.where(mask, values, bottom), axis, keepdims=True, initial=bottom)
    if axis_name is not None:
        smallest = jax.lax.pmin(smallest, axis_name)
        largest = jax.lax.pmax(largest, axis_name)
    empty = smallest > largest
    nothing = xp.zeros_like(smallest)
    return xp.where(empty, nothing, smallest), xp.where(empty, nothing, largest)


def varying_like(constant: chex.Array, *like: chex.Array) -> chex.Array:
    """A constant that `jax.shard_map` takes to vary over the devices as `like` does.

    A loop whose carry starts from a constant and becomes different on every device is refused
    there. Compiled, this is the constant itself.
    """
    for other in jax.tree.leaves(like):
        constant = jnp.where(jnp.any(jnp.equal(other, other)), constant, constant)
    return constant
