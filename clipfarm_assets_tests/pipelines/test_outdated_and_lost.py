"""Index rows that are behind the ledger, and vectors that are behind it."""

from dataclasses import replace

from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, DAY_2, Clip, clips, door

STAGE = "video_embedding"


def run(world, **options):
    by = door("video")
    return world.embed("video", by=by, **options)[DAY_1], by


def test_an_index_row_older_than_what_was_processed_last_is_left_alone(world):
    """A day's index is not made anew when a clip is captured again on a later day."""
    world.fill([Clip("moves", DAY_1), Clip("waits", DAY_1, video=None), Clip("bad", video=CORRUPT)])
    stale = world.index(DAY_1)
    elsewhere = "https://youtu.be/elsewhere"
    later = {"date": DAY_2, "url": elsewhere}
    world.fill(
        [Clip("moves", **later), Clip("waits", video=None, **later),
         Clip("bad", video=CORRUPT, **later)]
    )  # fmt: skip
    world.embed("video", DAY_2)
    assert world.statuses(STAGE) == {
        "bad": "fail", "moves": "success", "waits": "missing_raw_object"
    }  # fmt: skip
    states, objects = world.states(STAGE), world.objects()

    by = door("video")
    report = world.embed("video", by=by, index=stale)[DAY_1]

    assert report.reasons == {}
    assert report.totals == {"outdated_index_rows": 3}
    assert (report.considered, report.worked_on, by.opened) == (3, 0, 0)
    assert (world.states(STAGE), world.objects()) == (states, objects)
    assert "outdated_index_rows" not in world.embed("video", DAY_2)[DAY_2].totals


def test_a_later_capture_and_a_state_without_one_are_worked_on(world):
    """States of older tools hold no capture to compare with."""
    world.fill([Clip("one"), Clip("two")])
    run(world)
    world.ledger.commit(
        STAGE, [replace(item, details={}) for item in world.states(STAGE).values()][:1]
    )
    elsewhere = "https://youtu.be/elsewhere"
    world.fill([Clip("one", url=elsewhere), Clip("two", DAY_2, url=elsewhere)])

    reports = world.embed("video", DAY_1, DAY_2)

    assert [report.reasons for report in reports.values()] == [{"source_changed": 1}] * 2


def test_lost_and_changed_vectors_are_made_again_when_asked(world):
    world.fill([*clips(4), Clip("bad", video=CORRUPT)])
    run(world, max_fail_retries=0)
    good = world.objects("clipfarm/embeddings")
    gone, flipped, own = (f"clipfarm/embeddings/video/clip-00{i}.npy" for i in range(3))
    world.store.delete(gone)
    world.store.put(flipped, good[flipped][:-1] + bytes([good[flipped][-1] ^ 1]))
    # What nobody recorded a hash of cannot be told from what it was.
    item = world.states(STAGE)["clip-002"]
    world.ledger.commit(STAGE, [replace(item, content_sha256=None)])
    world.store.put(own, good[flipped])
    assert run(world)[0].reasons == {}

    report, by = run(world, verify_objects=True)

    assert report.reasons == {"object_missing": 1, "object_differs": 1}
    assert sorted(by.encoder.prepared) == ["clip-000", "clip-001"]
    assert world.objects("clipfarm/embeddings") == good | {own: good[flipped]}
    assert run(world, verify_objects=True)[0].reasons == {}
