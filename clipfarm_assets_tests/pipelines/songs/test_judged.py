"""What is said of a model agrees with what it said of the rows."""

import json

import numpy as np
import pytest

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.pipelines.songs.judged import (
    JudgedRows,
    judge_against_single,
    judge_model,
    subset_name,
)
from clipfarm_assets.training.classification.calibrated import Calibration
from clipfarm_assets.training.classification.metrics import classification_metrics, macro_f1
from clipfarm_assets.training.classification.subsets import subsets
from clipfarm_assets.training.song_config import EvaluationConfig

N, CLASSES = 240, 3
RNG = np.random.default_rng(5)
LABELS = RNG.integers(CLASSES, size=N)
PRESENT = RNG.random((N, 3)) < [0.9, 0.85, 0.43]
ROWS = JudgedRows(
    "test",
    np.array([f"s{n}" for n in range(N)]),
    np.array([f"song {n // 4}" for n in range(N)]),
    LABELS,
    PRESENT,
)
CONFIG = EvaluationConfig(resamples=100, seed=1)
SKILL = {"text": 1.0, "audio": 1.5, "midi": 3.0}


def logits(shown):
    """Of a model that adds up what the modalities say that it is shown and the rows have."""
    found = np.zeros((N, CLASSES))
    for column, name in enumerate(MODALITIES):
        own = np.random.default_rng(column).normal(size=(N, CLASSES))
        own[np.arange(N), LABELS] += SKILL[name]
        found += own * (PRESENT[:, [column]] & (name in shown))
    return found


SAID = {shown: logits(shown) for shown in subsets(MODALITIES)}
CALIBRATION = Calibration.fit(SAID[MODALITIES], LABELS)


def strategy():
    return judge_model("late", ROWS, SAID, CALIBRATION, CONFIG)


def alone(name):
    return judge_model(f"single:{name}", ROWS, {(name,): SAID[name,]}, CALIBRATION, CONFIG)


def test_every_subset_has_the_metrics_of_what_was_said():
    found = strategy()
    assert list(found.by_subset) == list(subsets(MODALITIES))
    for shown, scores in found.by_subset.items():
        values = CALIBRATION.probabilities(SAID[shown])
        assert scores == classification_metrics(LABELS, values)
    whole = found.by_subset[MODALITIES]
    assert {name: each.value for name, each in found.metrics.items()} == whole
    assert found.metrics["macro_f1"].low < whole["macro_f1"] < found.metrics["macro_f1"].high


def test_shapley_shares_add_up():
    found = strategy()
    gained = found.by_subset[MODALITIES]["macro_f1"] - found.by_subset[()]["macro_f1"]
    assert sum(found.shapley.values()) == pytest.approx(gained, abs=1e-12)
    assert all(share > 0 for share in found.shapley.values())


def test_graceful_degradation_is_measured_for_each_modality():
    found = strategy()
    for name in MODALITIES:
        rest = tuple(other for other in MODALITIES if other != name)
        lost = found.by_subset[MODALITIES]["macro_f1"] - found.by_subset[rest]["macro_f1"]
        assert found.degradation[name].lost.value == pytest.approx(lost, abs=1e-12)
        assert found.degradation[name].lost.groups == N // 4


def test_complete_rows_are_told_apart():
    found = strategy()
    whole = PRESENT.all(axis=1)
    assert 0 < whole.sum() < N
    expected = macro_f1(LABELS[whole], SAID[MODALITIES][whole].argmax(axis=1))
    assert found.complete_macro_f1 == expected
    assert ROWS.to_fields()["complete"] == whole.sum()
    assert ROWS.to_fields()["present"]["midi"] == PRESENT[:, 2].sum()
    none = JudgedRows("test", ROWS.ids, ROWS.groups, LABELS, PRESENT & [True, True, False])
    assert judge_model("late", none, SAID, CALIBRATION, CONFIG).complete_macro_f1 is None


def test_one_modality_alone_is_judged_on_the_same_rows():
    found = alone("audio")
    assert found.by_subset == found.shapley == found.degradation == {}
    assert "by_subset" not in found.to_fields()
    predicted = SAID["audio",].argmax(axis=1)
    assert found.metrics["macro_f1"].value == macro_f1(LABELS, predicted)


def test_the_verdict_is_against_every_modality_alone():
    singles = {name: alone(name) for name in MODALITIES}
    verdict = judge_against_single(ROWS, strategy(), singles, CONFIG)
    assert verdict.fusion_wins
    scores = {name: each.metrics["macro_f1"].value for name, each in singles.items()}
    assert verdict.best_unimodal == max(scores, key=scores.get)
    assert verdict.judged_on == "test"
    worse = judge_against_single(ROWS, alone("text"), singles, CONFIG)
    assert not worse.fusion_wins


def test_fields_are_json():
    told = json.loads(json.dumps(strategy().to_fields()))
    assert list(told["by_subset"]) == [subset_name(each) for each in subsets(MODALITIES)]
    assert "none" in told["by_subset"]
    assert set(told["degradation"]) == set(MODALITIES)
