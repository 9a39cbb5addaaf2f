"""Trials of two versions, simulated: the library's functions, vmapped over trials."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.core.contrast import Contrast
from reskill_jax.core.horizon import relative_horizon_log_likelihood
from reskill_jax.core.posterior import init_posterior
from reskill_jax.core.trial import observe_trial, start_trial

from .outcomes import World, group_outcomes, rates, tables
from .rules import MEANS, RULES, superiority

DIFFERENCES = (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2)


class Design(NamedTuple):
    """How rollouts are assigned, and what the posterior behind it forgets."""

    scheme: str = "stratified"
    floor: float = 0.15  # 0.5 = uniform
    discount: str = "adaptive"  # "none" | "last step" | "adaptive" | "exact"


REFERENCE = Design("independent")
OURS = Design()
DESIGNS = {
    "reference": REFERENCE,
    "ours": OURS,
    "independent, no discount": Design("independent", discount="none"),
    "stratified, no discount": Design(discount="none"),
    "stratified, last step": Design(discount="last step"),
    "stratified, exact horizon": Design(discount="exact"),
    "stratified, uniform": Design(floor=0.5),
    "independent, uniform, no discount": Design("independent", 0.5, "none"),
}


@functools.partial(
    jax.jit, static_argnames=("trials", "groups", "size", "scheme", "rules", "max_steps")
)
def simulate(
    key, outcomes, statistics, horizons, floor, forget, *, trials, groups, size, scheme, rules,
    max_steps,
):  # fmt: skip
    """Trials that nobody ends, and what every rule would say after every step.

    Returns:
      counts [steps, trials, 2] of rollouts of each arm; decisions [steps, rules, trials]; the
      trials at the end.
    """
    first = start_trial(2, jnp.ones(2, bool), max_steps=max_steps)
    first = jax.tree.map(lambda x: jnp.broadcast_to(x, (trials, *x.shape)), first)
    places = jnp.arange(size, dtype=jnp.float32)

    def step(carry, now):
        trial, key = carry
        key, arm_key, outcome_key = jax.random.split(key, 3)
        share = jnp.clip(superiority(trial.posterior), floor, 1 - floor)[:, None, None]
        if scheme == "stratified":
            points = (jax.random.uniform(arm_key, (trials, groups, 1)) + places) / size
        else:
            points = jax.random.uniform(arm_key, (trials, groups, size))
        new = jnp.sum(points >= 1 - share, axis=2, dtype=jnp.int32)  # [trials, groups]
        place = jax.random.uniform(outcome_key, (trials, groups)) * now.chance.shape[1]
        outcome = place.astype(jnp.int32)
        kept = place - outcome < now.chance[new, outcome]
        outcome = jnp.where(kept, outcome, now.alias[new, outcome])
        won_new, won_old, score, weight, variance = jnp.moveaxis(
            jnp.sum(statistics[new, outcome], axis=1), 1, 0
        )
        tried = jnp.sum(new, axis=1)
        tried = jnp.stack([groups * size - tried, tried], axis=1)
        won = jnp.stack([won_old, won_new], axis=1).astype(jnp.int32)
        contrast = Contrast(*(jnp.stack([0 * x, x], axis=1) for x in (score, weight, variance)))
        fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (trials, 2)), init_posterior(2))
        before = jax.tree.map(lambda a, b: jnp.where(forget, a, b), fresh, trial.posterior)
        trial = jax.vmap(lambda t, s, n, h, c: observe_trial(t, s, n, horizon=h, contrast=c))(
            trial._replace(posterior=before), won, tried, horizons, contrast
        )
        said = jnp.stack([jax.vmap(RULES[rule])(trial) for rule in rules])
        return (trial, key), (tried, said.astype(jnp.int8))

    (trial, _), (tried, said) = jax.lax.scan(step, (first, key), outcomes)
    return tried, said, trial


def results(tried, said, of_step) -> dict[str, np.ndarray]:
    """Per rule and trial: accepted, steps, regret in successes. Rates [WINDOW, 2]."""
    tried, said = np.asarray(tried), np.asarray(said)
    per_step = tried.sum(-1)[0]
    worst = of_step.max(1, keepdims=True) - of_step  # [WINDOW, 2], what an arm costs per rollout
    spent = np.cumsum(np.einsum("kra,ka->kr", tried, worst[: len(tried)]), axis=0)
    later = np.concatenate([np.cumsum(worst[::-1], axis=0)[::-1], np.zeros((1, 2))])
    at = np.argmax(said >= 0, axis=0)  # [rules, trials]
    trial = np.arange(said.shape[2])
    accepted = np.take_along_axis(said, at[None], axis=0)[0]
    if (accepted < 0).any():
        raise ValueError("a rule did not decide; its trials are longer than the simulation")
    regret = spent[at, trial] + per_step[trial] * later[at + 1, accepted]
    return {"accepted": accepted, "steps": at + 1, "regret": regret}


def horizons_of(world: World, *, seed: int, trials: int = 160, completed: int = 6) -> dict:
    """Horizons the library would estimate in this world after `completed` trials.

    Log likelihoods of trials of six steps with the differences of the study, evenly; those of
    `completed` at a time, drawn again and again, are added up. "exact": of all together.
    """
    likelihood = []
    each = jax.jit(jax.vmap(relative_horizon_log_likelihood))
    share = -(-trials // len(DIFFERENCES))
    undiscounted = Design(discount="none")
    for number, difference in enumerate(DIFFERENCES):
        made = run_trials(world, difference, undiscounted, share, 6, (MEANS,), seed + number)
        trial = made[-1]
        likelihood.append(np.asarray(each(trial.successes, trial.trials)))
    likelihood = np.concatenate(likelihood)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(likelihood), (1000, completed))
    found = np.argmax(likelihood[drawn].sum(1), axis=1) + 1
    return {"adaptive": found.tolist(), "exact": int(np.argmax(likelihood.sum(0)) + 1)}


def run_trials(world, difference, design, trials, steps, rules, seed, horizons=None):
    """The simulation of one cell."""
    memory = np.full(trials, np.inf, np.float32)
    if design.discount == "adaptive":
        memory = np.random.default_rng(seed).choice(horizons["adaptive"], trials)
    elif design.discount == "exact":
        memory[:] = horizons["exact"]
    outcomes = tables(world, difference, steps)
    return simulate(
        jax.random.key(seed),
        jax.tree.map(jnp.asarray, outcomes),
        jnp.asarray(group_outcomes(world.group_size)[2]),
        jnp.asarray(memory, jnp.float32),
        jnp.float32(design.floor),
        design.discount == "last step",
        trials=trials,
        groups=world.groups,
        size=world.group_size,
        scheme=design.scheme,
        rules=tuple(rules),
        max_steps=steps,
    )


def cell(world, difference, design, *, trials, rules, seed, horizons) -> dict[str, dict]:
    """Rule -> share accepted, mean steps and mean regret, with standard errors."""
    steps = max([24 if "24" in r else 16 for r in rules])
    tried, said, _ = run_trials(world, difference, design, trials, steps, rules, seed, horizons)
    found = results(tried, said, rates(world, difference))
    return {
        rule: {
            name: [float(values[i].mean()), float(values[i].std() / math.sqrt(trials))]
            for name, values in found.items()
        }
        for i, rule in enumerate(rules)
    }
