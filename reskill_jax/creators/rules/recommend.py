"""Which operations on the bank are worth testing, given evidence, faults and history."""

import dataclasses
from collections.abc import Mapping, Sequence

from reskill_jax.creators.attribution.blame import attributed_faults
from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import MAX_OPERATIONS, Operation, Skill, SkillError
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive

from .author import describe_trigger, skill_key, write_skill
from .contrast import Contrast, skill_evidence
from .diagnosis import blame
from .experience import Weights, chance, traits_of
from .state import CreatorState, Record

_ATTRIBUTED = 300  # contrasts, the most valuable first, whose part in failures is looked for


@dataclasses.dataclass(frozen=True)
class CreatorSettings:
    """How the creator goes about it."""

    min_episodes: int = 100  # in the reservoir before the first proposal
    groups: int = 100  # task groups contrasted at a time, mixed outcomes first
    support: int = 8  # episodes with, and without, a behaviour
    trigger_rate: float = 0.5  # share of episodes in which a trigger must fire
    attempts: int = 3  # candidates put to the verification
    min_score: float = 1.0  # standard score of the leading operation
    exploration: float = 0.1  # chance of a candidate drawn blindly
    max_operations: int = MAX_OPERATIONS
    second_score: float = 4.0  # standard score of further operations
    second_share: float = 0.6  # their value relative to the first
    delete_score: float = 1.64  # standard score of the harm of a skill in the bank
    refine_gain: float = 1.25  # factor of value and score over the skill that is modified
    rejected_discount: float = 0.4  # on the value, per rejection of the same skill
    related_discount: float = 0.4  # per rejection of the same behaviour at another cue
    negative_discount: float = 0.5  # on prohibitions, which do not say what to do instead
    new_score: float = 1.3  # factor of the score that counts as new evidence
    new_episodes: int = 400  # episodes that count as new evidence
    cooldown: int = 2  # steps after a refusal; doubles with every further one
    max_cooldown: int = 16
    retire_after: int = 20  # steps a skill serves before it may be put to a retirement trial
    absorbed: float = (
        0.02  # share of the largest sensitivity up to which a skill counts as absorbed
    )
    retire_again: int = 40  # steps after a retirement trial that it survived
    assertions: bool = True  # weigh behaviours by the assertions that failures violate
    # | "watch": note what could be learned | "own": learn from trials | "shipped": also of others
    experience: str = "off"
    least_chance: float = 0.05  # of being accepted, as experience tells it
    contradictions: bool = True  # proposals under test at once may contradict each other
    blame: str = (
        "contrast"  # weigh behaviours by assertions | "attribution": by where it went wrong
    )


@dataclasses.dataclass(frozen=True)
class Draft:
    """An operation under consideration."""

    operations: tuple[Operation, ...]
    keys: tuple[str, ...]
    directives: tuple[Directive, ...]
    score: float
    value: float
    reason: str
    traits: tuple[float, ...] = ()  # of its evidence, see `experience`

    @property
    def deeds(self) -> tuple[tuple[str, str | None, bool], ...]:
        """The behaviours it wants to change."""
        return tuple(directive.deed for directive in self.directives)


def _deed_rejections(history: Sequence[Record], deed: tuple[str, str | None, bool]) -> float:
    return sum(_blame(r) for r in history if r.outcome == "rejected" and deed in r.deeds)


def _key_rejections(history: Sequence[Record], key: str) -> float:
    return sum(_blame(r) for r in history if r.outcome == "rejected" and key in r.keys)


def _blame(record: Record) -> float:
    """The share of one operation in the rejection of a bundle."""
    return 1.0 / max(len(record.keys), 1)


def repeats_rejection(
    history: Sequence[Record],
    keys: Sequence[str],
    *,
    score: float,
    seen: int,
    settings: CreatorSettings,
) -> Record | None:
    """The rejected proposal that a bundle contains, unless there is new evidence since then.

    New evidence is a materially higher score, or enough new episodes.
    """
    for record in reversed(history):
        if record.outcome != "rejected" or not set(record.keys) <= set(keys):
            continue
        risen = score >= settings.new_score * record.score and score >= record.score + 0.5
        if not risen and seen - record.seen < settings.new_episodes:
            return record
    return None


def recommend(
    state: CreatorState,
    skills: Sequence[Skill],
    groups: Sequence[Sequence[Episode]],
    contrasts: Sequence[Contrast],
    vocabulary: ActionVocabulary,
    capacity: int,
    settings: CreatorSettings,
    weights: Weights | None = None,
) -> list[Draft]:
    """Operations worth testing, the most promising first.

    With `weights` the value of each is what its evidence says times the chance that its trial is
    won; those with hardly a chance are left out.
    """
    own = {skill.name: skill_evidence(skill, groups, vocabulary) for skill in skills}
    evidence = {name: found for name, found in own.items() if found is not None}
    drafts: list[Draft] = []
    faults = _attributed(contrasts, groups, vocabulary, settings)
    for value, contrast in _weigh(contrasts, state, settings, faults)[:100]:
        drafts += draft_of(
            contrast, value, skills, evidence, state, vocabulary, capacity, settings, False
        )
    drafts += _deletions(skills, evidence, state, settings)
    if weights is not None:
        drafts = _times_chance(drafts, weights, settings)
    drafts.sort(key=lambda draft: -draft.value)
    return _worth_an_attempt(drafts, state, settings)


def _attributed(
    contrasts: Sequence[Contrast],
    groups: Sequence[Sequence[Episode]],
    vocabulary: ActionVocabulary,
    settings: CreatorSettings,
) -> list[float] | None:
    """How much of what went wrong each contrast speaks to; None where assertions tell."""
    if settings.blame != "attribution":
        return None
    failures = [episode for group in groups for episode in group if not episode.success]
    told = [(contrast.trigger, contrast.directive) for contrast in contrasts if contrast.value > 0]
    return attributed_faults(told[:_ATTRIBUTED], failures, vocabulary)


def _weigh(
    contrasts: Sequence[Contrast],
    state: CreatorState,
    settings: CreatorSettings,
    attributed: Sequence[float] | None = None,
) -> list[tuple[float, Contrast]]:
    """Contrasts with their value in the light of faults and history, the highest first."""
    faults = blame(state.assertions) if settings.assertions else {}
    weighed = []
    for place, contrast in enumerate(contrasts):
        if contrast.value <= 0:
            break
        if contrast.score < settings.min_score:
            continue
        deed = contrast.directive.deed
        fault = faults.get(deed, 0.0) if contrast.fault is None else contrast.fault
        if attributed is not None:
            fault = attributed[place] if place < len(attributed) else 0.0
        value = contrast.value * (0.5 + fault)
        value *= settings.related_discount ** _deed_rejections(state.history, deed)
        value *= settings.negative_discount if contrast.directive.negative else 1.0
        weighed.append((value, contrast))
    weighed.sort(key=lambda pair: -pair[0])
    return weighed


def _deletions(
    skills: Sequence[Skill],
    evidence: Mapping[str, Contrast],
    state: CreatorState,
    settings: CreatorSettings,
) -> list[Draft]:
    """The removal of each skill that goes with failure."""
    drafts = []
    for skill in skills:
        found = evidence.get(skill.name)
        if found is None or found.score > -settings.delete_score:
            continue
        key = "delete|" + skill_key(skill)
        against = dataclasses.replace(found, effect=-found.effect, score=-found.score)
        others = [one for one in skills if one is not skill]
        told = () if settings.experience == "off" else traits_of(against, others, "DELETE")
        drafts.append(
            Draft(
                operations=(Operation("DELETE", skill.name),),
                keys=(key,),
                directives=(),
                score=-found.score,
                value=found.harm
                * settings.rejected_discount ** _key_rejections(state.history, key),
                reason=f"following {skill.name} goes with failure ({-found.effect:+.2f})",
                traits=told,
            )
        )
    return drafts


def _times_chance(
    drafts: Sequence[Draft], weights: Weights, settings: CreatorSettings
) -> list[Draft]:
    """Multiplies the values by the chance of acceptance; leaves out those with hardly any."""
    chances = [chance(weights, draft.traits) for draft in drafts]
    return [
        dataclasses.replace(
            draft,
            value=draft.value * likely,
            reason=f"{draft.reason}, chance of acceptance {likely:.2f}",
        )
        for draft, likely in zip(drafts, chances, strict=True)
        if likely >= settings.least_chance
    ]


def _worth_an_attempt(
    drafts: Sequence[Draft], state: CreatorState, settings: CreatorSettings
) -> list[Draft]:
    """Leaves out what was rejected before, and all but two ways to the same behaviour.

    They would only use up the attempts.
    """
    kept: list[Draft] = []
    for draft in drafts:
        alike = sum(draft.directives == other.directives != () for other in kept)
        old = repeats_rejection(
            state.history,
            draft.keys,
            score=draft.score,
            seen=state.reservoir.seen,
            settings=settings,
        )
        if alike < 2 and old is None:
            kept.append(draft)
    return kept


def draft_of(
    contrast: Contrast,
    value: float,
    skills: Sequence[Skill],
    evidence: Mapping[str, Contrast],
    state: CreatorState,
    vocabulary: ActionVocabulary,
    capacity: int,
    settings: CreatorSettings,
    blind: bool,
) -> list[Draft]:
    """The operation that brings a contrast into the bank; none if what is there is better."""
    directive = contrast.directive
    try:
        skill = write_skill(contrast, vocabulary, [one.name for one in skills])
    except SkillError:
        return []
    key = skill_key(skill)
    value *= settings.rejected_discount ** _key_rejections(state.history, key)
    rival = None
    for one in skills:
        read = vocabulary.directive_of(one)
        if read is not None and _rivals(read, directive):
            rival = one
            break
    operations: tuple[Operation, ...]
    if rival is not None:
        if skill_key(rival) == key or not (
            blind or _better(contrast, rival, evidence, state, settings)
        ):
            return []
        operations = (Operation("MODIFY", rival.name, skill),)
    elif len(skills) < capacity:
        operations = (Operation("ADD", skill.name, skill),)
    else:
        weakest = min(skills, key=lambda one: _standing(one, evidence))
        if not blind and _standing(weakest, evidence) >= contrast.value:
            return []
        operations = (Operation("DELETE", weakest.name), Operation("ADD", skill.name, skill))
    when = describe_trigger(contrast.trigger, vocabulary)
    reason = (
        f'{when} "{skill.action}": success {contrast.effect:+.2f} where followed, '
        f"score {contrast.score:.1f}" + (", drawn blindly" if blind else "")
    )
    kind = operations[-1].operation
    replaced = {operation.name for operation in operations if operation.operation != "ADD"}
    others = [one for one in skills if one.name not in replaced]
    traits = () if settings.experience == "off" else traits_of(contrast, others, kind)
    return [Draft(operations, (key,), (directive,), contrast.score, value, reason, traits)]


def _rivals(one: Directive, other: Directive) -> bool:
    """Whether two directives say the same or the opposite of the same tasks."""
    if one.verb != other.verb or (
        None not in (one.condition, other.condition) and one.condition != other.condition
    ):
        return False
    same = one.noun == other.noun and one.negative == other.negative
    alike = one.noun == other.noun or None in (one.noun, other.noun)
    return same or (one.negative != other.negative and alike)


def _standing(skill: Skill, evidence: Mapping[str, Contrast]) -> float:
    found = evidence.get(skill.name)
    return 0.0 if found is None else found.value


def _better(
    contrast: Contrast,
    rival: Skill,
    evidence: Mapping[str, Contrast],
    state: CreatorState,
    settings: CreatorSettings,
) -> bool:
    """Whether a contrast is clearly better than a skill about the same behaviour."""
    found = evidence.get(rival.name)
    score, value = (0.0, 0.0) if found is None else (found.score, found.value)
    key = skill_key(rival)
    for record in state.history:  # obeyed skills lose their contrast; what won the trial counts
        if record.outcome == "accepted" and key in record.keys:
            score = max(score, record.score)
    return contrast.value > settings.refine_gain * max(value, 0.0) and (
        contrast.score > settings.refine_gain * max(score, 0.0)
    )
