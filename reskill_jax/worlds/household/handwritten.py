"""Skills for the household world written by hand: yardsticks, and a bank to start from."""

from reskill_jax.skills.skill import Skill, Trigger


def _after(action: str, name: str, when: str, said: str) -> Skill:
    return Skill(name, when, said, Trigger("action_pattern", f"^{action}"))


def _when(text: str, name: str, when: str, said: str) -> Skill:
    return Skill(name, when, said, Trigger("observation_pattern", text))


def _after_taking(name: str, place: str, word: str) -> Skill:
    when = f'Go to the {place} right after taking something, if the task says "{word}".'
    trigger = Trigger("action_pattern", "^take", rf"\b{word}\b")
    return Skill(name, when, f"go to {place}.", trigger)


# What a person who knows the player's habits would tell it, and what would only harm it.
GOOD = (
    _when("is closed", "open-closed", "Open it when what you see is closed.", "open."),
    _after_taking("clean-it", "sinkbasin", "clean"),
    _after_taking("cool-it", "fridge", "cool"),
    _after_taking("heat-it", "microwave", "heat"),
    _after_taking("hot-it", "microwave", "hot"),
    _after(
        "move", "leave-it", "Do not take anything right after moving something.", "do not take."
    ),
)
BAD = (
    _after("go to", "look-around", "Look around right after going to another place.", "look."),
    _after("open", "close-it", "Close it right after opening something.", "close."),
    _when("you see a", "stop-taking", "Do not take anything when you see a thing.", "do not take."),
)
