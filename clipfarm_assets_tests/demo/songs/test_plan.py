"""The law of generated songs: what is planted is there, in the shares that are declared."""

from itertools import combinations

import numpy as np
import pytest

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.demo.songs.config import demo_config, most_degradation
from clipfarm_assets.demo.songs.lyrics import MOODS
from clipfarm_assets.demo.songs.plan import (
    ALBUMS,
    CHANNELS,
    INSTRUMENTAL,
    OFFSETS,
    PAIRINGS,
    SPARSE_ALBUM,
    TELLING,
    WITHOUT_AUDIO,
    WITHOUT_MIDI,
    WITHOUT_MIDI_IN_SPARSE,
    plan_songs,
)
from clipfarm_assets.training.song_config import song_config


@pytest.fixture(scope="module")
def plan():
    return plan_songs()


def test_shares_come_out_as_declared(plan):
    one = 1 / len(plan.segments)
    for channel in CHANNELS:
        telling = plan.share([channel in s.telling for s in plan.segments])
        assert telling == pytest.approx(TELLING[channel], abs=one), channel
    assert plan.without("text") == pytest.approx(INSTRUMENTAL, abs=one)
    assert plan.without("audio") == pytest.approx(WITHOUT_AUDIO, abs=one)
    assert plan.without("midi") == pytest.approx(WITHOUT_MIDI, abs=one)
    sparse = plan.without("midi", SPARSE_ALBUM)
    assert sparse == pytest.approx(WITHOUT_MIDI_IN_SPARSE, abs=len(ALBUMS) * one)


def test_every_label_is_as_frequent_and_every_segment_has_something(plan):
    counts = [sum(s.label == label for s in plan.segments) for label in range(len(MOODS))]
    assert max(counts) - min(counts) <= 1
    assert all(any(s.shows(m) for m in MODALITIES) for s in plan.segments)
    assert {s.album for s in plan.segments} == set(ALBUMS)
    assert len({s.id for s in plan.segments}) == len(plan.segments)


def test_pairs_are_out_of_step_in_the_declared_shares(plan):
    pairs = [s for s in plan.segments if s.has_pair]
    for name, share in PAIRINGS.items():
        some = [s for s in pairs if s.pairing == name]
        assert len(some) == round(share * len(pairs))
        if name != "unrelated":
            assert all(OFFSETS[0] - 0.02 <= s.offset <= OFFSETS[1] + 0.02 for s in some)
    moved = [s for s in plan.segments if s.offset]
    assert all(s.pairing in PAIRINGS for s in moved)
    # What a time code of 25 frames a second can say.
    assert all(s.offset * 25 == pytest.approx(round(s.offset * 25)) for s in moved)
    assert all((s.pairing is None) == (not s.has_pair) for s in plan.segments)


def test_who_knows_more_has_to_guess_less(plan):
    for size in (1, 2):
        for some in combinations(MODALITIES, size):
            for other in set(MODALITIES) - set(some):
                assert plan.ceiling((*some, other)) > plan.ceiling(some) + 0.03
    best = max(plan.ceiling((m,)) for m in MODALITIES)
    assert plan.ceiling() - best > 0.15
    assert plan.ceiling(()) == pytest.approx(1 / len(MOODS))


def test_the_same_arguments_give_the_same_plan():
    assert plan_songs(8, 3, seed=1) == plan_songs(8, 3, seed=1)
    assert plan_songs(8, 3, seed=1) != plan_songs(8, 3, seed=2)


@pytest.mark.parametrize(("songs", "segments"), [(3, 8), (8, 0)])
def test_too_few_is_one_sentence(songs, segments):
    with pytest.raises(ValueError, match=f"4 songs or more.*found {songs} of {segments}"):
        plan_songs(songs, segments)


@pytest.mark.parametrize("modality", MODALITIES)
def test_what_is_lost_without_a_modality_is_that_of_who_knows_all_that_is_planted(plan, modality):
    """Such a one, asked about samples of segments, loses more than the bound as often as said."""
    rest = [m for m in MODALITIES if m != modality]
    told = np.array([[s.is_told_by(MODALITIES), s.is_told_by(rest)] for s in plan.segments])
    rng = np.random.default_rng(0)
    guess = rng.random((4000, 120)) < 1 / len(MOODS)
    drawn = told[rng.integers(len(told), size=guess.shape)]
    lost = ((drawn | guess[..., None]) @ [1, -1]).mean(axis=1)
    assert lost.mean() == pytest.approx(plan.attainable_loss(modality), abs=0.002)
    for chance in (0.05, 0.2):
        beyond = (lost > plan.most_lost(modality, 120, chance)).mean()
        assert beyond == pytest.approx(chance, abs=0.04)
        assert beyond > 0


def test_the_demos_bounds_are_what_its_corpus_plants(plan):
    bounds = song_config(demo_config()).evaluation.bounds()
    assert bounds == most_degradation()
    for modality, bound in bounds.items():
        assert plan.attainable_loss(modality) < bound < plan.attainable_loss(modality) + 0.1
    assert bounds["midi"] < bounds["audio"] < bounds["text"], "a rare modality has less to lose"
