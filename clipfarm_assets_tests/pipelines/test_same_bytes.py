"""Same input, same bytes: whatever the batch size, the workers, the resume point."""

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
        world.embed("video", batch_size=1, workers=1)
        return vectors(world)


def test_the_reference_is_each_clips_own_vector(reference):
    assert len(reference) == len(GOOD)
    for clip in GOOD:
        stored = npy_to_vector(reference[f"clipfarm/embeddings/video/{clip.video_id}.npy"])
        expected = hash_vector(version_of("video"), clip.raw("video"), f"title of {clip.video_id}")
        assert (stored == expected).all()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batch_size_and_workers_change_no_byte(world, reference, batch_size, workers):
    world.fill(SOME)
    world.embed("video", batch_size=batch_size, workers=workers)

    assert vectors(world) == reference


@pytest.mark.parametrize("batch_size", [1, 3, 8])
@pytest.mark.parametrize("nth", [2, 8, 14])
def test_a_run_stopped_half_way_and_resumed_changes_no_byte(
    world, reference, monkeypatch, batch_size, nth
):
    world.fill(SOME)
    put, calls = ObjectStore.put, []

    def full(store, key, data):
        calls.append(key)
        if len(calls) == nth:
            msg = "no space left on device"
            raise OSError(msg)
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put", full)
    with pytest.raises(OSError, match="no space"):
        world.embed("video", batch_size=batch_size)
    monkeypatch.undo()
    committed = set(world.states("video_embedding"))

    report = world.embed("video", batch_size=5)[DAY_1]

    assert vectors(world) == reference
    # At most one batch is done twice.
    done = {clip.video_id for clip in GOOD} & committed
    assert nth - 1 - len(done) <= batch_size
    assert report.statuses["success"] == len(GOOD) - len(done)
