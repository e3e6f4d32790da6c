"""What of an album's segments is computed before training: text embeddings, spectrograms, tokens.

An npz belongs to an album, a kind, and the version of how it is computed; a segment's row in it
never changes while what it is computed from is the same. So a run computes what is missing, and
another version leaves this one's objects as they are. `open_features` reads them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from clipfarm_assets.contracts.song_segments import Segment, SegmentProblem
from clipfarm_assets.encoders.base import MediaError
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.encoders.waveforms.prepare import WaveformSettings, prepare
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.songs.feature_files import (
    Finished,
    NoFeatures,
    SongFeatures,
    TooManyFeatures,
    keep_finished,
    looked_at,
    made_of_audio,
    made_of_text,
    media_version,
)
from clipfarm_assets.pipelines.songs.feature_makers import (
    WrongWidth,
    feature_version,
    kinds_of,
    open_maker,
)
from clipfarm_assets.pipelines.songs.feature_rows import FeatureRows, KindReport, Looked, collect
from clipfarm_assets.pipelines.songs.media import SegmentMedia, open_media
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.pipelines.songs.stored_features import (
    open_features,
    read_features,
    without_vector,
)
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import FeatureKind, SongLayout
from clipfarm_assets.training.song_config import SongConfig

__all__ = [
    "AUDIO_CORRUPT",
    "FeaturesReport",
    "KindReport",
    "NoFeatures",
    "SongFeatures",
    "TooManyFeatures",
    "WrongWidth",
    "compute_features",
    "feature_version",
    "kinds_of",
    "open_features",
    "read_features",
]

AUDIO_CORRUPT: Final = "audio_corrupt"
AUDIO_CUT: Final = "audio_cut"

_WORKERS: Final = 2
_AHEAD: Final = 4


@dataclass(frozen=True)
class FeaturesReport:
    """What became of an album's features.

    Attributes:
        album: Which.
        segments: How many it has.
        in_metadata: Segments whose text embedding the metadata has, so that none is computed.
        kinds: Kind -> report; a kind that no segment needs is not there.
        problems: With audio that should be there, by kind; of audio that was looked at now.
    """

    album: str
    segments: int
    in_metadata: int
    kinds: Mapping[FeatureKind, KindReport]
    problems: ProblemCounts

    @property
    def version(self) -> str:
        """Equal for equal objects."""
        told = "\n".join(f"{each.key} {each.sha256}" for _, each in sorted(self.kinds.items()))
        return hashlib.sha256(told.encode()).hexdigest()


def compute_features(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    album: str,
    kinds: Sequence[FeatureKind] | None = None,
    say: Say = silent,
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> FeaturesReport:
    """Compute what is missing of an album's features.

    Where the media file was written again all audio is read again, and what changed is computed
    again; files that paths name are taken not to change in place. In memory there are the album's
    features of the kinds asked for, and a few segments' audio.

    Args:
        store: Where segments are and features go to.
        layout: Where there.
        config: Says how they are computed.
        album: Which.
        kinds: Of features; by default those that a network of `config` reads.
        say: Told how far it is.
        cache_dir: Folder for stand-ins of models; needed if the profile is ``demo``.
        profile: Whose models are taken; by default the environment's.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments` and `open_media`.
        RowsOutOfStep: The media has other rows than the metadata.
        ModelUnavailable: A model cannot be found, downloaded or loaded.
        WrongWidth: Its vectors are of another width than the settings say.
        TooManyFeatures: They are more than an object may hold.
        ValueError: No segment is of the album, or the settings have no such kind.
    """
    wanted = kinds_of(config) if kinds is None else tuple(dict.fromkeys(kinds))
    segments = read_segments(store, layout, config.data.columns).of_album(album)

    def opened(kind: FeatureKind) -> FeatureRows:
        maker = open_maker(kind, config, cache_dir=cache_dir, profile=profile)
        return FeatureRows.open(store, layout, maker, album, say)

    reports: list[KindReport] = []
    in_metadata = 0
    if "text" in wanted:
        worded = [each for each in segments if each.has_text]
        lacking = without_vector(store, layout, config.data.columns, worded)
        in_metadata = len(worded) - len(lacking)
        if lacking:
            progress = Progress(f"text features of {album}", len(lacking), say)
            reports += _read(store, opened("text"), lacking, progress)
    of_audio = [kind for kind in wanted if kind != "text"]
    sounding = [each for each in segments if each.has_audio]
    problems = ProblemCounts()
    if of_audio and sounding:
        some = [opened(kind) for kind in of_audio]
        what = f"{' and '.join(of_audio)} features of {album}"
        heard, problems = _listen(store, layout, config, some, sounding, what, say)
        reports += heard
    by_kind = {report.kind: report for report in reports}
    return FeaturesReport(album, len(segments), in_metadata, by_kind, problems)


def _read(
    store: ObjectStore, text: FeatureRows, segments: Sequence[Segment], progress: Progress
) -> list[KindReport]:
    """Features of words, which are in memory already."""
    looked = (Looked(each.id, made_of_text(each.lyric_text), each.lyric_text) for each in segments)
    reports, _ = collect([text], [each.id for each in segments], (), looked, progress)
    _finish(store, reports, segments, None)
    return reports


def _listen(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    kinds: Sequence[FeatureRows],
    segments: Sequence[Segment],
    what: str,
    say: Say,
) -> tuple[list[KindReport], ProblemCounts]:
    """Features of audio, each of which is read once for all kinds.

    None is read of which an earlier run read the same media file.
    """
    media = open_media(
        store,
        layout,
        config.data.columns,
        modalities=("audio",),
        folders=config.data.media_folders,
    )
    version = media_version(media.rows)
    settled: set[str] = set()
    if all(each.is_finished(version) for each in kinds):
        everywhere = (each.known.places.keys() for each in kinds)
        settled = {each.id for each in segments}.intersection(*everywhere)
    unseen = [each for each in segments if each.id not in settled]
    prepared = partial(
        _prepared,
        known=[each.known for each in kinds],
        settings=config.preprocessing.audio.waveform_settings,
    )
    progress = Progress(what, len(unseen), say)
    with closing(
        ordered_map(prepared, media.each(unseen), workers=_WORKERS, ahead=_AHEAD)
    ) as looked:
        order = [each.id for each in segments]
        reports, corrupt = collect(kinds, order, settled, looked, progress)
    _finish(store, reports, segments, version)
    absent, found = media.counts.counted(), ProblemCounts.of(corrupt)
    return reports, ProblemCounts(
        dict(sorted({**absent.counts, **found.counts}.items())),
        dict(sorted({**absent.samples, **found.samples}.items())),
    )


def _finish(
    store: ObjectStore,
    reports: Sequence[KindReport],
    segments: Sequence[Segment],
    media: str | None,
) -> None:
    """Say that all there is of the segments was looked at: whoever sees that finds features."""
    for each in reports:
        told = Finished(each.sha256, looked_at(each.kind, segments), media)
        keep_finished(store, each.key, told)


def _prepared(
    item: SegmentMedia, *, known: Sequence[SongFeatures], settings: WaveformSettings
) -> Looked:
    """A segment's waveform, unless all that follows from it is known."""
    name = item.segment.id
    if item.audio is None:
        return Looked(name, None, None)
    made_of = made_of_audio(item.audio.data, item.audio.rate)
    if all(each.get(name, made_of) is not None for each in known):
        return Looked(name, made_of, None)
    try:
        waveform = prepare(item.audio.data, item.audio.rate, settings)
    except MediaError as error:
        return Looked(name, None, None, SegmentProblem(AUDIO_CORRUPT, f"id {name}", str(error)))
    cut = waveform.told_cut(settings)
    problem = SegmentProblem(AUDIO_CUT, f"id {name}", cut) if cut else None
    return Looked(name, made_of, waveform.samples, problem)
