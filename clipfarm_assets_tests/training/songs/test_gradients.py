"""Gradient histories: imbalance is found in its epoch, and files say what was seen."""

import csv
import io

from clipfarm_assets.training.songs.gradients import GradientHistory

NORMS = {
    "text": [1.0, 1.0, 1.0],
    "audio": [2.0, 30.0, 2.0],
    "midi": [0.0, 3.0, 1.5],
    "shared": [99.0] * 3,
}


def test_gradient_imbalance_detection():
    history = GradientHistory.of(NORMS, 10.0)
    assert list(history.advice) == [2]
    assert "gradients of audio are 30 times those of text" in history.advice[2]
    assert "lower the learning rate of audio or raise that of text" in history.advice[2]
    assert GradientHistory.of(NORMS, 31.0).advice == {}


def test_what_all_share_and_what_is_frozen_do_not_count():
    history = GradientHistory.of(NORMS, 10.0)
    assert [history.strongest(epoch) for epoch in (1, 2, 3)] == [2.0, 30.0, 2.0]
    assert GradientHistory.of({"text": [1.0], "shared": [5.0]}, 2.0).strongest(1) is None


def test_files_hold_every_norm():
    history = GradientHistory.of(NORMS, 10.0)
    fields = history.to_fields()
    assert fields["norms"] == NORMS
    assert fields["strongest_to_weakest"] == [2.0, 30.0, 2.0]
    assert list(fields["advice"]) == ["2"]
    found = list(csv.DictReader(io.StringIO(history.to_csv())))
    assert len(found) == 12
    for row in found:
        assert float(row["norm"]) == NORMS[row["modality"]][int(row["epoch"]) - 1]


def test_a_fit_without_epochs_has_none():
    history = GradientHistory.of({}, 10.0)
    assert (history.epochs, history.advice) == (0, {})
    assert history.to_csv() == "epoch,modality,norm,phase\n"


def test_norms_are_written_to_the_last_bit():
    value = 0.1 + 0.2
    told = GradientHistory.of({"text": [value], "audio": [1.0]}, 10.0).to_csv()
    assert float(told.splitlines()[1].split(",")[2]) == value


def test_norms_of_the_warm_start_are_told_and_compared_with_nothing():
    """Each modality has as many epochs as it took; far apart they are no imbalance."""
    history = GradientHistory.of(NORMS, 10.0, warm_start={"text": [1.0, 0.5], "audio": [99.0]})
    assert list(history.advice) == [2]
    assert history.to_fields()["warm_start"] == {"text": [1.0, 0.5], "audio": [99.0]}
    rows = list(csv.DictReader(io.StringIO(history.to_csv())))
    start = [tuple(row.values()) for row in rows if row["phase"] == "warm_start"]
    assert start == [
        ("1", "text", "1.0", "warm_start"),
        ("1", "audio", "99.0", "warm_start"),
        ("2", "text", "0.5", "warm_start"),
    ]
    assert sum(row["phase"] == "fusion" for row in rows) == 12
