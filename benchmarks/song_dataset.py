"""Reading song segments, against whole files in pandas. ``python -m benchmarks.song_dataset``.

The same two parquet files over corpora of growing size, row groups of 32 segments, a quarter of a
gigabyte and more at the largest: once all segments' audio and MIDI, once those of one album in ten.
Each run is a process of its own, whose peak memory is told, and hashes all that it reads. Files are
in the page cache. Ours also compares the ids of both files row by row and verifies checksums of
pages; the plain loop does neither.
"""

import hashlib
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.common import (
    RATIO_COLUMNS,
    alternate,
    answer,
    begin,
    child,
    markdown,
    medians,
    options,
    peak_mib,
    ratio_row,
    same,
    timed,
)

AT_MOST: Final = 1.10
"""Times the memory of the smallest corpus that the largest may take."""
_ALBUMS: Final = 10
_GROUP_ROWS: Final = 32
_RATE: Final = 16_000
_MIDI_BYTES: Final = 4_000
_COLUMNS: Final = (
    "path", "way", "segments", "file MiB", "segments/s", "peak MiB", "of it while reading",
    "against the fewest", "at most", "verdict",
)  # fmt: skip
Run = dict[str, Any]


def main() -> None:
    parser = options(__doc__, folder="where the files are kept")
    parser.add_argument("--segments", type=int, nargs="+", default=[100, 400, 1600])
    parser.add_argument("--seconds", type=float, default=5.0, help="of audio of a segment")
    asked = begin(parser)
    ratios: list[list[str]] = []
    memory: list[list[str]] = []
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-", dir=asked.folder) as temporary:
        places = {count: Path(temporary, f"{count}-segments") for count in sorted(asked.segments)}
        for count, place in places.items():
            child("benchmarks.song_dataset", ["--make", place, count, asked.seconds])
        for what in ("all", "album"):
            fewest: dict[str, float] = {}
            for count, place in places.items():
                ways = {way: partial(_run, way, what, place) for way in ("plain", "ours")}
                runs = alternate(ways, asked.repeats)
                same(runs)
                name = {"all": "all segments", "album": "one album in ten"}[what]
                row = ratio_row(
                    f"{name} of {count}", runs["plain"], runs["ours"], None, per="segments"
                )
                ratios.append(row)
                for way, some in runs.items():
                    memory.append(_memory_row(name, way, count, place, some, fewest))
    print(markdown(RATIO_COLUMNS, ratios))
    print()
    print(markdown(_COLUMNS, memory))


def _memory_row(
    what: str, way: str, count: int, place: Path, runs: list[Run], fewest: dict[str, float]
) -> list[str]:
    segments, seconds, peak, before = medians(runs, "segments", "seconds", "peak_mib", "before_mib")
    used = peak - before
    ratio = peak / fewest.setdefault(way, peak)
    verdict = "-" if way == "plain" else "met" if ratio <= AT_MOST else "NOT MET"
    size = sum(path.stat().st_size for path in place.rglob("*.parquet")) / 2**20
    figures = [f"{size:.0f}", f"{segments / seconds:.0f}", f"{peak:.1f}", f"{used:.1f}"]
    return [what, way, str(count), *figures, f"**{ratio:.3f}x**", f"{AT_MOST:g}x", verdict]


def _run(way: str, what: str, place: Path) -> Run:
    found = child("benchmarks.song_dataset", ["--child", way, what, place])
    assert found is not None  # there is no time limit
    return found


def _make(place: Path, count: int, seconds: float) -> None:
    """Both files; 15 of 100 segments have no audio and 57 no MIDI."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from clipfarm_assets.storage.song_layout import SongLayout

    layout = SongLayout()
    metadata, media = place / layout.metadata(), place / layout.media()
    metadata.parent.mkdir(parents=True)
    random = np.random.default_rng(7)
    rows = [
        {
            "segment_id": f"s{n:06}",
            "song_id": f"song{n // 8}",
            "album": f"album{n * _ALBUMS // count}",
            "label": ("calm", "wild")[n % 2],
            "lyric_text": " ".join(f"word{(n * k) % 997}" for k in range(20)),
            "vocals": True,
            "has_audio": n % 100 >= 15,
            "has_midi": (n * 7) % 100 >= 57,
        }
        for n in range(count)
    ]
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, metadata, write_page_checksum=True)
    blobs = [
        ("audio_waveform", pa.binary()),
        ("audio_sample_rate", pa.int32()),
        ("midi_binary", pa.binary()),
    ]
    schema = pa.schema([*table.schema, *blobs])
    with pq.ParquetWriter(media, schema, write_page_checksum=True) as writer:
        for start in range(0, count, _GROUP_ROWS):
            group = [
                {
                    **row,
                    "audio_waveform": _noise(random, seconds) if row["has_audio"] else None,
                    "audio_sample_rate": _RATE if row["has_audio"] else None,
                    "midi_binary": random.bytes(_MIDI_BYTES) if row["has_midi"] else None,
                }
                for row in rows[start : start + _GROUP_ROWS]
            ]
            writer.write_table(pa.Table.from_pylist(group, schema))
    answer({"segments": count})


def _noise(random: Any, seconds: float) -> bytes:
    samples = random.normal(scale=0.1, size=round(seconds * _RATE))
    return bytes(samples.astype("<f4").tobytes())


def _child(way: str, what: str, place: Path) -> None:
    album = "album3" if what == "album" else None
    read = (_ours if way == "ours" else _plain)(place, album)
    before = peak_mib()
    (segments, digest), seconds = timed(partial(_digest, read))
    answer({**seconds, "segments": segments, "digest": digest, "before_mib": before})


Rows = Iterable[tuple[str, bytes | None, bytes | None]]


def _digest(rows: Rows) -> tuple[int, str]:
    """How many segments, and a hash of all that they have."""
    digest, count = hashlib.sha256(), 0
    for segment_id, audio, midi in rows:
        digest.update(f"{segment_id} {audio is None} {midi is None}\n".encode())
        digest.update(audio or b"")
        digest.update(midi or b"")
        count += 1
    return count, digest.hexdigest()


def _plain(place: Path, album: str | None) -> Rows:
    from benchmarks.plain import read_segments_pandas as plain
    from clipfarm_assets.storage.song_layout import SongLayout

    layout = SongLayout()
    return plain.read_segments(place / layout.metadata(), place / layout.media(), album)


def _ours(place: Path, album: str | None) -> Rows:
    from clipfarm_assets.pipelines.songs.media import open_media
    from clipfarm_assets.pipelines.songs.segments import read_segments
    from clipfarm_assets.storage.objects import ObjectStore
    from clipfarm_assets.storage.song_layout import SongLayout

    def rows() -> Rows:
        store, layout = ObjectStore.open(str(place)), SongLayout()
        report = read_segments(store, layout)
        segments = report.segments if album is None else report.of_album(album)
        for found in open_media(store, layout).each(segments):
            audio = None if found.audio is None else found.audio.data
            yield found.segment.id, audio, found.midi

    return rows()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make"]:
        _make(Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
    elif sys.argv[1:2] == ["--child"]:
        _child(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        main()
