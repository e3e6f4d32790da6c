"""What training refuses, before anything is fitted or written."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.features import Column
from clipfarm_assets.contracts.leakage import FeatureLeakage
from clipfarm_assets.contracts.schema_lock import LockMismatch, SchemaLock
from clipfarm_assets.contracts.split_rules import SplitLeakage
from clipfarm_assets.demo.horizon_csv import COLUMNS
from clipfarm_assets.pipelines.train import PROMISES, verify_trainable
from clipfarm_assets.training import suite
from clipfarm_assets.training.snapshot import SnapshotConflict, SnapshotExists, SnapshotId
from clipfarm_assets.training.suite import NoMetrics, NoSuchSplit
from clipfarm_assets_tests.training.bench import (  # noqa: F401 - quiet is a fixture
    FLOOR,
    QUICK,
    Bench,
    families_opened,
    quiet,
)

LEAK = {"fame": Column("at_publish", "numeric")}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def data(bench):
    return bench.assemble()


@pytest.fixture
def fresh(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def opened(monkeypatch):
    return families_opened(monkeypatch)


def nothing_written(bench):
    return not list(bench.store.list("clipfarm/models/"))


def with_column(bench, name, value):
    """The CSV with one more column: ``value(row, rng)``."""
    rng = np.random.default_rng(0)
    text = bench.store.get(bench.layout.metadata()).decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [*COLUMNS, name], lineterminator="\n")
    writer.writeheader()
    writer.writerows(row | {name: value(row, rng)} for row in rows)
    bench.store.put(bench.layout.metadata(), out.getvalue().encode())


@pytest.mark.parametrize(
    "value",
    [
        lambda row, _: row["view_count"],
        lambda row, rng: float(row["view_count"] or 0) * rng.lognormal(0.0, 0.1),
        lambda row, _: round(-3 * float(np.log1p(float(row["horizon_view_count"]))), 1),
    ],
    ids=["renamed", "noised", "rescaled"],
)
def test_a_copy_of_the_views_under_an_honest_name_is_refused(fresh, opened, value):
    with_column(fresh, "fame", value)
    data = fresh.assemble(declared_columns=LEAK)
    assert "fame" in data.contract.numeric
    with pytest.raises(FeatureLeakage, match=r"no_leaky_feature: .*fame ~ .*after_outcome"):
        fresh.train(data, options=FLOOR)
    assert not opened
    assert nothing_written(fresh)


def test_an_honest_column_is_trained_on(fresh):
    with_column(fresh, "fame", lambda _, rng: round(rng.normal(), 3))
    trained = fresh.train(fresh.assemble(declared_columns=LEAK), options=FLOOR)
    assert "fame" in json.loads(fresh.files(trained)["config_used.json"])["features"]["numeric"]


def test_a_vector_that_holds_the_views_is_refused(bench, data, opened):
    fused = data.clips.fused.copy()
    fused[:, 5] = data.target_log
    leaky = replace(data, clips=replace(data.clips, fused=fused))
    with pytest.raises(FeatureLeakage, match=r"fused\[5\] ~ "):
        bench.train(leaky, "leaky-vector", options=FLOOR)
    assert not opened


def tampered(data, how):
    parts = {kind: marks.copy() for kind, marks in data.splits.items()}
    random, later = parts["random"], parts["chronological"]
    if how == "duplicate":
        groups = np.bincount(data.duplicate_groups)
        group = np.flatnonzero(data.duplicate_groups == int(np.argmax(groups)))
        random[group[:2]] = "train", "test"
    elif how == "video":
        ids = data.clips.video_ids.copy()
        ids[np.argmax(random == "test")] = ids[np.argmax(random == "train")]
        data = replace(data, clips=replace(data.clips, video_ids=ids))
    elif how == "time":
        first, last = np.argmin(data.captured_at), np.argmax(data.captured_at)
        later[[first, last]] = "test", "train"
    elif how == "channel":
        grouped = parts["grouped"]
        channel = data.clips.channel_id[np.argmax(grouped == "train")]
        grouped[np.flatnonzero(data.clips.channel_id == channel)[0]] = "val"
    elif how == "mark":
        random[0] = "holdout"
    else:
        random[random == "val"] = "train"
    return replace(data, splits=parts)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("duplicate", "duplicate group"),
        ("video", "is in train and test"),
        ("time", "captured after the first test row"),
        ("channel", "channel .* is in train and val"),
        ("mark", "'holdout'.* is no mark of a part"),
        ("empty", "val.* has no rows"),
    ],
)
def test_a_split_tampered_with_is_refused_whichever_it_is(bench, data, opened, how, told):
    with pytest.raises(SplitLeakage, match=f"splits_hold: .*{told}.*training_dataset again"):
        bench.train(tampered(data, how), f"tampered-{how}", options=FLOOR)
    assert not opened
    assert not list(bench.store.list(f"clipfarm/models/snapshots/run_id=tampered-{how}/"))


@pytest.mark.parametrize("change", ["version", "embedding"])
def test_a_lock_that_changed_since_is_refused(fresh, opened, change):
    data = fresh.assemble()
    key = fresh.layout.schema_lock("concat")
    lock = SchemaLock.from_json(fresh.store.get(key), key)
    if change == "version":
        lock = replace(lock, lock_version=2)
    else:
        lock = replace(lock, embedding_versions={**lock.embedding_versions, "audio": "other"})
    fresh.store.put(key, lock.to_json())
    with pytest.raises(LockMismatch, match=r"lock_in_force: .*under the lock in force"):
        fresh.train(data, options=FLOOR)
    assert not opened
    assert nothing_written(fresh)


def test_an_existing_snapshot_is_refused_before_any_fit(fresh, opened):
    data = fresh.assemble()
    files = fresh.files(fresh.train(data, options=FLOOR))
    opened.clear()
    with pytest.raises(SnapshotExists, match="immutable"):
        fresh.train(data, options=FLOOR)
    other = QUICK.model_copy(update={"seed": 9})
    with pytest.raises(SnapshotExists):
        fresh.train(data, config=other, options=FLOOR)
    assert not opened
    root = SnapshotId("r1", "concat", 7).root(fresh.layout)
    assert {i.key: fresh.store.get(i.key) for i in fresh.store.list(root)} == {
        root + name: content for name, content in files.items()
    }


def test_a_run_id_begun_with_other_inputs_is_refused_before_any_fit(fresh, opened):
    data = fresh.assemble()
    root = SnapshotId("r1", "concat", 7).root(fresh.layout)
    fresh.store.put(root + "config_used.json", b'{"seed": 1}')
    with pytest.raises(SnapshotConflict, match="other inputs"):
        fresh.train(data, options=FLOOR)
    assert not opened


@pytest.mark.parametrize("error", [ValueError("singular"), None])
def test_a_family_without_metrics_leaves_nothing(fresh, monkeypatch, error):
    class Broken:
        def fit(self, *arguments):
            if error:
                raise error
            return self

        def predict(self, clips):
            return np.full(len(clips), np.nan)

    real = suite.open_family
    monkeypatch.setattr(suite, "open_family", lambda n: Broken() if n == "ridge" else real(n))
    with pytest.raises(NoMetrics, match="'ridge' gave no metrics"):
        fresh.train(fresh.assemble(), options=replace(FLOOR, families=("mean", "ridge")))
    assert nothing_written(fresh)


def test_a_split_that_cannot_be_made_is_refused(tmp_path, opened):
    bench = Bench(tmp_path, clips=20)
    with pytest.raises(NoSuchSplit, match="'grouped' can't be made"):
        bench.train(bench.assemble(), options=replace(FLOOR, split="grouped"))
    assert not opened
    assert nothing_written(bench)


def test_the_promises_hold_of_what_assembly_gives(bench, data):
    for strategy, horizon in (("concat", 30), ("max_pool", 7)):
        verify_trainable(bench.deployment, bench.assemble(strategy, horizon))
    verdicts = {n: promise.verdict(bench.deployment, data) for n, promise in PROMISES.items()}
    assert all(v.holds and v.examined for v in verdicts.values())
    assert list(verdicts) == [
        "features_declared",
        "no_leaky_feature",
        "splits_hold",
        "lock_in_force",
    ]


def test_a_forbidden_feature_is_refused_whoever_put_it_there(bench, data, opened):
    contract = replace(data.contract, numeric=(*data.contract.numeric, "view_count"))
    metadata = data.clips.metadata.with_columns(pl.lit(1.0).alias("view_count"))
    metadata = metadata.select(*contract.features)
    with pytest.raises(FeatureLeakage, match=r"features_declared: .*view_count"):
        bench.train(data.with_metadata(contract, metadata), "hard", options=FLOOR)
    assert not opened
