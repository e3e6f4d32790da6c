"""Predictions from a clip's files."""

import numpy as np
import pytest

from clipfarm_assets.encoders.base import ContentMissing, MediaError
from clipfarm_assets.serving.binding import BindingMismatch
from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets_tests.serving.kit import (
    MODALITIES,
    FileEncoder,
    clips,
    files,
    promoted,
    stored,
)


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
