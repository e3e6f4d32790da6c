"""What a modality's absence costs is told of all rows, and of those that had it."""

import numpy as np
import pytest

from clipfarm_assets.training.classification.confidence import paired_macro_f1
from clipfarm_assets.training.classification.degradation import degradations
from clipfarm_assets.training.classification.metrics import macro_f1

NAMES = ("text", "audio", "midi")
RNG = np.random.default_rng(3)
LABELS = RNG.integers(3, size=300)
PRESENT = RNG.random((300, 3)) < [0.9, 0.85, 0.43]
GROUPS = [f"song-{row // 5}" for row in range(300)]
DRAWN = {"resamples": 100, "seed": 1, "level": 0.9}


def right(share, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(300) < share, LABELS, (LABELS + 1) % 3)


def pair(removed):
    return tuple(name for name in NAMES if name != removed)


WHOLE = right(0.95, 1)
PREDICTED = {
    NAMES: WHOLE,
    pair("text"): right(0.6, 2),
    # Rows without MIDI say the same without it.
    pair("midi"): np.where(PRESENT[:, 2], right(0.5, 3), WHOLE),
    pair("audio"): WHOLE,
}


def found():
    return degradations(LABELS, PREDICTED, PRESENT, NAMES, GROUPS, **DRAWN)


def test_what_is_lost_is_the_difference_by_the_paired_bootstrap():
    for removed, each in found().items():
        without = PREDICTED[pair(removed)]
        assert each.removed == removed
        assert each.macro_f1 == macro_f1(LABELS, without)
        assert each.lost.value == pytest.approx(macro_f1(LABELS, WHOLE) - each.macro_f1)
        assert each.lost == paired_macro_f1(LABELS, WHOLE, without, GROUPS, **DRAWN)
    assert found()["text"].lost.low > 0
    assert found()["audio"].lost.value == 0


def test_rows_that_lack_it_anyway_hide_nothing():
    """Over all rows a rare modality costs little; over those that have it, what it costs."""
    midi = found()["midi"]
    has = PRESENT[:, 2] & (PRESENT.sum(axis=1) > 1)
    assert midi.affected == has.sum()
    assert midi.lost_of_affected.value > 2 * midi.lost.value * 0.9
    expected = macro_f1(LABELS[has], WHOLE[has]) - macro_f1(
        LABELS[has], PREDICTED[pair("midi")][has]
    )
    assert midi.lost_of_affected.value == pytest.approx(expected)
    assert midi.lost_of_affected.groups == len({GROUPS[row] for row in np.flatnonzero(has)})


def test_a_bound_is_on_all_rows():
    text = found()["text"]
    assert text.is_within(text.lost.value)
    assert not text.is_within(text.lost.value - 1e-9)


def test_rows_with_nothing_else_are_not_counted():
    alone = np.zeros((300, 3), dtype=bool)
    alone[:, 0] = True
    (text, audio, _) = degradations(LABELS, PREDICTED, alone, NAMES, None, **DRAWN).values()
    assert (text.affected, text.lost_of_affected) == (0, None)
    assert (audio.affected, audio.lost_of_affected) == (0, None)
    assert text.to_fields()["lost_of_affected"] is None
