"""``make ui`` over clips: a backfill, the schedule, the sensor, and what a person sees.

A backfill of a range is one run; one of a run a partition is what test_models_server sees.
"""

from collections import Counter
from itertools import pairwise

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.defs.clips.common import ENCODER_POOL
from clipfarm_assets_tests.defs.test_definitions import ASSETS, CHECKS, SENSORS
from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.browser import browsing, require_chromium
from clipfarm_assets_tests.e2e.dagster_pages import (
    by_asset,
    see_checks,
    see_graph,
    see_inline_image,
)
from clipfarm_assets_tests.e2e.dagster_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

EMBEDDINGS = tuple(f"{modality}_embeddings" for modality in statuses.MODALITIES)
BACKFILLED = ("clip_index", *EMBEDDINGS, "embedding_manifest")
NAMES = sorted(key.removeprefix("clips/") for key in ASSETS)
SHARDS = {f"{day}|{strategy}" for day in kit.DAYS for strategy in statuses.STRATEGIES}
VIDEO = f"/assets/clips/video_embeddings?view=partitions&partition={kit.DAYS[0]}"
_PATIENCE = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    require_chromium()
    variables = {
        "CLIPFARM_START_DATE": "2026-02-01",
        "CLIPFARM_END_DATE": "2026-02-07",
        "CLIPFARM_AUTOMATION_SECONDS": "5",
    }
    site = kit.Site(tmp_path_factory.mktemp("site"), variables)
    site.prepare()
    kit.fill(site.store, kit.small_sample())
    with serving(site) as started:
        yield started


@pytest.fixture(scope="module")
def backfill(server):
    return server.backfill(BACKFILLED, kit.DAYS)


@pytest.fixture(scope="module")
def page(server):
    with browsing(server.url) as opened:
        yield opened


# The tests below are one story, in this order: each step needs what the one before made. The
# daemon looks only every 30 s for backfills: meanwhile, a person looks around.


def test_the_schedule_and_the_sensor_are_there_and_off(server, backfill):
    assert server.automation() == dict.fromkeys({"clips_nightly", *SENSORS}, "STOPPED")


def test_a_person_sees_the_graph(page, tmp_path):
    see_graph(page, "clips", NAMES, "asset-graph", tmp_path)


def test_a_person_sees_every_asset_in_the_catalog(page, tmp_path):
    page.open("/assets")
    page.until_it_shows(*(f"clips / {name}" for name in NAMES))
    page.picture("catalog", tmp_path)
    page.leave()


def test_a_range_of_dates_is_one_run(server, backfill):
    (run,) = server.runs_of(backfill, 1, _PATIENCE)
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    assert tags["dagster/asset_partition_range_start"] == kit.DAYS[0]
    assert tags["dagster/asset_partition_range_end"] == kit.DAYS[-1]
    assert {run["id"]} == {found["run"] for found in server.materialised("clip_index").values()}
    server.start_sensor("clips_automation")  # the tests below see what it does
    assert server.automation()["clips_automation"] == "RUNNING"


def test_each_date_has_its_own_numbers_and_results(server):
    """However many dates one run made."""
    index = server.materialised("clip_index")
    assert {day: index[day]["dagster/row_count"] for day in kit.DAYS} == dict.fromkeys(kit.DAYS, 3)
    for name in EMBEDDINGS:
        shown = server.materialised(name)
        assert set(shown) == set(kit.DAYS), name
        for day in kit.DAYS:
            assert shown[day]["all_clips/success"] == kit.CLIPS_A_DAY
            assert shown[day]["clips_per_second"] > 0
            assert "data:image/png;base64," in shown[day]["map"]
        assert shown[kit.DAYS[0]]["map"] != shown[kit.DAYS[1]]["map"]
        results = server.checks(name, "embeddings_valid")
        assert {day: results[day] for day in kit.DAYS} == dict.fromkeys(kit.DAYS, True)
    results = server.checks("embedding_manifest", "index_rows_have_status")
    assert {day: results[day] for day in kit.DAYS} == dict.fromkeys(kit.DAYS, True)


def test_one_encoder_works_at_a_time(server, backfill):
    assert server.slots(ENCODER_POOL) == 1
    spans = sorted(span for n in EMBEDDINGS for span in server.spans(backfill, f"clips/{n}"))
    assert len(spans) == len(EMBEDDINGS)
    for (_, end), (start, _) in pairwise(spans):
        assert start >= end


def test_the_sensor_locks_fuses_and_publishes(server):
    strategies = set(statuses.STRATEGIES)
    server.until("lock", lambda: set(server.materialised("schema_lock")) == strategies, _PATIENCE)
    server.until("shards", lambda: set(server.materialised("fused_shards")) == SHARDS, _PATIENCE)

    def published():
        return set(server.materialised("fused_manifest")) == strategies

    server.until("manifest", published, _PATIENCE)
    for found in server.materialised("fused_manifest").values():
        assert found["dagster/row_count"] == len(kit.DAYS) * kit.CLIPS_A_DAY
    for check in ("pointers_resolve", "manifest_unique"):

        def passed(check=check):
            results = server.checks("fused_manifest", check)
            return all(results.get(strategy) for strategy in strategies)

        server.until(check, passed, _PATIENCE)


def test_the_backfill_is_complete(server, backfill):
    def completed():
        told = server.look_at(backfill)
        return told if told["status"] != "REQUESTED" else None

    told = server.until("end of the backfill", completed, 180)
    assert told["status"] == "COMPLETED_SUCCESS", told
    assert len(told["runs"]) == 1


def test_a_person_sees_the_numbers_of_a_date(page, tmp_path):
    page.open(VIDEO)
    page.until_it_shows(
        *kit.DAYS,
        *(
            "Materialized",
            "all_clips/success",
            "clips_per_second",
            "delta/new",
            "samples",
            "version",
        ),
        *(clip.video_id for clip in kit.small_sample() if clip.date == kit.DAYS[0]),
    )
    page.picture("partition", tmp_path)


def test_a_person_sees_the_map_of_a_date(page, tmp_path):
    page.open(VIDEO)
    image = see_inline_image(page, "map", "map", tmp_path)
    assert image["width"] == 720, "the picture is broken"


# What only trained models have, is seen elsewhere.
@pytest.mark.parametrize(
    ("asset", "names"), by_asset(k for k in CHECKS if k.split(":")[0] not in kit.TRAINED)
)
def test_a_person_sees_that_checks_passed(server, page, tmp_path, asset, names):
    see_checks(page, asset, names, tmp_path)


def test_the_sensor_comes_to_rest(server):
    """It repeats nothing that is done."""
    for name in ("schema_lock", "fused_shards", "fused_manifest"):
        times = Counter(event["partition"] for event in server.materialisations(name))
        assert set(times.values()) == {1}, (name, times)
