"""The skills in the bank at the end of a run: one run as cards, several side by side."""

from collections.abc import Sequence
from typing import Any

from reskill_jax.report.conditions import Condition
from reskill_jax.report.document import stacked_table
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.reading import Run
from reskill_jax.report.skills import Entry


def bank_cards(run: Run) -> Markup:
    """A card per skill."""
    if not run.bank:
        return tag("p", "The bank is empty.", class_="soft")
    return tag("div", *[_card(entry) for entry in run.bank], class_="cards")


def bank_table(conditions: Sequence[Condition]) -> Markup:
    """A row per distinct skill, a column per condition: in which runs it is there at the end."""
    found: dict[str, dict[tuple[int, int], Entry]] = {}
    for column, condition in enumerate(conditions):
        for number, run in enumerate(condition.runs):
            for entry in run.bank:
                found.setdefault(entry.key, {})[column, number] = entry
    if not found:
        return tag("p", "Every bank is empty.", class_="soft")
    rows = []
    for places in sorted(found.values(), key=len, reverse=True):
        entry = next(iter(places.values()))
        cells: list[Any] = [tag("span", describe(entry), class_="soft")]
        for column, condition in enumerate(conditions):
            there = [(n, e) for (c, n), e in places.items() if c == column]
            cells.append(_presence(condition, there))
        name = tag("div", _action(entry), class_="says")
        rows.append([join(name, cells[0]), *cells[1:]])
    return stacked_table(["Skill", *[c.label for c in conditions]], rows, class_="stack wide-first")


def _presence(condition: Condition, there: list[tuple[int, Entry]]) -> Any:
    if not there:
        return tag("span", "–", class_="soft")
    steps = ", ".join(e.since_text for _, e in there)
    if len(condition.runs) == 1:
        return join("✓", tag("div", f"since {steps}", class_="soft"))
    seeds = ", ".join(str(condition.runs[number].config.get("seed", "?")) for number, _ in there)
    noun = "seed" if len(there) == 1 else "seeds"
    count = f"✓ {len(there)} of {len(condition.runs)} runs"
    return join(count, tag("div", f"since {steps} ({noun} {seeds})", class_="soft"))


def describe(entry: Entry) -> str:
    """Name and trigger in words."""
    if entry.skill is None:
        return entry.name
    trigger = entry.trigger
    pattern, task = trigger.get("pattern"), trigger.get("task_pattern")
    words = trigger_text(str(trigger.get("kind"))) + (f" {pattern}" if pattern else "")
    return f"{entry.name}: {words}" + (f", if the task says {task}" if task else "")


def _action(entry: Entry) -> str:
    return str(entry.skill.get("action") or "") if entry.skill else entry.text


def _card(entry: Entry) -> Markup:
    skill = entry.skill
    if skill is None:
        return tag("div", tag("h3", entry.name), tag("pre", entry.text), class_="card")
    trigger, examples = entry.trigger, skill.get("examples") or []
    pattern, task = trigger.get("pattern"), trigger.get("task_pattern")
    return tag(
        "div",
        tag("h3", skill.get("name") or entry.name),
        tag("p", skill.get("when_to_use") or "", class_="soft"),
        tag("div", skill.get("action") or "", class_="says"),
        tag(
            "dl",
            tag("dt", "shown"),
            tag(
                "dd",
                trigger_text(str(trigger.get("kind"))),
                pattern and [" ", tag("code", pattern)],
                task and [", if the task says ", tag("code", task)],
            ),
            *[
                join(tag("dt", word), tag("dd", text))
                for word, text in zip(("do", "don’t"), examples, strict=False)
            ],
        ),
        tag("p", f"in the bank since {entry.since_text}", class_="soft"),
        class_="card",
    )


def trigger_text(kind: str) -> str:
    """When a skill of this kind of trigger is shown."""
    return {
        "general": "every turn",
        "beginning": "at the beginning",
        "action_pattern": "after an action like",
        "observation_pattern": "when it reads",
    }.get(kind, kind)
