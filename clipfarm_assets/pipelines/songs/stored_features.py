"""What was computed of segments before training, for whoever reads it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.encoders.models import Profile
from clipfarm_assets.pipelines.songs.album_features import AlbumFeatures
from clipfarm_assets.pipelines.songs.feature_files import (
    SongFeatures,
    made_of_text,
    media_version,
    read_album,
)
from clipfarm_assets.pipelines.songs.feature_makers import feature_version, kinds_of
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import FeatureKind, SongLayout
from clipfarm_assets.training.song_config import SongConfig


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
    album whose audio was last compared with another media file than there is are refused when a
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
        NoFeatures: They were not computed yet, or last compared with another media file.
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


def _has_any(store: ObjectStore, prefix: str) -> bool:
    return next(iter(store.list(prefix)), None) is not None


def _made_of_words(segment: Segment) -> str:
    return made_of_text(segment.lyric_text)


def _made_of_whatever(_segment: Segment) -> None:
    return None
