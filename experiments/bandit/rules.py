"""Decision rules of the bandit study, those of the library among them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from reskill_jax.core.posterior import BetaPosterior
from reskill_jax.core.trial import Trial, decide_sequentially, decide_trial

LENGTHS = (5, 6, 10, 16, 24)
MARGIN = 0.04


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
MAIN = (MEANS, CHOSEN, "P pooled, at most 16", "P within groups, at most 16")
