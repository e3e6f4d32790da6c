"""Segments of songs as encoders see them, in numpy: what of each modality there is, or nothing.

What the arrays are called and what they hold is the encoders' business; here is said which ones a
configuration's encoders are called with, and in which shape:

========================  ==================================================================
``text``                  ``values`` of stored vectors; ``input_ids`` and ``attention_mask``
                          of a tokeniser
``audio``                 ``mel``, a log-mel spectrogram; ``samples``, a waveform; ``values``
                          of stored tokens
``midi``                  ``roll``, a piano roll; ``tokens`` and ``mask`` of events, with
                          ``bars`` and ``positions`` for encoders that know of bars
========================  ==================================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.encoders.midi.piano_roll import CHANNELS
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import (
    CnnAudio,
    MusicTransformerMidi,
    PianoRollMidi,
    PrecomputedText,
)

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""An encoder's arguments of one row, by name."""


@dataclass(frozen=True, slots=True)
class SegmentItem:
    """One segment.

    Attributes:
        id: Names it.
        inputs: Modality -> its encoder's arguments; None where the segment lacks it.
        label: Number of its class.
    """

    id: str
    inputs: Mapping[Modality, Arrays | None]
    label: int

    @property
    def present(self) -> tuple[bool, ...]:
        """Which modalities it has, in the order of `MODALITIES`."""
        return tuple(self.inputs[name] is not None for name in MODALITIES)

    @property
    def nbytes(self) -> int:
        """Memory that its arrays take."""
        return sum(arrays_bytes(arrays) for arrays in self.inputs.values())


@dataclass(frozen=True, slots=True)
class ArraySpec:
    """What an argument of one row looks like in a batch.

    Attributes:
        shape: Of a row. A row's own array may be shorter along its first axis.
        dtype: Of its values.
    """

    shape: tuple[int, ...]
    dtype: str


Specs: TypeAlias = Mapping[Modality, Mapping[str, ArraySpec]]


def arrays_bytes(arrays: Arrays | None) -> int:
    """Memory that they take."""
    return 0 if arrays is None else sum(array.nbytes for array in arrays.values())


def input_specs(config: SongConfig, stored_tokens: int = 1) -> dict[Modality, dict[str, ArraySpec]]:
    """The arguments that a configuration's encoders are called with.

    Args:
        config: The configuration.
        stored_tokens: How many vectors of a segment's audio are stored, where its encoder is
            ``precomputed``.
    """
    return {
        "text": _text_specs(config),
        "audio": _audio_specs(config, stored_tokens),
        "midi": _midi_specs(config),
    }


def _text_specs(config: SongConfig) -> dict[str, ArraySpec]:
    encoder = config.model.text_encoder
    if isinstance(encoder, PrecomputedText):
        return {"values": ArraySpec((encoder.dim,), "float32")}
    tokens = ArraySpec((encoder.max_tokens,), "int64")
    return {"input_ids": tokens, "attention_mask": tokens}


def _audio_specs(config: SongConfig, stored_tokens: int) -> dict[str, ArraySpec]:
    encoder, audio = config.model.audio_encoder, config.preprocessing.audio
    samples = audio.waveform_settings.samples
    if isinstance(encoder, CnnAudio):
        settings = audio.mel_settings
        return {"mel": ArraySpec((settings.n_mels, settings.frames(samples)), "float32")}
    if encoder.precomputed:
        return {"values": ArraySpec((stored_tokens, encoder.stored_dim), "float32")}
    return {"samples": ArraySpec((samples,), "float32")}


def _midi_specs(config: SongConfig) -> dict[str, ArraySpec]:
    encoder, midi = config.model.midi_encoder, config.preprocessing.midi
    if isinstance(encoder, PianoRollMidi):
        low, high = midi.pitches
        frames = round(config.preprocessing.audio.seconds * midi.frames_per_second)
        return {"roll": ArraySpec((len(CHANNELS), high - low, frames), "float32")}
    numbers = ArraySpec((encoder.max_events,), "int64")
    specs = {"tokens": numbers, "mask": ArraySpec((encoder.max_events,), "bool")}
    if isinstance(encoder, MusicTransformerMidi):
        specs |= {"bars": numbers, "positions": numbers}
    return specs


def filled(arrays: Arrays | None, specs: Mapping[str, ArraySpec]) -> dict[str, NDArray[Any]]:
    """One row's arrays in full: zeros where it is shorter, and all zeros where it has none.

    Raises:
        ValueError: Its arrays are others than `specs` say.
    """
    full = {name: np.zeros(spec.shape, spec.dtype) for name, spec in specs.items()}
    if arrays is None:
        return full
    for name, into in full.items():
        found = arrays.get(name)
        if found is None or found.shape[1:] != into.shape[1:] or len(found) > len(into):
            shape = "nothing" if found is None else list(found.shape)
            msg = f"expected {name} of shape {list(into.shape)} or shorter: found {shape}"
            raise ValueError(msg)
        into[: len(found)] = found
    return full
