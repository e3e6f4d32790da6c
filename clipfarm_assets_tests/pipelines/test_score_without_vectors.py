"""Scoring by single vectors, of which some are gone from the store."""

import numpy as np
import pyarrow.compute as pc

from clipfarm_assets.pipelines.score import score_date
from clipfarm_assets.pipelines.train import TrainOptions
from clipfarm_assets_tests.pipelines.test_score import (
    DATE,
    all_ids,
    index_of,
    promoted,
    told_of,
    unscored,
)
from clipfarm_assets_tests.training.bench import Bench, quiet  # noqa: F401 - quiet is a fixture


def test_clips_whose_vectors_are_gone_are_counted_by_modality(tmp_path, monkeypatch):
    """A clip without its video has no prediction by single vectors; one without words has."""
    monkeypatch.setattr("clipfarm_assets.serving.promotion._check_beats_mean", lambda *_: None)
    own = Bench(tmp_path, strategies=("sum_pool",), clips=120, write_embeddings=True)
    data = own.assemble("sum_pool")
    own.train(data, options=TrainOptions(families=("mean", "ridge"), compare_splits=()))
    promoted(own, "ridge", "sum_pool")
    worded = np.asarray(data.clips.video_ids)[np.asarray(data.clips.text_present, dtype=bool)]
    own.store.delete(own.layout.embedding("video", worded[0]))
    own.store.delete(own.layout.embedding("text", worded[1]))

    table = score_date(own.deployment, DATE, index_of(own, all_ids(own)))

    found = told_of(unscored(table)["7"])
    assert found == {"video_missing": 1, "text_missing": 1, "no_modality_vector": 1}
    scored = table.filter(pc.equal(table["horizon_days"], 7))["video_id"].to_pylist()
    assert set(all_ids(own)) - set(scored) == {worded[0]}
