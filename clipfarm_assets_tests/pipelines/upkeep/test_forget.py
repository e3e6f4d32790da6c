"""A forgotten clip is gone from everything of ours, and no run brings it back."""

import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.ledger.leases import LeaseHeld
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.pipelines.upkeep.forget import UnknownClip, find_clip, forget_clip
from clipfarm_assets.pipelines.upkeep.orphans import find_orphans
from clipfarm_assets.storage.layout import BadVideoId
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.training.snapshot import SnapshotId, publish
from clipfarm_assets_tests.pipelines import older
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    MANIFEST,
    Clip,
    World,
    clips,
    timeless,
)
from clipfarm_assets_tests.pipelines.upkeep.kit import (
    DATES,
    LATE_WORDS,
    SOME,
    base_ids,
    copied,
    files,
    ids_of,
    publish_tables,
    tomorrow,
)

STAGES = ("video_embedding", "audio_embedding", "text_embedding", "fusion_concat")
NOT_OURS = ("/raw/", "/metadata/", "text_downloader")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Shards of several rows, and the tables; not to be written."""
    root = tmp_path_factory.mktemp("wide")
    with World(root) as world:
        world.fill(SOME)
        world.all_of_it(*DATES, shard_rows=3)
        publish_tables(world)
    return root


@pytest.fixture
def world(wide, tmp_path):
    with copied(wide, tmp_path / "world") as world:
        yield world


def traces(world, video_id):
    """Where the clip is in what is ours: keys, and rows of whatever has rows."""
    found = []
    for key, data in world.objects().items():
        if any(part in key for part in NOT_OURS):
            continue
        if video_id in key:
            found.append(key)
        if key.endswith(".parquet"):
            found += [key] * (video_id in ids_of(data) or video_id.encode() in data[-4000:])
        elif key.endswith(".npz"):
            found += [key] * (video_id in FusedShard.from_npz(data, key).video_ids.tolist())
        elif key.endswith(".sqlite"):
            item = sqlite_to_items(data, key).get(video_id)
            found += [key] * (item is not None and item.status != "forgotten")
    return found


def vectors(world, without=""):
    """What every pointer of the manifest leads to."""
    rows = load_manifest(world.deployment, "concat").rows.to_pylist()
    assert not any(row["video_id"] == without for row in rows)
    return {row["video_id"]: world.fused_vector(row).tolist() for row in rows}


def test_nothing_is_left_but_the_tombstone(world):
    before, states = vectors(world), {stage: timeless(world.states(stage)) for stage in STAGES}
    assert traces(world, "a-001")

    done = forget_clip(world.deployment, "a-001")

    assert traces(world, "a-001") == []
    del before["a-001"]
    assert vectors(world, without="a-001") == before
    for stage in STAGES:
        now = timeless(world.states(stage))
        item = now.pop("a-001")
        assert (item.status, item.source_hash, item.artifact_key) == ("forgotten", "", None)
        assert (item.error, item.details, item.content_sha256) == (None, {}, None)
        was = {i: it for i, it in states[stage].items() if i != "a-001"}
        if stage == "fusion_concat":
            keys = {i: it.artifact_key for i, it in now.items()}
            assert keys == {i: row["fused_key"] for i, row in world.manifest_rows().items()}
            was = {i: replace(it, artifact_key=keys[i]) for i, it in was.items()}
        assert now == was
        published = world.store.get(world.layout.state(stage))
        assert sqlite_to_items(published, stage) == world.states(stage)

    assert done.before.states == dict.fromkeys(STAGES[:3], "success") | {
        "fusion_concat": "success_full"
    }
    assert len(done.before.tables) == 3
    assert len(done.before.embeddings) == 3
    assert (len(done.before.shards), list(done.before.manifests)) == (1, [MANIFEST])
    after = replace(
        done.before,
        states=dict.fromkeys(STAGES, "forgotten"),
        embeddings=(), shards=(), manifests={}, tables={},
    )  # fmt: skip
    assert done.after == after
    assert (done.after.in_metadata, len(done.after.raw)) == (True, 3)


def test_a_whole_new_run_does_not_bring_it_back(world):
    forget_clip(world.deployment, "a-001")
    before = world.comparable()

    index = build_index(world.deployment, DATES)
    assert (index.forgotten, index.skip_counts()) == (1, {"forgotten": 1})
    world.all_of_it(*DATES)
    assert world.comparable() == before
    publish_tables(world)
    assert traces(world, "a-001") == []
    table = pl.read_parquet_metadata(io.BytesIO(world.store.get(world.layout.clip_index(DAY_1))))
    assert json.loads(table["clipfarm.skipped"]) == {"forgotten": 1}
    assert "a-001" not in table["clipfarm.skipped_rows"]

    # Not even if its source changes, or a new encoder embeds everything again.
    world.fill([*(c for c in SOME if c.video_id != "a-001"), Clip("a-001", DAY_2, url="https://x")])
    world.embed_all(*DATES, revision="r2")
    world.lock(migrate=True)
    world.fuse(*DATES)
    world.merge()
    assert traces(world, "a-001") == []


def test_forgetting_twice_changes_nothing(world):
    forget_clip(world.deployment, "a-001")
    before, states = files(world), world.states("fusion_concat")
    done = forget_clip(world.deployment, "a-001")
    assert done.before == done.after
    assert files(world) == before
    assert world.states("fusion_concat") == states


def test_looking_changes_nothing(world):
    before = files(world)
    found = find_clip(world.deployment, "a-001")
    assert found.remains(raw=False)
    assert files(world) == before


def test_another_machine_does_not_bring_it_back(world, tmp_path):
    """Its ledger has the rows, and has something newer to publish."""
    with Ledger.open(f"sqlite:///{tmp_path}/other.sqlite", world.store.url) as ledger:
        other = World(world.root, "other")
        other.deployment = replace(world.deployment, ledger=ledger)
        other.all_of_it(*DATES)
        old_index = other.index(*DATES)
        forget_clip(world.deployment, "a-001")
        rows = other.states("video_embedding")
        late = replace(rows["a-001"], processed_at="2099-01-01T00:00:00+00:00")
        other.ledger.commit("video_embedding", [late])

        other.deployment.publish("video_embedding")
        assert traces(world, "a-001") == [], "a tombstone wins over whatever is newer"
        report = other.embed("video", *DATES, index=old_index)[DAY_1]
        assert (report.worked_on, report.totals["forgotten"]) == (0, 1)
        other.all_of_it(*DATES)
        world.all_of_it(*DATES)
        assert traces(world, "a-001") == []
        assert other.states("video_embedding")["a-001"].status == "forgotten"
        other.close()


def test_a_run_that_was_at_work_meanwhile_leaves_nothing_that_is_found(world):
    """It had read its index and its delta before: its commits and its shard come too late."""
    like, old_index = world.states("video_embedding")["a-001"], world.index(DAY_1)
    (key,) = find_clip(world.deployment, "a-001").shards
    shard = world.store.get(key)
    forget_clip(world.deployment, "a-001")

    world.ledger.commit("video_embedding", [like])
    world.store.put(like.artifact_key, b"vector")
    late = key.replace("part-0000", "part-0007")
    world.store.put(late, shard)
    assert world.states("video_embedding")["a-001"].status == "forgotten"
    world.embed("audio", DAY_1, index=old_index)
    world.fuse(DAY_1)
    world.merge()
    assert "a-001" not in base_ids(world)
    vectors(world, without="a-001")
    assert like.artifact_key in {o.key for o in find_orphans(world.deployment, tomorrow()).orphans}

    done = forget_clip(world.deployment, "a-001")
    assert (done.before.shards, done.before.embeddings) == ((late,), (like.artifact_key,))
    assert traces(world, "a-001") == []
    vectors(world, without="a-001")


def test_rows_in_deltas_archives_and_superseded_shards_are_found(made, tmp_path):
    """Shards of one row: the clip's first one was replaced when its words came."""
    with copied(made, tmp_path / "world") as world:
        world.embed_all(*DATES, revision="r2")
        world.lock(migrate=True)
        world.fuse(*DATES, shard_rows=2)
        world.merge()
        rows = load_manifest(world.deployment, "concat").rows
        manifest_store.put_delta(
            world.deployment,
            "concat",
            FusedManifest(rows, 2, frozenset(rows["fused_key"].to_pylist())),
        )
        others = vectors(world)
        done = forget_clip(world.deployment, LATE_WORDS.video_id)

        names = sorted(key.rpartition("/")[2][:18] for key in done.before.manifests)
        assert len(names) == 3
        assert len(done.before.shards) == 3
        assert traces(world, LATE_WORDS.video_id) == []
        del others[LATE_WORDS.video_id]
        assert vectors(world) == others
        archive = world.store.get("clipfarm/fused/concat/fused_manifest.v1.parquet")
        for row in pl.read_parquet(archive).to_dicts():
            world.fused_vector(row)
        assert world.merge().new_shards == ()
        assert world.fuse(*DATES)[DAY_1].worked_on == 0


def test_each_strategy_is_rid_of_it(world):
    world.lock("sum_pool")
    world.fuse(*DATES, strategy="sum_pool")
    world.merge("sum_pool")
    done = forget_clip(world.deployment, "a-001")
    assert [key.split("/")[2] for key in done.before.shards] == ["concat", "sum_pool"]
    assert traces(world, "a-001") == []
    for row in world.manifest_rows("sum_pool").values():
        world.fused_vector(row)
    world.fuse(*DATES, strategy="sum_pool")
    world.merge("sum_pool")
    assert traces(world, "a-001") == []


def test_the_number_of_a_shard_of_its_own_is_not_given_again(tmp_path):
    """It was the date's only one, and manifests remember its key."""
    with World(tmp_path) as world:
        world.fill([Clip("alone", DAY_1), *clips(2, DAY_2)])
        world.all_of_it(*DATES)
        (key,) = (k for k in world.shards() if DAY_1 in k)
        forget_clip(world.deployment, "alone")
        (empty,) = (k for k in world.shards() if DAY_1 in k)
        assert empty == key.replace("part-0000", "part-0001")
        assert len(FusedShard.from_npz(world.store.get(empty), empty)) == 0

        world.fill([Clip("alone", DAY_1), Clip("new", DAY_1), *clips(2, DAY_2)])
        world.all_of_it(*DATES)
        row = world.manifest_rows()["new"]
        assert row["fused_key"] == key.replace("part-0000", "part-0002")
        world.fused_vector(row)
        assert traces(world, "alone") == []
        # Now that it isn't the last one any more, nobody needs the empty one.
        assert [o.key for o in find_orphans(world.deployment, tomorrow()).orphans] == [empty]


def test_a_clip_of_an_older_deployment_is_forgotten_too(open_world):
    world = open_world()
    older.leave(world)
    before = vectors(world)
    forget_clip(world.deployment, "old-001")
    assert traces(world, "old-001") == []
    del before["old-001"]
    assert vectors(world) == before
    for modality in ("video", "audio"):
        assert world.embed(modality, DAY_1)[DAY_1].worked_on == 0
    world.lock()
    assert world.fuse(DAY_1)[DAY_1].worked_on == 0
    world.merge()
    assert vectors(world) == before


def test_raw_objects_go_only_if_asked(world):
    forget_clip(world.deployment, "a-001")
    raw = {f"clipfarm/raw/{kind}" for kind in ("video/a-001.mp4", "audio/a-001.wav")}
    assert raw < files(world).keys()
    done = forget_clip(world.deployment, "a-001", raw=True)
    assert len(done.before.raw) == 3
    assert done.after.raw == ()
    assert not any("a-001" in key for key in files(world))


def test_a_clip_that_was_never_worked_on_is_kept_out(world):
    world.fill([*SOME, Clip("unseen", DAY_1)])
    done = forget_clip(world.deployment, "unseen")
    assert (done.before.states, done.before.in_metadata) == ({}, True)
    world.all_of_it(*DATES)
    assert "unseen" not in base_ids(world)
    assert {world.states(stage).get("unseen").status for stage in STAGES} == {"forgotten"}
    assert world.states("fusion_sum_pool") == {}, "a strategy that nobody uses"


def test_an_id_that_is_unknown_or_none_is_refused(world):
    before = files(world)
    with pytest.raises(UnknownClip, match=r"nothing is known of a-0o1: .* is the id right\?"):
        forget_clip(world.deployment, "a-0o1")
    with pytest.raises(BadVideoId):
        forget_clip(world.deployment, "../a-001")
    assert files(world) == before


def test_it_waits_for_no_run_that_works_on_the_clips_date(world):
    before, states = files(world), world.states("video_embedding")
    with (
        world.ledger.lease(f"fusion_concat/{DAY_1}"),
        pytest.raises(LeaseHeld, match=f"fusion_concat/{DAY_1}"),
    ):
        forget_clip(world.deployment, "a-001")
    assert (files(world), world.states("video_embedding")) == (before, states)
    with world.ledger.lease(f"fusion_concat/{DAY_2}"):
        forget_clip(world.deployment, "a-001")
    assert traces(world, "a-001") == []


def test_a_shard_that_cannot_be_read_stops_it_before_anything_is_removed(world):
    key = world.shards()[0]
    world.store.put(key, b"damaged")
    before = files(world)
    with pytest.raises(BadShard, match=rf"{key}.*can't be told whether a-001 is in it"):
        forget_clip(world.deployment, "a-001")
    assert files(world) == before


def test_who_learned_from_it_is_told_and_stays(world):
    split = pl.DataFrame(
        {
            "video_id": ["a-000", "a-001"],
            "split": ["train", "test"],
            "text_present": [1, 1],
            "target_log": [0.0, 1.0],
            "target_raw": [0.0, 1.7],
        }
    )
    file = io.BytesIO()
    split.write_parquet(file)
    artifacts = {
        "config_used.json": b"{}",
        "split_manifest.parquet": file.getvalue(),
        "metrics_summary.json": b"{}",
    }
    publish(world.store, world.layout, SnapshotId("r9", "concat", 7), artifacts, {})
    broken = {**artifacts, "split_manifest.parquet": b"?"}
    publish(world.store, world.layout, SnapshotId("r8", "concat", 30, "ridge"), broken, {})
    for digit in "ab":
        part = world.layout.training_dataset_part("concat", 7, digit * 64, "rows.parquet")
        world.store.put(part, file.getvalue())
    before = {k: v for k, v in files(world).items() if "/models/" in k or "/training/" in k}

    after = forget_clip(world.deployment, "a-001").after

    (trained,) = after.trained
    assert (trained.run_id, trained.strategy, trained.horizon) == ("r9", "concat", 7)
    assert (trained.family, trained.split, trained.models) == (None, "test", ())
    assert len(after.datasets) == 2
    (sentence,) = after.unreadable
    assert "r8" in sentence
    now = {k: v for k, v in files(world).items() if "/models/" in k or "/training/" in k}
    assert now == before
    assert np.isfinite(list(vectors(world).values())).all()
