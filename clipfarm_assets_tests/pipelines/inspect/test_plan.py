"""What is planned is what the run then does: by reason, by date, exactly."""

from dataclasses import replace

import pytest

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.fuse import FuseOptions
from clipfarm_assets.pipelines.inspect.retry import failures, mark
from clipfarm_assets_tests.pipelines.inspect.kit import expected, files, plan_of, planner, reasons
from clipfarm_assets_tests.pipelines.kit import (
    CORRUPT,
    DAY_1,
    DAY_2,
    EMPTY,
    TERMINAL_TEXT,
    Clip,
    World,
    clips,
    door,
    npy_key,
    prepared,
)

FIRST = [
    *clips(4),
    Clip("mute", text=None, text_state=TERMINAL_TEXT),
    Clip("late", video=None),
    Clip("broken", audio=CORRUPT),
    Clip("waits", text=None, text_state="pending"),
    Clip("wordless", text=EMPTY, text_state="success"),
    Clip("moves"),
]
CHANGED = [
    replace(FIRST[0], url="https://youtu.be/elsewhere"),
    *FIRST[1:4],
    replace(FIRST[4], text=b"t"),
    replace(FIRST[5], video=b"v"),
    *FIRST[6:9],
    replace(FIRST[9], date=DAY_2),
    *clips(3, DAY_2, "new"),
    Clip("absent", DAY_2, audio=None),
]


def run(world, *dates):
    """The run's own counts: (stage, date) -> reason -> clips, and -> status -> clips."""
    done = {}
    for modality in MODALITIES:
        done |= {(r.stage, d): r for d, r in world.embed(modality, *dates).items()}
    world.lock()
    done |= {(r.stage, d): r for d, r in world.fuse(*dates).items()}
    worked = {key: report for key, report in done.items() if report.reasons}
    return (
        {key: dict(report.reasons) for key, report in worked.items()},
        {key: dict(sorted(report.statuses.items())) for key, report in worked.items()},
    )


def concat(found):
    """Without the strategies that the run here doesn't fuse."""
    return {key: value for key, value in found.items() if "pool" not in key[0]}


def test_the_first_run_is_planned_as_it_goes(world):
    world.fill([clip for clip in FIRST if clip.video_id not in {"broken", "wordless"}])
    planned = plan_of(world)
    did, came = run(world, DAY_1)
    assert concat(reasons(planned)) == did
    assert concat(expected(planned)) == came
    assert {i.date: (i.clips, i.stored) for i in planned.indexes} == {DAY_1: (8, "missing")}
    assert planned.fused_rows["concat"] == sum(
        came["fusion_concat", DAY_1].get(s, 0) for s in ("success_full", "success_text_placeholder")
    )
    assert any("no schema lock yet" in note for note in planned.notes)


def test_a_later_run_is_planned_as_it_goes(world):
    world.fill(FIRST)
    run(world, DAY_1)
    world.fill(CHANGED)
    planned = plan_of(world)
    did, came = run(world, DAY_1, DAY_2)
    assert concat(reasons(planned)) == did
    # Every reason is among them: else this would show little.
    assert {reason for counts in did.values() for reason in counts} == {
        "new",
        "source_changed",
        "unfinished",
        "text_arrived",
    }
    assert concat(expected(planned)) == came
    assert came["audio_embedding", DAY_1] == {"fail": 1, "success": 1}
    assert came["text_embedding", DAY_1] == {"missing_raw_object": 2, "success": 2}
    after = plan_of(world)
    assert concat(reasons(after)) == run(world, DAY_1, DAY_2)[0]


def test_a_plan_changes_nothing(fused):
    world = fused
    world.fill(CHANGED)
    world.close()
    before = files(world.root)
    assert any(reasons(plan_of(world)).values())
    assert files(world.root) == before


def test_another_version_is_planned_and_where_it_stops(fused):
    world = fused
    planned = plan_of(world, revision="r2")
    assert reasons(planned)["video_embedding", DAY_1] == {"version_changed": 5}
    assert "is locked to" in planned.stops["fusion_concat"]
    world.embed_all(DAY_1, revision="r2")
    with pytest.raises(RuntimeError, match="is locked to") as stopped:
        world.fuse(DAY_1)
    assert str(stopped.value) == planned.stops["fusion_concat"]
    world.lock(migrate=True)
    again = plan_of(world, revision="r2")
    assert again.stops == {}
    assert concat(reasons(again)) == run_fusion(world)


def run_fusion(world):
    return {(r.stage, d): dict(r.reasons) for d, r in world.fuse(DAY_1).items()}


def test_shards_of_a_killed_run_are_counted_as_taken_over(world, monkeypatch):
    world.fill(clips(5))
    world.embed_all(DAY_1)
    world.lock()

    def killed(self, *arguments, **options):
        msg = "killed"
        raise KeyboardInterrupt(msg)

    with monkeypatch.context() as patch:
        patch.setattr(type(world.ledger), "commit", killed)
        with pytest.raises(KeyboardInterrupt):
            world.fuse(DAY_1, shard_rows=2)
    assert world.shards(), "a shard without its rows"
    planned = plan_of(world)
    assert concat(reasons(planned)) == run_fusion(world)
    assert planned.fused_rows["concat"] < 5


def test_a_new_machine_plans_by_the_published_state(fused):
    fused.fill([*clips(5), *clips(2, DAY_2, "new")])
    there = World(fused.root, "second")
    planned = plan_of(there, machine="second")
    assert not (there.root / "second.sqlite").exists()
    assert concat(reasons(planned)) == run(there, DAY_1, DAY_2)[0]
    assert {date for _, date in concat(reasons(planned))} == {DAY_2}
    there.close()


def test_runs_that_are_at_work_are_told(world):
    world.fill(clips(1))
    with world.ledger.lease("video_embedding/2026-02-05"):
        (note, *_) = plan_of(world).notes
    assert note.startswith("video_embedding/2026-02-05 is worked on by ")


def test_dates_are_those_asked_for_within_the_partitions(world):
    early, outside = Clip("early", "2025-12-31"), Clip("outside", "2026-02-09")
    world.fill([*clips(2), *clips(1, DAY_2, "other"), early, outside])
    assert [i.date for i in plan_of(world).indexes] == [DAY_1, DAY_2]
    assert [i.date for i in plan_of(world, (DAY_2, "2026-03-01")).indexes] == [DAY_2]
    assert plan_of(world, ("2026-03-01", "2026-03-02")).indexes == ()
    assert plan_of(world).skipped == {"before_first_partition": 1, "after_last_partition": 1}


def test_a_stored_index_is_compared(world):
    from clipfarm_assets.storage.tables import table_to_parquet

    world.fill([*clips(2), *clips(2, DAY_2, "other")])
    for date in (DAY_1, DAY_2):
        (table,) = world.index(date).values()
        world.store.put(world.layout.clip_index(date), table_to_parquet(table))
    world.fill([*clips(2), *clips(3, DAY_2, "other")])
    assert [i.stored for i in plan_of(world).indexes] == ["current", "outdated"]
    world.store.put(world.layout.clip_index(DAY_1), b"no parquet")
    assert [i.stored for i in plan_of(world).indexes] == ["unreadable", "outdated"]


def test_many_raw_objects_are_listed_and_not_asked_for_one_by_one(world, monkeypatch):
    from clipfarm_assets.pipelines.inspect import planned_embedding

    world.fill([*clips(3), Clip("silent", audio=None)])
    one_by_one = expected(plan_of(world))
    monkeypatch.setattr(planned_embedding, "_WORTH_LISTING", 2)
    asked = []
    with planner(world) as planned:
        planned.store.exists = asked.append
        assert expected(planned.plan()) == one_by_one
    assert asked == []


def test_time_is_told_by_the_rows_of_past_runs_or_not_at_all(world):
    world.fill([*clips(20), *clips(10, DAY_2, "next")])
    assert plan_of(world).seconds is None
    for modality, second in (("video", 2), ("audio", 1), ("text", 1)):
        world.embed(modality, DAY_1, by=door(modality))
        stage = f"{modality}_embedding"
        rows = sorted(world.states(stage).values(), key=lambda item: item.video_id)
        world.ledger.commit(
            stage,
            [
                replace(item, processed_at=f"2026-02-05T10:00:{second * i:02d}.000000+00:00")
                for i, item in enumerate(rows)
            ],
        )
    planned = plan_of(world)
    rate = planned.rates["video_embedding"]
    assert (rate.per_second, rate.runs, rate.items) == (0.5, 1, 20)
    assert planned.seconds == pytest.approx(10 * (2 + 1 + 1))


def test_what_failed_is_expected_to_fail_again_until_there_is_a_reason_why_not(world):
    odd = Clip("odd", video=CORRUPT)
    world.fill([odd, *clips(1)])
    key = "video_embedding", DAY_1
    assert expected(plan_of(world))[key] == {"success": 2}, "nobody looked at it yet"
    world.embed("video", DAY_1, max_fail_retries=1)
    options = dict.fromkeys(MODALITIES, EmbedOptions(max_fail_retries=1))
    planned = plan_of(world, embedding=options)
    assert expected(planned)[key] == {"fail_terminal": 1}
    assert expected(plan_of(world, revision="r2"))[key] == {"success": 2}, "another encoder"
    with planner(world) as planned:
        found = failures(planned.deployment, planned.ledger, [key[0]], "fail", ["odd"])
    mark(world.deployment, found, "fail")
    assert expected(plan_of(world))[key] == {"success": 1}, "a person says that it is repaired"
    assert world.embed("video", DAY_1)[DAY_1].statuses == {"fail": 1}
    world.fill([replace(odd, url="https://youtu.be/other"), *clips(1)])
    assert expected(plan_of(world))[key] == {"success": 1}, "another source"


def test_what_was_given_up_is_expected_to_fail_again_when_it_is_tried_again(world):
    world.fill([Clip("odd", video=CORRUPT)])
    world.embed("video", DAY_1, max_fail_retries=0)
    options = EmbedOptions(max_fail_retries=0, retry_terminal=True)
    planned = plan_of(world, embedding=dict.fromkeys(MODALITIES, options))
    report = world.embed("video", DAY_1, max_fail_retries=0, retry_terminal=True)[DAY_1]
    assert expected(planned)["video_embedding", DAY_1] == report.statuses == {"fail_terminal": 1}


def test_a_fusion_that_failed_is_expected_to_fail_again_until_its_vector_is_mended(world):
    key = "fusion_concat", DAY_1
    prepared(world, clips(2))
    world.store.put(npy_key("audio", "clip-000"), b"broken")
    assert world.fuse(DAY_1, max_fail_retries=1)[DAY_1].statuses["fail"] == 1

    planned = plan_of(world, fusion=FuseOptions(max_fail_retries=1))
    assert world.fuse(DAY_1, max_fail_retries=1)[DAY_1].statuses == {"fail_terminal": 1}
    assert expected(planned)[key] == {"fail_terminal": 1}

    again = FuseOptions(max_fail_retries=1, retry_terminal=True)
    assert expected(plan_of(world, fusion=again))[key] == {"fail_terminal": 1}
    world.embed("audio", DAY_1, verify_objects=True)
    assert expected(plan_of(world, fusion=again))[key] == {"success_full": 1}
    report = world.fuse(DAY_1, max_fail_retries=1, retry_terminal=True)[DAY_1]
    assert report.statuses == {"success_full": 1}
