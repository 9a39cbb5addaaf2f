"""The gate that every proposal passes before it may cost a trial."""

from collections.abc import Callable, Sequence
from typing import Any

from reskill_jax.creators.episode import trajectories
from reskill_jax.skills.patterns import TriggerError
from reskill_jax.skills.skill import Bundle, BundleError, Skill, trigger_rate
from reskill_jax.worlds.vocabulary import ActionVocabulary

from .author import skill_key
from .recommend import CreatorSettings, Draft, repeats_rejection
from .state import CreatorState


def verify(
    draft: Draft,
    state: CreatorState,
    skills: Sequence[Skill],
    vocabulary: ActionVocabulary,
    compile_trigger: Callable[[str], Any] | None,
    capacity: int,
    settings: CreatorSettings,
) -> str | None:
    """Why a draft must not be tested, or None."""
    in_bank = {skill_key(skill) for skill in skills}
    for operation in draft.operations:
        skill = operation.skill
        if skill is None:
            continue
        if skill_key(skill) in in_bank:
            return "the bank has it already"
        if not vocabulary.encodable(skill.action):
            return "the policy cannot read it"
        for pattern in (skill.trigger.pattern, skill.trigger.task_pattern):
            if compile_trigger is not None and pattern is not None:
                try:
                    compile_trigger(pattern)
                except TriggerError as error:
                    return str(error)
        episodes = [e for e in state.reservoir.episodes if skill.trigger.applies_to_task(e.goal)]
        rate = trigger_rate(skill.trigger, trajectories(episodes))
        if rate < settings.trigger_rate:
            return f"its trigger fires in {rate:.0%} of the episodes"
    record = repeats_rejection(
        state.history,
        draft.keys,
        score=draft.score,
        seen=state.reservoir.seen,
        settings=settings,
    )
    if record is not None:
        return f"rejected at step {record.decided} and no new evidence since"
    try:
        Bundle(draft.operations).apply(skills, capacity=capacity)
    except BundleError as error:
        return str(error)
    return None
