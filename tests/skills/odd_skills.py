"""Fifty skills with all that readers of SKILL.md stumble over: quotes, colons, YAML, lengths."""

from reskill_jax.skills.skill import MAX_CONTENT, Skill, Trigger

_TEXTS = [
    *("open: the fridge", "key: value: other", "- a list", "# a comment", "a # comment", "'", '"'),
    *("it's \"quoted\" 'twice'", "back\\slash \\n \\x2d", "{a: b}", "[a, b]", "*alias", "&anchor"),
    *("!tag", "!!python/object:os.system x", "%YAML 1.2", "@at", "`tick`", "| block", "> folded"),
    *("? key", "null", "true", "no", "1.5e3", "0x1f", "2024-01-01", "---", "----- a ---", "..."),
    *("a --- b", "<b>tags</b> & entities &amp;", "{{ template }}", "{% raw %}", "$HOME ${x}"),
    *("übergrößen 漢字 عربى 😀", "\u202eturned", "zero\u200bwidth", "tab\there", "first\nsecond"),
    *("## Action", "### Do\n\n> quoted\n\n```\n---\n```", "\ufeffmark", "  spaces around  "),
]
_TRIGGERS = [
    Trigger("general"),
    Trigger("beginning", task_pattern=r"\bclean\b"),
    Trigger("action_pattern", r"^go to: '\d+' \"x\"#---$"),
    Trigger("observation_pattern", r"closed|\blocked\b", task_pattern="^put.*in"),
]


def odd_skills() -> list[Skill]:
    """50 skills; the last ones use all of their characters."""
    made = []
    for n, text in enumerate(_TEXTS):
        examples = (text, "not " + text) if n % 3 == 0 else ()
        made.append(Skill(f"odd-{n}", f"When {text}", text, _TRIGGERS[n % 4], examples))
    for name in ("null", "true", "1e3", "2024-01-01"):  # names that YAML takes for something else
        made.append(Skill(name, "For the name.", "look.", Trigger("general")))
    long = Trigger("action_pattern", "a: " * 66, "b? " * 66)
    for n, text in enumerate(("word " * 200, "a: 'b' # " * 100)):
        when = text[: MAX_CONTENT // 2 - 1] + "."
        made.append(Skill(f"long-{n}", when, text[: MAX_CONTENT // 2], long))
    return made
