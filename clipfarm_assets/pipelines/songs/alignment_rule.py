"""Whether a segment's audio and MIDI are of one moment: what is known of it, and what follows.

There are three witnesses, all in seconds:

* the *timestamps*: where the MIDI's span begins less where the audio's does, and the same of their
  ends. MIDI that was cut 0.5 s later has its notes 0.5 s too early in its file, so they are to be
  moved by +0.5;
* the metadata's *offset*: by how much the notes are late against the audio, as somebody measured
  it; they are to be moved by minus that;
* the *ear*: by how much they were heard to be late, if a lag stands out.

The ear decides where it is sure. Where there is too little to hear the metadata does, what a person
measured first. Where there was enough to hear and no lag stood out, the metadata does if the lag
that it tells of is one of those that fit best; otherwise nobody vouches for the pair, and metadata
that say it is out of step condemn it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

from clipfarm_assets.encoders.waveforms.heard_offset import Heard

AlignmentVerdict = Literal["aligned", "corrected", "misaligned", "unverified", "not_applicable"]
VERDICTS: Final[tuple[AlignmentVerdict, ...]] = get_args(AlignmentVerdict)

CorrectionSource = Literal["offset", "timestamps"]
"""Which of the metadata a correction is from."""

_MICROSECONDS: Final = 6
"""Digits of differences of times: what is behind them is rounding of sums."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a pair.

    Attributes:
        start_difference: The start of the MIDI less that of the audio; None if the timestamps do
            not say, and so of `end_difference`.
        end_difference: Likewise of the ends.
        offset: The metadata's; None if there is none.
        heard: What the ear says; None before anybody listened.
    """

    start_difference: float | None = None
    end_difference: float | None = None
    offset: float | None = None
    heard: Heard | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What follows.

    Attributes:
        verdict: ``aligned`` as it is; ``corrected`` by what the metadata says; ``misaligned``;
            ``unverified`` where nothing speaks for or against it.
        correction: Seconds to add to the times of the MIDI's notes; 0 unless ``corrected``.
        source: What says so; None unless ``corrected``.
        reason: A sentence.
    """

    verdict: AlignmentVerdict
    correction: float
    source: CorrectionSource | None
    reason: str


def differences(
    audio: tuple[float, float] | None, midi: tuple[float, float] | None
) -> tuple[float, float] | tuple[None, None]:
    """The MIDI's start and end less the audio's; None without both spans."""
    if audio is None or midi is None:
        return None, None
    return round(midi[0] - audio[0], _MICROSECONDS), round(midi[1] - audio[1], _MICROSECONDS)


def within_tolerance(evidence: Evidence, tolerance: float) -> bool | None:
    """Whether starts and ends match by the timestamps; None if these do not say."""
    start, end = evidence.start_difference, evidence.end_difference
    if start is None or end is None:
        return None
    return max(abs(start), abs(end)) <= tolerance


def moves(evidence: Evidence, tolerance: float) -> dict[CorrectionSource, float]:
    """What each of the metadata would have the notes moved by, where that is more than nothing."""
    found: dict[CorrectionSource, float] = {}
    if evidence.offset is not None and abs(evidence.offset) > tolerance:
        found["offset"] = -evidence.offset
    if evidence.start_difference is not None and abs(evidence.start_difference) > tolerance:
        found["timestamps"] = evidence.start_difference
    return found


def borne_out(
    found: Mapping[CorrectionSource, float], heard: Heard, tolerance: float
) -> CorrectionSource | None:
    """Which of the `moves` mends one of the lags that fit best; None if none of them does."""
    for source, move in found.items():
        if any(abs(late + move) <= tolerance for late in heard.alike):
            return source
    return None


def judge(evidence: Evidence, *, tolerance: float, apply_correction: bool) -> Judgement:
    """Decide on a pair.

    Args:
        evidence: What is known of it.
        tolerance: Seconds that count as none.
        apply_correction: Whether notes are to be moved as the metadata says. If not, what that
            would mend is ``misaligned``.
    """
    if evidence.heard is not None and evidence.heard.is_compared:
        return _by_ear(evidence, evidence.heard, tolerance, apply_correction)
    return _by_metadata(evidence, tolerance, apply_correction)


def _by_ear(
    evidence: Evidence, heard: Heard, tolerance: float, apply_correction: bool
) -> Judgement:
    late = heard.offset_seconds
    if not heard.is_trusted:
        return _by_both(evidence, heard, tolerance, apply_correction)
    known = f"heard {late:+.3f} s late at z {heard.z:.1f}"
    if abs(late) <= tolerance:
        return _kept("aligned", known)
    found = moves(evidence, tolerance)
    source = _nearest(found, -late)
    if source is None:
        return _kept("misaligned", f"{known}; the metadata says nothing that would mend it")
    if abs(late + found[source]) > tolerance:
        told = _told(source, found[source])
        return _kept("misaligned", f"{known}; {told}, which would not mend it")
    return _moved(source, found[source], known, apply_correction)


def _by_both(
    evidence: Evidence, heard: Heard, tolerance: float, apply_correction: bool
) -> Judgement:
    """Where the ear is not sure: what the metadata says, if that is among what was heard."""
    known = heard.reason or "no lag stands out"
    found = moves(evidence, tolerance)
    source = borne_out(found, heard, tolerance)
    if source is not None:
        return _moved(source, found[source], known, apply_correction)
    if within_tolerance(evidence, tolerance) is False:
        return _kept("misaligned", f"{known}; {_spans(evidence)}")
    if "offset" in found:
        told = _told("offset", found["offset"])
        return _kept("misaligned", f"{known}; {told}, which mends none of the lags that fit best")
    return _kept("unverified", known)


def _by_metadata(evidence: Evidence, tolerance: float, apply_correction: bool) -> Judgement:
    why = evidence.heard.reason if evidence.heard else None
    known = f"not heard: {why}" if why else "not heard"
    found = moves(evidence, tolerance)
    if "offset" in found:
        return _moved("offset", found["offset"], known, apply_correction)
    start, end = evidence.start_difference, evidence.end_difference
    if start is None or end is None:
        return _kept("unverified", f"{known}; there are no timestamps of both")
    known = f"{known}; {_spans(evidence)}"
    if within_tolerance(evidence, tolerance):
        return _kept("aligned", known)
    # Spans of two lengths are not one span at another time: who knows which end is right.
    if "timestamps" in found and abs(end - start) <= tolerance:
        return _moved("timestamps", found["timestamps"], known, apply_correction)
    return _kept("misaligned", known)


def _nearest(found: Mapping[CorrectionSource, float], move: float) -> CorrectionSource | None:
    return min(found, key=lambda source: abs(found[source] - move), default=None)


def _moved(source: CorrectionSource, move: float, known: str, apply_correction: bool) -> Judgement:
    reason = f"{known}; {_told(source, move)}"
    if not apply_correction:
        return _kept("misaligned", f"{reason}, which is not to be applied")
    return Judgement("corrected", move, source, reason)


def _kept(verdict: AlignmentVerdict, reason: str) -> Judgement:
    return Judgement(verdict, 0.0, None, reason)


def _told(source: CorrectionSource, move: float) -> str:
    who = "the offset moves" if source == "offset" else "the timestamps move"
    return f"{who} the notes by {move:+.3f} s"


def _spans(evidence: Evidence) -> str:
    return (
        f"by the timestamps the MIDI starts {evidence.start_difference:+.3f} s and ends "
        f"{evidence.end_difference:+.3f} s after the audio"
    )
