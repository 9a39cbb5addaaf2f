"""Real checkpoint formats: logits and greedy continuations as transformers computes them."""

import functools
import gzip
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reskill_jax.models import config as shapes
from reskill_jax.models import load_model, save_model
from reskill_jax.models.rope import Rope

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.name for path in (GOLDEN / "tiny").iterdir())
TOLERANCE = 1e-4  # the least mistake changes a logit by 3e-4, most by more than 1


@functools.cache
def golden(name):
    with gzip.open(GOLDEN / "tiny" / name / "golden.json.gz") as file:
        return json.load(file)


def test_sixteen_checkpoints_of_seven_families():
    assert len(NAMES) == 16


@pytest.mark.parametrize("name", NAMES)
def test_logits(name):
    loaded = load_model(GOLDEN / "tiny" / name)

    @jax.jit
    def logits(tokens):
        return loaded.model.logits(loaded.params, loaded.model.forward(loaded.params, tokens))

    for sequence in golden(name)["sequences"]:
        ids = sequence["ids"]
        expected = np.reshape(sequence["logits"], sequence["logits_shape"])
        # Padding behind a sequence changes nothing: one program for both.
        found = logits(jnp.asarray([ids + [0] * (33 - len(ids))]))[0, : len(ids)]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)
        log_probs = jax.nn.log_softmax(found)[jnp.arange(len(ids) - 1), jnp.asarray(ids[1:])]
        np.testing.assert_allclose(log_probs, sequence["next_token_logprobs"], atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_greedy_continuations_with_the_cache_and_stacked_layers(name, monkeypatch, tmp_path):
    """Also from the other spelling of the configuration, and with layers in a loop."""
    monkeypatch.setattr(shapes, "UNROLLED", 1)
    for file in (GOLDEN / "tiny" / name).glob("model*"):
        shutil.copy(file, tmp_path)
    shutil.copy(GOLDEN / "tiny" / name / "config_v4.json", tmp_path / "config.json")
    loaded = load_model(tmp_path)
    model, config = loaded.model, loaded.model.config
    if len(config.pattern) * 2 <= config.layers:
        assert config.repeats * len(config.pattern) + len(config.alone) == config.layers
        assert config.repeats > 1

    @jax.jit
    def step(cache, tokens, count):
        hidden, cache = model.extend(loaded.params, cache, tokens, count)
        return cache, jnp.argmax(model.logits(loaded.params, hidden), axis=-1)

    prompt = golden(name)["sequences"][0]["ids"]
    cache, said = model.init_cache(1, 64), []
    tokens = jnp.asarray([prompt])
    for _ in range(24):
        cache, token = step(cache, tokens, jnp.full(1, tokens.shape[1]))
        said.append(int(token[0]))
        tokens = token[:, None]
    assert said == golden(name)["greedy"]["ids"]


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
@pytest.mark.parametrize("name", ["gemma3_vision_bf16", "qwen2_untied_bf16", "llama_biases_f16"])
def test_what_is_saved_comes_back(name, shard_bytes, tmp_path):
    loaded = load_model(GOLDEN / "tiny" / name)
    save_model(tmp_path / "out", loaded, shard_bytes=shard_bytes)
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert ("model.safetensors" in files) == (shard_bytes > 20_000)
    assert ("model.safetensors.index.json" in files) == (shard_bytes == 20_000)
    again = load_model(tmp_path / "out")
    assert again.model == loaded.model
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "vision_config" not in told and told["model_type"] != "gemma3"
    jax.tree.map(np.testing.assert_array_equal, again.params, loaded.params)


@pytest.mark.parametrize("table", json.loads((GOLDEN / "rope_tables.json").read_text())["tables"])
def test_rope_tables(table):
    told = json.loads((GOLDEN / "rope_tables.json").read_text())["tables"][table]
    given = told["settings"]["rope_parameters"]
    kind = {"default": "none"}.get(given["rope_type"], given["rope_type"])
    names = {"factor": "factor", "low_freq_factor": "low", "high_freq_factor": "high"}
    names |= {"original_max_position_embeddings": "original_context"}
    more = {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    rope = Rope(given["rope_theta"], kind, **more)
    found = rope.frequencies(told["settings"]["head_dim"])
    np.testing.assert_allclose(found, told["inv_freq"], rtol=1e-6)
    assert rope.amplitude == pytest.approx(told["attention_scaling"], abs=1e-6)
