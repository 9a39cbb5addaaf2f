"""Tokenizers of checkpoints: their formats, and control tokens that no text can spell."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from reskill_jax.models import ModelError, load_tokenizer, pieces
from reskill_jax.models.tokenizer import FastTokenizer, from_ranks, read_tiktoken

MERGES = [("a", "b"), ("ab", "c"), ("c", "d"), ("Ġ", "ab")]


def byte_level():
    """A small byte-level BPE tokenizer with one control token."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *("".join(merge) for merge in MERGES)]
    made = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=MERGES))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken("<end>", special=True, normalized=False)])
    return made


@pytest.fixture
def folder(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 260, "pad_token_id": 3}))
    return tmp_path


def test_a_tokenizer_json(folder):
    found = load_tokenizer(folder)
    assert (found.vocab_size, found.pad, found.stop) == (261, 3, (260,))
    words = byte_level()
    ids = [words.token_to_id(word) for word in ("abc", "d", "Ġab")]
    assert found.encode("abcd ab") == ids and found.decode(ids) == "abcd ab"
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [260, 5]}))
    assert load_tokenizer(folder).stop == (260, 5)


def test_control_tokens_are_spelled_by_nobody_who_may_not(folder):
    found = load_tokenizer(folder)
    assert found.encode("ab<end>") == [*found.encode("ab"), 260]
    spelled = found.encode("ab<end>", control=False)
    assert 260 not in spelled and found.decode(spelled) == "ab<end>"
    assert found.decode([260]) == "<end>"


@given(st.text())
def test_any_text_comes_back(text):
    found = FastTokenizer(byte_level())
    ids = found.encode(text, control=False)
    assert found.decode(ids) == text and all(0 <= i < found.vocab_size for i in ids)
    assert FastTokenizer(byte_level()).encode("\ud800") == found.encode("?")


def test_a_sentencepiece_model(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(pieces.build_model(["", "?", " a", "b"]))
    found = load_tokenizer(tmp_path)
    assert found.encode(" ab a") == [2, 3, 2] and found.decode([2, 3]) == " ab"
    assert (found.vocab_size, found.pad, found.stop) == (4, 0, ())
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3, "pad_token_id": 1}))
    assert (load_tokenizer(tmp_path).pad, load_tokenizer(tmp_path).stop) == (1, (3,))


def test_what_is_none(tmp_path):
    assert load_tokenizer(tmp_path) is None
    (tmp_path / "tokenizer.model").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="tokenizer.model: not a SentencePiece model"):
        load_tokenizer(tmp_path)
    for content in ("", "{}", '{"version": "1.0"}', "[" * 10_000):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ModelError, match="tokenizer.json: not a tokenizer") as caught:
            load_tokenizer(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text('{"eos_token_id": "x"}')
    with pytest.raises(ModelError, match="'x' is no id of a token"):
        load_tokenizer(tmp_path)


def test_foreign_ids_are_refused():
    with pytest.raises(ValueError, match="token 261 is not in 0..260"):
        FastTokenizer(byte_level()).decode([261])


RANKS = {bytes([i]): i for i in range(256)} | {b"ab": 256, b"cd": 257, b"abcd": 258, b" ab": 259}


def test_tables_of_ranks(tmp_path):
    """A token's parts are what merges of lower rank leave: "abcd" is "ab" and "cd"."""
    lines = [f"{base64.b64encode(token).decode()} {rank}" for token, rank in RANKS.items()]
    (tmp_path / "x.tiktoken").write_text("\n".join(lines))
    found = read_tiktoken(tmp_path / "x.tiktoken")
    assert found.encode("abcd ab") == [258, 259] and found.encode("bcd") == [ord("b"), 257]
    assert found.encode("<|im_end|>") == [262] and found.stop == (262,) and found.pad == 260
    assert found.encode("e\u0301") == found.encode("\u00e9")  # Unicode's form C
    (tmp_path / "x.tiktoken").write_text("no table")
    with pytest.raises(ModelError, match="not a table of ranks"):
        read_tiktoken(tmp_path / "x.tiktoken")
    with pytest.raises(ValueError, match="cannot be merged of others"):
        from_ranks(RANKS | {b"xyz": 260}, r"\S+", control={})
    with pytest.raises(ValueError, match="is not behind the others"):
        from_ranks(RANKS, r"\S+", control={"<a>": 999})


def test_tags_that_are_not_marked_special_are_no_tokens_of_a_world(tmp_path):
    """Qwen3's <think> is an added token like any other; a world cannot say it."""
    letters = {letter: i for i, letter in enumerate("<think/>ab")}
    made = Tokenizer(models.BPE(vocab=letters, merges=[]))
    for text in ("<think>", "ab"):
        made.add_tokens([AddedToken(text, special=False, normalized=False)])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text("{}")
    found = load_tokenizer(tmp_path)
    thought, both = (made.token_to_id(text) for text in ("<think>", "ab"))
    assert found.encode("<think>ab") == [thought, both]
    blind = found.encode("<think>ab", control=False)
    assert thought not in blind and blind[-1] == both
    assert found.decode(blind).replace(" ", "") == "<think>ab"
