"""What the demo declares of a comparison can't be had by models that are worse altogether."""

import pytest

from clipfarm_assets.demo.songs.declared import RARELY_ABSENT, of_comparison
from clipfarm_assets.pipelines.songs.comparison_files import WITH_DROPOUT, WITHOUT_DROPOUT


def of_words(full, left):
    """What a way of training loses without words, of macro-F1 with all and without them."""
    return {RARELY_ABSENT: {"macro_f1": left, "lost": full - left}}


def declared(with_it, without_it, bound=0.3):
    """What is declared -> how it is, of strategies' macro-F1: with all, and without words."""
    degradation = {
        name: {WITH_DROPOUT: of_words(*one), WITHOUT_DROPOUT: of_words(*other)}
        for name, one, other in zip(("late", "early"), with_it, without_it, strict=True)
    }
    judged = {"verdicts": {}, "degradation": degradation}
    # The bound that the comparison's run was told of is not what counts.
    found = {"decided_on": "test", "splits": {"test": judged}, "settings": {"most_degradation": 1}}
    return {each.what: each for each in of_comparison(found, bound)}


@pytest.mark.parametrize(
    ("with_it", "without_it", "loses_less", "has_more_left"),
    [
        ([(0.75, 0.65), (0.75, 0.55)], [(0.76, 0.5), (0.76, 0.6)], True, True),
        ([(0.5, 0.45), (0.5, 0.45)], [(0.76, 0.5), (0.76, 0.6)], True, False),
        ([(0.95, 0.65), (0.95, 0.65)], [(0.76, 0.5), (0.76, 0.6)], False, True),
    ],
)
def test_less_lost_by_having_less_is_not_enough(with_it, without_it, loses_less, has_more_left):
    found = declared(with_it, without_it)
    assert found["mean macro-F1 lost without text"].holds == loses_less
    assert found["mean macro-F1 left without text"].holds == has_more_left


def test_both_ways_of_training_show_all_scores():
    found = declared([(0.75, 0.65), (0.75, 0.55)], [(0.76, 0.5), (0.76, 0.6)])
    told = found["mean macro-F1 left without text"].found
    assert told == "0.750 - 0.150 = 0.600 against 0.760 - 0.210 = 0.550"


def test_the_bound_is_the_deployments():
    scores = [(0.75, 0.65), (0.75, 0.5)], [(0.76, 0.5), (0.76, 0.6)]
    assert declared(*scores, bound=0.3)["early without a modality"].holds
    found = declared(*scores, bound=0.2)
    assert not found["early without a modality"].holds
    assert found["late without a modality"].holds
