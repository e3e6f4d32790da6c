"""Serving applies what training applied, or refuses."""

import os
import pickle
import re
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.encoders.base import ContentMissing, EmbeddingVersion, MediaError
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets.serving.promotion import promote
from clipfarm_assets.serving.registry import NoModel
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotId
from clipfarm_assets.training.snapshot_reader import NoSnapshot
from clipfarm_assets_tests.serving.kit import (
    CONTRACT,
    DIMS,
    FAMILIES,
    LAYOUT,
    MODALITIES,
    VERSIONS,
    FileEncoder,
    N,
    clips,
    files,
    given,
    lock_of,
    parts,
    promoted,
    publish_snapshot,
    snapshot_files,
)

FIRST = clips()[0].clips.video_ids[np.flatnonzero(clips()[0].clips.text_present)[0]]
"""The first clip with text."""


@pytest.fixture
def predictor(folder):
    promoted(folder)
    return load_predictor(folder, 7)


def stored(family, strategy="concat"):
    """The snapshot's predictions of every row, in the order of the clips."""
    table = parquet_to_table(snapshot_files(strategy=strategy)["predictions/all.parquet"])
    rows = {row["video_id"]: row for row in table.to_pylist() if row["family"] == family}
    return [rows[video_id] for video_id in clips(strategy)[0].clips.video_ids]


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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"versions": {**VERSIONS, "audio": "audio-b"}}, "audio embedding.*'audio-a'.*'audio-b'"),
        ({"versions": {**VERSIONS, "text": "unversioned"}}, "text embedding.*'text-a'"),
        ({"versions": {"video": "video-a", "audio": "audio-a"}}, "found none of text"),
        ({"lock": lock_of(version=2)}, "schema lock of concat.*version 1 .*version 2 "),
        ({"lock": lock_of("sum_pool")}, "schema lock of concat"),
        ({"lock": lock_of(dims=7)}, "schema lock of concat"),
        ({"lock": lock_of(versions={**VERSIONS, "video": "b"})}, "video embedding.*'b'"),
        ({"feature_contract_sha256": "0" * 64}, "feature set v2 with contract.*000000000000"),
        ({"vectors": {**given()["vectors"], "audio": np.ones((N, 7), np.float32)}}, r"\(90, 7\)"),
        ({"vectors": {**given()["vectors"], "audio": np.ones((N, DIMS))}}, "float64"),
        ({"vectors": {m: given()["vectors"][m] for m in ("video", "audio")}}, "text.*found none"),
        ({"rows": clips()[1].drop("title_length", "channel_id")}, "needs channel_id, title_length"),
        ({"rows": clips()[1].drop("channel_created_at")}, "needs channel_created_at:"),
        ({"rows": clips()[1].drop("published_at")}, "needs published_at:"),
        ({"rows": clips()[1].drop("video_id").to_dicts()}, "needs video_id:"),
        ({"rows": clips()[1].with_columns(title_length=5)}, "other values in title_length"),
        ({"rows": [*clips()[1].to_dicts()[1:], clips()[1].to_dicts()[0] | {"title_length": 5}]},
         "other values in title_length"),
    ],
)  # fmt: skip
def test_what_the_model_is_not_bound_to_is_refused_in_one_sentence(predictor, change, told):
    with pytest.raises(BindingMismatch, match=told) as refused:
        predictor.predict(**given() | change)
    assert "\n" not in str(refused.value)


def test_the_bound_lock_and_contract_are_accepted(predictor):
    named = lock_of(updated_at="whenever")
    found = predictor.predict(**given(), lock=named, feature_contract_sha256=CONTRACT.sha256)
    assert len(found) == N


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"video": np.nan},
            rf"video vectors must be finite and of unit norm.*1 of 90 are not \({FIRST}\)",
        ),
        ({"audio": 2.0}, "audio vectors must be finite and of unit norm"),
        ({"text": 0.0}, rf"text vectors must be finite and of unit norm.*\({FIRST}\)"),
    ],
)
def test_vectors_that_no_encoder_makes_are_refused(predictor, change, told):
    what = given()
    for modality, factor in change.items():
        vectors = what["vectors"][modality].copy()
        vectors[np.flatnonzero(what["text_present"])[0]] *= factor
        what["vectors"] = {**what["vectors"], modality: vectors}
    with pytest.raises(ValueError, match=told):
        predictor.predict(**what)


def test_words_of_a_clip_without_text_are_refused(predictor):
    what = given()
    fewer = what["text_present"].copy()
    fewer[np.flatnonzero(fewer)[0]] = False
    with pytest.raises(ValueError, match="must have a zero text vector"):
        predictor.predict(**what | {"text_present": fewer})


def test_clips_of_another_shape_are_refused(predictor):
    batch = clips()[0].clips
    with pytest.raises(BindingMismatch, match=r"fused 19 values, found.*fused 18"):
        predictor.predict_clips(replace(batch, fused=batch.fused[:, :-1]))
    with pytest.raises(BindingMismatch, match="6 features of set v2, found 5 others"):
        predictor.predict_clips(replace(batch, metadata=batch.metadata.drop("title_length")))
    with pytest.raises(BindingMismatch, match="bound to vectors of video 6"):
        predictor.predict_clips(replace(batch, audio=batch.audio[:, 1:]))


def test_unversioned_vectors_count_as_what_they_were_adopted_as(folder):
    unversioned = dict.fromkeys(MODALITIES, "unversioned")
    promoted(folder, versions=unversioned)
    adopted = {m: EmbeddingVersion(m, "x", "1", "0", "p", {}, DIMS) for m in MODALITIES}
    named = {m: version.id for m, version in adopted.items()}
    what = given()

    before = load_predictor(folder, 7)
    assert len(before.predict(**what | {"versions": unversioned})) == N
    with pytest.raises(BindingMismatch, match="'unversioned'"):
        before.predict(**what | {"versions": named})

    for modality, version in adopted.items():
        ModelsLock(folder, LAYOUT.models_lock()).adopt(modality, version, is_stand_in=False)
    after = load_predictor(folder, 7)
    for versions in (unversioned, named):
        found = after.predict(**what | {"versions": versions}, lock=lock_of(versions=versions))
        assert len(found) == N
    with pytest.raises(BindingMismatch, match="'other'"):
        after.predict(**what | {"versions": {**named, "video": "other"}})


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


@pytest.fixture
def of_files(folder):
    """A predictor bound to `FileEncoder`, and what `predict_files` takes by row."""
    promoted(folder, versions={m: FileEncoder(m).version.id for m in MODALITIES})
    return load_predictor(folder, 7), files


def test_raw_files_give_the_stored_predictions(of_files, tmp_path):
    predictor, files = of_files
    expected = stored("ridge")
    present = clips()[0].clips.text_present
    for position in (np.flatnonzero(present)[0], np.flatnonzero(~present)[0]):
        what = files(position)
        path = tmp_path / f"{position}.mp4"
        path.write_bytes(what["video"])
        for video in (what["video"], path, str(path)):
            found = predictor.predict_files(**what | {"video": video})
            assert found.log[0] == pytest.approx(expected[position]["prediction_log"], rel=1e-6)
            assert found.text_present.tolist() == [present[position]]
            assert found.video_ids.tolist() == [expected[position]["video_id"]]


@pytest.mark.parametrize("other", MODALITIES)
def test_another_encoder_is_refused_before_it_looks_at_the_file(of_files, other):
    predictor, files = of_files
    what = files(np.flatnonzero(clips()[0].clips.text_present)[0])

    def open_encoder(modality):
        return FileEncoder(modality, "newer" if modality == other else "bytes")

    with pytest.raises(BindingMismatch, match=rf"{other} embedding: the model is bound to"):
        predictor.predict_files(**what | {"open_encoder": open_encoder, other: b"corrupt"})


def test_files_and_rows_that_cannot_be_embedded_are_refused(of_files):
    predictor, files = of_files
    what = files(np.flatnonzero(clips()[0].clips.text_present)[0])
    with pytest.raises(MediaError, match="corrupt"):
        predictor.predict_files(**what | {"audio": b"x"})
    with pytest.raises(MediaError, match="gave up"):
        predictor.predict_files(**what, deadline_seconds=-1.0)
    with pytest.raises(ContentMissing):
        predictor.predict_files(**what | {"text": b"no words"})
    lacking = {name: v for name, v in what["metadata"].items() if name not in {"title", "query"}}
    with pytest.raises(BindingMismatch, match="the row lacks title, query"):
        predictor.predict_files(**what | {"metadata": lacking})
    predictor.predict_files(**what | {"metadata": lacking, "text": None})
    with pytest.raises(BindingMismatch, match="needs video_id"):
        predictor.predict_files(**what | {"metadata": {}})
