import json
from dataclasses import replace

import pytest

from clipfarm_assets.contracts.schema_lock import (
    UNVERSIONED,
    BadLock,
    Difference,
    LockMismatch,
    SchemaLock,
    differences,
    fused_dim,
    mismatch,
    resolve,
    verify,
    verify_dims,
    with_adopted,
)
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets_tests.contracts.builders import DIMS, VERSIONS, make_lock

# The fields of the fusion contract, section 8.3, as an older deployment wrote them.
OLDER = {
    "fusion_strategy": "concat",
    "video_dim": 768,
    "audio_dim": 768,
    "text_dim": 768,
    "fused_dim": 2305,
    "mask_appended": True,
    "updated_at": "2026-02-05T00:00:00+00:00",
}
ADOPTED = {"video": "video-a"}


@pytest.mark.parametrize(
    ("strategy", "dims", "append_mask", "expected"),
    [
        ("concat", (768, 768, 768), True, 2305),
        ("sum_pool", (768, 768, 768), True, 769),
        ("max_pool", (768, 768, 768), True, 769),
        ("concat", (5, 3, 4), True, 13),
        ("concat", (5, 3, 4), False, 12),
        ("sum_pool", (5, 3, 4), False, 5),
        ("sum_pool", (3, 4, 5), True, 6),
        ("max_pool", (3, 5, 4), True, 6),
    ],
)
def test_fused_dim(strategy, dims, append_mask, expected):
    named = dict(zip(("video_dim", "audio_dim", "text_dim"), dims, strict=True))
    found = fused_dim(strategy, **named, append_mask=append_mask)
    assert found == expected
    versions = dict.fromkeys(MODALITIES, "v")
    lock = SchemaLock.of(
        strategy, dict(zip(MODALITIES, dims, strict=True)), versions, append_mask=append_mask
    )
    assert lock.fused_dim == expected
    assert tuple(lock.dim(modality) for modality in MODALITIES) == dims
    assert (lock.lock_version, lock.id, lock.mask_appended) == (1, "lock-1", append_mask)


def test_fused_dim_refuses_an_unknown_strategy():
    with pytest.raises(ValueError, match="'mean': expected one of concat, sum_pool, max_pool"):
        fused_dim("mean", video_dim=1, audio_dim=1, text_dim=1)


def test_bytes():
    lock = make_lock(
        embedding_versions={"video": "video-a", "text": "text-a", "audio": "audio-a"},
        lock_version=2,
    )
    assert lock.to_json() == (
        b"{\n"
        b'  "fusion_strategy": "concat",\n'
        b'  "video_dim": 3,\n'
        b'  "audio_dim": 2,\n'
        b'  "text_dim": 2,\n'
        b'  "fused_dim": 8,\n'
        b'  "mask_appended": true,\n'
        b'  "updated_at": "2026-02-05T00:00:00+00:00",\n'
        b'  "lock_version": 2,\n'
        b'  "embedding_versions": {\n'
        b'    "audio": "audio-a",\n'
        b'    "text": "text-a",\n'
        b'    "video": "video-a"\n'
        b"  }\n"
        b"}\n"
    )


@pytest.mark.parametrize("strategy", ["concat", "sum_pool", "max_pool"])
def test_round_trip(strategy):
    lock = make_lock(strategy, lock_version=3)
    assert SchemaLock.from_json(lock.to_json()) == lock


def test_an_older_deployments_lock_is_version_1_of_unversioned_vectors():
    lock = SchemaLock.from_json(json.dumps(OLDER).encode())
    assert lock == SchemaLock(
        **OLDER,
        lock_version=1,
        embedding_versions={"video": UNVERSIONED, "audio": UNVERSIONED, "text": UNVERSIONED},
    )
    # Rewritten, it keeps its seven fields as they were.
    assert json.loads(lock.to_json()).items() >= OLDER.items()


@pytest.mark.parametrize("name", OLDER)
def test_refuses_a_missing_field(name):
    body = {key: value for key, value in OLDER.items() if key != name}
    with pytest.raises(BadLock, match=rf"^k: {name} must be of type \w+: found nothing$"):
        SchemaLock.from_json(json.dumps(body).encode(), "k")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fusion_strategy", 1, "fusion_strategy must be of type str: found 1"),
        (
            "fusion_strategy",
            "mean",
            "fusion_strategy must be one of concat, sum_pool, max_pool: found 'mean'",
        ),
        ("video_dim", "768", "video_dim must be of type int: found '768'"),
        ("video_dim", 768.0, "video_dim must be of type int: found 768.0"),
        ("audio_dim", True, "audio_dim must be of type int: found True"),
        ("text_dim", None, "text_dim must be of type int: found None"),
        ("text_dim", 0, "text_dim must be between 1 and 1000000: found 0"),
        ("text_dim", -768, "text_dim must be between 1 and 1000000: found -768"),
        ("fused_dim", 10**9, "fused_dim must be between 1 and 1000000: found 1000000000"),
        ("mask_appended", 1, "mask_appended must be of type bool: found 1"),
        ("mask_appended", "true", "mask_appended must be of type bool: found 'true'"),
        ("updated_at", None, "updated_at must be of type str: found None"),
        ("updated_at", 1770249600, "updated_at must be of type str: found 1770249600"),
        # Each contradicts the others.
        ("video_dim", 384, "its dimensions give fused_dim 1921, it says 2305"),
        ("fused_dim", 2304, "its dimensions give fused_dim 2305, it says 2304"),
        ("mask_appended", False, "its dimensions give fused_dim 2304, it says 2305"),
        ("fusion_strategy", "sum_pool", "its dimensions give fused_dim 769, it says 2305"),
    ],
)
def test_refuses_a_wrong_field(name, value, message):
    with pytest.raises(BadLock, match=f"^schema.json.*{message}$"):
        SchemaLock.from_json(json.dumps({**OLDER, name: value}).encode())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lock_version": 0}, "lock_version counts from 1: found 0"),
        ({"lock_version": "2"}, "lock_version must be of type int: found '2'"),
        ({"lock_version": True}, "lock_version must be of type int: found True"),
        # Either field alone: not an older deployment's lock but a damaged one of ours.
        ({"lock_version": None}, "lock_version must be of type int: found nothing"),
        ({"embedding_versions": None}, "must name one version each.*: found None"),
        ({"embedding_versions": {"video": "a", "audio": "b"}}, "one version each of video, audio"),
        ({"embedding_versions": {**VERSIONS, "image": "d"}}, "one version each"),
        ({"embedding_versions": {**VERSIONS, "text": 3}}, "one version each"),
        ({"embedding_versions": {**VERSIONS, "text": ""}}, "one version each"),
        ({"embedding_versions": ["a", "b", "c"]}, "one version each"),
    ],
)
def test_refuses_wrong_versions(changes, message):
    body = {**OLDER, "lock_version": 2, "embedding_versions": VERSIONS, **changes}
    body = {name: value for name, value in body.items() if value is not None}
    with pytest.raises(BadLock, match=message):
        SchemaLock.from_json(json.dumps(body).encode())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "^k is not JSON .*; restore it from a backup or an archive beside it$"),
        (b'{"fusion_strategy": "con', "^k is not JSON"),
        (b"\xff\xfe\x00", "^k is not JSON"),
        (b"[" * 100_000, "^k is not JSON"),
        (b"[]", "^k must be a JSON object: found a list$"),
        (b"null", "^k must be a JSON object: found a NoneType$"),
    ],
)
def test_refuses_what_is_no_lock(data, message):
    with pytest.raises(BadLock, match=message):
        SchemaLock.from_json(data, "k")


def test_no_differences():
    lock = make_lock()
    assert differences(lock, replace(lock, updated_at="later", lock_version=9)) == []
    verify(lock, lock)


def test_differences_come_in_the_locks_order_with_both_values():
    found = SchemaLock.of(
        "max_pool",
        {"video": 4, "audio": 5, "text": 6},
        {**VERSIONS, "audio": "audio-b", "text": "text-b"},
        append_mask=False,
    )
    assert differences(make_lock(), found) == [
        Difference("fusion_strategy", "concat", "max_pool"),
        Difference("video_dim", 3, 4),
        Difference("audio_dim", 2, 5),
        Difference("text_dim", 2, 6),
        Difference("fused_dim", 8, 6),
        Difference("mask_appended", True, False),
        Difference("embedding_versions.audio", "audio-a", "audio-b"),
        Difference("embedding_versions.text", "text-a", "text-b"),
    ]


def assert_tells(error, name, locked, found):
    sentence = str(error)
    assert f"{name} is locked to {locked!r} but {found!r} was found" in sentence
    assert sentence.startswith("schema lock of 'concat' (version 1): ")
    assert "materialise clips/schema_lock for partition 'concat'" in sentence
    assert "{migrate: true}" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fusion_strategy": "sum_pool"}, ("fusion_strategy", "concat", "sum_pool")),
        ({"video_dim": 4, "fused_dim": 9}, ("video_dim", 3, 4)),
        ({"audio_dim": 4}, ("audio_dim", 2, 4)),
        ({"text_dim": 1}, ("text_dim", 2, 1)),
        ({"fused_dim": 7}, ("fused_dim", 8, 7)),
        ({"mask_appended": False}, ("mask_appended", True, False)),
        (
            {"embedding_versions": {**VERSIONS, "video": "video-b"}},
            ("embedding_versions.video", "video-a", "video-b"),
        ),
        (
            {"embedding_versions": {**VERSIONS, "text": UNVERSIONED}},
            ("embedding_versions.text", "text-a", "unversioned"),
        ),
    ],
)
def test_verify_names_field_values_and_the_way_out(change, told):
    lock = make_lock()
    with pytest.raises(LockMismatch) as raised:
        verify(lock, replace(lock, **change))
    assert_tells(raised.value, *told)


@pytest.mark.parametrize("modality", MODALITIES)
def test_verify_dims(modality):
    lock = make_lock()
    verify_dims(lock, modality, DIMS[modality])
    with pytest.raises(LockMismatch) as raised:
        verify_dims(lock, modality, 384)
    assert_tells(raised.value, f"{modality}_dim", DIMS[modality], 384)


def test_mismatch_names_the_version_in_force():
    sentence = str(mismatch(make_lock(lock_version=4), Difference("text_dim", 2, 3)))
    assert sentence.startswith("schema lock of 'concat' (version 4): text_dim is locked to 2")


@pytest.mark.parametrize(
    ("version", "modality", "adopted", "expected"),
    [
        ("video-b", "video", ADOPTED, "video-b"),
        (UNVERSIONED, "video", ADOPTED, "video-a"),
        (None, "video", ADOPTED, "video-a"),
        (UNVERSIONED, "audio", ADOPTED, UNVERSIONED),
        (None, "audio", ADOPTED, UNVERSIONED),
        (None, "video", {}, UNVERSIONED),
    ],
)
def test_resolve(version, modality, adopted, expected):
    assert resolve(version, modality, adopted) == expected


def test_unversioned_vectors_are_of_the_adopted_version_and_no_other():
    older = make_lock(embedding_versions=dict.fromkeys(MODALITIES, UNVERSIONED))
    newer = make_lock(embedding_versions={**older.embedding_versions, "video": "video-a"})
    # Both ways: an older lock with newer vectors, a named lock with older vectors.
    for lock, found in ((older, newer), (newer, older)):
        verify(lock, found, ADOPTED)
        assert [d.name for d in differences(lock, found)] == ["embedding_versions.video"]
        assert [d.name for d in differences(lock, found, {"video": "video-z"})] == [
            "embedding_versions.video"
        ]
        # Adopted for one modality says nothing of the others.
        assert len(differences(lock, found, {"audio": "video-a"})) == 1


def test_with_adopted_names_what_was_unversioned_and_nothing_else():
    lock = make_lock(
        embedding_versions={"video": UNVERSIONED, "audio": "audio-a", "text": UNVERSIONED}
    )
    named = with_adopted(lock, {"video": "video-a", "audio": "audio-z"})
    assert named.embedding_versions == {
        "video": "video-a",
        "audio": "audio-a",
        "text": UNVERSIONED,
    }
    assert replace(named, embedding_versions=lock.embedding_versions) == lock
    assert with_adopted(lock, {}) == lock
    assert with_adopted(named, {"video": "video-z"}) == named
