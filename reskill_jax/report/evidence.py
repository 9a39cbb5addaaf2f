"""What the monitor saw of the skills: its latest figures, and which posteriors collapsed when."""

from typing import Any

from reskill_jax.report.document import section
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.plot import number
from reskill_jax.report.reading import Run
from reskill_jax.storage.log_schema import is_number

# Figure -> what it is called, the field of its value, and in which field stands what it would be
# if there were nothing to see.
_FIGURES = {
    "sensitivity": ("How far skills move the policy where they fire (nats a turn)", "nats", "null"),
    "information_gain": ("What an episode tells of what it was played for (nats)", "nats", "null"),
    "context_information": ("What the skill that was read tells of it (nats)", "nats", None),
    "reliability": ("Share of the skills’ differences that is no noise", "value", None),
    "effective_rank": ("Skills that fire independently of each other", "value", "null"),
}
MEANING = {
    "instruction": "the policy does the same with its skills as without",
    "context": "whatever skill is read, the episodes look as if none was",
    "evidence": "the evidence of the actions tells no more than shuffled evidence would",
    "bank": "skills fire in the same episodes, so that their effects cannot be told apart",
}


def _looks(run: Run) -> list[dict[str, Any]]:
    return [line for line in run.metrics if line.get("evidence")]


def alarm_notice(run: Run) -> Markup:
    """The alarms of the latest look; empty if there are none."""
    looks = _looks(run)
    alarms = (looks[-1].get("alarms") or []) if looks else []
    if not alarms:
        return join([])
    told = "; ".join(f"{name}: {MEANING.get(name, 'unknown')}" for name in alarms)
    return tag("p", f"Alarm at step {looks[-1]['step']}: {told}.", class_="notice")


def evidence_section(run: Run) -> Markup | None:
    """The latest figures, each beside its null, and every alarm; None without a look."""
    looks = _looks(run)
    if not looks:
        return None
    latest = looks[-1]["evidence"]
    rows = [
        tag("tr", *(tag("td", cell) for cell in _row(latest[name], *of)))
        for name, of in _FIGURES.items()
        if name in latest
    ]
    head = tag("tr", *(tag("th", text) for text in ("", "value", "if nothing to see", "p")))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    skills = latest.get("sensitivity", {}).get("skills")
    told = [
        tag("tr", tag("td", name), tag("td", number(value)))
        for name, value in sorted((skills if isinstance(skills, dict) else {}).items())
        if is_number(value)
    ]
    of_skills = tag("table", tag("tbody", *told)) if told else None
    return section(
        "Evidence",
        tag("p", _alarm_words(looks), class_="soft"),
        tag("div", table, class_="card"),
        tag("div", tag("p", "Nats by which each skill moves the policy"), of_skills, class_="card")
        if of_skills
        else None,
    )


def _row(figure: dict[str, Any], name: str, value: str, null: str | None) -> list[str]:
    def shown(key: str | None) -> str:
        found: Any = figure.get(key) if key is not None else None
        return number(float(found)) if is_number(found) else ""

    return [name, shown(value), shown(null), shown("p")]


def _alarm_words(looks: list[dict[str, Any]]) -> str:
    """Which alarms were on, from which look to which."""
    told, begun = [], dict[str, int]()
    for line in looks:
        alarms = [name for name in line.get("alarms") or []]
        for name in [name for name in begun if name not in alarms]:
            told.append(f"{name} (steps {begun.pop(name)} to {line['step']})")
        for name in alarms:
            begun.setdefault(name, line["step"])
    told += [f"{name} (from step {step} on)" for name, step in begun.items()]
    last = looks[-1]["step"]
    return f"{len(looks)} looks up to step {last}. Alarms: {'; '.join(told) or 'none'}."
