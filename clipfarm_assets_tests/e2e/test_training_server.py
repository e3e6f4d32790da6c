"""``make ui`` over training: a backfill of two jobs, what follows from it, and what a person sees.

The store is a generated one, and the suite what a deployment's setting says: one family of each
kind, so that every plot is there.
"""

import base64
import json
from collections import Counter

import polars as pl
import pytest

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.split_rules import SPLIT_KINDS
from clipfarm_assets.contracts.statuses import STRATEGIES
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.orchestration.metadata import rounded
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.training.artifacts import split_counts
from clipfarm_assets.training.dataset_file import read_dataset
from clipfarm_assets_tests.defs.test_definitions import CHECKS
from clipfarm_assets_tests.defs.test_serving_assets import busiest_date
from clipfarm_assets_tests.defs.training_kit import KEYS, TrainingBench
from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.browser import browsing, require_chromium
from clipfarm_assets_tests.e2e.dagster_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

CLIPS = 300
DIMS = {"video": 12, "audio": 12, "text": 12}
FAMILIES = ["mean", "ridge", "gated_fusion_mlp"]
SUITE = {"families": FAMILIES, "max_epochs": 20}
KEY = "7|concat"
PLOTS = ("coverage", "curves", "gate_weights", "importance", "predictions", "residuals")
_PATIENCE = 600


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A site whose one date is the busiest of the generated ones."""
    root = tmp_path_factory.mktemp("site")
    variables = {"CLIPFARM_SUITE_CONFIG": json.dumps(SUITE)}
    kit.Site(root).prepare()
    make_planted_store(
        kit.Site(root).store, Layout(), clips=CLIPS, dims=DIMS, strategies=["concat"]
    )
    date = busiest_date(TrainingBench(root))
    variables |= {"CLIPFARM_START_DATE": date, "CLIPFARM_END_DATE": date}
    return kit.Site(root, variables), date


@pytest.fixture(scope="module")
def server(planted):
    require_chromium()
    with serving(planted[0]) as started:
        yield started


@pytest.fixture(scope="module")
def backfill(server):
    return server.backfill(("training_dataset", "model_snapshots"), KEYS)


@pytest.fixture(scope="module")
def trained(server, backfill):
    """The backfill's runs, ended."""
    return server.runs_of(backfill, len(KEYS), _PATIENCE)


# The tests below are one story, in this order: each step needs what the one before made.


def test_a_backfill_is_a_run_a_partition_under_one_run_id(server, backfill, trained):
    assert len(trained) == len(KEYS)
    tags = [{tag["key"]: tag["value"] for tag in run["tags"]} for run in trained]
    assert {tag["dagster/backfill"] for tag in tags} == {backfill}
    snapshots = server.materialised("model_snapshots")
    assert {key: found["run_id"] for key, found in snapshots.items()} == dict.fromkeys(
        KEYS, backfill
    )
    assert {found["run"] for found in snapshots.values()} == {run["id"] for run in trained}
    for name in ("training_dataset", "model_snapshots"):
        times = Counter(event["partition"] for event in server.materialisations(name))
        assert times.keys() == set(KEYS), name


@pytest.fixture(scope="module")
def followed(planted, server, trained):
    """What can be run once there are models: launched, while the pages below are looked at."""
    return [
        server.launch("clips_compare"),
        server.launch("clips_promote", "7", model_registry={"family": "ridge"}),
        server.launch("clips_daily", planted[1], only=["clip_index"]),
    ]


@pytest.fixture(scope="module")
def page(server):
    with browsing(server.url) as opened:
        yield opened


def test_a_person_sees_the_rows_and_splits_of_a_dataset(planted, followed, page, tmp_path):
    data = read_dataset(planted[0].store, Layout(), "concat", 7)
    assert data.splits.keys() == set(SPLIT_KINDS)
    page.open(f"/assets/clips/training_dataset?view=partitions&partition={KEY}")
    page.until_it_shows(
        "Materialized",
        f"manifest_rows {CLIPS} rows of the fused manifest",
        f"rows {CLIPS} clips to train on",
        "view_count dropped 0 known only after the outcome",
        *(
            " ".join([kind, *(str(n) for n in split_counts(data, kind).values())])
            for kind in data.splits
        ),
    )
    page.picture("training-dataset", tmp_path)


def shown(value):
    """A cell as the browser writes it: no point where a number is whole."""
    value = rounded(value)
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def test_a_person_sees_the_leaderboard_of_a_snapshot(planted, server, followed, page, tmp_path):
    root = server.materialised("model_snapshots")[KEY]["snapshot"]
    board = pl.read_csv(planted[0].store.get(f"{root}leaderboard.csv"))
    assert sorted(board["family"]) == sorted(FAMILIES)
    page.open(f"/assets/clips/model_snapshots?view=partitions&partition={KEY}")
    page.until_it_shows(
        *(f"Materialized ({len(KEYS)})", f"Missing ({len(STRATEGIES) * len(HORIZONS) - 2})"),
        *(str(horizon) for horizon in HORIZONS),
        *(*STRATEGIES, KEY, root),
        " ".join(board.columns),
        *(" ".join(shown(value) for value in row) for row in board.iter_rows()),
    )
    page.picture("model-snapshot", tmp_path)


@pytest.mark.parametrize("plot", PLOTS)
def test_a_person_sees_the_plots_of_a_snapshot(planted, server, followed, page, tmp_path, plot):
    stored = planted[0].store.get(
        f"{server.materialised('model_snapshots')[KEY]['snapshot']}plots/{plot}.png"
    )
    page.open(f"/assets/clips/model_snapshots?view=partitions&partition={KEY}")
    page.click(f"//tr[td[.='plot/{plot}']]//*[contains(text(), 'Show Markdown')]")
    (image,) = page.until(page.inline_images)
    assert base64.b64decode(image["src"].partition(",")[2]) == stored
    assert image["width"] > 200, "the picture is broken"
    assert image["shown"] > 0
    page.picture(f"plot-{plot}", tmp_path)


@pytest.fixture(scope="module")
def scored(planted, server, followed):
    """A run that scores, launched; what it needs has ended."""
    for run in followed:
        server.finish(run, _PATIENCE)
    return server.launch("clips_score", planted[1])


def test_a_comparison_finds_the_models_of_the_whole_backfill(
    planted, server, backfill, scored, page, tmp_path
):
    (found,) = server.materialised("model_comparison").values()
    assert found["run_id"] == backfill
    assert found["dagster/row_count"] == len(FAMILIES) * len(KEYS)
    key = Layout().comparison(backfill, "metrics_comparison.csv")
    rows = pl.read_csv(planted[0].store.get(key)).select("horizon_days", "strategy", "family")
    assert sorted(rows.iter_rows()) == sorted(
        (horizon, "concat", family) for horizon in HORIZONS for family in FAMILIES
    )
    page.open("/assets/clips/model_comparison?view=events")
    page.until_it_shows(backfill, *(f"{horizon} concat" for horizon in HORIZONS), "missing_jobs")
    page.picture("model-comparison", tmp_path)


def test_the_promoted_model_scores_every_clip_of_a_date(planted, server, scored):
    server.finish(scored, _PATIENCE)
    assert server.materialised("model_registry")["7"]["model_version"] == "h7-v1"
    found = server.materialised("clip_predictions")[planted[1]]
    assert found["dagster/row_count"] == found["clips"] > 0


@pytest.mark.parametrize("key", [k for k in sorted(CHECKS) if k.split(":")[0] in kit.TRAINED])
def test_a_person_sees_that_a_check_passed(scored, page, tmp_path, key):
    asset, name = key.split(":")
    page.open(f"/assets/{asset}?view=checks&checkDetail={name}")
    page.until_it_shows(name, "Succeeded", "Passed", "examined")
    page.picture(f"check-{asset.removeprefix('clips/')}-{name}", tmp_path)


def test_the_backfill_is_complete_and_trained_each_job_once(server, backfill):
    told = server.until(
        "end of the backfill",
        lambda: (found := server.look_at(backfill))["status"] != "REQUESTED" and found,
        180,
    )
    assert told["status"] == "COMPLETED_SUCCESS", told
    assert len(told["runs"]) == len(KEYS)
