"""Planted songs, small enough to fit many models on: a class told by words, sound and notes."""

import numpy as np
import pytest

from clipfarm_assets.fusion.options import STRATEGIES
from clipfarm_assets.pipelines.songs.alignment_rows import Aligned, declared_of, rows_to_parquet
from clipfarm_assets.pipelines.songs.comparison import compare
from clipfarm_assets.pipelines.songs.feature_files import media_version
from clipfarm_assets.pipelines.songs.fusion import train_fusion
from clipfarm_assets.pipelines.songs.splits import make_splits
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.training.environment import GIT_SHA_VARIABLE
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.contracts.song_kit import row
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    TEXT_FIELD,
    midi,
    put_segments,
)

__all__ = ["LAYOUT"]

CLASSES = ("calm", "tense", "wild")
RATE, SECONDS = 4000, 0.5
DIM = 6
# How often a segment's words, sound and notes are those of its class; any class otherwise.
TOLD = {"text": 0.75, "audio": 0.75, "midi": 0.9}
WITHOUT_MIDI, WITHOUT_AUDIO, INSTRUMENTAL = 0.57, 0.15, 0.1
SEGMENTS = 2


def settings(**changes):
    """Small encoders and short fits; `changes` are of ``training``, where not named otherwise."""
    fit = {"learning_rate": 0.01, "batch_size": 32, "max_epochs": 3, "patience": 3}
    fit |= changes.pop("fit", {})
    small = {"channels": [6, 8], "tokens": 2, "dropout": 0.0}
    return song_config(
        {
            "model": {
                "text_encoder": {"type": "precomputed", "dim": DIM},
                "audio_encoder": {"type": "cnn", **small},
                "midi_encoder": {"type": "piano_roll", **small},
                "fusion": {"hidden": [16], "heads": 2, "dropout": 0.0, **changes.pop("fusion", {})},
                "hidden_dim": 16,
            },
            "preprocessing": {
                "audio": {
                    "sample_rate": RATE,
                    "seconds": SECONDS,
                    "mel": {"n_fft": 256, "hop": 128, "n_mels": 16},
                },
                "midi": {
                    "lowest_pitch": 55,
                    "highest_pitch": 80,
                    "frames_per_second": 16,
                    **changes.pop("midi", {}),
                },
                "alignment": changes.pop("alignment", {}),
            },
            "data": {"ratios": [0.5, 0.2, 0.3], "shuffle_buffer": 64, **changes.pop("data", {})},
            "training": {"modality_dropout": 0.2, "warm_start_epochs": 0, **changes, "fit": fit},
            "evaluation": {"resamples": 200, "most_degradation": 0.4},
        }
    )


COMPARED = {"fit": {"max_epochs": 8, "patience": 8, "batch_size": 16}}
"""Of the models in `compared`; ``gated`` has another weight of the modalities' own heads."""


def compared(folder):
    """Four strategies and three single modalities, fitted and compared.

    Returns:
        The store, the comparison, and what was said.
    """
    store = ObjectStore.open(str(folder))
    plant(store)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(GIT_SHA_VARIABLE, "test")
        for strategy in STRATEGIES:
            weight = 0.1 if strategy == "gated" else 0.3
            train_fusion(store, LAYOUT, strategy, settings(auxiliary_weight=weight, **COMPARED))
        found = compare(store, LAYOUT, settings(**COMPARED), said.append, without_dropout=["late"])
    return store, found, said


def plant(store, songs=60, seed=1, split=True, verdicts=None, *, group=16, hanging=()):
    """Both files, the alignment of both albums, and the splits.

    Row groups of the media have `group` rows; `hanging` pitches begin in each MIDI and never end.
    """
    random = np.random.default_rng(seed)
    rows, media = [], []
    for number in range(songs):
        for part in range(SEGMENTS):
            one, other = planted(random, number, part, hanging)
            rows.append(one)
            media.append(other)
    segments = put_segments(store, rows, media, group=group, fields=[TEXT_FIELD])
    put_alignment(store, segments, verdicts or {})
    if split:
        make_splits(store, LAYOUT, settings())
    return segments


def planted(random, number, part, hanging=()):
    label = number % len(CLASSES)
    said = {
        name: label if random.random() < share else int(random.integers(len(CLASSES)))
        for name, share in TOLD.items()
    }
    has_audio = random.random() >= WITHOUT_AUDIO
    has_midi = random.random() >= WITHOUT_MIDI
    vocals = random.random() >= INSTRUMENTAL
    embedding = 0.2 * random.normal(size=DIM)
    embedding[said["text"]] += 1
    time = np.arange(round(RATE * SECONDS)) / RATE
    tone = np.sin(2 * np.pi * (300, 700, 1500)[said["audio"]] * time)
    samples = 0.3 * tone + 0.02 * random.normal(size=len(time))
    lowest = (58, 65, 72)[said["midi"]]
    metadata = row(
        f"s{number:03d}-{part}",
        song_id=f"song {number:03d}",
        album=("Blue", "Red")[number % 2],
        label=CLASSES[label],
        vocals=vocals,
        lyric_text="la" if vocals else "",
        has_audio=has_audio,
        has_midi=has_midi,
    )
    return {**metadata, "text_embedding": embedding.tolist()}, {
        "audio_waveform": samples.astype("<f4").tobytes() if has_audio else None,
        "audio_sample_rate": RATE if has_audio else None,
        "midi_binary": midi((lowest, lowest + 4), 0.4, hanging) if has_midi else None,
    }


def put_alignment(store, segments, verdicts, config=None):
    """As if all pairs had been listened to; `verdicts` are by id, ``aligned`` otherwise."""
    config = config or settings()
    media = media_version(ParquetRows.open(store, LAYOUT.media()))
    for album in {segment.album for segment in segments}:
        rows = [aligned(one, verdicts.get(one.id)) for one in segments if one.album == album]
        data = rows_to_parquet(rows, config.preprocessing, media)
        store.put(LAYOUT.alignment(album), data)


def aligned(segment, verdict=None):
    pair = segment.has_audio and segment.has_midi
    return Aligned(
        segment_id=segment.id,
        album=segment.album,
        start_difference=None,
        end_difference=None,
        within_tolerance=None,
        heard_offset=0.0 if pair else None,
        z=8.0 if pair else None,
        is_heard=pair,
        verdict=(verdict or "aligned") if pair else "not_applicable",
        correction=0.0,
        correction_source=None,
        reason="planted",
        problem=None,
        declared=declared_of(segment),
        made_of="planted",
    )


def contents(store, prefix):
    """Everything below a folder."""
    return {info.key: store.get(info.key) for info in store.list(prefix)}
