"""Where a segment's audio and MIDI begin and end, as the columns of its row say.

They say it on up to two clocks: in SMPTE time codes, or in seconds of the song, which an LRC time
stands for where there are none. Audio and MIDI are compared on one clock, SMPTE if both are on it;
the two clocks need not begin at the same moment, as time codes often start at one hour.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from clipfarm_assets.contracts.timecode import DEFAULT_FPS, lrc_seconds, smpte_seconds

Span = tuple[float, float]
Note = Callable[[str, str], None]
"""Told a kind of problem, and what was expected and found."""

_UNKNOWN: Final = math.nan
"""A time that is there, but that nobody can read; the problem is told already."""


def spans_of(
    found: Mapping[str, Any], names: Mapping[str, str], note: Note
) -> tuple[Span | None, Span | None, bool]:
    """Where a row's audio is and where its MIDI, in seconds, and whether by SMPTE codes.

    None stands for a span that isn't said in full.

    Args:
        found: Field of `SegmentColumns` -> the row's value.
        names: Field -> name of its column.
        note: Told what of it is not used, and why.
    """
    reader = _Times(found, names, note)
    codes = (
        reader.span("start_smpte", reader.smpte("start_smpte"), reader.smpte("end_smpte")),
        reader.span(
            "midi_start_smpte", reader.smpte("midi_start_smpte"), reader.smpte("midi_end_smpte")
        ),
    )
    seconds = (
        reader.span(
            "audio_start",
            reader.song("audio_start", "lrc_start"),
            reader.song("audio_end", "lrc_end"),
        ),
        reader.span("midi_start", reader.song("midi_start"), reader.song("midi_end")),
    )
    for audio, midi in (codes, seconds):
        if audio and midi:
            return audio, midi, audio is codes[0]
    audio, midi = codes[0] or seconds[0], codes[1] or seconds[1]
    if audio and midi:
        # An hour apart by their numbers, maybe, and nobody knows by how much in truth.
        told = (
            "audio and MIDI are on different clocks, SMPTE codes and seconds: the MIDI's is unused"
        )
        note("mixed_clocks", told)
        return audio, None, codes[0] is not None
    return audio, midi, bool(codes[0] or codes[1])


class _Times:
    """Reads times of one row: seconds, None where there are none, NaN where there is no telling."""

    def __init__(self, found: Mapping[str, Any], names: Mapping[str, str], note: Note) -> None:
        self._found = found
        self._names = names
        self._note = note

    def smpte(self, field: str) -> float | None:
        fps = self._found["fps"]
        rate = DEFAULT_FPS if fps is None else float(fps)
        return self._time(field, lambda code: smpte_seconds(code, rate))

    def song(self, field: str, lrc: str | None = None) -> float | None:
        if lrc is not None and self._found[field] is None:
            return self._time(lrc, lrc_seconds)
        return self._time(field, float)

    def span(self, field: str, start: float | None, end: float | None) -> Span | None:
        """From `start` to `end`; `field` is what it is told by."""
        if start is None and end is None:
            return None
        told = f"the span of {self._names[field]}"
        if start is None or end is None:
            says, lacks = ("begins", "ends") if end is None else ("ends", "begins")
            self._note("half_span", f"{told} says where it {says}, but not where it {lacks}")
            return None
        if math.isnan(start) or math.isnan(end):
            return None
        if start >= end:
            detail = f"{told} must end after it begins: found {start:g} to {end:g} s"
            self._note("bad_span", detail)
            return None
        return start, end

    def _time(self, field: str, seconds_of: Callable[[Any], float]) -> float | None:
        value = self._found[field]
        if value is None or value == "":
            return None
        try:
            seconds = seconds_of(value)
        except ValueError as error:
            self._note("bad_timecode", f"{self._names[field]}: {error}")
            return _UNKNOWN
        if not math.isfinite(seconds):
            self._note("bad_timecode", f"{self._names[field]} must be seconds: found {seconds}")
            return _UNKNOWN
        return seconds
