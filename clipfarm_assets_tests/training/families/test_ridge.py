"""Ridge is the formula it is said to be, and never worse than the mean."""

import hashlib
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import mean, ridge
from clipfarm_assets.training.sklearn_files import from_joblib
from clipfarm_assets_tests.training import kit

CONFIG = SuiteConfig()
DURATION = pl.col("duration_seconds")


def fit(rows, config=CONFIG, say=kit.unheard):
    return ridge.fit(rows.train, rows.val, rows.encoder, config, 0, say)


def plain_inputs(train, clips, scale):
    """Clipped, imputed, standardised numbers; one column a known category; the fused block."""
    columns = []
    for name in kit.CONTRACT.numeric:
        known = sorted(value for value in train.metadata[name] if value is not None)
        middle = len(known) // 2
        median = known[middle] if len(known) % 2 else (known[middle - 1] + known[middle]) / 2
        of_train = [median if v is None else v for v in train.metadata[name]]
        average = sum(of_train) / len(of_train)
        spread = math.sqrt(sum((v - average) ** 2 for v in of_train) / len(of_train))
        clipped = [
            median if v is None else min(max(v, known[0]), known[-1]) for v in clips.metadata[name]
        ]
        columns.append([(v - average) / spread for v in clipped])
    for name in kit.CONTRACT.categorical:
        counts = Counter(value for value in train.metadata[name] if value is not None)
        usual = min(counts, key=lambda category: (-counts[category], category))
        values = [v if v in counts else usual for v in clips.metadata[name]]
        columns += [[float(v == category) for v in values] for category in sorted(counts)]
    center = train.fused.astype(np.float64).mean(axis=0)
    variance = ((train.fused - center) ** 2).mean(axis=0).sum()
    block = (clips.fused - center) * scale / math.sqrt(variance)
    return np.hstack([np.array(columns).T, block])


@pytest.mark.parametrize(("n", "scale", "alpha"), [(200, 3.0, 7.0), (40, 0.5, 0.3)])
def test_equals_the_plain_formula(n, scale, alpha):
    rows = kit.planted(n, dims=12)
    rows = replace(rows, test=with_metadata(rows.test, duration_seconds=DURATION * 4 - 60))
    assert rows.encoder.out_of_range(rows.test.clips.metadata)["duration_seconds"] >= 2
    settings = {"ridge": {"alphas": [alpha], "block_scales": [scale]}}
    model = fit(rows, SuiteConfig.model_validate(settings))

    x = plain_inputs(rows.train.clips, rows.train.clips, scale)
    y = rows.train.target_log
    centred = x - x.mean(axis=0)
    weights = np.linalg.solve(
        centred.T @ centred + alpha * np.eye(x.shape[1]), centred.T @ (y - y.mean())
    )
    test = plain_inputs(rows.train.clips, rows.test.clips, scale)
    expected = y.mean() + (test - x.mean(axis=0)) @ weights
    np.testing.assert_allclose(model.predict(rows.test.clips), expected, rtol=1e-9)


def test_scale_and_alpha_are_those_of_least_leave_one_out_error():
    rows = kit.planted(200, dims=12)
    model = fit(rows)
    found = []
    for scale in CONFIG.ridge.block_scales:
        x = plain_inputs(rows.train.clips, rows.train.clips, scale)
        searched = RidgeCV(alphas=list(CONFIG.ridge.alphas)).fit(x, rows.train.target_log)
        found.append((searched.best_score_, searched.alpha_, scale))
    score, alpha, scale = max(found)
    fitted = model.pipeline["ridge"]
    assert fitted.alpha_ == alpha
    assert fitted.best_score_ == pytest.approx(score, rel=1e-9)
    x = plain_inputs(rows.train.clips, rows.train.clips, scale)
    searched = RidgeCV(alphas=list(CONFIG.ridge.alphas)).fit(x, rows.train.target_log)
    assert {name for name in vars(searched) if name.endswith("_")} <= set(vars(fitted))
    again = SuiteConfig.model_validate({"ridge": {"alphas": [alpha], "block_scales": [scale]}})
    np.testing.assert_allclose(
        fit(rows, again).predict(rows.test.clips), model.predict(rows.test.clips), rtol=1e-12
    )


def test_pipeline_alone_maps_the_matrix():
    rows = kit.planted(120)
    model = fit(rows)
    # Our own bytes of this test.
    data = model.artifacts()["ridge.joblib"]
    pipeline = from_joblib(data, hashlib.sha256(data).hexdigest())
    clips = rows.test.clips
    matrix = np.hstack(
        [rows.encoder.numeric(clips.metadata), rows.encoder.codes(clips.metadata), clips.fused]
    )
    assert matrix.dtype == np.float64
    assert np.isnan(matrix).any()
    assert np.array_equal(pipeline.predict(matrix), model.predict(clips))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("n", "dims"), [(30, 768), (150, 16)])
def test_noise_is_predicted_as_well_as_by_the_mean(n, dims, seed):
    everything = kit.planted_rows(n + 200, dims=dims, seed=seed, weights={}, noise=1.5)
    rows = kit.planted(12)
    train, test = (everything.take(np.arange(a, b)) for a, b in ((0, n), (n, n + 200)))
    encoder = type(rows.encoder).fit(train.clips.metadata, kit.CONTRACT)
    lines = []
    model = ridge.fit(train, test, encoder, CONFIG, 0, lines.append)
    floor = mean.fit(train, test, encoder, CONFIG, 0, kit.unheard)
    assert kit.rmse(model, test) <= 1.01 * kit.rmse(floor, test)
    assert len(lines) == 1


def test_as_deployed_is_worse_than_the_mean_and_this_is_not():
    """Few rows, weak signal: standardising every dimension drowns it, as the old record shows."""
    weak = {"video": 0.3, "duration": 0.6}
    rows = kit.planted(200, dims=256, seed=3, weights=weak, noise=1.0)
    floor = mean.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, kit.unheard)
    scaler = StandardScaler().fit(rows.train.clips.fused)
    deployed = RidgeCV(alphas=[0.1, 0.3, 1, 3, 10, 30, 100])
    deployed.fit(scaler.transform(rows.train.clips.fused), rows.train.target_log)
    missed = deployed.predict(scaler.transform(rows.test.clips.fused)) - rows.test.target_log

    assert np.sqrt(np.mean(missed**2)) > 1.1 * kit.rmse(floor, rows.test)
    assert kit.rmse(fit(rows), rows.test) < 0.95 * kit.rmse(floor, rows.test)


def with_metadata(rows, **columns):
    clips = replace(rows.clips, metadata=rows.clips.metadata.with_columns(**columns))
    return replace(rows, clips=clips)


def test_missing_and_unseen_categories_are_the_most_frequent_one():
    rows = kit.planted(200)
    model = fit(rows)
    usual = rows.train.clips.metadata["channel_country"].drop_nulls().mode().sort()[0]
    predictions = [
        model.predict(
            with_metadata(rows.test, channel_country=pl.lit(value, dtype=pl.String)).clips
        )
        for value in (usual, None, "never seen")
    ]
    assert np.array_equal(predictions[0], predictions[1])
    assert np.array_equal(predictions[0], predictions[2])


def test_columns_that_train_knows_nothing_of_are_no_obstacle():
    rows = kit.planted(120)
    train = with_metadata(
        rows.train,
        title_length=pl.lit(None, dtype=pl.Float64),
        channel_country=pl.lit(None, dtype=pl.String),
        default_language=pl.lit(None, dtype=pl.String),
    )
    encoder = type(rows.encoder).fit(train.clips.metadata, kit.CONTRACT)
    model = fit(replace(rows, train=train, encoder=encoder))
    assert np.isfinite(model.predict(rows.test.clips)).all()
    again = kit.reopened(ridge, model, encoder)
    assert np.array_equal(again.predict(rows.test.clips), model.predict(rows.test.clips))


def test_vectors_that_are_all_the_same_are_no_obstacle():
    rows = kit.planted(60)
    clips = replace(rows.train.clips, fused=np.ones_like(rows.train.clips.fused))
    model = fit(replace(rows, train=replace(rows.train, clips=clips)))
    assert np.isfinite(model.predict(rows.test.clips)).all()


def test_says_what_it_chose():
    lines = []
    fit(kit.planted(120), say=lines.append)
    fit(kit.planted(120, weights={}), say=lines.append)
    assert "ridge: alpha" in lines[0]
    assert "leave-one-out rmse" in lines[0]
    assert "nothing beats the mean" in lines[1]
