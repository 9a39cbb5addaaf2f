"""A few episodes of the last evaluation, as they were said."""

from reskill_jax.report.document import section
from reskill_jax.report.markup import Markup, tag
from reskill_jax.report.reading import Run
from reskill_jax.storage.sampled import sampled_files

_LONGEST = 60_000  # characters of a file that are shown


def episodes_section(run: Run) -> Markup | None:
    """The newest episodes of every split and mode; None where there are none."""
    newest = {(split, mode): (step, path) for step, split, mode, path in sampled_files(run.path)}
    if not newest:
        return None
    shown = []
    for (split, mode), (step, path) in sorted(newest.items()):
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                text = file.read(_LONGEST)
        except OSError as error:
            run.problems.append(f"{path.name}: {error.strerror}")
            continue
        skills = {"bank": "with the skills in use", "none": "without skills"}.get(mode, mode)
        name = f"{split} tasks, {skills}, step {step}"
        shown.append(tag("details", tag("summary", name), tag("pre", text, class_="episodes")))
    note = "A line that begins with > is the agent's, one with * a skill that was in its prompt."
    return section("Episodes", tag("p", note, class_="soft"), *shown)
