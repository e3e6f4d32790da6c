"""Fusion is said to win only where it does beyond chance."""

import numpy as np
import pytest

from clipfarm_assets.training.classification.confidence import paired_macro_f1
from clipfarm_assets.training.classification.metrics import macro_f1
from clipfarm_assets.training.classification.verdict import judge_fusion

RNG = np.random.default_rng(4)
LABELS = RNG.integers(2, size=200)
GROUPS = [f"g{i // 2}" for i in range(200)]


def model(share, seed):
    rng = np.random.default_rng(seed)
    return np.where(rng.random(200) < share, LABELS, 1 - LABELS)


def judge(fusion, **unimodal):
    return judge_fusion(LABELS, fusion, unimodal, GROUPS, judged_on="test", resamples=200, seed=1)


def test_fusion_that_is_better_wins_over_the_best_modality():
    text, vision, fusion = model(0.6, 1), model(0.7, 2), model(0.97, 3)
    found = judge(fusion, text=text, vision=vision)
    assert found.fusion_wins
    assert (found.best_unimodal, found.judged_on) == ("vision", "test")
    assert (found.fusion, found.unimodal) == (macro_f1(LABELS, fusion), macro_f1(LABELS, vision))
    assert found.difference == paired_macro_f1(
        LABELS, fusion, vision, GROUPS, resamples=200, seed=1
    )
    told = str(found)
    assert told.startswith("fusion is better than vision alone on test: macro-F1 0.9")
    assert "95% interval +0." in told
    assert "of 100 groups" in told


@pytest.mark.parametrize("fusion_share", [0.9, 0.88, 0.5])
def test_fusion_that_is_no_better_does_not_win(fusion_share):
    found = judge(model(fusion_share, 7), text=model(0.9, 8), vision=model(0.5, 9))
    assert not found.fusion_wins
    assert found.best_unimodal == "text"
    assert str(found).startswith("fusion is not shown to be better than text alone on test")


def test_fusion_that_says_what_text_says_does_not_win():
    text = model(0.9, 8)
    found = judge(text, text=text, vision=model(0.5, 9))
    assert not found.fusion_wins
    assert (found.difference.low, found.difference.high) == (0.0, 0.0)


def test_of_equal_modalities_the_first_is_named():
    same = model(0.8, 1)
    assert judge(same, vision=same, text=same.copy()).best_unimodal == "vision"


def test_fusion_must_be_better_than_every_modality_and_is_shown_against_the_hardest():
    """Text has the best score, but vision, always right where fusion is, is harder to beat."""
    text, vision, fusion = LABELS.copy(), LABELS.copy(), LABELS.copy()
    text[:20] = 1 - text[:20]
    vision[100:121] = 1 - vision[100:121]
    fusion[:2] = 1 - fusion[:2]
    fusion[100:116] = 1 - fusion[100:116]
    found = judge(fusion, text=text, vision=vision)
    assert found.best_unimodal == "text"
    assert set(found.differences) == {"text", "vision"}
    for name, predicted in (("text", text), ("vision", vision)):
        assert found.differences[name] == paired_macro_f1(
            LABELS, fusion, predicted, GROUPS, resamples=200, seed=1
        )
    lows = {name: each.low for name, each in found.differences.items()}
    assert found.difference == found.differences[min(lows, key=lows.get)]
    assert not found.fusion_wins


def test_one_modality_that_is_not_beaten_is_enough_to_lose():
    fusion = model(0.97, 3)
    wrong = np.flatnonzero(fusion != LABELS)
    rival = fusion.copy()
    rival[np.flatnonzero(fusion == LABELS)[:1]] ^= 1  # all but as good, and not surely worse
    found = judge(fusion, text=model(0.6, 1), vision=rival)
    assert len(wrong)
    assert found.differences["text"].is_better
    assert not found.differences["vision"].is_better
    assert not found.fusion_wins
    assert found.hardest == "vision"
    assert "of 100 groups" in str(found)
    assert "better in 1 of them, worse in 0" in str(found)


def test_without_modalities_there_is_nothing_to_compare_with():
    with pytest.raises(ValueError, match="found none"):
        judge(model(0.9, 1))
