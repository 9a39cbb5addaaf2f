"""The household tokenizer: one token a symbol, exactly; and tables for other tokenizers."""

import gzip
import json
import pickle
import random
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reskill_jax.models import pieces
from reskill_jax.worlds.household import symbols as language

HOUSEHOLD = pieces.household()
STEMS = range(language.symbol(" with the") + 1, language.FIRST_NUMBER)
NUMBERS = range(language.FIRST_NUMBER, language.VOCABULARY_SIZE)
VERBS = range(language.FIRST_VERB, language.FIRST_VERB + len(language.VERBS))


def things(rng, count, opening, between, last):
    """`opening` stem num `between` stem num ... `last` stem num "."."""
    found = []
    for i in range(count):
        joint = opening if i == 0 else (last if i == count - 1 else between)
        found += [language.symbol(joint), rng.choice(STEMS), rng.choice(NUMBERS)]
    return [*found, language.symbol(".")]


def one_of(rng, *texts):
    return language.symbol(rng.choice(texts))


def thing(rng):
    return [rng.choice(STEMS), rng.choice(NUMBERS)]


def list_behind(rng, opening):
    nothing = opening.removesuffix(" a") + " nothing"
    if rng.random() < 0.2:
        return [language.symbol(nothing), language.symbol(".")]
    return things(rng, rng.randint(1, 5), opening, ", a", ", and a")


def observation(rng):
    """One of the forms of the engine's answers."""
    form = rng.randrange(7)
    stop = language.symbol(".")
    if form == 0:
        return [language.symbol("\nNothing happens.")]
    if form == 1:
        found = [language.symbol("\nYou arrive at"), *thing(rng)]
        behind = rng.randrange(4)
        if behind == 0:
            return [*found, stop]
        if behind == 1:
            return [*found, language.symbol(". The"), *thing(rng), language.symbol(" is closed.")]
        if behind == 2:
            opening = " is open. In it, you see a"
            return [*found, language.symbol(". The"), *thing(rng), *list_behind(rng, opening)]
        return [*found, language.symbol(". On the"), *thing(rng), *list_behind(rng, ", you see a")]
    if form == 2:
        return [
            language.symbol("\nYou open the"),
            *thing(rng),
            language.symbol(". The"),
            *thing(rng),
            *list_behind(rng, " is open. In it, you see a"),
        ]
    if form == 3:
        verb, joint = rng.choice(
            [
                ("pick up", "from"),
                ("move", "to"),
                ("heat", "using"),
                ("clean", "using"),
                ("cool", "using"),
                ("sliced", "with"),
            ]
        )
        return [
            language.symbol(f"\nYou {verb} the"),
            *thing(rng),
            language.symbol(f" {joint} the"),
            *thing(rng),
            stop,
        ]
    if form == 4:
        kinds = [t for t in language.SYMBOLS if t.startswith("\nThis is a")]
        return [language.symbol(rng.choice(kinds)), rng.choice(STEMS), stop]
    if form == 5:
        return [
            language.symbol("\nYou are facing the"),
            *thing(rng),
            *list_behind(rng, ". Next to it, you see a"),
        ]
    return [one_of(rng, "\nThere's nothing special about"), *thing(rng), stop]


def skill_line(rng):
    line = [language.SKILL]
    if rng.random() < 0.5:
        line += [language.IF_TASK_SAYS, one_of(rng, " clean", " heat", " two", " hot")]
        line += [language.symbol(",")]
    if rng.random() < 0.3:
        line += [language.DO_NOT]
    line += [rng.choice(VERBS)]
    if rng.random() < 0.7:
        line += [rng.choice(STEMS)]
    return [*line, language.symbol(".")]


def context(seed):
    """A grammatical context of a few turns."""
    rng = random.Random(seed)
    opening = "\nYou are in the middle of a room. Looking quickly around you, you see a"
    found = [
        language.symbol("-= Welcome to TextWorld, ALFRED! =-\n"),
        *things(rng, rng.randint(2, 8), opening, ", a", ", and a"),
        language.symbol("\n\nYour task is to:"),
    ]
    goals = (
        "put a clean {} in {}.",
        "find two {} and put them in {}.",
        "look at {} under the {}.",
        "put some {} on {}.",
        "cool some {} and put it in {}.",
        "heat a {} and put it on {}.",
    )
    goal = rng.choice(goals).format(*(language.SYMBOLS[rng.choice(STEMS)] for _ in "ab"))
    found += language.words(goal)
    for _ in range(rng.randint(1, 5)):
        found += skill_line(rng) if rng.random() < 0.5 else []
        found += [language.PROMPT, rng.choice(VERBS)]
        for connector in (None, " from", " to", " with")[: rng.randint(0, 2)]:
            found += [language.symbol(connector)] if connector else []
            found += thing(rng)
        found += observation(rng)
    assert language.UNKNOWN not in found
    return found


def test_the_shipped_model_is_the_one_the_symbols_give():
    shipped = resources.files("reskill_jax.models").joinpath("household.model").read_bytes()
    assert shipped == pieces.build_model(language.SYMBOLS)
    assert HOUSEHOLD.vocab_size == language.VOCABULARY_SIZE
    assert (HOUSEHOLD.pad, HOUSEHOLD.unknown) == (language.PAD, language.UNKNOWN)


def test_every_symbol_alone_is_its_own_token():
    for i, text in enumerate(language.SYMBOLS):
        assert HOUSEHOLD.encode(text) == ([] if i == language.PAD else [i]), text


def test_contexts_encode_to_their_symbols_and_back():
    for seed in range(2000):
        symbols = context(seed)
        text = "".join(language.SYMBOLS[s] for s in symbols)
        assert HOUSEHOLD.encode(text) == symbols
        assert HOUSEHOLD.decode(symbols) == text == language.text(symbols)


def test_decoding_drops_padding_and_shows_the_unknown():
    assert HOUSEHOLD.decode([0, language.symbol(" mug"), 0, 1]) == " mug <unk>"
    for foreign in (-1, language.VOCABULARY_SIZE):
        with pytest.raises(ValueError, match="not in"):
            HOUSEHOLD.decode([foreign])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("zebra", [1]),
        (" mug zebra mug", [" mug", 1, " mug"]),
        ("\x00", [1]),
        (" mug\x00\x07\x1b mug", [" mug", 1, " mug"]),
        (" mug\ud800", [" mug", 1]),
        ("日本語", [1]),
        (" Mug", [1]),
        (" cabinet 61", [" cabinet", " 6", 1]),
    ],
)
def test_text_outside_the_language_is_unknown(text, expected):
    assert HOUSEHOLD.encode(text) == [
        e if isinstance(e, int) else language.symbol(e) for e in expected
    ]


@settings(max_examples=12 * settings.default.max_examples)
@given(st.text())
def test_any_text_encodes_to_ids_of_the_vocabulary(text):
    for token in HOUSEHOLD.encode(text):
        assert 0 < token < language.VOCABULARY_SIZE


def test_a_tokenizer_survives_pickling_and_refuses_rubbish(tmp_path):
    again = pickle.loads(pickle.dumps(HOUSEHOLD))
    assert again.encode(" mug 3") == HOUSEHOLD.encode(" mug 3")
    rubbish = tmp_path / "rubbish.model"
    for content in (b"", b"not a model"):
        rubbish.write_bytes(content)
        with pytest.raises(ValueError, match=r"rubbish\.model: not a SentencePiece model"):
            pieces.SentencePieceTokenizer.load(rubbish)
    with pytest.raises(FileNotFoundError):
        pieces.SentencePieceTokenizer.load(tmp_path / "missing.model")


def test_a_model_with_a_damaged_piece_is_refused():
    model = pieces.household().__reduce__()[1][0]
    at = model.index("\u2581cabinet".encode())
    with pytest.raises(ValueError, match="not a SentencePiece model: .*utf-8"):
        pieces.SentencePieceTokenizer(model[:at] + b"\xff" + model[at + 1 :])


def test_symbols_that_cannot_make_a_model_are_refused():
    for symbols in (["", "<unk>", "a", "a"], ["", "<unk>", ""]):
        with pytest.raises(ValueError, match="distinct"):
            pieces.build_model(symbols)
    with pytest.raises(ValueError, match="two of the symbols"):
        pieces.build_model(["", "a"], pad=0, unknown=0)


def test_every_symbol_of_the_household_is_its_own_token():
    for number, text in enumerate(language.SYMBOLS[1:], start=1):
        assert HOUSEHOLD.encode(text) == [number]


def test_recorded_games_are_words_of_the_language_to_the_letter():
    """Contexts of the real engine's transcripts: no unknown, exact, a handful of tokens a turn."""
    recorded = Path(__file__).parents[1] / "golden" / "alfworld_transcripts.json.gz"
    games = json.loads(gzip.decompress(recorded.read_bytes()))
    assert len(games) >= 48
    for game in games:
        text, admissible = game["intro"], game["initial_admissible"]
        for step in game["steps"]:
            # Some recorded commands are nonsense on purpose; their answers are not.
            command = step["command"] if step["command"] in admissible else "look"
            text += f"\n> {command}\n{step['observation']}"
            admissible = step["admissible"]
        tokens = HOUSEHOLD.encode(text)
        assert language.UNKNOWN not in tokens, game["game_id"]
        assert HOUSEHOLD.decode(tokens) == text
        assert "".join(language.SYMBOLS[t] for t in tokens) == text
