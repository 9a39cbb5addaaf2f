"""Reads a run folder: configuration, logs and the history of its skills.

A run may be empty, interrupted or partly damaged: what can be read is returned, what cannot is
listed with file and line.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

STARTS = ("proposed", "retirement_started")
ENDS = ("accepted", "rejected", "pruned", "retired", "kept")
ADOPTING = ("accepted", "pruned", "retired")


class ReportError(ValueError):
    """A folder that is no run; the message says why in one line."""


@dataclasses.dataclass
class Trial:
    """One comparison of a bundle (or of a bank without a skill) against the bank in use."""

    id: Any
    start: int | None
    end: int | None = None  # None = still open
    operations: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    kind: str = "proposed"  # or "retirement_started"
    decision: str | None = None  # one of ENDS
    reason: str = ""
    proposal: str = ""  # why it was proposed
    successes: list[int] = dataclasses.field(default_factory=list)  # [A]
    trials: list[int] = dataclasses.field(default_factory=list)  # [A]
    alpha: list[float] = dataclasses.field(default_factory=list)  # [A], at the end
    beta: list[float] = dataclasses.field(default_factory=list)  # [A], at the end
    horizon: float | None = None  # None = infinite
    history: list[tuple[int, list[float], list[float]]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Life:
    """One version of a skill in the bank, from the step it was adopted to the one it left."""

    name: str
    start: int
    end: int | None  # None = still in the bank
    skill: dict[str, Any] | None  # None = it was there from the beginning
    left: str = ""  # "pruned", "retired", "modified"


@dataclasses.dataclass
class Run:
    """All that a report needs."""

    path: Path
    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    lifecycle: list[dict[str, Any]]
    problems: list[str]  # "file line n: what is wrong"
    trials: list[Trial]
    lives: list[Life]

    @property
    def name(self) -> str:
        """Of the run."""
        return str(self.config.get("name") or self.path.resolve().name)

    @property
    def last_step(self) -> int:
        """The last step with a line in any log; 0 for an empty run."""
        logs = (self.metrics, self.evals, self.lifecycle)
        return max((line["step"] for log in logs for line in log), default=0)

    @property
    def planned_steps(self) -> int | None:
        """What the configuration asked for."""
        steps = self.config.get("steps")
        return steps if isinstance(steps, int) else None

    def count(self, *events: str) -> int:
        """How many lifecycle lines carry one of these events."""
        return sum(line["event"] in events for line in self.lifecycle)

    @property
    def plain(self) -> bool:
        """Whether the run has no skills, so that all its evaluations are without."""
        return bool(self.evals) and all(e["mode"] == "none" for e in self.evals)

    def evaluations(self, split: str, mode: str = "bank") -> list[dict[str, Any]]:
        """Evaluations of one split and mode, by step.

        "bank" is the policy as it is trained, so without skills in a run that has none.
        """
        mode = "none" if mode == "bank" and self.plain else mode
        chosen = [e for e in self.evals if e["split"] == split and e["mode"] == mode]
        return sorted(chosen, key=lambda line: line["step"])


def read_run(path: str | os.PathLike[str]) -> Run:
    """Reads `runs/<name>/`.

    Raises:
      ReportError: the folder does not exist or holds no run.
    """
    path = Path(path)
    if not path.is_dir():
        raise ReportError(f"there is no run folder {path}")
    logs = ("metrics.jsonl", "eval.jsonl", "lifecycle.jsonl")
    if not any((path / name).exists() for name in ("config.json", *logs)):
        raise ReportError(f"{path} is no run folder: it has neither config.json nor metrics.jsonl")
    problems: list[str] = []
    config = _read_config(path / "config.json", problems)
    metrics, evals, lifecycle = (
        _read_log(path / name, check, problems)
        for name, check in zip(logs, (_check_metrics, _check_eval, _check_lifecycle), strict=True)
    )
    trials = _trials(lifecycle, metrics)
    return Run(path, config, metrics, evals, lifecycle, problems, trials, _lives(lifecycle))


def wilson(success: float, episodes: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson interval of a success rate; (0, 1) without episodes.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    if episodes <= 0:
        return 0.0, 1.0
    spread = z * math.sqrt(success * (1 - success) / episodes + (z / (2 * episodes)) ** 2)
    middle, scale = success + z * z / (2 * episodes), 1 + z * z / episodes
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


# --- files --------------------------------------------------------------------------------------


def _read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problems.append("config.json is missing")
        return {}
    except ValueError as error:
        problems.append(f"config.json cannot be read: {_one_line(error)}")
        return {}
    if not isinstance(config, dict):
        problems.append("config.json holds no object")
        return {}
    return config


def _read_log(
    path: Path, check: Callable[[dict[str, Any]], None], problems: list[str]
) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    lines = []
    raw = path.read_bytes().split(b"\n")
    for number, text in enumerate(raw, start=1):
        if not text.strip():
            continue
        try:
            line = json.loads(text.decode("utf-8"))
            if not isinstance(line, dict):
                raise ValueError(f"an object was expected, not {type(line).__name__}")
            check(line)
        except ValueError as error:
            # Without its newline the last line is what an interrupted writer leaves.
            cut = " (cut off: the run was interrupted here)" if number == len(raw) else ""
            problems.append(f"{path.name} line {number}: {_one_line(error)}{cut}")
            continue
        lines.append(line)
    return lines


def _one_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(_is_number(item) for item in value)


def _expect(line: dict[str, Any], key: str, good: Callable[[Any], bool], what: str) -> None:
    if key not in line:
        raise ValueError(f"'{key}' is missing")
    if not good(line[key]):
        raise ValueError(f"'{key}' should be {what}, is {json.dumps(line[key])[:60]}")


def _check_step(line: dict[str, Any]) -> None:
    _expect(line, "step", lambda v: isinstance(v, int) and not isinstance(v, bool), "an integer")


def _check_posterior(line: dict[str, Any]) -> None:
    def good(value: Any) -> bool:
        if value is None:
            return True
        if not isinstance(value, dict) or not _is_numbers(value.get("alpha")):
            return False
        if not _is_numbers(value.get("beta")) or len(value["alpha"]) != len(value["beta"]):
            return False
        return all(item > 0 for item in value["alpha"] + value["beta"])

    if "posterior" in line:
        _expect(line, "posterior", good, "{alpha, beta: positive numbers}")


def _check_metrics(line: dict[str, Any]) -> None:
    _check_step(line)
    for key, value in line.items():
        if key in _SCALARS and value is not None and not _is_number(value):
            raise ValueError(f"'{key}' should be a number, is {json.dumps(value)[:60]}")
    _check_posterior(line)


_SCALARS = frozenset(
    "success loss kl entropy grad_norm turns context_tokens skill_tokens truncated seconds".split()
)


def _check_eval(line: dict[str, Any]) -> None:
    _check_step(line)
    for key in ("split", "mode"):
        _expect(line, key, lambda v: isinstance(v, str), "a text")
    _expect(line, "success", _is_number, "a number")
    interval = line.get("interval")
    if not (_is_numbers(interval) and len(interval or []) == 2):
        _expect(line, "episodes", _is_number, "a number")
        line["interval"] = list(wilson(line["success"], int(line["episodes"])))


def _check_lifecycle(line: dict[str, Any]) -> None:
    _check_step(line)
    _expect(line, "event", lambda v: isinstance(v, str), "a text")
    line["operations"] = line.get("operations") or []
    _expect(line, "operations", lambda v: isinstance(v, list), "a list")
    for operation in line["operations"]:
        if not isinstance(operation, dict):
            raise ValueError("an operation should be an object")
        for key in ("operation", "name"):
            _expect(operation, key, lambda v: isinstance(v, str), "a text")
        if not isinstance(operation.setdefault("skill", None), (dict, type(None))):
            raise ValueError("'skill' should be an object or null")
    for key in ("successes", "trials"):
        line[key] = line.get(key) or []
        _expect(line, key, _is_numbers, "a list of numbers")
    _check_posterior(line)


# --- history ------------------------------------------------------------------------------------


def _trials(lifecycle: list[dict[str, Any]], metrics: list[dict[str, Any]]) -> list[Trial]:
    found: dict[Any, Trial] = {}
    for line in lifecycle:
        event, key = line["event"], json.dumps(line.get("trial"))
        if event not in STARTS + ENDS or line.get("trial") is None:
            continue
        trial = found.setdefault(key, Trial(id=line["trial"], start=None))
        trial.operations = line["operations"] or trial.operations
        if event in STARTS:
            trial.start, trial.kind = line["step"], event
            trial.proposal = str(line.get("reason") or "")
            continue
        posterior = line.get("posterior") or {}
        trial.end, trial.decision = line["step"], trial.decision or event
        trial.reason = str(line.get("reason") or trial.reason)
        trial.successes, trial.trials = line["successes"], line["trials"]
        trial.alpha, trial.beta = posterior.get("alpha", []), posterior.get("beta", [])
        horizon = line.get("horizon")
        trial.horizon = horizon if _is_number(horizon) else None
    for line in metrics:
        key, posterior = json.dumps(line.get("trial")), line.get("posterior")
        if key not in found or not posterior:
            continue
        trial = found[key]
        trial.history.append((line["step"], posterior["alpha"], posterior["beta"]))
        if trial.start is None:
            trial.start = line["step"]
        if trial.decision is None:
            trial.alpha, trial.beta = posterior["alpha"], posterior["beta"]
            trial.horizon = line["horizon"] if _is_number(line.get("horizon")) else None
            _add_counts(trial, line)
    return sorted(found.values(), key=lambda t: t.start if t.start is not None else -1)


def _add_counts(trial: Trial, line: dict[str, Any]) -> None:
    """An open trial has no closing line; its counts are the sum over its steps."""
    rates, numbers = line.get("arm_success"), line.get("arm_trials")
    if not isinstance(rates, list) or not isinstance(numbers, list) or len(rates) != len(numbers):
        return
    if not _is_numbers(numbers) or not all(rate is None or _is_number(rate) for rate in rates):
        return
    won = [round((rate or 0) * n) for rate, n in zip(rates, numbers, strict=True)]
    old_won, old_n = trial.successes or [0] * len(won), trial.trials or [0] * len(won)
    trial.successes = [a + b for a, b in zip(old_won, won, strict=False)]
    trial.trials = [a + b for a, b in zip(old_n, numbers, strict=False)]


def _lives(lifecycle: list[dict[str, Any]]) -> list[Life]:
    lives: list[Life] = []
    alive: dict[str, Life] = {}
    for line in lifecycle:
        if line["event"] not in ADOPTING:
            continue
        for operation in line["operations"]:
            name, skill, step = operation["name"], operation["skill"], line["step"]
            old, verb = alive.get(name), operation["operation"]
            if verb == "ADD" and old is not None:
                continue  # told twice
            if verb != "ADD":
                if old is None and (verb == "MODIFY" or not any(x.name == name for x in lives)):
                    old = Life(name, 0, None, None)
                    lives.append(old)
                if old is None or (old.start == step and old.skill == skill):
                    continue
                alive.pop(name, None)
                old.end = step
                old.left = "modified" if verb == "MODIFY" else line["event"]
                if old.left == "accepted":
                    old.left = "pruned"
            if verb in ("ADD", "MODIFY"):
                new = Life((skill or {}).get("name") or name, step, None, skill)
                lives.append(new)
                alive[new.name] = new
    return lives
