"""Scoring: training rows give the predictions that are stored, and what has none is counted."""

import csv
import io
import json
from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from clipfarm_assets.contracts.clip_tables import CLIP_INDEX, CLIP_PREDICTIONS
from clipfarm_assets.contracts.horizon_csv import source_hash
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.pipelines.manifest import NoFusedManifest
from clipfarm_assets.pipelines.score import UNSCORED, metadata_rows, score_date
from clipfarm_assets.pipelines.train import TrainOptions
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets.serving.promotion import promote
from clipfarm_assets.serving.registry import NoModel
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training import artifacts
from clipfarm_assets.training.families import FAMILIES
from clipfarm_assets_tests.training.bench import (  # noqa: F401 - quiet is a fixture
    CLIPS,
    Bench,
    quiet,
)

DATE = "2026-02-05"
CLOSE = 1e-6
PARTS = ("train", "val", "test")
STORED = ("prediction_log", "prediction_raw", "interval_low_raw", "interval_high_raw")
OPTIONS = TrainOptions(families=("mean", "ridge", "pca_gbdt"), compare_splits=())


@pytest.fixture(scope="module", autouse=True)
def _undrawn():
    """Plots are most of what a small suite costs, and no clip is scored by them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "_plots", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """All families trained at 7 days on every strategy's vectors; none promoted."""
    bench = Bench(tmp_path_factory.mktemp("bench"), strategies=("concat", "sum_pool"))
    bench.trained = {}
    for strategy, families in (("concat", FAMILIES), ("sum_pool", ("ridge", "gated_fusion_mlp"))):
        data = bench.assemble(strategy)
        options = TrainOptions(families=families, compare_splits=())
        bench.trained[strategy] = data, bench.files(bench.train(data, options=options))
    return bench


def promoted(bench, family, strategy="concat"):
    """The family serves at 7 days, whether it is of use or not."""
    promotion = promote(bench.store, bench.layout, 7, run_id="r1", strategy=strategy, family=family)
    return promotion.version.model_version


def stored(files, family):
    """video_id -> what the snapshot says of it, and its part."""
    found = {}
    for part in PARTS:
        table = pl.read_parquet(io.BytesIO(files[f"predictions/{part}.parquet"]))
        for row in table.filter(pl.col("family") == family).iter_rows(named=True):
            found[row["video_id"]] = row | {"part": part}
    assert len(found) == CLIPS
    return found


def agrees(expected, video_ids, **columns):
    for name, values in columns.items():
        told = [expected[i][name] for i in video_ids]
        if name == "prediction_log":
            assert np.abs(np.asarray(values) - told).max() <= CLOSE
        else:
            np.testing.assert_allclose(values, told, rtol=CLOSE, atol=CLOSE)
    return True


def csv_rows(bench):
    text = bench.store.get(bench.layout.metadata()).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def write_csv(bench, rows):
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    bench.store.put(bench.layout.metadata(), out.getvalue().encode())


def index_of(bench, video_ids, moved=()):
    """Of clips of the CSV and others; those in `moved` are at another url by now."""
    sources = {row["video_id"]: source_hash(row["url"]) for row in csv_rows(bench)}
    sources |= dict.fromkeys(moved, "another")
    columns = {name: [""] * len(video_ids) for name in CLIP_INDEX.names}
    columns |= {"video_id": list(video_ids), "csv_row": [1] * len(video_ids)}
    return pa.table(columns | {"source_hash": [sources.get(i, "") for i in video_ids]}, CLIP_INDEX)


def unscored(table):
    return json.loads(table.schema.metadata[UNSCORED.encode()])


def told_of(found):
    """Reasons of which there is a clip; values that train did not hold are another's test."""
    return {name: n for name, n in found.items() if n and not name.startswith("out_of_range")}


CASES = [("concat", f) for f in FAMILIES if f != "mean"]
CASES += [("sum_pool", "ridge"), ("sum_pool", "gated_fusion_mlp")]


@pytest.mark.parametrize(("strategy", "family"), CASES)
def test_training_rows_give_the_stored_predictions_by_every_way(
    bench, strategy, family, monkeypatch
):
    # A family that was hardly fitted may be worse than the mean, and would not be let serve.
    monkeypatch.setattr("clipfarm_assets.serving.promotion._check_beats_mean", lambda *_: None)
    data, files = bench.trained[strategy]
    expected = stored(files, family)
    version = promoted(bench, family, strategy)
    predictor = load_predictor(bench.store, 7)
    assert (predictor.version.model_version, predictor.version.family) == (version, family)
    clips = data.clips
    ids = clips.video_ids.tolist()

    as_trained = predictor.predict_clips(clips)
    rows = {row["video_id"]: row for row in csv_rows(bench) if row["horizon_days"] == "7"}
    from_rows = predictor.predict(
        [rows[i] for i in ids],
        {m: getattr(clips, m) for m in ("video", "audio", "text")},
        clips.text_present,
        versions=data.provenance.embedding_versions,
    )
    for said in (as_trained, from_rows):
        assert said.video_ids.tolist() == ids
        assert said.model_version == version
        assert agrees(
            expected,
            ids,
            prediction_log=said.log,
            prediction_raw=said.raw,
            interval_low_raw=said.low_raw,
            interval_high_raw=said.high_raw,
        )

    table = score_date(bench.deployment, DATE, index_of(bench, sorted(ids, reverse=True)))
    assert table["video_id"].to_pylist() == sorted(ids)
    assert agrees(expected, sorted(ids), **{n: table[n].to_pylist() for n in STORED})
    assert table["text_present"].to_pylist() == [expected[i]["text_present"] for i in sorted(ids)]
    assert table["split"].to_pylist() == [expected[i]["part"] for i in sorted(ids)]
    assert told_of(unscored(table)["7"]) == {}


def test_one_clip_alone_is_predicted_as_among_others(bench):
    promoted(bench, "pca_gbdt")
    ids = bench.trained["concat"][0].clips.video_ids.tolist()
    together = score_date(bench.deployment, DATE, index_of(bench, ids))
    alone = pa.concat_tables(
        score_date(bench.deployment, DATE, index_of(bench, [i])) for i in ids[:5]
    )
    rows = [together["video_id"].to_pylist().index(i) for i in ids[:5]]
    log = together["prediction_log"].to_numpy()[rows]
    np.testing.assert_allclose(alone["prediction_log"].to_numpy(), log, rtol=0, atol=1e-12)


# A date of a deployment of its own.


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A store with both horizons trained."""
    bench = Bench(tmp_path_factory.mktemp("template"), strategies=("concat",), clips=120)
    for horizon in (7, 30):
        bench.train(bench.assemble(horizon=horizon), options=OPTIONS)
    return bench.store


@pytest.fixture
def fresh(template, tmp_path):
    bench = Bench(tmp_path, made=False)
    for info in template.list():
        bench.store.put(info.key, template.get(info.key))
    return bench


def serve(bench, *horizons):
    for horizon in horizons:
        promote(bench.store, bench.layout, horizon, run_id="r1", family="pca_gbdt")


def all_ids(bench):
    return sorted({row["video_id"] for row in csv_rows(bench)})


def test_the_table_is_the_contracts(fresh):
    serve(fresh, 7, 30)
    dates = sorted({row["captured_at"][:10] for row in csv_rows(fresh)})
    date = Counter(row["captured_at"][:10] for row in csv_rows(fresh)).most_common(1)[0][0]
    index = build_index(fresh.deployment, dates).by_date[date]
    said = []
    table = score_date(fresh.deployment, date, index, said.append)
    assert table.schema.equals(CLIP_PREDICTIONS)
    pairs = list(zip(*(table[n].to_pylist() for n in ("video_id", "horizon_days")), strict=True))
    ids = index["video_id"].to_pylist()
    assert pairs == sorted((i, h) for i in ids for h in (7, 30))
    assert len(ids) > 0
    assert said[-1] == f"{date}: {2 * len(ids)} predictions of {len(ids)} clips"
    assert all(table[name].null_count == 0 for name in table.column_names)
    low, raw, high = (
        table[n].to_numpy() for n in ("interval_low_raw", "prediction_raw", "interval_high_raw")
    )
    assert ((low <= raw) & (raw <= high)).all()
    versions = [table[n].to_pylist() for n in ("horizon_days", "model_version")]
    assert set(zip(*versions, strict=True)) == {(7, "h7-v1"), (30, "h30-v1")}


def test_a_clip_that_the_model_never_saw_is_of_no_split(fresh):
    serve(fresh, 30)
    labelled = {row["video_id"] for row in csv_rows(fresh) if row["horizon_days"] == "30"}
    table = score_date(fresh.deployment, DATE, index_of(fresh, all_ids(fresh)))
    told = dict(zip(*(table[n].to_pylist() for n in ("video_id", "split")), strict=True))
    assert len(labelled) < len(told) == 120
    assert {i for i, split in told.items() if split == ""} == set(told) - labelled


def test_a_horizon_without_a_model_is_left_out_and_said(fresh):
    serve(fresh, 30)
    said = []
    table = score_date(fresh.deployment, DATE, index_of(fresh, all_ids(fresh)), said.append)
    assert set(table["horizon_days"].to_pylist()) == {30}
    assert set(unscored(table)) == {"30"}
    assert sum(line.startswith("no predictions at 7 days: ") for line in said) == 1


def test_without_any_model_there_is_nothing_to_say(fresh):
    with pytest.raises(NoModel, match=r"promote|model_registry"):
        score_date(fresh.deployment, DATE, index_of(fresh, all_ids(fresh)))


def test_clips_without_vectors_or_metadata_are_counted(fresh):
    serve(fresh, 7, 30)
    ids = all_ids(fresh)
    gone = {ids[4], ids[7]}
    write_csv(fresh, [row for row in csv_rows(fresh) if row["video_id"] not in gone])
    table = score_date(fresh.deployment, DATE, index_of(fresh, [*ids, "new 1", "new 2", "new 3"]))
    for horizon in (7, 30):
        reasons = unscored(table)[str(horizon)]
        assert told_of(reasons) == {"no_fused_vector": 3, "no_metadata_row": 2}
        rows = table.filter(pc.equal(table["horizon_days"], horizon))
        assert rows["video_id"].to_pylist() == [i for i in ids if i not in gone]


@pytest.mark.parametrize("wanted", [[], ["never-fused"]])
def test_a_date_of_which_no_clip_can_be_scored_gives_an_empty_table(fresh, wanted):
    serve(fresh, 7)
    table = score_date(fresh.deployment, DATE, index_of(fresh, wanted))
    assert table.num_rows == 0
    assert table.schema.equals(CLIP_PREDICTIONS)
    assert unscored(table)["7"]["no_fused_vector"] == len(wanted)


def test_values_that_cannot_be_read_are_counted_and_predicted_without(fresh):
    serve(fresh, 7)
    ids = all_ids(fresh)
    rows = csv_rows(fresh)
    for row in rows:
        if row["video_id"] in ids[:3]:
            row["duration_seconds"] = "half a minute"
    write_csv(fresh, rows)
    table = score_date(fresh.deployment, DATE, index_of(fresh, ids))
    assert table.num_rows == 120
    assert told_of(unscored(table)["7"]) == {"unparsable:duration_seconds": 3}
    assert np.isfinite(table["prediction_log"].to_numpy()).all()


def test_vectors_of_another_source_are_counted(fresh):
    serve(fresh, 7)
    index = index_of(fresh, all_ids(fresh), moved=all_ids(fresh)[:1])
    table = score_date(fresh.deployment, DATE, index)
    assert (table.num_rows, told_of(unscored(table)["7"])) == (120, {"other_source_hash": 1})


# Which row of the CSV.


def changed_rows(bench, change):
    """The first two clips' rows after `change`, which sees a clip's rows by horizon."""
    by_clip = {}
    for row in csv_rows(bench):
        by_clip.setdefault(row["video_id"], []).append(row)
    both = [i for i, rows in by_clip.items() if len(rows) == 2]
    mine = by_clip[both[0]]
    rest = [row for i, rows in by_clip.items() if i != both[0] for row in rows]
    write_csv(bench, [*rest, *change({int(row["horizon_days"]): row for row in mine})])
    return both[0]


def title_of(bench, horizon, video_id):
    found = metadata_rows(bench.deployment, horizon).filter(pl.col("video_id") == video_id)
    assert found.height == 1
    return found["title"][0]


def test_the_horizons_own_row_goes_before_a_later_one(fresh):
    video_id = changed_rows(fresh, lambda of: [r | {"title": f"at {h}"} for h, r in of.items()])
    assert title_of(fresh, 7, video_id) == "at 7"
    assert title_of(fresh, 30, video_id) == "at 30"


def test_the_latest_of_the_horizons_own_rows_counts(fresh):
    def twice(of):
        newer = of[7] | {"title": "newer", "captured_at": "2031-01-02T00:00:00+00:00"}
        # Behind it in the file, and captured before it.
        older = of[7] | {"title": "older", "captured_at": "2031-01-01T00:00:00+00:00"}
        return [newer, of[30] | {"title": "at 30"}, older]

    video_id = changed_rows(fresh, twice)
    assert title_of(fresh, 7, video_id) == "newer"
    assert title_of(fresh, 30, video_id) == "at 30"


def test_without_a_row_of_the_horizon_the_latest_of_any_counts(fresh):
    def younger(of):
        later = of[7] | {"title": "later", "captured_at": "2031-01-02T00:00:00+00:00"}
        odd = of[7] | {"title": "a day", "horizon_days": "1", "captured_at": "2030-01-01"}
        return [later, of[7] | {"title": "first"}, odd | {"captured_at": "2032-01-01T00:00:00Z"}]

    video_id = changed_rows(fresh, younger)
    assert title_of(fresh, 7, video_id) == "later"
    assert title_of(fresh, 30, video_id) == "a day"
    found = metadata_rows(fresh.deployment, 30)
    assert sorted(found["video_id"].to_list()) == all_ids(fresh)


def test_a_file_without_horizons_still_has_rows(fresh):
    rows = [
        {k: v for k, v in row.items() if not k.startswith("horizon")} for row in csv_rows(fresh)
    ]
    write_csv(fresh, rows)
    assert sorted(metadata_rows(fresh.deployment, 7)["video_id"].to_list()) == all_ids(fresh)


def test_channels_are_told_apart_by_their_ids_whatever_is_around_them(fresh):
    """`pca_gbdt` knows a channel by its earlier clips."""
    serve(fresh, 7)
    rows, index = csv_rows(fresh), index_of(fresh, all_ids(fresh))
    base = score_date(fresh.deployment, DATE, index)
    write_csv(fresh, [row | {"channel_id": f" {row['channel_id']}\t"} for row in rows])
    assert score_date(fresh.deployment, DATE, index).equals(base)
    write_csv(fresh, [row | {"channel_id": ""} for row in rows])
    unknown = score_date(fresh.deployment, DATE, index)
    assert not unknown["prediction_log"].equals(base["prediction_log"])
    write_csv(fresh, [{k: v for k, v in row.items() if k != "channel_id"} for row in rows])
    assert score_date(fresh.deployment, DATE, index).equals(unknown)


# What is stored now is not what the model was fitted to.


def test_another_lock_than_the_models_is_refused(fresh):
    serve(fresh, 7)
    key = fresh.layout.schema_lock("concat")
    lock = SchemaLock.from_json(fresh.store.get(key), key)
    versions = {**lock.embedding_versions, "video": "another"}
    other = SchemaLock.of("concat", {m: lock.dim(m) for m in versions}, versions)
    fresh.store.put(key, other.to_json())
    with pytest.raises(
        BindingMismatch, match="bound to version 'video-planted-plain-3', found 'another'"
    ):
        score_date(fresh.deployment, DATE, index_of(fresh, all_ids(fresh)))


def test_without_a_manifest_it_says_so(fresh):
    serve(fresh, 7)
    fresh.store.delete(fresh.layout.fused_manifest("concat"))
    with pytest.raises(NoFusedManifest, match="fused_manifest"):
        score_date(fresh.deployment, DATE, index_of(fresh, all_ids(fresh)))


def test_rows_of_the_manifest_that_nobody_asked_for_are_not_read(fresh):
    """Clips are scored although another date's shard is gone."""
    serve(fresh, 7)
    key = fresh.layout.fused_manifest("concat")
    rows = parquet_to_table(fresh.store.get(key)).to_pylist()
    gone = rows[0]["fused_key"]
    fresh.store.delete(gone)
    ids = sorted(row["video_id"] for row in rows if row["fused_key"] != gone)
    assert 0 < len(ids) < len(rows)
    assert score_date(fresh.deployment, DATE, index_of(fresh, ids))["video_id"].to_pylist() == ids
