"""Assertions: nine kinds of rule checks on a trajectory, on text and over a batch of symbols.

A trajectory is `actions` and `observations`, where `observations[t]` is what the agent saw when it
chose `actions[t]`; one more observation, the answer to the last action, may follow. Semantics are
those of ReSkill (arXiv:2606.01619): patterns are searched ignoring case.

Shapes: N trajectories, T turns, K assertions, Q automaton states, V symbols of the language.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from .dfa import compile_dfa
from .patterns import TriggerError, compile_pattern, search

# kind -> its required and optional parameters
ASSERTION_KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "action_exists": (("pattern",), ()),
    "action_not_exists": (("pattern",), ()),
    "action_before": (("first", "second"), ()),
    "no_consecutive_repeat": ((), ("prefix",)),
    "final_action": (("pattern",), ()),
    "min_steps": (("n",), ()),
    "max_steps": (("n",), ()),
    "action_count": (("pattern",), ("min", "max")),
    "observation_contains": (("pattern",), ("after_action",)),
}
_KIND_INDEX = {kind: i for i, kind in enumerate(ASSERTION_KINDS)}
_INTEGERS = ("n", "min", "max")
_UNBOUNDED = np.iinfo(np.int32).max


class AssertionSpecError(ValueError):
    """An assertion that is not valid, with the reason in one line."""


@dataclasses.dataclass(frozen=True)
class Assertion:
    """One rule check.

    Attributes:
      kind: one of ASSERTION_KINDS:
        action_exists / action_not_exists: some / no action matches `pattern`;
        action_before: the first match of `first` comes before the first match of `second`, and
          both occur;
        no_consecutive_repeat: no action that starts with `prefix` is repeated at once;
        final_action: the last action matches `pattern`;
        min_steps / max_steps: at least / at most `n` actions;
        action_count: `min` to `max` actions match `pattern`;
        observation_contains: an observation matches `pattern`; with `after_action`, one later than
          the first action matching that.
      parameters: sorted (name, value) pairs.
    """

    kind: str
    parameters: tuple[tuple[str, str | int], ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ASSERTION_KINDS:
            raise AssertionSpecError(
                f"unknown assertion {self.kind!r}; expected one of {', '.join(ASSERTION_KINDS)}"
            )
        object.__setattr__(self, "parameters", tuple(sorted(tuple(p) for p in self.parameters)))
        required, optional = ASSERTION_KINDS[self.kind]
        given = [name for name, _ in self.parameters]
        wrong = [name for name in given if name not in required + optional]
        missing = [name for name in required if name not in given]
        if wrong or missing or len(set(given)) < len(given):
            raise AssertionSpecError(
                f"{self.kind} takes {', '.join(required + optional)}; got {', '.join(given)}"
            )
        for name, value in self.parameters:
            if name in _INTEGERS:
                if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                    raise AssertionSpecError(f"{self.kind}: {name} must be an integer >= 0")
                continue
            if not isinstance(value, str):
                raise AssertionSpecError(f"{self.kind}: {name} must be a string")
            if name != "prefix":
                try:
                    compile_pattern(value)
                except TriggerError as error:
                    raise AssertionSpecError(f"{self.kind}: {error}") from None

    @classmethod
    def of(cls, kind: str, **parameters: str | int) -> "Assertion":
        """An assertion from keyword parameters."""
        return cls(kind, tuple(parameters.items()))

    def get(self, name: str, default: Any = None) -> Any:
        """A parameter, or the default."""
        return dict(self.parameters).get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types: {"check_type", "params"}."""
        return {"check_type": self.kind, "params": dict(self.parameters)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Assertion":
        """Reads `to_dict`. Raises AssertionSpecError."""
        try:
            return cls(data["check_type"], tuple(data["params"].items()))
        except (KeyError, TypeError, AttributeError) as error:
            raise AssertionSpecError(f"not an assertion: {type(error).__name__} {error}") from None

    def __str__(self) -> str:
        return f"{self.kind}({', '.join(f'{name}={value!r}' for name, value in self.parameters)})"


def grade(assertion: Assertion, actions: Sequence[str], observations: Sequence[str]) -> bool:
    """Whether an assertion holds for one trajectory of texts."""
    kind, get = assertion.kind, assertion.get
    if kind == "min_steps":
        return len(actions) >= get("n")
    if kind == "max_steps":
        return len(actions) <= get("n")
    if kind == "no_consecutive_repeat":
        prefix = get("prefix", "").lower()
        return not any(
            a == b and a.lower().startswith(prefix)
            for a, b in zip(actions[:-1], actions[1:], strict=True)
        )
    if kind == "action_before":
        first = _first(get("first"), actions)
        second = _first(get("second"), actions)
        return first is not None and second is not None and first < second
    if kind == "final_action":
        return bool(actions) and search(get("pattern"), actions[-1])
    if kind == "observation_contains":
        start = 0
        if get("after_action") is not None:
            first = _first(get("after_action"), actions)
            if first is None:
                return False
            start = first + 1
        return any(search(get("pattern"), text) for text in observations[start:])
    count = sum(search(get("pattern"), action) for action in actions)
    if kind == "action_exists":
        return count > 0
    if kind == "action_not_exists":
        return count == 0
    return get("min", 0) <= count <= get("max", _UNBOUNDED)


def _first(pattern: str, texts: Sequence[str]) -> int | None:
    return next((i for i, text in enumerate(texts) if search(pattern, text)), None)


class AssertionTables(NamedTuple):
    """K assertions as arrays."""

    kind: chex.Array  # [K] int8 index into ASSERTION_KINDS
    table: chex.Array  # [K, 2, Q, V] uint8 automata of the (up to) two patterns
    accept: chex.Array  # [K, 2, Q] bool
    low: chex.Array  # [K] int32 n, min
    high: chex.Array  # [K] int32 n, max
    after: chex.Array  # [K] bool: observation_contains has an after_action


def build_assertions(
    assertions: Sequence[Assertion], *, language: Sequence[str], states: int = 32
) -> AssertionTables:
    """Builds the arrays (numpy).

    Raises:
      TriggerError: a pattern whose automaton over the language needs more than `states` states.
    """
    count = len(assertions)
    table = np.zeros((count, 2, states, len(language)), np.uint8)
    accept = np.zeros((count, 2, states), bool)
    low = np.zeros(count, np.int32)
    high = np.full(count, _UNBOUNDED, np.int32)
    for k, assertion in enumerate(assertions):
        get = assertion.get
        first = get("pattern", get("first"))
        if assertion.kind == "no_consecutive_repeat":
            first = "^" + re.escape(get("prefix", ""))
        for i, pattern in enumerate((first, get("second", get("after_action")))):
            if pattern is not None:
                dfa = compile_dfa(pattern, language, max_states=states)
                table[k, i, : len(dfa.accept)] = dfa.table
                accept[k, i, : len(dfa.accept)] = dfa.accept
        low[k] = min(get("n", get("min", 0)), _UNBOUNDED)
        high[k] = min(get("n", get("max", _UNBOUNDED)), _UNBOUNDED)
    return AssertionTables(
        kind=np.asarray([_KIND_INDEX[a.kind] for a in assertions], np.int8),
        table=table,
        accept=accept,
        low=low,
        high=high,
        after=np.asarray([a.get("after_action") is not None for a in assertions], bool),
    )


def _matches(table: chex.Array, accept: chex.Array, texts: chex.Array) -> chex.Array:
    """Runs K automata [K, Q, V] over texts [..., L]; returns [..., K] bool."""
    k = jnp.arange(table.shape[0])

    def step(state: chex.Array, symbol: chex.Array) -> tuple[chex.Array, None]:
        return table[k, state, symbol[..., None]].astype(jnp.int32), None

    start = jnp.zeros((*texts.shape[:-1], table.shape[0]), jnp.int32)
    state, _ = jax.lax.scan(step, start, jnp.moveaxis(texts, -1, 0))
    return accept[k, state]


def grade_batch(
    tables: AssertionTables, actions: chex.Array, observations: chex.Array, turns: chex.Array
) -> chex.Array:
    """Grades K assertions on N trajectories; equals `grade` on their texts.

    Args:
      tables: the assertions.
      actions: [N, T, La] int32 symbols, PAD behind.
      observations: [N, T, Lo] or [N, T + 1, Lo] int32; `[:, t]` is what was seen before action t.
      turns: [N] int32 number of actions of each trajectory, at most T.

    Returns:
      [N, K] bool.
    """
    chex.assert_rank([actions, observations, turns], [3, 3, 1])
    horizon = actions.shape[1]
    extra = observations.shape[1] - horizon
    if extra not in (0, 1):
        raise ValueError(
            f"{horizon} actions go with {horizon} or {horizon + 1} observations, "
            f"got {observations.shape[1]}"
        )
    tables = jax.tree.map(jnp.asarray, tables)
    turns = turns[:, None]  # [N, 1]
    taken = jnp.arange(horizon)[None, :, None] < turns[:, :, None]  # [N, T, 1]
    seen = jnp.arange(horizon + extra)[None, :, None] < turns[:, :, None] + extra
    one = _matches(tables.table[:, 0], tables.accept[:, 0], actions) & taken  # [N, T, K]
    two = _matches(tables.table[:, 1], tables.accept[:, 1], actions) & taken
    observed = _matches(tables.table[:, 0], tables.accept[:, 0], observations) & seen

    def first(matches: chex.Array) -> chex.Array:  # [N, K], T where none
        return jnp.where(matches.any(axis=1), jnp.argmax(matches, axis=1), horizon)

    count = one.sum(axis=1)
    repeated = (actions[:, :-1] == actions[:, 1:]).all(axis=-1)[..., None] & taken[:, 1:]
    later = jnp.arange(horizon + extra)[None, :, None] > first(two)[:, None, :]
    last = jnp.arange(horizon)[None, :, None] == turns[:, :, None] - 1
    verdicts = {
        "action_exists": count > 0,
        "action_not_exists": count == 0,
        "action_before": (first(one) < first(two)) & two.any(axis=1),
        "no_consecutive_repeat": ~(repeated & one[:, :-1]).any(axis=1),
        "final_action": (one & last).any(axis=1),
        "min_steps": turns >= tables.low,
        "max_steps": turns <= tables.high,
        "action_count": (count >= tables.low) & (count <= tables.high),
        "observation_contains": (observed & (later | ~tables.after)).any(axis=1),
    }
    kinds = [tables.kind == _KIND_INDEX[kind] for kind in verdicts]
    return jnp.select(
        [jnp.broadcast_to(kind, count.shape) for kind in kinds],
        [jnp.broadcast_to(verdict, count.shape) for verdict in verdicts.values()],
        False,
    )
