"""What language models are told: as the agent, and as the user. Our own words."""

import json
from collections.abc import Iterable

from .catalog import Constraint, Task
from .scoring import ACCEPTED, REJECTED
from .tools import SCHEMAS

CALL_FORM = '<tool_call>{"name": ..., "arguments": {...}}</tool_call>'


def agent_instruction(policy: str, user_id: str, *, lists_tools: bool = False) -> str:
    """What an agent is told.

    Args:
      policy: the rules, word for word.
      user_id: of the user it talks to.
      lists_tools: whether the tools are described in the text, for models that are not given them
        in another way.
    """
    parts = [
        "You help a user to find one film of a catalog to watch.",
        "Find out what the user wants by asking. Look films up with search_catalog and "
        "get_metadata, see where they can be watched with check_availability, and what the user "
        "has watched with get_user_history.",
        "The conversation ends only when you call recommend, which you do exactly once: with the "
        "item_id of the film, or without one if no film of the catalog can satisfy the user. That "
        "is a strong claim: if there was a film after all, you have failed.",
        "A film that is not rated (NR) is not a film rated R.",
        f"The user's id is {user_id}.",
    ]
    if lists_tools:
        parts.append(
            f"To call a tool, write {CALL_FORM} and nothing else; what you write otherwise is said "
            "to the user. The tools:"
        )
        parts += [json.dumps(schema["function"]) for schema in SCHEMAS]
    return "\n".join([*parts, "", policy])


def user_instruction(task: Task) -> str:
    """What a language model is told that speaks as the user."""
    services = ", ".join(task.user_services) or "all major services"
    preferences = "; ".join(task.soft_preferences) or "none"
    parts = [
        "You are a person who wants to watch a film tonight, and talk to an assistant that "
        "recommends one. Write what this person says next, and nothing else. Be natural and "
        "friendly, in one to three sentences.",
        f"If the assistant commits to one named film that fits your wishes, write {ACCEPTED}. If "
        f"it names a film that does not fit, write {REJECTED} and a short reason. A film that is "
        "named hesitantly is named. Do not accept to be put off: ask for one film.",
    ]
    if task.no_valid_recommendation:
        parts.append(
            f"No film can satisfy you: reject every film. If you are told that nothing fits, write "
            f"{ACCEPTED}."
        )
    parts += [
        f"Who you are: {task.persona}",
        f"What you would rather have, if it can be had: {preferences}",
        f"Streaming services you can use (say so when asked): {services}",
        "Your wishes. Say all of these in your first message, whoever you are:",
        *_listed(task.revealed("volunteer")),
        "Say these only when you are asked about them, but reject films that violate them:",
        *_listed(task.revealed("on_ask")),
        "Never say these. Reject films that violate them, and hint at why without naming them:",
        *_listed(task.revealed("hidden")),
    ]
    return "\n".join(parts)


def _listed(constraints: Iterable[Constraint]) -> list[str]:
    lines = [f"- {one.field} {one.op} {json.dumps(one.value)}" for one in constraints]
    return lines or ["- (none)"]
