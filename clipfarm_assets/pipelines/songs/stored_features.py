"""What was computed of segments before training, for whoever reads it."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Final

from clipfarm_assets.contracts.song_segments import Segment, SegmentColumns
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.pipelines.songs.album_features import AlbumFeatures
from clipfarm_assets.pipelines.songs.feature_files import (
    NoFeatures,
    SongFeatures,
    finished,
    looked_at,
    made_of_text,
    media_version,
    read_album,
)
from clipfarm_assets.pipelines.songs.feature_makers import feature_version, kinds_of
from clipfarm_assets.pipelines.songs.row_cursor import RowCursor
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import FeatureKind, SongLayout
from clipfarm_assets.training.song_config import SongConfig

_SHOWN: Final = 5


def open_features(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> dict[FeatureKind, AlbumFeatures]:
    """The kinds that a network of `config` reads, as far as any were computed.

    A segment's are None where none were computed, or of other words than it has by now. Those of an
    album that are not all there, or of another media file than there is, are refused when a
    segment of it is asked for, by `NoFeatures`.

    Args:
        store: Where they are.
        layout: Where there.
        config: Says how they must have been computed.
        cache_dir: Folder for stand-ins of models; needed if the profile is ``demo``.
        profile: Whose models are taken; by default the environment's.

    Raises:
        FileNotFoundError: There are features of audio, and no media file.
        ModelUnavailable: The model that they are computed by cannot be found or downloaded.
    """
    found: dict[FeatureKind, AlbumFeatures] = {}
    for kind in kinds_of(config):
        if not _has_any(store, layout.features_root(kind)):
            continue
        version = feature_version(kind, config, cache_dir=cache_dir, profile=profile)
        if _has_any(store, layout.features_prefix(kind, version)):
            made_of = _made_of_words if kind == "text" else _made_of_whatever
            found[kind] = AlbumFeatures(_reader(store, layout, kind, version), made_of=made_of)
    return found


def check_features(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    segments: Sequence[Segment],
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> None:
    """Refuse to take a modality for absent whose features were not computed to their end.

    Nothing of the features is read, but what finished runs told of them. Spectrograms need not be
    there: a missing one is made of the sound.

    Args:
        store: Where they are.
        layout: Where there.
        config: Says which are read, and how they must have been computed.
        segments: All of the metadata.
        cache_dir: Folder for stand-ins of models; needed if the profile is ``demo``.
        profile: Whose models are taken; by default the environment's.

    Raises:
        NoFeatures: An album has none, or they are unfinished, or of other segments, words or media
            than there are.
        BadTable, RowsOutOfStep: The metadata can't be read, or was written again.
        FileNotFoundError, ModelUnavailable: See `open_features`.
    """
    for kind in kinds_of(config):
        needing: list[Segment] = []
        if kind == "text":
            needing = without_vector(store, layout, config.data.columns, segments)
        elif kind == "audio":
            needing = [each for each in segments if each.has_audio]
        if not needing:
            continue
        by_album = attrgetter("album")
        albums = {
            name: list(some) for name, some in groupby(sorted(needing, key=by_album), by_album)
        }
        lacking = list(albums)
        if _has_any(store, layout.features_root(kind)):
            version = feature_version(kind, config, cache_dir=cache_dir, profile=profile)
            media = _media(store, layout, kind)
            keys = {name: layout.features(kind, version, name) for name in albums}
            lacking = [
                name
                for name, some in albums.items()
                if not _is_finished(store, keys[name], looked_at(kind, some), media)
            ]
        if lacking:
            first = ", ".join(map(repr, lacking[:_SHOWN]))
            msg = (
                f"{kind} features must be there of {len(needing)} segments: found none, unfinished "
                f"ones, or ones of other segments, words or media in {len(lacking)} of "
                f"{len(albums)} albums, such as {first}; materialise songs/features of them"
            )
            raise NoFeatures(msg)


def without_vector(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns, segments: Sequence[Segment]
) -> list[Segment]:
    """Segments with words that the metadata has no vector of; some of its rows are in memory.

    Args:
        store: Where the metadata is.
        layout: Where there.
        columns: Which one has the vectors.
        segments: In the order of the rows.

    Raises:
        BadTable, RowsOutOfStep: The metadata can't be read, or was written again.
    """
    worded = [each for each in segments if each.has_text]
    rows = ParquetRows.open(store, layout.metadata())
    name = columns.text_embedding
    if name not in rows.schema.names:
        return worded
    cursor = RowCursor(rows, columns.segment_id, [name])
    return [each for each in worded if not cursor.scalar(each, name).is_valid]


def read_features(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    kind: FeatureKind,
    album: str,
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> SongFeatures:
    """All of an album's features of a kind, as `config` has them computed.

    Raises:
        NoFeatures: See `read_album`.
        BadShard: Their object is damaged.
        ModelUnavailable, ValueError: See `feature_version`.
    """
    version = feature_version(kind, config, cache_dir=cache_dir, profile=profile)
    return read_album(store, layout.features(kind, version, album), _media(store, layout, kind))


def _reader(
    store: ObjectStore, layout: SongLayout, kind: FeatureKind, version: str
) -> Callable[[str], SongFeatures | None]:
    """Reads an album's features; None if there are none."""
    return partial(_album, store, layout, kind, version, _media(store, layout, kind))


def _album(
    store: ObjectStore,
    layout: SongLayout,
    kind: FeatureKind,
    version: str,
    media: str | None,
    album: str,
) -> SongFeatures | None:
    key = layout.features(kind, version, album)
    return read_album(store, key, media) if store.exists(key) else None


def _media(store: ObjectStore, layout: SongLayout, kind: FeatureKind) -> str | None:
    """The version of the media file that features must be of; None for those that need none."""
    return None if kind == "text" else media_version(ParquetRows.open(store, layout.media()))


def _is_finished(store: ObjectStore, key: str, segments: str, media: str | None) -> bool:
    """Whether features are there, and of these segments and this media file as a run told."""
    told = finished(store, key)
    return (
        told is not None and (told.segments, told.media) == (segments, media) and store.exists(key)
    )


def _has_any(store: ObjectStore, prefix: str) -> bool:
    return next(iter(store.list(prefix)), None) is not None


def _made_of_words(segment: Segment) -> str:
    return made_of_text(segment.lyric_text)


def _made_of_whatever(_segment: Segment) -> None:
    return None
