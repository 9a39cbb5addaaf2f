"""Tool calls in what a model writes: as JSON (Qwen, Hermes), and in the forms of Llama.

    <tool_call>{"name": "get_metadata", "arguments": {"item_id": "x"}}</tool_call>   Hermes, Qwen
    {"name": "get_metadata", "parameters": {"item_id": "x"}}                         Llama 3, JSON
    <|python_tag|>{"name": ..., "parameters": ...}; {"name": ...}                    Llama 3, tagged
    <function=get_metadata>{"item_id": "x"}</function>                               Llama 3, custom

What stands around calls is the message. Nothing here can take long, whatever the text.
"""

import json
from typing import Any

from .trial import Reply, ToolCall

MOST_CALLS = 32  # of an answer that are read
MOST_TRIES = 100  # braces of an answer that are tried as the beginning of a call
_MARKS = ("<tool_call>", "</tool_call>", "<|python_tag|>", "<|eom_id|>", "<|eot_id|>")
_FUNCTION, _FUNCTION_END = "<function=", "</function>"


def reply_of(text: str) -> Reply:
    """What a model's text says: a message, and calls. Thoughts are left out."""
    if "</think>" in text:
        text = text.rpartition("</think>")[2]
    text, calls = _functions(text)
    decoder, at, tries, rest = json.JSONDecoder(), 0, 0, []
    while tries < MOST_TRIES and len(calls) < MOST_CALLS and (start := text.find("{", at)) >= 0:
        tries += 1
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            rest.append(text[at : start + 1])
            at = start + 1
            continue
        call = _call(found)
        if call is None:
            rest.append(text[at:end])
        else:
            rest.append(text[at:start])
            calls.append(call)
        at = end
    message = "".join([*rest, text[at:]])
    for mark in _MARKS:
        message = message.replace(mark, " ")
    if calls:  # calls are listed with these between them
        message = message.strip(" \n\t;,[]`")
    named = [ToolCall(str(number), *call) for number, call in enumerate(calls, start=1)]
    return Reply(" ".join(message.split()) or None, named)


def _functions(text: str) -> tuple[str, list[tuple[str, Any]]]:
    """The text without what is written as <function=name>{...}</function>, and these calls."""
    calls: list[tuple[str, Any]] = []
    rest = []
    while len(calls) < MOST_CALLS and (start := text.find(_FUNCTION)) >= 0:
        name, closed, inside = text[start + len(_FUNCTION) :].partition(">")
        inside, ended, behind = inside.partition(_FUNCTION_END)
        if not closed or not ended:
            break
        calls.append((name.strip(), _arguments(inside)))
        rest.append(text[:start])
        text = behind
    return "".join([*rest, text]), calls


def _call(found: Any) -> tuple[str, Any] | None:
    """Name and arguments; None = it is something else."""
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        found = found["function"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    return found["name"], _arguments(found.get("arguments", found.get("parameters", {})))


def _arguments(value: Any) -> Any:
    """Arguments; some write them as a text with JSON in it. None becomes no arguments."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.strip() else {}
        except (ValueError, RecursionError):
            return value
    return {} if value is None else value
