"""GGUF files: a small one made by hand becomes a checkpoint that computes what it should."""

import struct

import jax.numpy as jnp
import numpy as np
import pytest
from tokenizers import pre_tokenizers

from reskill_jax.models import ModelError, load_model
from reskill_jax.models.gguf import GgufFile, convert_gguf

WIDTH, MLP, HEADS, KV_HEADS, VOCABULARY = 64, 96, 4, 2, 260
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ["<end>", *LETTERS, "ab", "abc", "Ġab"]
KINDS = {np.dtype(kind): code for code, kind in ((4, "<u4"), (5, "<i4"), (6, "<f4"))}


def text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(x):
    if isinstance(x, str):
        return struct.pack("<I", 8) + text(x)
    if isinstance(x, bool):
        return struct.pack("<IB", 7, x)
    if isinstance(x, float):
        return struct.pack("<If", 6, x)
    if isinstance(x, int):
        return struct.pack("<II", 4, x)
    head = struct.pack("<I", 9)
    if isinstance(x[0], str):
        return head + struct.pack("<IQ", 8, len(x)) + b"".join(map(text, x))
    return head + struct.pack("<IQ", 5, len(x)) + np.asarray(x, "<i4").tobytes()


def q8_0(values):
    """The bytes of whole blocks of small whole numbers times a scale."""
    blocks = values.reshape(-1, 32)
    scale = np.full((len(blocks), 1), 0.25, "<f2")
    codes = np.round(blocks / 0.25).astype(np.int8)
    return np.concatenate([scale.view(np.uint8), codes.view(np.uint8)], axis=1).tobytes()


def q4_1(values):
    blocks = values.reshape(-1, 32)
    scale, least = np.full((len(blocks), 1), 0.5, "<f2"), np.full((len(blocks), 1), -4.0, "<f2")
    codes = np.round((blocks + 4) / 0.5).astype(np.uint8)
    halves = codes[:, :16] | codes[:, 16:] << 4
    return np.concatenate([scale.view(np.uint8), least.view(np.uint8), halves], axis=1).tobytes()


STORED = {
    0: lambda x: x.astype("<f4").tobytes(),
    1: lambda x: x.astype("<f2").tobytes(),
    3: q4_1,
    8: q8_0,
}


def settings():
    return {
        "general.architecture": "llama",
        "llama.embedding_length": WIDTH,
        "llama.feed_forward_length": MLP,
        "llama.block_count": 1,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.rope.freq_base": 10000.0,
        "llama.context_length": 512,
        "llama.vocab_size": VOCABULARY,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3] + [1] * (VOCABULARY - 1),
        "tokenizer.ggml.merges": ["a b", "ab c", "Ġ ab"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.chat_template": "{{ messages }}",
        "general.flag": True,
    }


def arrays():
    """Name -> (kind, values), multiples of the scales."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.integers(-8, 8, shape) * 0.5

    head = WIDTH // HEADS
    return {
        "token_embd.weight": (8, draw(VOCABULARY, WIDTH)),
        "output_norm.weight": (0, draw(WIDTH)),
        "blk.0.attn_norm.weight": (0, draw(WIDTH)),
        "blk.0.ffn_norm.weight": (0, draw(WIDTH)),
        "blk.0.attn_q.weight": (3, draw(WIDTH, WIDTH)),
        "blk.0.attn_k.weight": (3, draw(KV_HEADS * head, WIDTH)),
        "blk.0.attn_v.weight": (1, draw(KV_HEADS * head, WIDTH)),
        "blk.0.attn_output.weight": (3, draw(WIDTH, WIDTH)),
        "blk.0.ffn_gate.weight": (3, draw(MLP, WIDTH)),
        "blk.0.ffn_up.weight": (3, draw(MLP, WIDTH)),
        "blk.0.ffn_down.weight": (8, draw(WIDTH, MLP)),
    }


def write(path, told=None, tensors=None):
    told = settings() if told is None else told
    tensors = arrays() if tensors is None else tensors
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(told))
    head += b"".join(text(name) + value(x) for name, x in told.items())
    body = b""
    for name, (kind, values) in tensors.items():
        dims = values.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
        head += struct.pack("<IQ", kind, len(body))
        stored = STORED.get(kind, STORED[0])(values)
        body += stored + b"\0" * (-len(stored) % 32)
    path.write_bytes(head + b"\0" * (-len(head) % 32) + body)
    return path


def test_every_kind_of_tensor_comes_back(tmp_path):
    file = GgufFile(write(tmp_path / "x.gguf"))
    for name, (_, values) in arrays().items():
        np.testing.assert_array_equal(file.read(name), values)
    assert file.settings["tokenizer.ggml.token_type"][:2] == [3, 1]
    assert file.settings["general.flag"] is True


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_becomes_a_checkpoint(tmp_path, dtype):
    convert_gguf(write(tmp_path / "x.gguf"), tmp_path / "out", dtype=dtype)
    loaded = load_model(tmp_path / "out")
    given = {name: values for name, (_, values) in arrays().items()}
    np.testing.assert_array_equal(loaded.params["embedding"], given["token_embd.weight"])
    block = loaded.params["layer_0"]
    np.testing.assert_array_equal(block["mlp"]["down"], given["blk.0.ffn_down.weight"].T)
    # The pairs of a rotated head lie behind each other, not in turns.
    keys = given["blk.0.attn_k.weight"].reshape(KV_HEADS, 8, 2, WIDTH)
    expected = np.concatenate([keys[:, :, 0], keys[:, :, 1]], axis=1)
    found = jnp.moveaxis(block["attention"]["qkv"][:, :, -2], 0, -1)
    np.testing.assert_array_equal(found, expected)
    assert loaded.tokenizer.encode("abc 12<end>")[0] == TOKENS.index("abc")
    assert loaded.tokenizer.encode("<end>") == [0] and loaded.tokenizer.stop == (0,)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    config = loaded.model.config
    assert config.norm_eps == 1e-5 and config.tie_embeddings and config.layers == 1


def test_damage_and_what_is_not_supported(tmp_path):
    path = write(tmp_path / "x.gguf")
    content = path.read_bytes()
    for damaged, says in (
        (b"", "cannot be read"),
        (b"GGML" + content[4:], "does not begin with GGUF"),
        (content[:4] + struct.pack("<I", 1) + content[8:], "version 1, not 3"),
        (content[:300], "cut off"),
        (content[:8] + struct.pack("<QQ", 1, 2**60) + content[24:], "it tells of"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ModelError, match=says) as caught:
            GgufFile(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(content[:-64])
    with pytest.raises(ModelError, match="ffn_down.weight is cut off"):
        convert_gguf(path, tmp_path / "out")
    for changes, says in (
        ({"general.architecture": "mamba"}, "architecture 'mamba'; supported: llama"),
        ({"tokenizer.ggml.pre": "qwen2"}, "tokenizer gpt2, qwen2; supported"),
    ):
        with pytest.raises(ModelError, match=says):
            convert_gguf(write(path, settings() | changes), tmp_path / "out")
    told = settings()
    del told["llama.context_length"]
    with pytest.raises(ModelError, match="does not tell 'llama.context_length'"):
        convert_gguf(write(path, told), tmp_path / "out")
    with pytest.raises(ModelError, match="x.weight is no part of a Llama model"):
        convert_gguf(write(path, tensors=arrays() | {"x.weight": (0, np.zeros(2))}), tmp_path)
    with pytest.raises(ModelError, match="of kind 7; supported: F32, F16, Q4_1, Q8_0"):
        GgufFile(write(path, tensors={"x": (7, np.zeros(2))})).read("x")
