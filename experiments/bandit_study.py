"""How often does a trial of two versions of the skills end wrongly? Decision rules by simulation.

    python experiments/bandit_study.py [--quick] [--trials 10000]     # goes on where it was stopped

Simulates trials inside GRPO groups: B groups of G rollouts a step, group difficulties that vary,
a bank in use and a candidate whose success rates differ by a known amount, constant or drifting.
Trials, posteriors, contrasts and decisions are those of reskill_jax.core, vmapped over trials.
Writes experiments/results/bandit_study.json, the figures docs/figures/decision_*.svg and the
tables of docs/decision_rule.md. Two things are not the library's own, for speed: rollouts of a
group are drawn at once, from the exact distribution of its counts (so the library's contrast is
looked up, not added up again), and P(new > old) is a normal approximation of
`probability_best`; the tests compare both with the real ones.
"""

import argparse
import functools
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.core.contrast import Contrast, within_group_contrast
from reskill_jax.core.horizon import relative_horizon_log_likelihood
from reskill_jax.core.posterior import BetaPosterior, init_posterior
from reskill_jax.core.trial import (
    Trial,
    decide_sequentially,
    decide_trial,
    observe_trial,
    start_trial,
)
from reskill_jax.machine import describe_machine

ROOT = Path(__file__).resolve().parent.parent
DIFFERENCES = (-0.2, -0.1, -0.05, -0.02, 0.0, 0.02, 0.05, 0.1, 0.2)
LENGTHS = (5, 6, 10, 16, 24)
WINDOW = 40  # steps over which regret is counted: the trial, then the version chosen
DRIFT = 16  # steps a drift takes
MARGIN = 0.04


class World(NamedTuple):
    """What is to be found out about. Rates are means over groups."""

    base: float = 0.3  # success rate with the bank in use, at the first step
    drift: str = "none"  # "rising": both rates by 30 points; "crossing": from -difference to it
    spread: float = 1.5  # standard deviation of the logit of a group's success rate
    unequal: float = 0.0  # the difference is this much larger in half of the groups, or smaller
    groups: int = 16
    group_size: int = 8


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


# --- rules ----------------------------------------------------------------------------------------


def superiority(posterior: BetaPosterior) -> jax.Array:
    """P(arm 1 better than arm 0) of a [..., 2] posterior, by the normal approximation."""
    count = posterior.alpha + posterior.beta
    mean = posterior.alpha / count
    variance = jnp.sum(mean * (1 - mean) / (count + 1), -1)
    return jax.scipy.stats.norm.cdf((mean[..., 1] - mean[..., 0]) / jnp.sqrt(variance))


def by_probability(trial: Trial, probability, accept, reject, final, *, min_steps=2):
    """Accept at P >= accept, reject at P <= reject; when time is up accept at P >= final."""
    full = trial.steps >= trial.trials.shape[0]
    enough = trial.steps >= min_steps
    accepted = enough & (probability >= accept) | full & (probability >= final)
    rejected = (enough & (probability <= reject) | full) & ~accepted
    return jnp.where(accepted, 1, jnp.where(rejected, 0, -1)).astype(jnp.int32)


def of_posterior(trial: Trial, accept=0.95, reject=0.2, final=0.9):
    """The probability of superiority of the pooled counts."""
    return by_probability(trial, superiority(trial.posterior), accept, reject, final)


def of_groups(trial: Trial, accept=0.98, reject=0.3, final=0.95):
    """That of the differences within groups."""
    score, variance = trial.contrast.score[1], trial.contrast.variance[1]
    z = jnp.where(variance > 0, score / jnp.sqrt(jnp.where(variance > 0, variance, 1)), 0)
    return by_probability(trial, jax.scipy.stats.norm.cdf(z), accept, reject, final)


def cut(rule: Callable, length: int, margin: float = 0.0) -> Callable:
    """The rule in trials of at most `length` steps."""

    def decide(trial: Trial):
        return rule(
            trial._replace(
                successes=trial.successes[:length],
                trials=trial.trials[:length],
                margin=jnp.float32(margin),
            )
        )

    return decide


RULES: dict[str, Callable] = {
    **{f"means, {k} steps": cut(functools.partial(decide_trial, min_steps=k), k) for k in LENGTHS},
    **{f"sequential, at most {k}": cut(decide_sequentially, k) for k in LENGTHS},
    **{f"P pooled, at most {k}": cut(of_posterior, k) for k in LENGTHS},
    **{f"P within groups, at most {k}": cut(of_groups, k) for k in LENGTHS},
    "sequential, gain 10": cut(functools.partial(decide_sequentially, gain=0.1), 16),
    "sequential, gain 6": cut(functools.partial(decide_sequentially, gain=0.06), 16),
    "sequential, gain 3": cut(functools.partial(decide_sequentially, gain=0.03), 16),
    "retire: sequential": cut(decide_sequentially, 16, MARGIN),
    "retire: means, margin 1": cut(functools.partial(decide_trial, min_steps=5), 5, 0.01),
}
MEANS, CHOSEN = "means, 5 steps", "sequential, at most 16"


# --- worlds as tables -----------------------------------------------------------------------------


def rates(world: World, difference: float, steps: int = WINDOW) -> np.ndarray:
    """[steps, 2] mean success rates of the bank in use and the candidate."""
    passed = np.minimum(np.arange(steps) / DRIFT, 1)
    old = np.full(steps, world.base)
    if world.drift == "rising":
        old = old + 0.3 * passed
    elif world.drift == "crossing":
        difference = difference * (2 * passed - 1)
    return np.stack([old, np.clip(old + difference, 0.005, 0.995)], axis=1)


class Outcomes(NamedTuple):
    """What a group can show, n1 of its G rollouts having the candidate. At most M outcomes."""

    chance: np.ndarray  # [G + 1, M] float: of the alias method, to keep the outcome drawn
    alias: np.ndarray  # [G + 1, M] int, the outcome otherwise


@functools.cache
def _counts(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(s1, s0) of every outcome [G + 1, M, 2], whether it exists [G + 1, M], statistics [., ., 5].

    The statistics: s1, s0, and the score, weight and variance of the library's contrast.
    """
    width = max((n + 1) * (size - n + 1) for n in range(size + 1))
    wins = np.zeros((size + 1, width, 2), int)
    exists = np.zeros((size + 1, width), bool)
    for new in range(size + 1):
        pairs = [(a, b) for a in range(new + 1) for b in range(size - new + 1)]
        wins[new, : len(pairs)] = pairs
        exists[new, : len(pairs)] = True
    place = np.arange(size)
    arms = np.broadcast_to((place < np.arange(size + 1)[:, None]).astype(int), (size + 1, size))
    arms = np.broadcast_to(arms[:, None], (size + 1, width, size))
    nth = np.where(arms == 1, place, place - np.arange(size + 1)[:, None, None])
    success = nth < np.where(arms == 1, wins[..., :1], wins[..., 1:])
    compare = functools.partial(within_group_contrast, num_arms=2)
    each = jax.jit(jax.vmap(lambda a, s: compare(a[None], s[None], jnp.ones_like(s)[None])))
    found = each(arms.reshape(-1, size), success.reshape(-1, size))
    found = np.stack([np.asarray(x)[:, 1].reshape(exists.shape) for x in found], axis=-1)
    return wins, exists, np.concatenate([wins, found], axis=-1).astype(np.float32)


def _binomial(size: int, rate: np.ndarray) -> np.ndarray:
    """[..., n, k] probabilities of k of n = 0..size."""
    coefficients = np.array([[math.comb(n, k) for k in range(size + 1)] for n in range(size + 1)])
    k = np.arange(size + 1)
    failures = np.maximum(k[:, None] - k[None, :], 0)
    rate = np.asarray(rate)[..., None, None]
    return coefficients * rate**k * (1 - rate) ** failures


def outcome_probabilities(world: World, old: float, new: float) -> np.ndarray:
    """[G + 1, M] exact probabilities of a group's outcomes, its difficulty averaged over."""
    points, weights = np.polynomial.hermite_e.hermegauss(41)
    weights = weights / weights.sum()
    grid = np.linspace(-20, 20, 2001)
    means = (weights / (1 + np.exp(-(grid[:, None] + world.spread * points)))).sum(1)
    size = world.group_size
    wins, exists, _ = _counts(size)
    n = np.arange(size + 1)[:, None]
    total = np.zeros(exists.shape)
    for sign in (-1, 1) if world.unequal else (0,):
        other = np.clip(new + sign * world.unequal, 0.005, 0.995)
        logits = (np.interp(rate, means, grid) + world.spread * points for rate in (old, other))
        a, b = (_binomial(size, 1 / (1 + np.exp(-logit))) for logit in logits)
        chance = b[:, n, wins[..., 0]] * a[:, size - n, wins[..., 1]]  # [points, G + 1, M]
        total += np.tensordot(weights, chance, 1) / (2 if world.unequal else 1)
    return np.where(exists, total, 0)


def alias_table(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Walker's alias method: draw a place uniformly, keep it with `chance`, else take `alias`."""
    size = len(probabilities)
    left = probabilities / probabilities.sum() * size
    chance, alias = np.ones(size), np.arange(size)
    small = [i for i in range(size) if left[i] < 1]
    large = [i for i in range(size) if left[i] >= 1]
    while small and large:
        low, high = small.pop(), large[-1]
        chance[low], alias[low] = left[low], high
        left[high] -= 1 - left[low]
        if left[high] < 1:
            small.append(large.pop())
    return chance, alias


def tables(world: World, difference: float, steps: int) -> Outcomes:
    """[steps, G + 1, M]: outcomes at every step."""
    of_step = rates(world, difference, steps)
    made: dict[tuple, tuple] = {}
    for old, new in of_step:
        if (old, new) not in made:
            rows = [alias_table(row) for row in outcome_probabilities(world, old, new)]
            made[old, new] = tuple(np.stack(x) for x in zip(*rows))
    chance, alias = zip(*(made[old, new] for old, new in of_step))
    return Outcomes(np.stack(chance).astype(np.float32), np.stack(alias).astype(np.int32))


# --- the simulation -------------------------------------------------------------------------------


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
        jnp.asarray(_counts(world.group_size)[2]),
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


# --- the study ------------------------------------------------------------------------------------

MAIN = (MEANS, CHOSEN, "P pooled, at most 16", "P within groups, at most 16")


def plan(quick: bool) -> list[tuple[str, World, str, tuple[str, ...]]]:
    """(name of the world, world, design, rules) of every row of cells."""
    worlds = {
        f"base {base:.0%}, drift {drift}, spread {spread:g}": World(base, drift, spread)
        for base in (0.3, 0.6)
        for drift in ("none", "rising", "crossing")
        for spread in (0.0, 1.5, 3.0)
    }
    worlds["unequal effects"] = World(unequal=0.1)
    worlds["256 groups of 5"] = World(groups=256, group_size=5)
    usual = [f"base 30%, drift {drift}, spread 1.5" for drift in ("none", "rising", "crossing")]
    if quick:
        worlds = {name: worlds[name] for name in usual}
    rows = []
    for name, world in worlds.items():
        for design in DESIGNS if name in usual else ("reference", "ours"):
            all_rules = name == usual[0] and design in ("reference", "ours")
            many = (*MAIN, "sequential, gain 3") if world.groups > 100 else MAIN
            rows.append((name, world, design, tuple(RULES) if all_rules else many))
    return rows


def study(
    *, trials: int, quick: bool, seed: int = 0, kept: dict | None = None, say: Callable = print
) -> Iterator[dict[str, Any]]:
    """The results after every row of the plan; rows that are in `kept` are not simulated again."""
    memories: dict[tuple, dict] = {}
    fresh = {
        "trials": trials,
        "seed": seed,
        "window": WINDOW,
        "machine": describe_machine(),
        "seconds": 0,
    }
    found = fresh | {"horizons": {}, "cells": []}
    same = ("trials", "seed", "window")
    if kept is not None and all(kept[name] == found[name] for name in same):
        found = kept
    done = {(c["world"], c["design"]) for c in found["cells"]}
    started = time.perf_counter() - found["seconds"]
    rows = plan(quick)
    for number, (name, world, design, rules) in enumerate(rows):
        if (name, design) in done:
            continue
        kind = (world.drift, world.group_size)
        if kind not in memories:
            usual = World(drift=world.drift, groups=world.groups, group_size=world.group_size)
            memories[kind] = horizons_of(usual, seed=seed, trials=36 if quick else 160)
            found["horizons"][f"{world.drift}, groups of {world.group_size}"] = {
                "adaptive": np.quantile(memories[kind]["adaptive"], [0.1, 0.5, 0.9]).tolist(),
                "exact": memories[kind]["exact"],
            }
        for at, difference in enumerate(DIFFERENCES):
            values = cell(
                world,
                difference,
                DESIGNS[design],
                trials=trials,
                rules=rules,
                seed=seed + 1000 * number + at,
                horizons=memories[kind],
            )
            place = {"world": name, "design": design, "difference": difference}
            found["cells"] += [place | {"rule": rule} | values[rule] for rule in rules]
        found["seconds"] = round(time.perf_counter() - started)
        say(f"{number + 1}/{len(rows)} rows, {found['seconds']} s: {name}; {design}", flush=True)
        yield found


def write(path: Path, found: dict) -> None:
    """Replaces the results as a whole, so that a run that is stopped can go on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = [
        {k: [float(f"{x:.5g}") for x in v] if isinstance(v, list) else v for k, v in cell.items()}
        for cell in found["cells"]
    ]
    lines = ",\n".join(json.dumps(cell) for cell in rounded)
    head = json.dumps({k: v for k, v in found.items() if k != "cells"})[:-1]
    partial = path.with_suffix(".partial")
    partial.write_text(f'{head}, "cells": [\n{lines}\n]}}\n')
    partial.replace(path)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few trials, three worlds, no files")
    parser.add_argument("--trials", type=int, help="per cell; default 10000, quick 500")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", action="store_true", help="do not go on from kept results")
    parser.add_argument("--draw", action="store_true", help="tables and figures of kept results")
    arguments = parser.parse_args()
    path = ROOT / "experiments" / "results" / "bandit_study.json"
    if arguments.draw:
        found = json.loads(path.read_text())
    else:
        trials = arguments.trials or (500 if arguments.quick else 10_000)
        kept = None
        if path.exists() and not (arguments.quick or arguments.fresh):
            kept = json.loads(path.read_text())
        found = kept
        for found in study(trials=trials, quick=arguments.quick, seed=arguments.seed, kept=kept):
            if not arguments.quick:
                write(path, found)
    from bandit_report import figures, tables_text  # beside this file; needs matplotlib

    text = tables_text(found)
    print(text)
    if arguments.quick:
        return
    figures(found, ROOT / "docs" / "figures")
    page = ROOT / "docs" / "decision_rule.md"
    if page.exists():
        head, _, rest = page.read_text().partition("<!-- tables -->\n")
        _, _, tail = rest.partition("<!-- end of tables -->\n")
        page.write_text(f"{head}<!-- tables -->\n{text}\n<!-- end of tables -->\n{tail}")


if __name__ == "__main__":
    main()
