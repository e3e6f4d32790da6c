"""Song networks of the smallest kind, and rows whose label two modalities tell in part."""

import torch

from clipfarm_assets.contracts.song_columns import MODALITIES
from clipfarm_assets.training.networks.batches import InMemory
from clipfarm_assets.training.song_config import song_config
from clipfarm_assets.training.song_encoders.build import build_network

CLASSES = ("bright", "dark", "tense")
TEXT_DIM, PITCHES, FRAMES, MELS = 6, 12, 16, 8


def config(**training):
    """Stored text, a small CNN of spectrograms, a small CNN of piano rolls."""
    fit = {"learning_rate": 0.01, "batch_size": 32, "max_epochs": 3, "patience": 3}
    return song_config(
        {
            "model": {
                "text_encoder": {"type": "precomputed", "dim": TEXT_DIM},
                "audio_encoder": {"type": "cnn", "channels": [4], "tokens": 2, "dropout": 0.0},
                "midi_encoder": {
                    "type": "piano_roll", "channels": [4], "tokens": 2, "dropout": 0.0,
                },
                "fusion": {"hidden": [8], "heads": 2, "dropout": 0.0},
                "hidden_dim": 8,
            },
            "preprocessing": {
                "audio": {"mel": {"n_mels": MELS}},
                "midi": {"lowest_pitch": 60, "highest_pitch": 60 + PITCHES - 1},
            },
            "training": {
                "modality_dropout": 0.2,
                "warm_start_epochs": 0,
                "class_weights": "none",
                **training,
                "fit": {**fit, **training.get("fit", {})},
            },
        }
    )  # fmt: skip


def network(settings=None, **options):
    return build_network(settings or config(), len(CLASSES), **options)


def presence(count, seed):
    """Text in most rows, audio in most, MIDI in fewer than half; never nothing."""
    draw = torch.Generator().manual_seed(seed)
    present = torch.rand(count, 3, generator=draw) < torch.tensor([0.9, 0.85, 0.43])
    present[:, 0] |= ~present.any(dim=1)
    return present


def rows(count, seed=1, present=None):
    """Inputs and labels: the class adds to text, to audio and to MIDI in noise."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.randint(0, len(CLASSES), (count,), generator=draw)
    is_class = torch.nn.functional.one_hot(label, len(CLASSES)).float()
    text = 0.8 * torch.randn(count, TEXT_DIM, generator=draw)
    text[:, : len(CLASSES)] += is_class
    mel = torch.randn(count, MELS, FRAMES, generator=draw)
    mel[:, : len(CLASSES)] += 0.8 * is_class[:, :, None]
    roll = (torch.rand(count, 3, PITCHES, FRAMES, generator=draw) < 0.1).float()
    roll[:, :, : len(CLASSES)] += 0.5 * is_class[:, None, :, None]
    given = {
        "present": presence(count, seed) if present is None else present,
        "text.values": text,
        "audio.mel": -40 + 40 * mel,
        "midi.roll": roll,
    }
    return given, label


def batches(count, seed=1, size=32, *, shuffle=False, part="val"):
    return InMemory(*rows(count, seed), size, shuffle=shuffle, part=part)


def alone(modality):
    """The column of a modality."""
    return MODALITIES.index(modality)
