"""Segments whose audio and MIDI are, or are not, of one moment."""

import numpy as np

from clipfarm_assets.training.song_config import song_config
from clipfarm_assets_tests.contracts.song_kit import row
from clipfarm_assets_tests.encoders.midi.files import simple
from clipfarm_assets_tests.encoders.waveforms.songs import RATE, Notes, play, sound
from clipfarm_assets_tests.pipelines.songs.segment_kit import put_segments

SECONDS = 12.0
SILENCE = np.zeros(16_000, np.float32)
TICKS = 960
"""A second, of `simple`."""


def song(seed):
    """Notes, and the sound of them."""
    rng = np.random.default_rng([11, seed])
    notes = play(rng, SECONDS)
    return notes, sound(notes, rng, SECONDS, others_db=None)


def midi_of(notes, late=0.0):
    """A file of the notes, `late` seconds later; those that would begin before 0 are not in it."""
    at = notes.onsets + late
    there = at >= 0
    moved = Notes(at[there], notes.pitches[there], notes.velocities[there])
    ticks = np.round(moved.onsets * TICKS).astype(int).tolist()
    played = zip(ticks, moved.pitches.tolist(), moved.velocities.tolist(), strict=True)
    return simple(*((tick, tick + 200, pitch, velocity) for tick, pitch, velocity in played))


def pair(segment_id, samples, midi, **changes):
    """A row and its media."""
    media = {
        "audio_waveform": None if samples is None else samples.astype("<f4").tobytes(),
        "audio_sample_rate": None if samples is None else RATE,
        "midi_binary": midi,
    }
    return row(segment_id, **changes), media


def put_pairs(store, pairs, **options):
    """Both files of these pairs; returns the segments."""
    return put_segments(store, [r for r, _ in pairs], [m for _, m in pairs], **options)


def spans(start=0.0, end=SECONDS, later=0.0, longer=0.0):
    """Columns that say where the audio is, and that the MIDI is `later` and `longer`."""
    return {
        "start_seconds": start,
        "end_seconds": end,
        "midi_start_seconds": start + later,
        "midi_end_seconds": end + later + longer,
    }


def smpte(start, end, midi_start, midi_end, fps=25.0):
    """The same as time codes."""
    return {
        "start_smpte": start,
        "end_smpte": end,
        "midi_start_smpte": midi_start,
        "midi_end_smpte": midi_end,
        "smpte_fps": fps,
    }


def with_time_of_day(midi, event):
    """The file of one track with this event before all others; see `files.smpte_offset`."""
    size = int.from_bytes(midi[18:22], "big") + 1 + len(event)
    return midi[:18] + size.to_bytes(4, "big") + b"\x00" + event + midi[22:]


def config_of(**alignment):
    return song_config({"preprocessing": {"audio": {"seconds": SECONDS}, "alignment": alignment}})


def verdicts(report):
    return {row.segment_id: row.verdict for row in report.rows}
