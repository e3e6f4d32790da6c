import pytest

from clipfarm_assets.encoders.waveforms.heard_offset import Heard
from clipfarm_assets.pipelines.songs.alignment_rule import (
    Evidence,
    differences,
    judge,
    moves,
    within_tolerance,
)

TOLERANCE = 0.05


def heard(offset, z=8.0):
    return Heard(offset, z, 0.5, is_compared=True, is_trusted=True, reason=None)


IN_VAIN = Heard(
    1.1,
    2.7,
    0.1,
    is_compared=True,
    is_trusted=False,
    reason="no lag stands out: z 2.7",
    alike=(-0.5, 1.1),
)
SILENT = Heard(0.0, 0.0, 0.0, is_compared=False, is_trusted=False, reason="the sound is silent")


def verdict(evidence, *, apply_correction=True):
    found = judge(evidence, tolerance=TOLERANCE, apply_correction=apply_correction)
    assert (found.source is not None) == (found.verdict == "corrected")
    assert (found.correction != 0) == (found.verdict == "corrected")
    assert found.reason
    return found.verdict, found.correction, found.source


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        # By ear.
        (Evidence(heard=heard(0.02)), ("aligned", 0.0, None)),
        (Evidence(heard=heard(-0.05)), ("aligned", 0.0, None)),
        (Evidence(heard=heard(0.8)), ("misaligned", 0.0, None)),
        (Evidence(offset=0.8, heard=heard(0.82)), ("corrected", -0.8, "offset")),
        (Evidence(offset=-0.8, heard=heard(-0.78)), ("corrected", 0.8, "offset")),
        (Evidence(offset=0.8, heard=heard(0.5)), ("misaligned", 0.0, None)),
        (Evidence(offset=0.8, heard=heard(-0.8)), ("misaligned", 0.0, None)),
        # Cut 0.7 s later, the notes are 0.7 s early.
        (Evidence(0.7, 0.7, heard=heard(-0.71)), ("corrected", 0.7, "timestamps")),
        (Evidence(0.7, 0.0, heard=heard(-0.71)), ("corrected", 0.7, "timestamps")),
        (Evidence(0.7, 0.7, heard=heard(0.7)), ("misaligned", 0.0, None)),
        (Evidence(0.0, 0.0, heard=heard(0.7)), ("misaligned", 0.0, None)),
        # The ear decides against timestamps and an offset that was mended already.
        (Evidence(0.7, 0.7, heard=heard(0.0)), ("aligned", 0.0, None)),
        (Evidence(offset=0.8, heard=heard(0.01)), ("aligned", 0.0, None)),
        # Of two corrections the one that mends it.
        (Evidence(0.7, 0.7, 0.3, heard(-0.7)), ("corrected", 0.7, "timestamps")),
        (Evidence(0.7, 0.7, 0.3, heard(0.3)), ("corrected", -0.3, "offset")),
        # Enough to hear, and nothing heard.
        (Evidence(heard=IN_VAIN), ("unverified", 0.0, None)),
        (Evidence(0.0, 0.01, heard=IN_VAIN), ("unverified", 0.0, None)),
        (Evidence(0.7, 0.7, heard=IN_VAIN), ("misaligned", 0.0, None)),
        # The ear is not sure, and the metadata says one of the lags that fit best.
        (Evidence(offset=1.1, heard=IN_VAIN), ("corrected", -1.1, "offset")),
        (Evidence(offset=-0.46, heard=IN_VAIN), ("corrected", 0.46, "offset")),
        (Evidence(-1.1, -1.1, heard=IN_VAIN), ("corrected", -1.1, "timestamps")),
        (Evidence(0.5, 0.5, 0.7, IN_VAIN), ("corrected", 0.5, "timestamps")),
        # It says another one: somebody found them out of step, and nothing vouches for a mend.
        (Evidence(offset=0.7, heard=IN_VAIN), ("misaligned", 0.0, None)),
        (Evidence(offset=0.04, heard=IN_VAIN), ("unverified", 0.0, None)),
        # A start without an end, as a file tells it, condemns nothing.
        (Evidence(0.7, None, heard=IN_VAIN), ("unverified", 0.0, None)),
        (Evidence(-1.1, None, heard=IN_VAIN), ("corrected", -1.1, "timestamps")),
        (Evidence(0.7, None, heard=SILENT), ("unverified", 0.0, None)),
        (Evidence(0.7, None, heard=heard(-0.7)), ("corrected", 0.7, "timestamps")),
        (Evidence(-3600.0, None, heard=heard(0.0)), ("aligned", 0.0, None)),
        # Too little to hear: by the metadata.
        (Evidence(0.0, -0.04, heard=SILENT), ("aligned", 0.0, None)),
        (Evidence(0.05, 0.05, heard=SILENT), ("aligned", 0.0, None)),
        (Evidence(0.4, 0.4, heard=SILENT), ("corrected", 0.4, "timestamps")),
        (Evidence(0.0, 0.4, heard=SILENT), ("misaligned", 0.0, None)),
        (Evidence(0.4, 0.0, heard=SILENT), ("misaligned", 0.0, None)),
        (Evidence(heard=SILENT), ("unverified", 0.0, None)),
        (Evidence(), ("unverified", 0.0, None)),
        (Evidence(offset=0.8, heard=SILENT), ("corrected", -0.8, "offset")),
        (Evidence(offset=0.03, heard=SILENT), ("unverified", 0.0, None)),
        (Evidence(0.4, 0.4, 0.8, SILENT), ("corrected", -0.8, "offset")),
    ],
)
def test_what_follows_from_the_evidence(evidence, expected):
    assert verdict(evidence) == expected


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(offset=0.8, heard=heard(0.8)),
        Evidence(0.7, 0.7, heard=heard(-0.7)),
        Evidence(offset=0.8, heard=SILENT),
        Evidence(0.4, 0.4, heard=SILENT),
        Evidence(offset=1.1, heard=IN_VAIN),
    ],
)
def test_what_could_be_corrected_is_misaligned_where_that_is_not_wanted(evidence):
    assert verdict(evidence)[0] == "corrected"
    assert verdict(evidence, apply_correction=False) == ("misaligned", 0.0, None)
    told = judge(evidence, tolerance=TOLERANCE, apply_correction=False).reason
    assert "which is not to be applied" in told


def test_reasons_say_what_was_found():
    told = judge(
        Evidence(0.4, 0.0, heard=SILENT), tolerance=TOLERANCE, apply_correction=True
    ).reason
    assert told == (
        "not heard: the sound is silent; by the timestamps the MIDI starts +0.400 s and ends "
        "+0.000 s after the audio"
    )
    told = judge(Evidence(heard=heard(0.8)), tolerance=TOLERANCE, apply_correction=True).reason
    assert told == "heard +0.800 s late at z 8.0; the metadata says nothing that would mend it"
    told = judge(
        Evidence(offset=0.7, heard=IN_VAIN), tolerance=TOLERANCE, apply_correction=True
    ).reason
    assert told == (
        "no lag stands out: z 2.7; the offset moves the notes by -0.700 s, which mends none of "
        "the lags that fit best"
    )


def test_differences_are_those_of_both_ends():
    assert differences((3600.0, 3615.0), (3600.04, 3614.9)) == (0.04, -0.1)
    assert differences(None, (0.0, 1.0)) == (None, None)
    assert differences((0.0, 1.0), None) == (None, None)


def test_within_tolerance_needs_both_ends():
    assert within_tolerance(Evidence(0.05, -0.05), TOLERANCE) is True
    assert within_tolerance(Evidence(0.0, 0.051), TOLERANCE) is False
    assert within_tolerance(Evidence(-0.051, 0.0), TOLERANCE) is False
    assert within_tolerance(Evidence(), TOLERANCE) is None


def test_what_is_within_tolerance_moves_nothing():
    assert moves(Evidence(0.05, 0.05, 0.05), TOLERANCE) == {}
    assert moves(Evidence(0.2, 0.2, -0.3), TOLERANCE) == {"offset": 0.3, "timestamps": 0.2}
