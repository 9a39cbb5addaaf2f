"""Who finds the cause: baselines, both sources and both together, with measures of each."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from experiments.attribution.episodes import VOCABULARY, Failures, Made
from reskill_jax.core.attribution import attribution_scores, pool
from reskill_jax.creators.attribution.features import StepFeatures
from reskill_jax.creators.attribution.models import (
    KINDS,
    NONE,
    TableModel,
    calibrated,
    fit_logistic,
    fit_tables,
    log_prior,
)
from reskill_jax.creators.rules.contrast import candidates, contrast_table
from reskill_jax.creators.rules.diagnosis import update_assertions
from reskill_jax.skills.assertions import Assertion, grade

Z = len(KINDS)
Posterior = np.ndarray  # [E, T, Z] log-probabilities
_scores = jax.jit(attribution_scores, static_argnames="num_actors")


def measures(posterior: Posterior, truth: np.ndarray, failures: Failures) -> dict[str, float]:
    """Top-1 of kind, step, actor; steps within 1 and 3; log score; rank; calibration error."""
    found = _scores(
        posterior.astype(np.float32), truth.astype(np.int32), actor=failures.actor, num_actors=2
    )
    told = {name: float(value) for name, value in found._asdict().items() if value is not None}
    of_step = np.exp(posterior).sum(axis=2)
    right = of_step.argmax(axis=1) == truth // Z
    return {**told, "calibration_error": calibration_error(of_step.max(axis=1), right)}


def calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> float:
    """Mean distance of confidence and accuracy over bins of confidence, by how full they are."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in np.unique(place):
        there = place == b
        error += there.mean() * abs(confidence[there].mean() - right[there].mean())
    return float(error)


def at_steps(failures: Failures, steps: np.ndarray, shares: np.ndarray) -> Posterior:
    """A rule that is sure of a step, and knows of the kind only how often each occurs."""
    prior = log_prior(failures.features.steps, shares)
    told = np.full(prior.shape, np.log(1e-4))
    told[np.arange(len(steps)), steps] = 0.0
    told = np.where(prior > -1e29, told, -1e30) + np.log(shares)
    top = told.max(axis=(1, 2), keepdims=True)
    return told - top - np.log(np.exp(told - top).sum(axis=(1, 2), keepdims=True))


def rules(made: Made, test: Failures, shares: np.ndarray) -> dict[str, Posterior]:
    """The baselines."""
    lengths = test.features.steps.sum(axis=1)
    uniform = _normalized(log_prior(test.features.steps, shares))
    repeated = np.array([_first_repeat(e.actions) for e in test.episodes])
    failing = _first_failing(made, test)
    talkative = np.array([_of_talkative(row[:n]) for row, n in zip(test.actor, lengths)])
    return {
        "uniform": uniform,
        "last step": at_steps(test, lengths - 1, shares),
        "first repeated action": at_steps(test, repeated, shares),
        "first failing assertion": at_steps(test, failing, shares),
        "most talkative agent": at_steps(test, talkative, shares),
        "counterfactual replay": at_steps(test, test.decisive // Z, shares),
    }


def _normalized(log_weights: Posterior) -> Posterior:
    top = log_weights.max(axis=(1, 2), keepdims=True)
    return log_weights - top - np.log(np.exp(log_weights - top).sum(axis=(1, 2), keepdims=True))


def _first_repeat(actions) -> int:
    seen: set[str] = set()
    for t, action in enumerate(actions):
        if action in seen:
            return t
        seen.add(action)
    return len(actions) - 1


def _of_talkative(actor: np.ndarray) -> int:
    """The first step of the actor with the most steps."""
    return int(np.argmax(actor == np.bincount(actor).argmax()))


def _first_failing(made: Made, test: Failures) -> np.ndarray:
    """[E] the earliest step at which an assertion of the creator fails."""
    episodes = [*made.failures.episodes[:150], *made.successes[:150]]
    table = contrast_table([episodes], VOCABULARY)
    contrasts = candidates(table) if table is not None else []
    tracked, _ = update_assertions((), contrasts, episodes, VOCABULARY, step=0)
    found = []
    for episode in test.episodes:
        at = [len(episode.actions) - 1]
        for one in tracked:
            at.append(_fails_at(one.assertion, episode.actions, episode.observations))
        found.append(min(at))
    return np.array(found)


def _fails_at(assertion: Assertion, actions, observations) -> int:
    """The first step by which an assertion that only more actions can break is broken."""
    breaks = assertion.kind in ("action_not_exists", "no_consecutive_repeat", "max_steps")
    breaks = breaks or (assertion.kind == "action_count" and assertion.get("max") is not None)
    if not breaks or grade(assertion, actions, observations):
        return len(actions) - 1
    return next(
        t
        for t in range(len(actions))
        if not grade(assertion, actions[: t + 1], observations[: t + 2])
    )


def fitted(train: Failures, held: Failures, internal: Callable[[Failures], StepFeatures] | None):
    """The models of both sources, each as a function Failures -> posterior.

    Args:
      train, held: to fit, and to calibrate. internal: features of the internal source; None = none.
    """
    tables = calibrated(fit_tables(train.features, train.causes), held.features, held.causes)
    logistic = calibrated(fit_logistic(train.features, train.causes), held.features, held.causes)
    models: dict[str, Callable[[Failures], Posterior]] = {
        "tables (external)": lambda f: tables.log_posterior(f.features),
        "logistic (external)": lambda f: logistic.log_posterior(f.features),
    }
    if internal is None:
        return tables, models
    known: dict[int, StepFeatures] = {}

    def features_of(f: Failures) -> StepFeatures:
        if id(f) not in known:
            known[id(f)] = internal(f)
        return known[id(f)]

    own = calibrated(fit_tables(features_of(train), train.causes), features_of(held), held.causes)
    models["self-reflection (internal)"] = lambda f: own.log_posterior(features_of(f))
    for name in ("tables (external)", "logistic (external)"):
        weight = _best_weight(models["self-reflection (internal)"], models[name], held, own)
        models[f"internal + {name} x {weight:g}"] = _pooled(
            models["self-reflection (internal)"], models[name], weight, own
        )
    return tables, models


def _pooled(internal, external, weight: float, own: TableModel):
    def both(f: Failures) -> Posterior:
        prior = log_prior(f.features.steps, own.shares)
        # The prior is in both: once is enough.
        likelihood = np.where(prior > -1e29, external(f) - prior, 0.0)
        return np.asarray(
            pool(internal(f).astype(np.float32), likelihood.astype(np.float32), weight), np.float64
        )

    return both


def _best_weight(internal, external, held: Failures, own: TableModel) -> float:
    """The weight with the highest log-probability of held-out causes."""
    rows = np.arange(len(held.causes))

    def score(weight: float) -> float:
        found = _pooled(internal, external, weight, own)(held).reshape(len(rows), -1)
        return float(found[rows, held.causes].mean())

    return max((0.25, 0.5, 0.75, 1.0, 1.25), key=score)


def orthogonality(one: Posterior, other: Posterior, both: Posterior, truth: np.ndarray):
    """Whether two sources err on the same episodes, and what both together gain."""
    errors = [p.reshape(len(truth), -1).argmax(axis=1) != truth for p in (one, other, both)]
    a, b = errors[0], errors[1]
    phi = float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else float("nan")
    better = min(a.mean(), b.mean())
    return {"phi": phi, "gain_over_the_better": float(better - errors[2].mean())}


def confusions(posterior: Posterior, failures: Failures) -> list[dict[str, Any]]:
    """Where the kind is wrong: true kind, told kind, how often."""
    told = np.exp(posterior).sum(axis=1).argmax(axis=1)
    true = failures.causes % Z
    pairs, counts = np.unique(np.stack([true, told])[:, true != told], axis=1, return_counts=True)
    rows = [
        {"true": KINDS[t], "told": KINDS[k], "share": round(float(n) / len(true), 4)}
        for (t, k), n in zip(pairs.T, counts, strict=True)
    ]
    return sorted(rows, key=lambda row: -row["share"])[:8]


def by_kind(posterior: Posterior, failures: Failures) -> dict[str, Mapping[str, float]]:
    """Of each kind, the share of right kinds and of right steps."""
    kind = np.exp(posterior).sum(axis=1).argmax(axis=1)
    step = np.exp(posterior).sum(axis=2).argmax(axis=1)
    true_step, true_kind = np.divmod(failures.causes, Z)
    return {
        name: {
            "episodes": int((true_kind == k).sum()),
            "kind": float((kind == k)[true_kind == k].mean()) if (true_kind == k).any() else 0.0,
            "step": float((step == true_step)[true_kind == k].mean())
            if (true_kind == k).any() and k != NONE
            else 1.0,
        }
        for k, name in enumerate(KINDS)
    }


def noisy(features: StepFeatures, flipped: float, dropped: float, seed: int) -> StepFeatures:
    """Evidence of which a share is flipped, and of whose features a share is not there."""
    rng = np.random.default_rng(seed)
    kept = rng.random(features.evidence.shape[2]) >= dropped
    flips = rng.random(features.evidence.shape) < flipped
    return features._replace(evidence=(features.evidence ^ flips)[:, :, kept])
