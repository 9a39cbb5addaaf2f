"""What a step tells: lines of the logs, and words for the person who watches."""

from typing import Any

import jax
import numpy as np

from reskill_jax.core.trial import sequential_log_odds
from reskill_jax.creator.propose import Proposal
from reskill_jax.training.config import TrainConfig
from reskill_jax.training.lifecycle import Life
from reskill_jax.training.step import StepMetrics

# Fields of StepMetrics that a line of metrics.jsonl tells in another form, or not at all.
_TOLD_OTHERWISE = (
    *("arm_successes", "posterior", "horizon", "contrast"),
    *("trial_successes", "trial_trials"),
)


def metrics_line(metrics: StepMetrics, step: int, trial: int | None) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    plain = {
        name: value.tolist() if isinstance(value, np.ndarray) else value
        for name, value in metrics._asdict().items()
        if name not in _TOLD_OTHERWISE
    }
    tried = np.maximum(metrics.arm_trials, 1)
    return {
        "step": step,
        "trial": trial,
        **plain,
        "arm_success": np.where(
            metrics.arm_trials > 0, metrics.arm_successes / tried, np.nan
        ).tolist(),
        "horizon": float(metrics.horizon),
        "posterior": {
            "alpha": metrics.posterior.alpha.tolist(),
            "beta": metrics.posterior.beta.tolist(),
        },
        "difference": metrics.contrast.difference.tolist(),
    }


_log_odds = jax.jit(sequential_log_odds)


def sequential_test(
    metrics: StepMetrics, proposal: Proposal | None, config: TrainConfig
) -> dict[str, Any] | None:
    """Where the test of the trial under way stands, see `SequentialTest`; None without one."""
    if proposal is None or config.trial_rule != "sequential":
        return None
    test = _log_odds(
        metrics.contrast,
        np.arange(config.arms) < 2,
        margin=margin_of(proposal, config),
        gain=config.trial_gain,
        false_accept=config.trial_false_accept,
        false_reject=config.trial_false_reject,
    )
    return {name: np.asarray(value).tolist() for name, value in test._asdict().items()}


def evidence_of(metrics: StepMetrics) -> dict[str, Any]:
    """What a line about a decision says of the trial it ends."""
    return {
        "successes": metrics.trial_successes.tolist(),
        "trials": metrics.trial_trials.tolist(),
        "posterior": {
            "alpha": metrics.posterior.alpha.tolist(),
            "beta": metrics.posterior.beta.tolist(),
        },
        "horizon": float(metrics.horizon),
        "difference": [round(float(value), 4) for value in metrics.contrast.difference],
    }


def effect_words(metrics: StepMetrics, config: TrainConfig) -> str:
    """What the candidate's trial found, in a few words."""
    if config.trial_rule == "means":
        mean = metrics.posterior.alpha / (metrics.posterior.alpha + metrics.posterior.beta)
        return f"success {mean[1]:.0%} against {mean[0]:.0%}"
    if not metrics.contrast.weight[1] > 0:
        return "nothing to compare"
    error = np.sqrt(metrics.contrast.variance[1]) / metrics.contrast.weight[1]
    return f"success {100 * metrics.contrast.difference[1]:+.1f} ± {100 * error:.1f} points"


def reason_of(metrics: StepMetrics, config: TrainConfig) -> str:
    """What decided a trial, in words."""
    if config.trial_rule == "means":
        mean = metrics.posterior.alpha / (metrics.posterior.alpha + metrics.posterior.beta)
        return f"posterior mean {mean[1]:.3f} of the candidate against {mean[0]:.3f}"
    contrast = metrics.contrast
    error = np.sqrt(contrast.variance[1]) / np.maximum(contrast.weight[1], 1e-9)
    return (
        f"success {contrast.difference[1]:+.3f} (standard error {error:.3f}) within groups, in the "
        "tasks where the versions differ"
    )


def margin_of(proposal: Proposal, config: TrainConfig) -> float:
    """By how much the candidate may be worse and still be accepted."""
    return config.retire_margin if proposal.kind == "retirement" else 0.0


def trial_words(metrics: StepMetrics, life: Life) -> str | None:
    """How the trial under way stands, in a few words; None without one."""
    if life.proposal is None:
        return None
    if int(metrics.arm_trials[1:].sum()) == 0:
        return f"trial {life.proposal.id}"
    rates = metrics.arm_successes / np.maximum(metrics.arm_trials, 1)
    return f"trial {life.proposal.id}: {rates[1]:.0%} new, {rates[0]:.0%} old"
