"""Fusion by batches gives the bytes that fusing one clip after another gives, at a counted cost."""

import hashlib
import io
import zipfile
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipfarm_assets.contracts.fused_shard import Declaration
from clipfarm_assets.contracts.schema_lock import LockMismatch, SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.contracts.text_gate import gate
from clipfarm_assets.pipelines.fuse import FuseOptions, FusionStage
from clipfarm_assets.pipelines.fusion_delta import Candidate
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.vector_batches import check_batch
from clipfarm_assets.pipelines.vectors import Availability, available, parse, version_gate
from clipfarm_assets_tests.costs.counting import CountedWorld
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    DIMS,
    TERMINAL_TEXT,
    Clip,
    clips,
    door,
    fuse,
    npy_key,
    prepared,
)

STAGE = "fusion_concat"
OLD = ("old-audio", "old-text")


def saved(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def unit(dim, dtype=np.float32, scale=1.0):
    vector = np.arange(1, dim + 1, dtype=np.float64)
    return (vector / np.linalg.norm(vector) * scale).astype(dtype)


def mixed(world):
    """Every kind of clip that fusion knows, before the first run under the second lock."""
    some = [
        *clips(3, prefix="a"),
        Clip("broken"),
        Clip("copy-1", url="https://youtu.be/twice"),
        Clip("copy-2", url="https://youtu.be/twice"),
        Clip("double"),
        Clip("flipped"),
        *clips(2, prefix="m", text=None, text_state=TERMINAL_TEXT),
        Clip("no-object"),
        Clip("no-video", video=None),
        Clip("not-unit"),
        *map(Clip, OLD),
        Clip("pending", text=None),
        Clip("retried"),
        Clip("unrecorded"),
        *clips(4, prefix="z"),
    ]
    world.fill(some)
    world.embed_all()
    world.lock()
    index = world.index()[DAY_1]
    ids = index["video_id"].to_pylist()
    for modality in MODALITIES:
        left = OLD[0] if modality == "audio" else OLD[1] if modality == "text" else ""
        newer = index.filter([video_id != left for video_id in ids])
        world.embed(modality, by=door(modality, "r2"), index={DAY_1: newer})
    world.lock(migrate=True)

    store_as_embedded(world, "broken", "video", saved(np.full(DIMS["video"], np.nan, "f4")))
    store_as_embedded(world, "double", "audio", saved(unit(DIMS["audio"], np.float64)))
    store_as_embedded(world, "not-unit", "text", saved(unit(DIMS["text"], scale=2.0)))
    store_as_embedded(world, "unrecorded", "video", saved(unit(DIMS["video"])), None)
    flipped = bytearray(world.store.get(npy_key("audio", "flipped")))
    flipped[-4] ^= 1
    world.store.put(npy_key("audio", "flipped"), bytes(flipped))
    world.store.delete(npy_key("audio", "no-object"))
    good = world.store.get(npy_key("video", "retried"))
    world.store.put(npy_key("video", "retried"), good[:-1])
    only = {DAY_1: index.filter([video_id == "retried" for video_id in ids])}
    for _ in range(2):
        fuse_index(world, only)
    world.store.put(npy_key("video", "retried"), good)


def fuse_index(world, index, **options):
    """Fuse what the index says, without reading the CSV."""
    return FusionStage(world.deployment, "concat", FuseOptions(**options)).run(index)


def store_as_embedded(world, video_id, modality, data, sha256=""):
    """Store other bytes and let the ledger believe that they are what was embedded."""
    world.store.put(npy_key(modality, video_id), data)
    stage = f"{modality}_embedding"
    recorded = hashlib.sha256(data).hexdigest() if sha256 == "" else sha256
    item = replace(world.states(stage)[video_id], content_sha256=recorded)
    world.ledger.commit(stage, [item])


def one_after_another(world, shard_rows):
    """The shards of the first day that a loop over its clips makes, as bytes."""
    deployment = world.deployment
    lock, texts = load_lock(deployment, "concat"), deployment.text_states()
    index, before = world.index()[DAY_1], world.states(STAGE)
    vectors = available(deployment, {DAY_1: index})[DAY_1]
    version_gate(deployment, lock, vectors.values())
    rows = []
    for clip in index.to_pylist():
        video_id, of_clip = clip["video_id"], vectors[clip["video_id"]]
        keys = [v.key for v in of_clip.values() if world.store.exists(v.key)]
        found = parse(of_clip, {key: world.store.get(key) for key in keys}, lock)
        missing = [m for m in ("video", "audio") if m in found.missing]
        has_text = "text" in found.usable
        verdict = gate(
            clip["source_hash"],
            missing_required=missing,
            has_text=has_text,
            text_states_available=True,
            text_state=texts.by_id.get(video_id),
        )
        if found.broken or not verdict.fuses or of_clip["text"].outdated:
            continue
        text = found.usable.get("text", np.zeros(lock.text_dim, "f4"))
        parts = [found.usable["video"], found.usable["audio"], text, np.array([has_text], "f4")]
        rows.append(
            {
                "video_ids": video_id,
                "vectors": np.concatenate(parts),
                "captured_at": clip["captured_at"],
                "source_hash": clip["source_hash"],
                "video_emb_key": of_clip["video"].key,
                "audio_emb_key": of_clip["audio"].key,
                "text_emb_key": of_clip["text"].key if has_text else "",
                "text_present": int(has_text),
                "text_state_status": verdict.text_state_status,
                "text_missing_reason": verdict.reason,
                "fusion_status": verdict.status,
                "retry_count_at_write": before[video_id].retry_count if video_id in before else 0,
            }
        )
    return [
        plain_npz(
            {
                **{name: np.array([row[name] for row in part]) for name in part[0]},
                "fusion_strategy": np.array("concat"),
                "lock_version": np.array(lock.lock_version),
                "embedding_versions": np.array([lock.embedding_versions[m] for m in MODALITIES]),
            }
        )
        for part in (rows[at : at + shard_rows] for at in range(0, len(rows), shard_rows))
    ]


def plain_npz(arrays):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o600 << 16
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, arrays[name])
    return file.getvalue()


@pytest.mark.parametrize("read_ahead", [1, 3, 512])
@pytest.mark.parametrize("shard_rows", [1, 5, 2048])
def test_shards_have_the_bytes_of_one_clip_after_another(world, shard_rows, read_ahead):
    mixed(world)
    expected = one_after_another(world, shard_rows)

    report = fuse(world, shard_rows=shard_rows, read_ahead=read_ahead)

    assert [world.store.get(key) for key in world.shards()] == expected
    assert world.statuses(STAGE) == {
        **{f"{prefix}-{n:03d}": "success_full" for prefix, count in (("a", 3), ("z", 4))
           for n in range(count)},
        **dict.fromkeys(("copy-1", "copy-2", "double", "retried", "unrecorded"), "success_full"),
        **dict.fromkeys(("m-000", "m-001"), "success_text_placeholder"),
        **dict.fromkeys(("broken", "flipped", "not-unit"), "fail"),
        **dict.fromkeys(("no-object", "no-video", "old-audio"), "missing_required_modality"),
        **dict.fromkeys(("old-text", "pending"), "missing_text_pending"),
    }  # fmt: skip
    assert report.statuses.total() == report.worked_on == 22
    with np.load(io.BytesIO(b"".join(expected[-1:])), allow_pickle=False) as shard:
        assert set(shard) == {
            "video_ids", "vectors", "captured_at", *(f.name for f in fields(Declaration))
        }  # fmt: skip


LOCK = SchemaLock.of("concat", DIMS, dict.fromkeys(MODALITIES, "v"))


def object_of(dim, kind):
    """One object of each kind that may lie where a vector of `dim` values should."""
    one = unit(dim)
    if isinstance(kind, float):
        return saved(unit(dim, scale=kind))
    return {
        "cut": saved(one)[:-1],
        "empty": b"",
        "junk": b"\x00" * len(saved(one)),
        "float64": saved(one.astype(np.float64)),
        "long": saved(unit(dim + 1)),
        "nan": saved(np.where(one == one[0], np.nan, one)),
        "inf": saved(np.where(one == one[0], np.inf, one)),
        "signalling": saved(one)[:-4] + b"\x01\x00\x80\x7f",
        "matrix": saved(one.reshape(1, -1)),
        "version 2": b"\x93NUMPY\x02" + saved(one)[7:],
    }[kind]


# Norms on both sides of the limit, nearer to it than a sum of squares is exact.
NORMS = (1.0, 1.0 + 1e-4, 1.0 - 1e-4, 1.0001001, 0.9998999, 1.00009999999, 0.0)
KINDS = ("cut", "empty", "junk", "float64", "nan", "inf", "signalling", "matrix", "version 2")
vector = st.tuples(
    st.one_of(st.sampled_from(NORMS), st.sampled_from(KINDS)),
    st.sampled_from(["", "", "", "embedding status fail"]),
    st.sampled_from(["right", "right", "wrong", None]),
    st.sampled_from([True, True, True, False]),
)


def read_both_ways(drawn, lock=LOCK):
    some, objects = [], []
    for number, of_clip in enumerate(drawn):
        availability, found = {}, {}
        for modality, (kind, problem, recorded, exists) in zip(MODALITIES, of_clip, strict=True):
            data = object_of(DIMS[modality], kind)
            sha256 = hashlib.sha256(data + b"!" * (recorded == "wrong")).hexdigest()
            availability[modality] = Availability(
                f"{modality}-{number}", True, "v", problem, recorded and sha256
            )
            if exists and not problem:
                found[modality] = data
        some.append(Candidate(f"clip-{number}", "h", "", "new", availability))
        objects.append(found)

    def single(number):
        by_key = {f"{m}-{number}": data for m, data in objects[number].items()}
        return parse(some[number].availability, by_key, lock)

    return some, objects, single


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(vector, vector, vector), max_size=6))
def test_a_batch_is_judged_as_its_clips_one_by_one(drawn):
    some, objects, single = read_both_ways(drawn)
    batch = check_batch(some, objects, LOCK)
    for number in range(len(some)):
        expected = single(number)
        found = batch.parsed.get(number)
        assert (found.missing if found else {}) == expected.missing
        assert (found.broken if found else []) == expected.broken
        for modality in MODALITIES:
            row = batch.blocks[modality][number]
            values = expected.usable.get(modality, np.zeros(DIMS[modality], "f4"))
            assert row.dtype == values.dtype == np.float32
            assert row.tobytes() == values.tobytes()


def test_of_several_vectors_of_other_lengths_the_first_is_named():
    good = (1.0, "", "right", True)
    long = ("long", "", "right", True)
    some, objects, _ = read_both_ways([(good, good, good), (good, good, long), (long, good, good)])
    with pytest.raises(LockMismatch, match="text_dim is locked to 4 but 5 was found"):
        check_batch(some, objects, LOCK)


def test_a_shard_number_is_not_given_again_to_other_clips(world):
    """The lost shard's rows are still in ledger and manifest, and must not lead to others."""
    prepared(world, clips(2))
    fuse(world)
    world.merge()
    (lost,) = world.shards()
    world.store.delete(lost)
    world.fill([Clip("aaa"), *clips(2), Clip("new")])
    world.embed_all()

    assert fuse(world).reasons == {"new": 1}

    (key,) = world.shards()
    assert key > lost


def test_a_run_costs_three_gets_a_clip_and_a_put_and_a_list_a_shard(tmp_path):
    def measure(n):
        with CountedWorld(tmp_path / str(n)) as world:
            prepared(world, clips(n - 1))
            index = world.index()
            with world.counted() as costs:
                reports = fuse_index(world, index, read_ahead=6)
            assert reports[DAY_1].statuses == {"success_full": n}
            assert len(world.shards()) == 1
            return costs

    once, twice = measure(12), measure(24)

    assert twice - once == {"get embeddings": 3 * 12}
    assert once == {
        "get embeddings": 3 * 12,
        "get fused": 1,  # the schema lock
        "put fused": 1,
        "list fused": 3,  # orphans; deltas; the next part number
        "tail fused": 1,  # which part numbers the manifest knows
        "get state": 3,  # text downloader, models lock, this stage's own: absent as yet
        "head state": 5,  # four stages restored, one published
        "put state": 1,
        # Of the three stages before: which version was taken, their states, and their latest one.
        # Of this one: its states before, and its shard's; at the end its mark, which of them was
        # published, and all its rows. And whether somebody removes objects meanwhile.
        "ledger select": 3 * 3 + 2 + 3 + 1,
        "ledger insert": 4,  # a shard's rows; what was published, and as of when; the lease
        "ledger update": 2,  # that the lease is still held; that it is given back
    }


def test_an_unchanged_run_reads_no_vector_and_writes_nothing(tmp_path):
    with CountedWorld(tmp_path) as world:
        prepared(world, clips(5))
        fuse(world)
        index = world.index()
        with world.counted() as costs:
            fuse_index(world, index)
    assert {name for name in costs if name.split()[0] in {"put", "delete"}} == set()
    assert not any("embeddings" in name for name in costs)
    lease = (costs["ledger insert"], costs["ledger update"])
    assert lease == (1, 1), "taken and given back"


def test_dates_of_one_run_ask_for_the_latest_vectors_once(tmp_path):
    """That question goes through a stage's whole history."""

    def measure(*dates):
        with CountedWorld(tmp_path / str(len(dates))) as world:
            world.fill([Clip(f"clip-{date}", date) for date in dates])
            world.embed_all(*dates)
            world.lock()
            index = world.index(*dates)
            with world.counted() as costs:
                fuse_index(world, index)
            return costs

    days = [f"2026-03-{day:02d}" for day in range(1, 4)]
    more = measure(*days) - measure(days[0])
    # A date more: its clips' states in four stages, and those of its shard's clips; and whether
    # somebody removes objects meanwhile.
    assert more["ledger select"] == 2 * (4 + 1 + 1)


def test_vectors_of_several_dates_come_in_one_stream(tmp_path, monkeypatch):
    with CountedWorld(tmp_path) as world:
        world.fill([*clips(3, DAY_1, "d1"), *clips(3, DAY_2, "d2")])
        world.embed_all(DAY_1, DAY_2)
        world.lock()
        asked = []
        get_many = world.store.get_many

        def counted(keys, *args, **options):
            asked.append(keys)
            return get_many(keys, *args, **options)

        monkeypatch.setattr(world.store, "get_many", counted)
        world.fuse(DAY_1, DAY_2, read_ahead=2)
        assert len(asked) == 1
        world.merge()
        assert len(world.manifest_rows()) == 6
