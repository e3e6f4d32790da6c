import io
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest

from clipfarm_assets.contracts import fused_manifest
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.schema_lock import UNVERSIONED, Difference, LockMismatch
from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays
from clipfarm_assets_tests.contracts.builders import KEY, VERSIONS, make_lock, make_shard

DECLARED = {f.name for f in fields(Declaration)}


def assert_equal(found, expected):
    for name in ("video_ids", "vectors", "captured_at"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype, name
        assert np.array_equal(one, other), name
    assert (found.declared is None) is (expected.declared is None)
    for name in DECLARED if expected.declared else ():
        one, other = getattr(found.declared, name), getattr(expected.declared, name)
        assert np.array_equal(one, other), name
        assert type(one) is type(other), name


@pytest.mark.parametrize(
    "shard",
    [
        make_shard(),
        make_shard(ids=("one",)),
        make_shard(ids=()),
        make_shard(placeholders=()),
        make_shard(
            text_state_status=strings(["", "होली 🥰", "é"]),
            text_missing_reason=strings(["text_hash_mismatch:" + "a" * 64, "", "x\ny"]),
            fusion_strategy="max_pool",
            lock_version=12,
        ),
        replace(make_shard(), declared=None),
    ],
)
def test_round_trip(shard):
    assert_equal(FusedShard.from_npz(shard.to_npz(), KEY), shard)


def test_same_rows_same_bytes():
    data = make_shard().to_npz()
    assert data == make_shard().to_npz()
    assert FusedShard.from_npz(data, KEY).to_npz() == data
    # Where an array lies in memory is no part of it.
    shard = make_shard()
    spread = replace(shard, vectors=np.repeat(shard.vectors, 2, axis=0)[::2])
    assert spread.to_npz() == data
    assert make_shard(ids=("aaa", "_cc", "-bb")).to_npz() != data


def test_plain_numpy_reads_the_members_of_the_contract():
    with np.load(io.BytesIO(make_shard().to_npz()), allow_pickle=False) as members:
        assert set(members.files) == {"video_ids", "vectors", "captured_at"} | DECLARED
        assert members["video_ids"].dtype.kind == "U"
        assert members["video_ids"].tolist() == ["aaa", "-bb", "_cc"]
        assert members["vectors"].dtype == np.float32
        assert members["vectors"].tolist() == np.arange(24).reshape(3, 8).tolist()
        assert members["captured_at"].dtype.kind == "U"
        assert members["captured_at"].tolist() == [f"2026-02-05T17:34:4{k}+00:00" for k in range(3)]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_older_deployments_shard_is_valid_and_declares_nothing(save):
    buffer = io.BytesIO()
    save(
        buffer,
        video_ids=np.array(["aaa", "-bb"]),
        vectors=np.ones((2, 8), dtype=np.float32),
        captured_at=np.array(["2026-02-05T17:34:41+00:00", ""]),
    )
    shard = FusedShard.from_npz(buffer.getvalue(), KEY)
    assert shard.declared is None
    assert (len(shard), shard.lock_version()) == (2, 1)
    assert shard.captured_at.tolist() == ["2026-02-05T17:34:41+00:00", ""]
    assert shard.lock_difference(make_lock()) is None
    with pytest.raises(BadShard, match=f"^{KEY} declares no rows: only its deployment's own"):
        shard.manifest_rows(KEY)


def changed(**members):
    """A shard's bytes with members replaced, or left out where the new one is None."""
    arrays = {**npz_to_arrays(make_shard().to_npz()), **members}
    return arrays_to_npz({name: np.asarray(a) for name, a in arrays.items() if a is not None})


@pytest.mark.parametrize("name", sorted(DECLARED))
def test_refuses_a_partial_declaration(name):
    message = f"^{KEY} declares only a part of what a shard must: {name} missing$"
    with pytest.raises(BadShard, match=message):
        FusedShard.from_npz(changed(**{name: None}), KEY)


@pytest.mark.parametrize("name", ["video_ids", "vectors", "captured_at"])
def test_refuses_a_missing_member(name):
    with pytest.raises(BadShard, match=rf"^{KEY} must hold .*: \['{name}'\] missing$"):
        FusedShard.from_npz(changed(**{name: None}), KEY)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"vectors": np.ones((3, 8))}, r"vectors must be float32 \(N, dim\): found float64"),
        ({"vectors": np.ones(24, np.float32)}, r"vectors must be float32 \(N, dim\).*\(24,\)"),
        ({"vectors": np.ones((2, 8), np.float32)}, r"must have shape \(2,\): found \(3,\)"),
        ({"video_ids": ["a", "b"]}, r"video_ids must have shape \(3,\): found \(2,\)"),
        ({"video_ids": [["a"], ["b"], ["c"]]}, r"video_ids must have shape \(3,\)"),
        ({"video_ids": [1, 2, 3]}, "video_ids must hold text: found int64"),
        ({"video_ids": [b"a", b"b", b"c"]}, r"video_ids must hold text: found \|S1"),
        ({"captured_at": [1.0, 2.0, 3.0]}, "captured_at must hold text: found float64"),
        ({"captured_at": "2026"}, r"captured_at must have shape \(3,\): found \(\)"),
        ({"source_hash": ["a"]}, r"source_hash must have shape \(3,\): found \(1,\)"),
        ({"fusion_status": [1, 1, 1]}, "fusion_status must hold text: found int64"),
        ({"text_present": ["1", "1", "0"]}, "text_present must hold whole numbers: found <U1"),
        ({"text_present": [0.5, 1, 1]}, "text_present must hold whole numbers: found float64"),
        ({"text_present": [1, 2, -1]}, r"text_present must be 0 or 1: found \[-1, 1, 2\]"),
        ({"text_present": [1, 1]}, r"text_present must have shape \(3,\): found \(2,\)"),
        ({"retry_count_at_write": [0.0, 1.5, 2]}, "retry_count_at_write must hold whole numbers"),
        ({"fusion_strategy": ["concat"]}, r"fusion_strategy must have shape \(\): found \(1,\)"),
        ({"fusion_strategy": 3}, "fusion_strategy must hold text: found int64"),
        ({"lock_version": "1"}, "lock_version must hold whole numbers: found <U1"),
        ({"lock_version": 1.5}, "lock_version must hold whole numbers: found float64"),
        ({"lock_version": [1, 2]}, r"lock_version must have shape \(\): found \(2,\)"),
        ({"lock_version": 0}, "lock_version counts from 1: found 0"),
        ({"embedding_versions": ["a", "b"]}, r"embedding_versions must have shape \(3,\)"),
        ({"embedding_versions": [1, 2, 3]}, "embedding_versions must hold text: found int64"),
    ],
)
def test_refuses_members_of_another_type_or_shape(members, message):
    with pytest.raises(BadShard, match=f"^{KEY}: .*{message}"):
        FusedShard.from_npz(changed(**members), KEY)


def test_refuses_a_pickled_member_without_unpickling_it():
    buffer = io.BytesIO()
    np.savez(
        buffer,
        video_ids=np.array(["a"], dtype=object),
        vectors=np.ones((1, 8), np.float32),
        captured_at=np.array([""]),
    )
    with pytest.raises(BadShard, match=f"^{KEY}: .*video_ids"):
        FusedShard.from_npz(buffer.getvalue(), KEY)


def test_damage_is_told_with_the_shards_key():
    data = make_shard().to_npz()
    for damaged in (b"", b"\x93NUMPY", data[: len(data) // 2], data[:-30]):
        with pytest.raises(BadShard, match=f"^{KEY}: "):
            FusedShard.from_npz(damaged, KEY)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        begin = archive.getinfo("vectors.npy").header_offset
    flipped = bytearray(data)
    flipped[begin + 300] ^= 1
    with pytest.raises(BadShard, match=f"^{KEY}: "):
        FusedShard.from_npz(bytes(flipped), KEY)


def test_manifest_rows():
    table = make_shard().manifest_rows(KEY)
    assert table.schema.equals(fused_manifest.SCHEMA)
    full, _, placeholder = table.to_pylist()
    assert full == {
        "video_id": "aaa",
        "captured_at": "2026-02-05T17:34:40+00:00",
        "source_hash": "hash-of-aaa",
        "fusion_strategy": "concat",
        "fused_dim": 8,
        "fused_key": KEY,
        "shard_idx": 0,
        "shard_n": 3,
        "video_emb_key": "clipfarm/embeddings/video/aaa.npy",
        "audio_emb_key": "clipfarm/embeddings/audio/aaa.npy",
        "text_emb_key": "clipfarm/embeddings/text/aaa.npy",
        "text_present": 1,
        "text_source": "full",
        "text_state_status": None,
        "text_missing_reason": None,
        "fusion_status": "success_full",
        "retry_count_at_write": 0,
    }
    assert placeholder == {
        **full,
        "video_id": "_cc",
        "captured_at": "2026-02-05T17:34:42+00:00",
        "source_hash": "hash-of-_cc",
        "shard_idx": 2,
        "video_emb_key": "clipfarm/embeddings/video/_cc.npy",
        "audio_emb_key": "clipfarm/embeddings/audio/_cc.npy",
        "text_emb_key": None,
        "text_present": 0,
        "text_source": "placeholder",
        "text_state_status": "no_captions",
        "text_missing_reason": "no_captions",
        "fusion_status": "success_text_placeholder",
        "retry_count_at_write": 2,
    }


def test_manifest_rows_are_the_same_after_storing():
    shard = make_shard()
    stored = FusedShard.from_npz(shard.to_npz(), KEY)
    assert stored.manifest_rows(KEY).equals(shard.manifest_rows(KEY))


def test_an_empty_shard_has_no_rows_of_the_right_types():
    table = make_shard(ids=()).manifest_rows(KEY)
    assert table.num_rows == 0
    assert table.schema.equals(fused_manifest.SCHEMA)


OTHER_VERSIONS = strings(["video-a", "audio-z", "text-z"])


@pytest.mark.parametrize(
    ("shard", "lock", "expected"),
    [
        (make_shard(), make_lock(), None),
        (make_shard(), make_lock(fused_dim=9), Difference("fused_dim", 9, 8)),
        (
            replace(make_shard(), declared=None),
            make_lock(fused_dim=9),
            Difference("fused_dim", 9, 8),
        ),
        (
            make_shard(fusion_strategy="sum_pool"),
            make_lock(),
            Difference("fusion_strategy", "concat", "sum_pool"),
        ),
        # The first of two.
        (
            make_shard(embedding_versions=OTHER_VERSIONS),
            make_lock(),
            Difference("embedding_versions.audio", "audio-a", "audio-z"),
        ),
    ],
)
def test_lock_difference(shard, lock, expected):
    assert shard.lock_difference(lock) == expected
    if expected is None:
        shard.verify(lock)
        return
    message = f"{expected.name} is locked to {expected.locked!r} but {expected.found!r} was found"
    with pytest.raises(LockMismatch, match=message):
        shard.verify(lock)


def test_unversioned_shards_match_the_adopted_version_only():
    unversioned = make_shard(embedding_versions=strings([UNVERSIONED] * 3))
    assert unversioned.lock_difference(make_lock()).name == "embedding_versions.video"
    assert unversioned.lock_difference(make_lock(), VERSIONS) is None
    unversioned.verify(make_lock(), VERSIONS)
    assert unversioned.lock_difference(make_lock(), {**VERSIONS, "text": "text-z"}) == Difference(
        "embedding_versions.text", "text-a", UNVERSIONED
    )
    # And a named shard under a lock that is still unversioned.
    older = make_lock(embedding_versions=dict.fromkeys(("video", "audio", "text"), UNVERSIONED))
    assert make_shard().lock_difference(older, VERSIONS) is None
    assert make_shard().lock_difference(older).name == "embedding_versions.video"


def test_strings_of_nothing_are_still_strings():
    assert strings([]).dtype.kind == "U"
