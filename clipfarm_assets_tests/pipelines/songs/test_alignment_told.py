"""What columns and files tell of a pair's times, up to the batch that notes are moved in."""

import numpy as np
import pytest

from clipfarm_assets.pipelines.songs.alignment import (
    check_alignment,
    read_alignment,
    use_alignment,
)
from clipfarm_assets.pipelines.songs.dataset import SegmentDataset
from clipfarm_assets_tests.encoders.midi import files
from clipfarm_assets_tests.encoders.waveforms.songs import Notes, play, sound
from clipfarm_assets_tests.pipelines.songs import dataset_kit
from clipfarm_assets_tests.pipelines.songs.pair_kit import (
    SECONDS,
    SILENCE,
    config_of,
    midi_of,
    pair,
    put_pairs,
    smpte,
    song,
    verdicts,
    with_time_of_day,
)
from clipfarm_assets_tests.pipelines.songs.segment_kit import LAYOUT, counting_store


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


@pytest.mark.parametrize(("told", "verdict"), [(0.8, "corrected"), (-0.3, "misaligned")])
def test_what_is_told_of_a_loop_decides_between_the_lags_that_fit(store, told, verdict):
    """The ear hears no single lag: what was measured is applied where it is among them."""
    rng = np.random.default_rng([9, 6])
    whole = np.unique(play(rng, SECONDS + 8, bpm=150, loop=True).onsets) - 2

    def of(onsets):
        return Notes(onsets, np.full(len(onsets), 60), np.full(len(onsets), 90))

    notes = of(whole[(whole >= 0) & (whole < SECONDS)])
    samples = sound(notes, rng, SECONDS, others_db=None)
    loop = pair("loop", samples, midi_of(of(whole), 0.8), midi_offset_seconds=told)
    segments = put_pairs(store, [loop])
    (row,) = check_alignment(store, LAYOUT, config_of(), "Blue").rows
    assert row.z is not None
    assert not row.is_heard
    assert (row.verdict, row.correction) == (verdict, -told if verdict == "corrected" else 0.0)
    settings = config_of(exclude_misaligned=True).preprocessing
    rows = read_alignment(store, LAYOUT, ["Blue"], settings)
    assert len(use_alignment(segments, rows, settings.alignment).kept) == (verdict == "corrected")


def test_a_file_s_own_time_of_day_stands_for_a_code_that_is_missing(store):
    """Where the ear bears it out: many programs write one hour whatever they export."""
    notes, samples = song(0)
    codes = {"start_smpte": "01:00:10:00", "end_smpte": "01:00:22:00", "smpte_fps": 25.0}
    cut, whole = midi_of(notes, -0.8), midi_of(notes)
    hour, later = (files.smpte_offset(1, 1, 0, *at, 0) for at in ((0, 0), (10, 20)))
    bad = files.smpte_offset(1, 1, 0, 61, 0, 0)
    pairs = [
        pair("cut", samples, with_time_of_day(cut, later), **codes),
        pair("hour", samples, with_time_of_day(whole, hour), **codes),
        pair("by-seconds", samples, with_time_of_day(cut, later), start_seconds=10.0,
             end_seconds=22.0),
        pair("unheard", SILENCE, with_time_of_day(whole, hour), **codes),
        pair("bad", samples, with_time_of_day(whole, bad), **codes),
    ]  # fmt: skip
    put_pairs(store, pairs)
    report = check_alignment(store, LAYOUT, config_of(), "Blue")
    rows = {row.segment_id: row for row in report.rows}
    assert verdicts(report) == {
        "cut": "corrected",
        "hour": "aligned",
        "by-seconds": "misaligned",
        "unheard": "unverified",
        "bad": "aligned",
    }
    assert (rows["cut"].correction, rows["cut"].correction_source) == (0.8, "timestamps")
    assert [rows[name].start_difference for name in ("cut", "hour", "bad")] == [0.8, -10.0, None]
    assert report.problems.counts == {"bad_smpte_offset": 1}
    assert "seconds of 0 to 59, found 61" in rows["bad"].reason
    again = check_alignment(store, LAYOUT, config_of(), "Blue")
    assert (again.reused, again.problems) == (5, report.problems)


def test_temporal_alignment_with_audio(store):
    """From SMPTE codes and LRC times in the columns to notes in time with the sound in a batch."""
    notes, samples = song(0)
    cut, codes = midi_of(notes, -0.8), ("01:00:10:00", "01:00:22:00")
    seconds = {"midi_start_seconds": 84.25, "midi_end_seconds": 96.25}
    lrc = {"lrc_start": "[01:23.45]", "lrc_end": "[01:35.45]", **seconds}
    of_file = {"start_smpte": codes[0], "end_smpte": codes[1], "smpte_fps": 25.0}
    pairs = [
        pair("as-it-is", samples, midi_of(notes), **smpte(*codes, *codes)),
        pair("smpte", samples, cut, **smpte(*codes, "01:00:10:20", "01:00:22:20")),
        pair("smpte-unheard", SILENCE, cut, **smpte(*codes, "01:00:10:20", "01:00:22:20")),
        pair("lrc", samples, cut, **lrc),
        pair("lrc-unheard", SILENCE, cut, **lrc),
        pair("file", samples, with_time_of_day(cut, files.smpte_offset(1, 1, 0, 10, 20, 0)),
             **of_file),
    ]  # fmt: skip
    segments = put_pairs(store, pairs)
    config = dataset_kit.config(audio={"seconds": SECONDS})
    check_alignment(store, LAYOUT, config, "Blue")
    settings = config.preprocessing
    used = use_alignment(
        segments, read_alignment(store, LAYOUT, ["Blue"], settings), settings.alignment
    )
    assert used.corrections == {segment.id: 0.8 for segment in segments[1:]}

    def onsets(corrections):
        """Pitches and frames of each segment, 20 a second, but for the second that was cut off."""
        splits = dataset_kit.split_all(segments)
        dataset = SegmentDataset(store, LAYOUT, config, used.kept, splits, corrections=corrections)
        rolls = dataset_kit.batch_of(dataset)["midi"]["roll"][:, 0, :, 20:]
        return [roll.nonzero() for roll in rolls]

    in_time, *moved = onsets(used.corrections)
    assert len(in_time) > 20
    for found in moved:
        assert found.shape == in_time.shape
        assert (found[:, 0] == in_time[:, 0]).all()
        assert (found[:, 1] - in_time[:, 1]).abs().max() <= 1
    for found in onsets({})[1:]:
        assert found.shape != in_time.shape or (found - in_time).abs().max() > 1
