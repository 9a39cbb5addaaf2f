"""Writing a skill from a contrast: name, when to use it, what to do."""

import dataclasses
import re
from collections.abc import Iterable

from reskill_jax.skills.skill import MAX_NAME, Skill, Trigger
from reskill_jax.worlds.vocabulary import ActionVocabulary, Directive

from .contrast import Contrast
from .deeds import told_pattern


def plain_words(pattern: str) -> str:
    """A mined pattern as people would say it."""
    text = pattern.replace("\\d+", "N").replace("\\b", "").lstrip("^")
    return re.sub(r"\\(.)", r"\1", text)


def describe_trigger(trigger: Trigger, vocabulary: ActionVocabulary) -> str:
    """When a trigger fires, in words."""
    if trigger.kind == "general":
        return "At every turn"
    if trigger.kind == "beginning":
        return "At the very beginning"
    words = plain_words(trigger.pattern or "")
    if trigger.kind == "observation_pattern":
        return f'When the latest observation says "{words}"'
    words = told_pattern(trigger.pattern or "", vocabulary) or words
    doing = vocabulary.tell_doing(words)
    return f"Right after {doing}" if doing else f'Right after an action of the form "{words}"'


def describe(directive: Directive, trigger: Trigger, vocabulary: ActionVocabulary) -> str:
    """What to do, when, and of which tasks, in one sentence for people."""
    deed = vocabulary.tell(directive)
    when = describe_trigger(trigger, vocabulary)
    if trigger.kind == "general" and directive.negative:
        when = "At any turn"
    condition = "" if directive.condition is None else f', if the task says "{directive.condition}"'
    return f"{deed[0].upper()}{deed[1:]} {when[0].lower()}{when[1:]}{condition}."


def _slug(text: str) -> str:
    return "-".join(re.findall(r"[a-z0-9]+", text.lower()))


def write_name(
    contrast: Contrast, taken: Iterable[str], vocabulary: ActionVocabulary | None = None
) -> str:
    """A kebab-case name that says what the skill does, not taken yet.

    With the vocabulary, patterns of actions in any form are named by their words.
    """
    directive, trigger = contrast.directive, contrast.trigger
    parts = ["avoid" if directive.negative else "", directive.verb, directive.noun or ""]
    if trigger.kind == "beginning":
        parts.append("first")
    elif trigger.kind == "action_pattern":
        told = None if vocabulary is None else told_pattern(trigger.pattern or "", vocabulary)
        parts.append("after " + (told or plain_words(trigger.pattern or "")))
    elif trigger.kind == "observation_pattern":
        parts.append("when " + plain_words(trigger.pattern or ""))
    if directive.condition is not None:
        parts.append("for " + directive.condition)
    name = _slug(" ".join(parts))[: MAX_NAME - 4].strip("-") or "skill"  # of no Latin letters
    used = set(taken)
    if name not in used:
        return name
    return next(f"{name}-{i}" for i in range(2, len(used) + 3) if f"{name}-{i}" not in used)


def write_skill(contrast: Contrast, vocabulary: ActionVocabulary, taken: Iterable[str]) -> Skill:
    """The skill of a contrast. Raises SkillError, e.g. over 500 characters."""
    directive = contrast.directive
    return Skill(
        name=write_name(contrast, taken, vocabulary),
        when_to_use=describe(directive, contrast.trigger, vocabulary),
        action=vocabulary.say(dataclasses.replace(directive, condition=None)),
        trigger=dataclasses.replace(contrast.trigger, task_pattern=task_pattern(directive)),
    )


def task_pattern(directive: Directive) -> str | None:
    """The pattern of the tasks that a directive is meant for."""
    return None if directive.condition is None else rf"\b{directive.condition}\b"


def skill_key(skill: Skill) -> str:
    """What a skill amounts to, its name and prose aside."""
    trigger = skill.trigger
    return "|".join(
        (
            trigger.kind,
            trigger.pattern or "",
            trigger.task_pattern or "",
            skill.action.strip().lower(),
        )
    )
