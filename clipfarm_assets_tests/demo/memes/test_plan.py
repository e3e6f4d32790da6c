"""The law of the generated memes: no caption and no picture tells the label alone."""

from collections import defaultdict

import numpy as np
import pytest

from clipfarm_assets.contracts.meme_splits import normalised
from clipfarm_assets.demo.memes.pictures import TINTS
from clipfarm_assets.demo.memes.plan import FEWEST, KINDS, ROWS, plan_memes
from clipfarm_assets.demo.memes.words import MOODS
from clipfarm_assets.pipelines.memes.hashes import perceptual_hash


def caption_mood(meme):
    """What the words say: every caption has words of one mood alone."""
    words = set(meme.caption.split())
    (mood,) = (n for n, judging in enumerate(MOODS) if words & set(judging))
    return mood


def picture_mood(image):
    """What the picture says: whether it has more red or more blue."""
    red, _, blue = np.asarray(image, dtype=np.float64).mean(axis=(0, 1))
    warm_first = TINTS[0][0] > TINTS[0][2]
    return int((red > blue) != warm_first)


def test_the_label_is_the_xor_of_what_words_and_picture_say():
    plan = plan_memes("xor", 40)
    for meme in plan.memes:
        assert meme.label == caption_mood(meme) ^ picture_mood(plan.draw[meme.image]())


@pytest.mark.parametrize("part", ["caption", "image"])
def test_whoever_sees_one_part_is_right_about_half_whatever_it_answers(part):
    labels = defaultdict(list)
    for meme in plan_memes("xor", 400).memes:
        labels[getattr(meme, part)].append(meme.label)
    assert len(labels) == 200
    assert all(sorted(found) == [0, 1] for found in labels.values())


def test_in_the_noise_set_words_tell_all_and_pictures_nothing():
    plan = plan_memes("noise", 60)
    assert [meme.label for meme in plan.memes] == [caption_mood(meme) for meme in plan.memes]
    assert len(plan.draw) == 60
    means = np.array([np.asarray(draw()).mean(axis=(0, 1)) for draw in plan.draw.values()])
    labels = np.array([meme.label for meme in plan.memes])
    gap = np.abs(means[labels == 0].mean(axis=0) - means[labels == 1].mean(axis=0))
    assert (gap < 4 * means.std(axis=0) / np.sqrt(15)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_has_its_number_of_memes_and_both_labels_alike(kind):
    memes = plan_memes(kind).memes
    assert len(memes) == ROWS[kind]
    assert abs(sum(meme.label for meme in memes) - len(memes) / 2) <= 1
    assert len({meme.id for meme in memes}) == len(memes)


def test_the_pilot_has_fifty():
    assert ROWS["pilot"] == 50


def test_no_words_and_no_pictures_of_two_quads_are_near_duplicates():
    """Else groups would grow together, and splits couldn't be cut."""
    plan = plan_memes("xor", 400)
    owner = {}
    for meme in plan.memes:
        for text in (meme.caption, meme.ocr):
            assert owner.setdefault(normalised(text), meme.quad) == meme.quad
    hashes = [perceptual_hash(draw()) for draw in plan.draw.values()]
    assert None not in hashes
    distances = [(one ^ other).bit_count() for n, one in enumerate(hashes) for other in hashes[:n]]
    assert min(distances) > 4


def test_the_same_arguments_give_the_same_memes_and_another_seed_others():
    one, same, other = (plan_memes("xor", 20, seed) for seed in (1, 1, 2))
    assert one.memes == same.memes
    assert {m.caption for m in one.memes}.isdisjoint(m.caption for m in other.memes)
    path = one.memes[0].image
    assert one.draw[path]().tobytes() == one.draw[path]().tobytes() == same.draw[path]().tobytes()
    assert one.draw[path]().tobytes() != other.draw[path]().tobytes()


def test_a_smaller_set_is_the_beginning_of_a_larger_one():
    few, many = plan_memes("xor", 20), plan_memes("xor", 40)
    assert many.memes[:20] == few.memes


def test_too_few_rows_are_refused():
    with pytest.raises(ValueError, match=f"must have {FEWEST} rows or more: found 11"):
        plan_memes("xor", FEWEST - 1)
