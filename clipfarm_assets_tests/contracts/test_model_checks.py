import math

import numpy as np
import polars as pl
import pytest

from clipfarm_assets.contracts.model_checks import (
    Coverage,
    beats_mean,
    interval_coverage,
    predictions_complete,
)


def test_a_family_that_is_not_better_than_the_mean_is_found():
    verdict = beats_mean({"gbdt": 1.2, "ridge": 1.5, "concat_mlp": 1.51, "gone": math.nan}, 1.5)
    assert [f.subject for f in verdict.findings] == ["ridge", "concat_mlp", "gone"]
    assert verdict.examined == 4
    assert beats_mean({"gbdt": 1.4999}, 1.5).holds


def calibrated(rng, m, level, n):
    """An honest interval: the k-th smallest of m uniform residuals, and n new ones."""
    k = math.ceil((m + 1) * level)
    half_width = np.sort(rng.random(m))[k - 1]
    return Coverage(k / (m + 1), m, float(np.mean(rng.random(n) <= half_width)), n)


@pytest.mark.parametrize(("m", "n"), [(20, 20), (400, 60), (60, 2000)])
def test_honest_intervals_are_hardly_ever_found(m, n):
    rng = np.random.default_rng(m)
    families = {str(i): calibrated(rng, m, 0.9, n) for i in range(400)}
    assert len(interval_coverage(families).findings) <= 1


@pytest.mark.parametrize(
    ("found", "holds"),
    [(0.90, True), (0.86, True), (0.94, True), (0.70, False), (1.00, False), (0.0, False)],
)
def test_coverage_far_from_the_promise_is_found(found, holds):
    told = {"gbdt": Coverage(0.9, 300, found, 300), "ridge": Coverage(0.9, 300, 0.9, 300)}
    verdict = interval_coverage(told)
    assert verdict.holds is holds
    assert [f.subject for f in verdict.findings] == ([] if holds else ["gbdt"])


def test_an_interval_of_few_rows_promises_what_few_rows_can():
    assert interval_coverage({"mean": Coverage(5 / 6, 5, 1.0, 6)}).holds


IDS = ["a", "b", "c"]


def rows(*cells, **changes):
    base = {
        "model_version": "h7-v1",
        "prediction_log": 2.0,
        "prediction_raw": 6.0,
        "interval_low_raw": 3.0,
        "interval_high_raw": 9.0,
        "text_present": 1,
    }
    return pl.DataFrame(
        [{"video_id": i, "horizon_days": h, **base, **changes} for i, h in cells],
        schema_overrides={"prediction_log": pl.Float64},
    )


def test_every_fused_clip_of_every_promoted_horizon():
    fused = {7: {"a", "b", "elsewhere"}, 30: {"a"}}
    whole = rows(("a", 7), ("b", 7), ("a", 30))
    verdict = predictions_complete(whole, fused, IDS)
    assert verdict.holds
    assert verdict.examined == 3
    assert verdict.facts == {"without_fused_vector": 3}
    lacking = predictions_complete(whole.filter(pl.col("video_id") != "b"), fused, IDS)
    assert [str(f) for f in lacking.findings] == ["b, 7 days: has a fused vector and no prediction"]


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (rows(("a", 7), prediction_log=math.nan), "prediction_log must be a finite number"),
        (rows(("a", 7), prediction_log=None), "prediction_log must be a finite number"),
        (rows(("a", 7), interval_high_raw=math.inf), "interval_high_raw must be a finite"),
        (rows(("a", 7), interval_low_raw=7.0), "lies outside its interval"),
        (rows(("a", 7), ("a", 7)), "1 clips have two predictions"),
        (rows(("a", 7), ("b", 7)), "b, 7 days: is predicted without a fused vector"),
        (rows(("a", 7), ("a", 30)), "horizon 30: is predicted, but no model is promoted"),
    ],
)
def test_what_is_no_prediction_is_found(table, says):
    verdict = predictions_complete(table, {7: {"a"}}, IDS)
    assert len(verdict.findings) == 1
    assert says in verdict.summary()


def test_no_prediction_at_all_is_found():
    none = rows(("a", 7)).clear()
    assert len(predictions_complete(none, {7: set(IDS)}, IDS).findings) == 3
    assert predictions_complete(none, {}, IDS).holds
