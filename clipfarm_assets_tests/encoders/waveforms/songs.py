"""Music made up for tests: notes with a rhythm, and a sound of them among other instruments."""

from dataclasses import dataclass

import numpy as np

RATE = 16_000
SECONDS = 15.0
SCALE = np.array([0, 2, 4, 5, 7, 9, 11])


@dataclass(frozen=True)
class Notes:
    """Seconds, MIDI numbers and velocities, each of shape (notes,)."""

    onsets: np.ndarray
    pitches: np.ndarray
    velocities: np.ndarray

    def later(self, seconds):
        return Notes(self.onsets + seconds, self.pitches, self.velocities)


def play(rng, seconds=SECONDS, bpm=None, loop=False):
    """Notes on a grid of sixteenths, played a little off it, with chords.

    A bar's pattern is varied from bar to bar; with `loop` it is not, and the tempo is exact.
    """
    sixteenth = 60 / (rng.uniform(70, 160) if bpm is None else bpm) / 4
    chance = np.tile([0.85, 0.2, 0.45, 0.2], 4)
    pattern = rng.random(16) < chance
    onsets, pitches, velocities = [], [], []
    for place in range(int(seconds / sixteenth)):
        plays = pattern[place % 16]
        if not loop and rng.random() < 0.2:
            plays = rng.random() < chance[place % 16]
        if not plays:
            continue
        at = place * sixteenth + (0 if loop else rng.normal(scale=0.006))
        for _ in range(1 if rng.random() < 0.7 else 3):
            onsets.append(max(0.0, at + (0 if loop else rng.normal(scale=0.003))))
            pitches.append(48 + 12 * rng.integers(3) + rng.choice(SCALE))
            velocities.append(rng.integers(50, 115))
    return Notes(np.array(onsets), np.array(pitches), np.array(velocities))


def sound(notes, rng, seconds=SECONDS, rate=RATE, noise_db=-35.0, others_db=-6.0):
    """Decaying harmonic tones of `notes`, others that no note tells of, and noise; float32."""
    wave = _tones(notes, rng, seconds, rate)
    level = np.sqrt(np.mean(wave**2)) or 1.0
    if others_db is not None:
        others = _tones(play(rng, seconds), rng, seconds, rate)
        wave = wave + others * 10 ** (others_db / 20)
    wave = wave + rng.normal(scale=level * 10 ** (noise_db / 20), size=len(wave))
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def _tones(notes, rng, seconds, rate):
    wave = np.zeros(round(seconds * rate))
    for onset, pitch, velocity in zip(notes.onsets, notes.pitches, notes.velocities, strict=True):
        start = round(onset * rate)
        time = np.arange(max(0, min(round(0.5 * rate), len(wave) - start))) / rate
        phase = 2 * np.pi * 440 * 2 ** ((pitch - 69) / 12) * time
        swell = np.minimum(1, time / 0.005) * np.exp(-time / 0.15)
        strengths = rng.uniform(0.2, 1, size=4) / np.arange(1, 5)
        tone = sum(s * np.sin((k + 1) * phase) for k, s in enumerate(strengths))
        wave[start : start + len(time)] += velocity / 127 * swell * tone
    return wave
