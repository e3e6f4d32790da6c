"""A model predicts only from what it is bound to."""

from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets_tests.serving.kit import (
    CONTRACT,
    DIMS,
    LAYOUT,
    MODALITIES,
    VERSIONS,
    N,
    clips,
    given,
    lock_of,
    promoted,
)

FIRST = clips()[0].clips.video_ids[np.flatnonzero(clips()[0].clips.text_present)[0]]
"""The first clip with text."""


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
