"""What a language model as creator found, wrote and cost: one card per pipeline."""

from typing import Any

from reskill_jax.report.document import duration, section, stacked_table
from reskill_jax.report.markup import Markup, join, tag
from reskill_jax.report.plot import number, percent
from reskill_jax.report.reading import Run

_MOST = 60  # pipelines that are shown: the latest

Line = dict[str, Any]


def creator_section(run: Run) -> Markup | None:
    """The pipelines of a run; None where no language model was asked."""
    if not run.creator:
        return None
    turned_down: dict[int, list[str]] = {}
    for line in run.creator:
        turned_down.setdefault(line["pipeline"], []).extend(line.get("turned_down") or [])
    pipelines = [line for line in run.creator if line.get("begun") is not None]
    note = (
        "A pipeline contrasts episodes of single tasks, groups what it found, recommends changes "
        "and writes them. Every draft passes the same gate and the same trial as any other."
    )
    if len(pipelines) > _MOST:
        note += f" The latest {_MOST} of {len(pipelines)} are shown."
    return section(
        "The creator",
        _totals(run, len(pipelines)),
        tag("p", note, class_="soft"),
        *[_card(line, turned_down.get(line["pipeline"], [])) for line in pipelines[-_MOST:]],
    )


def _totals(run: Run, pipelines: int) -> Markup:
    def total(name: str) -> float:
        return sum(line.get(name) or 0 for line in run.creator)

    written = sum(len(line.get("written") or []) for line in run.creator)
    failed = sum(line.get("failure") is not None for line in run.creator)
    rows: list[tuple[str, Any]] = [
        ("Pipelines, and those that failed", f"{pipelines}, {failed}"),
        ("Changes written", written),
        ("Calls", number(total("calls"))),
        ("Calls per change", number(total("calls") / written) if written else "–"),
        ("Tokens of questions", number(total("input_tokens"))),
        ("Tokens of answers", number(total("output_tokens"))),
        ("Time of all calls", duration(total("seconds"))),
    ]
    if total("cost") > 0:
        rows.append(("Cost (dollars)", f"{total('cost'):.2f}"))
    body = [tag("tr", tag("td", name), tag("td", value, class_="nowrap")) for name, value in rows]
    return tag("div", tag("table", tag("tbody", *body)), class_="card")


def _card(line: Line, turned_down: list[str]) -> Markup:
    written = len(line.get("written") or [])
    outcome = "failed" if line.get("failure") is not None else f"{written} written"
    steps = f"step {line['begun']} to {line['step']}"
    cost = (
        f"{number(line.get('calls') or 0)} calls, {number(line.get('input_tokens') or 0)} tokens "
        f"of questions and {number(line.get('output_tokens') or 0)} of answers, "
        f"{duration(line.get('seconds') or 0)}"
    )
    if line.get("cost"):
        cost += f", {line['cost']:.3f} dollars"
    return tag(
        "details",
        tag("summary", tag("b", f"Pipeline {line['pipeline']}"), f" {steps}: {outcome}"),
        tag("p", cost, class_="soft"),
        line.get("failure") and tag("p", line["failure"], class_="notice"),
        _drafts(line),
        turned_down and join(tag("h3", "Turned down when its turn came"), _list(turned_down)),
        _recommendations(line),
        _diagnosis(line),
        _findings(line),
        class_="card",
    )


def _list(texts: list[Any]) -> Markup:
    return tag("ul", *[tag("li", text) for text in texts])


def _drafts(line: Line) -> Markup | None:
    drafts = line.get("drafts")
    if not drafts:
        return None
    rows = [
        [
            (draft.get("name") or "–", "nowrap"),
            draft.get("action") or draft.get("intent") or "",
            draft.get("refused") or "to be tested",
        ]
        for draft in drafts
    ]
    return join(tag("h3", "Drafts"), stacked_table(("Skill", "Text", "Gate"), rows))


def _recommendations(line: Line) -> Markup | None:
    told = line.get("recommendations")
    if not told:
        return None
    texts = [
        " ".join(filter(None, (one.get("op"), one.get("target"), "–", one.get("intent"))))
        for one in told
    ]
    return join(tag("h3", "Recommended"), _list(texts))


def _diagnosis(line: Line) -> Markup | None:
    told = line.get("diagnosis")
    if not told:
        return None
    failed = line.get("diagnosis_failed")
    rows = [
        [one["assertion"], percent(one["success_rate"]), percent(one["failure_rate"])]
        for one in told.get("assertions") or []
    ]
    heads = ("Assertion", "Successes that pass", "Failures that pass")
    return join(
        tag("h3", "Diagnosis"),
        failed and tag("p", f"The stage brought nothing: {failed}", class_="soft"),
        told.get("summary") and tag("p", told["summary"]),
        told.get("priorities") and _list(told["priorities"]),
        rows and stacked_table(heads, rows),
    )


def _findings(line: Line) -> Markup | None:
    told = line.get("findings")
    if not told:
        return None
    silent = (line.get("groups_without_answer") or {}).get("number")
    note = f"{number(line.get('groups') or 0)} tasks were contrasted"
    note += f"; {number(silent)} brought no answer." if silent else "."
    texts = [
        join(one["finding"], tag("span", f" ({one['confidence']}; {one['task']})", class_="soft"))
        for one in told
    ]
    return join(tag("h3", "Found"), tag("p", note, class_="soft"), _list(texts))
