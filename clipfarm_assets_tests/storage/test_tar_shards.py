"""Shards: the same bytes, webdataset reads them and we read its own, and nothing is lost unsaid."""

import io
import json
import re
import tarfile
import tracemalloc
from contextlib import suppress

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.storage.tar_shards import (
    BadSample,
    Sample,
    read_shard,
    shard_bytes,
    stored_bytes,
)
from clipfarm_assets_tests.storage.tar_kit import (
    PNG,
    SOME,
    WHOLE,
    by_webdataset,
    files,
    info,
    read,
    sample,
    tar,
)

# What is written.


def test_bytes_are_those_of_tarfile():
    members = []
    for one in SOME:
        told = json.dumps(one.json, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        parts = {"txt": one.txt.encode(), "png": one.png, "json": told.encode()}
        members += [(f"{one.key}.{suffix}", data) for suffix, data in parts.items()]
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            archive.addfile(info(name, len(data), mode=0o444), io.BytesIO(data))
    assert shard_bytes(SOME) == file.getvalue()
    assert shard_bytes([]) == tar()


def test_equal_samples_in_other_dict_order_give_equal_bytes():
    backwards = [Sample(s.key, s.txt, s.png, dict(reversed(s.json.items()))) for s in SOME]
    assert shard_bytes(backwards) == shard_bytes(SOME)


def test_a_sample_takes_as_many_bytes_as_told():
    samples = [sample(f"k{n}", "x" * n) for n in range(500, 530)]
    members = sum(map(stored_bytes, samples))
    length = len(shard_bytes(samples))
    assert length % tarfile.RECORDSIZE == 0
    assert members + 1024 <= length < members + 1024 + tarfile.RECORDSIZE


@pytest.mark.parametrize(
    ("samples", "told"),
    [
        ([sample("a.b")], "no key"),
        ([sample("")], "no key"),
        ([sample("../a")], "no key"),
        ([sample("a\n")], "no key"),
        ([sample("k" * 65)], "no key"),
        ([sample("a"), sample("b"), sample("a")], "twice"),
        ([sample(png=b"\xff\xd8\xff")], "must be a PNG"),
        ([sample(labels=float("nan"))], "JSON compliant"),
        ([sample(txt="\ud800")], "surrogates"),
        ([sample(txt="x" * ((1 << 20) + 1))], "1048576 bytes: found 1048577"),
    ],
)
def test_what_would_not_be_read_again_is_not_written(samples, told):
    with pytest.raises(ValueError, match=told):
        shard_bytes(samples)


# webdataset as the oracle.

KEYS = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
FIELDS = st.dictionaries(
    st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5) | st.booleans(), max_size=3
)
SAMPLES = st.lists(
    st.builds(
        Sample, KEYS, st.text(max_size=600), st.binary(max_size=900).map(PNG.__add__), FIELDS
    ),
    max_size=5,
    unique_by=lambda s: s.key,
)


@settings(max_examples=40)
@given(samples=SAMPLES)
def test_webdataset_and_we_read_what_we_wrote(samples, tmp_path_factory):
    data = shard_bytes(samples)
    assert read(data) == samples
    theirs = by_webdataset(tmp_path_factory.getbasetemp() / "ours.tar", data)
    plain = [(d["__key__"], d["txt"].decode(), d["png"], json.loads(d["json"])) for d in theirs]
    assert plain == [(s.key, s.txt, s.png, s.json) for s in samples]
    assert all(set(d) - {"__key__", "__url__", "__local_path__"} == set(WHOLE) for d in theirs)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "webp", "JPG"])
@pytest.mark.parametrize(
    "options", [{}, {"mtime": 0}, {"user": "ü", "group": "g"}], ids=["now", "still", "pax"]
)
def test_what_webdataset_wrote_is_read(suffix, options, tmp_path):
    """In its own order of fields, with a time of now, folders in keys, long and Unicode names."""
    keys = ["a", "folder/b", "f/" + "long" * 40, "čára", "e e"]
    file = io.BytesIO()
    with webdataset.TarWriter(file, **options) as writer:
        for key in keys:
            fields = {"labels": {"abuse_hate": 1}, "id": key}
            writer.write(
                {"__key__": key, "txt": key, suffix: b"image", "json": fields, "extra": b"e"}
            )
    found = read(file.getvalue())
    assert found == [Sample(k, k, b"image", {"labels": {"abuse_hate": 1}, "id": k}) for k in keys]
    assert len(by_webdataset(tmp_path / "t.tar", file.getvalue())) == len(keys)


MEMBERS = st.tuples(
    st.sampled_from(["a", "b", "f/a", "a.b", ".a", "__m__", ""]),
    st.sampled_from([".txt", ".png", ".jpg", ".json", ".cls", "", ".TXT"]),
    st.sampled_from([b"", b"{}", b"\xff", b"[1]"]),
)


@settings(max_examples=30)
@given(members=st.lists(MEMBERS, max_size=8))
def test_every_file_is_in_a_sample_or_told(members, tmp_path_factory):
    """Beside webdataset, which loses some in silence and raises on others."""
    named = [(key + suffix, data) for key, suffix, data in members if key + suffix]
    data = tar(*named)
    ours = read(data)
    whole = {s.key: s for s in ours if isinstance(s, Sample)}
    told = {s.key for s in ours if isinstance(s, BadSample)}
    theirs = []
    with suppress(ValueError):  # as it does where a name is there twice
        theirs = by_webdataset(tmp_path_factory.getbasetemp() / "any.tar", data)
    for one in theirs:
        if one["__key__"] in whole and one["__key__"] not in told:
            mine = whole[one["__key__"]]
            image = one["png"] if "png" in one else one["jpg"]
            assert (mine.txt.encode(), mine.png) == (one["txt"], image)
            assert mine.json == json.loads(one["json"])
    for name, _ in named:
        key = name.removeprefix("./").split(".")[0]
        accounted = {key, name} & (whole.keys() | told)
        assert accounted or name.startswith("__m__"), name


# Bad samples: one each, counted, and the others are read.


@pytest.mark.parametrize(
    ("members", "key", "told"),
    [
        (files("k")[1:], "k", "lacks txt: found png, json"),
        (files("k")[:1], "k", "lacks image and json: found txt"),
        ([("k.cls", b"1")], "k", "lacks txt and image and json: found cls"),
        ([*files("k"), ("k.txt", b"")], "k", "more than one txt"),
        ([*files("k"), ("k.jpg", b"")], "k", "more than one image"),
        (files("k", txt=b"\xff"), "k", "utf-8"),
        (files("k", json=b"{"), "k", "Expecting property name"),
        (files("k", json=b"null"), "k", "must be an object: found None"),
        (files("k", json=b"[1]"), "k", r"must be an object: found \[1\]"),
        (files("k", json=b'{"a":NaN}'), "k", "NaN is no JSON"),
        (files("k", json=b"[" * 200_000), "k", "recursion"),
        (files("k", json=b'{"a":' + b"9" * 5000 + b"}"), "k", "4300"),
        (
            [(f"1.5.{s}", d) for s, d in WHOLE.items()],
            "1",
            "found 5.txt, 5.png, 5.json .*first dot",
        ),
        ([("nodot", b"")], "nodot", "no dot after its key"),
        ([("._k.png", b"")], "._k.png", "no dot after its key"),
        (files("/etc/k"), "/etc/k.txt", "no plain path"),
        (files("../../k"), "../../k.txt", "no plain path"),
        (files("a/../k"), "a/../k.txt", "no plain path"),
        (files("a\\k"), "a\\k.txt", "backslash"),
        (files("a\nk"), "a\nk.txt", "control character"),
        (files("\udcffk"), "\\udcffk.txt", "not UTF-8"),
    ],
)
def test_a_bad_sample_is_told_and_the_next_is_read(members, key, told):
    first, *more, last = read(tar(*members, *files("good")))
    assert isinstance(first, BadSample)
    assert first.key == key
    assert re.search(told, first.why), first.why
    assert all(isinstance(one, BadSample) for one in more)
    assert last == Sample("good", "words", PNG, {"labels": {"abuse_hate": 1}})


@pytest.mark.parametrize(
    ("type_", "told"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (b"Z", "of type b'Z'"),
    ],
)
def test_links_and_devices_are_not_followed(type_, told, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    link = info("k.png", type=type_, linkname=str(secret))
    text, _, fields = files("k")
    bad, good = read(tar(text, link, fields, *files("good")))
    assert bad == BadSample("k", f"its png is {told}, not a plain file")
    assert good.key == "good"


def test_samples_whose_files_are_apart_are_told():
    """As are two tars' members shuffled together: webdataset gives out torn samples."""
    one, two = files("a"), files("b")
    found = read(tar(one[0], *two, *one[1:]))
    assert [type(s) for s in found] == [BadSample, Sample, BadSample]
    assert "came before" in found[2].why
    again = read(tar(*one, *two, *one))
    assert [type(s) for s in again] == [Sample, Sample, BadSample]


def test_folders_and_the_formats_own_files_are_passed_over():
    folder = info("f", type=tarfile.DIRTYPE)
    found = read(tar(folder, ("__meta__", b"{}"), *files("f/k"), ("./__x__/y.txt", b""), folder))
    assert [s.key for s in found][:1] == ["f/k"]
    dotted = tar(info(".", type=tarfile.DIRTYPE), *((f"./{n}", d) for n, d in files("k")))
    assert [s.key for s in read(dotted)] == ["k"]


def test_too_large_parts_are_not_read():
    large = files("k", txt=bytes((1 << 20) + 1))
    bad, good = read(tar(*large, *files("good")))
    assert bad == BadSample("k", "its txt may have 1048576 bytes: found 1048577")
    assert good.key == "good"


def test_thousands_of_files_of_one_sample_and_thousands_of_samples():
    many = [(f"k.x{n}", b"") for n in range(1500)] + [("k.txt", b"")] * 1500
    (bad,) = read(tar(*many))
    assert "more than one txt" in bad.why
    assert "and 1494 more" in bad.why
    assert len(bad.why) < 1000
    pixels = PNG + bytes(20_000)
    data = io.BytesIO(tar(*(m for n in range(400) for m in files(f"s{n}", png=pixels))))
    tracemalloc.start()
    try:
        assert sum(isinstance(s, Sample) for s in read_shard(data, "t")) == 400
        assert tracemalloc.get_traced_memory()[1] < 300_000  # one sample, and all keys
    finally:
        tracemalloc.stop()
