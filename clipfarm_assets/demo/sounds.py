"""A waveform that carries a clip's tempo and pitch, and the wav it is kept in.

A tone of three partials is struck again and again: `pitch` is the tone's frequency, `tempo` how
often it is struck.
"""

import io
import wave
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.demo.planted import Traits

_LOWEST_HZ, _HIGHEST_HZ = 140.0, 880.0
_SLOWEST_BEAT, _FASTEST_BEAT = 1.0, 7.0
"""Strikes a second at tempo 0 and 1."""
_NOISE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Sound:
    """How a clip is recorded: rate in Hz, channels, seconds, and whether anything is heard."""

    sample_rate: int = 16_000
    channels: int = 1
    seconds: float = 3.0
    silent: bool = False


def play(traits: Traits, sound: Sound, rng: np.random.Generator) -> NDArray[np.float32]:
    """Samples of a clip on -1..1, of shape ``(n,)``, or ``(n, channels)`` for several channels."""
    count = round(sound.seconds * sound.sample_rate)
    shape = (count,) if sound.channels == 1 else (count, sound.channels)
    if sound.silent:
        return np.zeros(shape, np.float32)
    time = np.arange(count) / sound.sample_rate
    frequency = _LOWEST_HZ * (_HIGHEST_HZ / _LOWEST_HZ) ** traits.unit("pitch")
    beats = _SLOWEST_BEAT + (_FASTEST_BEAT - _SLOWEST_BEAT) * traits.unit("tempo")
    struck = np.exp(-5.0 * ((time * beats) % 1.0))
    tone = sum(
        np.sin(2 * np.pi * partial * frequency * time) / partial**1.5 for partial in (1, 2, 3)
    )
    mono: NDArray[np.float64] = 0.35 * struck * tone + rng.normal(0.0, _NOISE, size=count)
    if sound.channels == 1:
        return np.clip(mono, -1, 1).astype(np.float32)
    # The channels differ, so that taking one of them is not the same as mixing them down.
    louder = np.linspace(1.0, 0.4, sound.channels)
    return np.clip(mono[:, None] * louder, -1, 1).astype(np.float32)


def to_wav(samples: NDArray[np.float32], sample_rate: int) -> bytes:
    """16-bit PCM wav of samples on -1..1, of shape ``(n,)`` or ``(n, channels)``."""
    pcm = np.round(samples * 32767.0).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(pcm.tobytes())
    return buffer.getvalue()
