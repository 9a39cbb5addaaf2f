"""Who&When: failures of multi-agent systems, with the agent and the step that caused them.

The data (S. Zhang et al., arXiv:2505.00212) is read from a folder and never kept. What a step looks
like is told by rules about its text alone; Beta-Bernoulli tables of them are counted on other
records (10 folds). Steps are compared as integers; the published way, in which a label counts where
its digits are anywhere in the answer, stands beside it. N records, T turns, F features.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reskill_jax.core.attribution import (
    actor_posterior,
    cause_posterior,
    init_evidence_table,
    update_evidence_table,
)

SETS = ("algorithm_generated", "hand_crafted")
_FOLDS, _SHARPNESS = 10, 0.5
_ERROR = re.compile(r"\b(error|exception|failed|failure|unable|cannot|couldn't|traceback)\b", re.I)
_DOUBT = re.compile(r"\b(however|incorrect|mistake|actually|wrong|not correct|discrepan)", re.I)
_ASSUMED = re.compile(r"\b(assum|hypothetic|simulat|let's say|example data|placeholder)", re.I)
_ANSWER = re.compile(r"(final answer|TERMINATE|the answer is|in conclusion)", re.I)
_NUMBER = re.compile(r"\d")

_actors = jax.jit(actor_posterior, static_argnums=2)


class Record(NamedTuple):
    """A failed conversation."""

    texts: list[str]
    speakers: list[str]
    agent: str  # the truth
    step: int


def read(folder: Path, name: str) -> list[Record]:
    """The records of one of SETS.

    Raises:
      FileNotFoundError: the folder does not hold it.
    """
    with gzip.open(folder / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        raw = [json.loads(line)["record"] for line in lines]
    return [
        Record(
            [str(turn["content"]) for turn in one["history"]],
            [_speaker(turn) for turn in one["history"]],
            str(one["mistake_agent"]),
            int(one["mistake_step"]),
        )
        for one in raw
    ]


def _speaker(turn: Mapping[str, Any]) -> str:
    """Who speaks: "Orchestrator (-> WebSurfer)" is the Orchestrator."""
    return str(turn.get("name") or turn["role"]).split(" (")[0]


def features(record: Record) -> np.ndarray:
    """[T, F] bool."""
    texts, speakers = record.texts, record.speakers
    bags = [set(re.findall(r"\w+", text.lower())) for text in texts]
    median = float(np.median([len(text) for text in texts]))
    rows = []
    for t, text in enumerate(texts):
        behind = texts[t + 1] if t + 1 < len(texts) else ""
        later = range(t + 1, len(texts))
        alike = [s for s in range(len(texts)) if s != t and _jaccard(bags[s], bags[t]) > 0.6]
        rows.append(
            (
                bool(_ERROR.search(text)),
                bool(_ERROR.search(text)) and not any(_ERROR.search(x) for x in texts[:t]),
                bool(_ERROR.search(behind)),
                bool(_DOUBT.search(behind)),
                any(_DOUBT.search(texts[s]) for s in later if speakers[s] != speakers[t]),
                any(s < t for s in alike),
                any(s > t for s in alike),
                len(text) > median,
                len(text) > 2 * median,
                bool(_ASSUMED.search(text)),
                bool(_ANSWER.search(text)),
                "```" in text,
                len(_NUMBER.findall(text)) > 10,
                speakers[t] not in speakers[:t],
                speakers[t] == "human" or "terminal" in speakers[t].lower(),
                t == 0,
                t == 1,
                t == len(texts) - 1,
                t < len(texts) / 3,
                t >= 2 * len(texts) / 3,
                speakers.count(speakers[t]) == max(Counter(speakers).values()),
            )
        )
    return np.array(rows, bool)


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(len(one | other), 1)


def rules() -> dict[str, Callable[[Record], tuple[str, int]]]:
    """Answers that nobody needs to read anything for."""

    def most(record: Record) -> tuple[str, int]:
        return Counter(record.speakers).most_common(1)[0][0], 0

    def first(record: Record) -> tuple[str, int]:
        at = next((t for t, who in enumerate(record.speakers) if who != "human"), 0)
        return record.speakers[at], at

    return {
        "speaks most, step 0": most,
        "first agent, its step": first,
        "last speaker, last step": lambda r: (r.speakers[-1], len(r.speakers) - 1),
    }


def told_by_tables(records: Sequence[Record]) -> list[tuple[str, int]]:
    """The agent and the step that tables of the other folds find most probable."""
    told = [features(record) for record in records]
    longest, width = max(len(x) for x in told), told[0].shape[1]
    evidence = np.zeros((len(records), longest, width), bool)
    steps = np.zeros((len(records), longest), bool)
    for n, x in enumerate(told):
        evidence[n, : len(x)], steps[n, : len(x)] = x, True
    observed = np.broadcast_to(steps[:, :, None], evidence.shape)
    truth = np.array([record.step for record in records])
    fold = np.random.default_rng(0).permutation(len(records)) % _FOLDS
    found: list[tuple[str, int]] = [("", 0)] * len(records)

    @jax.jit
    def learn_and_tell(known):
        table = update_evidence_table(
            init_evidence_table(1, width), evidence, observed, jnp.asarray(truth), known
        )
        prior = jnp.where(steps[:, :, None], 0.0, -1e30)
        return cause_posterior(prior, evidence, observed, *table.probabilities)

    for k in range(_FOLDS):
        posterior = np.asarray(learn_and_tell(fold != k))
        for n in np.flatnonzero(fold == k):
            names = list(dict.fromkeys(records[n].speakers))
            actor = [names.index(who) for who in records[n].speakers]
            padded = np.full((1, longest), -1)
            padded[0, : len(actor)] = actor
            share = _actors(_SHARPNESS * posterior[n][None], padded, 16)
            found[n] = names[int(np.argmax(share[0]))], int(np.argmax(posterior[n, :, 0]))
    return found


def scores(records: Sequence[Record], told: Sequence[tuple[str, int]]) -> dict[str, float]:
    """Shares of right agents and steps; 95 % half-widths of the exact steps."""
    agent = np.array([t[0] == r.agent for r, t in zip(records, told, strict=True)])
    apart = np.array([abs(t[1] - r.step) for r, t in zip(records, told, strict=True)])
    loosely = [str(r.step) in str(t[1]) for r, t in zip(records, told, strict=True)]
    share = float((apart == 0).mean())
    return {
        "agent": float(agent.mean()),
        "step": share,
        "step_half_interval": 1.96 * float(np.sqrt(share * (1 - share) / len(records))),
        "step_within_1": float((apart <= 1).mean()),
        "step_within_3": float((apart <= 3).mean()),
        "step_as_published": float(np.mean(loosely)),
    }


def who_and_when(folder: Path) -> dict[str, Any]:
    """Everyone's scores on both sets."""
    found: dict[str, Any] = {}
    for name in SETS:
        records = read(folder, name)
        answers = {rule: [of(record) for record in records] for rule, of in rules().items()}
        answers["tables of text rules, 10 folds"] = told_by_tables(records)
        found[name] = {"records": len(records)}
        for who, told in answers.items():
            found[name][who] = {k: round(v, 4) for k, v in scores(records, told).items()}
            row = found[name][who]
            print(f"{name:20} {who:32} agent {row['agent']:.3f}  step {row['step']:.3f}")
    return found
