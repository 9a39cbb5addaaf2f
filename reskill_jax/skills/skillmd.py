"""Skills as SKILL.md folders, after the public agent-skills specification, exact both ways.

`<folder>/<name>/SKILL.md`: YAML front matter (name, description, metadata with the trigger) and a
body with the sections "When to use", "Action" and "Examples". A text that could be mistaken for
Markdown structure is written as a block quote, so that any text survives the round trip.
Files of other authors are read too: without our sections the whole body is the action.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .patterns import TriggerError
from .skill import Skill, SkillError, Trigger

FILE_NAME = "SKILL.md"
MAX_FILE_BYTES = 64 * 1024
MAX_FRONT_BYTES = 8 * 1024
_MAX_DEPTH = 4
_SECTIONS = ("## When to use", "## Action", "### Do", "### Don't")
_STRUCTURE = re.compile(r"[#>]")


class SkillFileError(ValueError):
    """A SKILL.md that is refused, with the reason in one line."""


class _Loader(yaml.SafeLoader):
    """Safe loading without aliases (no expansion bombs), deep nesting or duplicate keys."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise SkillFileError("aliases are not allowed in the front matter")
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise SkillFileError("the front matter is nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise SkillFileError(f"the front matter gives {key!r} twice")
        return super().construct_mapping(node, deep)


# `key: 2024-01-01` or `name: yes` are texts to their authors.
_Loader.yaml_implicit_resolvers = {}


def _block(text: str) -> str:
    if text and text == text.strip() and "\n" not in text and not _STRUCTURE.match(text):
        return text
    return "\n".join("> " + line if line else ">" for line in text.split("\n"))


def _unblock(lines: Sequence[str]) -> str:
    text = "\n".join(lines).strip("\n")
    quoted = text.split("\n")
    if all(line.startswith(">") for line in quoted):
        return "\n".join(line[2:] if line.startswith("> ") else line[1:] for line in quoted)
    return text.strip()


def to_markdown(skill: Skill) -> str:
    """The SKILL.md text of a skill; `from_markdown` reads it back exactly."""
    metadata: dict[str, str] = {"trigger": skill.trigger.kind}
    if skill.trigger.pattern is not None:
        metadata["trigger-pattern"] = skill.trigger.pattern
    if skill.trigger.task_pattern is not None:
        metadata["task-pattern"] = skill.trigger.task_pattern
    front = yaml.safe_dump(
        {"name": skill.name, "description": skill.when_to_use, "metadata": metadata},
        sort_keys=False,
        allow_unicode=True,
        width=100,
    )
    parts = [
        _SECTIONS[0],
        _block(skill.when_to_use),
        _SECTIONS[1],
        _block(skill.action),
    ]
    if skill.examples:
        do, do_not = skill.examples
        parts += ["## Examples", _SECTIONS[2], _block(do), _SECTIONS[3], _block(do_not)]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(text: str) -> tuple[dict[str, Any], list[str]]:
    lines = text.split("\n")
    if lines[0].rstrip() != "---":
        raise SkillFileError("it does not begin with '---' and YAML front matter")
    end = next((i for i, line in enumerate(lines[1:], 1) if line.rstrip() == "---"), None)
    if end is None:
        raise SkillFileError("the front matter has no closing '---'")
    source = "\n".join(lines[1:end])
    if len(source.encode()) > MAX_FRONT_BYTES:
        raise SkillFileError(f"the front matter is larger than {MAX_FRONT_BYTES} bytes")
    try:
        front = yaml.load(source, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if isinstance(error, SkillFileError):
            raise
        reason = " ".join(str(error).split())
        raise SkillFileError(f"the front matter is not valid YAML: {reason[:200]}") from None
    if not isinstance(front, dict):
        raise SkillFileError("the front matter is not a mapping")
    return front, lines[end + 1 :]


def _string(front: dict[str, Any], key: str, *, required: bool = True) -> str | None:
    value = front.get(key)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value.strip():
        raise SkillFileError(f"{key} must be a text, got {type(value).__name__}")
    return value


def from_markdown(text: str) -> Skill:
    """Reads the text of a SKILL.md.

    Raises:
      SkillFileError: in one line, whatever is wrong with it.
    """
    if len(text) > MAX_FILE_BYTES:
        raise SkillFileError(f"it is larger than {MAX_FILE_BYTES} bytes")
    front, body = _front_matter(text.removeprefix("\ufeff").replace("\r\n", "\n"))
    name = _string(front, "name")
    description = _string(front, "description")
    metadata = front.get("metadata") or {}
    if not isinstance(metadata, dict):
        raise SkillFileError("metadata must be a mapping")
    kind = _string(metadata, "trigger", required=False)
    pattern = _string(metadata, "trigger-pattern", required=False)
    task_pattern = _string(metadata, "task-pattern", required=False)
    sections: dict[str, list[str]] = {}
    current: list[str] = []
    for line in body:
        heading = line.rstrip()
        if heading in _SECTIONS:
            if heading in sections:
                raise SkillFileError(f"it has two sections {heading!r}")
            current = sections[heading] = []
        elif heading == "## Examples" and sections:
            current = []
        else:
            current.append(line)
    when, action, do, do_not = (sections.get(section) for section in _SECTIONS)
    if when is not None and _unblock(when) != description:
        raise SkillFileError("its description and its section 'When to use' differ")
    if (do is None) != (do_not is None):
        raise SkillFileError("its examples are not a pair of '### Do' and '### Don't'")
    try:
        return Skill(
            name=name or "",
            when_to_use=description or "",
            action=_unblock(action if action is not None else body),
            trigger=Trigger(kind or "general", pattern, task_pattern),  # type: ignore[arg-type]
            examples=() if do is None or do_not is None else (_unblock(do), _unblock(do_not)),
        )
    except (SkillError, TriggerError) as error:
        raise SkillFileError(str(error)) from None


def export_skill(skill: Skill, folder: str | os.PathLike[str]) -> Path:
    """Writes `folder/<name>/SKILL.md` (replacing it at once) and returns its path."""
    text = to_markdown(skill)
    if from_markdown(text) != skill:
        raise SkillFileError(f"{skill.name} does not survive the round trip")
    path = Path(folder) / skill.name / FILE_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(text.encode("utf-8"))
    partial.replace(path)
    return path


def export_skills(
    skills: Sequence[Skill], folder: str | os.PathLike[str], *, remove_others: bool = False
) -> list[Path]:
    """Writes every skill.

    Args:
      skills: the bank.
      folder: where the folders of the skills go.
      remove_others: delete folders there that hold nothing but the SKILL.md of another skill.
    """
    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    paths = [export_skill(skill, root) for skill in skills]
    if remove_others:
        names = {skill.name for skill in skills}
        for other in sorted(root.iterdir()):
            if other.name in names or other.is_symlink() or not other.is_dir():
                continue
            if [one.name for one in other.iterdir()] == [FILE_NAME]:
                (other / FILE_NAME).unlink()
                other.rmdir()
    return paths


def import_skill(folder: str | os.PathLike[str]) -> Skill:
    """Reads one skill's folder, whose name must be the skill's.

    Raises:
      SkillFileError: one line that names the file and what is wrong with it.
    """
    folder = Path(folder)
    path = folder / FILE_NAME
    try:
        if not path.is_file():
            raise SkillFileError("there is no such file")
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SkillFileError("it is a link that leaves the folder")
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise SkillFileError(f"it is larger than {MAX_FILE_BYTES} bytes")
        skill = from_markdown(data.decode("utf-8"))
        if skill.name != folder.resolve().name:
            raise SkillFileError(f"its name is {skill.name!r}, not that of its folder")
    except UnicodeDecodeError:
        raise SkillFileError(f"{path}: it is not UTF-8") from None
    except SkillFileError as error:
        raise SkillFileError(f"{path}: {error}") from None
    return skill


def import_skills(*folders: str | os.PathLike[str]) -> tuple[Skill, ...]:
    """Reads every skill below some folders, in the order of their names.

    Raises:
      SkillFileError: one line for the first file that is refused, a folder that does not exist, a
        link that leaves its folder, two skills of one name.
    """
    skills: dict[str, Skill] = {}
    for folder in folders:
        root = Path(folder)
        if not root.is_dir():
            raise SkillFileError(f"{root}: there is no such folder")
        for one in sorted(root.iterdir()):
            if not one.is_dir() or one.name.startswith("."):
                continue
            if not one.resolve().is_relative_to(root.resolve()):
                raise SkillFileError(f"{one}: it is a link that leaves the folder")
            skill = import_skill(one)
            if skill.name in skills:
                raise SkillFileError(f"{one}: there are two skills called {skill.name}")
            skills[skill.name] = skill
    return tuple(skills[name] for name in sorted(skills))
