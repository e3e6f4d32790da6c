"""Audio and MIDI: from the media file, from where a path leads, and from nowhere else."""

import errno
import os
import stat

import pytest

from clipfarm_assets.pipelines.songs import media as media_module
from clipfarm_assets.pipelines.songs.media import NoSegments, open_media
from clipfarm_assets.pipelines.songs.row_cursor import RowsOutOfStep
from clipfarm_assets.storage.objects import ObjectChanged
from clipfarm_assets.storage.tables import BadTable
from clipfarm_assets_tests.contracts.song_kit import row, table
from clipfarm_assets_tests.pipelines.songs.segment_kit import (
    LAYOUT,
    RATE,
    media_of,
    midi,
    parquet,
    put_segments,
    put_some,
    waveform,
)

NO_AUDIO = {"audio_waveform": None, "audio_sample_rate": None}
NO_MIDI = {"midi_binary": None}
NOTHING = {**NO_AUDIO, **NO_MIDI}


def sources(media):
    return {name: dict(found) for name, found in media.counts.sources.items()}


def test_audio_from_parquet_binary(store):
    segments = put_some(store, 6)
    media = open_media(store, LAYOUT)
    for n, segment in enumerate(segments):
        found = media.audio(segment)
        assert (found.data, found.rate, found.source) == (waveform(n), RATE, "parquet")
    assert sources(media) == {"audio": {"parquet": 6}, "midi": {}}


def test_midi_from_parquet_binary(store):
    segments = put_some(store, 6)
    media = open_media(store, LAYOUT)
    assert [media.midi(s) for s in segments] == [midi((60 + n, 64, 67)) for n in range(6)]
    assert sources(media) == {"audio": {}, "midi": {"parquet": 6}}


def test_audio_from_disk_path_fallback(folder, tmp_path):
    """Below the store's folder of files, or below a folder of the machine that is named."""
    elsewhere = tmp_path / "collection" / "blue"
    elsewhere.mkdir(parents=True)
    (elsewhere / "b.wav").write_bytes(b"RIFF on disk")
    folder.put(LAYOUT.file("blue/a.wav"), b"RIFF in the store")
    rows = [
        row("a", segment_audio_file="blue/a.wav"),
        row("b", segment_audio_file=str(elsewhere / "b.wav")),
        row("c", segment_audio_file="blue/a.wav"),
        row("d", segment_audio_file="./blue/a.wav"),
    ]
    segments = put_segments(folder, rows, [media_of(n, **NO_AUDIO) for n in range(2)]
                            + [media_of(2), media_of(3, audio_waveform=b"")])  # fmt: skip
    media = open_media(folder, LAYOUT, folders=[tmp_path / "collection"])
    found = [media.audio(segment) for segment in segments]
    assert [(each.data, each.rate, each.source) for each in found] == [
        (b"RIFF in the store", None, "store"),
        (b"RIFF on disk", None, "disk"),
        (waveform(2), RATE, "parquet"),  # what the media has comes first
        (b"RIFF in the store", None, "store"),  # and nothing at all is nothing
    ]
    assert sources(media)["audio"] == {"store": 2, "disk": 1, "parquet": 1}


def test_a_relative_path_that_the_store_lacks_leads_into_the_folders(folder, tmp_path):
    """As in projects whose files name theirs by where they were made."""
    data, other = midi((50, 52)), midi((50, 53))
    for place, content in (("one", None), ("two", data), ("three", other)):
        (tmp_path / place / "blue").mkdir(parents=True)
        if content:
            (tmp_path / place / "blue" / "a.mid").write_bytes(content)
    (tmp_path / "outside.mid").write_bytes(data)
    (tmp_path / "one" / "link.mid").symlink_to(tmp_path / "outside.mid")
    paths = ["blue/a.mid", "./blue/a.mid", "../outside.mid", "link.mid", "blue/none.mid", "blue"]
    rows = [row(str(n), midi_file=path) for n, path in enumerate(paths)]
    segments = put_segments(folder, rows, [media_of(n, **NO_MIDI) for n in range(len(paths))])
    media = open_media(folder, LAYOUT, folders=[tmp_path / n for n in ("one", "two", "three")])
    assert [media.midi(segment) for segment in segments] == [data, data, *[None] * 4]
    assert sources(media)["midi"] == {"disk": 2, "absent": 4}
    assert media.counts.counted().counts == {"file_not_found": 1, "refused_path": 3}
    folder.put(LAYOUT.file("blue/a.mid"), other)
    assert media.midi(segments[0]) == other, "the store's comes first"


def test_midi_from_disk_path_fallback(folder, tmp_path):
    data = midi((50, 52))
    folder.put(LAYOUT.file("a.mid"), data)
    (tmp_path / "b.mid").write_bytes(data)
    rows = [row("a", midi_file="a.mid"), row("b", midi_file=str(tmp_path / "b.mid"))]
    segments = put_segments(folder, rows, [media_of(0, **NO_MIDI), media_of(1, **NO_MIDI)])
    media = open_media(folder, LAYOUT, folders=[str(tmp_path)])
    assert [media.midi(segment) for segment in segments] == [data, data]
    assert sources(media)["midi"] == {"store": 1, "disk": 1}


def test_midi_absent(store):
    """Neither in the file nor where a path leads, or not even looked for: no MIDI, and counted."""
    store.put(LAYOUT.file("empty.mid"), b"")
    rows = [
        row("no path"),
        row("no file", midi_file="none.mid"),
        row("blank", midi_file="  "),
        row("empty", midi_file="empty.mid"),
        row("undeclared", has_midi=False, midi_file="a.mid"),
    ]
    segments = put_segments(store, rows, [media_of(n, **NO_MIDI) for n in range(5)])
    media = open_media(store, LAYOUT)
    assert [media.midi(segment) for segment in segments] == [None] * 5
    assert sources(media)["midi"] == {"absent": 4, "undeclared": 1}
    counts = media.counts.counted()
    assert counts.counts == {"empty_file": 1, "file_not_found": 1, "no_midi": 2}
    assert counts.samples["file_not_found"] == [
        "id no file: no object 'none.mid' below songs/raw/files/"
    ]


def test_missing_audio_is_counted(folder):
    rows = [row("a"), row("b", has_audio=False), row("c")]
    media_rows = [media_of(0, **NO_AUDIO), media_of(1), media_of(2, audio_sample_rate=None)]
    segments = put_segments(folder, rows, media_rows)
    media = open_media(folder, LAYOUT)
    found = [media.audio(segment) for segment in segments]
    assert found[:2] == [None, None]
    assert (found[2].data, found[2].rate) == (waveform(2), None)
    assert sources(media)["audio"] == {"absent": 1, "undeclared": 1, "parquet": 1}
    assert media.counts.counted().counts == {"missing_rate": 1, "no_audio": 1}


HOSTILE = [
    "../secret.mid", "a/../../secret.mid", "/etc/passwd", "../../../../etc/passwd", "..",
    "a/./b.mid", "http://127.0.0.1:1/a.mid", "https://example.org/a.mid", "s3://bucket/a.mid",
    "file:///etc/passwd", "a\\..\\b.mid", "C:\\a.mid", "a\0b.mid", "/etc/\0passwd", "a//b.mid",
    "/", "/dev/zero", "/proc/self/environ", "link.mid", "folder/secret.mid", "x" * 5000,
    "/" + "y" * 5000, "\x1b[2J.mid", "🎵" * 200,
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_leads_nowhere_else(folder, tmp_path, path):
    """Not above the folder of files, not along a link out of it, not to an address, not to disk."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.mid").write_bytes(midi())
    (tmp_path / "secret.mid").write_bytes(midi())
    folder.put(LAYOUT.file("a/b.mid"), midi())
    files = tmp_path / "store" / LAYOUT.files()
    (files / "link.mid").symlink_to(tmp_path / "outside" / "secret.mid")
    (files / "folder").symlink_to(tmp_path / "outside")
    rows = [row("a", midi_file=path, segment_audio_file=path)]
    segments = put_segments(folder, rows, [NOTHING])
    media = open_media(folder, LAYOUT, folders=[tmp_path / "collection"])
    assert (media.midi(segments[0]), media.audio(segments[0])) == (None, None)
    assert sources(media) == {"audio": {"absent": 1}, "midi": {"absent": 1}}
    assert sum(media.counts.counted().counts.values()) == 2


def test_a_folder_that_is_named_is_not_left_along_links(folder, tmp_path):
    inside, outside = tmp_path / "collection", tmp_path / "collection-secret"
    inside.mkdir()
    outside.mkdir()
    (outside / "a.mid").write_bytes(midi())
    (inside / "b.mid").write_bytes(midi())
    (inside / "out.mid").symlink_to(outside / "a.mid")
    (inside / "in.mid").symlink_to(inside / "b.mid")
    (inside / "away").symlink_to(outside)
    (inside / "loop.mid").symlink_to("loop.mid")
    os.mkfifo(inside / "pipe.mid")
    names = ["in.mid", "out.mid", "away/a.mid", "../collection-secret/a.mid", "pipe.mid",
             "loop.mid", "."]  # fmt: skip
    rows = [row(name, midi_file=f"{inside}/{name}") for name in names]
    rows.append(row("beside", midi_file=str(outside / "a.mid")))
    segments = put_segments(folder, rows, [NOTHING] * len(rows), group=len(rows))
    media = open_media(folder, LAYOUT, folders=[inside])
    found = {segment.id: media.midi(segment) for segment in segments}
    assert [name for name, data in found.items() if data is not None] == ["in.mid"]
    counts = media.counts.counted().counts
    assert counts["refused_path"] >= 5
    assert sum(counts.values()) == 7


def test_a_file_that_is_too_large_is_not_read(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(media_module, "MAX_FILE_BYTES", 100)
    folder.put(LAYOUT.file("a.mid"), bytes(101))
    with (tmp_path / "b.mid").open("wb") as file:
        file.truncate(1 << 40)
    rows = [row("a", midi_file="a.mid"), row("b", midi_file=str(tmp_path / "b.mid"))]
    segments = put_segments(folder, rows, [NOTHING, NOTHING])
    media = open_media(folder, LAYOUT, folders=[tmp_path])
    assert [media.midi(segment) for segment in segments] == [None, None]
    assert media.counts.counted().counts == {"file_too_large": 2}


def test_lazy_loading_for_efficiency(counting):
    """At first the footer alone is read; then of a row what it takes, and no other modality."""
    rows = [row(f"s{n}") for n in range(60)]
    media_rows = [media_of(n, audio_waveform=waveform(n, seconds=2)) for n in range(60)]
    segments = put_segments(counting, rows, media_rows, group=20)
    size = counting.head(LAYOUT.media()).size
    counting.reset()
    media = open_media(counting, LAYOUT)
    assert [kind for kind, _ in counting.calls] == ["head", "range"]
    counting.reset()
    read = []
    whole = counting.get_range

    def measured(key, start, length, mark=None):
        read.append(length)
        return whole(key, start, length, mark)

    counting.get_range = measured
    assert open_media(counting, LAYOUT, modalities=["midi"]).midi(segments[59]) is not None
    assert sum(read) < size / 10
    read.clear()
    media.audio(segments[20])
    assert sum(read) < size / 2
    read.clear()
    found = list(media.each(segments))
    assert [each.segment.id for each in found] == [f"s{n}" for n in range(60)]
    assert [each.audio.data for each in found] == [waveform(n, seconds=2) for n in range(60)]
    assert sum(read) < size * 1.1  # in order, each row once


def test_rows_in_any_order(folder):
    segments = put_some(folder, 10, group=3)
    media = open_media(folder, LAYOUT)
    for n in (9, 0, 4, 3, 5, 5, 1, 8, 0):
        assert media.audio(segments[n]).data == waveform(n)
        assert media.midi(segments[n]) == midi((60 + n, 64, 67))
    groups = [media.rows.group_of(segment.row).number for segment in segments]
    assert groups == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    with pytest.raises(IndexError, match="has 10 rows: found 10"):
        media.rows.group_of(10)


def test_other_rows_than_the_metadata_has_stop_the_run(folder):
    segments = put_some(folder, 6)
    rows = [row(f"s{n}") for n in range(6)]
    put_segments(folder, [*rows[:2], rows[3], rows[2]], [media_of(n) for n in range(4)])
    media = open_media(folder, LAYOUT)
    assert media.midi(segments[1]) is not None
    with pytest.raises(RowsOutOfStep, match=r"must have segment 's2' in row 2.*found 's3' there"):
        media.audio(segments[2])
    with pytest.raises(RowsOutOfStep, match="'s5' in row 5, as the metadata has: found 4 rows"):
        media.midi(segments[5])


def test_a_media_file_that_is_written_again_is_not_mixed_with_itself(folder):
    segments = put_some(folder, 8, group=2)
    media = open_media(folder, LAYOUT)
    media.audio(segments[0])
    put_some(folder, 8, group=2)
    with pytest.raises(ObjectChanged, match="written again while it was read"):
        media.audio(segments[7])


def test_what_is_no_media_file_is_told(folder):
    with pytest.raises(NoSegments, match=f"must hold the media of segments at {LAYOUT.media()}"):
        open_media(folder, LAYOUT)
    folder.put(LAYOUT.media(), parquet(table(row("a"))))
    with pytest.raises(BadTable, match="lacks the column audio_waveform, audio_sample_rate, midi_"):
        open_media(folder, LAYOUT)
    segments = put_some(folder, 2)
    with pytest.raises(ValueError, match="opened for midi: not for audio"):
        open_media(folder, LAYOUT, modalities=["midi"]).audio(segments[0])


def _failing(monkeypatch, number, name):
    """Let the machine fail to open files of this name."""
    opened = os.open

    def failing(path, *arguments, **options):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number), path)
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)


def _two_paths(folder, tmp_path):
    """One in the store, one on disk, and the files that they lead to."""
    folder.put(LAYOUT.file("a.mid"), midi())
    (tmp_path / "a.mid").write_bytes(midi())
    rows = [row("a", midi_file="a.mid"), row("b", midi_file=str(tmp_path / "a.mid"))]
    segments = put_segments(folder, rows, [NOTHING, NOTHING])
    return segments, open_media(folder, LAYOUT, folders=[tmp_path])


@pytest.mark.parametrize("place", [0, 1], ids=["store", "disk"])
@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "EIO", "ESTALE", "EACCES", "ENOMEM"])
def test_a_fault_of_the_machine_is_no_missing_file(folder, tmp_path, monkeypatch, name, place):
    """Kept for one, it would take the medium from all segments that are read meanwhile."""
    segments, media = _two_paths(folder, tmp_path)
    _failing(monkeypatch, getattr(errno, name), "a.mid")
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))) as caught:
        media.midi(segments[place])
    assert "a.mid'; mend that, and run again" in caught.value.__notes__[0]
    assert media.counts.counted().counts == {}
    monkeypatch.undo()
    assert media.midi(segments[place]) == midi()


@pytest.mark.parametrize("name", ["ENOENT", "ENOTDIR", "ENAMETOOLONG", "ELOOP", "EISDIR", "ENXIO"])
def test_a_fault_of_the_path_is_counted(folder, tmp_path, monkeypatch, name):
    segments, media = _two_paths(folder, tmp_path)
    _failing(monkeypatch, getattr(errno, name), "a.mid")
    assert [media.midi(segment) for segment in segments] == [None, None]
    counts = media.counts.counted().counts
    assert set(counts) <= {"file_not_found", "unreadable_file"}
    assert sum(counts.values()) == 2


def test_a_socket_is_no_file(folder, tmp_path):
    os.mknod(tmp_path / "s.mid", stat.S_IFSOCK | 0o600)
    segments = put_segments(folder, [row("a", midi_file=str(tmp_path / "s.mid"))], [NOTHING])
    media = open_media(folder, LAYOUT, folders=[tmp_path])
    assert media.midi(segments[0]) is None
    assert media.counts.counted().counts == {"unreadable_file": 1}


@pytest.mark.parametrize(("times", "expected"), [(1, midi((50,))), (2, None)], ids=["once", "on"])
def test_a_file_that_is_written_again_is_read_anew_once(folder, monkeypatch, times, expected):
    """Between its size and its bytes; who writes it all the time is told, and ends no run."""
    folder.put(LAYOUT.file("a.mid"), midi())
    segments = put_segments(folder, [row("a", midi_file="a.mid")], [NOTHING])
    media = open_media(folder, LAYOUT)
    whole, left = folder.get_range, [*range(times)]

    def rewritten(key, start, length, mark=None):
        if key == LAYOUT.file("a.mid") and left:
            left.pop()
            folder.put(key, midi((50,)))
        return whole(key, start, length, mark)

    monkeypatch.setattr(folder, "get_range", rewritten)
    assert media.midi(segments[0]) == expected
    assert media.counts.counted().counts == ({} if expected else {"unreadable_file": 1})
