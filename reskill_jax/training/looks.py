"""A look: what the policy says about some of a step's episodes, and which skills fired in all.

N rows, T turns, S slots, P skills in use or under test.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from reskill_jax.training.reflection import step_lost


@dataclasses.dataclass(frozen=True)
class Look:
    """What one look at a step's episodes brings, by the names of skills; plain numbers.

    Attributes:
      names: P skills of all versions that were played.
      gain, null_gain, agreement: of the rows in which a skill fired.
      posterior: of these rows, [generic, P skills].
      given: of these rows, the skill that fired most, as an index into `names`.
      turns, moved: [P] turns at which each skill fired, and nats by which it moved the policy.
      lost: [P] episodes in which it stopped being followed, see `step_lost`.
      fired: of all valid episodes, the skills that fired, as the bits of a number.
      success: of these episodes. group: of these, the number of the task.
    """

    step: int
    names: tuple[str, ...]
    gain: tuple[float, ...]
    null_gain: tuple[float, ...]
    agreement: tuple[float, ...]
    posterior: tuple[tuple[float, ...], ...]
    given: tuple[int, ...]
    turns: tuple[int, ...]
    moved: tuple[float, ...]
    lost: tuple[int, ...]
    fired: tuple[int, ...]
    success: tuple[bool, ...]
    group: tuple[int, ...]


def look_at(evidence: Any, names: Sequence[Sequence[str]], *, group_size: int, step: int) -> Look:
    """What a step's evidence says, by the names of skills.

    Args:
      evidence: `step.Evidence` on the host, with a reflection.
      names: of the skills of each arm, in slot order.
      group_size: G. step: its number, from 1.
    """
    seen, arms = evidence.reflection, np.asarray(evidence.arms)
    known = tuple(dict.fromkeys(name for version in names for name in version))
    place = {name: p for p, name in enumerate(known)}
    column = [[place[name] for name in version] for version in names]
    fired, games = np.asarray(evidence.fired), np.asarray(evidence.games)
    valid = np.flatnonzero(np.asarray(evidence.valid)).tolist()
    read = np.any(fired, axis=1).tolist()  # [N, S]
    bits = [sum(1 << column[arms[n]][s] for s, on in enumerate(read[n]) if on) for n in valid]
    turns, moved, lost = (np.zeros(len(known), kind) for kind in (int, float, int))
    lost_at = step_lost(np.asarray(seen.weight), fired[np.asarray(seen.rows)])
    rows: list[int] = []
    posterior: list[tuple[float, ...]] = []
    given: list[int] = []
    for r, n in enumerate(np.asarray(seen.rows).tolist()):
        counts = fired[n].sum(axis=0)
        if not evidence.valid[n] or not counts.any():
            continue
        of_slot = column[arms[n]]
        for s in np.flatnonzero(counts).tolist():
            turns[of_slot[s]] += counts[s]
            moved[of_slot[s]] += float(seen.sensitivity[r, :, s].sum())
            lost[of_slot[s]] += int(lost_at[r, s] >= 0)
        shares = np.zeros(1 + len(known))
        shares[0] = seen.posterior[r, 0]
        for s, p in enumerate(of_slot):
            shares[1 + p] += seen.posterior[r, 1 + s]
        rows.append(r)
        posterior.append(tuple(shares.tolist()))
        given.append(of_slot[int(np.argmax(counts))])
    return Look(
        step=step,
        names=known,
        gain=tuple(np.asarray(seen.gain)[rows].tolist()),
        null_gain=tuple(np.asarray(seen.null_gain)[rows].tolist()),
        agreement=tuple(np.asarray(seen.agreement)[rows].tolist()),
        posterior=tuple(posterior),
        given=tuple(given),
        turns=tuple(turns.tolist()),
        moved=tuple(moved.tolist()),
        lost=tuple(lost.tolist()),
        fired=tuple(bits),
        success=tuple(np.asarray(evidence.success)[valid].tolist()),
        group=tuple(int(games[n // group_size]) for n in valid),
    )


def by_skill(looks: Sequence[Look]) -> tuple[dict[str, int], dict[str, float]]:
    """Turns at which each skill fired, and nats by which it moved the policy there."""
    turns: dict[str, int] = {}
    moved: dict[str, float] = {}
    for look in looks:
        for name, count, nats in zip(look.names, look.turns, look.moved, strict=True):
            turns[name] = turns.get(name, 0) + count
            moved[name] = moved.get(name, 0.0) + nats
    return {name: count for name, count in turns.items() if count}, moved
