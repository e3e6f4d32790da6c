"""Two runs at once, on one machine and on two: no row of any kind is lost."""

import threading

import pytest

from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines import workers
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, Clip, World, clips, door
from clipfarm_assets_tests.processes import ended

STAGES = ("video_embedding", "audio_embedding", "text_embedding", "fusion_concat")
EACH = 12


def published(world, stage):
    key = f"clipfarm/state/{stage}.sqlite"
    return sqlite_to_items(world.store.get(key), key)


def check_complete(world, some):
    """Every clip in every published state, in the manifest, and behind a pointer that resolves."""
    ids = sorted(clip.video_id for clip in some)
    for stage in STAGES:
        states = published(world, stage)
        assert sorted(states) == ids, stage
        assert {item.status for item in states.values()} <= {"success", "success_full"}
    rows = world.manifest_rows()
    assert sorted(rows) == ids
    for row in rows.values():
        world.fused_vector(row)


@pytest.mark.parametrize("machines", [("one", "one"), ("one", "two")])
def test_two_runs_on_different_dates_lose_nothing(machines, open_world, tmp_path):
    """One SQLite ledger for both, or one each; one store."""
    world = open_world("one")
    first = Clip("aaa", DAY_1)
    some = [first, *clips(EACH, DAY_1, "d1"), *clips(EACH, DAY_2, "d2")]
    world.fill([first])
    world.all_of_it(DAY_1)
    world.fill(some)

    def steps(name, date):
        run = {"shard_rows": 2, "batch_size": 1}
        return [("together", (name, 2), {}), ("all_of_it", (date,), run)]

    started = [
        workers.start(tmp_path, machine, steps(str(n), date))
        for n, (machine, date) in enumerate(zip(machines, (DAY_1, DAY_2), strict=True))
    ]
    assert ended(*started) == [0, 0]

    check_complete(world, some)
    for machine in set(machines):
        ledger = open_world(machine)
        for stage in STAGES:
            ledger.deployment.restore(stage)
            assert len(ledger.states(stage)) == len(some)
        # Neither machine finds anything left to do.
        fused = ledger.fuse(DAY_1, DAY_2)
        assert [report.worked_on for report in fused.values()] == [0, 0]


@pytest.mark.parametrize("options", [{}, {"whole_rows": 0, "delta_share": 9.0, "max_deltas": 2}])
def test_manifest_updates_at_once_keep_each_others_shards(options, open_world, tmp_path):
    """Each process adds a shard and updates the manifest, six times over; also by deltas."""
    days = [f"2026-03-{day:02d}" for day in range(1, 13)]
    some = [clip for day in days for clip in clips(2, day, f"d{day[-2:]}")]
    world = open_world("one")
    world.fill(some)
    world.embed_all(*days)
    world.lock()

    def steps(name, dates):
        turns = [(("fuse", (date,), {}), ("merge", (), options)) for date in dates]
        return [("together", (name, 2), {}), *(step for turn in turns for step in turn)]

    started = [
        workers.start(tmp_path, name, steps(name, dates))
        for name, dates in (("one", days[::2]), ("two", days[1::2]))
    ]
    assert ended(*started) == [0, 0]

    assert load_manifest(world.deployment, "concat").rows.num_rows == len(some)
    assert world.merge(compact="always").new_shards == ()
    check_complete(world, some)
    assert manifest_store.list_deltas(world.deployment, "concat") == []


def test_two_runs_on_the_same_date_agree(open_world, tmp_path):
    """A waste, but no harm: one row a clip, and every pointer resolves."""
    world = open_world("one")
    some = clips(EACH)
    world.fill(some)
    run = {"shard_rows": 2, "batch_size": 2}
    started = [
        workers.start(
            tmp_path, machine, [("together", (machine, 2), {}), ("all_of_it", (DAY_1,), run)]
        )
        for machine in ("one", "two")
    ]
    assert ended(*started) == [0, 0]

    check_complete(world, some)
    undisturbed = World(tmp_path / "undisturbed")
    with undisturbed:
        undisturbed.fill(some)
        undisturbed.all_of_it(DAY_1)
        vectors = undisturbed.objects("clipfarm/embeddings")
    assert world.objects("clipfarm/embeddings") == vectors


def test_a_state_published_meanwhile_is_merged_and_not_overwritten(open_world, monkeypatch):
    """The race itself, made certain: the rival publishes between our read and our swap."""
    one, two = open_world("one"), open_world("two")
    one.fill([*clips(3, DAY_1, "d1"), *clips(3, DAY_2, "d2")])
    swap, raced = ObjectStore.swap, []

    def rival_first(store, key, data, expected):
        if key.endswith("video_embedding.sqlite") and not raced:
            raced.append(key)
            two.embed("video", DAY_2)
        return swap(store, key, data, expected)

    monkeypatch.setattr(ObjectStore, "swap", rival_first)
    one.embed("video", DAY_1)

    assert raced
    assert len(published(one, "video_embedding")) == 6


def test_two_encoders_at_once_are_both_on_record(open_world):
    worlds = [open_world("one"), open_world("two")]
    worlds[0].fill([Clip("one", DAY_1), Clip("two", DAY_2)])
    doors = [door("video"), door("audio")]
    runs = [
        threading.Thread(target=w.embed, args=(d.encoder.version.modality, date), kwargs={"by": d})
        for w, d, date in zip(worlds, doors, (DAY_1, DAY_2), strict=True)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join()

    lock = worlds[0].deployment.models_lock()
    assert all(lock.version(d.encoder.version.id) == d.encoder.version for d in doors)
