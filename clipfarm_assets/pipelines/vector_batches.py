"""Reading the stored vectors of many clips: as the store gives them, checked a batch at a time.

Which vector is usable is said by `vectors.parse`, a clip at a time. Here clips whose three objects
are just what this house writes, which is nearly all, are recognised a batch at a time; every other
clip is given to `parse`, so that its verdicts and sentences are the only ones.
"""

import hashlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import tee

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.contracts.checks import UNIT_NORM_TOLERANCE
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.pipelines.fusion_delta import Candidate
from clipfarm_assets.pipelines.vectors import NO_EMBEDDING, ClipVectors, parse
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets.storage.objects import ObjectStore

Objects = Mapping[Modality, bytes]
"""What was fetched of a clip: those of its objects that exist and may be used."""

# A sum of squares depends on the order of its terms by less than this. A norm as near to the limit
# as that is not judged here.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class VectorBatch:
    """The vectors of consecutive clips.

    Attributes:
        clips: Whose, in order.
        blocks: float32 ``(len(clips), locked length)`` by modality; zero where there is no usable
            vector. Not to be written to.
        parsed: Clip number -> what `parse` gave, for those that were not recognised. All three
            vectors of the others are usable.
    """

    clips: Sequence[Candidate]
    blocks: dict[Modality, NDArray[np.float32]]
    parsed: dict[int, ClipVectors]


def read_batches(
    store: ObjectStore, batches: Iterable[Sequence[Candidate]], lock: SchemaLock
) -> Generator[VectorBatch, None, None]:
    """Read and check the batches in order, one stream of requests for them all.

    In the thread of whoever fuses them: each file read and each hash gives the interpreter to other
    threads, and having it back takes many times what a small vector does. Where requests have to be
    waited for, the store goes on with the next ones meanwhile: batches are asked for ahead of those
    that are given out.

    Wrap it in ``contextlib.closing`` where the consumer may raise: the store's threads live until
    it is closed.

    Raises:
        LockMismatch: A vector is of another length than the locked one.
    """
    ahead, now = tee(batches)
    with closing(store.get_many(_keys(ahead))) as fetched:
        for batch in now:
            yield check_batch(batch, [_objects(clip, fetched) for clip in batch], lock)


def _keys(batches: Iterable[Sequence[Candidate]]) -> Generator[str, None, None]:
    for batch in batches:
        for clip in batch:
            for vector in clip.availability.values():
                if not vector.problem:
                    yield vector.key


def _objects(
    clip: Candidate, fetched: Generator[tuple[str, bytes | FileNotFoundError], None, None]
) -> Objects:
    """The clip's objects, the next ones of the stream that `_keys` asked for."""
    objects: dict[Modality, bytes] = {}
    for modality, vector in clip.availability.items():
        if not vector.problem:
            _, data = next(fetched)
            if isinstance(data, bytes):
                objects[modality] = data
    return objects


def check_batch(
    clips: Sequence[Candidate], objects: Sequence[Objects], lock: SchemaLock
) -> VectorBatch:
    """The vectors of `clips`, of what was fetched for each.

    Raises:
        LockMismatch: As `parse`, for the first such clip.
    """
    blocks: dict[Modality, NDArray[np.float32]] = {}
    doubtful: set[int] = set()
    parsed: dict[int, ClipVectors] = {}
    for modality in MODALITIES:
        there = [n for n, found in enumerate(objects) if modality in found]
        data = [objects[n][modality] for n in there]
        values, plain = _plain_values(data, lock.dim(modality))
        hashes = [clips[n].availability[modality].content_sha256 for n in there]
        sound = plain & _of_unit_norm(values) & _recorded(data, hashes)
        doubtful.update(there[i] for i in np.flatnonzero(~sound))
        if len(there) == len(clips):
            blocks[modality] = values  # as they came: nothing is copied
        else:
            block = blocks[modality] = np.zeros((len(clips), lock.dim(modality)), dtype=np.float32)
            block[there] = values
    if doubtful:
        blocks = {modality: np.array(block) for modality, block in blocks.items()}
    for n, (clip, found) in enumerate(zip(clips, objects, strict=True)):
        if n in doubtful:
            by_key = {clip.availability[m].key: data for m, data in found.items()}
            parsed[n] = parse(clip.availability, by_key, lock)
            for modality, block in blocks.items():
                block[n] = parsed[n].usable.get(modality, 0.0)
        elif len(found) < len(MODALITIES):
            absent = {
                m: v.problem or NO_EMBEDDING for m, v in clip.availability.items() if m not in found
            }
            parsed[n] = ClipVectors(missing=absent)
    return VectorBatch(clips, blocks, parsed)


def _plain_values(data: Sequence[bytes], dim: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Values ``(len(data), dim)`` of npy objects, and which of them are as `vector_to_npy` writes.

    The rows of the others mean nothing.
    """
    header = _header(dim)
    size = len(header) + 4 * dim
    blank = bytes(size)
    joined = b"".join([one if len(one) == size else blank for one in data])
    table = np.frombuffer(joined, dtype=np.uint8).reshape(len(data), size)
    plain = (table[:, : len(header)] == np.frombuffer(header, dtype=np.uint8)).all(axis=1)
    values = np.frombuffer(joined, dtype="<f4").reshape(len(data), size // 4)
    return values[:, len(header) // 4 :], plain


@lru_cache(maxsize=16)
def _header(dim: int) -> bytes:
    """What comes before the values in the npy object of a vector: a multiple of 64 bytes."""
    return vector_to_npy(np.zeros(dim, dtype=np.float32))[: -4 * dim]


def _of_unit_norm(block: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows ``(N, dim)`` are of unit norm and so finite too, beyond the doubt of rounding."""
    with np.errstate(invalid="ignore"):
        squares = np.einsum("ij,ij->i", block, block, dtype=np.float64)
        sure: NDArray[np.bool_] = abs(np.sqrt(squares) - 1.0) < UNIT_NORM_TOLERANCE - _ROUNDING
    return sure


def _recorded(data: Sequence[bytes], hashes: Sequence[str | None]) -> NDArray[np.bool_]:
    """Which objects are what the ledger recorded; those it recorded no sha256 of count."""
    return np.array(
        [
            wanted is None or hashlib.sha256(one).hexdigest() == wanted
            for one, wanted in zip(data, hashes, strict=True)
        ],
        dtype=np.bool_,
    )
