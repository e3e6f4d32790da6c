"""Datasets of a few segments."""

import numpy as np

from clipfarm_assets.contracts.song_splits import SongSplits
from clipfarm_assets.pipelines.songs.dataset import SegmentDataset
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets.training.songs.collate import collate
from clipfarm_assets_tests.contracts.song_kit import row
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    TEXT_FIELD,
    media_of,
    put_segments,
)

DIM = 6
SECONDS = 1.0
ROLL = {"frames_per_second": 20.0, "lowest_pitch": 48, "highest_pitch": 84}


def config(midi_encoder="piano_roll", text_encoder=None, audio_encoder=None, **preprocessing):
    audio_settings = {"seconds": SECONDS, "mel": {"n_fft": 256, "hop": 256, "n_mels": 8}}
    given = {"audio": audio_settings, "midi": ROLL}
    for name, changes in preprocessing.items():
        given[name] = {**given.get(name, {}), **changes}
    return song_config(
        {
            "model": {
                "text_encoder": text_encoder or {"type": "precomputed", "dim": DIM},
                "audio_encoder": audio_encoder or {"type": "cnn"},
                "midi_encoder": {
                    "type": midi_encoder,
                    **({} if midi_encoder == "piano_roll" else {"max_events": 40}),
                },
                "hidden_dim": 16,
            },
            "preprocessing": given,
            "training": {"fit": {"batch_size": 4}},
        }
    )


def vector(n):
    return [float(np.float32(0.1 * n + k)) for k in range(DIM)]


def usual(n, **changes):
    """Segments of two labels, two to a song."""
    fields = {
        "song_id": f"song {n // 2}",
        "album": "Blue" if n < 6 else "Red",
        "label": ("calm", "wild")[n // 2 % 2],
        "text_embedding": vector(n),
    }
    return row(f"s{n}", **{**fields, **changes})


def split_all(segments, split="train"):
    ids = [segment.id for segment in segments]
    return SongSplits(dict.fromkeys(ids, split), {s.id: s.song for s in segments})


def dataset_of(store, rows, media=None, settings=None, *, group=3, **options):
    media = [media_of(n) for n in range(len(rows))] if media is None else media
    segments = put_segments(store, rows, media, group=group, fields=[TEXT_FIELD])
    splits = options.pop("splits", None) or split_all(segments)
    return SegmentDataset(store, LAYOUT, settings or config(), segments, splits, **options)


def batch_of(dataset, split="train"):
    return collate(list(dataset.items(split)), dataset.specs)
