"""Weights on disk: exact round trip, and one clear line for everything that can be wrong."""

import dataclasses
import hashlib
import json
import os

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from reskill_jax.models import decoder, weights
from reskill_jax.models.config import LayerKind
from reskill_jax.models.weights import WeightsError

CONFIG = decoder.DecoderConfig(
    vocabulary=11, width=8, layers=2, heads=2, kv_heads=1, mlp=6, tie_embeddings=False, qk_norm=True
)
PROVENANCE = {"command": "train", "seed": 3, "scores": {"unseen": 0.25}}


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(lambda: decoder.init(jax.random.key(0), CONFIG))
    draw = np.random.default_rng(0)
    return jax.tree.map(lambda one: np.float32(draw.normal(size=one.shape)), shapes)


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
            lambda a: a.update(final_norm=np.zeros(8, np.int32)),
            "final_norm is of type I32; weights are floats",
        ),
        (lambda a: a["final_norm"].__setitem__(slice(0, 2), np.nan), "final_norm has 2 values"),
        (lambda a: a["embedding"].__setitem__(0, -np.inf), "embedding has 8 values that are NaN"),
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


def test_what_is_no_file_is_told(saved):
    good = {path: path.read_bytes() for path in (saved, saved.with_suffix(".json"))}
    for path in good:
        path.unlink()
        path.mkdir()
        assert f"{path.name}: cannot be read (it is not a file)" in fails(saved)
        path.rmdir()
        os.mkfifo(path)  # reading it would wait for ever
        assert f"{path.name}: cannot be read (it is not a file)" in fails(saved)
        path.unlink()
        path.write_bytes(good[path])
    weights.load(saved)


@pytest.mark.parametrize(
    "kind, name", [(jnp.bfloat16, "BF16"), (np.float16, "F16"), (jnp.float8_e4m3fn, "F8_E4M3")]
)
def test_smaller_floats_are_read_to_float32(saved, params, kind, name):
    small = jax.tree.map(lambda array: np.asarray(array).astype(kind), params)
    arrays = weights._flatten(small)
    header, data = {}, b""
    for key, array in arrays.items():
        where = [len(data), len(data) + array.nbytes]
        header[key] = {"dtype": name, "shape": array.shape, "data_offsets": where}
        data += array.tobytes()
    text = json.dumps(header).encode()
    saved.write_bytes(len(text).to_bytes(8, "little") + text + data)
    describe(saved, sha256=hashlib.sha256(saved.read_bytes()).hexdigest())
    loaded, config, _ = weights.load(saved)
    assert config == CONFIG
    chex.assert_trees_all_equal(loaded, jax.tree.map(lambda a: a.astype(np.float32), small))


def describe(path, **changes):
    sidecar = path.with_suffix(".json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | changes))


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("layers", 1.0, "layers must be a whole number, not 1.0"),
        ("layers", True, "layers must be a whole number, not True"),
        ("layers", "2", "layers must be a whole number, not '2'"),
        ("layers", None, "layers must be a whole number, not None"),
        ("layers", [2], "layers must be a whole number, not [2]"),
        ("layers", 0, "layers must be >= 1, not 0"),
        ("layers", -1, "layers must be >= 1, not -1"),
        ("layers", 10**9, "layers = 1000000000, but there are"),
        ("layers", 10**30, "layers must be <= 2147483647, not 1000"),
        ("width", 2**30, "width = 1073741824, but there are"),
        ("vocabulary", 2**31 - 2, "vocabulary = 2147483646, but there are"),
        ("mlp", 10**7, "mlp = 10000000, but there are"),
        ("head_width", 2**30, "head_dim = 1073741824, but there are"),
        ("head_width", -2, "head_width must be >= 1, not -2"),
        ("head_width", 2.0, "head_width must be a whole number"),
        ("head_width", False, "head_width must be a whole number"),
        ("kv_heads", {}, "kv_heads must be a whole number, not {}"),
        ("rope_base", "x", "rope_base must be a number, not 'x'"),
        ("rope_base", True, "rope_base must be a number, not True"),
        ("rope_base", None, "rope_base must be a number, not None"),
        ("rope_base", float("nan"), "rope_base must be positive and finite in float32, not nan"),
        ("rope_base", float("inf"), "rope_base must be positive and finite in float32, not inf"),
        ("rope_base", 10**400, "rope_base must be positive and finite in float32, not 1000"),
        ("rope_base", 0, "rope_base must be positive"),
        ("norm_eps", -1e-6, "norm_eps must be positive"),
        ("norm_eps", 1e-300, "norm_eps must be positive"),
        ("tie_embeddings", 0, "tie_embeddings must be true or false, not 0"),
        ("qk_norm", "false", "qk_norm must be true or false, not 'false'"),
        ("remat", None, "remat must be true or false, not None"),
        ("dtype", "float64", "dtype must be float32 or bfloat16, not 'float64'"),
        ("dtype", ["float32"], "dtype must be float32 or bfloat16, not ['float32']"),
        ("dtype", "x" * 900, "dtype must be float32 or bfloat16, not 'xxx"),
        ("layer", 2, "unknown entry 'layer'; is it 'layers'?"),
        ("a\nb" * 90, 2, "unknown entry 'a\\nb"),
    ],
)
def test_every_field_of_the_configuration_is_checked(saved, field, value, words):
    config = json.loads(saved.with_suffix(".json").read_text())["config"]
    describe(saved, config=config | {field: value})
    message = fails(saved)
    assert words in message and len(message) < 400


def test_whole_numbers_of_numpy_and_python_are_taken_as_they_are_meant():
    config = dataclasses.replace(CONFIG, layers=np.int64(2), norm_eps=np.float32(1))
    assert json.loads(json.dumps(dataclasses.asdict(config)))["layers"] == 2
    assert type(config.norm_eps) is float and config == dataclasses.replace(CONFIG, norm_eps=1.0)


def test_decoders_that_the_format_cannot_tell_of_are_refused(tmp_path):
    for change in ({"post_norms": True}, {"pattern": (LayerKind(window=4),)}):
        config = dataclasses.replace(CONFIG, **change)
        params = decoder.init(jax.random.key(0), config)
        with pytest.raises(weights.WeightsError, match="use save_model"):
            weights.save(tmp_path / "x.safetensors", params, {}, config)


def test_fields_with_a_default_may_be_missing_and_no_others(saved, params):
    config = json.loads(saved.with_suffix(".json").read_text())["config"]
    del config["remat"], config["dtype"], config["head_width"]
    describe(saved, config=config)
    chex.assert_trees_all_equal(weights.load(saved)[0], params)
    del config["layers"]
    describe(saved, config=config)
    assert "config has no entry 'layers'" in fails(saved)


def test_a_description_that_is_none_is_told(saved):
    sidecar = saved.with_suffix(".json")
    good = json.loads(sidecar.read_text())
    for text, words in (
        ("{", "not a description"),
        ("[]", "it is a JSON list, not an object"),
        ("null", "not a description"),
        ("", "not a description"),
        ("[" * 100_000, "not a description"),
        ("9" * 10_000, "not a description"),
        ('{"format": 1, "format": 1}', "'format' comes twice"),
        (json.dumps(good).replace('"heads"', '"layers": 1, "heads"'), "'layers' comes twice"),
        (json.dumps(good | {"format": True}), "format true, not 1"),
        (json.dumps(good | {"format": 1.0}), "format 1.0, not 1"),
        (json.dumps(good | {"config": [1]}), "config is not an object"),
        (json.dumps(good | {"config": None}), "config is not an object"),
        (json.dumps(good | {"sha256": 3}), "sha256 is not a text"),
        (json.dumps(good | {"provenance": "me"}), "provenance is not an object"),
        (json.dumps(good | {"sha265": "0"}), "unknown entry 'sha265'; is it 'sha256'?"),
        (json.dumps({"format": 1, "config": good["config"]}), "no entry 'provenance'"),
        (json.dumps(good | {"format": 99}), "format 99"),
        (json.dumps({"format": 1}), "no entry 'config'"),
        (json.dumps(good | {"config": good["config"] | {"depth": 2}}), "depth"),
        (json.dumps(good | {"config": good["config"] | {"heads": 3, "kv_heads": 2}}), "kv_heads"),
        (json.dumps(good | {"config": good["config"] | {"width": 12}}), "embedding has shape"),
        (json.dumps(good | {"config": good["config"] | {"layers": 3}}), "layer_2"),
    ):
        sidecar.write_text(text)
        assert words in fails(saved)
    sidecar.write_bytes(b"\xff\xfe{")
    assert "not a description" in fails(saved)
    sidecar.write_text(json.dumps(good), encoding="utf-8-sig")  # a byte-order mark does no harm
    weights.load(saved)
    sidecar.unlink()
    assert "small.json: cannot be read" in fails(saved)


def test_saving_checks_the_parameters_and_the_name(tmp_path, params):
    wide = dataclasses.replace(CONFIG, mlp=7)
    with pytest.raises(WeightsError, match="params: layer_0.mlp.down has shape"):
        weights.save(tmp_path / "x.safetensors", params, {}, wide)
    with pytest.raises(WeightsError, match="ends in .safetensors"):
        weights.save(tmp_path / "x.npz", params, {}, CONFIG)
    path = tmp_path / "x.safetensors"
    for provenance in ({"loss": float("nan")}, {"by": {1, 2}}, {(1, 2): "a"}):
        with pytest.raises(WeightsError, match="JSON cannot hold the provenance"):
            weights.save(path, params, provenance, CONFIG)
    for odd, words in ((jnp.nan, "has 88 values that are NaN"), (0j, "is complex64, not float32")):
        broken = {**params, "embedding": params["embedding"] + odd}
        with pytest.raises(WeightsError, match=f"params: embedding {words}"):
            weights.save(path, broken, {}, CONFIG)
    assert not list(tmp_path.iterdir())


def test_an_unknown_pretrained_name_lists_the_known_ones():
    with pytest.raises(WeightsError, match="no pretrained weights 'kitchen'; there are: "):
        weights.load_pretrained("kitchen")
