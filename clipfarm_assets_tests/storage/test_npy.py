import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipfarm_assets.storage.npy import BadVector, npy_to_vector, vector_to_npy

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
VECTORS = arrays(np.float32, st.integers(1, 40), elements=FINITE)


def saved(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asanyarray(array), **options)
    return buffer.getvalue()


def with_header(text: str, payload: bytes = b"") -> bytes:
    header = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + payload


@given(VECTORS)
def test_round_trip_is_byte_identical_to_np_save(vector):
    buffer = io.BytesIO()
    np.save(buffer, vector)
    data = vector_to_npy(vector)
    assert data == buffer.getvalue()
    again = npy_to_vector(data, vector.size)
    assert again.tobytes() == vector.tobytes()
    assert again.dtype == np.float32
    again[0] = 1  # an array of its own


def test_strided_and_big_endian_vectors_are_written_the_same():
    vector = np.arange(6, dtype=np.float32)
    expected = vector_to_npy(np.array([0, 2, 4], np.float32))
    assert vector_to_npy(vector[::2]) == expected


@pytest.mark.parametrize(
    "vector",
    [
        np.zeros((2, 3), np.float32), np.zeros(3, np.float64), np.zeros(3, np.int32),
        np.zeros((), np.float32), np.zeros(0, np.float32), np.array([1, np.nan], np.float32),
        np.array([np.inf], np.float32),
    ],
)  # fmt: skip
def test_only_finite_float32_vectors_are_written(vector):
    with pytest.raises(BadVector):
        vector_to_npy(vector)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_older_deployments_wrote_is_read(version, dtype):
    vector = np.linspace(-1, 1, 768).astype(dtype)
    assert np.array_equal(npy_to_vector(saved(vector, version=version), 768), vector.astype("f4"))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.float16), "float16"),
        (np.zeros(4, np.int64), "int64"),
        (np.zeros(4, ">f4"), "little-endian"),
        (np.zeros(4, [("x", "<f4")]), "little-endian"),
        (np.zeros(4, np.complex64), "little-endian"),
        (np.zeros((2, 2), np.float32), "shape"),
        (np.zeros((), np.float32), "shape"),
        (np.zeros(0, np.float32), "empty"),
        (np.array([0, np.nan, np.inf], np.float32), "2 of 3 values are not finite, the first at 1"),
        (np.array([1e300]), "not finite"),
        (np.array(["a"]), "<U1"),
    ],
)
def test_other_arrays_are_refused(array, message):
    with pytest.raises(BadVector, match=message):
        npy_to_vector(saved(array))


def test_pickles_are_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    # Writing the attack needs the permission that reading it must never have.
    data = saved(np.array([Evil()], object), allow_pickle=True)
    with pytest.raises(BadVector, match="pickled Python objects"):
        npy_to_vector(data)
    assert not (tmp_path / "proof").exists()


def test_the_dimension_is_checked():
    with pytest.raises(BadVector, match="expected 768 dimensions, found 4"):
        npy_to_vector(vector_to_npy(np.zeros(4, np.float32)), 768)


@pytest.mark.parametrize("cut", [1, 4, 100, 130, 140])
def test_cut_off_and_padded_files_are_refused(cut):
    data = vector_to_npy(np.ones(4, np.float32))
    with pytest.raises(BadVector):
        npy_to_vector(data[:-cut])
    with pytest.raises(BadVector, match="cut off or damaged"):
        npy_to_vector(data + b"\0" * cut)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x00" + b"\0" * 200,
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",), }"),
        with_header("{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 5000 + "}"),
        with_header("{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000,), }"),
        with_header("{'descr': '<f3', 'fortran_order': False, 'shape': (1,), }", b"\0\0\0"),
        with_header("{'descr': '<f4', 'shape': (1,), }", b"\0\0\0\0"),
        with_header("__import__('os').abort()"),
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{" * 100,
    ],
)
def test_hostile_files_are_refused(data):
    with pytest.raises(BadVector):
        npy_to_vector(data)


@given(st.binary(max_size=300))
def test_garbage_is_refused(data):
    with pytest.raises(BadVector):
        npy_to_vector(data)


@given(VECTORS, st.data())
def test_damage_is_refused_or_changes_values_only(vector, draw):
    data = bytearray(vector_to_npy(vector))
    at = draw.draw(st.integers(0, len(data) - 1))
    data[at] ^= draw.draw(st.integers(1, 255))
    try:
        again = npy_to_vector(bytes(data))
    except BadVector:
        return
    assert np.isfinite(again).all()
    assert again.ndim == 1
    assert len(data) >= again.size * 4
