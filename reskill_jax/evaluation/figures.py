"""What trials of tasks come to: success with its interval, turns, kinds, reliability."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reskill_jax.core.reliability import pass_hat_k
from reskill_jax.evaluation.compiled_play import ReplayError
from reskill_jax.storage.intervals import wilson_interval


class Trial(NamedTuple):
    """One episode."""

    task: str
    kind: str  # of task; "" = there are no kinds
    success: bool
    turns: int
    cause: str = ""  # why it is invalid; "" = it is valid


def figures(trials: Sequence[Sequence[Trial]]) -> dict[str, Any]:
    """Figures of all tasks, played once or several times; invalid episodes are left out.

    Args:
      trials: of each repetition the episodes of all tasks, in the same order.

    Returns:
      success, episodes (the valid ones), interval, turns, by_task_type; invalid if there are any;
      of several repetitions trials and pass_hat_k, a list for k = 1, 2, ... (tasks with fewer valid
      episodes than k are left out). The interval is Wilson's over tasks: with several repetitions
      of a task its episodes are not independent, so each task counts as one with its mean success.

    Raises:
      ReplayError: not one episode was valid.
    """
    every = [one for repetition in trials for one in repetition]
    valid = [one for one in every if not one.cause]
    if not valid:
        reason = every[0].cause if every else "there were no tasks"
        raise ReplayError(f"no episode is valid: {reason}")
    wins = sum(one.success for one in valid)
    kinds: dict[str, list[bool]] = {}
    for one in sorted(valid, key=lambda one: one.kind):
        kinds.setdefault(one.kind, []).append(one.success)
    by_task: dict[str, list[bool]] = {}
    for one in valid:
        by_task.setdefault(one.task, []).append(one.success)
    solved = sum(float(np.mean(won)) for won in by_task.values())
    found = {
        "success": wins / len(valid),
        "episodes": len(valid),
        "interval": list(wilson_interval(solved, len(by_task))),
        "turns": sum(one.turns for one in valid) / len(valid),
        "by_task_type": {kind: [sum(won), len(won)] for kind, won in kinds.items() if kind},
    }
    if len(valid) < len(every):
        found["invalid"] = len(every) - len(valid)
    if len(trials) > 1:
        won = np.array([sum(one) for one in by_task.values()])
        count = np.array([len(one) for one in by_task.values()])
        most = int(count.max())
        found["trials"] = len(trials)
        found["pass_hat_k"] = [float(pass_hat_k(won, count, k)) for k in range(1, most + 1)]
    return found
