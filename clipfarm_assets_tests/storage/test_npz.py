import io
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays

DTYPES = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="<"),
    hnp.floating_dtypes(endianness="<", sizes=(16, 32, 64)),
    hnp.unicode_string_dtypes(endianness="<", max_len=6),
    hnp.byte_string_dtypes(max_len=6),
)


def is_unicode(array):
    """Lone surrogates are no text, and are refused."""
    return array.dtype.kind != "U" or not any(
        "\ud800" <= c <= "\udfff" for c in "".join(array.flat)
    )


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5)
ARRAYS = hnp.arrays(DTYPES, SHAPES).filter(is_unicode)


def shard():
    return {
        "video_ids": np.array(["-a", "_b", "çđ"]),
        "vectors": np.arange(12, dtype=np.float32).reshape(3, 4),
        "captured_at": np.array(["2026-02-05T17:34:41.595562+00:00"] * 3),
    }


def npz(members: dict[str, bytes], **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array, **options) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def claim(dtype: str, shape: str) -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), ARRAYS, max_size=4))
def test_round_trip_and_np_load_agree(arrays):
    data = arrays_to_npz(arrays)
    again = npz_to_arrays(data)
    with np.load(io.BytesIO(data), allow_pickle=False) as loaded:
        assert set(loaded) == set(arrays) == set(again)
        for name, array in arrays.items():
            for found in (again[name], loaded[name]):
                assert found.dtype == array.dtype
                assert found.shape == array.shape
                assert found.tobytes() == array.tobytes()


def test_equal_arrays_give_equal_bytes_in_any_order_and_layout():
    first = shard()
    second = dict(reversed(shard().items()))
    data = arrays_to_npz(first)
    assert arrays_to_npz(second) == data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == ["captured_at.npy", "vectors.npy", "video_ids.npy"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time for info in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}


def test_fortran_order_survives():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert np.array_equal(npz_to_arrays(arrays_to_npz({"x": array}))["x"], array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_shards_that_numpy_wrote_are_read(save):
    buffer = io.BytesIO()
    save(buffer, **shard())
    again = npz_to_arrays(buffer.getvalue(), names=["vectors", "video_ids"])
    assert list(again) == ["vectors", "video_ids"]
    assert np.array_equal(again["vectors"], shard()["vectors"])
    assert np.array_equal(again["video_ids"], shard()["video_ids"])
    again["vectors"][0] = 0  # an array of its own


def test_object_arrays_of_older_shards_are_refused_with_a_way_out(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "proof"), "w"))

    buffer = io.BytesIO()
    np.savez(buffer, video_ids=np.array([Evil(), "b"], object), vectors=np.zeros((2, 2), "f4"))
    with pytest.raises(BadShard, match=r"'video_ids'.*pickled Python objects.*dtype=str"):
        npz_to_arrays(buffer.getvalue())
    assert not (tmp_path / "proof").exists()
    assert list(npz_to_arrays(buffer.getvalue(), names=["vectors"])) == ["vectors"]
    with pytest.raises(BadShard, match="only plain dtypes"):
        arrays_to_npz({"x": np.array([None])})


def test_missing_arrays_are_named():
    with pytest.raises(BadShard, match="lacks captured_at; it holds vectors"):
        npz_to_arrays(arrays_to_npz({"vectors": np.zeros(3)}), names=["vectors", "captured_at"])


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_sizes_are_refused_before_they_are_allocated(method):
    bomb = npz({"x.npy": npy(np.zeros(40 << 20, np.uint8))}, compression=method)
    liar = npz({"x.npy": claim("<f4", "(1000000000000,)")}, compression=method)
    tracemalloc.start()
    try:
        with pytest.raises(BadShard, match="more than the limit of 1000000"):
            npz_to_arrays(bomb, max_bytes=1_000_000)
        with pytest.raises(BadShard, match="it is damaged"):
            npz_to_arrays(liar)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_the_limit_is_over_all_arrays_together():
    data = arrays_to_npz({"a": np.zeros(500, np.uint8), "b": np.zeros(500, np.uint8)})
    with pytest.raises(BadShard, match="limit"):
        npz_to_arrays(data, max_bytes=1000)
    assert len(npz_to_arrays(data, names=["a"], max_bytes=1000)["a"]) == 500


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_arrays_are_refused():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", npy(np.zeros(1)))
        archive.writestr("x.npy", npy(np.ones(1)))
    with pytest.raises(BadShard, match="twice"):
        npz_to_arrays(buffer.getvalue())


@pytest.mark.parametrize(
    "member",
    [
        b"",
        b"not npy",
        claim("<U0", "(1000000000000,)"),
        claim("|V8", "(1,)") + b"\0" * 8,
        claim("<f4", "(0, 1000000000000000000, 1000000000000000000)"),
        claim("<U1", "(1,)") + b"\xff\xff\xff\x7f",
        claim("<U1", "(1,)") + b"\x00\xd8\x00\x00",
    ],
)
def test_hostile_members_are_refused(member):
    with pytest.raises(BadShard):
        npz_to_arrays(npz({"x.npy": member}))


def test_other_compressions_and_encryption_are_refused():
    with pytest.raises(BadShard, match="compressed by method"):
        npz_to_arrays(npz({"x.npy": npy(np.zeros(3))}, compression=zipfile.ZIP_BZIP2))
    data = bytearray(npz({"x.npy": npy(np.zeros(3))}))
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 8] |= 1
    with pytest.raises(BadShard, match="encrypted"):
        npz_to_arrays(bytes(data))


@given(st.binary(max_size=200))
def test_garbage_is_refused(data):
    with pytest.raises(BadShard):
        npz_to_arrays(data)


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("save", [arrays_to_npz, None])
@given(where=st.integers(0, 10_000), flip=st.integers(1, 255))
@example(where=5836, flip=1)  # a directory said to begin before the file does
@example(where=698, flip=2)
def test_a_damaged_byte_never_changes_an_array(save, views, where, flip):
    if save is None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **shard())
        data = bytearray(buffer.getvalue())
    else:
        data = bytearray(save(shard()))
    data[where % len(data)] ^= flip
    try:
        again = npz_to_arrays(bytes(data), names=list(shard()), views=views)
    except BadShard:
        return
    for name, array in shard().items():
        assert np.array_equal(again[name], array)


@pytest.mark.parametrize("views", [False, True])
def test_truncation_is_refused(views):
    data = arrays_to_npz(shard())
    for length in range(0, len(data), 37):
        with pytest.raises(BadShard):
            npz_to_arrays(data[:length], views=views)


def test_views_are_read_only_parts_of_the_object():
    data = arrays_to_npz(shard())
    whole = np.frombuffer(data, np.uint8)
    for name, array in npz_to_arrays(data, views=True).items():
        assert array.tobytes() == shard()[name].tobytes()
        assert array.dtype == shard()[name].dtype
        assert np.shares_memory(array, whole)
        with pytest.raises(ValueError, match="read-only"):
            array[0] = array[1]
    assert not any(np.shares_memory(array, whole) for array in npz_to_arrays(data).values())


def test_views_of_a_compressed_object_are_new_arrays():
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **shard())
    again = npz_to_arrays(buffer.getvalue(), views=True)
    assert {name: array.tobytes() for name, array in again.items()} == {
        name: array.tobytes() for name, array in shard().items()
    }


def test_a_shard_is_copied_once_when_it_is_written_and_not_when_it_is_viewed():
    vectors = np.ones((2048, 1000), np.float32)
    tracemalloc.start()
    try:
        data = arrays_to_npz({"a": vectors[:1], "vectors": vectors, "z": vectors[:1]})
        assert tracemalloc.get_traced_memory()[1] < 1.2 * vectors.nbytes
        tracemalloc.reset_peak()
        again = npz_to_arrays(data, views=True)["vectors"]
        assert tracemalloc.get_traced_memory()[1] < 1.2 * vectors.nbytes
    finally:
        tracemalloc.stop()
    assert np.array_equal(again, vectors)


def test_the_bytes_are_those_of_zipfile_on_a_plain_file():
    """Headers are written twice, once sizes are known: in the same place."""
    arrays = {**shard(), "strided": np.arange(60.0).reshape(6, 10)[::2, ::3], "big": np.array(">")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o600 << 16
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, arrays[name])
    assert arrays_to_npz(arrays) == buffer.getvalue()
