"""Same input, same bytes: whatever the batch size, the groups, the workers, the resume point."""

import itertools

import pytest

from clipfarm_assets.storage.npy import npy_to_vector
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    REFUSED,
    Clip,
    World,
    clips,
    door,
    hash_vector,
    version_of,
)

# Clips that drop out of their batch at every step of the way stand among the others.
SOME = [
    *clips(7, prefix="a"),
    Clip("b-absent", video=None),
    Clip("b-corrupt", video=CORRUPT),
    Clip("b-refused", video=REFUSED),
    *clips(8, prefix="c"),
]
GOOD = [clip for clip in SOME if not clip.video_id.startswith("b-")]


def vectors(world):
    return world.objects("clipfarm/embeddings/video")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """One item at a time, in one thread."""
    with World(tmp_path_factory.mktemp("reference")) as world:
        world.fill(SOME)
        each = ("fetch_workers", "workers", "encode_workers", "put_workers", "batch_size")
        world.embed("video", **dict.fromkeys(each, 1))
        return vectors(world)


def test_the_reference_is_each_clips_own_vector(reference):
    assert len(reference) == len(GOOD)
    for clip in GOOD:
        stored = npy_to_vector(reference[f"clipfarm/embeddings/video/{clip.video_id}.npy"])
        expected = hash_vector(version_of("video"), clip.raw("video"), f"title of {clip.video_id}")
        assert (stored == expected).all()


EACH_WORKERS = [
    dict(zip(("fetch_workers", "workers", "encode_workers", "put_workers"), counts, strict=True))
    for counts in itertools.product((1, 3), repeat=4)
]


@pytest.mark.parametrize("workers", EACH_WORKERS, ids=lambda w: "-".join(map(str, w.values())))
@pytest.mark.parametrize(("batch_size", "group_size"), [(1, 1), (3, 4), (8, 2), (8, 64)])
def test_no_number_of_anything_changes_a_byte(world, reference, batch_size, group_size, workers):
    world.fill(SOME)
    by = door("video", group_size=group_size)
    report = world.embed("video", by=by, batch_size=batch_size, prefetch_mib=1, **workers)[DAY_1]

    assert vectors(world) == reference
    assert report.statuses == {"success": len(GOOD), "fail": 2, "missing_raw_object": 1}
    assert max(by.encoder.batches) <= group_size


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("nth", [2, 8, 14])
def test_a_run_stopped_half_way_and_resumed_changes_no_byte(
    world, reference, monkeypatch, batch_size, nth
):
    world.fill(SOME)
    put, calls = ObjectStore.put, itertools.count(1)

    def full(store, key, data):
        if next(calls) == nth:
            msg = "no space left on device"
            raise OSError(msg)
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put", full)
    with pytest.raises(OSError, match="no space"):
        world.embed("video", batch_size=batch_size)
    monkeypatch.undo()
    committed = set(world.states("video_embedding"))
    stored = len(vectors(world))

    report = world.embed("video", batch_size=5)[DAY_1]

    assert vectors(world) == reference
    # At most one batch is done twice.
    done = {clip.video_id for clip in GOOD} & committed
    assert stored - len(done) <= batch_size
    assert report.statuses["success"] == len(GOOD) - len(done)
