"""Small pretrained models of songs, and segments to show them."""

import numpy as np
import torch
import transformers

from clipfarm_assets.encoders.midi.score import read_score
from clipfarm_assets.encoders.midi.tokens import midi_like, remi
from clipfarm_assets.encoders.midi.vocabulary import PAD
from clipfarm_assets.training.experts.stand_ins import save_stand_in, write_json
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets.training.song_encoders.stand_ins import (
    ClapSize,
    DebertaSize,
    stand_in_clap,
    stand_in_deberta,
)
from clipfarm_assets_tests.encoders.midi import files

WORDS = ("love", "night", "rain", "gold", "river", "stone")
SMALL_DEBERTA = DebertaSize(hidden=32, layers=3, heads=2, inner=32)
SMALL_CLAP = ClapSize(patch=8, heads=(1, 1, 2, 2), projection=16, mels=32, window=4, seconds=1)

SONG_SECONDS = 1.0
MAX_EVENTS = 24
SMALL = {
    "model": {
        "text_encoder": {"type": "precomputed", "dim": 12},
        "audio_encoder": {"type": "cnn", "channels": [4, 8], "tokens": 8},
        "midi_encoder": {"type": "piano_roll", "channels": [4, 8], "tokens": 4},
        "fusion": {"hidden": [16], "heads": 2},
        "hidden_dim": 16,
    },
    "preprocessing": {
        "audio": {"seconds": SONG_SECONDS, "mel": {"n_mels": 16}},
        "midi": {"frames_per_second": 16, "lowest_pitch": 48, "highest_pitch": 71},
    },
}


def small_config(**encoders):
    """The small configuration, with other encoders by modality."""
    model = {**SMALL["model"], **{f"{name}_encoder": each for name, each in encoders.items()}}
    rate = 48_000 if encoders.get("audio", {}).get("type") == "clap" else 16_000
    audio = {**SMALL["preprocessing"]["audio"], "sample_rate": rate}
    return song_config(
        {"model": model, "preprocessing": {**SMALL["preprocessing"], "audio": audio}}
    )


def deberta_folder(folder):
    return stand_in_deberta(folder, WORDS, SMALL_DEBERTA)


def clap_folder(folder):
    return stand_in_clap(folder, SMALL_CLAP)


def wav2vec2_folder(folder, sample_rate=16_000):
    path = folder / "small-wav2vec2"
    config = transformers.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
    )
    save_stand_in(transformers.Wav2Vec2Model(config), path, 7)
    write_json(
        path / "preprocessor_config.json",
        {
            "feature_extractor_type": "Wav2Vec2FeatureExtractor",
            "feature_size": 1,
            "sampling_rate": sample_rate,
            "padding_value": 0.0,
            "do_normalize": True,
            "return_attention_mask": False,
        },
    )
    return path


def sounds(rows, samples, rate=16_000, seed=0):
    """Tones of other pitches in some noise, float32 ``[rows, samples]``."""
    random = np.random.default_rng(seed)
    times = np.arange(samples) / rate
    pitches = random.uniform(100, 2000, (rows, 1))
    waves = 0.3 * np.sin(2 * np.pi * pitches * times) + 0.02 * random.standard_normal(
        (rows, samples)
    )
    return torch.from_numpy(waves.astype(np.float32))


def score_of(*played):
    """Notes (start, end, pitch), in ticks of which a second has 960."""
    return read_score(files.simple(*played))


def events_of(score, vocabulary="midi_like", length=MAX_EVENTS):
    """The arguments of an `EventTransformer` for one row."""
    sequence = (midi_like if vocabulary == "midi_like" else remi)(score).first(length)
    rest = length - len(sequence)
    tokens, bars, positions = (
        torch.from_numpy(np.pad(column, (0, rest), constant_values=filling))
        for column, filling in zip(sequence.features().T, (PAD, 0, 0), strict=True)
    )
    return {
        "tokens": tokens.unsqueeze(0),
        "mask": (torch.arange(length) < len(sequence)).unsqueeze(0),
        "bars": bars.unsqueeze(0),
        "positions": positions.unsqueeze(0),
    }


def stacked(*rows):
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
