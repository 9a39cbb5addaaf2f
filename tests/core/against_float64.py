"""Losses and gradients compared with an independent computation in float64 by numpy."""

import jax
import jax.numpy as jnp
import numpy as np


def numerical_gradient(function, x, step=1e-6):
    """Central differences of a numpy function of one float64 array."""
    gradient = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        gradient[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return gradient


def check(ours, theirs, x, *, rtol=1e-4, atol=1e-5):
    """`ours`, of JAX, and `theirs`, of numpy, are the same function of x, and so are the slopes.

    Args:
      ours: float32 array -> scalar. theirs: float64 array -> scalar. x: where.
    """
    value, gradient = jax.jit(jax.value_and_grad(ours))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(value, theirs(np.asarray(x, np.float64)), rtol=rtol, atol=atol)
    expected = numerical_gradient(theirs, np.asarray(x, np.float64))
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=atol)


def ragged(rng, rows, length):
    """[N, L] bool: rows of different lengths, with holes, the last row empty."""
    lengths = rng.integers(1, length + 1, rows)
    mask = (np.arange(length) < lengths[:, None]) & (rng.random((rows, length)) < 0.8)
    mask[:, 0] = True
    mask[-1] = False
    return mask
