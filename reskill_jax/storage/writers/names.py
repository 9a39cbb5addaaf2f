"""What the numbers in a run's logs are called outside of them, the same for every writer.

::

    metrics.jsonl   train/success, train/loss, ... : every number of the line by its own name, but
                    time/seconds_per_step, time/compile_seconds, creator/calls, ...
    eval.jsonl      eval/<split>/<mode>/ success, episodes, turns, ... : every number by its own
                    name, and interval_low, interval_high, <task type>/success
    trials.jsonl    trial/<number>/ success_old, success_new, episodes_old, episodes_new,
                    assignment_old, assignment_new, posterior_old, posterior_new (means),
                    difference, horizon, log_odds, accept_at, reject_at
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from reskill_jax.storage.log_schema import is_number

_NOT_OF_A_NAME = re.compile(r"[^\w.-]")  # what TensorBoard would replace, and "/", which groups
_GROUPED = {"seconds": "time/seconds_per_step", "compile_seconds": "time/compile_seconds"} | {
    f"creator_{name}": f"creator/{name}"
    for name in ("calls", "input_tokens", "output_tokens", "seconds", "cost")
}
_ARMS = ("old", "new")  # without and with what is under test

Pairs = Iterator[tuple[str, Any]]


def scalars_of(log: str, line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line under the names of the table above.

    Args:
      log: which one the line is of: "metrics.jsonl", "eval.jsonl", "trials.jsonl"; those of
        "lifecycle.jsonl" and "creator.jsonl" have no numbers to draw.
      line: what is written there, or what was read from it; its step is no number of it. Numbers
        may be numpy's or JAX's scalars, lists of numbers arrays.

    Returns:
      Name -> number. What is missing, null, not finite or no number is left out.

    Raises:
      ValueError: there is no such log.
    """
    if log not in _FLATTENED:
        raise ValueError(f"there is no log {log!r}; there are: {', '.join(_FLATTENED)}")
    plain = {name: _plain(value) for name, value in line.items()}
    return {
        name: float(value)
        for name, value in _FLATTENED[log](plain)
        if is_number(value) and math.isfinite(value)
    }


def _metrics(line: dict[str, Any]) -> Pairs:
    for name, value in line.items():
        if name != "step":
            yield _GROUPED.get(name) or f"train/{_part(name)}", value


def _eval(line: dict[str, Any]) -> Pairs:
    group = f"eval/{_part(line['split'])}/{_part(line['mode'])}"
    for name, value in line.items():
        if name not in ("step", "split", "mode"):
            yield f"{group}/{_part(name)}", value
    for name, value in zip(("interval_low", "interval_high"), line.get("interval") or ()):
        yield f"{group}/{name}", value
    for task_type, (successes, episodes) in (line.get("by_task_type") or {}).items():
        if episodes > 0:
            yield f"{group}/{_part(task_type)}/success", successes / episodes


def _trial(line: dict[str, Any]) -> Pairs:
    group = f"trial/{_part(line['trial'])}"
    posterior, test = line.get("posterior") or {}, line.get("sequential_test") or {}
    counts = zip(posterior.get("alpha") or (), posterior.get("beta") or ())
    by_arm = {
        "success": line.get("arm_success"),
        "episodes": line.get("arm_trials"),
        "assignment": line.get("assignment"),
        "posterior": [alpha / (alpha + beta) for alpha, beta in counts],
    }
    for name, values in by_arm.items():
        for arm, value in zip(_ARMS, values or ()):
            yield f"{group}/{name}_{arm}", value
    # The old arm's place in these holds nothing: they are about the new one against it.
    for name, values in (
        ("difference", line.get("difference")),
        ("log_odds", test.get("log_odds")),
    ):
        if values and len(values) == len(_ARMS):
            yield f"{group}/{name}", values[1]
    yield f"{group}/horizon", line.get("horizon")
    for name in ("accept_at", "reject_at"):
        yield f"{group}/{name}", test.get(name)


def _nothing(line: dict[str, Any]) -> Pairs:
    yield from ()


_FLATTENED: Mapping[str, Callable[[dict[str, Any]], Pairs]] = {
    "metrics.jsonl": _metrics,
    "eval.jsonl": _eval,
    "trials.jsonl": _trial,
    "lifecycle.jsonl": _nothing,
    "creator.jsonl": _nothing,
}


def _plain(value: Any) -> Any:
    """Arrays and their scalars as lists and numbers, inside of mappings and lists too."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value.tolist() if hasattr(value, "tolist") else value


def _part(name: Any) -> str:
    """A part of a name: no "/", and nothing that a writer would replace by itself."""
    return _NOT_OF_A_NAME.sub("_", str(name)) or "_"
