"""Weights on disk: exact round trip, and one clear line for everything that can be wrong."""

import dataclasses
import json

import chex
import jax
import numpy as np
import pytest
import safetensors.numpy

from reskill_jax.policy import decoder, weights
from reskill_jax.policy.weights import WeightsError

CONFIG = decoder.DecoderConfig(
    vocabulary=11, width=8, layers=2, heads=2, kv_heads=1, mlp=6, tie_embeddings=False, qk_norm=True
)
PROVENANCE = {"command": "train", "seed": 3, "scores": {"unseen": 0.25}}


@pytest.fixture(scope="module")
def params():
    return jax.jit(decoder.init, static_argnums=1)(jax.random.key(0), CONFIG)


@pytest.fixture
def saved(tmp_path, params):
    path = tmp_path / "small.safetensors"
    weights.save(path, params, PROVENANCE, CONFIG)
    return path


def rewrite(path, change):
    """Changes the arrays behind the description's back."""
    arrays = safetensors.numpy.load_file(path)
    change(arrays)
    safetensors.numpy.save_file(arrays, path)


def fails(path):
    with pytest.raises(WeightsError) as caught:
        weights.load(path)
    message = str(caught.value)
    assert "\n" not in message and path.stem in message
    return message


def test_what_is_saved_is_loaded_bit_for_bit(saved, params):
    loaded, config, provenance = weights.load(saved)
    chex.assert_trees_all_equal(loaded, params)
    assert (config, provenance) == (CONFIG, PROVENANCE)
    assert sorted(f.name for f in saved.parent.iterdir()) == ["small.json", "small.safetensors"]


def test_names_are_readable(saved):
    arrays = safetensors.numpy.load_file(saved)
    assert {"embedding", "final_norm", "layer_1.attention.qkv", "layer_0.mlp.down"} <= set(arrays)


def test_missing_extra_misshapen_and_mistyped_arrays_are_named(saved):
    original = saved.read_bytes()
    for change, words in (
        (lambda a: a.pop("layer_1.mlp.down"), "layer_1.mlp.down is missing"),
        (lambda a: a.update(bias=np.zeros(2, np.float32)), "bias is not part"),
        (
            lambda a: a.update(embedding=np.zeros((11, 9), np.float32)),
            r"embedding has shape (11, 9), the configuration says (11, 8)",
        ),
        (
            lambda a: a.update(final_norm=np.zeros(8, np.float16)),
            "final_norm is float16, not float32",
        ),
        (lambda a: a["final_norm"].__setitem__(0, 7.0), "SHA-256"),
    ):
        rewrite(saved, change)
        assert words in fails(saved)
        saved.write_bytes(original)
    weights.load(saved)


def test_damaged_files_are_told(saved):
    content = saved.read_bytes()
    for damage in (b"", content[:4], content[:100], content[:-10], b"\xff" * 200):
        saved.write_bytes(damage)
        assert "damaged" in fails(saved)
    saved.unlink()
    assert "cannot be read" in fails(saved)


def test_a_description_that_is_none_is_told(saved):
    sidecar = saved.with_suffix(".json")
    good = json.loads(sidecar.read_text())
    for text, words in (
        ("{", "not a description"),
        ("[]", "not a description"),
        (json.dumps(good | {"format": 99}), "format 99"),
        (json.dumps({"format": 1}), "no entry 'config'"),
        (json.dumps(good | {"config": good["config"] | {"depth": 2}}), "depth"),
        (json.dumps(good | {"config": good["config"] | {"heads": 3, "kv_heads": 2}}), "kv_heads"),
        (json.dumps(good | {"config": good["config"] | {"width": 12}}), "embedding has shape"),
        (json.dumps(good | {"config": good["config"] | {"layers": 3}}), "layer_2"),
    ):
        sidecar.write_text(text)
        assert words in fails(saved)
    sidecar.unlink()
    assert "small.json: cannot be read" in fails(saved)


def test_saving_checks_the_parameters_and_the_name(tmp_path, params):
    wide = dataclasses.replace(CONFIG, mlp=7)
    with pytest.raises(WeightsError, match="params: layer_0.mlp.down has shape"):
        weights.save(tmp_path / "x.safetensors", params, {}, wide)
    with pytest.raises(WeightsError, match="ends in .safetensors"):
        weights.save(tmp_path / "x.npz", params, {}, CONFIG)
    assert not list(tmp_path.iterdir())


def test_an_unknown_pretrained_name_lists_the_known_ones():
    with pytest.raises(WeightsError, match="no pretrained weights 'kitchen'; there are: "):
        weights.load_pretrained("kitchen")
