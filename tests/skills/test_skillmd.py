"""SKILL.md: exact round trips, foreign files, hostile files."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.skills.skill import Skill, Trigger
from reskill_jax.skills.skillmd import (
    SkillFileError,
    SkillFileWarning,
    export_skill,
    export_skills,
    from_markdown,
    import_skill,
    import_skills,
    to_markdown,
)

PLAIN = Skill(
    "open-what-is-closed",
    "When the place you arrive at is closed.",
    "open.",
    Trigger("observation_pattern", "is closed"),
    ("open fridge 1", "go to cabinet 2"),
)

TRICKY = st.lists(
    st.sampled_from(
        [
            "---",
            "\n",
            "\n\n",
            "## Action",
            "### Do",
            "## Examples",
            "> ",
            ">",
            ": ",
            "- a",
            "'",
            '"',
        ]
        + [
            "# x",
            "*a",
            "&a",
            "{a}",
            "[",
            "%YAML",
            "é漢😀",
            " ",
            "\t",
            "|",
            "null",
            "2024-01-01",
            "\ufeff",
        ]
    ),
    min_size=1,
    max_size=6,
).map("".join)
TEXTS = st.one_of(
    TRICKY,
    st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=40),
)
FILLED = TEXTS.filter(lambda text: text.strip())


def skill_of(when, action, examples, trigger):
    return Skill("a-1", when, action, trigger, examples)


TRIGGERS = st.sampled_from(
    [
        Trigger("general"),
        Trigger("beginning", task_pattern=r"\bclean\b"),
        Trigger("action_pattern", r"^a: '\d' \"#|---$"),
    ]
)


@given(
    st.builds(skill_of, FILLED, FILLED, st.one_of(st.just(()), st.tuples(TEXTS, TEXTS)), TRIGGERS)
)
def test_round_trip_of_any_text(skill):
    assert from_markdown(to_markdown(skill)) == skill


def test_files_and_specification(tmp_path):
    path = export_skill(PLAIN, tmp_path)
    assert path == tmp_path / "open-what-is-closed" / "SKILL.md"
    text = path.read_text("utf-8")
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {
        "name": "open-what-is-closed",
        "description": "Open when the place you arrive at is closed. Use it whenever the latest "
        'observation contains "is closed", and at no other step.',
        "metadata": {"trigger": "observation_pattern", "trigger-pattern": "is closed"},
    }
    assert "## Action\n\nopen.\n" in text
    assert import_skill(path.parent) == PLAIN


def test_a_bank_and_what_is_no_longer_in_it(tmp_path):
    other = Skill("b", "w", "go to.", Trigger("general"))
    export_skills([PLAIN, other], tmp_path)
    assert import_skills(tmp_path) == (other, PLAIN)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    export_skills([PLAIN], tmp_path, remove_others=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", PLAIN.name]


PYTHON_TAG = "x: !!python/object/apply:os.system [ls]"
GOOD = "---\nname: a\ndescription: d\n---\nbody\n"
OURS = "---\nname: a\ndescription: d\nmetadata: {trigger: general}\n---\n"
BOMB = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("", "does not begin"),
        ("---\nname: a\n", "no closing"),
        (GOOD.replace("name: a", "name: ../evil"), "kebab-case"),
        (GOOD.replace("name: a", "name: a/b"), "kebab-case"),
        (GOOD.replace("name: a", "name: [a]"), "name must be a text"),
        (GOOD.replace("description: d", "description: ''"), "description must be a text"),
        (GOOD.replace("description: d", "description: {x: y}"), "description must be a text"),
        (GOOD.replace("description: d", "description: d\nx: &a [*a]"), "alias that holds itself"),
        (GOOD.replace("description: d", f"description: d\n{BOMB}"), "more than 10000 things"),
        (GOOD.replace("description: d", "x: " + "[" * 3000), "nested too deeply"),
        (GOOD.replace("description: d", "x: " + "y" * 70000), "larger than 65536"),
        (GOOD.replace("description: d", "name: b"), "'name' twice"),
        (
            GOOD.replace("description: d", "x: !!python/object/apply:os.system [ls]"),
            "not valid YAML",
        ),
        (GOOD.replace("description: d", "? [a]\n: b"), "not valid YAML|must be a text"),
        (GOOD.replace("description: d", "metadata: [1]\ndescription: d"), "must be a mapping"),
        (GOOD.replace("d\n---", "d\nmetadata: {trigger: never}\n---"), "unknown trigger"),
        (
            GOOD.replace(
                "d\n---", "d\nmetadata: {trigger: action_pattern, trigger-pattern: (}\n---"
            ),
            "not valid YAML|cannot use",
        ),
        ("---\n- a\n---\n", "not a mapping"),
        (GOOD + "x" * 1_100_000, "larger than 1048576"),
        (OURS + "## Action\n\na\n\n## Action\n\nb\n", "two sections"),
        (OURS + "## Action\n\na\n\n### Do\n\nb\n", "not a pair"),
        (GOOD + "a\x00b", r"U\+0000"),
    ],
)
def test_hostile_texts_give_one_clear_line(text, reason):
    with pytest.raises(SkillFileError, match=reason) as error:
        from_markdown(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_hostile_folders(tmp_path):
    export_skill(PLAIN, tmp_path / "one")
    wrong = tmp_path / "wrong" / "other-name"
    wrong.parent.mkdir()
    (tmp_path / "one" / PLAIN.name).rename(wrong)
    assert import_skill(wrong) == PLAIN  # other authors do so; the file says its name
    secret = tmp_path / "secret"
    export_skill(PLAIN, secret)
    root = tmp_path / "root"
    root.mkdir()
    (root / PLAIN.name).symlink_to(secret / PLAIN.name)
    with pytest.raises(SkillFileError, match="leaves the folder"):
        import_skills(root)
    (root / PLAIN.name).unlink()
    (root / PLAIN.name).mkdir()
    (root / PLAIN.name / "SKILL.md").symlink_to(secret / PLAIN.name / "SKILL.md")
    with pytest.raises(SkillFileError, match="leaves the folder"):
        import_skills(root)
    with pytest.warns(SkillFileWarning, match="left out: .* two skills called"):
        assert import_skills(secret, secret) == (PLAIN,)
    with pytest.raises(SkillFileError, match="no such folder"):
        import_skills(tmp_path / "nowhere")
    (secret / PLAIN.name / "SKILL.md").write_bytes(b"---\n\xff\n---\n")
    with pytest.raises(SkillFileError, match="not UTF-8"):
        import_skills(secret)
    (secret / PLAIN.name / "SKILL.md").write_bytes(b"x" * 10_000_000)
    with pytest.raises(SkillFileError, match="larger than"):
        import_skills(secret)
    (secret / PLAIN.name / "SKILL.md").unlink()
    with pytest.raises(SkillFileError, match="no such file"):
        import_skills(secret)
