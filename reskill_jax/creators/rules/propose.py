"""From the reservoir to a proposal: contrast, diagnose, recommend, author, verify.

Offline and deterministic given the state. A proposal is a hypothesis: the trial in the rollout
groups, not this module, finds out whether it helps.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reskill_jax.creators.creator import Proposal, Refusal
from reskill_jax.creators.episode import Episode
from reskill_jax.creators.reservoir import Reservoir
from reskill_jax.skills.skill import DEFAULT_CAPACITY, Operation, Skill
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive

from .author import skill_key
from .conflict import contradicts_any
from .contrast import Contrast, candidates, contrast_of, contrast_table, skill_evidence
from .demands import find_demands, find_ways
from .diagnosis import update_assertions
from .drafts import brings, considered, enter, names_of
from .experience import Weights, learn_from, shipped, uninformed
from .recommend import CreatorSettings, Draft, draft_of, recommend
from .state import CreatorState
from .verify import verify


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
    skills = considered(skills, tested)
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
    state, contrasts = _weigh(state, groups, step, vocabulary, settings)
    weights = _experience(state, settings)

    def possible(draft: Draft) -> bool:
        few = len(draft.operations) <= settings.max_operations
        return few and not names_of(draft) & untouchable

    def at_peace(draft: Draft) -> bool:
        return settings.contradictions or not _contradicts(draft, tested, reservoir, vocabulary)

    found = recommend(state, skills, groups, contrasts, vocabulary, capacity, settings, weights)
    drafts = [draft for draft in found if possible(draft)]
    blindly: list[Draft] = []
    if rng.random() < settings.exploration and contrasts:
        blind = _drawn(rng, contrasts)
        made = draft_of(blind, blind.value, skills, {}, state, vocabulary, capacity, settings, True)
        blindly = [draft for draft in made if possible(draft)]
    state = dataclasses.replace(state, random=dict(rng.bit_generator.state))
    reasons: list[str] = []
    for draft in itertools.islice(filter(at_peace, [*blindly, *drafts]), settings.attempts):
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
        return enter(state, step, "bundle", _join(chosen), skills, capacity)
    if not reasons and weights is not None:
        return _look_again(state, step, settings, "earlier trials speak for none of the contrasts")
    return _refuse(state, step, settings, "; ".join(reasons) or "no contrast is strong enough")


def _weigh(
    state: CreatorState,
    groups: Sequence[Sequence[Episode]],
    step: int,
    vocabulary: ActionVocabulary,
    settings: CreatorSettings,
) -> tuple[CreatorState, list[Contrast]]:
    """The evidence of some groups, the most valuable first, and the assertions that follow."""
    episodes = state.reservoir.episodes
    table = contrast_table(groups, vocabulary, support=settings.support)
    contrasts: list[Contrast] = []
    if table is not None:
        contrasts = candidates(table, support=settings.support, rate=settings.trigger_rate)
    tracked, _ = update_assertions(state.assertions, contrasts, episodes, vocabulary, step=step)
    state = dataclasses.replace(state, assertions=tracked)
    if settings.assertions:
        ways = [
            way
            for demand in find_demands(episodes, vocabulary)
            for way in find_ways(demand, episodes, vocabulary)
        ]
        if settings.experience != "off":
            ways = [_with_regularity(way, groups, vocabulary) for way in ways]
        contrasts = sorted([*ways, *contrasts], key=lambda contrast: -contrast.value)
    return state, contrasts


def _contradicts(
    draft: Draft,
    tested: Mapping[str, Skill | None],
    reservoir: Reservoir,
    vocabulary: ActionVocabulary,
) -> bool:
    """Whether what a draft brings contradicts something under test."""
    others = [skill for skill in tested.values() if skill is not None]
    return any(
        contradicts_any(skill, others, reservoir.episodes, vocabulary) for skill in brings(draft)
    )


def _drawn(rng: np.random.Generator, contrasts: Sequence[Contrast]) -> Contrast:
    """One at random: each behaviour is equally likely, however many moments there are for it."""
    deeds = list(dict.fromkeys(one.directive.deed for one in contrasts))
    deed = deeds[int(rng.integers(len(deeds)))]
    return next(one for one in contrasts if one.directive.deed == deed)


def _experience(state: CreatorState, settings: CreatorSettings) -> Weights | None:
    """What trials have taught so far; None if nobody asks."""
    if settings.experience in ("off", "watch"):
        return None
    prior = shipped() if settings.experience == "shipped" else uninformed()
    return learn_from(prior, state.history)


def _with_regularity(
    way: Contrast, groups: Sequence[Sequence[Episode]], vocabulary: ActionVocabulary
) -> Contrast:
    """A way to a demand, with how regularly successes go it."""
    found = contrast_of(way.trigger, way.directive, groups, vocabulary)
    if found is None:
        return way
    return dataclasses.replace(way, regular=found.regular, usual=found.usual, moments=found.moments)


def _joins(other: Draft, chosen: Sequence[Draft], settings: CreatorSettings) -> bool:
    first = chosen[0]
    operations = sum(len(d.operations) for d in chosen) + len(other.operations)
    named = {name for d in chosen for name in names_of(d)}
    said = [directive for d in chosen for directive in d.directives]
    return (
        other is not first
        and first.value > 0
        and operations <= settings.max_operations
        and other.score >= settings.second_score
        and other.value >= settings.second_share * first.value
        and not named & names_of(other)
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
        traits=drafts[0].traits,
    )


def _refuse(
    state: CreatorState, step: int, settings: CreatorSettings, reason: str
) -> tuple[CreatorState, Refusal]:
    pause = min(settings.cooldown * 2**state.refusals, settings.max_cooldown)
    return (
        dataclasses.replace(state, next_attempt=step + pause, refusals=min(state.refusals + 1, 16)),
        Refusal(reason),
    )


def _look_again(
    state: CreatorState, step: int, settings: CreatorSettings, reason: str
) -> tuple[CreatorState, Refusal]:
    """A refusal for want of evidence, which every step adds to: the pause does not grow."""
    return dataclasses.replace(state, next_attempt=step + settings.cooldown), Refusal(reason)


def propose_retirement(
    state: CreatorState,
    skills: Sequence[Skill],
    *,
    step: int,
    served: Mapping[str, int],
    vocabulary: ActionVocabulary,
    settings: CreatorSettings | None = None,
    sensitivity: Mapping[str, float] | None = None,
    together: frozenset[str] = frozenset(),
) -> tuple[CreatorState, Proposal | Refusal]:
    """Proposes a version without one skill that has served for a while.

    The skill with the least evidence for it goes first: one that the policy has made its own (or
    that never mattered) shows no contrast any more. Its trial decides whether it may go. Where it
    is known how far skills move the policy, one that is absorbed (the policy does the same without
    it) goes before all others, and after half the time.

    Args:
      state: the creator's memory.
      skills: the bank in use.
      step: the training step.
      served: steps each active skill has been in use, by name.
      vocabulary: what can be said in this world.
      settings: thresholds.
      sensitivity: nats by which skills move the policy where they fire, by name, where known.
      together: skills that fire in the same episodes: they need not have served, because trials
        without each of them are what tells their effects apart.
    """
    settings = settings or CreatorSettings()
    absorbed = _absorbed(sensitivity or {}, settings)
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
        least = settings.retire_after // (2 if skill.name in absorbed else 1)
        if served.get(skill.name, 0) < least and skill.name not in together:
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

    def order(pair: tuple[Skill, str]) -> tuple[bool, float, int]:
        name = pair[0].name
        evidence = found[name]
        value = 0.0 if evidence is None else evidence.value
        return (name not in absorbed, value, -served.get(name, 0))

    skill, key = min(ready, key=order)
    evidence = found[skill.name]
    draft = Draft(
        operations=(Operation("DELETE", skill.name),),
        keys=(key,),
        directives=(),
        score=0.0 if evidence is None else -evidence.score,
        value=0.0,
        reason=f"{skill.name} has served {served.get(skill.name, 0)} steps"
        + (", and the policy does the same without it" if skill.name in absorbed else "")
        + (", and fires in the same episodes as another" if skill.name in together else ""),
    )
    return enter(state, step, "retirement", draft, skills, len(skills))


def _absorbed(sensitivity: Mapping[str, float], settings: CreatorSettings) -> frozenset[str]:
    """Skills that hardly move the policy, next to the one that moves it most."""
    most = max(sensitivity.values(), default=0.0)
    return frozenset(name for name, nats in sensitivity.items() if nats <= settings.absorbed * most)
