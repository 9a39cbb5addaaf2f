"""SKILL.md files of other authors: whole, unchanged, and told from ours."""

import dataclasses
import json
import os
import re
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.skills.describing import describe, description
from reskill_jax.skills.front_matter import quoted
from reskill_jax.skills.skill import Skill, SkillError, Trigger
from reskill_jax.skills.skillmd import (
    MAX_FILE_BYTES,
    SkillFileError,
    SkillFileWarning,
    export_skill,
    export_skills,
    from_markdown,
    import_skill,
    import_skills,
    read_skills,
    to_markdown,
)

# One trait of published skills each: what the body should come in as, where it is not the rest.
FRONT = "---\nname: pdf\ndescription: Reads PDF files.\n---\n"
BODY = "# PDF\n\nUse the tool.\n"
FILES = {
    "plain": FRONT + "\n" + BODY,
    "no blank line": FRONT + BODY,
    "no line end": FRONT + "\n" + BODY.rstrip("\n"),
    "windows": (FRONT + BODY).replace("\n", "\r\n"),
    "old macintosh": (FRONT + BODY).replace("\n", "\r"),
    "mixed line ends": FRONT.replace("\n", "\r\n") + "\n" + BODY,
    "byte-order mark": "\ufeff" + FRONT + BODY,
    "spaces behind the marks": FRONT.replace("---\n", "---  \n") + BODY,
    "rules in the body": FRONT + "Before.\n\n---\n\nBetween.\n---\nBehind.\n",
    "our headings": FRONT
    + "First this.\n\n## When to use\n\nNow.\n\n## Action\n\na\n\n## Action\n",
    "our headings, half": FRONT + "## Examples\n\n### Do\n\nb\n",
    "our headings in code": FRONT + "```markdown\n## Action\n\nopen.\n```\n\nAnd then close.\n",
    "a fence that never ends": FRONT + "````\n```\n## Action\nopen.\n",
    "a quotation": FRONT + "> ## Action\n>\n> open.\n",
    "code first": FRONT + "\n    indented code\n\nText.\n",
    "tabs": FRONT + "\tmake all\n",
    "long": FRONT + "A line of advice.\n" * 9000,
    "other letters": FRONT + "\u9002\u7528\u573a\u666f \u00e9 \U0001f527 \u2028 \u202e\n",
    "unknown fields": "---\nlicense: MIT\nname: pdf\ndescription: Reads PDF files.\n"
    "allowed-tools: Bash(git:*) Read\nversion: 1.10\nok: yes\nargument-hint: [page]\n---\n" + BODY,
    "nested metadata": "---\nname: pdf\ndescription: Reads PDF files.\nmetadata:\n  tool:\n"
    "    needs:\n      bins:\n        - ssh\n        - {name: git, tags: [a, b]}\naliases: [x, y]\n"
    f"---\n{BODY}",
    "a folded description": "---\nname: pdf\ndescription: >-\n  Reads\n  PDF files.\n---\n" + BODY,
    "a continued description": "---\nname: pdf\ndescription:\n  Reads PDF\n  files.\n---\n" + BODY,
    "a quoted description": "---\nname: 'pdf'\ndescription: \"Reads PDF files.\" # yes\n---\n"
    + BODY,
    "an anchor": "---\nname: &n pdf\ndescription: Reads PDF files.\nalso: [*n, *n]\n---\n" + BODY,
    "a trigger of another kind": "---\nname: pdf\ndescription: Reads PDF files.\n"
    f"metadata: {{author: me, trigger: manual}}\n---\n{BODY}",
    "a trigger in words": "---\nname: pdf\ndescription: Reads PDF files.\n"
    f'metadata:\n  trigger: "When there are PDFs"\n---\n{BODY}',
    "a list of triggers": "---\nname: pdf\ndescription: Reads PDF files.\n"
    f"metadata:\n  trigger: [a, b]\n  x: y\n---\n{BODY}",
}


def body_of(text):
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    end = [i for i, line in enumerate(lines) if line.rstrip() == "---"][1]
    while not lines[end + 1].strip():
        end += 1
    return "\n".join(lines[end + 1 :]).rstrip()


@pytest.mark.parametrize("trait", FILES)
def test_the_whole_body_comes_in_and_the_file_goes_out_unchanged(trait, tmp_path):
    text = FILES[trait]
    folder = tmp_path / "in" / "pdf"
    folder.mkdir(parents=True)
    (folder / "SKILL.md").write_bytes(text.encode())
    skill = import_skill(folder)
    assert skill == Skill("pdf", "Reads PDF files.", body_of(text), Trigger("general"), source=text)
    path = export_skill(skill, tmp_path / "out")
    assert path.read_bytes() == text.encode()
    assert import_skill(path.parent) == skill
    assert Skill.from_dict(json.loads(json.dumps(skill.to_dict()))) == skill


def test_the_body_of_some_by_hand():
    action = {name: from_markdown(text).action for name, text in FILES.items()}
    assert action["windows"] == "# PDF\n\nUse the tool."
    assert action["rules in the body"] == "Before.\n\n---\n\nBetween.\n---\nBehind."
    assert action["our headings in code"].startswith("```markdown\n## Action")
    assert action["a quotation"] == "> ## Action\n>\n> open."
    assert action["code first"] == "    indented code\n\nText."


@pytest.mark.parametrize(
    "name", ["name: PDF Tools\n", "name: pdf_2\n", "name:\n", "", "name: ../x\n"]
)
def test_a_name_that_is_none_is_its_folder_s(name, tmp_path):
    folder = tmp_path / "pdf-tools"
    folder.mkdir()
    text = FRONT.replace("name: pdf\n", name) + BODY
    (folder / "SKILL.md").write_text(text)
    skill = import_skill(folder)
    assert skill.name == "pdf-tools" and to_markdown(skill) == text
    assert import_skill(export_skill(skill, tmp_path / "out").parent) == skill
    folder.rename(tmp_path / "PDF Tools")
    with pytest.raises(SkillFileError, match="is not kebab-case|name must be a text"):
        import_skill(tmp_path / "PDF Tools")


def test_a_name_of_ours_is_never_its_folder_s(tmp_path):
    path = export_skill(OURS, tmp_path)
    path.write_text(path.read_text().replace('name: "cool-it"', "name: Cool It"))
    with pytest.raises(SkillFileError, match="'Cool It' is not kebab-case"):
        import_skill(path.parent)


def test_without_a_body_the_description_is_what_there_is_to_say():
    skill = from_markdown(FRONT)
    assert (skill.action, skill.when_to_use) == ("Reads PDF files.", "Reads PDF files.")
    assert to_markdown(skill) == FRONT


@given(st.text(max_size=60), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_any_body_is_unchanged_or_refused_in_one_line(body, end, mark):
    text = ("\ufeff" if mark else "") + FRONT.replace("\n", end) + body
    try:
        skill = from_markdown(text)
    except SkillFileError as error:
        assert len(str(error).splitlines()) == 1 and "holds the character U+" in str(error)
        return
    assert to_markdown(skill) == text and from_markdown(to_markdown(skill)) == skill


def test_whole_folders_of_skills_that_are_really_in_use():
    """Byte for byte, wherever RESKILL_SKILLS points: a folder of skill folders, at any depth."""
    root = os.environ.get("RESKILL_SKILLS")
    if root is None:
        pytest.skip("set RESKILL_SKILLS to a folder of published skills")
    unchanged = 0
    for file in sorted(Path(root).glob("**/SKILL.md")):
        try:
            skill = import_skill(file.parent)
        except SkillFileError as error:
            warnings.warn(str(error), stacklevel=1)
            continue
        assert to_markdown(skill).encode() == file.read_bytes()
        unchanged += 1
    assert unchanged


# --- ours, as told by their metadata ------------------------------------------------------------

OURS = Skill(
    "cool-it", "Right after taking something.", "go to fridge.", Trigger("action_pattern", "^take")
)


LONG = {"action": "go to " + "a " * 300 + "fridge."}


@pytest.mark.parametrize(
    "change, fields",
    [
        (lambda text: text.replace("\n", "\r\n"), {}),
        (lambda text: "\ufeff" + text, {}),
        (lambda text: text.replace("metadata:", "license: MIT\nmetadata:"), {}),
        (lambda text: text.replace("metadata:\n", "metadata:\n  author: me\n"), {}),
        (lambda text: text.replace('description: "Go', 'description: "Please go'), {}),
        (lambda text: text.replace("## When", "A word before.\n\n## When"), {}),
        (lambda text: text.replace("\ngo to fridge.\n", "\nlook.\n"), {"action": "look."}),
        (
            lambda text: text.replace("go to fridge.\n", "```\n## Action\n```\n"),
            {"action": "```\n## Action\n```"},
        ),
        (
            lambda text: text.split("## When")[0] + "One.\n\nTwo.\n",
            {"action": "One.\n\nTwo.", "when_to_use": description(OURS)},
        ),
        (
            lambda text: text.replace("go to fridge.\n", "```look```\n\n## Examples\n"),
            {"action": "```look```"},
        ),
        (
            lambda text: text.replace("go to fridge.\n", "~~~ a `b`\n```\n## Action\n~~~~\n"),
            {"action": "~~~ a `b`\n```\n## Action\n~~~~"},
        ),
        (lambda text: text.replace("fridge.\n", "a " * 300 + "fridge.\n"), LONG),
    ],
)
def test_a_file_of_ours_that_was_edited_keeps_its_trigger_and_loses_nothing(change, fields):
    text = change(to_markdown(OURS))
    skill = from_markdown(text)
    assert skill == dataclasses.replace(OURS, source=text, **fields)
    assert to_markdown(skill) == text


def test_files_that_were_written_before_descriptions_said_what_to_do():
    text = to_markdown(OURS).replace(quoted(description(OURS)), OURS.when_to_use)
    text = text.split("\n## Trigger")[0]
    skill = from_markdown(text)
    assert dataclasses.replace(skill, source=None) == OURS and to_markdown(skill) == text


def test_a_misspelt_trigger_is_told():
    text = to_markdown(OURS).replace('trigger: "action_pattern"', "trigger: action_patern")
    with pytest.raises(SkillFileError, match="unknown trigger 'action_patern'; expected one of"):
        from_markdown(text)


@pytest.mark.parametrize(
    "when, action, told",
    [
        ("Right after taking it.", "go to fridge.", "Go to fridge right after taking it."),
        ("When it is closed.", "open.", "Open when it is closed."),
        ("Open it when it is closed.", "open.", "Open it when it is closed."),
        ("Go to the fridge to cool.", "go to fridge.", "Go to the fridge to cool."),
        ("Written by hand.", "open.", "Open. Written by hand."),
        ("For\n  dark rooms.", "look\naround", "Look around For dark rooms."),
    ],
)
def test_a_description_says_what_to_do_first(when, action, told):
    skill = Skill("a", when, action, Trigger("general"))
    assert describe(skill) == told
    assert f'description: "{told}' in to_markdown(skill).split("metadata")[0]
    assert from_markdown(to_markdown(skill)) == skill


def test_a_description_is_one_line_of_at_most_1024_characters():
    skill = Skill("a", "w " * 120, "a: # 'b'\n" * 28, Trigger("general"))
    front = to_markdown(skill).split("---\n")[1].splitlines()
    assert [line.split(":")[0].strip() for line in front] == [
        "name", "description", "metadata", "trigger",
    ]  # fmt: skip
    assert len(description(skill)) <= 1024


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path):
    """Two skills of others, one of ours, and what cannot be read."""
    root = tmp_path / "library"
    for name in ("alpha", "beta"):
        (root / name).mkdir(parents=True)
        (root / name / "SKILL.md").write_text(FRONT.replace("pdf", name) + BODY)
    export_skill(OURS, root)
    (root / "README.md").write_text("not a skill")
    (root / ".git").mkdir()
    return root


BROKEN = {
    "no file": (None, "there is no such file"),
    "not closed": (b"---\nname: broken\n", "no closing '---'"),
    "letters": (FRONT.encode() + b"\xff", r"it is not UTF-8 \(byte 48\)"),
    "yaml": (b"---\nname: broken\ndescription: a: b\n---\n", "not valid YAML: line 3: mapping"),
    "name": (b"---\nname: Broken Skill\ndescription: a\n---\n", "is not kebab-case"),
    "no front": (b"# Broken\n", "does not begin with '---'"),
    "twice": (FRONT.replace("pdf", "alpha").encode(), "two skills called alpha"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_one_that_is_broken_is_left_out_and_told(library, how):
    content, reason = BROKEN[how]
    (library / "broken\nskill").mkdir()
    if content is not None:
        (library / "broken\nskill" / "SKILL.md").write_bytes(content)
    found = read_skills(library)
    assert [skill.name for skill in found.skills] == ["alpha", "beta", "cool-it"]
    (problem,) = found.problems
    assert r"broken\nskill" in problem and "\n" not in problem
    assert re.search(reason, problem)
    with pytest.warns(SkillFileWarning, match="left out: ") as told:
        assert import_skills(library) == found.skills
    assert [str(one.message) for one in told] == [f"left out: {problem}"]


def test_a_whole_folder_goes_out_as_it_came_in(library, tmp_path):
    skills = import_skills(library)
    export_skills(skills, tmp_path / "out")
    for skill in skills:
        there = tmp_path / "out" / skill.name / "SKILL.md"
        assert there.read_bytes() == (library / skill.name / "SKILL.md").read_bytes()


def test_the_folder_of_one_skill_is_read_as_well(library):
    assert [skill.name for skill in import_skills(library / "alpha")] == ["alpha"]


def test_nothing_that_can_be_read_is_an_error(tmp_path):
    assert import_skills(tmp_path) == ()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with pytest.raises(SkillFileError, match=r"a/SKILL.md: there is no such file \(and 1 more\)"):
        import_skills(tmp_path)


def test_one_that_may_not_be_read_is_left_out(library, monkeypatch):
    opened = Path.open

    def closed(path, *arguments, **more):
        if path.parent.name == "beta":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **more)

    monkeypatch.setattr(Path, "open", closed)
    found = read_skills(library)
    assert [skill.name for skill in found.skills] == ["alpha", "cool-it"]
    assert found.problems[0].endswith("beta/SKILL.md: it cannot be read (Permission denied)")


@pytest.mark.parametrize(
    "line", ["```\n", " ", "\n", "> ", "## Action\n", "a", "-", "\t\n", "~~~ a\n"]
)
@pytest.mark.parametrize("metadata", ["", "metadata: {trigger: general}\n"])
def test_the_largest_files_are_read_at_once(metadata, line):
    front = FRONT[: -len("---\n")] + metadata + "---\n"
    text = front + line * ((MAX_FILE_BYTES - len(front)) // len(line))
    start = time.process_time()
    try:
        assert to_markdown(from_markdown(text)) == text
    except SkillFileError as error:
        assert "two sections" in str(error)
    assert time.process_time() - start < 3  # seconds, on a busy core


def test_a_source_must_be_a_text_that_a_file_can_hold():
    for source, reason in ((3, "must be a string"), ("\ud800", "U[+]D800"), ("\x1b", "U[+]001B")):
        with pytest.raises(SkillError, match=reason):
            dataclasses.replace(OURS, source=source)
