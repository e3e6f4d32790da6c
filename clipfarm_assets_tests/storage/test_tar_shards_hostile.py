"""Damaged and hostile tars: an error that names the shard, no memory, no time, no silent loss."""

import gzip
import io
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.storage import tar_shards
from clipfarm_assets.storage.tar_shards import (
    MAX_IMAGE_BYTES,
    BadSample,
    DamagedShard,
    Sample,
    read_shard,
    shard_bytes,
    stored_bytes,
)
from clipfarm_assets_tests.storage.tar_kit import (
    PNG,
    SOME,
    files,
    headed,
    info,
    read,
    tar,
)


def test_a_truncated_shard_is_refused_wherever_it_ends():
    data = shard_bytes(SOME)
    end = sum(map(stored_bytes, SOME))
    for length in [*range(0, end + 512, 97), end, end + 511]:
        with pytest.raises(DamagedShard, match=r"^shard\.tar"):
            read(data[:length])
    assert read(data[: end + 512]) == SOME  # its end mark is there


def test_samples_before_the_damage_are_given_out():
    data, found = shard_bytes(SOME), []
    cut = stored_bytes(SOME[0]) + stored_bytes(SOME[1]) + 600
    with pytest.raises(DamagedShard, match="cut off"):
        found.extend(read_shard(io.BytesIO(data[:cut]), "t"))
    assert found == SOME[:1]  # of the second one can't know that it was whole


@pytest.mark.parametrize("flip", [1, 0x80])
def test_a_damaged_header_is_refused(flip):
    """`tarfile` takes it for the end, and webdataset with it: samples would be lost in silence."""
    data, at = shard_bytes(SOME), stored_bytes(SOME[0])
    for position in range(at, at + 500, 7):
        damaged = bytearray(data)
        damaged[position] ^= flip
        with pytest.raises(DamagedShard):
            read(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk" * 1000,
        gzip.compress(tar(*files("k"))),
        tar(*files("k")) + tar(*files("l")),
        tar(*files("k")) + b"x",
    ],
    ids=["empty", "junk", "gzip", "two tars", "a byte more"],
)
def test_what_is_no_tar_is_refused(data):
    with pytest.raises(DamagedShard, match="write or fetch it again"):
        read(data)


@given(st.binary(max_size=2000))
def test_garbage_is_refused(data):
    if data.strip(b"\0") or len(data) < 512:
        with pytest.raises(DamagedShard):
            read(data)


NEGATIVE = b"\xff" * 12  # -1 in base 256
HUGE = b"\x80" + b"\x00" * 3 + b"\x7f" + b"\xff" * 7
NESTED = (
    info("././@LongLink", 512, type=tarfile.GNUTYPE_LONGNAME).tobuf(tarfile.GNU_FORMAT) + bytes(512)
) * 2000


def pax(records):
    """A PAX header of these bytes."""
    header = info("pax", len(records), type=tarfile.XHDTYPE).tobuf(tarfile.USTAR_FORMAT)
    return header + records + bytes(-len(records) % 512)


HOSTILE = {
    "a size of 8 GiB less 1": headed("k.png", b"77777777777\0"),
    "a size of an exbibyte": headed("k.png", HUGE),
    "a negative size, which leads back": headed("k.png", NEGATIVE),
    "a PAX header of 8 GiB": headed("pax", b"77777777777\0", tarfile.XHDTYPE),
    "a PAX header of negative size": headed("pax", NEGATIVE, tarfile.XHDTYPE),
    "a long name of 8 GiB": headed("n", b"77777777777\0", tarfile.GNUTYPE_LONGNAME),
    "a long name of negative size": headed("n", NEGATIVE, tarfile.GNUTYPE_LONGNAME),
    "long names of long names": NESTED + tar(*files("good")),
    "a negative size by PAX": pax(b"13 size=-999\n") + tar(*files("good")),
    "a size by PAX of 40 digits": pax(b"49 size=" + b"9" * 40 + b"\n") + tar(*files("good")),
    "PAX digits": pax(b"1" * 16000) + tar(*files("good")),
    "PAX records without end": pax((b"0" * 99 + b"1 x") * 150) + tar(*files("good")),
    "a sparse map without end": pax(
        b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
    ) + tar(("k.png", b"9999999\n")),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_take_neither_memory_nor_time(name, tmp_path):
    """In a file, which unlike bytes makes room for as much as it is asked for."""
    path = tmp_path / "shard.tar"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        try:
            with path.open("rb") as file:
                found = list(read_shard(file, "shard.tar"))
        except DamagedShard:
            pass
        else:  # what the header did to the sample after it is told
            assert found[-1].key == "good"
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_sparse_file_is_not_inflated():
    """16 EiB of nothing in a few blocks."""
    size = b"%d" % (1 << 40)
    record = b"GNU.sparse.size=" + size + b"\n"
    records = b"%d %s" % (len(record) + 3, record)
    records += b"29 GNU.sparse.numblocks=1\n".replace(b"29", b"26")
    record = b"GNU.sparse.map=0,1\n"
    records += b"%d %s" % (len(record) + 3, record)
    data = pax(records) + tar(("k.png", b"x"), *files("good"))
    bad, good = read(data)
    assert bad == BadSample("k", "its png is a sparse file, not a plain file")
    assert good.key == "good"


def test_an_image_may_be_as_large_as_told(monkeypatch):
    assert MAX_IMAGE_BYTES == 64 << 20
    monkeypatch.setitem(tar_shards._MOST, "image", 1000)
    just, over = read(tar(*files("a", png=PNG + bytes(992)), *files("b", png=PNG + bytes(993))))
    assert isinstance(just, Sample)
    assert over == BadSample("b", "its image may have 1000 bytes: found 1001")


def test_headers_on_which_tarfile_takes_quadratic_time_are_refused():
    with pytest.raises(DamagedShard, match="a number of 100 digits or more"):
        read(HOSTILE["PAX digits"])
    records = b"".join(b"%d k%03d=v\n" % (10, n) for n in range(100))
    header = info("all", len(records), type=tarfile.XGLTYPE).tobuf(tarfile.USTAR_FORMAT)
    padded = records + bytes(-len(records) % 512)
    with pytest.raises(DamagedShard, match="more than 64 global PAX records"):
        read(header + padded + tar(*files("good")))
