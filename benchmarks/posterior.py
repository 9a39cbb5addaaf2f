"""Statistics of one training step: assignment, posterior and horizon for 1,280 rollouts.

Ours, as one compiled program, against the way of the reference implementation: 20,000 Beta draws
with numpy for every single rollout (10,000 for each of two arms), and a replay of the trial for
every horizon in Python. Both in one run on one machine; the ratio is what counts.

    python benchmarks/posterior.py [--quick]
"""

import argparse
import time
from math import lgamma

import jax
import jax.numpy as jnp
import numpy as np

import reskill_jax as rs
from reskill_jax.devices.machine import describe_machine

NUM_GROUPS, GROUP_SIZE, NUM_ARMS, NUM_STEPS, GRID = 160, 8, 2, 5, 2000
DRAWS = 20_000


@jax.jit
def ours(key, posterior, success, successes_log, trials_log):
    """Arms, outcomes, posterior and horizon; the horizon belongs to the end of a trial only."""
    mask = jnp.ones(NUM_ARMS, bool)
    probabilities = rs.assignment_probabilities(posterior, mask, floor=0.15)
    arms = rs.assign_arms(
        key, probabilities, num_groups=NUM_GROUPS, group_size=GROUP_SIZE, scheme="independent"
    )
    counts = rs.arm_outcomes(arms, success, jnp.ones_like(success), num_arms=NUM_ARMS)
    posterior = rs.update_posterior(posterior, *counts, horizon=400.0)
    likelihood = rs.horizon_log_likelihood(successes_log, trials_log, grid_size=GRID)
    return arms, posterior, rs.estimate_horizon(likelihood, 2)


def reference_assignment(rng, alpha, beta, rollouts):
    """Arms as drawn by the reference: its own Monte Carlo estimate for every rollout."""
    arms = []
    for _ in range(rollouts):
        old = rng.beta(alpha[0], beta[0], DRAWS // 2)
        new = rng.beta(alpha[1], beta[1], DRAWS // 2)
        probability = min(max(float(np.mean(new > old)), 0.15), 0.85)
        arms.append(int(rng.random() < probability))
    return np.array(arms)


def reference_update(alpha, beta, arms, success):
    """Counts and discounted posterior, in Python."""
    for arm in range(NUM_ARMS):
        chosen = success[arms == arm]
        weight = 400.0 / (400.0 + len(chosen)) if len(chosen) else 1.0
        alpha[arm] = weight * alpha[arm] + chosen.sum()
        beta[arm] = weight * beta[arm] + (len(chosen) - chosen.sum())


def reference_horizon(successes_log, trials_log, grid):
    """Log likelihood of the trial for every horizon, in Python."""
    likelihood = np.zeros(len(grid))
    for index, memory in enumerate(grid):
        alpha, beta = [1.0] * NUM_ARMS, [1.0] * NUM_ARMS
        for step in range(NUM_STEPS):
            for arm in range(NUM_ARMS):
                m, n = int(successes_log[step, arm]), int(trials_log[step, arm])
                if n == 0:
                    continue
                weight = memory / (memory + n)
                a, b = max(weight * alpha[arm], 1e-6), max(weight * beta[arm], 1e-6)
                likelihood[index] += (
                    (lgamma(n + 1) - lgamma(m + 1) - lgamma(n - m + 1))
                    + (lgamma(a + m) + lgamma(b + n - m) - lgamma(a + b + n))
                    - (lgamma(a) + lgamma(b) - lgamma(a + b))
                )
                alpha[arm], beta[arm] = weight * alpha[arm] + m, weight * beta[arm] + n - m
    return likelihood


def seconds(function, repeats):
    """Median wall time."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def main() -> None:
    """Runs both ways and prints times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the reference's work, scaled up"
    )
    quick = parser.parse_args().quick
    share = 10 if quick else 1
    print(describe_machine())

    rng = np.random.default_rng(0)
    success = rng.random((NUM_GROUPS, GROUP_SIZE)) < 0.5
    trials_log = rng.integers(40, 88, (NUM_STEPS, NUM_ARMS))
    successes_log = rng.binomial(trials_log, 0.5)
    alpha, beta = np.array([40.0, 45.0]), np.array([60.0, 55.0])
    posterior = rs.BetaPosterior(jnp.asarray(alpha, jnp.float32), jnp.asarray(beta, jnp.float32))
    arguments = (posterior, jnp.asarray(success), jnp.asarray(successes_log), trials_log)

    start = time.perf_counter()
    jax.block_until_ready(ours(jax.random.key(0), *arguments))
    compile_time = time.perf_counter() - start
    keys = iter(jax.random.split(jax.random.key(1), 200))
    mine = seconds(lambda: jax.block_until_ready(ours(next(keys), *arguments)), 100)

    rollouts = NUM_GROUPS * GROUP_SIZE
    flat = success.reshape(-1)

    def assign():
        arms = reference_assignment(rng, alpha, beta, rollouts // share)
        reference_update(alpha.copy(), beta.copy(), arms, flat[: len(arms)])

    def replay():
        reference_horizon(successes_log, trials_log, range(1, GRID + 1)[::share])

    repeats = 1 if quick else 3
    theirs, horizon = seconds(assign, repeats) * share, seconds(replay, repeats) * share

    print(f"{rollouts} rollouts, {NUM_ARMS} arms, a trial of {NUM_STEPS} steps, {GRID} horizons")
    print(
        f"  compiled, everything          {mine * 1e3:9.3f} ms   (compiled in {compile_time:.1f} s)"
    )
    print(f"  host, assignment + posterior  {theirs * 1e3:9.1f} ms")
    print(f"  host, horizon                 {horizon * 1e3:9.1f} ms")
    print(f"  ratio, without the host's horizon  {theirs / mine:9,.0f} x")
    print(f"  ratio, everything                  {(theirs + horizon) / mine:9,.0f} x")


if __name__ == "__main__":
    main()
