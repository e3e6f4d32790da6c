"""The vectors that training reads: fused rows out of shards, and one vector a modality.

A fused row of ``concat`` is its modality vectors side by side, so they are slices of it. For the
other strategies they are slices of the clip's ``concat`` row where that is made of the same source
by the same encoders, and else the npy objects that the manifest names: the values are the same,
because fusion copies them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import checks
from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.horizon_csv import parse_captured_at
from clipfarm_assets.contracts.schema_lock import (
    UNVERSIONED,
    BadLock,
    Difference,
    LockMismatch,
    SchemaLock,
    mismatch,
    resolve,
)
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.manifest import DanglingPointer, StoredManifest, load_stored_manifest
from clipfarm_assets.pipelines.object_vectors import read_objects
from clipfarm_assets.pipelines.progress import Progress, Say
from clipfarm_assets.storage.npz import BadShard

Floats = NDArray[np.float32]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class FusedRows:
    """What shards hold of N clips.

    Attributes:
        vectors: float32 ``(N, fused_dim)``, finite.
        declared: bool ``(N,)``: whether the row's shard tells its embedding versions, which are
            then the lock's.
    """

    vectors: Floats
    declared: Flags

    def take(self, rows: NDArray[np.intp]) -> "FusedRows":
        """The clips at these positions, in this order."""
        return FusedRows(self.vectors[rows], self.declared[rows])


@dataclass(frozen=True)
class ClipVectors:
    """N clips' vectors of each modality.

    Attributes:
        by_modality: float32 ``(N, dim)`` each; text is zero where `text_present` is not set.
        text_present: bool ``(N,)``: not set any more where the text vector can't be had.
        usable: bool ``(N,)``: whether video and audio vectors could be had.
    """

    by_modality: Mapping[Modality, Floats]
    text_present: Flags
    usable: Flags

    def take(self, rows: NDArray[np.intp]) -> "ClipVectors":
        """The clips at these positions, in this order."""
        return ClipVectors(
            {modality: block[rows] for modality, block in self.by_modality.items()},
            self.text_present[rows],
            self.usable[rows],
        )


def latest_fused(stored: StoredManifest, counts: Counter[str]) -> pl.DataFrame:
    """The latest fused row of every clip, sorted by video_id.

    Latest by capture time, then full text before a placeholder, then by key, as the manifest
    itself is merged; only that here a clip has one row, whatever sources it had.
    """
    rows = pl.DataFrame(stored.manifest.rows)
    counts["manifest_rows"] = len(rows)
    own = rows.filter(pl.col("fusion_strategy") == stored.lock.fusion_strategy)
    counts["manifest_rows_of_other_strategies"] = len(rows) - len(own)
    moments = pl.Series("captured_moment", _moments(own["captured_at"]), dtype=pl.Datetime("us"))
    latest = (
        own.with_columns(moments)
        .sort(
            "video_id",
            "captured_moment",
            "text_present",
            "fused_key",
            "source_hash",
            nulls_last=False,
            maintain_order=True,
        )
        .unique(subset="video_id", keep="last", maintain_order=True)
    )
    counts["superseded_fused_rows"] = len(own) - len(latest)
    return latest


def read_fused(
    deployment: Deployment, lock: SchemaLock, rows: pl.DataFrame, progress: Progress
) -> FusedRows:
    """The fused vectors that manifest rows point at; every shard is read once, and verified.

    Memory beside the result is a few shards.

    Args:
        deployment: Whose store.
        lock: The lock in force.
        rows: N manifest rows.
        progress: Stepped once a shard.

    Raises:
        DanglingPointer: A shard is gone or can't be read, or holds another clip there.
        LockMismatch: A shard is of another lock, or contradicts it.
        BadShard: A vector isn't finite, or its mask contradicts the manifest.
    """
    adopted = deployment.models_lock().adopted()
    vectors = np.empty((len(rows), lock.fused_dim), dtype=np.float32)
    declared = np.zeros(len(rows), dtype=np.bool_)
    groups = {
        str(key): group
        for (key,), group in rows.with_row_index("position").group_by(
            ["fused_key"], maintain_order=True
        )
    }

    def load(key: str) -> FusedShard | str:
        try:
            return FusedShard.from_npz(deployment.store.get(key), key)
        except FileNotFoundError:
            return f"{key} does not exist"
        except BadShard as error:
            return str(error)

    keys = sorted(groups)
    with closing(ordered_map(load, keys, workers=2, ahead=2)) as shards:
        for key, shard in zip(keys, shards, strict=True):
            group = groups[key]
            found = _verified(key, shard, group, lock, adopted)
            positions = group["position"].to_numpy()
            picked = found.vectors[group["shard_idx"].to_numpy()]
            _check_values(key, picked, group, lock)
            vectors[positions] = picked
            declared[positions] = found.declared is not None
            progress.step()
    return FusedRows(vectors, declared)


def read_modalities(
    deployment: Deployment,
    stored: StoredManifest,
    rows: pl.DataFrame,
    fused: FusedRows,
    counts: Counter[str],
    say: Say,
) -> ClipVectors:
    """One vector a modality of N clips.

    Args:
        deployment: Whose store and ledger.
        stored: The strategy's manifest and lock.
        rows: N manifest rows, each clip once.
        fused: What `read_fused` gave for them.
        counts: Told where vectors came from and which could not be had.
        say: Told how far it is.

    Raises:
        LockMismatch: A vector is of another encoder or length than the lock says.
        DanglingPointer, BadShard: As `read_fused`, of the concat shards.
    """
    lock = stored.lock
    present = rows["text_present"].to_numpy() == 1
    if lock.fusion_strategy == "concat":
        by_modality = _slices(fused.vectors, lock)
        _check_placeholders(rows, by_modality["text"], present)
        counts["vectors_from_concat"] = len(rows)
        return ClipVectors(by_modality, present, np.ones(len(rows), dtype=np.bool_))
    dims = [lock.dim(modality) for modality in MODALITIES]
    block = np.zeros((len(rows), sum(dims)), dtype=np.float32)
    by_modality = _slices(block, lock)
    from_concat = np.zeros(len(rows), dtype=np.bool_)
    for positions, vectors in _concat_rows(deployment, lock, rows, fused, say):
        block[positions] = vectors[:, : sum(dims)]
        from_concat[positions] = True
    _check_placeholders(rows, by_modality["text"], present)
    counts["vectors_from_concat"] = int(from_concat.sum())
    rest = np.flatnonzero(~from_concat)
    counts["vectors_from_objects"] = len(rest)
    usable = np.ones(len(rows), dtype=np.bool_)
    if len(rest):
        outcome = read_objects(deployment, lock, rows[rest], counts, say)
        for modality in MODALITIES:
            by_modality[modality][rest] = outcome.by_modality[modality]
        present[rest], usable[rest] = outcome.text_present, outcome.usable
    return ClipVectors(by_modality, present, usable)


def _moments(texts: pl.Series) -> list[object]:
    parsed = [parse_captured_at(text or "") for text in texts]
    return [moment.replace(tzinfo=None) if moment else None for moment in parsed]


def _slices(vectors: Floats, lock: SchemaLock) -> dict[Modality, Floats]:
    """The modalities' columns of concatenated vectors: views, not copies."""
    slices: dict[Modality, Floats] = {}
    start = 0
    for modality in MODALITIES:
        slices[modality] = vectors[:, start : start + lock.dim(modality)]
        start += lock.dim(modality)
    return slices


def _concat_rows(
    deployment: Deployment, lock: SchemaLock, rows: pl.DataFrame, fused: FusedRows, say: Say
) -> Iterator[tuple[NDArray[np.intp], Floats]]:
    """Positions in `rows`, and the concat vectors that hold the same modality vectors."""
    try:
        concat = load_stored_manifest(deployment, "concat")
    except (FileNotFoundError, BadManifest, BadLock, LockMismatch) as error:
        say(f"modality vectors of {lock.fusion_strategy} come from npy objects: {error}")
        return
    difference = _modality_difference(lock, concat.lock, deployment.models_lock().adopted())
    if difference:
        say(
            f"modality vectors of {lock.fusion_strategy} come from npy objects: {difference} "
            f"differs from or is not recorded in the lock of concat"
        )
        return
    own = rows.with_row_index("wanted_by").filter(pl.Series(fused.declared))
    shared = ["video_id", "source_hash", "text_present"]
    pairs = pl.DataFrame(concat.manifest.rows).join(
        own.select("wanted_by", *shared), on=shared, how="inner", maintain_order="right"
    )
    if not len(pairs):
        return
    progress = Progress("read concat shards", pairs["fused_key"].n_unique(), say)
    found = read_fused(deployment, concat.lock, pairs, progress)
    positions = pairs["wanted_by"].to_numpy().astype(np.intp)
    yield positions[found.declared], found.vectors[found.declared]


def _modality_difference(
    lock: SchemaLock, other: SchemaLock, adopted: Mapping[Modality, str]
) -> str | None:
    """The first thing that keeps two strategies' modality vectors from being known as equal."""
    for modality in MODALITIES:
        version, theirs = (
            resolve(one.embedding_versions[modality], modality, adopted) for one in (lock, other)
        )
        if version != theirs or version == UNVERSIONED:
            return f"the {modality} version"
        if lock.dim(modality) != other.dim(modality):
            return f"the {modality} dimension"
    return None


def _verified(
    key: str,
    shard: FusedShard | str,
    rows: pl.DataFrame,
    lock: SchemaLock,
    adopted: Mapping[Modality, str],
) -> FusedShard:
    if not isinstance(shard, str):
        if shard.lock_version() != lock.lock_version:
            raise mismatch(
                lock, Difference(f"lock_version of {key}", lock.id, shard.lock_version())
            )
        shard.verify(lock, adopted)
    verdict = checks.pointers_resolve(rows, [(key, shard)])
    if isinstance(shard, str) or not verdict.holds:
        msg = (
            f"the manifest of {lock.fusion_strategy!r} must lead to every clip's own vector: "
            f"{verdict.summary()}; restore the shard, or materialise clips/fused_shards with "
            "verify_objects: true"
        )
        raise DanglingPointer(msg)
    return shard


def _check_values(key: str, vectors: Floats, rows: pl.DataFrame, lock: SchemaLock) -> None:
    bad = ~np.isfinite(vectors).all(axis=1)
    if lock.mask_appended:
        bad |= vectors[:, -1] != rows["text_present"].to_numpy()
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        msg = (
            f"{key}: fused vectors must be finite and end in the mask that the manifest says "
            f"(text_present): {int(bad.sum())} of {len(vectors)} are not, the first that of "
            f"{rows['video_id'][at]!r}; restore the shard or the manifest from a backup"
        )
        raise BadShard(msg)


def _check_placeholders(rows: pl.DataFrame, text: Floats, present: Flags) -> None:
    bad = np.flatnonzero(~present & text.any(axis=1))
    if len(bad):
        msg = (
            f"{rows['fused_key'][int(bad[0])]}: a clip without text must have a zero text vector: "
            f"{len(bad)} have not, the first {rows['video_id'][int(bad[0])]!r}; restore the shard "
            "from a backup, or fuse the clips again"
        )
        raise BadShard(msg)
