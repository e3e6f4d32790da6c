from types import SimpleNamespace

import pytest

from clipfarm_assets.training.networks import progress as progress_module
from clipfarm_assets.training.networks.fit import Objective, fit_batches
from clipfarm_assets_tests.training.networks.fit_cases import (
    CONFIG,
    OBJECTIVE,
    Kept,
    classifier,
    in_memory,
    val_batches,
)


@pytest.fixture
def clock(monkeypatch):
    """Stands still but where a test moves it."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(
        progress_module, "time", SimpleNamespace(monotonic=lambda: clock.now), raising=True
    )
    return clock


def lines_of(clock, seconds, batch_size, epochs, checkpoint=None):
    """The lines of a fit in which every step takes so many seconds, and the rest no time."""

    def loss(output, target):
        clock.now += seconds if output.requires_grad else 0
        return OBJECTIVE.loss(output, target)

    lines = []
    config = CONFIG.model_copy(update={"max_epochs": epochs, "patience": 99})
    curve = fit_batches(
        classifier(),
        in_memory(batch_size),
        val_batches(),
        config,
        0,
        say=lines.append,
        name="memes",
        objective=Objective(
            loss, OBJECTIVE.score, "val_loss", "timed", dict(OBJECTIVE.other_scores)
        ),
        checkpoint=checkpoint,
    )
    return lines, curve


def test_after_an_epoch(clock):
    """70 rows in 2 s each epoch: the third is the first to end 5 s after the start."""
    lines, curve = lines_of(clock, 2, 70, epochs=6)
    assert lines == [
        (
            f"memes: epoch 3/6, loss {curve.train_loss[2]:.4f}, val_loss {curve.val_score[2]:.4f}, "
            f"val_accuracy {curve.other_scores['val_accuracy'][2]:.4f}, "
            f"val_macro_f1 {curve.other_scores['val_macro_f1'][2]:.4f}, 35 rows/s, at most 6 s left"
        ),
        (
            f"memes: epoch 6/6, loss {curve.train_loss[5]:.4f}, val_loss {curve.val_score[5]:.4f}, "
            f"val_accuracy {curve.other_scores['val_accuracy'][5]:.4f}, "
            f"val_macro_f1 {curve.other_scores['val_macro_f1'][5]:.4f}, 35 rows/s, at most 0 s left"
        ),
        (
            f"memes: 6 of 6 epochs in 12.0 s, best val_loss {min(curve.val_score):.4f}, "
            f"val_accuracy {curve.other_scores['val_accuracy'][curve.best_epoch]:.4f}, "
            f"val_macro_f1 {curve.other_scores['val_macro_f1'][curve.best_epoch]:.4f} "
            f"in epoch {curve.best_epoch + 1}"
        ),
    ]


def test_within_an_epoch(clock):
    """7 steps of 10 rows and 5 s: whoever waits for a long epoch hears of it."""
    lines, _ = lines_of(clock, 5, 10, epochs=2)
    assert len(lines) == 2 * 7 + 1
    assert lines[0].startswith("memes: epoch 1/2, 10 of 70 rows, loss ")
    assert lines[0].endswith(", 2 rows/s, at most 65 s left")
    assert lines[5].startswith("memes: epoch 1/2, 60 of 70 rows, loss ")
    assert lines[5].endswith(", at most 40 s left")
    assert lines[7].startswith("memes: epoch 2/2, 10 of 70 rows, loss ")
    assert lines[7].endswith(", at most 30 s left")


def test_rate_and_rest_after_going_on_count_what_this_run_did(clock):
    kept = Kept()
    lines_of(clock, 2, 70, epochs=6, checkpoint=kept)
    kept.data = kept.saved[1]
    lines, curve = lines_of(clock, 3, 70, epochs=6, checkpoint=kept)
    assert curve.resumed_after == 2
    assert lines[0] == "memes: goes on from a checkpoint after epoch 2/6"
    assert lines[1].startswith("memes: epoch 4/6, ")
    assert lines[1].endswith(", 23 rows/s, at most 6 s left")
    assert lines[-1].startswith("memes: 6 of 6 epochs in 12.0 s, best val_loss ")


def test_nothing_is_said_in_between_of_a_short_fit(clock):
    lines, _ = lines_of(clock, 0.01, 10, epochs=2)
    assert len(lines) == 1
