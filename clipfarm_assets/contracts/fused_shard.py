"""A shard: an immutable block of fused vectors that declares everything the manifest says of them.

Members of the ``.npz`` (the fusion contract, section 8.1): ``video_ids`` str, ``vectors`` float32
``(N, fused_dim)``, ``captured_at`` str. Beside these, so that one atomic write holds a row's vector
and its description and the manifest can be made again from the shards alone, the members of
`Declaration`. Shards of an older deployment lack them: they are valid, and its own manifest
describes them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts import fused_manifest
from clipfarm_assets.contracts.schema_lock import Difference, SchemaLock, mismatch, resolve
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.storage.npz import BadShard, arrays_to_npz, npz_to_arrays

MAX_SHARD_BYTES: Final = 1 << 30

Strings = NDArray[np.str_]


@dataclass(frozen=True)
class Declaration:
    """What a shard says of its rows: arrays ``(N,)``, and of itself: ``lock_version``.

    `embedding_versions` has shape ``(3,)``: video, audio, text.
    """

    source_hash: Strings
    video_emb_key: Strings
    audio_emb_key: Strings
    text_emb_key: Strings
    text_present: NDArray[np.int64]
    text_state_status: Strings
    text_missing_reason: Strings
    fusion_status: Strings
    retry_count_at_write: NDArray[np.int64]
    fusion_strategy: str
    lock_version: int
    embedding_versions: Strings


_ROW_FIELDS: Final = tuple(
    f.name
    for f in fields(Declaration)
    if f.name not in {"fusion_strategy", "lock_version", "embedding_versions"}
)
_NUMBERS: Final = ("text_present", "retry_count_at_write", "lock_version")


@dataclass(frozen=True)
class FusedShard:
    """One shard; `declared` is None for one of an older deployment."""

    video_ids: Strings
    vectors: NDArray[np.float32]
    captured_at: Strings
    declared: Declaration | None

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.video_ids)

    def to_npz(self) -> bytes:
        """The object's bytes: the same rows give the same bytes."""
        members: dict[str, NDArray[np.generic]] = {
            "video_ids": self.video_ids,
            "vectors": self.vectors,
            "captured_at": self.captured_at,
        }
        if self.declared:
            members |= {
                f.name: np.asarray(getattr(self.declared, f.name)) for f in fields(Declaration)
            }
        return arrays_to_npz(members)

    @classmethod
    def from_npz(cls, data: bytes, key: str, *, views: bool = False) -> "FusedShard":
        """Parse and verify one shard.

        Args:
            data: The object.
            key: Names it in errors.
            views: Copy nothing: the arrays are parts of `data`, as `npz_to_arrays` says.

        Raises:
            BadShard: A member is missing, of another type or shape, or the rows don't agree.
        """
        try:
            members = npz_to_arrays(data, max_bytes=MAX_SHARD_BYTES, views=views)
        except BadShard as error:
            msg = f"{key}: {error}"
            raise BadShard(msg) from error
        lacking = {"video_ids", "vectors", "captured_at"} - set(members)
        if lacking:
            msg = f"{key} must hold video_ids, vectors and captured_at: {sorted(lacking)} missing"
            raise BadShard(msg)
        video_ids, vectors, captured = (
            members["video_ids"],
            members["vectors"],
            members["captured_at"],
        )
        if vectors.ndim != 2 or vectors.dtype != np.float32:
            msg = f"{key}: vectors must be float32 (N, dim): found {vectors.dtype} {vectors.shape}"
            raise BadShard(msg)
        declared_names = {f.name for f in fields(Declaration)}
        absent = sorted(declared_names - set(members))
        if absent and declared_names & set(members):
            msg = f"{key} declares only a part of what a shard must: {', '.join(absent)} missing"
            raise BadShard(msg)
        for name in sorted({"video_ids", "captured_at", *declared_names} & set(members)):
            _check_member(key, name, members[name], len(vectors))
        if absent:
            return cls(video_ids, vectors, captured, None)
        present, version = members["text_present"], int(members["lock_version"])
        if not np.isin(present, (0, 1)).all():
            msg = f"{key}: text_present must be 0 or 1: found {np.unique(present)[:5].tolist()}"
            raise BadShard(msg)
        if version < 1:
            msg = f"{key}: lock_version counts from 1: found {version}"
            raise BadShard(msg)
        declared = Declaration(
            **{name: members[name] for name in _ROW_FIELDS},
            fusion_strategy=str(members["fusion_strategy"]),
            lock_version=version,
            embedding_versions=members["embedding_versions"],
        )
        return cls(video_ids, vectors, captured, declared)

    def take(self, rows: Sequence[int]) -> "FusedShard":
        """Some of its rows, in the order asked for."""
        picked = np.asarray(rows, dtype=np.intp)
        declared = self.declared and replace(
            self.declared, **{name: getattr(self.declared, name)[picked] for name in _ROW_FIELDS}
        )
        return FusedShard(
            self.video_ids[picked], self.vectors[picked], self.captured_at[picked], declared
        )

    def declaration(self, key: str) -> Declaration:
        """What the shard stored under `key` declares.

        Raises:
            BadShard: It is one of an older deployment and declares nothing.
        """
        if self.declared is None:
            msg = f"{key} declares no rows: only its deployment's own manifest describes it"
            raise BadShard(msg)
        return self.declared

    def manifest_rows(self, key: str) -> pa.Table:
        """The rows the manifest has of this shard, in shard order.

        Raises:
            BadShard: The shard is one of an older deployment and declares nothing.
        """
        declared, n = self.declaration(key), len(self)
        present = declared.text_present.astype(np.int64)
        return pa.table(
            {
                "video_id": self.video_ids.tolist(),
                "captured_at": self.captured_at.tolist(),
                "source_hash": declared.source_hash.tolist(),
                "fusion_strategy": [declared.fusion_strategy] * n,
                "fused_dim": np.full(n, self.vectors.shape[1], dtype=np.int64),
                "fused_key": [key] * n,
                "shard_idx": np.arange(n, dtype=np.int64),
                "shard_n": np.full(n, n, dtype=np.int64),
                "video_emb_key": declared.video_emb_key.tolist(),
                "audio_emb_key": declared.audio_emb_key.tolist(),
                "text_emb_key": _nullable(declared.text_emb_key),
                "text_present": present,
                "text_source": ["full" if p else "placeholder" for p in present.tolist()],
                "text_state_status": _nullable(declared.text_state_status),
                "text_missing_reason": _nullable(declared.text_missing_reason),
                "fusion_status": declared.fusion_status.tolist(),
                "retry_count_at_write": declared.retry_count_at_write.astype(np.int64),
            },
            schema=fused_manifest.SCHEMA,
        )

    def lock_difference(
        self, lock: SchemaLock, adopted: Mapping[Modality, str] | None = None
    ) -> Difference | None:
        """The first field in which this shard departs from `lock`, or None.

        `adopted` says what unversioned vectors count as; see `schema_lock.differences`.
        """
        if self.vectors.shape[1] != lock.fused_dim:
            return Difference("fused_dim", lock.fused_dim, self.vectors.shape[1])
        if self.declared is None:
            return None
        if self.declared.fusion_strategy != lock.fusion_strategy:
            return Difference(
                "fusion_strategy", lock.fusion_strategy, self.declared.fusion_strategy
            )
        for modality, found in zip(MODALITIES, self.declared.embedding_versions, strict=True):
            locked = lock.embedding_versions[modality]
            if resolve(str(found), modality, adopted or {}) != resolve(
                locked, modality, adopted or {}
            ):
                return Difference(f"embedding_versions.{modality}", locked, str(found))
        return None

    def verify(self, lock: SchemaLock, adopted: Mapping[Modality, str] | None = None) -> None:
        """Raise `LockMismatch` unless the shard is what `lock` says."""
        difference = self.lock_difference(lock, adopted)
        if difference:
            raise mismatch(lock, difference)

    def lock_version(self) -> int:
        """Version of the lock it was made under; an older deployment's is 1."""
        return self.declared.lock_version if self.declared else 1


def _check_member(key: str, name: str, member: NDArray[np.generic], rows: int) -> None:
    shapes = {
        "fusion_strategy": (),
        "lock_version": (),
        "embedding_versions": (len(MODALITIES),),
    }
    shape = shapes.get(name, (rows,))
    if member.shape != shape:
        msg = f"{key}: {name} must have shape {shape}: found {member.shape}"
        raise BadShard(msg)
    kinds, wanted = ("iu", "whole numbers") if name in _NUMBERS else ("U", "text")
    if member.dtype.kind not in kinds:
        msg = f"{key}: {name} must hold {wanted}: found {member.dtype}"
        raise BadShard(msg)


def _nullable(column: Strings) -> list[str | None]:
    return [value or None for value in column.tolist()]


def strings(values: Sequence[str]) -> Strings:
    """A unicode array; numpy would give an empty list another type."""
    return np.asarray(values, dtype=np.str_)
