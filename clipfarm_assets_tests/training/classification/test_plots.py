"""The same numbers give the same picture; every case an evaluation can have can be drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from clipfarm_assets.training.classification import plots
from clipfarm_assets.training.classification.confidence import Interval, intervals
from clipfarm_assets.training.classification.metrics import calibration_bins, confusion_matrix
from clipfarm_assets.training.classification.values import predicted_classes
from clipfarm_assets_tests.training.classification.kit import rows

CLASSES = ("not_abuse_hate", "abuse_hate")
SYSTEMS = ("text", "vision", "fusion")
LABELS, _ = rows(60, seed=0)
VALUES = {name: rows(60, seed=i)[1] for i, name in enumerate(SYSTEMS)}
CURVES = {"fusion": {"train_loss": [0.7, 0.5, 0.3], "val_nll": [0.7, 0.6, 0.5], "best_epoch": 2}}


def bins(seed=0):
    labels, values = rows(80, seed=seed)
    return calibration_bins(labels, values)


def confusion(values):
    return confusion_matrix(LABELS, predicted_classes(values), 2)


def found(seed=0):
    labels, values = rows(40, seed=seed)
    return {"fusion": intervals(labels, values, resamples=20)}


def roc_of_three():
    labels, values = rows(50, 3, seed=1)
    return plots.roc_png(labels, {"text": values}, ("a", "b", "c"))


DRAWN = {
    "reliability": lambda: plots.reliability_png({"text": bins(), "fusion": bins(1)}, "a title"),
    "one row": lambda: plots.reliability_png({"text": calibration_bins([0], [[0.9, 0.1]])}),
    "no model": lambda: plots.reliability_png({}),
    "confusion": lambda: plots.confusion_png(
        {name: confusion(values) for name, values in VALUES.items()}, CLASSES
    ),
    "one class alone": lambda: plots.confusion_png({"text": np.array([[9, 0], [0, 0]])}, CLASSES),
    "roc": lambda: plots.roc_png(LABELS, VALUES, CLASSES, "abuse_hate"),
    "roc of three": roc_of_three,
    "roc of one class": lambda: plots.roc_png(LABELS * 0, VALUES, CLASSES),
    "no roc": lambda: plots.roc_png(LABELS, {}, CLASSES),
    "curves": lambda: plots.curves_png(CURVES),
    "intervals": lambda: plots.intervals_png(found(), ["macro_f1", "auroc"], "test"),
    "without value": lambda: plots.intervals_png(
        {"text": {"auroc": Interval(None, None, None, 0)}}, ["auroc"]
    ),
    "one group": lambda: plots.intervals_png(
        {"text": {"auroc": Interval(0.5, None, None, 9)}}, ["auroc"]
    ),
}


@pytest.mark.parametrize("name", DRAWN)
def test_a_plot_is_a_png_and_the_same_each_time(name):
    png = DRAWN[name]()
    assert png == DRAWN[name]()
    image = Image.open(io.BytesIO(png)).convert("L")
    assert min(image.size) >= 50
    assert np.asarray(image).min() < 140, "something is drawn"


def test_other_numbers_give_another_picture():
    text = VALUES["text"]
    pairs = [
        (plots.reliability_png({"a": bins(1)}), plots.reliability_png({"a": bins(2)})),
        (
            plots.confusion_png({"a": confusion(text)}, CLASSES),
            plots.confusion_png({"a": confusion(VALUES["vision"])}, CLASSES),
        ),
        (
            plots.roc_png(LABELS, {"a": text}, CLASSES),
            plots.roc_png(LABELS, {"a": VALUES["vision"]}, CLASSES),
        ),
        (
            plots.intervals_png(found(1), ["nll"]),
            plots.intervals_png(found(2), ["nll"]),
        ),
    ]
    for one, other in pairs:
        assert one != other


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were drawn, to be looked into."""
    figures = []
    for module in (plots, plots.plots):
        png = module.png
        monkeypatch.setattr(
            module,
            "png",
            lambda figure, *a, png=png, **k: figures.append(figure) or png(figure, *a, **k),
        )
    return figures


def test_losses_are_drawn_as_they_are(drawn):
    plots.curves_png(CURVES)
    (axes,) = drawn[0].axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    assert lines["train_loss"] == [0.7, 0.5, 0.3]
    assert lines["val_nll"] == [0.7, 0.6, 0.5]


def test_the_roc_is_that_of_scikit_learn(drawn):
    from sklearn.metrics import roc_curve

    scores = np.round(VALUES["text"][:, 1], 1)
    false_rate, true_rate = plots.roc_points(LABELS, scores)
    expected = roc_curve(LABELS, scores, drop_intermediate=False)
    np.testing.assert_allclose(false_rate, expected[0])
    np.testing.assert_allclose(true_rate, expected[1])
    plots.roc_png(LABELS, VALUES, CLASSES)
    (axes,) = drawn[0].axes
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert [line.split(":")[0] for line in legend] == list(SYSTEMS)


def test_what_has_no_value_is_not_drawn_as_one(drawn):
    plots.intervals_png(
        {
            "text": {"auroc": Interval(None, None, None, 0)},
            "vision": {"auroc": Interval(0.7, 0.6, 0.8, 20)},
        },
        ["auroc"],
    )
    (axes,) = drawn[0].axes
    assert [list(line.get_xdata()) for line in axes.get_lines()] == [[0.6, 0.8], [0.7]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["text", "vision"]


def test_a_confusion_of_other_classes_is_refused():
    with pytest.raises(ValueError, match=r"of text must be of 2 classes .*found shape \(3, 3\)"):
        plots.confusion_png({"text": np.eye(3, dtype=int)}, CLASSES)
