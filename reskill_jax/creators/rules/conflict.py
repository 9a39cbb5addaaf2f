"""Contradictions: skills that speak at the same moment of a task and cannot both be obeyed."""

from collections.abc import Sequence

from reskill_jax.creators.episode import Episode
from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive


def contradict(one: Directive, other: Directive) -> bool:
    """Whether two directives, given at the same moment, cannot both be followed.

    Two that name different actions, or one that forbids what the other asks for. Their conditions
    do not matter: a task may have the words of both.
    """
    alike = one.verb == other.verb and (one.noun == other.noun or None in (one.noun, other.noun))
    if one.negative != other.negative:
        return alike
    return not one.negative and not alike


def speak_together(one: Trigger, other: Trigger, episodes: Sequence[Episode]) -> bool:
    """Whether two triggers fire at the same turn of an episode whose task concerns both."""
    for episode in episodes:
        if not (one.applies_to_task(episode.goal) and other.applies_to_task(episode.goal)):
            continue
        for turn in range(len(episode.actions)):
            last, seen = episode.actions[turn - 1] if turn else None, episode.observations[turn]
            if all(t.fires(turn=turn, last_action=last, observation=seen) for t in (one, other)):
                return True
    return False


def contradicts_any(
    skill: Skill,
    others: Sequence[Skill],
    episodes: Sequence[Episode],
    vocabulary: ActionVocabulary,
) -> bool:
    """Whether a skill contradicts one of the others at some turn of some episode.

    Skills whose directives cannot be read contradict nothing.
    """
    directive = vocabulary.directive_of(skill)
    if directive is None:
        return False
    for other in others:
        read = vocabulary.directive_of(other)
        if read is not None and contradict(directive, read):
            if speak_together(skill.trigger, other.trigger, episodes):
                return True
    return False
