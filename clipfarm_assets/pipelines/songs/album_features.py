"""Features of segments that were computed before, an album's at a time in memory."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.pipelines.songs.feature_files import SongFeatures
from clipfarm_assets.storage.song_layout import FeatureKind

Floats: TypeAlias = NDArray[np.float32]

HELD_BYTES: Final = 128 << 20
"""Most bytes of albums' features that are held, one album at least."""


class SegmentFeatures(Protocol):
    """Features of one kind, of some segments."""

    def get(self, segment: Segment) -> Floats | None:
        """The segment's; None if it has none."""


Features: TypeAlias = Mapping[FeatureKind, SegmentFeatures]


class AlbumFeatures:
    """One kind of features, read album by album as segments are asked for."""

    def __init__(
        self,
        read: Callable[[str], SongFeatures | None],
        held_bytes: int = HELD_BYTES,
        *,
        made_of: Callable[[Segment], str | None] = lambda _: None,
    ) -> None:
        """Take a reader.

        Args:
            read: Gives an album's features; None if it has none.
            held_bytes: Most bytes of albums that are held, one album at least.
            made_of: Hash of what a segment's must have been computed from; None for whatever.
        """
        self._read, self._most, self._made_of = read, held_bytes, made_of
        self._albums: OrderedDict[str, SongFeatures | None] = OrderedDict()
        self._held = 0

    def get(self, segment: Segment) -> Floats | None:
        """The segment's, copied: it holds nothing of its album; raises what the reader does."""
        if segment.album in self._albums:
            self._albums.move_to_end(segment.album)
        else:
            self._hold(segment.album, self._read(segment.album))
        album = self._albums[segment.album]
        found = None if album is None else album.get(segment.id, self._made_of(segment))
        return None if found is None else found.copy()

    def _hold(self, name: str, album: SongFeatures | None) -> None:
        self._albums[name] = album
        self._held += _size(album)
        while self._held > self._most and len(self._albums) > 1:
            _, oldest = self._albums.popitem(last=False)
            self._held -= _size(oldest)


def _size(album: SongFeatures | None) -> int:
    return 0 if album is None else album.values.nbytes
