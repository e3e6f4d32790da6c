"""What an older deployment's vectors are taken to be: looked at before, and for good."""

from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.pipelines.embed import EncoderBroken
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, door, npy_key, version_of
from clipfarm_assets_tests.pipelines.older import MODALITIES, NEW, OLD, npy


def adopting(world, *, dates=(DAY_2,), modality="video", by=None):
    """A run that has something new to embed, so that the old vectors' encoder must be named."""
    world.fill([*OLD, *NEW])
    return world.embed(modality, *dates, by=by)


def test_an_encoder_that_makes_other_vectors_adopts_none(world, kept):
    with pytest.raises(ModelMismatch, match=r"cosine of 0\.99 or more.*CLIPFARM_VIDEO_MODEL"):
        adopting(world, by=door("video", "other"))

    lock = world.deployment.models_lock()
    assert (lock.adopted(), lock.versions()) == ({}, {})
    assert world.objects("clipfarm/embeddings") == kept.vectors
    assert not any(i.startswith("new") for i in world.states("video_embedding"))
    adopting(world)
    assert lock.adopted() == {"video": version_of("video").id}


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_was_compared_is_said(world, kept, modality):
    by = door(modality)
    adopting(world, modality=modality, by=by)

    sample = sorted(c.video_id for c in OLD if getattr(c, modality) is not None)[:3]
    (line,) = (line for line in world.said if "older deployment" in line)
    assert "3 of 3 are the same" in line
    assert all(f"{video_id} 1.0000" in line for video_id in sample)
    assert by.encoder.prepared[:3] == sample
    assert by.opened == 1


def test_an_encoder_of_another_dimension_is_refused_without_a_try(world, kept):
    world.store.delete("clipfarm/raw/video/mute-000.mp4")  # not even that is needed
    by = door("video", dim=7)

    with pytest.raises(ModelMismatch, match=r"its encoder to give 6 values.*found 7 values"):
        adopting(world, by=by)

    assert by.encoder.prepared == []


@pytest.mark.parametrize(("changed", "fine"), [(1, True), (2, False)])
def test_the_majority_of_those_compared_decides(world, kept, changed, fine):
    """A raw object may have been replaced since; one odd vector says nothing, two do."""
    for video_id in sorted(c.video_id for c in OLD)[:changed]:
        world.store.put(npy_key("video", video_id), npy(np.eye(6, dtype=np.float32)[0]))
    if fine:
        adopting(world)
        assert any("2 of 3 are the same" in line for line in world.said)
    else:
        with pytest.raises(ModelMismatch, match="older deployment"):
            adopting(world)


def test_clips_that_cannot_be_made_again_are_passed_over(world, kept):
    ids = sorted(c.video_id for c in OLD)
    world.store.put(npy_key("video", ids[0]), b"no vector")
    world.store.delete(npy_key("video", ids[1]))
    world.fill([*OLD, *NEW])
    world.store.delete(f"clipfarm/raw/video/{ids[2]}.mp4")
    world.store.put(f"clipfarm/raw/video/{ids[3]}.mp4", b"corrupt")
    world.store.put(f"clipfarm/raw/video/{ids[4]}.mp4", b"bug")

    world.embed("video", DAY_2)

    (line,) = (line for line in world.said if "older deployment" in line)
    assert f"1 of 1 are the same (cosines: {ids[5]} 1.0000)" in line


def test_another_precision_adopts_none(world, kept):
    by = door("video")
    by.encoder.version = replace(by.encoder.version, params={"precision": "bf16"})
    with pytest.raises(ModelMismatch, match="run once with precision exact"):
        adopting(world, by=by)
    assert world.deployment.models_lock().adopted() == {}


def test_with_nothing_left_to_compare_they_are_adopted_and_it_is_said(world, kept):
    world.fill([*OLD, *NEW])
    for clip in OLD:
        world.store.delete(f"clipfarm/raw/video/{clip.video_id}.mp4")

    world.embed("video", DAY_2, by=door("video", "any"))

    assert world.deployment.models_lock().adopted() == {"video": version_of("video", "any").id}
    assert any("unseen: none of the first 6 has a raw object left" in line for line in world.said)


def test_a_broken_encoder_adopts_nothing(world, kept):
    by = door("video")

    def lost(source, deadline):
        raise ImportError("no module named av")

    by.encoder.prepare = lost
    with pytest.raises(EncoderBroken, match="could make none of the older deployment's vectors"):
        adopting(world, by=by)
    assert world.deployment.models_lock().adopted() == {}


def test_clips_that_only_wait_adopt_nothing(world, kept):
    """Adopting is for good, and for waiting no encoder is needed."""
    by = door("text", "any")

    report = world.embed("text", DAY_1, by=by)[DAY_1]

    assert report.statuses == {"missing_raw_object": 1}
    assert (by.opened, world.deployment.models_lock().adopted()) == (0, {})
