"""Settings of the demo: encoders small enough for two cores, and what its corpus declares."""

from typing import Any, Final

from clipfarm_assets.demo.songs.plan import (
    INSTRUMENTAL,
    SECONDS,
    WITHOUT_AUDIO,
    WITHOUT_MIDI,
)
from clipfarm_assets.demo.songs.rows import RATE

MOST_DEGRADATION: Final = 0.2
"""Macro-F1 that a strategy may lose with a modality taken away."""

_CONVOLUTIONS: Final = {"channels": [16, 32], "dropout": 0.0, "tokens": 8}

CONFIG: Final[dict[str, Any]] = {
    "model": {
        "text_encoder": {"type": "precomputed"},
        "audio_encoder": {"type": "cnn", **_CONVOLUTIONS},
        "midi_encoder": {"type": "piano_roll", **_CONVOLUTIONS},
        "fusion": {"hidden": [64], "heads": 2, "layers": 1},
        "hidden_dim": 32,
    },
    "preprocessing": {
        "audio": {
            "sample_rate": RATE,
            "seconds": SECONDS,
            "mel": {"n_fft": 1024, "hop": 512, "n_mels": 32},
        },
        "midi": {"frames_per_second": 10, "lowest_pitch": 36, "highest_pitch": 107},
    },
    "data": {
        "ratios": [0.6, 0.15, 0.25],
        "declared": {
            "text": 1 - INSTRUMENTAL,
            "audio": 1 - WITHOUT_AUDIO,
            "midi": 1 - WITHOUT_MIDI,
            "tolerance": 0.05,
        },
    },
    "training": {
        "fit": {"learning_rate": 3e-3, "batch_size": 32, "max_epochs": 20, "patience": 6},
        # Its gradients are many times the others': as the warnings advise.
        "encoder_learning_rates": {"audio": 1e-3},
        "modality_dropout": 0.3,
    },
    "evaluation": {"most_degradation": MOST_DEGRADATION},
}
"""What ``CLIPFARM_SONGS_CONFIG`` has as ``config`` in the demo."""
