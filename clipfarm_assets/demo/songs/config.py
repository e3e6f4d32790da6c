"""Settings of the demo: encoders small enough for two cores, and what its corpus declares."""

from typing import Any, Final

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.demo.songs.plan import (
    INSTRUMENTAL,
    SECONDS,
    SEED,
    SEGMENTS_PER_SONG,
    SONGS,
    WITHOUT_AUDIO,
    WITHOUT_MIDI,
    plan_songs,
)
from clipfarm_assets.demo.songs.rows import RATE
from clipfarm_assets.fusion.options import STRATEGIES

RATIOS: Final = (0.6, 0.15, 0.25)
"""Of train, val and test."""

BY_CHANCE: Final = 0.05
"""Probability that of all strategies, by any modality, one loses more than its bound.

That is of strategies that know all that is planted; by Bonferroni each has its part of it.
"""

_CONVOLUTIONS: Final = {"channels": [16, 32], "dropout": 0.0, "tokens": 8}


def demo_config(songs: int = SONGS, seed: int = SEED) -> dict[str, Any]:
    """What ``CLIPFARM_SONGS_CONFIG`` has as ``config`` in the demo.

    Args:
        songs: Of the corpus.
        seed: Of the corpus, and of the fits.
    """
    return {
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
            "ratios": list(RATIOS),
            "seed": seed,
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
            "warm_start_epochs": 10,
            "seed": seed,
        },
        "evaluation": {"most_degradation_of": most_degradation(songs, seed)},
    }


def most_degradation(songs: int = SONGS, seed: int = SEED) -> dict[str, float]:
    """Modality -> macro-F1 that a strategy may lose without it: what is planted decides.

    With classes of one size macro-F1 is accuracy, but for noise.
    """
    plan = plan_songs(songs, SEGMENTS_PER_SONG, seed)
    judged = round(RATIOS[-1] * len(plan.segments))
    chance = BY_CHANCE / (len(STRATEGIES) * len(MODALITIES))
    return {name: round(plan.most_lost(name, judged, chance), 3) for name in MODALITIES}
