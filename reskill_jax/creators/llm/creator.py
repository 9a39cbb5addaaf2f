"""A language model as a `Creator`: it works beside training, and its proposals enter between steps.

Retirements are proposed as the offline rules propose them. Where the model fails, pauses double,
and the rules may step in.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from reskill_jax.creators.creator import Library, Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.rules.creator import RulesCreator
from reskill_jax.creators.rules.drafts import considered, enter

from .beside import Desk, SharedDesk
from .gate import draft_of, refused
from .pipeline import Outcome
from .state import Brief, LLMState, Written

__all__ = ["LLMCreator", "Prices"]

FIRST_PAUSE, LONGEST_PAUSE = 2, 64  # steps
_REFUSED = 12  # drafts that are remembered


@dataclasses.dataclass(frozen=True)
class Prices:
    """Of a million tokens, in dollars."""

    input: float = 0.0
    output: float = 0.0


@dataclasses.dataclass(frozen=True)
class LLMCreator:
    """Skills written by a language model.

    Attributes:
      rules: the offline creator: its gate counts, and it keeps the evidence and the history.
      fallback: whether the rules propose while the model fails.
      prices: of tokens.
      desk: where pipelines are worked on; None = it only reads and writes its memory.
    """

    rules: RulesCreator
    fallback: bool = False
    prices: Prices = Prices()
    desk: Desk | SharedDesk | None = dataclasses.field(default=None, compare=False)

    def init(self, seed: int) -> LLMState:
        """See `Creator`."""
        return LLMState(self.rules.init(seed))

    def observe(self, memory: LLMState, episodes: Sequence[Episode]) -> LLMState:
        """See `Creator`."""
        return dataclasses.replace(memory, rules=self.rules.observe(memory.rules, episodes))

    def propose(
        self, memory: LLMState, library: Library, *, step: int
    ) -> tuple[LLMState, Proposal | Refusal]:
        """See `Creator`. It never waits for the model, unless a record says that it was there."""
        assert self.desk is not None, "a creator without a desk cannot propose"
        rules, outcome = self.rules.retire(memory.rules, library, step=step)
        memory = dataclasses.replace(memory, rules=rules, latest={})
        if isinstance(outcome, Proposal):
            return memory, outcome
        memory, told = self._look(memory, step)
        if told is not None:
            return memory, told
        memory, proposal = self._enter(memory, library, step)
        if proposal is not None:
            return memory, proposal
        memory = self._begin(memory, library, step)
        if self.fallback and memory.failing:
            rules, outcome = self.rules.improve(memory.rules, library, step=step)
            return dataclasses.replace(memory, rules=rules), outcome
        return memory, Refusal("the model is at work, or pauses", looked=False)

    def _look(self, memory: LLMState, step: int) -> tuple[LLMState, Refusal | None]:
        """Takes the outcome of the pipeline under way, if it is there; a refusal if it is empty."""
        brief = memory.pending
        if brief is None:
            return memory, None
        assert self.desk is not None
        outcome = self.desk.take(brief, step)
        if outcome is None:
            return memory, None
        line = {"pipeline": brief.number, "begun": brief.step, **_told(outcome, brief)}
        line["cost"] = self._cost(outcome.spent) - self._cost(brief.spent)
        memory = dataclasses.replace(
            memory,
            pending=None,
            checks=outcome.checks,
            written=(*memory.written, *outcome.written),
            refused=(*memory.refused, *outcome.refused)[-_REFUSED:],
            spent=outcome.spent,
            untold=(*memory.untold, line),
        )
        if outcome.written:
            return dataclasses.replace(memory, failures=0, failing=False), None
        return self._pause(memory, outcome, step)

    def _pause(
        self, memory: LLMState, outcome: Outcome, step: int
    ) -> tuple[LLMState, Refusal | None]:
        """After a pipeline that brought nothing: a pause, twice as long as the last one."""
        pause = min(FIRST_PAUSE * 2**memory.failures, LONGEST_PAUSE)
        failed = outcome.failure is not None
        again = memory.failing and failed
        memory = dataclasses.replace(
            memory,
            failures=min(memory.failures + 1, 16),
            failing=failed,
            next_attempt=step + pause,
        )
        reason = outcome.failure if failed else "no draft is worth a trial"
        if outcome.refused and not failed:
            reason = f"{reason}: {outcome.refused[-1]}"
        told = f"{reason}; the creator pauses for {pause} steps"
        return memory, Refusal(told, failed=failed, again=again)

    def _enter(
        self, memory: LLMState, library: Library, step: int
    ) -> tuple[LLMState, Proposal | None]:
        """The next written change that passes the gate as things are now."""
        written, state = memory.written, memory.rules
        if not written:
            return memory, None
        vocabulary = self.rules.vocabulary_for(state)
        turned_down: list[str] = []
        proposal: Proposal | None = None
        while written and proposal is None:
            one, written = written[0], written[1:]
            draft = draft_of(one, vocabulary)
            reason = refused(draft, state, library, self.rules, vocabulary)
            if reason is not None:
                turned_down.append(_named(one, reason))
                continue
            skills = considered(library.skills, library.under_test)
            state, proposal = enter(state, step, "bundle", draft, skills, library.slots)
            memory = dataclasses.replace(memory, latest={"pipeline": one.pipeline})
        if turned_down:
            line = {"pipeline": one.pipeline, "turned_down": turned_down}
            memory = dataclasses.replace(memory, untold=(*memory.untold, line))
        return (
            dataclasses.replace(
                memory,
                rules=state,
                written=written,
                refused=(*memory.refused, *turned_down)[-_REFUSED:],
            ),
            proposal,
        )

    def _begin(self, memory: LLMState, library: Library, step: int) -> LLMState:
        """Begins a pipeline, if it is time and there is evidence."""
        assert self.desk is not None
        enough = len(memory.rules.reservoir) >= self.rules.settings.min_episodes
        if memory.pending is not None or step < memory.next_attempt or not enough:
            return memory
        brief = Brief(
            number=memory.begun,
            step=step,
            evidence=memory.rules,
            library=library,
            checks=memory.checks,
            refused=memory.refused,
            spent=memory.spent,
        )
        self.desk.begin(brief)
        return dataclasses.replace(memory, pending=brief, begun=memory.begun + 1)

    def conclude(
        self, memory: LLMState, trial: int, accepted: bool, *, step: int, reason: str
    ) -> LLMState:
        """See `Creator`."""
        rules = self.rules.conclude(memory.rules, trial, accepted, step=step, reason=reason)
        return dataclasses.replace(memory, rules=rules)

    def notes(self, memory: LLMState) -> Mapping[str, Any]:
        """Which pipeline the latest proposal came from."""
        return memory.latest or self.rules.notes(memory.rules)

    def tell(self, memory: LLMState) -> tuple[LLMState, Sequence[Mapping[str, Any]]]:
        """See `Creator`: a line for each pipeline that ended."""
        return dataclasses.replace(memory, untold=()), memory.untold

    def figures(self, memory: LLMState) -> Mapping[str, float]:
        """See `Creator`: by all pipelines that ended."""
        spent = memory.spent
        return {
            "creator_calls": spent.calls,
            "creator_input_tokens": spent.input_tokens,
            "creator_output_tokens": spent.output_tokens,
            "creator_seconds": spent.seconds,
            "creator_cost": self._cost(spent),
        }

    def _cost(self, spent: Any) -> float:
        dollars = spent.input_tokens * self.prices.input + spent.output_tokens * self.prices.output
        return round(dollars / 1e6, 6)

    def dump(self, memory: LLMState) -> dict[str, Any]:
        """See `Creator`."""
        return memory.to_dict()

    def load(self, data: Mapping[str, Any]) -> LLMState:
        """See `Creator`."""
        return LLMState.from_dict(data)


def _named(written: Written, reason: str) -> str:
    names = ", ".join(f"{one.operation} {one.name}" for one in written.operations)
    return f"{names}: {reason}"


def _told(outcome: Outcome, brief: Brief) -> dict[str, Any]:
    """A line about a pipeline: what happened, and what this one cost."""
    before, after = brief.spent, outcome.spent
    return {
        **outcome.account,
        "written": [one.to_dict()["operations"] for one in outcome.written],
        "failure": outcome.failure,
        "calls": after.calls - before.calls,
        "input_tokens": after.input_tokens - before.input_tokens,
        "output_tokens": after.output_tokens - before.output_tokens,
        "seconds": round(after.seconds - before.seconds, 3),
    }
