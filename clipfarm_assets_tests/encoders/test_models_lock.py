import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from clipfarm_assets.encoders.base import EmbeddingVersion, ModelMismatch
from clipfarm_assets.encoders.models_lock import LockedModel, ModelsLock
from clipfarm_assets.storage.objects import ObjectStore

KEY = "clipfarm/models.lock.json"
VERSION = EmbeddingVersion(
    modality="video",
    model_name="some/model",
    model_revision="a" * 40,
    weights_sha256="b" * 64,
    preprocess_version="video-1",
    params={"num_frames": 16, "pooling": "first_token"},
    dim=768,
)


@pytest.fixture
def store(tmp_path):
    return ObjectStore.open(str(tmp_path))


@pytest.fixture
def lock(store):
    return ModelsLock(store, KEY)


def record(lock, revision="a" * 40, weights="b" * 64, name="some/model"):
    lock.record_model("video", name, "main", revision=revision, weights_sha256=weights)


def test_an_absent_lock_is_empty_and_reading_creates_nothing(store, lock):
    assert lock.model("video", "some/model", "main") is None
    assert lock.version(VERSION.id) is None
    assert lock.adopted() == {}
    with pytest.raises(FileNotFoundError):
        store.get(KEY)


def test_what_is_recorded_is_found_by_another_reader(store, lock):
    record(lock)
    lock.record_version(VERSION)
    other = ModelsLock(store, KEY)
    assert other.model("video", "some/model", "main") == LockedModel("a" * 40, "b" * 64)
    assert other.model("audio", "some/model", "main") is None
    assert other.version(VERSION.id) == VERSION
    assert other.adopted() == {}


def test_recording_again_leaves_the_bytes(store, lock):
    record(lock)
    lock.record_version(VERSION)
    before = store.get_versioned(KEY)
    record(lock)
    lock.record_version(VERSION)
    assert store.get_versioned(KEY) == before


@pytest.mark.parametrize(("revision", "weights"), [("a" * 40, "c" * 64), ("d" * 40, "b" * 64)])
def test_another_hash_or_revision_is_refused(store, lock, revision, weights):
    record(lock)
    before = store.get(KEY)
    with pytest.raises(ModelMismatch) as raised:
        record(lock, revision, weights)
    message = str(raised.value)
    assert f"expects video model some/model at main to be revision {'a' * 40}" in message
    assert f"found revision {revision} with weights sha256 {weights}" in message
    assert "restore the recorded files, or give the new model another name" in message
    assert store.get(KEY) == before


def test_adoption_is_once_and_for_real_models(store, lock):
    with pytest.raises(ModelMismatch, match=r"a stand-in model .* must not be mixed"):
        lock.adopt("video", VERSION, is_stand_in=True)
    assert lock.adopted() == {}

    lock.adopt("video", VERSION, is_stand_in=False)
    before = store.get(KEY)
    lock.adopt("video", VERSION, is_stand_in=False)
    assert store.get(KEY) == before
    assert lock.adopted() == {"video": VERSION.id}
    assert lock.version(VERSION.id) == VERSION

    other = replace(VERSION, params={"num_frames": 8, "pooling": "first_token"})
    with pytest.raises(ModelMismatch, match=f"to be {VERSION.id}, but found {other.id}"):
        lock.adopt("video", other, is_stand_in=False)
    with pytest.raises(ValueError, match="version of modality audio"):
        lock.adopt("audio", VERSION, is_stand_in=False)
    assert store.get(KEY) == before


def test_concurrent_writers_lose_nothing(tmp_path):
    def write(index):
        record(ModelsLock(ObjectStore.open(str(tmp_path)), KEY), name=f"some/model-{index}")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(16)))
    lock = ModelsLock(ObjectStore.open(str(tmp_path)), KEY)
    assert all(lock.model("video", f"some/model-{index}", "main") for index in range(16))


def valid():
    return {
        "models": {"video|m|main": {"revision": "r", "weights_sha256": "w"}},
        "versions": {VERSION.id: VERSION.to_dict()},
        "adopted": {"video": VERSION.id},
    }


def test_the_valid_form_is_read(store, lock):
    store.put(KEY, json.dumps(valid()).encode())
    assert lock.adopted() == {"video": VERSION.id}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["extra"], {}),
        (["models"], []),
        (["models", "video|m|main"], {"revision": "r"}),
        (["models", "video|m|main", "revision"], 3),
        (["models", "video|m|main", "weights_sha256"], ""),
        (["versions", VERSION.id, "dim"], 512),
        (["versions", VERSION.id, "dim"], "768"),
        (["versions", VERSION.id, "modality"], "smell"),
        (["versions", VERSION.id, "note"], "x"),
        (["versions", "video-0000000000000000"], VERSION.to_dict()),
        (["adopted", "video"], "video-0000000000000000"),
        (["adopted", "video"], None),
        (["adopted", "audio"], VERSION.id),
    ],
)
def test_a_malformed_lock_is_refused(store, lock, path, value):
    data = valid()
    target = data
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    store.put(KEY, json.dumps(data).encode())
    for call in (lock.adopted, lambda: record(lock), lambda: lock.record_version(VERSION)):
        with pytest.raises(ValueError, match=r"is malformed: expected .*, found .*; restore it"):
            call()


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(store, lock, content):
    store.put(KEY, content)
    with pytest.raises(ValueError, match="is malformed"):
        lock.adopted()
