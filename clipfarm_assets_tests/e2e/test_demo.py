"""``make demo``: what a new user sees, the first time and the second."""

import json
import re

import pytest

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import STRATEGIES
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES
from clipfarm_assets.demo.run import CLIPS_VARIABLE, STEPS
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.families import FAMILIES
from clipfarm_assets_tests.e2e import kit

pytestmark = pytest.mark.timeout(900)

DEMO = "clipfarm_assets.demo"
SUITE_VARIABLE = "CLIPFARM_SUITE_CONFIG"
FEW = {"max_iter": 20}
# Every family as in the demo, on one split, with fewer trees: it is their number that takes the
# time.
SMALL_SUITE = {
    "compare_splits": [],
    "hyperparameters": {
        "gbdt": {"boosting": FEW},
        "metadata_only": FEW,
        "pca_gbdt": {"boosting": FEW},
        "stacked": {"folds": 2},
    },
}
SMALLER_SUITE = {"families": ["mean", "concat_mlp"], "compare_splits": []}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    variables = {CLIPS_VARIABLE: "20", SUITE_VARIABLE: json.dumps(SMALL_SUITE)}
    return kit.Site(tmp_path_factory.mktemp("demo"), variables)


def vectors(site):
    """Every stored vector: its bytes and when it was written."""
    folder = site.root / "store" / "clipfarm" / "embeddings"
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.glob("*/*.npy")
    }


@pytest.fixture(scope="module")
def first(site):
    return site.call(DEMO)


def table(said, heading):
    """The rows below a heading: their cells, split where two spaces are."""
    lines = said.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]


def test_it_succeeds_and_shows_every_edge_case(first):
    assert first.returncode == 0, first.stdout[-5000:]
    found = table(first.stdout, f"Edge cases: {len(EDGE_CASES)} of {len(EDGE_CASES)} as expected")
    assert [row[0] for row in found] == [case.name for case in EDGE_CASES]
    for row, case in zip(found, EDGE_CASES, strict=True):
        expected = [case.expected.embedding[m] for m in ("video", "audio", "text")]
        assert row[1:] == [*expected, case.expected.fusion], case.name


def test_it_says_how_far_it_is(first):
    assert "sample store: 50/63" in first.stdout
    for job, _ in STEPS:
        assert f"== {job}" in first.stdout
    for modality in ("video", "audio", "text"):
        for date in DATES:
            line = (
                rf"^\d\d:\d\d:\d\d \S+  {modality} {date}: 20/20, [\d.]+/s "
                r"\(fetched \d+, decoded \d+, encoded \d+, stored \d+\)$"
            )
            assert re.search(line, first.stdout, re.MULTILINE), line


def test_it_sums_up(first, site):
    items = table(first.stdout, "Items by stage and status")
    assert {row[0] for row in items} == {
        *(f"{modality}_embedding" for modality in ("video", "audio", "text")),
        *(f"fusion_{strategy}" for strategy in ("concat", "sum_pool", "max_pool")),
    }
    for stage in {row[0] for row in items}:
        assert sum(int(row[2]) for row in items if row[0] == stage) == 60, stage
    fused = {row[0]: row for row in table(first.stdout, "Fused")}
    assert [fused[s][4] for s in ("concat", "sum_pool", "max_pool")] == ["2305", "769", "769"]
    done = sum(int(row[2]) for row in items if row[0] == "fusion_concat" and "success" in row[1])
    assert int(fused["concat"][2]) == done
    *took, total = table(first.stdout, f"Seconds a stage, {DATES[0]} to {DATES[-1]}")
    assert total[0] == "all"
    assert {row[0] for row in took} == {job for job, _ in STEPS}
    steps = {row[1]: float(row[2]) for row in took}
    assert steps.keys() >= {"clip_index", "video_embeddings", "fused_shards", "fused_manifest"}
    assert steps["video_embeddings"] > 0
    assert str(site.root / "store") in first.stdout
    assert "make ui" in first.stdout
    assert "Traceback" not in first.stdout
    assert "Warning" not in first.stdout


def leaderboards(said):
    """Horizon -> strategy of the leaderboard's snapshot, and its rows."""
    found = re.findall(r"^(Leaderboard, (\d+) days, (\w+) .*)$", said, re.MULTILINE)
    return {int(days): (strategy, table(said, heading)) for heading, days, strategy in found}


def serving(said):
    """Horizon -> version, family, strategy and run that serve it."""
    return {int(days): tuple(row) for days, *row in table(said, "Serving")}


def test_it_judges_every_family_and_the_best_serve(first):
    boards, served = leaderboards(first.stdout), serving(first.stdout)
    assert set(boards) == set(served) == set(HORIZONS)
    for horizon, (strategy, rows) in boards.items():
        assert sorted(row[0] for row in rows) == sorted(FAMILIES)
        errors = [float(row[1]) for row in rows]
        assert errors == sorted(errors)
        version, family, of_strategy, _ = served[horizon]
        assert (version, of_strategy) == (f"h{horizon}-v1", strategy)
        assert rows[0][0] == family != "mean"
    assert len({run for *_, run in served.values()}) == 1


def snapshots(site):
    """Every object of every snapshot."""
    keys = [info.key for info in site.store.list(Layout().snapshots_prefix())]
    return {key: site.store.get(key) for key in keys}


def test_it_trains_every_job_compares_them_and_scores_every_date(first, site):
    (run,) = {run for *_, run in serving(first.stdout).values()}
    layout, store = Layout(), site.store
    stored = snapshots(site)
    for strategy in STRATEGIES:
        for horizon in HORIZONS:
            assert f"{layout.snapshot(run, strategy, horizon)}snapshot.json" in stored
    assert layout.comparison(run, "metrics_comparison.csv") in stored
    fused = int(table(first.stdout, "Fused")[0][2])
    predicted = [
        row
        for date in DATES
        for row in parquet_to_table(store.get(layout.clip_predictions(date))).to_pylist()
    ]
    assert len({(row["video_id"], row["horizon_days"]) for row in predicted}) == len(predicted)
    assert len(predicted) == len(HORIZONS) * fused


@pytest.fixture(scope="module")
def before(first, site):
    """What the first time left: vectors and snapshots."""
    return vectors(site), snapshots(site)


@pytest.fixture(scope="module")
def second(before, site):
    variables = {**site.variables, SUITE_VARIABLE: json.dumps(SMALLER_SUITE)}
    return kit.Site(site.root, variables).call(DEMO)


def test_the_second_time_computes_no_vector_again(first, before, second, site):
    assert first.returncode == 0
    assert len(before[0]) > 150
    assert second.returncode == 0, second.stdout[-5000:]
    assert vectors(site) == before[0]
    assert "working on the store as it is" in second.stdout
    assert "sample store:" not in second.stdout
    assert table(second.stdout, "Fused") == table(first.stdout, "Fused")


def test_the_second_time_trains_beside_the_models_of_the_first(first, before, second, site):
    """Fewer families find nothing better on the same clips: what served goes on, and is told."""
    assert serving(second.stdout) == serving(first.stdout)
    assert leaderboards(second.stdout) == leaderboards(first.stdout)
    for horizon in HORIZONS:
        assert f"{horizon} days: not promoted: " in second.stdout
    (run,) = {run for *_, run in serving(first.stdout).values()}
    models = before[1]
    stored = snapshots(site)
    assert {key for key in models if stored[key] != models[key]} == set()
    added = stored.keys() - models.keys()
    prefix = Layout().snapshots_prefix()
    (newer,) = {key.removeprefix(f"{prefix}run_id=").partition("/")[0] for key in added}
    assert newer != run
    for strategy in STRATEGIES:
        for horizon in HORIZONS:
            assert f"{Layout().snapshot(newer, strategy, horizon)}snapshot.json" in added


@pytest.mark.parametrize("missing", ["DAGSTER_HOME", "CLIPFARM_STORE"])
def test_without_a_place_it_says_what_to_do(tmp_path, missing):
    site = kit.Site(tmp_path, {missing: ""})
    done = site.call(DEMO)
    assert done.returncode == 1
    assert done.stdout == (
        f"{missing} is not set: run `make demo`, which sets it, or name a folder yourself\n"
    )
    assert list(tmp_path.iterdir()) == []
