"""Reading MIDI the plain way: pretty_midi's notes and piano rolls, miditok's tokens."""

import io
from functools import cache

import numpy as np
from miditok import REMI, TokenizerConfig
from numpy.typing import NDArray
from pretty_midi import PrettyMIDI
from symusic import Score


def read_notes(data: bytes) -> NDArray[np.float64]:
    """Start, end, pitch and velocity of all notes, ``[N, 4]``."""
    song = PrettyMIDI(io.BytesIO(data))
    rows = [(n.start, n.end, n.pitch, n.velocity) for i in song.instruments for n in i.notes]
    return np.array(rows)


def piano_roll(data: bytes, frames_per_second: int) -> NDArray[np.float64]:
    """Velocities, ``[128, T]``."""
    return PrettyMIDI(io.BytesIO(data)).get_piano_roll(fs=frames_per_second)


def remi(data: bytes) -> list[str]:
    """REMI tokens of a file of one track, as words."""
    (sequence,) = _tokenizer().encode(Score.from_midi(data))
    return list(sequence.tokens)


@cache
def _tokenizer() -> REMI:
    return REMI(
        TokenizerConfig(
            pitch_range=(0, 127),
            beat_res={(0, 8): 8},
            use_programs=False,
            use_time_signatures=False,
        )
    )
