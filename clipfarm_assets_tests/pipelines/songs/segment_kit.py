"""Segments in a store, as both parquet files."""

import io

import mido
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets_tests.contracts.song_kit import MEDIA_FIELDS, SCHEMA, row
from clipfarm_assets_tests.stores import CountingStore

LAYOUT = SongLayout()
RATE = 16_000
TEXT_FIELD = pa.field("text_embedding", pa.list_(pa.float32()))


def counting_store(tmp_path):
    return CountingStore(str(tmp_path / "store"))


def parquet(table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, write_page_checksum=True, **options)
    return file.getvalue()


def waveform(seed, seconds=1.0, rate=RATE):
    """Raw samples of a tone and noise, as bytes."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * (200 + 40 * (seed % 20)) * time)
    return (tone + 0.01 * random.normal(size=len(time))).astype("<f4").tobytes()


def midi(pitches=(60, 64, 67), beats=0.5, hanging=()):
    """One note after another at 120 beats a minute, each `beats` long; `hanging` never end."""
    track = mido.MidiTrack()
    for pitch in hanging:
        track.append(mido.Message("note_on", note=pitch, velocity=80, time=0))
    for pitch in pitches:
        track.append(mido.Message("note_on", note=pitch, velocity=80, time=0))
        track.append(mido.Message("note_off", note=pitch, velocity=0, time=round(480 * beats)))
    file = mido.MidiFile(type=0, ticks_per_beat=480)
    file.tracks.append(track)
    data = io.BytesIO()
    file.save(file=data)
    return data.getvalue()


def media_of(n, **changes):
    """A row's media."""
    usual = {
        "audio_waveform": waveform(n),
        "audio_sample_rate": RATE,
        "midi_binary": midi((60 + n % 12, 64, 67)),
    }
    return {**usual, **changes}


def put_segments(store, rows, media, *, group=4, fields=()):
    """Both files; `fields` are further columns of the rows. Returns the segments."""
    schema = pa.schema([*SCHEMA, *fields])
    metadata = pa.Table.from_pylist(list(rows), schema=schema)
    both = pa.Table.from_pylist(
        [{**one, **other} for one, other in zip(rows, media, strict=True)],
        schema=pa.schema([*schema, *MEDIA_FIELDS]),
    )
    store.put(LAYOUT.metadata(), parquet(metadata))
    # Small pages, as a careful writer makes them, so that a piece of a row group can be read.
    small = {"write_batch_size": 1, "data_page_size": 1 << 12, "use_dictionary": False}
    store.put(LAYOUT.media(), parquet(both, row_group_size=group, **small))
    return list(read_segments(store, LAYOUT).segments)


def put_some(store, count=10, **options):
    """Segments s0, s1, … that have everything; two labels, songs of two segments."""
    rows = [
        row(
            f"s{n}",
            song_id=f"song {n // 2}",
            album="Blue" if n < count / 2 else "Red",
            label=("calm", "wild")[n // 2 % 2],
            lyric_text=f"la {n}",
        )
        for n in range(count)
    ]
    return put_segments(store, rows, [media_of(n) for n in range(count)], **options)
