"""Time codes in seconds: against the counting of frames, and against what the standards say."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.timecode import frame_seconds, lrc_seconds, smpte_seconds

NTSC = Fraction(1000, 1001)


@pytest.mark.parametrize(
    ("code", "fps", "seconds"),
    [
        ("00:00:00:00", 30.0, 0.0),
        ("00:00:00:01", 25.0, 0.04),
        ("00:00:01:12", 24.0, 1.5),
        ("01:02:03:15", 30.0, 3723.5),
        ("23:59:59:29", 30.0, 86399 + 29 / 30),
        ("00:00:00:119", 120.0, 119 / 120),
        # Slowed by 1000 / 1001: an hour of codes takes 3.6 seconds more than an hour.
        ("01:00:00:00", 29.97, 3603.6),
        ("01:00:00:00", 23.976, 3603.6),
        ("01:00:00:00", 23.98, 3603.6),
        # Drop-frame keeps up with the clock but for 3.6 milliseconds an hour.
        ("01:00:00;00", 29.97, 3599.9964),
        ("01:00:00;00", 30.0, 3599.9964),
        ("01:00:00;00", 59.94, 3599.9964),
        ("00:10:00;00", 29.97, 599.9994),
        # Hundredths of a frame, as MIDI's SMPTE offset has them.
        ("00:00:00:10.50", 30.0, 0.35),
    ],
)
def test_smpte_seconds(code, fps, seconds):
    assert smpte_seconds(code, fps) == pytest.approx(seconds, abs=1e-12)


def test_thirty_frames_a_second_if_nobody_says():
    assert smpte_seconds("00:00:02:15") == 2.5


@pytest.mark.parametrize(("nominal", "dropped"), [(30, 2), (60, 4)])
def test_drop_frame_codes_count_frames_without_a_gap(nominal, dropped):
    """The codes that there are, in order, are the frames 0, 1, 2, … of 30000 / 1001 a second."""
    number = 0
    for minute in range(12):
        for frame in (*range(dropped + 1), nominal - 1):
            code = f"00:{minute:02}:00;{frame:02}"
            if minute % 10 and frame < dropped:
                with pytest.raises(ValueError, match=f"no frames 0 to {dropped - 1}"):
                    smpte_seconds(code, nominal)
                continue
            expected = number + frame - (dropped if minute % 10 else 0)
            assert smpte_seconds(code, nominal) == float(expected / (nominal * NTSC))
        number += 60 * nominal - (dropped if minute % 10 else 0)


@given(
    st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.data(),
    st.sampled_from([24, 25, 30, 48, 50, 60]), st.booleans(),
)  # fmt: skip
def test_codes_that_drop_nothing_count_every_frame(hours, minutes, seconds, data, nominal, slowed):
    frames = data.draw(st.integers(0, nominal - 1))
    rate = nominal * NTSC if slowed else Fraction(nominal)
    number = (hours * 3600 + minutes * 60 + seconds) * nominal + frames
    code = f"{hours:02}:{minutes:02}:{seconds:02}:{frames:02}"
    assert smpte_seconds(code, float(rate)) == float(number / rate)
    assert frame_seconds(hours, minutes, seconds, frames, fps=float(rate)) == float(number / rate)


@pytest.mark.parametrize(
    "code",
    [
        "", "1:02:03:04", "01:02:03", "01:02:03:4", "01:02:03:04:05", "01;02;03;04", "-1:02:03:04",
        "01:02:03:04.5", "01:02:03:04\n", "٠١:02:03:04", "01:02:03.04", None, 7, "x" * 10_000,
    ],
)  # fmt: skip
def test_what_is_no_time_code_is_told(code):
    with pytest.raises(ValueError, match=r"^expected a time code HH:MM:SS:FF.*: found ") as caught:
        smpte_seconds(code)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("code", "fps", "told"),
    [
        ("24:00:00:00", 30.0, "hours of 0 to 23, found 24"),
        ("00:60:00:00", 30.0, "minutes of 0 to 59, found 60"),
        ("00:00:61:00", 30.0, "seconds of 0 to 59, found 61"),
        ("00:00:00:30", 30.0, "frames at 30 a second of 0 to 29, found 30"),
        ("00:00:00:25", 25.0, "frames at 25 a second of 0 to 24, found 25"),
        ("00:00:00;00", 25.0, "29.97 or 59.94 frames a second of a drop-frame time code: found 25"),
        ("00:01:00;01", 29.97, "no frames 0 to 1 in the first second of a minute"),
    ],
)
def test_frames_that_there_are_not(code, fps, told):
    with pytest.raises(ValueError, match=told):
        smpte_seconds(code, fps)


@pytest.mark.parametrize("fps", [0, -30, 29.5, 0.2, 1000, float("nan"), float("inf")])
def test_rates_that_there_are_not(fps):
    with pytest.raises(ValueError, match="expected frames a second as a whole number"):
        smpte_seconds("00:00:00:00", fps)


def test_hundredths_are_below_a_frame():
    assert frame_seconds(0, 0, 0, 0, hundredths=99, fps=25) == 0.0396
    with pytest.raises(ValueError, match="hundredths of a frame of 0 to 99, found 100"):
        frame_seconds(0, 0, 0, 0, hundredths=100)


# LRC


@pytest.mark.parametrize(
    ("code", "seconds"),
    [
        ("[01:23.45]", 83.45),
        ("01:23.45", 83.45),
        (" [00:00.00] ", 0.0),
        ("[01:23.456]", 83.456),
        ("[01:23.4]", 83.4),
        ("[01:23]", 83.0),
        ("[1:02]", 62.0),
        ("[75:00.00]", 4500.0),
    ],
)
def test_lrc_seconds(code, seconds):
    assert lrc_seconds(code) == seconds


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 99))
def test_lrc_times_are_the_nearest_float_to_their_hundredths(minutes, seconds, hundredths):
    total = (minutes * 60 + seconds) * 100 + hundredths
    assert lrc_seconds(f"[{minutes:02}:{seconds:02}.{hundredths:02}]") == total / 100


@pytest.mark.parametrize(
    "code", ["", "[]", "01:60.00", "[01:23.4567]", "[01:2.00]", "[-1:00]", "83.45", "[ar:x]", None]
)
def test_what_is_no_lrc_time_is_told(code):
    with pytest.raises(ValueError, match=r"^expected an LRC time \[MM:SS\.xx\]: found "):
        lrc_seconds(code)
