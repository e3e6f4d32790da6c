"""Taking over the bucket of an older deployment."""

import json
from collections import Counter

import numpy as np
import pytest

from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.pipelines.embedding_manifest import embedding_manifest
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    FUSED_DIM,
    clips,
    door,
    version_of,
)
from clipfarm_assets_tests.pipelines.older import MODALITIES, NEW, OLD, old_vector


def embed(world, dates, revision="r1", modalities=MODALITIES, **settings):
    doors = {m: door(m, revision, **settings) for m in modalities}
    reports = {m: world.embed(m, *dates, by=by) for m, by in doors.items()}
    return reports, doors


def work_of(reports):
    """Reasons by modality, over all dates."""
    return {
        modality: sum((report.reasons for report in by_date.values()), start=Counter())
        for modality, by_date in reports.items()
    }


def test_nothing_is_embedded_or_fused_again(world, kept):
    before = world.objects()

    # The clip without captions is waited for, as ever; all others are settled.
    reports, doors = embed(world, [DAY_1], modalities=("video", "audio"))
    assert [r[DAY_1].worked_on for r in reports.values()] == [0, 0]
    assert [by.opened for by in doors.values()] == [0, 0]
    outcome = world.lock()
    assert (outcome.what, outcome.changes) == ("verified", ())
    fused = world.fuse(DAY_1)
    assert (fused[DAY_1].considered, fused[DAY_1].worked_on) == (6, 0)
    update = world.merge()
    assert (update.new_shards, update.undeclared) == ((), ())
    assert len(update.read_back) == 3

    after = world.objects()
    changed = {key for key in after if after[key] != before.get(key)}
    # The published states gain the columns that the documented schema has by now.
    assert {key for key in changed if not key.startswith("clipfarm/state/")} == set()
    assert before.keys() <= after.keys()
    for row in world.manifest_rows().values():
        expected = [old_vector("video", row["video_id"]), old_vector("audio", row["video_id"])]
        assert (world.fused_vector(row)[: 6 + 4] == np.concatenate(expected)).all()


def test_new_clips_join_the_same_manifest(world, kept):
    world.fill([*OLD, *NEW])

    reports, _ = embed(world, [DAY_1, DAY_2])
    assert work_of(reports) == {
        "video": {"new": 3},
        "audio": {"new": 3},
        "text": {"new": 3, "unfinished": 1},
    }
    outcome = world.lock()
    assert outcome.what == "named"
    assert outcome.lock.embedding_versions == {m: version_of(m).id for m in MODALITIES}
    assert outcome.lock.lock_version == 1
    fused = world.fuse(DAY_1, DAY_2)
    assert (fused[DAY_1].worked_on, fused[DAY_2].statuses) == (0, {"success_full": 3})
    update = world.merge()

    assert update.new_shards == (f"clipfarm/fused/concat/shards/date={DAY_2}/part-0000.npz",)
    assert update.undeclared == ()
    rows = world.manifest_rows()
    assert sorted(rows) == sorted(c.video_id for c in [*OLD, *NEW])
    for row in rows.values():
        assert len(world.fused_vector(row)) == FUSED_DIM
    assert world.lock().what == "verified"
    assert {k: world.store.get(k) for k in kept.vectors} == kept.vectors
    assert {k: world.store.get(k) for k in kept.shards} == kept.shards


def test_new_shards_of_an_old_date_take_the_next_number(world, kept):
    late = clips(1, DAY_1, "late")
    world.fill([*OLD, *late])
    embed(world, [DAY_1])
    world.lock()
    world.fuse(DAY_1)
    world.merge()

    assert world.shards()[-1] == f"clipfarm/fused/concat/shards/date={DAY_1}/part-0003.npz"
    assert {k: world.store.get(k) for k in kept.shards} == kept.shards
    assert world.manifest_rows()["late-000"]["fused_key"] == world.shards()[-1]


def test_an_old_placeholder_is_upgraded_when_its_words_arrive(world, kept):
    arrived = clips(1, DAY_1, "mute")
    world.fill([*OLD[:-1], *arrived])

    embed(world, [DAY_1])
    world.lock()
    reports = world.fuse(DAY_1)
    world.merge()

    assert reports[DAY_1].reasons == {"text_arrived": 1}
    row = world.manifest_rows()["mute-000"]
    assert (row["fusion_status"], row["text_present"]) == ("success_full", 1)
    assert world.fused_vector(row)[-1] == 1.0


def test_the_first_encoder_is_taken_to_be_the_old_one(world, kept):
    world.fill([*OLD, *NEW])
    embed(world, [DAY_2])

    adopted = world.deployment.models_lock().adopted()
    assert adopted == {m: version_of(m).id for m in MODALITIES}
    # The manifest of embeddings tells what is known and what isn't.
    table = embedding_manifest(world.deployment, world.index(DAY_1)[DAY_1]).to_pylist()
    by_key = {(row["video_id"], row["modality"]): row for row in table}
    assert by_key["old-000", "video"]["model_name"] == "hash"
    assert by_key["mute-000", "text"]["model_name"] is None


def test_before_an_encoder_is_adopted_the_manifest_says_it_does_not_know(world, kept):
    embed(world, [DAY_1], modalities=("video",))

    table = embedding_manifest(world.deployment, world.index(DAY_1)[DAY_1]).to_pylist()

    assert {row["model_version"] for row in table} == {"not recorded (older deployment)"}
    assert {row["embedding_dim"] for row in table} == {None}


@pytest.mark.parametrize("dates", [[DAY_1], [DAY_2], [DAY_1, DAY_2]])
def test_a_later_encoder_takes_the_old_clips_on_again(world, kept, dates):
    """Also on dates where every row is an old, unversioned one."""
    world.fill([*OLD, *NEW])
    embed(world, [DAY_2])

    reports, _ = embed(world, dates, "r2", modalities=("video",))

    again = len(OLD) * (DAY_1 in dates) + len(NEW) * (DAY_2 in dates)
    assert work_of(reports)["video"] == {"version_changed": again}
    versions = {i: item.version for i, item in world.states("video_embedding").items()}
    assert sum(version == version_of("video", "r2").id for version in versions.values()) == again
    with pytest.raises(LockMismatch, match=r"embedding_versions\.video"):
        world.lock()


def test_a_stand_in_is_refused_before_it_touches_a_vector(world, kept):
    world.fill([*OLD, *NEW])

    with pytest.raises(ModelMismatch, match="CLIPFARM_ENCODERS=pretrained"):
        embed(world, [DAY_1, DAY_2], modalities=("video",), is_stand_in=True)

    assert world.objects("clipfarm/embeddings") == kept.vectors
    assert world.deployment.models_lock().adopted() == {}
    # A real encoder is still free to be the one.
    reports, _ = embed(world, [DAY_1, DAY_2], modalities=("video",))
    assert work_of(reports)["video"] == {"new": 3}


def test_a_lock_that_contradicts_the_old_vectors_is_not_accepted(world, kept):
    key = "clipfarm/fused/concat/schema.json"
    lock = json.loads(world.store.get(key)) | {"video_dim": 7, "fused_dim": FUSED_DIM + 1}
    world.store.put(key, json.dumps(lock).encode())

    with pytest.raises(LockMismatch, match=r"video_dim is locked to 7 but 6 was found"):
        world.lock()


def test_going_over_to_another_encoder_archives_what_was(world, kept):
    world.fill([*OLD, *NEW])
    embed(world, [DAY_1, DAY_2])
    world.lock()
    world.fuse(DAY_1, DAY_2)
    world.merge()
    old_manifest = world.store.get("clipfarm/fused/concat/fused_manifest.parquet")
    embed(world, [DAY_1, DAY_2], "r2")

    outcome = world.lock(migrate=True)
    assert (outcome.what, outcome.lock.lock_version) == ("migrated", 2)
    reports = world.fuse(DAY_1, DAY_2)
    assert reports[DAY_1].reasons["version_changed"] == len(OLD)
    world.merge()

    assert world.store.get("clipfarm/fused/concat/fused_manifest.v1.parquet") == old_manifest
    assert {k: world.store.get(k) for k in kept.shards} == kept.shards
    rows = world.manifest_rows()
    assert len(rows) == len(OLD) + len(NEW)
    assert not {row["fused_key"] for row in rows.values()} & kept.shards.keys()
