"""Safetensors files bit by bit: every floating type is read, everything else is told in a line."""

import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reskill_jax.models.tensors import TensorError, TensorFile, write_tensors


def read_tensors(data):
    """Every tensor of a file with these bytes, as float32."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "x.safetensors").write_bytes(data)
        with TensorFile(Path(folder) / "x.safetensors") as file:
            return {name: file.read(name).astype(np.float32) for name in file.tensors}


def bytes_of(arrays):
    """What is written of some arrays."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = {name: ("F32", array.shape) for name, array in arrays.items()}
        write_tensors(Path(folder) / "x.safetensors", shapes, arrays.__getitem__)
        return (Path(folder) / "x.safetensors").read_bytes()


def content(header, data=b"", *, size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(kind, shape, begin, end):
    return {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "kind, data, values",
    [
        ("F64", struct.pack("<3d", 1.0, -2.5, 1 / 3), [1.0, -2.5, np.float32(1 / 3)]),
        ("F32", struct.pack("<3f", 1.0, -2.5, 1e-40), [1.0, -2.5, np.float32(1e-40)]),
        # by hand: sign, exponent, fraction
        ("F16", struct.pack("<3H", 0x3C00, 0xC100, 0x7BFF), [1.0, -2.5, 65504.0]),
        ("BF16", struct.pack("<3H", 0x3F80, 0xC020, 0x0080), [1.0, -2.5, 2.0**-126]),
        ("F8_E4M3", bytes([0x38, 0xC2, 0x7E, 0x01]), [1.0, -2.5, 448.0, 2.0**-9]),
        ("F8_E5M2", bytes([0x3C, 0xC1, 0x7B, 0x01]), [1.0, -2.5, 57344.0, 2.0**-16]),
    ],
)
def test_every_floating_type_is_read_to_float32(kind, data, values):
    header = {"a": entry(kind, [len(values), 1], 0, len(data)), "__metadata__": {"format": "pt"}}
    (array,) = read_tensors(content(header, data)).values()
    assert array.dtype == np.float32 and array.shape == (len(values), 1)
    np.testing.assert_array_equal(array[:, 0], np.float32(values))


A = {"a": entry("F32", [2], 0, 8)}
EIGHT = bytes(8)


@pytest.mark.parametrize(
    "data, reason",
    [
        (b"", "damaged"),
        (b"1234567", "damaged"),
        (content(A, EIGHT[1:]), "damaged"),
        (content(A, EIGHT + b"x"), "damaged"),
        (content(A, EIGHT, size=10**6), "damaged"),
        (content(A, EIGHT, size=2**63), "damaged"),
        (content(A, EIGHT, size=5), "damaged"),
        (content(A, EIGHT, size=0), "damaged"),
        (content(b"[" * 100_000), "damaged"),
        (content([]), "damaged"),
        (content({"a": entry("F32", [-2], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("F32", [2.0], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("F32", [True, 2], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("F32", [2**62, 2**62], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("F32", [3], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("F32", [2], 8, 16)}, bytes(16)), "damaged"),
        (content(A | {"b": entry("F32", [2], 0, 8)}, EIGHT), "damaged"),
        (content({"a": entry("Q9", [2], 0, 8)}, EIGHT), "damaged"),
        (content({"a": {"dtype": "F32"}}, EIGHT), "damaged"),
        (content({"a": entry("I32", [2], 0, 8)}, EIGHT), "a is of type I32; weights are floats"),
        (content({"a": entry("BOOL", [8], 0, 8)}, EIGHT), "a is of type BOOL"),
        (content({"a\nb": entry("U8", [8], 0, 8)}, EIGHT), r"a\\nb is of type U8"),
        (
            content(b'{"a":%s,"a":%s}' % ((json.dumps(A["a"]).encode(),) * 2), EIGHT),
            "'a' comes twice",
        ),
    ],
)
def test_everything_else_is_refused_in_one_line(data, reason):
    with pytest.raises(TensorError, match=reason) as error:
        read_tensors(data)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 300


def test_what_is_written_is_read():
    arrays = {"a": np.float32([[1, 2]]), "b": np.float32([3]), "c": np.zeros((0, 2), np.float32)}
    for name, array in read_tensors(bytes_of(arrays)).items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


GOOD = bytes_of({"a": np.float32([[1, 2]]), "b": np.float32([3])})


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.binary(max_size=6))
def test_any_damage_is_refused_or_leaves_numbers(start, stop, put):
    try:
        arrays = read_tensors(GOOD[:start] + put + GOOD[max(start, stop) :])
    except TensorError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert all(array.dtype == np.float32 for array in arrays.values())
