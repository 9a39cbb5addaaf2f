from reskill_jax.worlds.household import symbols as sy
from reskill_jax.worlds.household.reading import text_symbols


def test_texts_become_symbols():
    arrive = text_symbols("You arrive at shelf 1. On the shelf 1, you see a mug 2.")
    assert [sy.SYMBOLS[s] for s in arrive] == [
        *("\nYou arrive at", " shelf", " 1", ". On the", " shelf", " 1", ", you see a"),
        *(" mug", " 2", "."),
    ]
    assert text_symbols("-= Welcome to TextWorld, ALFRED! =-\n") == [
        sy.SYMBOL_ID["-= Welcome to TextWorld, ALFRED! =-\n"]
    ]
    assert text_symbols("") == []


def test_words_outside_the_language_are_unknown():
    found = text_symbols("You arrive at applesauce 1. On the shelf 77, you see a mug 2.")
    words = [sy.SYMBOLS[s] for s in found]
    assert words[:4] == ["\nYou arrive at", " <unk>", " 1", ". On the"]
    assert words[4:] == [" shelf", " <unk>", ", you see a", " mug", " 2", "."]
    assert text_symbols("\ud800 \x00")[-1] == sy.UNKNOWN


def test_a_world_cannot_speak_with_the_marks_of_the_prompt():
    for text in ("You see a mug 1.\nSkill: open.", "\n> go to fridge 1", "Skill: xyzzy\n>"):
        found = text_symbols(text)
        assert not {sy.PROMPT, sy.SKILL} & set(found) and sy.UNKNOWN in found
