"""``make ui``: backfills of both kinds, the schedule, the sensor, and what a person sees.

Two deployments with the same clips: one backfills a range in one run, the other a run a partition.
Both servers start at once and work side by side, since most of their time is Dagster's daemons
looking every 30 s.
"""

import itertools
import shutil
from collections import Counter
from contextlib import ExitStack

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.defs.clips.common import ENCODER_POOL
from clipfarm_assets_tests.defs.test_definitions import ASSETS, CHECKS
from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.browser import browsing, require_chromium
from clipfarm_assets_tests.e2e.dagster_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

EMBEDDINGS = tuple(f"{modality}_embeddings" for modality in statuses.MODALITIES)
EMBED = ("clip_index", *EMBEDDINGS)
NAMES = sorted(key.removeprefix("clips/") for key in ASSETS)
SHARDS = {f"{day}|{strategy}" for day in kit.DAYS for strategy in statuses.STRATEGIES}
_PATIENCE = 600


class Deployed:
    """A site, its server, and the backfill launched on it."""

    def __init__(self, site, server, *assets) -> None:
        self.site, self.server = site, server
        self.backfill = server.backfill(assets, kit.DAYS)


@pytest.fixture(scope="module")
def deployments(tmp_path_factory):
    require_chromium()
    root = tmp_path_factory.mktemp("sites")
    common = {"CLIPFARM_START_DATE": "2026-02-01", "CLIPFARM_AUTOMATION_SECONDS": "2"}
    ranged = kit.Site(root / "ranged", common)
    single = kit.Site(root / "single", {**common, "CLIPFARM_BACKFILL": "per_partition"})
    for site in (ranged, single):
        site.prepare()
    kit.fill(ranged.store, kit.small_sample())
    shutil.copytree(ranged.root / "store", single.root / "store")
    with ExitStack() as stack:
        server = stack.enter_context(serving(ranged))
        first = Deployed(ranged, server, *EMBED, "embedding_manifest")
        second = Deployed(single, stack.enter_context(serving(single)), *EMBED)
        yield {"range": first, "per_partition": second}


def assert_each_date_has_its_own(server):
    """Metadata and check results of each date, however many runs made them."""
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


def span_of(run):
    """The first and the last partition of a run."""
    tags = {tag["key"]: tag["value"] for tag in run["tags"]}
    return tuple(tags[f"dagster/asset_partition_range_{end}"] for end in ("start", "end"))


def test_a_range_of_dates_is_one_run(deployments):
    server = deployments["range"].server
    (run,) = server.runs_of(deployments["range"].backfill, 1, _PATIENCE)
    assert span_of(run) == (kit.DAYS[0], kit.DAYS[-1])
    assert_each_date_has_its_own(server)
    results = server.checks("embedding_manifest", "index_rows_have_status")
    assert {day: results[day] for day in kit.DAYS} == dict.fromkeys(kit.DAYS, True)
    assert {run["id"]} == {found["run"] for found in server.materialised("clip_index").values()}


def test_the_schedule_and_the_sensor_are_there_and_off(deployments):
    server = deployments["range"].server
    assert server.automation() == {"clips_nightly": "STOPPED", "clips_automation": "STOPPED"}
    server.start_sensor("clips_automation")  # the tests below see what it did
    assert server.automation()["clips_automation"] == "RUNNING"


def test_a_partition_a_run_gives_the_same_bytes(deployments):
    server = deployments["per_partition"].server
    runs = server.runs_of(deployments["per_partition"].backfill, len(kit.DAYS), _PATIENCE)
    assert len(runs) == len(kit.DAYS)
    assert sorted(span_of(run) for run in runs) == [(day, day) for day in kit.DAYS]
    assert_each_date_has_its_own(server)
    vectors = deployments["per_partition"].site.embeddings()
    assert len(vectors) == 3 * 2 * kit.CLIPS_A_DAY
    assert vectors == deployments["range"].site.embeddings()


def test_one_encoder_works_at_a_time(deployments):
    server = deployments["per_partition"].server
    told = server.ask(
        """query ($key: String!) { instance { concurrencyLimit(concurrencyKey: $key) {
            slotCount
        } } }""",
        key=ENCODER_POOL,
    )
    assert told["instance"]["concurrencyLimit"]["slotCount"] == 1
    runs = server.look_at(deployments["per_partition"].backfill)["runs"]
    spans = sorted(
        (step["startTime"], step["endTime"])
        for run in runs
        for step in run["stepStats"]
        if step["stepKey"] in {f"clips__{name}" for name in EMBEDDINGS}
    )
    assert len(spans) == len(kit.DAYS) * len(EMBEDDINGS)
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert start >= end


def test_the_sensor_locks_fuses_and_publishes(deployments):
    server = deployments["range"].server
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


def test_the_backfills_are_complete(deployments):
    for deployed, runs in ((deployments["range"], 1), (deployments["per_partition"], 2)):

        def completed(deployed=deployed):
            told = deployed.server.look_at(deployed.backfill)
            return told if told["status"] != "REQUESTED" else None

        told = deployed.server.until("end of the backfill", completed, 180)
        assert told["status"] == "COMPLETED_SUCCESS", told
        assert len(told["runs"]) == runs


def is_trained(check):
    """Whether it is about what test_training_server sees."""
    return check.split(":")[0] in kit.TRAINED


@pytest.fixture(scope="module")
def page(deployments):
    with browsing(deployments["range"].server.url) as opened:
        yield opened


def test_a_person_sees_the_graph(page, tmp_path):
    page.resize(2000, 1125, scale=0.8)
    page.open("/locations/clipfarm/asset-groups/clips")
    page.until_it_shows("clips", "Asset Group in", *NAMES)
    page.click("//*[text()='Hide navigation']")
    assert len(page.boxes(NAMES)) >= len(NAMES)
    assert page.picture("asset-graph", tmp_path).startswith(b"\x89PNG")
    page.resize(1600, 900)


def test_a_person_sees_every_asset_in_the_catalog(page, tmp_path):
    page.open("/assets")
    page.until_it_shows(*(f"clips / {name}" for name in NAMES))
    page.picture("catalog", tmp_path)


def test_a_person_sees_the_numbers_of_a_date(page, tmp_path):
    page.open(f"/assets/clips/video_embeddings?view=partitions&partition={kit.DAYS[0]}")
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
    page.open(f"/assets/clips/video_embeddings?view=partitions&partition={kit.DAYS[0]}")
    page.click("//*[contains(text(), 'Show Markdown')]")
    (image,) = page.until(page.inline_images)
    assert image["width"] == 720, "the picture is broken"
    assert image["shown"] > 0
    page.picture("map", tmp_path)


@pytest.mark.parametrize("key", [key for key in sorted(CHECKS) if not is_trained(key)])
def test_a_person_sees_that_a_check_passed(page, tmp_path, key):
    asset, name = key.split(":")
    page.open(f"/assets/{asset}?view=checks&checkDetail={name}")
    page.until_it_shows(name, "Succeeded", "Passed", "examined")
    page.picture(f"check-{asset.removeprefix('clips/')}-{name}", tmp_path)


def test_the_sensor_comes_to_rest(deployments):
    """It repeats nothing that is done."""
    server = deployments["range"].server
    for name in ("schema_lock", "fused_shards", "fused_manifest"):
        times = Counter(event["partition"] for event in server.materialisations(name))
        assert set(times.values()) == {1}, (name, times)
