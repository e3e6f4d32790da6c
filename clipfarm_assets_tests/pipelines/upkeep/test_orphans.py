"""What is an orphan, and what never is."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.upkeep import orphans
from clipfarm_assets.pipelines.upkeep.collect import collect
from clipfarm_assets.pipelines.upkeep.orphans import NothingKnown, find_orphans
from clipfarm_assets.pipelines.upkeep.shard_rewrite import led_manifest
from clipfarm_assets.storage.objects import ObjectStore, OutsideStore
from clipfarm_assets.training.dataset_file import BadDataset
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets_tests.pipelines import older
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, MANIFEST, door
from clipfarm_assets_tests.pipelines.upkeep.kit import (
    DATES,
    GHOST,
    PROBE,
    SNAPSHOT,
    STAGING,
    TRAINING,
    age,
    files,
    plant,
    superseded_shard,
    tomorrow,
)


def found(world, cutoff=None):
    return find_orphans(world.deployment, cutoff or tomorrow())


def keys(world, cutoff=None):
    return {orphan.key for orphan in found(world, cutoff).orphans}


def test_a_complete_store_has_none_but_what_was_superseded(whole):
    before = files(whole)
    look = found(whole)
    assert {orphan.key for orphan in look.orphans} == {superseded_shard(whole)}
    assert look.by_kind() == {"shard": (1, len(before[superseded_shard(whole)]))}
    assert look.examined == {"embedding": 23, "shard": 9}
    # The raw objects, the metadata and the text downloader's state: none of them is named.
    raw = [key for key in before if "/raw/" in key]
    assert (look.not_ours, look.not_ours_keys) == (
        len(raw) + 2,
        ("clipfarm/state/text_downloader.sqlite",),
    )
    assert files(whole) == before, "looking writes nothing"


def test_each_kind_of_orphan_is_found_and_nothing_else(whole):
    planted = plant(whole)
    look = found(whole)
    assert {orphan.key for orphan in look.orphans} == planted
    sizes = {key: len(data) for key, data in files(whole).items()}
    assert {orphan.key: orphan.size for orphan in look.orphans} == {k: sizes[k] for k in planted}
    assert look.by_kind() == {
        "embedding": (1, sizes[GHOST]),
        "manifest_delta": (1, sum(n for k, n in sizes.items() if "manifest_deltas" in k)),
        "probe": (1, sizes[PROBE]),
        "shard": (1, sizes[superseded_shard(whole)]),
        "snapshot_staging": (1, sizes[STAGING]),
        "training_dataset": (2, len(b"rows" + b"vectors")),
        "unfinished_write": (1, len(b"half")),
    }
    assert look.spared == {}


def test_only_what_is_old_is_one(whole):
    planted = plant(whole)
    week = datetime.now(UTC) - timedelta(days=7)
    look = found(whole, week)
    assert look.orphans == ()
    assert look.spared == {orphans.YOUNG: len(planted) - 2, orphans.REPLACED_LATELY: 2}
    for key in (GHOST, PROBE):
        age(whole, key)
    assert keys(whole, week) == {GHOST, PROBE}
    # The folder's dataset has been another one for long, too.
    for key in planted:
        age(whole, key)
    age(whole, f"{TRAINING}/dataset.json")
    assert keys(whole, week) == planted - {superseded_shard(whole)}


def test_a_shard_that_was_replaced_lately_stays_for_readers_of_the_old_manifest(whole):
    shard = superseded_shard(whole)
    age(whole, shard)
    look = found(whole, datetime.now(UTC) - timedelta(days=7))
    assert (look.orphans, look.spared) == ((), {orphans.REPLACED_LATELY: 1})


def test_strange_names_are_never_ours(whole):
    before = keys(whole)
    strange = [
        "clipfarm/embeddings/video/readme.txt",
        "clipfarm/embeddings/video/sub/one.npy",
        "clipfarm/embeddings/mood/one.npy",
        f"clipfarm/fused/concat/shards/date={DAY_1}/part-00.npz",
        f"clipfarm/fused/concat/shards/date={DAY_1}/notes",
        "clipfarm/fused/concat/manifest_deltas/mine.parquet",
        "clipfarm/raw/video/unheard-of.mp4",
        "clipfarm/state/other_tool.sqlite",
        "clipfarm/x/y",
    ]
    for key in strange:
        whole.store.put(key, b"somebody's")
    look = found(whole)
    assert {orphan.key for orphan in look.orphans} == before
    assert set(look.not_ours_keys) >= set(strange) - {"clipfarm/raw/video/unheard-of.mp4"}


def test_nothing_behind_a_link_is_one(whole, tmp_path):
    before = keys(whole)
    root = whole.root / "store" / "clipfarm"
    raw = root / "raw" / "video" / "a-000.mp4"
    (root / "embeddings" / "video" / "linked.npy").symlink_to(raw)
    (root / "raw" / "mine").mkdir()
    (root / "raw" / "mine" / "one.npy").write_bytes(b"mine")
    audio = root / "embeddings" / "audio"
    audio.rename(root / "elsewhere")
    audio.symlink_to(root / "elsewhere")
    (audio / "ghost.npy").write_bytes(b"ghost")
    look = found(whole)
    assert {orphan.key for orphan in look.orphans} == before
    assert look.spared == {orphans.LINKED: 2}

    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "one.npy").write_bytes(b"precious")
    (root / "embeddings" / "text" / "out").symlink_to(outside)
    with pytest.raises(OutsideStore, match="symbolic link"):
        found(whole)


def test_the_last_shard_of_a_date_stays_for_its_number(whole):
    """Another one under its number would never be merged: manifests remember that they have it."""
    late = whole.shards()[-1]
    assert DAY_2 in late
    whole.store.delete(MANIFEST)
    whole.merge()
    row = whole.manifest_rows()["b-002"]
    assert row["fused_key"] == late
    # The clip's words are other ones now, and it was fused once more, elsewhere.
    rows = whole.states("fusion_concat")
    other = rows["a-000"].artifact_key
    whole.ledger.commit("fusion_concat", [_led(rows["b-002"], other)])
    _drop_pointer(whole, "b-002")
    look = found(whole)
    assert late not in {orphan.key for orphan in look.orphans}
    assert look.spared[orphans.LAST_OF_DATE] == 1


def _led(item, key):
    return replace(item, artifact_key=key)


def _drop_pointer(world, video_id):
    data = led_manifest(world.store.get(MANIFEST), MANIFEST, video_id, [])
    world.store.put(MANIFEST, data)


def test_a_shard_that_no_manifest_has_seen_is_waited_for(whole):
    """Its run was killed before the ledger knew it: the next one takes its rows over."""
    last = whole.shards()[-1]
    _drop_shard(whole, last)
    before = keys(whole)
    whole.store.put(last.replace("part-0002", "part-0003"), whole.store.get(last))
    look = found(whole)
    assert {orphan.key for orphan in look.orphans} == before
    assert look.spared[orphans.NOT_MERGED] + look.spared[orphans.LAST_OF_DATE] == 2


def _drop_shard(world, key):
    """As if the manifest had never been brought up to date with the shard."""
    world.store.delete(MANIFEST)
    data = world.store.get(key)
    world.store.delete(key)
    world.merge()
    world.store.put(key, data)
    states = world.states("fusion_concat").values()
    gone = [item for item in states if item.artifact_key == key]
    world.ledger.commit("fusion_concat", [_led(item, None) for item in gone])


def test_archives_keep_what_they_point_to(whole):
    whole.embed_all(*DATES, revision="r2")
    old = {row["fused_key"] for row in whole.manifest_rows().values()}
    superseded = superseded_shard(whole)
    whole.lock(migrate=True)
    whole.fuse(*DATES, shard_rows=1)
    whole.merge()
    assert keys(whole) == {superseded}

    archive = "clipfarm/fused/concat/fused_manifest.v1.parquet"
    whole.store.delete(archive)
    look = found(whole)
    assert look.orphans == ()
    # Every shard of the first lock, as nobody can tell any more which are pointed to.
    assert look.spared == {orphans.NO_ARCHIVE: len(old) + 1}


def test_a_ledger_that_knows_nothing_makes_nothing_an_orphan(whole, tmp_path):
    for info in list(whole.store.list("clipfarm/state")):
        if "downloader" not in info.key:
            whole.store.delete(info.key)
    with Ledger.open(f"sqlite:///{tmp_path}/other.sqlite", whole.store.url) as empty:
        deployment = type(whole.deployment)(whole.store, whole.layout, empty)
        with pytest.raises(NothingKnown, match="must know the 8 video vectors"):
            find_orphans(deployment, tomorrow())
        for modality in ("video", "audio", "text"):
            stage = f"{modality}_embedding"
            empty.commit(stage, whole.states(stage).values())
        with pytest.raises(NothingKnown, match="the 9 shards of concat"):
            find_orphans(deployment, tomorrow())


def test_another_machine_sees_the_same(whole, tmp_path):
    plant(whole)
    with Ledger.open(f"sqlite:///{tmp_path}/other.sqlite", whole.store.url) as other:
        deployment = type(whole.deployment)(whole.store, whole.layout, other)
        cutoff = tomorrow()
        assert find_orphans(deployment, cutoff) == find_orphans(whole.deployment, cutoff)


def test_vectors_of_an_older_deployment_may_be_unknown_to_its_ledger(open_world):
    world = open_world()
    older.leave(world)
    world.store.put(GHOST, b"of that time")
    look = found(world)
    assert (look.orphans, look.spared) == ((), {orphans.UNVERSIONED: 1})


def test_a_vector_that_only_a_manifest_names_stays(whole):
    """Its ledger row was lost, and a check asks for it."""
    before = keys(whole)
    forgotten = whole.states("video_embedding")["a-000"]
    whole.ledger.commit("video_embedding", [_forgotten(forgotten)])
    assert keys(whole) == before


def _forgotten(item):
    return Item(item.video_id, "", item.processed_at, "forgotten")


@pytest.mark.parametrize(
    ("spoil", "error", "match"),
    [
        ((MANIFEST, b"no parquet"), BadManifest, "fused_manifest.parquet"),
        (("clipfarm/fused/concat/fused_manifest.v1.parquet", b"x"), BadManifest, r"\.v1\."),
        ((f"{TRAINING}/dataset.json", b"{"), BadDataset, "dataset.json"),
        ((SNAPSHOT, b"[]"), BadSnapshot, "config_used.json"),
    ],
)
def test_what_must_be_asked_and_cannot_be_stops_it(whole, spoil, error, match):
    plant(whole)
    whole.store.put(*spoil)
    with pytest.raises(error, match=match):
        found(whole)


def test_an_interrupted_migration_stops_it(whole, monkeypatch):
    whole.embed("video", *DATES, by=door("video", "r2"))
    swap = ObjectStore.swap

    def killed(store, key, *arguments):
        if key == MANIFEST:
            raise KeyboardInterrupt
        return swap(store, key, *arguments)

    monkeypatch.setattr(ObjectStore, "swap", killed)
    with pytest.raises(KeyboardInterrupt):
        whole.lock(migrate=True)
    with pytest.raises(LockMismatch, match="a migration was interrupted"):
        found(whole)


def test_json_of_a_current_dataset_protects_it(whole):
    plant(whole)
    current = json.loads(whole.store.get(f"{TRAINING}/dataset.json"))["sha256"]
    trained = json.loads(whole.store.get(SNAPSHOT))["dataset_sha256"]
    datasets = {key.split("/")[-2] for key in keys(whole) if key.startswith(TRAINING)}
    assert datasets.isdisjoint({current, trained})
    assert len(datasets) == 1


OTHERS_FILES = (
    "clipfarm/raw/video/Holiday tape #3",
    "clipfarm/raw/video/a-000.mp4#3",
    "clipfarm/metadata/shorts_metadata_horizon.csv#1",
    "clipfarm/state/text_downloader.sqlite#1",
    "clipfarm/embeddings/video/not an id.npy#1",
    "clipfarm/take #2",
)
OURS = (
    "clipfarm/embeddings/audio/a-000.npy#1",
    "clipfarm/fused/concat/fused_manifest.parquet#12",
    f"clipfarm/fused/concat/shards/date={DAY_1}/part-0001.npz#1",
    f"clipfarm/index/date={DAY_1}/clip_index.parquet#3",
    "clipfarm/state/video_embedding.sqlite#1",
)


def test_files_of_others_named_like_unfinished_writes_are_theirs(whole):
    before = found(whole)
    for key in (*OTHERS_FILES, *OURS):
        path = whole.root / "store" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"precious")
    look = found(whole)
    assert {o.key for o in look.orphans} - {o.key for o in before.orphans} == set(OURS)
    assert look.not_ours == before.not_ours + len(OTHERS_FILES)
    shown = {key for key in OTHERS_FILES if "/raw/" not in key}
    assert shown <= set(look.not_ours_keys)
    collect(whole.deployment, look)
    assert files(whole).keys() >= set(OTHERS_FILES)
    assert not files(whole).keys() & set(OURS)
