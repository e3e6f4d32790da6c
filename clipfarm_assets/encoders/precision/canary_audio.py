"""The canary sounds: 1 to 5 seconds of 16-bit wav each."""

import hashlib
import io
import wave
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.base import Source

Samples = NDArray[np.float64]

_RATE: Final = 16_000
_FORMANTS: Final = ((730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840))
"""First two resonances of five vowels in Hz. Source: Peterson and Barney (1952), male means."""


def audio_canaries() -> Iterator[Source]:
    """Twelve sounds."""
    for name, make in _SOUNDS.items():
        yield Source(f"canary-{name}", _to_wav(make()), {})


def _to_wav(samples: Samples) -> bytes:
    """16-bit PCM at 16 kHz of samples on -1..1, shape ``(n,)`` or ``(n, channels)``."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(_RATE)
        file.writeframes(np.round(np.clip(samples, -1, 1) * 32_767).astype("<i2").tobytes())
    return buffer.getvalue()


def _time(seconds: float) -> Samples:
    return np.arange(round(seconds * _RATE)) / _RATE


def _noise(label: str, count: int) -> Samples:
    """Uniform noise on -1..1 that is the same with every library version: a hash's output."""
    data = hashlib.shake_256(label.encode()).digest(2 * count)
    return np.frombuffer(data, "<i2") / 32_768


def _tone(seconds: float, hertz: float, partials: int) -> Samples:
    """A steady tone with partials that fall off as 1/n."""
    time = _time(seconds)
    swing = np.zeros(len(time))
    for n in range(1, partials + 1):
        swing += np.sin(2 * np.pi * hertz * n * time) / n
    return 0.3 * swing


def _chirp(seconds: float, start: float, end: float) -> Samples:
    """A sine that glides linearly from one frequency to another, in Hz."""
    time = _time(seconds)
    gliding: Samples = 0.5 * np.sin(
        2 * np.pi * (start + (end - start) * time / (2 * seconds)) * time
    )
    return gliding


def _bursts(seconds: float, every: float) -> Samples:
    """Noise that is struck again and again, like a hi-hat."""
    time = _time(seconds)
    struck: Samples = 0.6 * np.exp(-12 * (time % every) / every) * _noise("bursts", len(time))
    return struck


def _rumble(seconds: float, window: int) -> Samples:
    """Noise averaged over `window` samples: wind."""
    count = round(seconds * _RATE)
    total = np.cumsum(_noise("rumble", count + window))
    rumble: Samples = (total[window:] - total[:-window]) / window**0.5
    return rumble


def _speech(seconds: float, pitch: float, syllables: float) -> Samples:
    """Harmonics of a gliding pitch under changing vowels, broken into syllables, over breath.

    Args:
        seconds: Length.
        pitch: Hz, in the middle of its glide.
        syllables: A second; each has the next vowel of `_FORMANTS`.
    """
    time = _time(seconds)
    # The phase is the integral of the frequency pitch * (1 + 0.12 sin(2 pi 0.7 t)).
    phase = 2 * np.pi * pitch * time - pitch * 0.12 / 0.7 * np.cos(2 * np.pi * 0.7 * time)
    resonances = np.array(_FORMANTS)[(time * syllables).astype(int) % len(_FORMANTS)]
    voice = np.zeros(len(time))
    for n in range(1, int(3_800 / pitch)):
        gain = sum(np.exp(-(((n * pitch - resonances[:, i]) / 160) ** 2)) for i in (0, 1))
        voice += (gain + 0.02) / n**0.5 * np.sin(n * phase)
    envelope = np.clip(np.sin(np.pi * (time * syllables % 1)), 0, 1) ** 0.7
    breath = 0.01 * _noise(f"breath {pitch}", len(time))
    samples: Samples = 0.25 * envelope * voice + breath
    return samples


def _chords(seconds: float, roots: tuple[float, ...]) -> Samples:
    """Struck major triads, one after the other."""
    beat = seconds / len(roots)
    triads = [[_tone(beat, root * ratio, 4) for ratio in (1, 5 / 4, 3 / 2)] for root in roots]
    fading = np.exp(-2 * _time(beat))
    struck: Samples = np.concatenate([0.5 * fading * np.sum(triad, axis=0) for triad in triads])
    return struck


def _stereo(left: Samples, right: Samples) -> Samples:
    count = min(len(left), len(right))
    return np.stack([left[:count], right[:count]], axis=1)


_SOUNDS: Final[Mapping[str, Callable[[], Samples]]] = {
    "organ": partial(_tone, 2.0, 220.0, 12),
    "flute": partial(_tone, 1.0, 220.0, 5),
    "rising": partial(_chirp, 2.0, 120.0, 4_000.0),
    "falling": partial(_chirp, 2.0, 4_000.0, 120.0),
    "slow-bursts": partial(_bursts, 3.0, 0.5),
    "fast-bursts": partial(_bursts, 3.0, 0.25),
    "wind": partial(_rumble, 2.5, 40),
    "gale": partial(_rumble, 2.5, 24),
    "slow-voice": partial(_speech, 5.0, 110.0, 4.0),
    "hasty-voice": partial(_speech, 3.0, 110.0, 7.0),
    "chords": partial(_chords, 4.0, (196.0, 130.8, 174.6, 196.0)),
    "voice-and-chords": lambda: _stereo(
        _chords(4.0, (196.0, 130.8, 174.6, 196.0)), 0.5 * _speech(4.0, 210.0, 5.0)
    ),
}
