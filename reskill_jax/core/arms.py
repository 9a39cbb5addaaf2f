"""Which rollout gets which version of the skills, and what came of it.

Source: ReSkill, arXiv:2606.01619, section 3 (Thompson assignment with a floor).
"""

import chex
import jax
import jax.numpy as jnp

from reskill_jax.core.posterior import BetaPosterior, probability_best


def assignment_probabilities(
    posterior: BetaPosterior, arm_mask: chex.Array, *, floor: float = 0.15
) -> chex.Array:
    """Probability that the next rollout gets each arm: that of being best, kept above a floor.

    Two arms: clipped to [floor, 1 - floor]. A arms: no existing arm falls below 2 * floor / A, and
    the probabilities of the others shrink in proportion to make room. One arm: 1.

    Args:
      posterior: [A] alpha and beta.
      arm_mask: [A] bool, the arms that exist.
      floor: in [0, 0.5]; 0.5 is uniform assignment.

    Returns:
      [A] float summing to 1; 0 for arms that do not exist.

    Raises:
      ValueError: `floor` is outside [0, 0.5].
      AssertionError: wrong shapes.
    """
    if isinstance(floor, (int, float)) and not 0 <= floor <= 0.5:
        raise ValueError(f"floor must lie in [0, 0.5], got {floor}")
    best = probability_best(posterior, arm_mask)
    arm_mask = jnp.asarray(arm_mask).astype(bool)
    existing = jnp.sum(arm_mask).astype(best.dtype)
    lowest = jnp.where(existing > 1, 2 * floor / jnp.maximum(existing, 1), 0)

    # Raising one arm to the floor shrinks the rest, which can push the next one below it: at most
    # A rounds settle it.
    scale = jnp.ones_like(lowest)
    for _ in range(best.shape[0]):
        at_floor = arm_mask & (best * scale < lowest)
        left = 1 - lowest * jnp.sum(at_floor).astype(best.dtype)
        mass = jnp.sum(jnp.where(at_floor, 0, best))
        scale = jnp.where(mass > 0, jnp.maximum(left, 0) / jnp.where(mass > 0, mass, 1), 0)
    return jnp.where(arm_mask, jnp.maximum(best * scale, lowest), 0)


def assign_arms(
    key: chex.PRNGKey,
    probabilities: chex.Array,
    *,
    num_groups: int,
    group_size: int,
    scheme: str = "independent",
) -> chex.Array:
    """Draws an arm for every rollout.

    Args:
      key: random key.
      probabilities: [A] float, need not be normalised; an arm with 0 is never drawn.
      num_groups: B.
      group_size: G.
      scheme: "independent": every rollout on its own, as in the paper. "stratified": within each
        group an arm gets floor(G p) or ceil(G p) rollouts, G p on average, in random order; the
        marginal of every single rollout is the same as with "independent".

    Returns:
      [B, G] int32 arms.

    Raises:
      ValueError: unknown scheme.
      AssertionError: `probabilities` is not [A].
    """
    if scheme not in ("independent", "stratified"):
        raise ValueError(f"scheme must be 'independent' or 'stratified', got {scheme!r}")
    probabilities = jnp.asarray(probabilities)
    chex.assert_rank(probabilities, 1)
    draw_key, order_key = jax.random.split(key)
    if scheme == "independent":
        points = jax.random.uniform(draw_key, (num_groups, group_size))
    else:
        start = jax.random.uniform(draw_key, (num_groups, 1))
        points = (start + jnp.arange(group_size, dtype=start.dtype)[None, :]) / group_size
        points = jax.random.permutation(order_key, points, axis=1, independent=True)

    # The arm of a point is the number of arms that end at or before it. An arm of probability 0
    # ends where the one before it does, so no point falls into it.
    ends = jnp.cumsum(probabilities)
    passed = (points * ends[-1])[:, :, None] >= ends[None, None, :]
    arms = jnp.sum(passed, axis=-1, dtype=jnp.int32)
    num_arms = probabilities.shape[0]
    last = num_arms - 1 - jnp.argmax((probabilities > 0)[::-1]).astype(jnp.int32)
    return jnp.minimum(arms, last)


def arm_outcomes(
    arms: chex.Array,
    success: chex.Array,
    valid: chex.Array,
    *,
    num_arms: int,
    axis_name: str | None = None,
) -> tuple[chex.Array, chex.Array]:
    """Counts episodes and successes per arm, as integers so that every replica agrees exactly.

    Args:
      arms: integers of any shape, usually [B, G].
      success: same shape, bool or 0/1.
      valid: same shape; False for an episode that does not count (a crashed environment).
      num_arms: A.
      axis_name: mapped axis to sum over (data parallel).

    Returns:
      (successes [A] int32, trials [A] int32).

    Raises:
      AssertionError: the shapes differ or `arms` is not of integers.
    """
    arms, success, valid = jnp.asarray(arms), jnp.asarray(success), jnp.asarray(valid)
    chex.assert_equal_shape([arms, success, valid])
    chex.assert_type(arms, int)
    arms = arms.reshape(-1)
    valid = valid.reshape(-1).astype(bool)
    success = success.reshape(-1).astype(bool) & valid
    member = arms[None, :] == jnp.arange(num_arms, dtype=arms.dtype)[:, None]  # [A, N]
    trials = jnp.sum(member & valid[None, :], axis=1, dtype=jnp.int32)
    successes = jnp.sum(member & success[None, :], axis=1, dtype=jnp.int32)
    if axis_name is not None:
        successes, trials = jax.lax.psum((successes, trials), axis_name)
    return successes, trials
