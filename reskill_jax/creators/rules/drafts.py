"""From a draft to a proposal that is pending."""

import dataclasses
from collections.abc import Mapping, Sequence

from reskill_jax.creators.creator import Proposal
from reskill_jax.skills.skill import Bundle, Skill

from .recommend import Draft
from .state import CreatorState, Record, remember


def considered(
    skills: Sequence[Skill], under_test: Mapping[str, Skill | None]
) -> tuple[Skill, ...]:
    """The bank in use and what is under test: no version of the bank holds more skills."""
    names = {skill.name for skill in skills}
    new = [skill for skill in under_test.values() if skill is not None]
    return (*skills, *(skill for skill in new if skill.name not in names))


def brings(draft: Draft) -> list[Skill]:
    """The skills that a draft adds, or changes others into."""
    return [operation.skill for operation in draft.operations if operation.skill is not None]


def names_of(draft: Draft) -> set[str]:
    """Names of all skills that a draft takes away, changes or brings."""
    old = {operation.name for operation in draft.operations}
    return old | {skill.name for skill in brings(draft)}


def enter(
    state: CreatorState,
    step: int,
    kind: str,
    draft: Draft,
    skills: Sequence[Skill],
    capacity: int,
) -> tuple[CreatorState, Proposal]:
    """Makes a draft a proposal, which is then pending in the history."""
    bundle = Bundle(draft.operations)
    record = Record(
        id=state.next_id,
        step=step,
        kind=kind,
        bundle=bundle,
        keys=draft.keys,
        deeds=draft.deeds,
        score=draft.score,
        seen=state.reservoir.seen,
        reason=draft.reason,
        traits=draft.traits,
    )
    proposal = Proposal(
        id=record.id,
        kind=kind,
        bundle=bundle,
        version=bundle.apply(skills, capacity=capacity),
        reason=draft.reason,
        score=draft.score,
    )
    return dataclasses.replace(remember(state, record), refusals=0), proposal
