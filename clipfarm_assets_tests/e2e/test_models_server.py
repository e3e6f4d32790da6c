"""``make ui`` over models of clips, memes and songs: their runs, and what a person sees.

One deployment has all three. Its clips are generated vectors, and the suite is what its settings
say: one family of each kind, so that every plot is there. Its memes are images and JSON lines that
go all the way to models; their experts are tiny stand-ins. Its songs have models before the server
starts, which compares them.
"""

import json
from collections import Counter
from itertools import pairwise

import dagster as dg
import polars as pl
import pytest

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.meme_rows import SPLITS
from clipfarm_assets.contracts.split_rules import SPLIT_KINDS
from clipfarm_assets.contracts.statuses import STRATEGIES
from clipfarm_assets.defs.options import TRAINING_POOL
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES
from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.orchestration.metadata import rounded
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES
from clipfarm_assets.training.artifacts import split_counts
from clipfarm_assets.training.dataset_file import read_dataset
from clipfarm_assets_tests.defs.meme_kit import LABEL, MemeBench
from clipfarm_assets_tests.defs.song_kit import CONFIG as SONGS_CONFIG
from clipfarm_assets_tests.defs.song_kit import SongBench
from clipfarm_assets_tests.defs.test_definitions import (
    CHECKS,
    MEME_ASSETS,
    MEME_CHECKS,
    SONG_ASSETS,
    SONG_CHECKS,
)
from clipfarm_assets_tests.defs.test_serving_assets import busiest_date
from clipfarm_assets_tests.defs.training_kit import KEYS, TrainingBench
from clipfarm_assets_tests.e2e import kit
from clipfarm_assets_tests.e2e.browser import browsing, require_chromium
from clipfarm_assets_tests.e2e.dagster_pages import by_asset, see_checks, see_graph, see_plot
from clipfarm_assets_tests.e2e.dagster_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

CLIPS = 300
DIMS = {"video": 12, "audio": 12, "text": 12}
FAMILIES = ["mean", "ridge", "gated_fusion_mlp"]
SUITE = {"families": FAMILIES, "max_epochs": 20}
KEY = "7|concat"
PLOTS = ("coverage", "curves", "gate_weights", "importance", "predictions", "residuals")
MEMES = 96
MEME_NAMES = sorted(key.removeprefix("memes/") for key in MEME_ASSETS)
MEME_PLOTS = ("confusion", "curves", "intervals", "reliability", "roc")
VERDICT = "fusion_beats_unimodal"
SONG_NAMES = sorted(key.removeprefix("songs/") for key in SONG_ASSETS)
SONG_PLOTS = ("confusion", "degradation", "gradients", "intervals", "shapley", "subsets")
# What is found of so few songs, and of models that cost nothing, is no matter here.
SONG_VERDICTS = (
    "fusion_beats_single",
    "gradients_balanced",
    "modalities_cover",
    "segments_aligned",
)
_PATIENCE = 600


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site with clips, whose one date is the busiest of the generated ones, memes and songs."""
    root = tmp_path_factory.mktemp("site")
    kit.Site(root).prepare()
    store = kit.Site(root).store
    make_planted_store(store, Layout(), clips=CLIPS, dims=DIMS, strategies=["concat"])
    make_memes(store, MemeLayout(), "xor", MEMES, edge_cases=True)
    date = busiest_date(TrainingBench(root))
    experts = {
        f"CLIPFARM_{modality.upper()}_EXPERT_CONFIG": json.dumps(
            {"base": str(path), "max_epochs": 1}
        )
        for modality, path in MemeBench(root).bases.items()
    }
    clips = {
        "CLIPFARM_SUITE_CONFIG": json.dumps(SUITE),
        "CLIPFARM_START_DATE": date,
        "CLIPFARM_END_DATE": date,
    }
    settings = {"CLIPFARM_SONGS_CONFIG": json.dumps({"config": SONGS_CONFIG})}
    made = kit.Site(root, {**clips, **experts, **settings})
    songs = SongBench(root).make()
    with dg.DagsterInstance.from_config(made.environ["DAGSTER_HOME"]) as instance:
        songs.prepare(instance)
        songs.train(instance, (FUSION_STRATEGIES[0], FUSION_STRATEGIES[-1]))
    return made


@pytest.fixture(scope="module")
def server(site):
    require_chromium()
    with serving(site) as started:
        yield started


@pytest.fixture(scope="module")
def backfill(server):
    return server.backfill(("training_dataset", "model_snapshots"), KEYS)


@pytest.fixture(scope="module")
def packed(server, backfill):
    """Memes observed, divided and packed, while the daemon has yet to see the backfill."""
    for job in ("memes_observe", "memes_split"):
        server.finish(server.launch(job), _PATIENCE)
    server.finish(server.launch("memes_pack", span=(SPLITS[0], SPLITS[-1])), _PATIENCE)
    return server


@pytest.fixture(scope="module")
def training_memes(packed):
    """A run that trains the memes' models, launched."""
    return packed.launch("memes_train", LABEL)


@pytest.fixture(scope="module")
def trained(server, backfill, training_memes):
    """The backfill's runs, ended."""
    return server.runs_of(backfill, len(KEYS), _PATIENCE)


@pytest.fixture(scope="module")
def followed(site, server, trained):
    """What can be run once there are models: launched, while the pages below are looked at."""
    return [
        server.launch("clips_compare"),
        server.launch("songs_compare"),
        server.launch("clips_promote", "7", model_registry={"family": "ridge"}),
        server.launch("clips_daily", site.variables["CLIPFARM_START_DATE"], only=["clip_index"]),
    ]


@pytest.fixture(scope="module")
def page(server):
    with browsing(server.url) as opened:
        yield opened


# The tests below are one story, in this order: each step needs what the one before made. That of
# clips is told while the memes' models are trained.


def test_all_splits_are_packed_in_one_run(packed):
    shards = packed.materialised("shards", "memes")
    assert set(shards) == set(SPLITS)
    assert len({found["run"] for found in shards.values()}) == 1
    rows = sum(found["dagster/row_count"] for found in shards.values())
    assert rows == MEMES + sum(case.expected.in_shards for case in EDGE_CASES)


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


def test_one_suite_is_fitted_at_a_time(server, backfill, trained):
    """Of two runs: the pool is the deployment's."""
    assert server.slots(TRAINING_POOL) == 1
    spans = server.spans(backfill, "clips/model_snapshots")
    assert len(spans) == len(KEYS)
    for (_, end), (start, _) in pairwise(spans):
        assert start >= end


def test_a_person_sees_the_rows_and_splits_of_a_dataset(site, followed, page, tmp_path):
    data = read_dataset(site.store, Layout(), "concat", 7)
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


def test_a_person_sees_the_leaderboard_and_plots_of_a_snapshot(
    site, server, followed, page, tmp_path
):
    root = server.materialised("model_snapshots")[KEY]["snapshot"]
    board = pl.read_csv(site.store.get(f"{root}leaderboard.csv"))
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
    for plot in PLOTS:
        see_plot(page, plot, site.store.get(f"{root}plots/{plot}.png"), f"plot-{plot}", tmp_path)


@pytest.fixture(scope="module")
def scored(site, server, followed):
    """A run that scores, launched; what it needs has ended."""
    for run in followed:
        server.finish(run, _PATIENCE)
    return server.launch("clips_score", site.variables["CLIPFARM_START_DATE"])


def test_a_comparison_finds_the_models_of_the_whole_backfill(
    site, server, backfill, scored, page, tmp_path
):
    (found,) = server.materialised("model_comparison").values()
    assert found["run_id"] == backfill
    assert found["dagster/row_count"] == len(FAMILIES) * len(KEYS)
    key = Layout().comparison(backfill, "metrics_comparison.csv")
    rows = pl.read_csv(site.store.get(key)).select("horizon_days", "strategy", "family")
    assert sorted(rows.iter_rows()) == sorted(
        (horizon, "concat", family) for horizon in HORIZONS for family in FAMILIES
    )
    page.open("/assets/clips/model_comparison?view=events")
    page.until_it_shows(backfill, *(f"{horizon} concat" for horizon in HORIZONS), "missing_jobs")
    page.picture("model-comparison", tmp_path)


def test_the_promoted_model_scores_every_clip_of_a_date(site, server, scored):
    server.finish(scored, _PATIENCE)
    assert server.materialised("model_registry")["7"]["model_version"] == "h7-v1"
    found = server.materialised("clip_predictions")[site.variables["CLIPFARM_START_DATE"]]
    assert found["dagster/row_count"] == found["clips"] > 0


@pytest.mark.parametrize(
    ("asset", "names"), by_asset(k for k in CHECKS if k.split(":")[0] in kit.TRAINED)
)
def test_a_person_sees_that_checks_of_models_passed(scored, page, tmp_path, asset, names):
    see_checks(page, asset, names, tmp_path)


def test_the_backfill_is_complete_and_trained_each_job_once(server, backfill):
    told = server.until(
        "end of the backfill",
        lambda: (found := server.look_at(backfill))["status"] != "REQUESTED" and found,
        60,
    )
    assert told["status"] == "COMPLETED_SUCCESS", told
    assert len(told["runs"]) == len(KEYS)


# The story of memes.


@pytest.fixture(scope="module")
def memes(server, training_memes):
    """The server, when the memes' models are trained."""
    server.finish(training_memes, _PATIENCE)
    return server


def test_a_person_sees_the_graph_of_memes(memes, page, tmp_path):
    see_graph(page, "memes", MEME_NAMES, "meme-graph", tmp_path)


def test_a_person_sees_what_is_wrong_with_the_memes(memes, page, tmp_path):
    page.open("/assets/memes/manifest?view=events")
    page.until_it_shows("lines_left_out", "problem/duplicate_id", "problem/image_not_found")
    page.picture("meme-manifest", tmp_path)


def test_a_person_sees_a_split(memes, page, tmp_path):
    page.open("/assets/memes/shards?view=partitions&partition=test")
    page.until_it_shows(*SPLITS, "Materialized", "problem_samples", "memes_per_second")
    page.picture("meme-shards", tmp_path)


def test_a_person_sees_that_an_expert_is_a_stand_in(memes, page, tmp_path):
    page.open(f"/assets/memes/text_expert?view=partitions&partition={LABEL}")
    page.until_it_shows("stand-in", "plot/curves", "weights_sha256")
    page.picture("text-expert", tmp_path)


def test_a_person_sees_the_plots_of_an_evaluation(site, memes, page, tmp_path):
    root = MemeLayout().evaluation(LABEL)
    page.open(f"/assets/memes/evaluation?view=partitions&partition={LABEL}")
    for plot in MEME_PLOTS:
        stored = site.store.get(f"{root}plots/{plot}.png")
        see_plot(page, plot, stored, f"meme-plot-{plot}", tmp_path)


@pytest.mark.parametrize(
    ("asset", "names"), by_asset(k for k in MEME_CHECKS if not k.endswith(f":{VERDICT}"))
)
def test_a_person_sees_that_checks_of_memes_passed(memes, page, tmp_path, asset, names):
    beside = (VERDICT,) if f"{asset}:{VERDICT}" in MEME_CHECKS else ()
    see_checks(page, asset, names, tmp_path, beside=beside)


def test_a_person_sees_the_verdict_and_its_lower_bound(site, memes, page, tmp_path):
    metrics = json.loads(site.store.get(f"{MemeLayout().evaluation(LABEL)}metrics.json"))
    verdict = metrics["splits"]["test"]["verdict"]
    assert memes.checks("evaluation", VERDICT, "memes") == {LABEL: verdict["fusion_wins"]}
    page.open(f"/assets/memes/evaluation?view=checks&checkDetail={VERDICT}")
    serves = "fusion" if verdict["fusion_wins"] else f"{verdict['best_unimodal']} alone"
    page.until_it_shows(VERDICT, "lower_bound", "verdict", verdict["told"][:40], serves)
    page.picture("check-evaluation-fusion_beats_unimodal", tmp_path)


# The story of songs.


@pytest.fixture(scope="module")
def songs(server, scored):
    """The server, when the songs' strategies are compared."""
    return server


def test_a_person_sees_the_graph_of_songs(songs, page, tmp_path):
    see_graph(page, "songs", SONG_NAMES, "song-graph", tmp_path)


def test_a_person_sees_what_is_wrong_with_the_segments(songs, page, tmp_path):
    page.open("/assets/songs/segments_metadata?view=events")
    page.until_it_shows("rows_left_out", "problem/duplicate_id", "problem/bad_timecode", "Blue")
    page.picture("song-segments", tmp_path)


def test_a_person_sees_how_an_album_is_aligned(songs, page, tmp_path):
    page.open("/assets/songs/alignment?view=partitions&partition=Blue")
    page.until_it_shows("Materialized", "pairs", "listened_to", "segments/")
    page.picture("song-alignment", tmp_path)


def test_a_person_sees_the_fit_of_a_strategy(songs, page, tmp_path):
    page.open("/assets/songs/fusion_models?view=partitions&partition=gated")
    page.until_it_shows(*FUSION_STRATEGIES, "gated/epochs", "gradient/audio", "plot/curves")
    page.picture("song-strategy", tmp_path)


def test_a_person_sees_strategies_side_by_side(site, songs, page, tmp_path):
    stored = json.loads(site.store.get("songs/comparison/comparison.json"))
    verdicts = stored["splits"]["test"]["verdicts"]
    page.open("/assets/songs/strategy_comparison?view=events")
    page.until_it_shows(
        "macro_f1_by_modalities",
        "single:midi",
        *(f"verdict/{strategy}" for strategy in FUSION_STRATEGIES),
        *(verdict["told"][:40] for verdict in verdicts.values()),
    )
    page.picture("song-comparison", tmp_path)
    for plot in SONG_PLOTS:
        stored = site.store.get(f"songs/comparison/plots/{plot}.png")
        see_plot(page, plot, stored, f"song-plot-{plot}", tmp_path)


@pytest.mark.parametrize(
    ("asset", "names"),
    by_asset(k for k in SONG_CHECKS if k.split(":")[1] not in SONG_VERDICTS),
)
def test_a_person_sees_that_checks_of_songs_passed(songs, page, tmp_path, asset, names):
    others = dict(by_asset(SONG_CHECKS))[asset]
    beside = tuple(name for name in others if name not in names)
    see_checks(page, asset, names, tmp_path, beside=beside)
