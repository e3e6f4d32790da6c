"""Serving applies what training applied, or refuses."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets.serving.promotion import promote
from clipfarm_assets.serving.registry import NoModel
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotId
from clipfarm_assets.training.snapshot_reader import NoSnapshot
from clipfarm_assets_tests.serving.kit import (
    DIMS,
    FAMILIES,
    LAYOUT,
    MODALITIES,
    VERSIONS,
    N,
    clips,
    given,
    parts,
    promoted,
    publish_snapshot,
    snapshot_files,
    stored,
)


@pytest.mark.parametrize("strategy", ["concat", "sum_pool"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mean"])
def test_scoring_the_training_rows_gives_the_stored_predictions(folder, family, strategy):
    promoted(folder, family, strategy)
    predictor = load_predictor(folder, 7)
    from_rows = predictor.predict(**given(strategy))
    from_clips = predictor.predict_clips(clips(strategy)[0].clips)
    expected = stored(family, strategy)
    for found in (from_rows, from_clips):
        assert found.model_version == "h7-v1"
        assert found.video_ids.tolist() == [row["video_id"] for row in expected]
        for name, values in {
            "prediction_log": found.log,
            "prediction_raw": found.raw,
            "interval_low_raw": found.low_raw,
            "interval_high_raw": found.high_raw,
        }.items():
            np.testing.assert_allclose(values, [row[name] for row in expected], rtol=1e-6)
        assert (found.low_raw <= found.raw).all()
        assert (found.raw <= found.high_raw).all()
    assert len(from_rows) == N
    assert (from_rows.text_present == clips(strategy)[0].clips.text_present).all()
    assert np.ptp(from_rows.log) > 0.5


def test_a_row_is_predicted_as_it_is_among_others(predictor):
    whole = predictor.predict(**given())
    rows, text = clips()
    for position in (0, 17, N - 1):
        one = predictor.predict(
            [dict(zip(text.columns, text.row(position), strict=True))],
            {m: rows.clips.modality(m)[[position]] for m in MODALITIES},
            rows.clips.text_present[[position]],
            versions=VERSIONS,
        )
        np.testing.assert_allclose(one.log, whole.log[[position]], rtol=1e-9)


def test_neither_the_outcome_nor_other_columns_nor_blanks_matter(folder):
    promoted(folder, "pca_gbdt")
    predictor = load_predictor(folder, 7)
    what = given()
    changed = what["rows"].with_columns(
        pl.col("channel_id") + " ", view_count=pl.lit("999"), beyond=pl.lit("x")
    )
    found = predictor.predict(**what | {"rows": changed})
    assert (found.log == predictor.predict(**what).log).all()


def test_what_cannot_be_read_is_counted(predictor):
    what = given()
    rows = what["rows"].with_columns(title_length=pl.lit("long"))
    assert predictor.predict(**what).unparsable == {}
    assert predictor.predict(**what | {"rows": rows}).unparsable == {"title_length": N}
    assert (
        predictor.predict(
            **what | {"rows": what["rows"].with_columns(title_length=pl.lit(None, pl.String))}
        ).unparsable
        == {}
    )


def train_durations():
    return clips()[0].clips.metadata["duration_seconds"].gather(parts()["train"].tolist())


@pytest.mark.parametrize("family", ["ridge", "gated_fusion_mlp"])
def test_an_absurd_value_is_predicted_as_the_nearest_that_train_held_and_counted(folder, family):
    promoted(folder, family, families=("mean", family))
    predictor = load_predictor(folder, 7)
    durations, what = train_durations(), given()

    def predicted(seconds):
        rows = what["rows"].with_columns(duration_seconds=pl.lit(repr(seconds)))
        return predictor.predict(**what | {"rows": rows})

    for absurd, nearest in ((86_400_000.0, durations.max()), (-1e12, durations.min())):
        found, expected = predicted(absurd), predicted(nearest)
        for name in ("log", "raw", "low_raw", "high_raw"):
            assert getattr(found, name).tobytes() == getattr(expected, name).tobytes()
        assert found.out_of_range["duration_seconds"] == N
        assert "duration_seconds" not in expected.out_of_range
        assert found.unparsable == {}
    low, high = predicted(durations.min()).log, predicted(durations.max()).log
    assert (high - low > 0.3).all(), "within what train held it matters"


def test_what_lies_out_of_range_is_counted_by_clip(predictor):
    what, train, batch = given(), train_durations(), clips()[0].clips
    of_train = predictor.predict_clips(batch.take(parts()["train"]))
    assert of_train.out_of_range == {}, "which are what it was fitted to"

    durations = np.full(N, train.median())
    durations[[0, 40]], durations[7] = np.nextafter(train.max(), np.inf), train.min() - 1
    durations[[8, 9]] = train.min(), train.max()
    column = pl.Series("duration_seconds", durations)
    changed = replace(batch, metadata=batch.metadata.with_columns(column))
    rows = what["rows"].with_columns(pl.Series(column.name, [repr(v) for v in durations.tolist()]))
    for found in (
        predictor.predict(**what | {"rows": rows}),
        predictor.predict_clips(changed),
    ):
        assert found.out_of_range["duration_seconds"] == 3
    missing = what["rows"].with_columns(duration_seconds=pl.lit(""))
    assert "duration_seconds" not in predictor.predict(**what | {"rows": missing}).out_of_range


def test_the_predictors_encoder_is_the_snapshots(predictor):
    assert predictor.encoder.to_json() == snapshot_files()["models/metadata_encoder.json"]
    assert predictor.encoder.contract == predictor.binding.contract


def test_no_clip_with_text_needs_no_text_vectors(predictor):
    what = given()
    without = np.zeros(N, dtype=np.bool_)
    zeros = {**what["vectors"], "text": np.zeros((N, DIMS), dtype=np.float32)}
    two = {m: what["vectors"][m] for m in ("video", "audio")}
    versions = {m: VERSIONS[m] for m in ("video", "audio")}
    one = predictor.predict(what["rows"], zeros, without, versions=VERSIONS)
    other = predictor.predict(what["rows"], two, without, versions=versions)
    assert (one.log == other.log).all()
    assert not other.text_present.any()


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("family", ["ridge", "gbdt", "pca_gbdt"])
def test_a_changed_file_is_refused_before_it_is_read(folder, tmp_path, family):
    version = promoted(folder, family)
    trap = tmp_path / "executed"
    root = SnapshotId("r1", "concat", 7).root(LAYOUT)
    assert {name.rsplit(".")[-1] for name in version.artifacts} >= {"json", "skops"}
    for name in version.artifacts:
        good = folder.get(root + name)
        for bad in (pickle.dumps(Payload(trap)), good[:-1], good + b" ", b""):
            folder.put(root + name, bad)
            with pytest.raises(BadSnapshot, match=re.escape(f"{name} was changed since")):
                load_predictor(folder, 7)
        folder.delete(root + name)
        with pytest.raises(BadSnapshot, match=re.escape(f"{name} is gone")):
            load_predictor(folder, 7)
        folder.put(root + name, good)
    assert not trap.exists()
    assert len(load_predictor(folder, 7).predict(**given())) == N


def test_a_manifest_that_was_made_to_fit_changed_files_is_refused(folder):
    promoted(folder)
    root = SnapshotId("r1", "concat", 7).root(LAYOUT)
    for info in list(folder.list(root)):
        folder.delete(info.key)
    publish_snapshot(folder, shuffled=True)
    with pytest.raises(BadSnapshot, match="was changed since"):
        load_predictor(folder, 7)


def test_a_model_is_found_by_horizon_or_version(folder):
    first = promoted(folder)
    promote(folder, LAYOUT, 7, run_id="r1", family="gbdt")
    assert load_predictor(folder, 7).version.model_version == "h7-v2"
    assert load_predictor(folder, horizon="7").version.model_version == "h7-v2"
    assert load_predictor(folder, model_version="h7-v1").version == first
    assert load_predictor(folder, model_version="h7-v1", layout=LAYOUT).binding.dims == {
        "video": DIMS, "audio": DIMS, "text": DIMS
    }  # fmt: skip
    with pytest.raises(ValueError, match="found neither"):
        load_predictor(folder)
    with pytest.raises(ValueError, match="found 7 and h7-v1"):
        load_predictor(folder, 7, "h7-v1")
    for wrong in ("7.0", "8", 8, "", "h7-v1", True):
        with pytest.raises(ValueError, match=rf"unknown horizon {wrong!r}: expected one of 7, 30"):
            load_predictor(folder, wrong)
    for horizon in (30, "30"):
        with pytest.raises(NoModel, match="no model was promoted for horizon 30"):
            load_predictor(folder, horizon)
    with pytest.raises(NoModel, match="no model version 'h7-v9': there are h7-v1, h7-v2"):
        load_predictor(folder, model_version="h7-v9")
    folder.delete(SnapshotId("r1", "concat", 7).root(LAYOUT) + "snapshot.json")
    with pytest.raises(NoSnapshot):
        load_predictor(folder, 7)


@pytest.mark.parametrize("store", ["/data/store", b"/data/store", None])
def test_what_is_no_store_is_refused(store):
    told = rf"expected an ObjectStore, found {type(store).__name__}: .* ObjectStore\.open\(path\)"
    with pytest.raises(TypeError, match=told):
        load_predictor(store, 7)


@pytest.mark.s3
def test_it_serves_from_s3(s3):
    promoted(s3)
    expected = [row["prediction_log"] for row in stored("ridge")]
    np.testing.assert_allclose(load_predictor(s3, 7).predict(**given()).log, expected, rtol=1e-6)
