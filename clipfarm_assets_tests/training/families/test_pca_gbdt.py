"""Absent text does not matter, channels do, and no label of the future does."""

from dataclasses import replace

import numpy as np
import pytest

from clipfarm_assets.training.config import SuiteConfig
from clipfarm_assets.training.families import pca_gbdt
from clipfarm_assets_tests.training import kit

CONFIG = SuiteConfig.model_validate(
    {"pca_gbdt": {"components": 4, "boosting": {"max_iter": 60, "min_samples_leaf": 5}}}
)


def fit(rows, say=kit.unheard):
    return pca_gbdt.fit(rows.train, rows.val, rows.encoder, CONFIG, 0, say)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, 1e30, -7.0])
def test_absent_text_may_hold_anything(garbage):
    rows = kit.planted(200)
    model = fit(rows)
    train, test = (
        replace(part, clips=kit.with_absent_text(part.clips, garbage))
        for part in (rows.train, rows.test)
    )
    assert not np.array_equal(test.clips.text, rows.test.clips.text)
    assert fit(replace(rows, train=train)).artifacts() == model.artifacts()
    assert np.array_equal(model.predict(test.clips), model.predict(rows.test.clips))


def test_works_without_any_text():
    rows = kit.planted(120, without_text=1.0)
    model = fit(rows)
    assert model.components["text"].axes.shape == (8, 0)
    with_text = kit.planted(120, without_text=0.0)
    assert np.isfinite(model.predict(with_text.test.clips)).all()
    again = kit.reopened(pca_gbdt, model, rows.encoder)
    assert np.array_equal(again.predict(rows.test.clips), model.predict(rows.test.clips))


def test_presence_of_text_is_seen():
    rows = kit.planted(300, weights={}, noise=0.1)
    target = rows.train.target_log + 5.0 * rows.train.clips.text_present
    model = fit(replace(rows, train=replace(rows.train, target_log=target)))
    there = model.predict(rows.test.clips)[rows.test.clips.text_present]
    absent = model.predict(rows.test.clips)[~rows.test.clips.text_present]
    assert there.min() - absent.max() > 4.0


def test_channels_are_learned_from_their_earlier_clips():
    law = {"weights": {"channel": 1.0}, "noise": 0.2, "channels": 12}
    rows = kit.planted(400, **law)
    model = fit(rows)
    unknown = replace(rows.test.clips, channel_id=np.full(len(rows.test), ""))
    known_error = kit.rmse(model, rows.test)
    unknown_error = kit.rmse(model, replace(rows.test, clips=unknown))
    assert known_error < 0.75 * unknown_error


def test_labels_of_the_future_change_no_prediction():
    """Only what a clip's history may hold counts, also through the table that the model keeps."""
    rows = kit.planted(200)
    model = fit(rows)
    moment = np.sort(rows.test.clips.published_at)[5]
    history = model.history
    later = history.known_at > moment
    other = replace(history, target_log=np.where(later, 30.0, history.target_log))
    early = rows.test.clips.take(np.flatnonzero(rows.test.clips.published_at <= moment))
    late = rows.test.clips.take(np.flatnonzero(rows.test.clips.published_at > moment))
    changed = replace(model, history=other)
    assert np.array_equal(changed.predict(early), model.predict(early))
    assert not np.array_equal(changed.predict(late), model.predict(late))


def test_says_which_labels_are_no_history():
    rows = kit.planted(100)
    known = rows.train.known_at.copy()
    known[:3] = rows.train.clips.published_at[:3]
    lines = []
    fit(replace(rows, train=replace(rows.train, known_at=known)), lines.append)
    assert "3 of 70 train labels are no part of any channel history" in lines[0]
