"""A run folder as training writes it: 60 steps, seven trials, invented numbers."""

import json
import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from reskill_jax.storage.intervals import wilson_interval


def _skill(name, action, kind="general", pattern=None, examples=()):
    return {
        "name": name,
        "when_to_use": f"Whenever the task calls for what {name.replace('-', ' ')} says.",
        "action": action,
        "trigger": {"kind": kind, "pattern": pattern},
        "examples": list(examples),
    }


def _add(skill):
    return {"operation": "ADD", "name": skill["name"], "skill": skill}


def _delete(name):
    return {"operation": "DELETE", "name": name, "skill": None}


OPEN = _skill("open-after-navigation", "open.", "observation_pattern", "is closed")
AVOID = _skill("avoid-repetitive-loops", "do not look.", "action_pattern", "^look")
CLEAN = _skill(
    "clean-before-placement",
    "if the task says clean, go to sinkbasin.",
    "action_pattern",
    "^take .* from",
    ("take it to the sinkbasin first", "put a dirty thing down"),
)
MODIFIED = CLEAN | {"action": "if the task says clean, clean."}
EXAMINE = _skill("examine-everything", "examine.")
FRIDGE = _skill("go-to-fridge", "go to fridge.")
MODIFY = {"operation": "MODIFY", "name": CLEAN["name"], "skill": MODIFIED}
TRIALS = [  # start, end, operations, gain, decision, reason
    (3, 11, [_add(AVOID)], 0.06, "accepted", "mean 0.31 above 0.25"),
    (13, 19, [_add(EXAMINE)], -0.09, "rejected", "mean 0.2 not above 0.29"),
    (20, 28, [_add(OPEN)], 0.13, "accepted", "mean 0.44 above 0.31"),
    (30, 37, [_add(CLEAN), _add(FRIDGE)], -0.02, "rejected", "mean 0.35 not above 0.37"),
    (38, 45, [_add(CLEAN)], 0.07, "accepted", "mean 0.47 above 0.4"),
    (46, 52, [_delete(AVOID["name"])], 0.01, "retired", "the policy does as well without it"),
    (53, None, [MODIFY], 0.04, None, ""),
]  # fmt: skip


def write_fake_run(folder, *, steps=60, seed=0, gain=0.0, full=False, **settings):
    """Writes the run; the same numbers every time, others for another seed.

    With `full` the logs also tell what those of the first version did not.
    """
    chance, folder = random.Random(3 + seed), Path(folder)
    folder.mkdir(parents=True)
    metrics, tested, evals, life = [], [], [], []

    def binomial(n, p):
        return sum(chance.random() < p for _ in range(n))

    def skill_level(step):
        return 0.16 + (0.38 + gain) * (1 - math.exp(-step / 28))

    for step in range(0, steps + 1, 10):
        for split, factor in (("seen", 1.0), ("unseen", 0.72)):
            for mode, share in (("bank", 1.0), ("none", 0.8)):
                episodes = 256
                rate = binomial(episodes, skill_level(step) * factor * share) / episodes
                evals.append(
                    {
                        "step": step, "split": split, "mode": mode, "success": rate,
                        "episodes": episodes,
                        "interval": list(wilson_interval(rate * episodes, episodes)),
                    }
                )  # fmt: skip
    posterior, totals = None, None
    for step in range(1, steps + 1):
        number = next(
            (
                i
                for i, (start, end, *_) in enumerate(TRIALS)
                if start < step <= (end if end is not None else steps)
            ),
            None,
        )
        gain = TRIALS[number][3] if number is not None else 0.0
        if number is None or step == TRIALS[number][0] + 1:
            posterior, totals = {"alpha": [1.0, 1.0], "beta": [1.0, 1.0]}, [[0, 0], [0, 0]]
            if number is not None:
                start, _, operations, *_ = TRIALS[number]
                life.append(
                    _event(start, "retirement_started" if number == 5 else "proposed", number + 1,
                           operations, "contrast: successes do it, failures do not (8 groups)")
                )  # fmt: skip
        mean = [a / (a + b) for a, b in zip(posterior["alpha"], posterior["beta"], strict=True)]
        share = 0.5 if number is None else min(max(0.5 + 3 * (mean[1] - mean[0]), 0.15), 0.85)
        counts = [128, 0] if number is None else [128 - round(128 * share), round(128 * share)]
        won = [binomial(n, skill_level(step) + gain * arm) for arm, n in enumerate(counts)]
        if number is not None:
            for arm in range(2):
                weight = 400 / (400 + counts[arm]) if number >= 2 else 1.0
                posterior["alpha"][arm] = weight * posterior["alpha"][arm] + won[arm]
                posterior["beta"][arm] = weight * posterior["beta"][arm] + counts[arm] - won[arm]
                totals[0][arm] += won[arm]
                totals[1][arm] += counts[arm]
        skills = 0 if step < 11 else 14 + step / 2
        metrics.append(
            {
                "step": step, "success": sum(won) / 128,
                "trials": [] if number is None else [number + 1],
                "loss": 0.02 * chance.gauss(0, 1), "kl": 0.0004 * step + 0.002 * chance.random(),
                "entropy": 0.9 - 0.006 * step + 0.02 * chance.random(),
                "grad_norm": 0.8 + 0.2 * chance.random(), "turns": 12.5 - step / 30,
                "context_tokens": 190 + skills, "skill_tokens": skills, "truncated": 0.0,
                "seconds": 38.0 if step == 1 else 3.4 + 0.3 * chance.random(),
            }
        )  # fmt: skip
        if number is not None:
            tested.append(
                {
                    "step": step, "trial": number + 1,
                    "arm_success": [w / n for w, n in zip(won, counts, strict=True)],
                    "arm_trials": counts, "assignment": [1 - share, share],
                    "posterior": json.loads(json.dumps(posterior)),
                    "horizon": 400.0 if step > 19 else None,
                }
            )  # fmt: skip
        if number is not None and TRIALS[number][1] == step:
            _, _, operations, _, decision, reason = TRIALS[number]
            event = _event(step, decision, number + 1, operations, reason)
            event |= {
                "successes": totals[0],
                "trials": totals[1],
                "posterior": tested[-1]["posterior"],
            }
            life.append(event | {"horizon": tested[-1]["horizon"]})
    config = {"name": folder.name, "steps": 60, "seed": seed, "optimizer": {"rate": 4e-4}}
    config |= settings
    if full:
        _tell_all(config, metrics, tested, evals, life)
    (folder / "config.json").write_text(json.dumps(config))
    logs = {"metrics": metrics, "trials": tested, "eval": evals, "lifecycle": life}
    for name, lines in logs.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return folder


def _tell_all(config, metrics, tested, evals, life):
    """Compiling, the sequential test, kinds of task, effects, what the run was made with."""
    config |= {
        "trial": {"rule": "sequential"},
        "provenance": [
            {"started": "2026-11-26T18:00:00+00:00", "step": 0, "reskill_jax": "0.1.0",
             "commit": "0123456789abcdef+", "python": "3.11.7",
             "versions": {"jax": "0.10.2", "flax": "0.12.8"}, "machine": "a laptop",
             "device": "TPU v4 (tpu)", "devices": 8, "processes": 2},
            {"started": "2026-11-27T08:00:00+00:00", "step": 30, "python": "3.14.0"},
        ],
    }  # fmt: skip
    metrics[0] |= {"seconds": 3.5, "compile_seconds": 34.5}
    for line in metrics:
        line |= {"mixed_groups": 0.5, "clipped": 0.012}
    for line in tested:
        start = TRIALS[line["trial"] - 1][0]
        odds = [None, 0.4 * (line["step"] - start)]
        line["sequential_test"] = {"log_odds": odds, "accept_at": 2.25, "reject_at": -2.89}
    for line in evals:
        line["by_task_type"] = {"pick_and_place": [40, 128], "heat_it": [line["step"], 128]}
    for line in life:
        if line["event"] not in ("proposed", "retirement_started"):
            line["difference"] = [0.0, TRIALS[line["trial"] - 1][3]]


def _event(step, event, trial, operations, reason):
    return {
        "step": step, "event": event, "trial": trial, "operations": operations, "successes": [0, 0],
        "trials": [0, 0], "posterior": None, "horizon": None, "reason": reason,
    }  # fmt: skip


@pytest.fixture(scope="session")
def fake_run(tmp_path_factory):
    """Shared and read only."""
    return write_fake_run(tmp_path_factory.mktemp("runs") / "household-demo")


@pytest.fixture(scope="session")
def full_run(tmp_path_factory):
    """The same, with all that logs tell today. Shared and read only."""
    return write_fake_run(tmp_path_factory.mktemp("runs") / "household-full", full=True)


@pytest.fixture(scope="session")
def make_run():
    """Writes an invented run into a folder."""
    return write_fake_run


VOID = {"meta", "br"}


class Checker(HTMLParser):
    """Elements must nest; collects attributes that would load something and the text."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text, self.scripts = [], [], [], 0

    def handle_starttag(self, name, attributes):
        if name not in VOID:
            self.open.append(name)
        self.scripts += name in ("script", "link", "iframe", "object", "img")
        for key, value in attributes:
            if key in ("src", "href", "srcset", "data") or key.startswith("on"):
                self.loads.append((key, value))

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def _check(path):
    text = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and checker.loads == [] and checker.scripts == 0
    assert "url(" not in text and "@import" not in text and "http://" not in text
    places = re.findall(r' (?:d|x|y|cx|cy|width|height|style)="([^"]*)"', text)
    assert not re.search("nan|inf", "".join(places))
    return "".join(checker.text)


EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>&amp;'


def _poisoned(value):
    if isinstance(value, dict):
        return {key: _poisoned(item) for key, item in value.items()} | {EVIL: EVIL}
    if isinstance(value, list):
        return [_poisoned(item) for item in value]
    known = ("proposed", "accepted", "rejected", "retired", "retirement_started", "seen", "unseen")
    keep = (*known, "bank", "none", "ADD", "MODIFY", "DELETE")
    return EVIL + value if isinstance(value, str) and value not in keep else value


@pytest.fixture(scope="session")
def check():
    """Checks that a page is well-formed and loads nothing; returns its text."""
    return _check


@pytest.fixture(scope="session")
def evil():
    """A text that tries to break out of the page."""
    return EVIL


@pytest.fixture(scope="session")
def poisoned():
    """Puts the evil text before every text of a JSON value."""
    return _poisoned
