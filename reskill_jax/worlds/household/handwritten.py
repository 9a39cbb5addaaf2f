"""Skills for the household world written by hand: yardsticks, and a bank to start from."""

from reskill_jax.skills.skill import Skill, Trigger, TriggerKind


def _skill(
    name: str, action: str, kind: TriggerKind, pattern: str, task: str | None = None
) -> Skill:
    return Skill(name, "Written by hand.", action, Trigger(kind, pattern, task))


# What a person who knows the player's habits would tell it, and what would only harm it.
GOOD = (
    _skill("open-closed", "open.", "observation_pattern", "is closed"),
    _skill("clean-it", "go to sinkbasin.", "action_pattern", "^take", r"\bclean\b"),
    _skill("cool-it", "go to fridge.", "action_pattern", "^take", r"\bcool\b"),
    _skill("heat-it", "go to microwave.", "action_pattern", "^take", r"\bheat\b"),
    _skill("hot-it", "go to microwave.", "action_pattern", "^take", r"\bhot\b"),
    _skill("leave-it", "do not take.", "action_pattern", "^move"),
)
BAD = (
    _skill("look-around", "look.", "action_pattern", "^go to"),
    _skill("close-it", "close.", "action_pattern", "^open"),
    _skill("stop-taking", "do not take.", "observation_pattern", "you see a"),
)
