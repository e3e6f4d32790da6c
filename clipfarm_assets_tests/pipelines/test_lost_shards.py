"""Shards that are gone from the store: fused again, and the manifest leads to what is there."""

from collections import Counter

import numpy as np
import pytest

from clipfarm_assets.pipelines.upkeep.forget import forget_clip
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    TERMINAL_TEXT,
    Clip,
    clips,
    fuse,
    npy_key,
    prepared,
)
from clipfarm_assets_tests.pipelines.older import NEW, OLD, leave

# An older deployment's shards lie under the day of the run, later than any capture here.
RUN_DATE = "2026-02-20"


def mended(world, *dates):
    """Fuse again what is lost, merge, and see that every pointer leads to its clip."""
    reports = world.fuse(*dates, verify_objects=True)
    world.merge()
    for row in world.manifest_rows().values():
        world.fused_vector(row)
    return {date: report.reasons for date, report in reports.items()}


def lose(world, *keys):
    for key in keys:
        world.store.delete(key)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_lost_shards_of_an_older_deployment_are_replaced_for_good(world, kept):
    """By rows of an earlier date than theirs; and by no key that the manifest knows already."""
    leave(world, RUN_DATE)
    world.fill([*OLD, *NEW])
    world.embed_all(DAY_1, DAY_2)
    world.lock()
    world.fuse(DAY_1, DAY_2)
    world.merge()
    before = world.manifest_rows()
    vectors = {name: world.fused_vector(row) for name, row in before.items()}
    shards = world.shards()
    lose(world, *shards[kept:])

    reasons = mended(world, DAY_1, DAY_2)

    gone = sum(row["fused_key"] in shards[kept:] for row in before.values())
    assert sum(reasons.values(), start=Counter()) == {"object_missing": gone}
    assert not set(shards[kept:]) & set(world.shards())
    rows = world.manifest_rows()
    assert rows.keys() == before.keys()
    for name, row in rows.items():
        assert np.allclose(world.fused_vector(row), vectors[name], atol=1e-5)
    assert mended(world, DAY_1, DAY_2) == {DAY_1: {}, DAY_2: {}}


def test_a_lost_shard_whose_clips_had_to_wait_for_a_vector_is_replaced_too(world):
    """Why they are fused again is no longer that the shard is gone."""
    leave(world, RUN_DATE)
    world.embed_all()
    world.lock()
    world.merge()
    first = world.shards()[0]
    lost = [name for name, row in world.manifest_rows().items() if row["fused_key"] == first]
    lose(world, first, *(npy_key("video", name) for name in lost))

    assert fuse(world, verify_objects=True).statuses == {"missing_required_modality": len(lost)}
    world.embed("video", DAY_1, verify_objects=True)

    assert mended(world, DAY_1) == {DAY_1: {"unfinished": len(lost)}}
    assert mended(world, DAY_1) == {DAY_1: {}}


def test_a_placeholder_replaces_a_full_row_that_leads_nowhere(world):
    prepared(world, [Clip("one", text_state=TERMINAL_TEXT)])
    fuse(world)
    world.merge()
    lose(world, npy_key("text"), *world.shards())

    assert mended(world, DAY_1) == {DAY_1: {"object_missing": 2}}

    rows = world.manifest_rows()
    assert [rows[name]["text_present"] for name in ("aaa", "one")] == [1, 0]


def test_the_number_of_a_lost_shard_that_only_the_manifest_knows_is_not_given_again(world):
    """All its clips wait, so that the ledger names no shard."""
    prepared(world, clips(3))
    fuse(world)
    world.merge()
    (lost,) = world.shards()
    vectors = [info.key for info in world.store.list("clipfarm/embeddings/video/")]
    lose(world, lost, *vectors)
    assert fuse(world, verify_objects=True).statuses == {"missing_required_modality": 4}
    world.fill([Clip("aaa"), *clips(4)])
    world.embed_all(verify_objects=True)

    mended(world, DAY_1)

    (key,) = world.shards()
    assert key > lost
    assert len(world.manifest_rows()) == 5


def test_rows_that_nothing_replaces_stay(world):
    """They are a clip's only trace in the manifest, and its shard may be restored."""
    prepared(world, clips(3))
    fuse(world, shard_rows=2)
    world.merge()
    before = world.manifest_rows()
    kept, lost = world.shards()
    data = world.store.get(lost)
    lose(world, lost)
    world.fill([Clip("aaa"), *clips(4)])
    world.embed_all()
    fuse(world)
    world.merge()
    rows = world.manifest_rows()
    assert {name: rows[name] for name in before} == before

    world.store.put(lost, data)

    assert mended(world, DAY_1) == {DAY_1: {}}
    assert {row["fused_key"] for row in world.manifest_rows().values()} >= {kept, lost}


def test_what_is_left_of_a_shard_gets_no_number_of_a_lost_one(world):
    """A clip is forgotten while another shard is gone, whose rows would lead into what is left."""
    prepared(world, clips(3))
    fuse(world, shard_rows=2)
    world.merge()
    rewritten, lost = world.shards()
    lose(world, lost)

    forget_clip(world.deployment, "aaa")

    (key,) = world.shards()
    assert key > lost > rewritten
    keys = {name: row["fused_key"] for name, row in world.manifest_rows().items()}
    assert keys == {"clip-000": key, "clip-001": lost, "clip-002": lost}
    assert mended(world, DAY_1) == {DAY_1: {"object_missing": 2}}
    assert mended(world, DAY_1) == {DAY_1: {}}
