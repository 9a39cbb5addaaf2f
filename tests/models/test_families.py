"""What the config.json of a published model means."""

import json
from pathlib import Path

import pytest

from reskill_jax.models.config import LayerKind
from reskill_jax.models.families import FAMILIES, ModelError, read_config
from reskill_jax.models.rope import Rope

DEFAULTS = json.loads((Path(__file__).parent / "golden" / "config_defaults.json").read_text())
LLAMA = {
    **{"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64},
    **{"num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2},
}


def read(**changes):
    return read_config({**LLAMA, **changes})[0]


@pytest.mark.parametrize("version", [name for name in DEFAULTS if name.startswith("transformers")])
@pytest.mark.parametrize("kind", FAMILIES)
def test_a_missing_key_means_what_it_means_there(version, kind):
    # Lists of the file are abridged; they are what the other keys say.
    told = {k: v for k, v in DEFAULTS[version][kind].items() if not isinstance(v, list)}
    (given, _), (left_out, _) = (read_config({"model_type": kind, **more}) for more in (told, {}))
    assert given.head_dim == left_out.head_dim
    for field in vars(given).keys() - {"head_width"}:
        assert getattr(given, field) == getattr(left_out, field), field


def test_patterns_of_layers():
    full, near = Rope(), Rope(1e4)
    assert read().pattern == (LayerKind(None, full),)
    assert read(model_type="mistral", sliding_window=8).pattern == (LayerKind(8, full),)
    assert read(model_type="mistral", sliding_window=None).pattern == (LayerKind(None, full),)
    gemma = read(model_type="gemma2", sliding_window=8)
    assert gemma.pattern == (LayerKind(8, full), LayerKind(None, full))
    gemma = read(model_type="gemma3_text", sliding_window=8)
    assert gemma.pattern == (*[LayerKind(8, near)] * 5, LayerKind(None, Rope(1e6)))
    gemma = read(model_type="gemma3_text", sliding_window=8, _sliding_window_pattern=3)
    assert gemma.pattern == (*[LayerKind(8, near)] * 2, LayerKind(None, Rope(1e6)))
    smol = read(model_type="smollm3", num_hidden_layers=8)
    assert smol.pattern == (*[LayerKind(None, Rope(2e6))] * 3, LayerKind(None, None))
    smol = read(model_type="smollm3", no_rope_layers=[1, 0, 1, 0, 1, 0])
    assert [kind.rope is None for kind in smol.pattern] == [False, True]
    qwen = {"model_type": "qwen2", "sliding_window": 8, "max_window_layers": 4}
    assert read(**qwen).pattern == (LayerKind(None, full),)
    windowed = read(**qwen, use_sliding_window=True)
    assert [kind.window for kind in windowed.pattern] == [None] * 4 + [8] * 2
    types = ["full_attention", "sliding_attention"] * 3
    windowed = read(**qwen, use_sliding_window=True, layer_types=types)
    assert [kind.window for kind in windowed.pattern] == [None, 8]


def test_ropes_in_both_spellings():
    llama3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    llama3 |= {"original_max_position_embeddings": 512}
    expected = Rope(5e5, "llama3", 8.0, 512)
    old = {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **llama3}}
    new = {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, **llama3}}
    oldest = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **llama3}}
    for spelled in (old, new, oldest):
        assert read(**spelled).pattern[0].rope == expected
    yarn = {"rope_type": "yarn", "factor": 4.0, "beta_fast": 16, "attention_factor": 1.5}
    found = read(rope_scaling=yarn, max_position_embeddings=77).pattern[0].rope
    assert found == Rope(1e4, "yarn", 4.0, 77, fast=16.0, attention=1.5)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' is not supported; supported: llama, mistral"),
        ({"model_type": None}, "model_type None is not supported"),
        ({"model_type": ["llama"]}, "is not supported"),
        ({"model_type": "gemma3"}, "without a text_config"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported; supported: silu"),
        ({"quantization_config": {}}, "the weights are quantised"),
        ({"hidden_size": 0}, "width must be >= 1"),
        ({"hidden_size": "32"}, "width must be a whole number"),
        ({"num_hidden_layers": 1.5}, "layers must be a whole number"),
        ({"num_key_value_heads": 3}, "must be a multiple of kv_heads"),
        ({"rms_norm_eps": -1.0}, "norm_eps must be positive"),
        ({"tie_word_embeddings": "yes"}, "tie_embeddings must be true or false"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "rope scaling 'longrope'"),
        ({"rope_scaling": {"rope_type": "linear"}}, "factor must be a positive number, not None"),
        ({"rope_scaling": {"rope_type": "linear", "factor": True}}, "factor must be a positive"),
        ({"rope_scaling": 3}, "rope_scaling is 3, not an object"),
        ({"rope_theta": float("nan")}, "rope_theta must be a positive number"),
        ({"model_type": "mistral", "sliding_window": -1}, "window must be >= 1"),
        (
            {"model_type": "gemma2", "layer_types": ["full_attention"]},
            "layer_types does not name 6 layers",
        ),
        (
            {"model_type": "gemma2", "layer_types": ["chunked_attention"] * 6},
            "layer_types has 'chunked_attention', which is not supported",
        ),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers does not name 6"),
    ],
)
def test_what_makes_no_sense_is_told(changes, says):
    with pytest.raises(ModelError, match=says) as caught:
        read(**changes)
    assert "\n" not in str(caught.value)


def test_not_even_an_object():
    with pytest.raises(ModelError, match="not a JSON object"):
        read_config([])
