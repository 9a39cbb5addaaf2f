"""Beta posteriors over the success rate of every arm, with a memory of M episodes.

Source: ReSkill, arXiv:2606.01619, section 3: w = M / (M + n), alpha <- w alpha + successes,
beta <- w beta + failures. The probability of being best replaces the paper's Monte Carlo draws by
quadrature.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

# Parameters below this are raised to it before a density is taken.
SMALLEST_PARAMETER = 1e-6

# Panels of the quadrature end where a log density has fallen by these amounts: close together at
# the mode, about equally far apart for a normal shape, out to a density of e^-26 of the mode's.
_PANELS_PER_SIDE = 12
_DROPS = 26.0 * (np.arange(1, _PANELS_PER_SIDE + 1) / _PANELS_PER_SIDE) ** 2
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(4)


def _antiderivative(nodes: np.ndarray) -> np.ndarray:
    """[K, K]: row i integrates the interpolating polynomial from -1 to node i."""
    degree = len(nodes)
    powers = nodes[:, None] ** np.arange(degree)
    integrals = (
        nodes[:, None] ** np.arange(1, degree + 1) - (-1.0) ** np.arange(1, degree + 1)
    ) / (np.arange(1, degree + 1))
    return integrals @ np.linalg.inv(powers)


_CUMULATIVE = _antiderivative(_NODES)


class BetaPosterior(NamedTuple):
    """Beta(alpha, beta) over the success rate of each arm."""

    alpha: chex.Array  # [A] float
    beta: chex.Array  # [A] float

    @property
    def mean(self) -> chex.Array:
        """[A] posterior means."""
        return self.alpha / (self.alpha + self.beta)


def init_posterior(num_arms: int) -> BetaPosterior:
    """Beta(1, 1), the uniform prior, for every arm."""
    if num_arms < 1:
        raise ValueError(f"num_arms must be at least 1, got {num_arms}")
    return BetaPosterior(jnp.ones(num_arms, float), jnp.ones(num_arms, float))


def discount_weight(trials: chex.Array, horizon: chex.Array | float) -> chex.Array:
    """M / (M + n): what is left of the past after n more episodes; 1 where n = 0 or M = inf.

    Args:
      trials: episodes n, any shape.
      horizon: memory M in episodes, > 0, inf allowed; broadcastable.

    Returns:
      Float weights of the broadcast shape.
    """
    trials, horizon = jnp.asarray(trials), jnp.asarray(horizon)
    dtype = jnp.result_type(trials.dtype, horizon.dtype, jnp.float32)
    trials, horizon = trials.astype(dtype), horizon.astype(dtype)
    forgets = (trials > 0) & jnp.isfinite(horizon)
    finite = jnp.where(forgets, horizon, 1)
    return jnp.where(forgets, finite / (finite + trials), 1).astype(dtype)


def update_posterior(
    posterior: BetaPosterior,
    successes: chex.Array,
    trials: chex.Array,
    *,
    horizon: chex.Array | float = jnp.inf,
) -> BetaPosterior:
    """One step: forget by `discount_weight`, the prior included, then add the counts.

    Args:
      posterior: [A] alpha and beta.
      successes: [A] int, successes <= trials.
      trials: [A] int; an arm with 0 is left as it is.
      horizon: memory M in episodes; inf = forget nothing.

    Returns:
      The posterior after the step.

    Raises:
      AssertionError: the shapes differ.
    """
    successes, trials = jnp.asarray(successes), jnp.asarray(trials)
    chex.assert_rank(posterior.alpha, 1)
    chex.assert_equal_shape([posterior.alpha, posterior.beta, successes, trials])
    weight = discount_weight(trials, horizon).astype(posterior.alpha.dtype)
    failures = (trials - successes).astype(posterior.alpha.dtype)
    return BetaPosterior(
        weight * posterior.alpha + successes.astype(posterior.alpha.dtype),
        weight * posterior.beta + failures,
    )


def _log_density_drop(a: chex.Array, b: chex.Array, distance: chex.Array) -> chex.Array:
    """Log density of the logit of a Beta(a, b) at `distance` >= 0 left of its mode, mode = 0.

    The logit y of a Beta has the log-concave density exp(a log s(y) + b log s(-y)) / B(a, b) with
    mode log(a / b), for all a, b > 0. Written relative to the mode nothing large cancels.
    """
    share_a, share_b = a / (a + b), b / (a + b)
    shrink = share_a * jnp.expm1(-distance)
    near = shrink > -0.5
    log_term = jnp.where(
        near,
        jnp.log1p(jnp.where(near, shrink, 0)),
        jnp.log(jnp.where(near, 1, share_b + share_a * jnp.exp(-distance))),
    )
    return -a * distance - (a + b) * log_term


def _log_density(a: chex.Array, b: chex.Array, logit: chex.Array) -> chex.Array:
    offset = logit - (jnp.log(a) - jnp.log(b))
    left = offset < 0
    return jnp.where(
        left,
        _log_density_drop(a, b, jnp.where(left, -offset, 0)),
        _log_density_drop(b, a, jnp.where(left, 0, offset)),
    )


def _distances(a: chex.Array, b: chex.Array) -> chex.Array:
    """[..., 1] parameters -> [..., _PANELS_PER_SIDE] distances left of the mode with `_DROPS`."""
    drops = jnp.asarray(_DROPS, a.dtype).reshape((1,) * (a.ndim - 1) + (-1,))
    share_a, share_b = a / (a + b), b / (a + b)
    # The left tail is a straight line of slope a that lies above the log density, so its distance
    # is an upper bound; from outside, Newton's method on a concave function approaches the root
    # without ever passing it. It need not arrive: any distance not below the true one will do.
    distance = (drops - (a + b) * jnp.log(share_b)) / a

    def newton(_, distance):
        tail = share_a * jnp.exp(-distance)
        slope = a * share_b / (share_b + tail) - b * tail / (share_b + tail)
        step = (-_log_density_drop(a, b, distance) - drops) / jnp.maximum(slope, 1e-30)
        return distance - jnp.maximum(jnp.where(slope > 0, step, 0), 0)

    return jax.lax.fori_loop(0, 16, newton, distance)


def probability_best(posterior: BetaPosterior, arm_mask: chex.Array) -> chex.Array:
    """Probability of each arm having the highest success rate.

    P(k best) = integral of f_k prod_{j != k} F_j, by composite Gauss-Legendre quadrature over the
    logit of the success rate, on panels that follow the density of every arm; distribution
    functions are integrated on the same nodes, so no incomplete beta function is needed. Accurate
    to about 1e-5 for parameters from 1e-6 to 1e4 and beyond.

    Args:
      posterior: [A] alpha and beta; values below 1e-6 are raised to it.
      arm_mask: [A] bool, the arms that exist.

    Returns:
      [A] float, 0 for arms that do not exist, summing to 1 when any does.

    Raises:
      AssertionError: wrong shapes.
    """
    alpha, beta = jnp.asarray(posterior.alpha), jnp.asarray(posterior.beta)
    arm_mask = jnp.asarray(arm_mask).astype(bool)
    chex.assert_rank(alpha, 1)
    chex.assert_equal_shape([alpha, beta, arm_mask])
    dtype = jnp.result_type(alpha.dtype, beta.dtype, jnp.float32)
    num_arms = alpha.shape[0]
    # An arm that does not exist takes the shape of one that does: its panels change nothing.
    first = jnp.argmax(arm_mask)
    a = jnp.where(arm_mask, alpha, alpha[first]).astype(dtype)[:, None]  # [A, 1]
    b = jnp.where(arm_mask, beta, beta[first]).astype(dtype)[:, None]
    a, b = jnp.maximum(a, SMALLEST_PARAMETER), jnp.maximum(b, SMALLEST_PARAMETER)

    mode = jnp.log(a) - jnp.log(b)
    edges = jnp.concatenate([mode - _distances(a, b), mode, mode + _distances(b, a)], axis=1)
    edges = jnp.sort(jax.lax.stop_gradient(edges).reshape(-1))  # [P + 1]
    half = (edges[1:] - edges[:-1])[:, None] / 2
    middle = (edges[1:] + edges[:-1])[:, None] / 2
    nodes = middle + half * jnp.asarray(_NODES, dtype)[None, :]  # [P, K]

    density = jnp.exp(_log_density(a[:, :, None], b[:, :, None], nodes[None]))  # [A, P, K]
    weights = half * jnp.asarray(_WEIGHTS, dtype)[None, :]
    mass = jnp.sum(density * weights[None], axis=2)  # [A, P]
    total = jnp.sum(mass, axis=1)[:, None, None]
    before = (jnp.cumsum(mass, axis=1) - mass)[:, :, None]
    inside = jnp.einsum(
        "apk,qk->apq", density, jnp.asarray(_CUMULATIVE, dtype), precision="highest"
    )
    below = jnp.clip((before + half[None] * inside) / total, 0, 1)  # [A, P, K]

    others = ~jnp.eye(num_arms, dtype=bool) & arm_mask[None, :]
    all_below = jnp.prod(jnp.where(others[:, :, None, None], below[None], 1), axis=1)
    best = jnp.sum(density / total * all_below * weights[None], axis=(1, 2))
    best = jnp.where(arm_mask, best, 0)
    return best / jnp.where(jnp.any(arm_mask), jnp.sum(best), 1)
