"""Moments of a song as studios and lyrics write them: SMPTE time codes and LRC times, in seconds.

An SMPTE time code counts frames: ``01:02:03:15`` is the 16th frame of its second. At 29.97 frames a
second it runs slower than the clock, by 3.6 seconds an hour; drop-frame codes, written with a
semicolon as ``01:02:03;15``, leave numbers out to keep up with it. Source: SMPTE ST 12-1.
"""

import re
from fractions import Fraction
from typing import Final

DEFAULT_FPS: Final = 30.0

_SMPTE: Final = re.compile(
    r"(?P<hours>\d\d):(?P<minutes>\d\d):(?P<seconds>\d\d)(?P<mark>[:;])(?P<frames>\d\d\d?)"
    r"(?:\.(?P<hundredths>\d\d))?",
    re.ASCII,
)
_NTSC: Final = Fraction(1000, 1001)
"""What television in colour slowed its frames by."""
_FPS_TOLERANCE: Final = 0.005
"""23.98 and 23.976 are both 24000 / 1001."""
_FASTEST: Final = 240
_DROPPED: Final = {30: 2, 60: 4}
"""Frame numbers left out a minute, of drop-frame codes by the frames that a second counts."""

_LRC: Final = re.compile(r"(\d{1,4}):([0-5]\d)(?:\.(\d{1,3}))?", re.ASCII)


def smpte_seconds(code: str, fps: float = DEFAULT_FPS) -> float:
    """Seconds from ``00:00:00:00`` to an SMPTE time code.

    Args:
        code: ``HH:MM:SS:FF``; ``HH:MM:SS;FF`` where it is drop-frame, which is of 29.97 or 59.94
            frames a second, also where `fps` says 30 or 60. Hundredths of a frame may follow, as
            ``HH:MM:SS:FF.ss``.
        fps: Frames a second: a whole number, or one of 1000 / 1001 of it such as 29.97.

    Raises:
        ValueError: It is none, or there is no such frame; says what was expected and found.
    """
    match = _SMPTE.fullmatch(code) if isinstance(code, str) else None
    if match is None:
        msg = f"expected a time code HH:MM:SS:FF, or HH:MM:SS;FF if drop-frame: found {code!r:.100}"
        raise ValueError(msg)
    return frame_seconds(
        int(match["hours"]),
        int(match["minutes"]),
        int(match["seconds"]),
        int(match["frames"]),
        hundredths=int(match["hundredths"] or 0),
        fps=fps,
        drop_frame=match["mark"] == ";",
    )


def frame_seconds(
    hours: int,
    minutes: int,
    seconds: int,
    frames: int,
    *,
    hundredths: int = 0,
    fps: float = DEFAULT_FPS,
    drop_frame: bool = False,
) -> float:
    """Seconds from the first frame to a frame that is told by the parts of its time code.

    Args:
        hours: 0 to 23.
        minutes: 0 to 59.
        seconds: 0 to 59.
        frames: From 0, below the frames of a second.
        hundredths: Of a frame, 0 to 99; MIDI's SMPTE offset has them.
        fps: As in `smpte_seconds`.
        drop_frame: Whether the code leaves numbers out.

    Raises:
        ValueError: There is no such frame, or no such rate.
    """
    nominal, rate = _rate(fps, drop_frame=drop_frame)
    mark = ";" if drop_frame else ":"
    told = f"{hours:02}:{minutes:02}:{seconds:02}{mark}{frames:02}"
    for value, limit, what in (
        (hours, 24, "hours"),
        (minutes, 60, "minutes"),
        (seconds, 60, "seconds"),
        (frames, nominal, f"frames at {fps:g} a second"),
        (hundredths, 100, "hundredths of a frame"),
    ):
        if not 0 <= value < limit:
            msg = f"bad time code {told}: expected {what} of 0 to {limit - 1}, found {value}"
            raise ValueError(msg)
    number = (hours * 3600 + minutes * 60 + seconds) * nominal + frames
    if drop_frame:
        dropped = _DROPPED[nominal]
        if seconds == 0 and minutes % 10 and frames < dropped:
            msg = (
                f"bad time code {told}: drop-frame codes have no frames 0 to {dropped - 1} in "
                "the first second of a minute, but for every tenth"
            )
            raise ValueError(msg)
        begun = hours * 60 + minutes
        number -= dropped * (begun - begun // 10)
    return float((number + Fraction(hundredths, 100)) / rate)


def _rate(fps: float, *, drop_frame: bool) -> tuple[int, Fraction]:
    """The frames that a second of the code counts, and those of a second."""
    nominal = round(fps) if 0 < fps <= _FASTEST else 0
    if not nominal or not (fps == nominal or abs(fps - nominal * _NTSC) < _FPS_TOLERANCE):
        msg = (
            f"expected frames a second as a whole number of 1 to {_FASTEST}, or one of 1000 / 1001 "
            f"of it such as 29.97: found {fps!r}"
        )
        raise ValueError(msg)
    if drop_frame and nominal not in _DROPPED:
        msg = f"expected 29.97 or 59.94 frames a second of a drop-frame time code: found {fps:g}"
        raise ValueError(msg)
    whole = fps == nominal and not drop_frame
    return nominal, Fraction(nominal) if whole else nominal * _NTSC


def lrc_seconds(code: str) -> float:
    """Seconds of an LRC time, ``[MM:SS.xx]`` with or without its brackets and its fraction.

    Raises:
        ValueError: It is none; says what was expected and found.
    """
    found = code.strip() if isinstance(code, str) else ""
    if found.startswith("[") and found.endswith("]"):
        found = found[1:-1]
    match = _LRC.fullmatch(found)
    if match is None:
        msg = f"expected an LRC time [MM:SS.xx]: found {code!r:.100}"
        raise ValueError(msg)
    minutes, seconds, fraction = match.groups()
    # In whole milliseconds until the last: no sum of fractions.
    ms = (int(minutes) * 60 + int(seconds)) * 1000 + int((fraction or "").ljust(3, "0"))
    return ms / 1000
