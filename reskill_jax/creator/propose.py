"""From the reservoir to a proposal: contrast, diagnose, recommend, author, verify.

Offline and deterministic given the state. A proposal is a hypothesis: the trial in the rollout
groups, not this module, finds out whether it helps.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reskill_jax.skills.skill import DEFAULT_CAPACITY, Bundle, Operation, Skill

from .author import skill_key
from .contrast import candidates, contrast_table, skill_evidence
from .demands import find_demands, find_ways
from .diagnosis import update_assertions
from .recommend import CreatorSettings, Draft, draft_of, recommend
from .state import CreatorState, Record, remember
from .verify import verify
from .vocabulary import ActionVocabulary, Directive


@dataclasses.dataclass(frozen=True)
class Proposal:
    """A bundle to test."""

    id: int
    kind: str  # "bundle" | "retirement"
    bundle: Bundle
    version: tuple[Skill, ...]  # the bank, what is under test, and the bundle applied
    reason: str
    score: float


@dataclasses.dataclass(frozen=True)
class Refusal:
    """No proposal, and why."""

    reason: str


def propose(
    state: CreatorState,
    skills: Sequence[Skill],
    *,
    step: int,
    vocabulary: ActionVocabulary,
    under_test: Mapping[str, Skill | None] | None = None,
    compile_trigger: Callable[[str], Any] | None = None,
    capacity: int = DEFAULT_CAPACITY,
    settings: CreatorSettings | None = None,
) -> tuple[CreatorState, Proposal | Refusal]:
    """Proposes 1-3 operations on the bank, or refuses.

    Args:
      state: the creator's memory.
      skills: the bank in use.
      step: the training step.
      vocabulary: what can be said in this world.
      under_test: skills that other proposals, still under test, would add or change, by name; None
        where they would take one away. The new proposal leaves all of them alone.
      compile_trigger: called with a trigger's pattern; raises TriggerError if the world cannot run
        it (e.g. `lambda p: compile_dfa(p, language)`).
      capacity: skills a bank can hold.
      settings: thresholds.

    Returns:
      The new state, in which a proposal is pending until `conclude` is called, and the outcome.
    """
    settings = settings or CreatorSettings()
    tested = under_test or {}
    untouchable = tested.keys() | {skill.name for skill in tested.values() if skill is not None}
    skills = _considered(skills, tested)
    reservoir = state.reservoir
    if step < state.next_attempt:
        return state, Refusal(f"pausing until step {state.next_attempt} after a refusal")
    if len(reservoir) < settings.min_episodes:
        return state, Refusal(f"{len(reservoir)} of {settings.min_episodes} episodes so far")
    won = sum(episode.success for episode in reservoir.episodes)
    if min(won, len(reservoir) - won) < settings.support:
        return _refuse(
            state, step, settings, f"{won} of {len(reservoir)} succeed: nothing to contrast"
        )
    rng = state.generator()
    groups = reservoir.sample_groups(rng, groups=settings.groups)
    table = contrast_table(groups, vocabulary, support=settings.support)
    contrasts = (
        []
        if table is None
        else candidates(table, support=settings.support, rate=settings.trigger_rate)
    )
    tracked, _ = update_assertions(
        state.assertions, contrasts, reservoir.episodes, vocabulary, step=step
    )
    state = dataclasses.replace(state, assertions=tracked)
    if settings.assertions:
        episodes = reservoir.episodes
        ways = [
            way
            for demand in find_demands(episodes, vocabulary)
            for way in find_ways(demand, episodes, vocabulary)
        ]
        contrasts = sorted([*ways, *contrasts], key=lambda contrast: -contrast.value)

    def possible(draft: Draft) -> bool:
        few = len(draft.operations) <= settings.max_operations
        return few and not _names(draft) & untouchable

    drafts = [
        draft
        for draft in recommend(state, skills, groups, contrasts, vocabulary, capacity, settings)
        if possible(draft)
    ]
    blindly: list[Draft] = []
    if rng.random() < settings.exploration and contrasts:
        # Each behaviour is equally likely, however many moments there are to propose it for.
        deeds = list(dict.fromkeys(one.directive.deed for one in contrasts))
        deed = deeds[int(rng.integers(len(deeds)))]
        blind = next(one for one in contrasts if one.directive.deed == deed)
        made = draft_of(blind, blind.value, skills, {}, state, vocabulary, capacity, settings, True)
        blindly = [draft for draft in made if possible(draft)]
    state = dataclasses.replace(state, random=dict(rng.bit_generator.state))
    reasons: list[str] = []
    for draft in [*blindly, *drafts][: settings.attempts]:
        reason = verify(draft, state, skills, vocabulary, compile_trigger, capacity, settings)
        if reason is not None:
            reasons.append(f"{draft.reason}: {reason}")
            continue
        chosen = [draft]
        for other in drafts if draft not in blindly else ():
            if _joins(other, chosen, settings) and not any(
                verify(one, state, skills, vocabulary, compile_trigger, capacity, settings)
                for one in (other, _join([*chosen, other]))
            ):
                chosen.append(other)
        final = _join(chosen)
        return _finish(state, step, "bundle", final, skills, capacity)
    return _refuse(state, step, settings, "; ".join(reasons) or "no contrast is strong enough")


def _considered(
    skills: Sequence[Skill], under_test: Mapping[str, Skill | None]
) -> tuple[Skill, ...]:
    """The bank in use and what is under test: no version of the bank holds more skills."""
    names = {skill.name for skill in skills}
    new = [skill for skill in under_test.values() if skill is not None]
    return (*skills, *(skill for skill in new if skill.name not in names))


def _names(draft: Draft) -> set[str]:
    """Names of all skills that a draft takes away, changes or brings."""
    old = {operation.name for operation in draft.operations}
    return old | {o.skill.name for o in draft.operations if o.skill is not None}


def _joins(other: Draft, chosen: Sequence[Draft], settings: CreatorSettings) -> bool:
    first = chosen[0]
    operations = sum(len(d.operations) for d in chosen) + len(other.operations)
    named = {name for d in chosen for name in _names(d)}
    said = [directive for d in chosen for directive in d.directives]
    return (
        other is not first
        and first.value > 0
        and operations <= settings.max_operations
        and other.score >= settings.second_score
        and other.value >= settings.second_share * first.value
        and not named & _names(other)
        and not any(_collide(a, b) for a in said for b in other.directives)
    )


def _collide(one: Directive, other: Directive) -> bool:
    """Whether two directives speak of the same verb and can be asked of the same task."""
    return one.verb == other.verb and (
        None in (one.condition, other.condition) or one.condition == other.condition
    )


def _join(drafts: Sequence[Draft]) -> Draft:
    return Draft(
        operations=tuple(operation for d in drafts for operation in d.operations),
        keys=tuple(key for d in drafts for key in d.keys),
        directives=tuple(directive for d in drafts for directive in d.directives),
        score=drafts[0].score,
        value=drafts[0].value,
        reason="; ".join(d.reason for d in drafts),
    )


def _finish(
    state: CreatorState,
    step: int,
    kind: str,
    draft: Draft,
    skills: Sequence[Skill],
    capacity: int,
) -> tuple[CreatorState, Proposal]:
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


def _refuse(
    state: CreatorState, step: int, settings: CreatorSettings, reason: str
) -> tuple[CreatorState, Refusal]:
    pause = min(settings.cooldown * 2**state.refusals, settings.max_cooldown)
    return (
        dataclasses.replace(state, next_attempt=step + pause, refusals=min(state.refusals + 1, 16)),
        Refusal(reason),
    )


def propose_retirement(
    state: CreatorState,
    skills: Sequence[Skill],
    *,
    step: int,
    served: Mapping[str, int],
    vocabulary: ActionVocabulary,
    settings: CreatorSettings | None = None,
) -> tuple[CreatorState, Proposal | Refusal]:
    """Proposes a version without one skill that has served for a while.

    The skill with the least evidence for it goes first: one that the policy has made its own (or
    that never mattered) shows no contrast any more. Its trial decides whether it may go.

    Args:
      state: the creator's memory.
      skills: the bank in use.
      step: the training step.
      served: steps each active skill has been in use, by name.
      vocabulary: what can be said in this world.
      settings: thresholds.
    """
    settings = settings or CreatorSettings()
    ready = []
    for skill in skills:
        key = "retire|" + skill_key(skill)
        last = max(
            (
                r.decided or r.step
                for r in state.history
                if key in r.keys and r.kind == "retirement"
            ),
            default=None,
        )
        if served.get(skill.name, 0) < settings.retire_after:
            continue
        if last is not None and step - last < settings.retire_again:
            continue
        ready.append((skill, key))
    if not ready:
        return state, Refusal("no skill has served long enough since its last trial")
    rng = state.generator()
    groups = state.reservoir.sample_groups(rng, groups=settings.groups)
    state = dataclasses.replace(state, random=dict(rng.bit_generator.state))
    found = {skill.name: skill_evidence(skill, groups, vocabulary) for skill, _ in ready}

    def order(pair: tuple[Skill, str]) -> tuple[float, int]:
        evidence = found[pair[0].name]
        return (0.0 if evidence is None else evidence.value, -served[pair[0].name])

    skill, key = min(ready, key=order)
    evidence = found[skill.name]
    draft = Draft(
        operations=(Operation("DELETE", skill.name),),
        keys=(key,),
        directives=(),
        score=0.0 if evidence is None else -evidence.score,
        value=0.0,
        reason=f"{skill.name} has served {served[skill.name]} steps",
    )
    return _finish(state, step, "retirement", draft, skills, len(skills))
