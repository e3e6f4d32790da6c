"""Sensors on what others write: each asks for the right dates, once, and says what it looked at."""

import dagster as dg
import pytest
from dagster_aws.s3 import S3Resource

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.horizon_csv import HorizonCsvError
from clipfarm_assets.definitions import defs
from clipfarm_assets.defs.clips import sensors
from clipfarm_assets.orchestration import partitions, requests
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.watch import raw_arrivals
from clipfarm_assets.storage.objects import StoreUnavailable
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    EMPTY,
    TERMINAL_TEXT,
    Clip,
    World,
    clips,
)
from clipfarm_assets_tests.stores import CountingStore

FAR_DAY = "2026-03-01"
START, END = requests.RANGE_START, requests.RANGE_END


@pytest.fixture
def world(tmp_path):
    with World(tmp_path) as opened:
        yield opened


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


class Ticks:
    """One sensor as the daemon evaluates it, with its cursor."""

    def __init__(self, name, world, instance) -> None:
        self.sensor, self.instance, self.cursor = defs.resolve_sensor_def(name), instance, None
        self.deployment = DeploymentResource(
            store=str(world.root / "store"),
            ledger=f"sqlite:///{world.root / 'machine'}.sqlite",
            s3=S3Resource(),
        )

    def look(self):
        """A tick whose end nobody hears of: its cursor is lost."""
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            sensor_name=self.sensor.name,
            repository_def=defs.get_repository_def(),
            resources={"deployment": self.deployment},
        ) as context:
            return self.sensor.evaluate_tick(context)

    def tick(self):
        """The requests, or why there is none; the cursor is kept."""
        told = self.look()
        self.cursor = told.cursor
        assert bool(told.run_requests) != bool(told.skip_message)
        return list(told.run_requests) or told.skip_message


def spans(told):
    return [(request.tags[START], request.tags[END]) for request in told]


def indexed(world, *dates):
    """As the asset `clips/clip_index` does."""
    for date, table in world.index(*dates).items():
        world.store.put(world.layout.clip_index(date), table_to_parquet(table))


def at_work(instance, request, sensor, status=dg.DagsterRunStatus.STARTED):
    """A run of the request, as the daemon makes it."""
    tags = {**request.tags, requests.SENSOR: sensor, "dagster/run_key": request.run_key}
    run_id = dg._core.utils.make_new_run_id()
    run = dg.DagsterRun(request.job_name, run_id=run_id, status=status, tags=tags)
    return instance.add_run(run)


def test_they_are_off_until_somebody_switches_them_on():
    for sensor in sensors.ALL:
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED


# The metadata CSV.


def test_a_new_csv_asks_for_the_dates_that_it_changes(world, instance):
    ticks = Ticks("clips_csv_changed", world, instance)
    assert "there is no clipfarm/metadata/" in ticks.tick()
    world.fill([*clips(2), *clips(2, DAY_2, "next"), Clip("far", FAR_DAY)])
    told = ticks.tick()
    assert spans(told) == [(DAY_1, DAY_2), (FAR_DAY, FAR_DAY)]
    assert {request.job_name for request in told} == {"clips_daily"}
    assert "was not written since" in ticks.tick()

    indexed(world, DAY_1, DAY_2, FAR_DAY)
    # A clip that was captured again leaves a date for another; far's date has lost its last one.
    world.fill([*clips(2), *clips(2, DAY_2, "next"), Clip("far", DAY_2)])
    assert spans(ticks.tick()) == [(DAY_2, DAY_2), (FAR_DAY, FAR_DAY)]


def test_what_is_indexed_is_not_asked_for_again(world, instance):
    world.fill(clips(2))
    indexed(world, DAY_1)
    ticks = Ticks("clips_csv_changed", world, instance)
    assert "0 dates differ from the stored indexes" in ticks.tick()
    world.store.put(world.layout.metadata(), world.store.get(world.layout.metadata()))
    assert "of its 2 clips on 1 dates, those of 0 dates differ" in ticks.tick()


def test_a_tick_whose_cursor_was_lost_asks_for_the_same_run(world, instance):
    ticks = Ticks("clips_csv_changed", world, instance)
    world.fill(clips(2))
    lost = ticks.look().run_requests
    again = ticks.tick()
    assert [r.run_key for r in lost] == [r.run_key for r in again]
    world.fill(clips(3))
    assert [r.run_key for r in ticks.tick()] != [r.run_key for r in again], "another file"


def test_a_csv_that_is_none_fails_the_tick_and_leaves_the_cursor(world, instance):
    ticks = Ticks("clips_csv_changed", world, instance)
    world.store.put(world.layout.metadata(), b"<html>not found</html>")
    with pytest.raises(HorizonCsvError, match="must have the columns"):
        ticks.tick()
    assert ticks.cursor is None
    world.fill(clips(1))
    assert spans(ticks.tick()) == [(DAY_1, DAY_1)]


def test_before_the_first_partition_there_is_nothing_to_ask_for(world, instance, monkeypatch):
    world.fill(clips(1))
    monkeypatch.setattr(partitions, "dates", dg.DailyPartitionsDefinition("2999-01-01"))
    ticks = Ticks("clips_csv_changed", world, instance)
    assert ticks.tick() == "there is no date partition yet"


# Raw objects.


def waiting(world, *some):
    """Clips embedded while their videos were missing."""
    world.fill([Clip("aaa"), *some])
    for date in {clip.date for clip in some}:
        world.embed("video", date)


def put_raw(world, *some):
    for video_id in some:
        world.store.put(world.layout.raw("video", video_id), b"late")


def test_a_raw_object_that_came_late_asks_for_its_date_however_old(world, instance):
    waiting(world, Clip("late", video=None), Clip("later", FAR_DAY, video=None))
    ticks = Ticks("clips_raw_arrived", world, instance)
    assert ticks.tick() == "looked for 2 raw objects that clips wait for: none has come"
    put_raw(world, "later")
    lost = ticks.look().run_requests
    (request,) = ticks.tick()
    assert spans([request]) == [(FAR_DAY, FAR_DAY)]
    assert [r.run_key for r in lost] == [request.run_key]

    # While that run is at work nothing more is asked for on its date; afterwards it is.
    run = at_work(instance, request, "clips_raw_arrived")
    assert "1 of dates that a run was asked for and has not ended" in ticks.tick()
    put_raw(world, "late")
    assert spans(ticks.tick()) == [(DAY_1, DAY_1)]
    instance.report_run_failed(run)
    assert spans(ticks.tick()) == [(DAY_1, DAY_1), (FAR_DAY, FAR_DAY)]
    world.embed("video", DAY_1, FAR_DAY)
    assert ticks.tick() == "looked for 0 raw objects that clips wait for: none has come"


def test_an_object_that_held_nothing_has_come_when_it_is_written_again(world, instance):
    """Else it would have come at each look, for ever."""
    waiting(world, Clip("blank", video=EMPTY), Clip("late", FAR_DAY, video=None))
    assert world.statuses("video_embedding")["blank"] == statuses.MISSING_RAW_OBJECT
    ticks = Ticks("clips_raw_arrived", world, instance)
    assert ticks.tick() == "looked for 2 raw objects that clips wait for: none has come"

    put_raw(world, "blank")

    assert spans(ticks.tick()) == [(DAY_1, DAY_1)]
    world.embed("video", DAY_1, FAR_DAY)
    assert ticks.tick() == "looked for 1 raw objects that clips wait for: none has come"


def test_of_many_that_wait_some_are_looked_for_at_a_time(world):
    """What a tick costs is known whatever the bucket holds."""
    count, limit = 25, 10
    waiting(world, *clips(count, video=None))
    for index in range(40):
        world.store.put(world.layout.raw("video", f"other-{index}"), b"v")
    put_raw(world, "clip-012", "clip-024")
    store = CountingStore(str(world.root / "store"))
    resource = DeploymentResource(
        store=str(world.root / "store"),
        ledger=f"sqlite:///{world.root / 'machine'}.sqlite",
        s3=S3Resource(),
    )
    found, after = [], ""
    with resource.reading(5) as (opened, ledger):
        deployment = type(opened)(store, opened.layout, ledger)
        for _ in range(3):
            store.reset()
            swept = raw_arrivals.sweep(deployment, ledger, after, limit)
            after = swept.after
            found += [arrival.video_id for arrival in swept.arrivals]
            assert len(store.calls) == store.count("head") == swept.looked_for <= limit
    assert found == ["clip-012", "clip-024"]
    assert after == "", "the next one begins anew"


def test_clips_in_no_partition_are_told(world, instance):
    waiting(world, Clip("gone", video=None))
    world.fill([Clip("aaa")])
    put_raw(world, "gone")
    ticks = Ticks("clips_raw_arrived", world, instance)
    assert ticks.tick().endswith("1 have come, 1 of clips in no partition")


@pytest.mark.parametrize("name", [sensor.name for sensor in sensors.ALL])
def test_a_store_that_does_not_answer_fails_the_tick(world, instance, monkeypatch, name):
    waiting(world, Clip("late", video=None))
    ticks = Ticks(name, world, instance)
    ticks.cursor = cursor = "video/aaa" if name == "clips_raw_arrived" else "seen"

    def refuse(*_):
        msg = "HEAD failed 9 times in 20 s, at last with 503 SlowDown"
        raise StoreUnavailable(msg)

    with monkeypatch.context() as patch:
        patch.setattr("clipfarm_assets.storage.folder.FolderBackend.head", refuse)
        with pytest.raises(StoreUnavailable, match="503 SlowDown"):
            ticks.tick()
    assert ticks.cursor == cursor
    ticks.tick()


# The text downloader's state.


def test_texts_that_are_given_up_are_fused_without(world, instance):
    some = [
        Clip("aaa"),
        Clip("pending", text=None, text_state="fail"),
        Clip("other", DAY_2, text=None),
        Clip("unlike", FAR_DAY, text=None),
    ]
    world.fill(some)
    world.embed_all(DAY_1, DAY_2, FAR_DAY)
    for strategy in ("concat", "max_pool"):
        world.lock(strategy)
        world.fuse(DAY_1, DAY_2, FAR_DAY, strategy=strategy)
    assert world.statuses("fusion_concat")["pending"] == statuses.MISSING_TEXT_PENDING
    ticks = Ticks("clips_text_settled", world, instance)
    assert "of 3 clips that wait for their text, 0 may be fused now" in ticks.tick()
    assert "was not written since" in ticks.tick()

    told = {"pending": (TERMINAL_TEXT, None), "other": (TERMINAL_TEXT, some[2].source_hash)}
    world.write_text_states({**told, "unlike": (TERMINAL_TEXT, "of another source")})
    lost = ticks.look().run_requests
    found = ticks.tick()
    assert spans(found) == [
        (f"{DAY_1}|concat", f"{DAY_2}|concat"),
        (f"{DAY_1}|max_pool", f"{DAY_2}|max_pool"),
    ]
    assert {request.job_name for request in found} == {"clips_fuse"}
    assert [r.run_key for r in lost] == [r.run_key for r in found]
    world.fuse(DAY_1, DAY_2)
    world.fuse(DAY_1, DAY_2, strategy="max_pool")
    assert "was not written since" in ticks.tick()


def test_a_damaged_state_is_told_and_looked_at_again(world, instance):
    world.fill([Clip("aaa", text=None)])
    world.store.put(world.layout.text_downloader_state(), b"not sqlite")
    ticks = Ticks("clips_text_settled", world, instance)
    assert "text_downloader.sqlite" in ticks.tick()
    assert not ticks.cursor
    world.write_text_states({})
    assert "may be fused now" in ticks.tick()


def test_ranges_are_of_dates_that_follow_each_other():
    days = [f"2026-02-{day:02d}" for day in range(1, 10)]
    ranges = requests.date_ranges({*days[1:4], days[6], "2025-01-01"}, days)
    assert ranges == [
        requests.DateRange(days[1], days[3]),
        requests.DateRange(days[6], days[6]),
    ]
    assert requests.date_ranges((), days) == []
