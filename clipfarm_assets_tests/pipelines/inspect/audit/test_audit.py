"""Each kind of damage is found, named and counted; a sound store gives nothing."""

from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.ledger.published import items_to_sqlite, sqlite_to_items
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.inspect.audit import findings as kinds
from clipfarm_assets.pipelines.inspect.audit.findings import Findings
from clipfarm_assets.pipelines.inspect.audit.run import audit
from clipfarm_assets.pipelines.upkeep.collect import RunsAtWork
from clipfarm_assets.pipelines.upkeep.forget import forget_clip
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets_tests.pipelines import older
from clipfarm_assets_tests.pipelines.kit import DAY_1, LOCK, MANIFEST, World, clips, npy_key
from clipfarm_assets_tests.pipelines.upkeep.kit import copied, files

STATE = "clipfarm/state/fusion_concat.sqlite"
EARLIER, LATER = (f"{year}-01-01T00:00:00.000000+00:00" for year in (2020, 2100))
VECTOR = npy_key("video", "a-001")


def look(world):
    return audit(world.deployment)


def found(world):
    """(kind, subject) of everything that is wrong."""
    return [(one.kind, one.subject) for one in look(world).findings]


def shard_of(world, video_id):
    return world.manifest_rows()[video_id]["fused_key"]


def rewritten(world, key, change):
    """Put a shard or a manifest again, changed."""
    data = world.store.get(key)
    if key.endswith(".npz"):
        world.store.put(key, change(FusedShard.from_npz(data, key)).to_npz())
    else:
        made = manifest_file.from_bytes(data, key)
        world.store.put(key, manifest_file.to_bytes(change(made)))


def with_row(manifest: FusedManifest, video_id, **fields):
    """The manifest with other values in a clip's row."""
    rows = pl.DataFrame(manifest.rows)
    own = pl.col("video_id") == video_id
    values = [
        pl.when(own).then(pl.lit(value)).otherwise(pl.col(name)).alias(name)
        for name, value in fields.items()
    ]
    changed = rows.with_columns(values).to_arrow().cast(manifest.rows.schema)
    return replace(manifest, rows=changed)


def recorded(world, stage, video_id, **fields):
    """The ledger's row of a clip with other values, as of now."""
    row = replace(world.states(stage)[video_id], processed_at=LATER, **fields)
    world.ledger.commit(stage, [row])


def republished(world, key, video_id, **fields):
    """A published state with other values in a clip's row."""
    items = sqlite_to_items(world.store.get(key), key)
    items[video_id] = replace(items[video_id], **fields)
    world.store.put(key, items_to_sqlite(items))


def test_a_sound_store_gives_nothing_and_is_left_as_it_is(whole):
    before = files(whole)
    told = look(whole)
    assert told.is_sound
    assert told.findings == ()
    assert dict(told.examined) == {
        "audio vectors": 8,
        "ledger rows": 4 * 8,
        "manifest files": 1,
        "manifest rows": 8,
        "published rows": 4 * 8,
        "shard rows": 9,
        "shards": 9,
        "tables": 6,
        "text vectors": 7,
        "video vectors": 8,
    }
    assert told.unmerged == 0
    assert files(whole) == before


def test_after_all_that_the_pipeline_and_upkeep_do_it_is_sound(whole):
    forget_clip(whole.deployment, "a-001")
    assert look(whole).is_sound
    delta = {"whole_rows": 0, "delta_share": 1e9}
    whole.fill([*clips(3, DAY_1, "a"), *clips(2, DAY_1, "new")])
    whole.embed_all(DAY_1)
    whole.fuse(DAY_1)
    assert look(whole).unmerged == 1
    whole.merge(**delta)
    assert len(manifest_store.list_deltas(whole.deployment, "concat")) == 1
    assert look(whole).is_sound
    whole.embed_all(DAY_1, revision="r2")
    whole.lock(migrate=True)
    whole.fuse(DAY_1)
    assert look(whole).findings == ()
    whole.merge()
    told = look(whole)
    assert told.is_sound
    assert told.examined["manifest files"] == 2, "one is an archive"


def test_an_older_deployment_is_sound(open_world):
    world = open_world()
    older.leave(world)
    told = look(world)
    assert told.findings == ()
    assert told.examined["shards"] > 0


@pytest.mark.parametrize("machine", ["machine", "new"])
def test_a_vector_that_is_gone_or_other_than_recorded(machine, whole):
    """Also on a machine whose ledger is empty: then by the published state."""
    other = vector_to_npy(np.float32([0, 1, 0, 0, 0, 0]))
    short = vector_to_npy(np.float32([0, 1]))
    flipped = bytearray(whole.store.get(npy_key("audio", "b-000")))
    flipped[-1] ^= 0x80
    whole.store.delete(VECTOR)
    whole.store.put(npy_key("video", "a-002"), other)
    whole.store.put(npy_key("video", "b-001"), short)
    whole.store.put(npy_key("audio", "b-000"), bytes(flipped))
    whole.store.put(npy_key("text", "b-000"), b"no vector")
    with World(whole.root, machine) as world:
        told = look(world)
    vectors = [one for one in told.findings if one.subject != MANIFEST]
    assert Counter((one.kind, one.subject) for one in vectors) == Counter(
        [
            ("missing_object", VECTOR),
            ("other_bytes", npy_key("video", "a-002")),
            ("bad_vector", npy_key("video", "b-001")),
            ("other_bytes", npy_key("audio", "b-000")),
            ("bad_vector", npy_key("text", "b-000")),
        ]
    )
    # Without a ledger nobody vouches for what manifests name: they are asked for once more.
    missing = 1 if machine == "machine" else 2
    assert told.counts == {"bad_vector": 2, "missing_object": missing, "other_bytes": 2}
    by = {one.subject: one.problem for one in told.findings}
    assert by[VECTOR] == "the ledger says that a-001 is done, and there is no such object"
    assert by[npy_key("video", "b-001")] == "expected 6 values, found 2"


def test_a_row_that_says_done_without_an_object(whole):
    like = whole.states("video_embedding")["a-000"]
    nowhere = replace(like, video_id="nobody", artifact_key=None)
    whole.ledger.commit("video_embedding", [nowhere])
    fused = replace(whole.states("fusion_concat")["a-000"], video_id="nobody", artifact_key=None)
    whole.ledger.commit("fusion_concat", [fused])
    assert sorted(found(whole)) == [
        ("dangling_pointer", "video_embedding of nobody"),
        ("missing_object", npy_key("video", "nobody")),
        ("missing_shard", "fusion_concat of nobody"),
    ]


def test_a_shard_that_is_gone(whole):
    key = shard_of(whole, "a-001")
    whole.store.delete(key)
    assert sorted(found(whole)) == sorted(
        [
            ("missing_shard", key),
            ("dangling_pointer", f"{MANIFEST}: a-001 -> {key}[0]"),
            ("dangling_pointer", f"fusion_concat of a-001 -> {key}"),
            ("dangling_pointer", STATE),
        ]
    )


def test_a_published_state_that_names_a_shard_that_is_gone(whole):
    """The ledger knows better; another machine that restores it does not."""
    late = "clipfarm/fused/concat/shards/date=2026-02-05/part-0099.npz"
    republished(whole, STATE, "a-000", artifact_key=late, processed_at=EARLIER)
    assert found(whole) == [("dangling_pointer", STATE)]
    republished(whole, STATE, "a-000", artifact_key=late, processed_at=LATER)
    assert Counter(kind for kind, _ in found(whole)) == {"dangling_pointer": 2, "missing_shard": 1}


def test_a_shard_that_is_damaged(whole):
    key, other = shard_of(whole, "a-001"), shard_of(whole, "a-002")
    data = bytearray(whole.store.get(key))
    data[len(data) // 2] ^= 1
    whole.store.put(key, bytes(data))

    def broken(shard):
        return replace(shard, vectors=np.full_like(shard.vectors, np.nan))

    rewritten(whole, other, broken)
    told = found(whole)
    assert ("bad_shard", key) in told
    assert ("bad_shard", other) in told
    assert ("dangling_pointer", f"fusion_concat of a-001 -> {key}") in told
    assert len(told) == 4, "two pointers lead to the one that can't be read"


def test_pointers_that_lead_astray_are_named(whole):
    key, other = shard_of(whole, "a-001"), shard_of(whole, "a-002")
    rewritten(whole, MANIFEST, lambda made: with_row(made, "a-001", fused_key=other))
    assert found(whole) == [("dangling_pointer", f"{MANIFEST}: a-001 -> {other}[0]")]
    rewritten(whole, MANIFEST, lambda made: with_row(made, "a-001", fused_key=key, shard_idx=7))
    told = look(whole).findings
    assert [str(one.problem) for one in told] == ["the shard has 1 rows"]
    rewritten(whole, MANIFEST, lambda made: with_row(made, "a-001", shard_idx=0, text_present=0))
    (one,) = look(whole).findings
    assert (one.kind, one.problem) == (
        "other_row",
        "text_present says 0, the shard declares 1",
    )
    rewritten(whole, MANIFEST, lambda made: with_row(made, "a-001", text_present=1))
    recorded(whole, "fusion_concat", "b-000", artifact_key=other)
    assert found(whole) == [("dangling_pointer", f"fusion_concat of b-000 -> {other}")]


def test_rows_twice_and_rows_lost(whole):
    def doubled(made):
        twice = pa.concat_tables([made.rows, made.rows.slice(1, 1)])
        return replace(made, rows=twice)

    second = sorted(whole.manifest_rows())[1]
    rewritten(whole, MANIFEST, doubled)
    (one,) = look(whole).findings
    assert (one.kind, one.subject) == ("duplicate_row", MANIFEST)
    assert one.problem.startswith(f"2 rows of {second} ")
    rewritten(whole, MANIFEST, lambda made: replace(made, rows=made.rows.slice(2, 6)))
    told = look(whole)
    assert {one.kind for one in told.findings} == {"lost_row"}
    assert len(told.findings) == told.counts["lost_row"] == 2


def test_what_is_left_of_a_forgotten_clip(whole):
    shard, table = shard_of(whole, "a-001"), "clipfarm/index/date=2026-02-05/clip_index.parquet"
    before = whole.objects("clipfarm/fused") | {
        key: whole.store.get(key) for key in (VECTOR, table)
    }
    forget_clip(whole.deployment, "a-001")
    assert look(whole).is_sound
    for key, data in before.items():
        whole.store.put(key, data)
    told = found(whole)
    for key in (VECTOR, shard, MANIFEST, table):
        assert ("forgotten_remains", key) in told


def test_objects_that_cannot_be_read_are_told_and_the_others_looked_at(whole):
    broken = (STATE, MANIFEST, "clipfarm/index/date=2026-02-05/clip_index.parquet")
    for key in broken:
        whole.store.put(key, b"nonsense")
    whole.store.delete(VECTOR)
    assert sorted(found(whole)) == [
        ("bad_manifest", MANIFEST),
        ("bad_state", STATE),
        ("bad_table", broken[2]),
        ("missing_object", VECTOR),
    ]
    whole.store.put(LOCK, b"{")
    assert ("bad_lock", LOCK) in found(whole)
    whole.store.delete(LOCK)
    assert ("bad_lock", LOCK) in found(whole)


def test_a_delta_that_is_not_what_its_name_says_and_a_migration_that_stopped(whole):
    made = manifest_file.from_bytes(whole.store.get(MANIFEST), MANIFEST)
    key = manifest_store.put_delta(whole.deployment, "concat", made)
    whole.store.put(key, manifest_file.to_bytes(replace(made, lock_version=2)))
    told = look(whole)
    assert {(one.kind, one.subject) for one in told.findings} == {("bad_manifest", key)}
    assert told.counts == {"bad_manifest": 2}


def test_a_manifest_that_names_a_vector_nobody_vouches_for(whole):
    recorded(whole, "audio_embedding", "a-002", status="fail", artifact_key=None)
    assert look(whole).is_sound, "the vector of its last source is still there"
    whole.store.delete(npy_key("audio", "a-002"))
    (one,) = look(whole).findings
    assert (one.kind, one.subject) == ("missing_object", MANIFEST)
    assert "a-002" in one.problem


def test_it_refuses_while_a_run_is_at_work(whole):
    with (
        whole.ledger.lease(f"video_embedding/{DAY_1}"),
        pytest.raises(RunsAtWork, match="wait for them"),
    ):
        look(whole)


def test_a_ledger_that_is_not_there_is_made_good_by_the_published_states(made, tmp_path):
    with copied(made, tmp_path / "world") as world:
        world.store.delete(VECTOR)
        with ReadOnlyLedger.open(f"sqlite:///{tmp_path}/none.sqlite", world.store.url) as empty:
            told = audit(replace(world.deployment, ledger=empty))
    assert {(one.kind, one.subject) for one in told.findings} == {
        ("missing_object", VECTOR),
        ("missing_object", MANIFEST),
    }
    assert not (tmp_path / "none.sqlite").exists()


def test_many_findings_are_counted_and_some_are_kept():
    findings = Findings(most=3)
    for number in range(10):
        findings.add("lost_row", str(number), "")
    assert [one.subject for one in findings.kept] == ["0", "1", "2"]
    assert findings.counts == {"lost_row": 10}
    assert kinds.REMEDIES.keys() == set(kinds.KINDS)
