"""A machine with no ledger of its own takes the published state, and finds nothing to do."""

from dataclasses import replace

import pytest

from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.ledger.sqlite_file import BadState
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    DAY_2,
    TERMINAL_TEXT,
    Clip,
    clips,
    door,
)

SOME = [
    *clips(5, DAY_1, "a"),
    Clip("mute", DAY_1, text=None, text_state=TERMINAL_TEXT),
    *clips(3, DAY_2, "b"),
]
DATES = (DAY_1, DAY_2)
MODALITIES = ("video", "audio", "text")
STAGES = ("video_embedding", "audio_embedding", "text_embedding", "fusion_concat")


@pytest.fixture
def done(open_world):
    world = open_world("old")
    world.fill(SOME)
    world.all_of_it(*DATES)
    return world


def test_nothing_is_embedded_or_fused_again(done, open_world):
    before, new = done.objects(), open_world("new")

    for modality in ("video", "audio"):
        by = door(modality)
        reports = new.embed(modality, *DATES, by=by)
        assert [r.worked_on for r in reports.values()] == [0, 0]
        assert by.encoder.prepared == []
    # What waits is looked for again, everywhere and always.
    assert new.embed("text", *DATES)[DAY_1].reasons == {"unfinished": 1}
    assert new.lock().what == "verified"
    assert [r.worked_on for r in new.fuse(*DATES).values()] == [0, 0]
    assert new.merge().new_shards == ()

    after = new.objects()
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed <= {"clipfarm/state/text_embedding.sqlite"}
    for stage in STAGES[:2]:
        assert new.states(stage) == done.states(stage)


def test_every_row_comes_over_with_its_provenance(done, open_world):
    new = open_world("new")
    for stage in STAGES:
        assert new.deployment.restore(stage) == len(SOME)
        assert new.states(stage) == done.states(stage)
        assert new.deployment.restore(stage) == 0


def test_failures_count_on_where_they_were(open_world):
    old = open_world("old")
    old.fill([Clip("bad", video=CORRUPT)])
    old.embed("video", max_fail_retries=1)

    new = open_world("new")
    new.embed("video", max_fail_retries=1)

    (item,) = new.states("video_embedding").values()
    assert (item.status, item.retry_count) == ("fail_terminal", 2)


def test_what_a_machine_missed_meanwhile_is_taken(done, open_world):
    new = open_world("new")
    done.fill([*SOME, Clip("late", DAY_2)])
    new.embed_all(DAY_2)
    new.fuse(DAY_2)

    by = door("video")
    assert done.embed("video", DAY_2, by=by)[DAY_2].worked_on == 0
    assert done.fuse(DAY_2)[DAY_2].worked_on == 0


def test_another_version_is_known_as_such_on_a_new_machine(done, open_world):
    new = open_world("new")
    reports = new.embed("video", *DATES, by=door("video", "r2"))
    assert [r.reasons["version_changed"] for r in reports.values()] == [6, 3]


def test_a_damaged_state_stops_the_run_and_is_left_alone(done, open_world):
    key = "clipfarm/state/video_embedding.sqlite"
    done.store.put(key, done.store.get(key)[:5000])
    before, new, by = done.objects(), open_world("new"), door("video")

    with pytest.raises(BadState, match=key):
        new.embed("video", by=by)

    assert done.objects() == before
    assert by.opened == 0


def test_a_state_is_read_once_a_version(done, open_world, monkeypatch):
    """Restoring is cheap where nothing changed: the object's version is asked for, not its rows."""
    new = open_world("new")
    new.deployment.restore("video_embedding")
    read, get = [], ObjectStore.get_versioned
    monkeypatch.setattr(
        ObjectStore, "get_versioned", lambda s, key: read.append(key) or get(s, key)
    )

    new.deployment.restore("video_embedding")

    assert read == []


def test_each_date_is_published_before_the_next_begins(open_world, monkeypatch):
    """A run over many dates that ends early has not worked for itself alone."""
    world = open_world()
    world.fill([*clips(2, DAY_1, "d1"), *clips(2, DAY_2, "d2")])
    get = ObjectStore.get

    def broken(store, key):
        if key.startswith("clipfarm/raw/video/d2"):
            msg = "connection reset by peer"
            raise OSError(msg)
        return get(store, key)

    monkeypatch.setattr(ObjectStore, "get", broken)
    with pytest.raises(OSError, match="connection reset"):
        world.embed("video", DAY_1, DAY_2)
    monkeypatch.undo()

    new = open_world("new")
    new.deployment.restore("video_embedding")
    assert sorted(new.states("video_embedding")) == ["d1-000", "d1-001"]


def test_what_a_killed_run_left_unpublished_is_published_by_one_with_nothing_to_do(open_world):
    world = open_world()
    world.fill(clips(3))
    world.embed("video")
    key = "clipfarm/state/video_embedding.sqlite"
    item = world.states("video_embedding")["clip-000"]
    later = replace(item, processed_at="2126-01-01T00:00:00.000000+00:00")
    world.ledger.commit("video_embedding", [later])

    assert world.embed("video")[DAY_1].worked_on == 0

    assert sqlite_to_items(world.store.get(key), key)["clip-000"] == later


def test_a_run_with_nothing_to_do_reads_no_state(open_world, monkeypatch):
    world = open_world()
    world.fill(clips(3))
    world.embed("video")
    read, get = [], ObjectStore.get_versioned
    monkeypatch.setattr(
        ObjectStore, "get_versioned", lambda s, key: read.append(key) or get(s, key)
    )
    world.embed("video")
    assert [key for key in read if "/state/video_embedding" in key] == []
