"""Folders as the Hub has them: what is wrong is told in a line, and what is written loads."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reskill_jax.models import ModelError, decoder, load_model, save_model
from reskill_jax.models import config as shapes
from reskill_jax.models.tensors import TensorFile, write_tensors

TINY = Path(__file__).parent / "golden" / "tiny"


@pytest.fixture
def folder(tmp_path):
    """A copy of one checkpoint: Qwen 2, tied, in one file."""
    shutil.copytree(TINY / "qwen2_tied_f32", tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sharded(tmp_path):
    """A copy of a checkpoint of two files."""
    shutil.copytree(TINY / "llama3_sharded_f32", tmp_path / "model")
    return tmp_path / "model"


def fails(folder, **options):
    """The message, which is one line and names the folder."""
    with pytest.raises(ModelError) as caught:
        load_model(folder, **options)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message and len(message) < 400
    return message


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder, change):
    """The file of weights with other arrays."""
    path = folder / "model.safetensors"
    with TensorFile(path) as file:
        arrays = {name: np.array(file.read(name)) for name in file.tensors}
    arrays = change(arrays) or arrays
    shapes = {name: ("F32", values.shape) for name, values in arrays.items()}
    write_tensors(path, shapes, arrays.__getitem__)


def test_missing_and_damaged_files(folder, tmp_path):
    assert "config.json: cannot be read" in fails(tmp_path / "nowhere")
    (folder / "model.safetensors").rename(tmp_path / "aside")
    assert "there is neither model.safetensors nor" in fails(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    assert "pytorch_model.bin is a pickle, which is never opened" in fails(folder)
    (folder / "model.safetensors").write_bytes((tmp_path / "aside").read_bytes()[:-5])
    assert "damaged, not a safetensors file" in fails(folder)
    (folder / "config.json").write_text("{")
    assert "config.json: Expecting" in fails(folder)
    (folder / "config.json").write_text("[]")
    assert "config.json: not a JSON object" in fails(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "model_type": "llama"}')
    assert "'model_type' comes twice" in fails(folder)
    (folder / "config.json").write_text("[" * 100_000)
    assert "config.json" in fails(folder)


def test_tensors_that_are_missing_or_too_many_or_of_another_shape(folder):
    def drop(arrays):
        del arrays["model.layers.1.mlp.up_proj.weight"], arrays["model.norm.weight"]

    rewrite(folder, drop)
    assert "model.layers.1.mlp.up_proj.weight is missing (and 1 more)" in fails(folder)
    shutil.copy(TINY / "qwen2_tied_f32" / "model.safetensors", folder)
    rewrite(folder, lambda arrays: arrays.update({"model.layers.9.x\n": np.zeros(1)}))
    assert r"model.layers.9.x\n is no part of this architecture" in fails(folder)
    shutil.copy(TINY / "qwen2_tied_f32" / "model.safetensors", folder)
    edit(folder / "config.json", intermediate_size=65)
    assert "has shape [64, 32], config.json says [65, 32]" in fails(folder)
    edit(folder / "config.json", intermediate_size=64, model_type="gpt2")
    assert "model_type 'gpt2' is not supported" in fails(folder)


def test_numbers_that_are_none(folder):
    def spoil(arrays):
        arrays["model.norm.weight"][3] = np.nan
        arrays["model.norm.weight"][4] = np.inf

    rewrite(folder, spoil)
    assert "model.norm.weight has 2 values that are NaN or infinite" in fails(folder)


def test_options_that_make_no_sense(folder):
    assert "dtype must be float32 or bfloat16" in fails(folder, dtype="float16")
    assert "param_dtype must be float32 or bfloat16" in fails(folder, param_dtype="int8")
    with pytest.raises(ModelError, match="dtype must be one of"):
        save_model(folder, load_model(folder), dtype="int8")


def test_indices_that_lead_elsewhere(sharded):
    index = sharded / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    name = "model-00002-of-00002.safetensors"
    for bad in ("../config.json", "/etc/passwd", "a/b.safetensors", "config.json"):
        placed = {k: bad if v == name else v for k, v in told["weight_map"].items()}
        edit(index, weight_map=placed)
        assert "is no file of this folder" in fails(sharded)
    edit(index, weight_map=[1])
    assert "weight_map does not say which file holds what" in fails(sharded)
    edit(index, weight_map=told["weight_map"])
    (sharded / name).rename(sharded / "gone")
    assert f"{name}: cannot be read" in fails(sharded)
    shutil.copy(sharded / "model-00001-of-00002.safetensors", sharded / name)
    assert "is in model-00001-of-00002.safetensors, too" in fails(sharded)


def test_a_head_that_is_absent_is_tied(folder):
    edit(folder / "config.json", tie_word_embeddings=False)
    assert load_model(folder).model.config.tie_embeddings


def test_a_head_beside_tied_embeddings_is_left_out(folder):
    def add(arrays):
        arrays["lm_head.weight"] = np.zeros((128, 32))

    expected = load_model(folder)
    rewrite(folder, add)
    jax.tree.map(np.testing.assert_array_equal, load_model(folder).params, expected.params)


def test_types_of_parameters_and_activations():
    loaded = load_model(TINY / "qwen3_tied_f32", "bfloat16", param_dtype="bfloat16")
    assert {x.dtype for x in jax.tree.leaves(loaded.params)} == {jnp.dtype("bfloat16")}
    tokens = jnp.asarray([[1, 2, 3]])
    assert loaded.model.forward(loaded.params, tokens).dtype == jnp.bfloat16
    wide = load_model(TINY / "qwen3_untied_bf16")
    assert {x.dtype for x in jax.tree.leaves(wide.params)} == {jnp.dtype("float32")}


def test_straight_to_a_mesh(monkeypatch):
    """Every leaf, stacked ones too, lies where its sharding says."""
    monkeypatch.setattr(shapes, "UNROLLED", 1)
    mesh = Mesh(np.asarray(jax.devices()[:2]), ("tensor",))

    def shardings(config):
        def place(names):
            axes = ["tensor" if name == "mlp" else None for name in names]
            return NamedSharding(mesh, PartitionSpec(*axes))

        axes = decoder.logical_axes(config)
        return jax.tree.map(place, axes, is_leaf=lambda x: isinstance(x, tuple))

    name = "llama3_sharded_bf16"
    plain, split = load_model(TINY / name), load_model(TINY / name, shardings=shardings)
    down = split.params["stack"]["0"]["mlp"]["down"]
    assert down.sharding.spec[1] == "tensor" and down.shape[0] == 3
    assert {piece.data.shape for piece in down.addressable_shards} == {(3, 32, 32)}
    jax.tree.map(np.testing.assert_array_equal, split.params, plain.params)


def test_other_parameters_are_saved_with_what_makes_a_folder_usable(folder, tmp_path):
    loaded = load_model(folder)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    changed = jax.tree.map(lambda x: x + 1, loaded.params)
    save_model(tmp_path / "out", loaded._replace(params=changed), dtype="bfloat16")
    again = load_model(tmp_path / "out")
    expected = jax.tree.map(lambda x: np.asarray(x, jnp.bfloat16).astype(np.float32), changed)
    jax.tree.map(np.testing.assert_array_equal, again.params, expected)
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    assert told["dtype"] == "bfloat16" and told["model_type"] == "qwen2"
    assert not list((tmp_path / "out").glob("*.partial"))
    with pytest.raises(ModelError, match="params: layer_0.mlp.down is missing"):
        del changed["layer_0"]["mlp"]["down"]
        save_model(tmp_path / "out", loaded._replace(params=changed))
