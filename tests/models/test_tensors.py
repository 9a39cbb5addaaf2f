"""Safetensors files: what is written comes back, and damage is told in one line."""

import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.models.tensors import FLOATS, TensorError, TensorFile, write_tensors

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b.weight": np.asarray([1.5, -2.0], np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


def write(path, dtype="F32", arrays=ARRAYS):
    shapes = {name: (dtype, values.shape) for name, values in arrays.items()}
    write_tensors(path, shapes, arrays.__getitem__)
    return path


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"])
def test_what_is_written_comes_back(tmp_path, dtype):
    with TensorFile(write(tmp_path / "x.safetensors", dtype)) as file:
        assert list(file.tensors) == list(ARRAYS)
        for name, values in ARRAYS.items():
            found = file.read(name)
            assert found.dtype == np.dtype(FLOATS[dtype])
            np.testing.assert_array_equal(found.astype(np.float32), values)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_formats_own_library_agrees(tmp_path):
    found = safetensors.numpy.load_file(write(tmp_path / "x.safetensors"))
    assert found.keys() == ARRAYS.keys()
    safetensors.numpy.save_file(ARRAYS, tmp_path / "y.safetensors")
    with TensorFile(tmp_path / "y.safetensors") as file:
        for name, values in ARRAYS.items():
            np.testing.assert_array_equal(found[name], values)
            np.testing.assert_array_equal(file.read(name), values)


def test_bfloat16_is_rounded_to_even(tmp_path):
    values = np.asarray([1.00390625, 1.01171875, -3.0e38], np.float32)
    write(tmp_path / "x.safetensors", "BF16", {"a": values})
    with TensorFile(tmp_path / "x.safetensors") as file:
        expected = values.astype(ml_dtypes.bfloat16)
        np.testing.assert_array_equal(file.read("a"), expected)
        assert float(file.read("a")[0]) == 1.0 and float(file.read("a")[1]) == 1.015625


def rewritten(content, change):
    """The file with a changed header, its data as they were."""
    size = int.from_bytes(content[:8], "little")
    text = change(content[8 : 8 + size])
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def edit(**changes):
    def change(text):
        header = json.loads(text)
        header["a"] = {**header["a"], **changes}
        return json.dumps(header).encode()

    return change


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda c: b"", "it has 0 bytes"),
        (lambda c: c[:5], "it has 5 bytes"),
        (lambda c: (2**62).to_bytes(8, "little") + c[8:], "its header would be"),
        (lambda c: c[:-1], "its tensors end at byte"),
        (lambda c: c + b"x", "its tensors end at byte"),
        (lambda c: rewritten(c, lambda text: b"[]"), "no JSON object"),
        (lambda c: rewritten(c, lambda text: b"\xff"), "damaged"),
        (lambda c: rewritten(c, lambda text: b'{"a": 1, "a": 2}'), "'a' comes twice"),
        (lambda c: rewritten(c, lambda text: b"[" * 100_000), "damaged"),
        (lambda c: rewritten(c, edit(dtype="F12")), "unknown type 'F12'"),
        (lambda c: rewritten(c, edit(shape=[2, 4])), "does not fill its bytes"),
        (lambda c: rewritten(c, edit(shape=[-2, -3])), "not a list of whole numbers"),
        (lambda c: rewritten(c, edit(shape=[True, 6])), "not a list of whole numbers"),
        (lambda c: rewritten(c, edit(data_offsets=[0, 23])), "does not fill its bytes"),
        (lambda c: rewritten(c, edit(data_offsets=[4, 28])), "does not begin where"),
        (lambda c: rewritten(c, edit(more=1)), "is not described by"),
    ],
)
def test_damage_is_told(tmp_path, damage, says):
    path = write(tmp_path / "x.safetensors")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TensorError, match=says) as caught:
        TensorFile(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@given(st.data())
def test_any_damaged_byte_is_told_or_harmless(tmp_path_factory, data):
    path = write(tmp_path_factory.mktemp("x") / "x.safetensors")
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        with TensorFile(path) as file:
            for name in file.tensors:
                file.read(name)
    except TensorError as error:
        assert "\n" not in str(error)


def test_what_is_not_there_or_no_float(tmp_path):
    with pytest.raises(TensorError, match="cannot be read"):
        TensorFile(tmp_path / "none.safetensors")
    safetensors.numpy.save_file({"i": np.arange(3)}, tmp_path / "x.safetensors")
    with TensorFile(tmp_path / "x.safetensors") as file:
        with pytest.raises(TensorError, match="i is of type I64; weights are floats"):
            file.read("i")
        with pytest.raises(TensorError, match="other is missing"):
            file.read("other")


def test_wrong_values_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"a has shape \(2,\), not \(3,\)"):
        write_tensors(tmp_path / "x", {"a": ("F32", (3,))}, lambda name: np.zeros(2))
    assert not (tmp_path / "x").exists()
