"""Every key of the song pipeline, in one place.

Keys are relative to the store's root and begin with the prefix, ``songs/`` by default. What a
person puts there lies in ``songs/raw/``; everything else is made.
"""

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, get_args

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality, check_name
from clipfarm_assets.storage.keys import check_key, check_prefix

FusionStrategy = Literal["late", "early", "cross_attention", "gated"]
FUSION_STRATEGIES: Final[tuple[FusionStrategy, ...]] = get_args(FusionStrategy)
"""Those of `fusion.options`, a floor above."""

FeatureKind = Literal["text", "spectrogram", "audio"]
FEATURE_KINDS: Final[tuple[FeatureKind, ...]] = get_args(FeatureKind)

_VERSION: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FOREIGN: Final = re.compile(r"[^a-z0-9]+")
_SLUG_LETTERS: Final = 40
_HASH_DIGITS: Final = 10


@lru_cache(maxsize=1024)
def album_slug(album: str) -> str:
    """The name of an album in keys, e.g. ``blue-3b8e1a04d2``.

    An album's name is free text. What of it are Latin letters and digits is kept for people to
    read, and the first digits of its sha256 keep different albums apart, also those that a file
    system without upper case would take for one.

    Raises:
        ValueError: It is no name; see `check_name`.
    """
    check_name(album, "album")
    plain = unicodedata.normalize("NFKD", album).casefold().encode("ascii", "ignore").decode()
    words = _FOREIGN.sub("-", plain).strip("-")[:_SLUG_LETTERS].rstrip("-")
    digest = hashlib.sha256(album.encode()).hexdigest()[:_HASH_DIGITS]
    return f"{words}-{digest}" if words else digest


@dataclass(frozen=True, slots=True)
class SongLayout:
    """Builds keys from validated parts.

    Attributes:
        prefix: First segments of every key.
        metadata_key: Segments without binary columns, as parquet; relative to the prefix, or whole
            if it begins with it. So are those that follow.
        media_key: The same segments with their audio and MIDI, as parquet.
        files_prefix: The folder that the paths of audio and MIDI files are relative to.
    """

    prefix: str = "songs"
    metadata_key: str = "raw/training_segments_metadata.parquet"
    media_key: str = "raw/training_segments_media.parquet"
    files_prefix: str = "raw/files/"

    def __post_init__(self) -> None:
        """Check all fields; raises `OutsideStore`, a `ValueError`."""
        for key in (self.prefix, self.metadata_key, self.media_key):
            check_key(key)
        check_prefix(self.files_prefix)

    def metadata(self) -> str:
        """``songs/raw/training_segments_metadata.parquet``."""
        return self._whole(self.metadata_key)

    def media(self) -> str:
        """``songs/raw/training_segments_media.parquet``."""
        return self._whole(self.media_key)

    def files(self) -> str:
        """``songs/raw/files/``, with the trailing slash."""
        folder = check_prefix(self.files_prefix)
        return f"{self._whole(folder)}/" if folder else f"{self.prefix}/"

    def file(self, path: str) -> str:
        """``songs/raw/files/<path>``; raises `OutsideStore` if that would lie elsewhere."""
        return check_key(f"{self.files()}{path}")

    def splits(self) -> str:
        """``songs/splits.json``."""
        return f"{self.prefix}/splits.json"

    def alignment_prefix(self) -> str:
        """``songs/alignment/``, with the trailing slash."""
        return f"{self.prefix}/alignment/"

    def alignment(self, album: str) -> str:
        """``songs/alignment/album=<slug>.parquet``."""
        return f"{self.alignment_prefix()}album={album_slug(album)}.parquet"

    def features_root(self, kind: FeatureKind) -> str:
        """``songs/features/<kind>/``, with the trailing slash."""
        _check_one_of(kind, FEATURE_KINDS, "kind of features")
        return f"{self.prefix}/features/{kind}/"

    def features_prefix(self, kind: FeatureKind, version: str) -> str:
        """``songs/features/<kind>/<version>/``, with the trailing slash."""
        if not _VERSION.fullmatch(version):
            msg = f"bad version {version!r:.100}: expected 1 to 64 characters of A-Z a-z 0-9 _ -"
            raise ValueError(msg)
        _check_one_of(kind, FEATURE_KINDS, "kind of features")
        return f"{self.prefix}/features/{kind}/{version}/"

    def features(self, kind: FeatureKind, version: str, album: str) -> str:
        """``songs/features/<kind>/<version>/album=<slug>.npz``."""
        return f"{self.features_prefix(kind, version)}album={album_slug(album)}.npz"

    def fusion_model(self, strategy: FusionStrategy) -> str:
        """``songs/models/fusion/strategy=<s>/``, with the trailing slash."""
        _check_one_of(strategy, FUSION_STRATEGIES, "fusion strategy")
        return f"{self.prefix}/models/fusion/strategy={strategy}/"

    def single_model(self, modality: Modality) -> str:
        """``songs/models/single/modality=<m>/``, with the trailing slash."""
        _check_one_of(modality, MODALITIES, "modality")
        return f"{self.prefix}/models/single/modality={modality}/"

    def comparison(self) -> str:
        """``songs/comparison/``, with the trailing slash."""
        return f"{self.prefix}/comparison/"

    def report(self, name: str) -> str:
        """``songs/reports/<name>``: plots for people to open."""
        return check_key(f"{self.prefix}/reports/{name}")

    def _whole(self, key: str) -> str:
        return key if key.startswith(f"{self.prefix}/") else f"{self.prefix}/{key}"


def _check_one_of(value: str, expected: tuple[str, ...], what: str) -> None:
    if value not in expected:
        msg = f"unknown {what} {value!r:.100}: expected one of {', '.join(expected)}"
        raise ValueError(msg)
