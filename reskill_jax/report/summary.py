"""The end of a run in a few lines of text."""

from typing import Any

from reskill_jax.report.reading import Run

SPLITS = ("seen", "unseen")


def summary_lines(run: Run) -> list[str]:
    """Success at the start and at the end with intervals, what became of the skills, cost."""
    seconds = sum(m["seconds"] for m in run.metrics if m.get("seconds") is not None)
    steps = len(run.metrics)
    pace = f", {seconds / steps:.1f} s per step" if steps and seconds else ""
    lines = [f"{run.name}: {run.last_step} steps{pace}", ""]
    table = [_success(run, split) for split in SPLITS]
    if any(table):
        lines.append(f"{'success':<14}{'start':<20}{'end':<20}")
        lines += [line for line in table if line]
        lines.append("")
    accepted, rejected = run.count("accepted"), run.count("rejected", "kept")
    gone = run.count("pruned", "retired")
    lines.append(
        f"{'skills':<14}{accepted} accepted, {rejected} rejected, {gone} pruned or retired"
    )
    names = ", ".join(life.name for life in run.lives if life.end is None)
    lines.append(f"{'in the bank':<14}{names or 'none'}")
    return lines


def _success(run: Run, split: str) -> str | None:
    points = run.evaluations(split)
    if not points:
        return None
    first, last = points[0], points[-1]
    text = f"{split + ' tasks':<14}{_rate(first):<20}"
    if first is last:
        return text.rstrip()
    if last["interval"][0] > first["interval"][1]:
        verdict = "up, intervals apart"
    elif last["interval"][1] < first["interval"][0]:
        verdict = "DOWN, intervals apart"
    else:
        verdict = "intervals overlap"
    return f"{text}{_rate(last):<20}{verdict}"


def _rate(line: dict[str, Any]) -> str:
    low, high = line["interval"]
    return f"{100 * line['success']:.0f}% ({100 * low:.0f}–{100 * high:.0f}%)"
