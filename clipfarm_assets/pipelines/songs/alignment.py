"""Whether audio and MIDI of an album's segments are of one moment: a parquet object an album.

Every segment has a row, also one that has no pair; the verdict is that of `alignment_rule`. A row
knows the hash of all that decides it, so that a second run listens to nothing again and writes the
same bytes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.song_segments import Segment, SegmentProblem
from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.midi.score import Score, read_score
from clipfarm_assets.encoders.midi.smf import BadMidi
from clipfarm_assets.encoders.waveforms.heard_offset import Heard, heard_offset
from clipfarm_assets.encoders.waveforms.prepare import WaveformSettings, prepare
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.songs.alignment_rows import (
    Aligned,
    AlignmentUse,
    BadAlignment,
    NoAlignment,
    deciding,
    declared_of,
    read_alignment,
    rows_from_parquet,
    rows_to_parquet,
    use_alignment,
)
from clipfarm_assets.pipelines.songs.alignment_rule import (
    VERDICTS,
    AlignmentVerdict,
    Evidence,
    borne_out,
    differences,
    judge,
    moves,
    within_tolerance,
)
from clipfarm_assets.pipelines.songs.feature_files import media_version
from clipfarm_assets.pipelines.songs.media import Media, RawAudio, SegmentMedia, open_media
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.storage.tables import BadTable
from clipfarm_assets.training.song_config import SongConfig

__all__ = [
    "AUDIO_CORRUPT",
    "BAD_SMPTE_OFFSET",
    "MIDI_CORRUPT",
    "VERDICTS",
    "Aligned",
    "AlignmentReport",
    "AlignmentUse",
    "AlignmentVerdict",
    "BadAlignment",
    "NoAlignment",
    "check_alignment",
    "read_alignment",
    "use_alignment",
]

AUDIO_CORRUPT: Final = "audio_corrupt"
MIDI_CORRUPT: Final = "midi_corrupt"
BAD_SMPTE_OFFSET: Final = "bad_smpte_offset"

_LISTEN_RATE: Final = 16_000
"""Hz: what is heard must not depend on the rate that an encoder wants."""
_DIGITS: Final = 4
"""Of what was heard: 0.1 ms is far below what can be."""
_MAX_VELOCITY: Final = 127
_WORKERS: Final = 2
_AHEAD: Final = 4


@dataclass(frozen=True)
class AlignmentReport:
    """What became of an album.

    Attributes:
        album: Which.
        key: Of its object.
        version: Sha256 of that.
        rows: Of its segments, in the order of the metadata.
        counts: Verdict -> segments; all verdicts are there.
        listened: Pairs that were heard now: with enough in both to compare.
        reused: Rows that were there already, made of the same.
        problems: With media that should be there, by kind.
    """

    album: str
    key: str
    version: str
    rows: Sequence[Aligned]
    counts: Mapping[AlignmentVerdict, int]
    listened: int
    reused: int
    problems: ProblemCounts

    @property
    def pairs(self) -> int:
        """Segments that have both audio and MIDI."""
        return len(self.rows) - self.counts["not_applicable"]

    @property
    def aligned_share(self) -> float:
        """Share of the pairs that are aligned, as they are or corrected; 1 if there are none."""
        together = self.counts["aligned"] + self.counts["corrected"]
        return together / self.pairs if self.pairs else 1.0


def check_alignment(
    store: ObjectStore, layout: SongLayout, config: SongConfig, album: str, say: Say = silent
) -> AlignmentReport:
    """Compare audio and MIDI of an album's segments, and store what was found.

    In memory there are a few segments' media. Media that cannot be read make a pair
    ``not_applicable``, and are counted.

    Args:
        store: Where the segments are and the rows go to.
        layout: Where there.
        config: Settings; ``preprocessing.alignment`` above all.
        album: Which.
        say: Told how far it is.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments` and `open_media`.
        RowsOutOfStep: The media has other rows than the metadata.
        ValueError: No segment is of the album.
    """
    columns = config.data.columns
    segments = read_segments(store, layout, columns).of_album(album)
    key = layout.alignment(album)
    known = _known(store, key, say)
    progress = Progress(f"alignment of {album}", len(segments), say)
    media = open_media(store, layout, columns, folders=config.data.media_folders)
    rows: list[Aligned] = []
    listened = reused = 0
    work = partial(_row, known=known, config=config)
    with closing(
        ordered_map(work, _pairs(media, segments), workers=_WORKERS, ahead=_AHEAD)
    ) as found:
        for row in found:
            rows.append(row)
            is_reused = row is known.get(row.segment_id)
            reused += is_reused
            listened += row.z is not None and not is_reused
            progress.step()
    data = rows_to_parquet(rows, config.preprocessing, media_version(media.rows))
    store.update(key, lambda _: data)
    counts = Counter(row.verdict for row in rows)
    return AlignmentReport(
        album=album,
        key=key,
        version=hashlib.sha256(data).hexdigest(),
        rows=rows,
        counts={verdict: counts[verdict] for verdict in VERDICTS},
        listened=listened,
        reused=reused,
        problems=_problems(rows, media),
    )


def _known(store: ObjectStore, key: str, say: Say) -> dict[str, Aligned]:
    """Rows of an earlier run; what they are made of tells whether they still hold."""
    try:
        rows, _ = rows_from_parquet(store.get(key))
    except FileNotFoundError:
        return {}
    except BadTable as error:
        say(f"{key} is not readable, so that all of it is made again: {error}")
        return {}
    return {row.segment_id: row for row in rows}


def _pairs(media: Media, segments: Sequence[Segment]) -> Iterator[SegmentMedia]:
    """Media of the segments that have both, as the metadata say; nothing is read of the others."""
    for segment in segments:
        if segment.has_audio and segment.has_midi:
            yield from media.each([segment])
        else:
            yield SegmentMedia(segment, None, None)


def _row(item: SegmentMedia, *, known: Mapping[str, Aligned], config: SongConfig) -> Aligned:
    made_of = _made_of(item, config)
    before = known.get(item.segment.id)
    if before is not None and before.made_of == made_of:
        return before
    segment, settings = item.segment, config.preprocessing.alignment
    start, end = differences(segment.audio_span, segment.midi_span)
    evidence = Evidence(start, end, segment.offset)
    row = Aligned(
        segment_id=segment.id,
        album=segment.album,
        start_difference=start,
        end_difference=end,
        within_tolerance=within_tolerance(evidence, settings.tolerance_seconds),
        heard_offset=None,
        z=None,
        is_heard=False,
        verdict="not_applicable",
        correction=0.0,
        correction_source=None,
        reason=_lack(item),
        problem=None,
        declared=declared_of(segment),
        made_of=made_of,
    )
    if item.audio is None or item.midi is None:
        return row
    try:
        samples = _samples(item.audio, config)
        score = read_score(item.midi)
    except MediaError as error:
        return replace(row, problem=AUDIO_CORRUPT, reason=str(error))
    except BadMidi as error:
        return replace(row, problem=MIDI_CORRUPT, reason=str(error))
    if start is None:
        evidence = replace(evidence, start_difference=_file_starts(segment, score))
        row = replace(row, start_difference=evidence.start_difference)
    evidence = replace(evidence, heard=_listen(samples, score, evidence, config))
    if evidence.heard is not None and evidence.heard.is_compared:
        heard = evidence.heard
        row = replace(row, heard_offset=heard.offset_seconds, z=heard.z, is_heard=heard.is_trusted)
    judged = judge(
        evidence,
        tolerance=settings.tolerance_seconds,
        apply_correction=settings.apply_correction,
    )
    told = score.bad_smpte_offset
    return replace(
        row,
        verdict=judged.verdict,
        correction=judged.correction,
        correction_source=judged.source,
        reason=judged.reason if told is None else f"{judged.reason}; in the MIDI, {told}",
        problem=None if told is None else BAD_SMPTE_OFFSET,
    )


def _file_starts(segment: Segment, score: Score) -> float | None:
    """Seconds by which a file's own time of day is after the audio's; None unless both say one.

    It has no end, so that it moves notes only where the ear bears it out: many programs write one
    hour, or none, whatever it is of.
    """
    if score.smpte_offset is None or segment.audio_span is None or not segment.is_smpte:
        return None
    start, _ = differences(segment.audio_span, (score.smpte_offset, score.smpte_offset))
    return start


def _lack(item: SegmentMedia) -> str:
    segment = item.segment
    lacks = [
        f"no {name}" if not declared else f"the {name} was not found"
        for name, declared, there in (
            ("audio", segment.has_audio, item.audio),
            ("MIDI", segment.has_midi, item.midi),
        )
        # Where one is declared absent, the other one was not looked for.
        if not declared or (there is None and segment.has_audio and segment.has_midi)
    ]
    return "; ".join(lacks)


def _samples(audio: RawAudio, config: SongConfig) -> NDArray[np.float32]:
    """What there is to hear, float32 ``[samples]``; raises `MediaError`."""
    sound = config.preprocessing.audio
    waveform = WaveformSettings(_LISTEN_RATE, sound.seconds, sound.stored_dtype)
    return prepare(audio.data, audio.rate, waveform).samples


def _listen(
    samples: NDArray[np.float32], score: Score, evidence: Evidence, config: SongConfig
) -> Heard:
    """What is heard of the pair as it is; if nothing is, of the notes where the metadata say.

    So an offset beyond the lags that are looked at is heard, too, if it is told.
    """
    settings = config.preprocessing.alignment
    onsets, weights = score.onsets()

    def heard_at(move: float) -> Heard:
        heard = heard_offset(
            samples,
            _LISTEN_RATE,
            onsets + move,
            weights * _MAX_VELOCITY,
            max_seconds=settings.max_offset_seconds,
            z_threshold=settings.z_threshold,
        )
        return replace(
            heard,
            offset_seconds=round(heard.offset_seconds - move, _DIGITS),
            z=round(heard.z, _DIGITS),
            alike=tuple(round(late - move, _DIGITS) for late in heard.alike),
        )

    heard = heard_at(0.0)
    if heard.is_trusted:
        return heard
    told = moves(evidence, settings.tolerance_seconds)
    elsewhere = [heard_at(move) for move in told.values()]
    sure = [one for one in elsewhere if one.is_trusted]
    tolerance = settings.tolerance_seconds
    fitting = [one for one in (heard, *elsewhere) if borne_out(told, one, tolerance) is not None]
    return next(iter((*sure, *fitting)), heard)


def _made_of(item: SegmentMedia, config: SongConfig) -> str:
    fields: dict[str, Any] = {
        "settings": deciding(config.preprocessing),
        "declared": declared_of(item.segment),
        "audio": None if item.audio is None else [_sha256(item.audio.data), item.audio.rate],
        "midi": None if item.midi is None else _sha256(item.midi),
    }
    return _sha256(json.dumps(fields, sort_keys=True).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _problems(rows: Sequence[Aligned], media: Media) -> ProblemCounts:
    """With media that are not there, and with those that are and cannot be read."""
    corrupt = ProblemCounts.of(
        SegmentProblem(row.problem, f"id {row.segment_id}", row.reason)
        for row in rows
        if row.problem is not None
    )
    absent = media.counts.counted()
    return ProblemCounts(
        dict(sorted({**absent.counts, **corrupt.counts}.items())),
        dict(sorted({**absent.samples, **corrupt.samples}.items())),
    )
