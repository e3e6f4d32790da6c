"""Sound files of formats that clips do not have, and such that ask for much."""

import io
from contextlib import closing

import numpy as np
import pytest
import soundfile

from clipfarm_assets.encoders.audio.decoding import FORMATS, SUBTYPES, load_audio
from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets_tests.encoders import media


def sound(kind, subtype, samples=None, rate=16_000):
    file = io.BytesIO()
    samples = media.tone(0.3) if samples is None else samples
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [
        ("WAV", "PCM_16"), ("WAV", "ULAW"), ("WAVEX", "PCM_24"), ("RF64", "FLOAT"),
        ("W64", "DOUBLE"), ("AIFF", "PCM_S8"), ("AU", "ALAW"), ("CAF", "ALAC_16"),
        ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
        ("WAV", "PCM_U8"), ("WAV", "PCM_32"),
    ],
)  # fmt: skip
def test_the_formats_of_clips_are_decoded(kind, subtype):
    samples, seconds = load_audio(sound(kind, subtype), 16_000, 90.0)
    assert len(samples) > 4_000
    assert seconds > 0.25
    assert kind in FORMATS
    assert subtype in SUBTYPES


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("VOC", "PCM_16"), ("MAT5", "PCM_16"), ("WAV", "GSM610"), ("WAV", "IMA_ADPCM")],
)
def test_others_are_refused_by_name(kind, subtype):
    with pytest.raises(
        MediaError, match=f"it is a {kind} file of {subtype} samples, expected AIFF"
    ):
        load_audio(sound(kind, subtype), 16_000, 90.0)


def test_a_file_that_unpacks_to_more_than_allowed_is_one_failed_item():
    silence = sound("FLAC", "PCM_16", np.zeros((9_000_000, 2), np.int16), 100_000)
    assert len(silence) < 2**20
    with closing(DecodeWorkers(48 * 2**20)) as workers:
        with pytest.raises(MediaError, match="more memory than decode_memory_mib allows, 48 MiB"):
            workers.load_audio(silence, 16_000, 90.0, Deadline.after(60))
        samples, _ = workers.load_audio(sound("WAV", "PCM_16"), 16_000, 9.0, Deadline.after(60))
    assert len(samples) > 4_000
