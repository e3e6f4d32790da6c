"""Features of an album's segments as one npz, of one kind and version; and what media they are of.

The npz follows from the segments alone. Beside it lies what the last run that went to its end made
it of: which segments, and which media file. Where one of them is another by now, looking again
costs time, and changes nothing where the sound is the same.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.song_segments import Segment
from clipfarm_assets.storage.npz import MAX_BYTES, BadShard, arrays_to_npz, npz_to_arrays
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.parquet_rows import ParquetRows
from clipfarm_assets.storage.song_layout import FeatureKind

Row: TypeAlias = tuple[str, NDArray[np.float32]]
"""Hash of what a segment's features were computed from, and they."""

_ARRAYS: Final = ("ids", "made_of", "values")
_REMEDY: Final = "materialise songs/features of its album"


class NoFeatures(FileNotFoundError):  # noqa: N818 - a state of the store
    """Features are not there, not all there, or of other media than there are now."""


class TooManyFeatures(ValueError):  # noqa: N818
    """An album's features are more than one object may hold: a structural fault."""


@dataclass(frozen=True)
class SongFeatures:
    """What was computed of N segments.

    Attributes:
        ids: Of the segments, in the order of the metadata, each another one.
        made_of: Hash of what each was computed from.
        values: float32 ``[N, ...]``.
    """

    ids: tuple[str, ...]
    made_of: tuple[str, ...]
    values: NDArray[np.float32]

    def __len__(self) -> int:
        """N."""
        return len(self.ids)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Id -> its row."""
        return {segment_id: row for row, segment_id in enumerate(self.ids)}

    def row(self, segment_id: str) -> Row:
        """What there is of a segment that there is something of."""
        place = self.places[segment_id]
        return self.made_of[place], self.values[place]

    def get(self, segment_id: str, made_of: str | None = None) -> NDArray[np.float32] | None:
        """What was computed of a segment.

        Args:
            segment_id: Which.
            made_of: What it must have been computed from; by default whatever.

        Returns:
            None if there is nothing, or nothing computed from that.
        """
        row = self.places.get(segment_id)
        if row is None or made_of not in (None, self.made_of[row]):
            return None
        values: NDArray[np.float32] = self.values[row]
        return values

    @classmethod
    def of(
        cls, ids: Sequence[str], made_of: Sequence[str], rows: Sequence[NDArray[np.float32]]
    ) -> "SongFeatures":
        """From a list of rows of one shape.

        Raises:
            TooManyFeatures: They would be more than can be read again.
        """
        size = sum(row.nbytes for row in rows)
        if size > MAX_BYTES:
            msg = (
                f"features of one album must be {MAX_BYTES >> 20} MiB at most: found "
                f"{size >> 20} MiB of {len(rows)} segments; make the features smaller, or the album"
            )
            raise TooManyFeatures(msg)
        values = np.stack(rows) if rows else np.empty((0, 0), np.float32)
        return cls(tuple(ids), tuple(made_of), values)

    def to_npz(self) -> bytes:
        """The object; equal features give equal bytes."""
        return arrays_to_npz(
            {
                "ids": np.array(self.ids, dtype=np.str_),
                "made_of": np.array(self.made_of, dtype=np.str_),
                "values": self.values,
            }
        )

    @classmethod
    def from_npz(cls, data: bytes, key: str) -> "SongFeatures":
        """Parse what `to_npz` gave.

        Raises:
            BadShard: It is something else; names the object and says what to do.
        """
        try:
            arrays = npz_to_arrays(data, names=_ARRAYS)
        except BadShard as error:
            msg = f"{key}: {error}; delete it, and {_REMEDY}"
            raise BadShard(msg) from error
        values = arrays["values"]
        lengths = {name: array.shape[:1] for name, array in arrays.items()}
        ids = tuple(map(str, arrays["ids"].ravel()))
        if len(set(lengths.values())) > 1 or values.dtype != np.float32 or len(set(ids)) < len(ids):
            msg = (
                f"{key} must hold a float32 row for each of its ids: found {values.dtype} and "
                f"lengths {lengths}; delete it, and {_REMEDY}"
            )
            raise BadShard(msg)
        return cls(ids, tuple(map(str, arrays["made_of"].ravel())), values)


EMPTY: Final = SongFeatures((), (), np.empty((0, 0), np.float32))


def made_of_text(text: str) -> str:
    """Hash of what a text's features are computed from."""
    return hashlib.sha256(text.encode()).hexdigest()


def made_of_audio(data: bytes, rate: int | None) -> str:
    """Hash of what a sound's features are computed from, beside the settings."""
    digest = hashlib.sha256(f"{rate}\n".encode())
    digest.update(data)
    return digest.hexdigest()


def media_version(rows: ParquetRows) -> str:
    """Another one whenever the media file is written again; of its rows nothing is read."""
    told = f"{rows.head.size} {rows.head.mark} {rows.footer_sha256}"
    return hashlib.sha256(told.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run that went to its end leaves beside an album's features.

    Attributes:
        sha256: Of their object.
        segments: `looked_at` of the segments that there were, whatever came of them.
        media: Version of the media file that was read; None for features of words.
    """

    sha256: str
    segments: str
    media: str | None


def looked_at(kind: FeatureKind, segments: Iterable[Segment]) -> str:
    """Hash of which segments features are of, and of words, where they are of those."""
    told = sorted(
        (each.id, made_of_text(each.lyric_text) if kind == "text" else "") for each in segments
    )
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def finished(store: ObjectStore, key: str) -> Finished | None:
    """What `keep_finished` kept.

    Args:
        store: Where they are.
        key: Of the features.

    Returns:
        None if no run went to its end, or one did that told less.
    """
    try:
        return Finished(**json.loads(store.get(_seen(key))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def keep_finished(store: ObjectStore, key: str, told: Finished) -> None:
    """Keep what `finished` gives; after the features themselves."""
    data = json.dumps(asdict(told)).encode()
    store.update(_seen(key), lambda _: data)


def forget_finished(store: ObjectStore, key: str) -> None:
    """Say that features are not all there; before those that are are written."""
    store.delete(_seen(key))


def read_album(store: ObjectStore, key: str, media: str | None) -> SongFeatures:
    """An album's features.

    Args:
        store: Where they are.
        key: Of the features.
        media: Version of the media file that they must be of; None for those that need none.

    Raises:
        NoFeatures: They are not there, not all there, or were last compared with another media
            file.
        BadShard: The object is no such npz.
    """
    try:
        data = store.get(key)
    except FileNotFoundError as error:
        msg = f"{error}; {_REMEDY}"
        raise NoFeatures(msg) from None
    found = SongFeatures.from_npz(data, key)
    told = finished(store, key)
    if told is None or (told.sha256, told.media) != (hashlib.sha256(data).hexdigest(), media):
        msg = (
            f"{key} must be what a run left that went to its end, and compared with the media file "
            f"that there is: it is not; {_REMEDY} again, which computes what is missing or changed"
        )
        raise NoFeatures(msg)
    return found


def _seen(key: str) -> str:
    return f"{key.removesuffix('.npz')}.seen.json"
