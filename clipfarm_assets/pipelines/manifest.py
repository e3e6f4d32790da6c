"""The two manifests: what every embedding is, and where every fused vector is."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts import checks, statuses
from clipfarm_assets.contracts.clip_tables import EMBEDDING_MANIFEST, OLDER_DEPLOYMENT
from clipfarm_assets.contracts.fused_manifest import FusedManifest
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.horizon_csv import parse_captured_at
from clipfarm_assets.contracts.schema_lock import LockMismatch, SchemaLock, resolve
from clipfarm_assets.contracts.statuses import MODALITIES, Strategy
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.objects import ObjectChanged
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet

POINTERS_READ_BACK = 3


class DanglingPointer(RuntimeError):  # noqa: N818
    """A manifest points at a row that isn't the clip's: stops the run."""


class NoFusedManifest(FileNotFoundError):  # noqa: N818
    """The strategy has no manifest yet."""


@dataclass(frozen=True)
class ManifestUpdate:
    """What an update did.

    Attributes:
        manifest: As it is now.
        new_shards: Keys merged by this run.
        undeclared: Shards that declare nothing and that no manifest describes; they are left alone.
        archived: Shards of earlier locks that were not known as such yet; they are left alone.
        read_back: ``video_id -> fused_key[shard_idx]`` of the pointers that were read back.
        seconds: Wall time.
    """

    manifest: FusedManifest
    new_shards: tuple[str, ...]
    undeclared: tuple[str, ...]
    archived: tuple[str, ...]
    read_back: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class StoredManifest:
    """A manifest, its object's sha256 in hex, and the lock it was verified against."""

    manifest: FusedManifest
    sha256: str
    lock: SchemaLock


def load_manifest(deployment: Deployment, strategy: Strategy) -> FusedManifest:
    """The manifest as stored; raises as `load_stored_manifest`."""
    return load_stored_manifest(deployment, strategy).manifest


def load_stored_manifest(deployment: Deployment, strategy: Strategy) -> StoredManifest:
    """The manifest as stored, with what it was verified against.

    Raises:
        NoFusedManifest: There is none; says how to make one.
        NoLock: There is no lock; likewise.
        BadManifest: The object is none.
        LockMismatch: It is of another lock version: a migration was interrupted.
    """
    lock = load_lock(deployment, strategy)
    key = deployment.layout.fused_manifest(strategy)
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        msg = f"{key} does not exist: materialise clips/fused_manifest for {strategy!r} first"
        raise NoFusedManifest(msg) from None
    manifest = _parsed(data, key)
    if manifest.lock_version != lock.lock_version:
        msg = (
            f"{key} is of lock version {manifest.lock_version} but version {lock.lock_version} is "
            f"in force, so a migration was interrupted: materialise clips/fused_manifest for "
            f"{strategy!r}, which goes on with the new version"
        )
        raise LockMismatch(msg)
    return StoredManifest(manifest, hashlib.sha256(data).hexdigest(), lock)


def update_manifest(
    deployment: Deployment, strategy: Strategy, say: Say = silent
) -> ManifestUpdate:
    """Merge the shards that the manifest doesn't know yet, and read three pointers back.

    The manifest is a function of what the shards declare (and of an older deployment's manifest),
    swapped in whole: readers see the old one or the new one, and two updates at once lose nothing.

    Raises:
        NoLock: The strategy has no schema lock.
        LockMismatch: A shard made under the lock in force contradicts it.
        ObjectChanged: The lock was migrated during the update.
        DanglingPointer: A pointer read back leads to another clip.
    """
    started = time.perf_counter()
    lock = load_lock(deployment, strategy)
    adopted = deployment.models_lock().adopted()
    layout, store = deployment.layout, deployment.store
    key = layout.fused_manifest(strategy)
    on_store = sorted(
        info.key
        for info in store.list(layout.shards_prefix(strategy))
        if layout.shard_ref(info.key)
    )
    declared: dict[str, pa.Table] = {}
    undeclared: list[str] = []
    archived: list[str] = []
    try:
        old = _under(lock, _parsed(store.get(key), key), key)
    except FileNotFoundError:
        old = FusedManifest.empty(lock.lock_version)
    unknown = [shard_key for shard_key in on_store if shard_key not in old.shards]
    progress = Progress(f"manifest {strategy}", len(unknown), say)
    for shard_key in unknown:
        shard = FusedShard.from_npz(store.get(shard_key), shard_key)
        if shard.lock_version() < lock.lock_version:
            archived.append(shard_key)
        elif shard.lock_version() > lock.lock_version:
            continue  # a migration is under way: the next update is for them
        elif shard.declared is None:
            undeclared.append(shard_key)
        else:
            shard.verify(lock, adopted)
            declared[shard_key] = shard.manifest_rows(shard_key)
        progress.step()

    merged = old

    def change(data: bytes | None) -> bytes | None:
        nonlocal merged
        stored = None if data is None else _parsed(data, key)
        current = _under(lock, stored, key)
        new = [shard_key for shard_key in declared if shard_key not in current.shards]
        merged = current.merged([declared[shard_key] for shard_key in new], [*new, *archived])
        if stored and stored.lock_version == lock.lock_version and stored.shards == merged.shards:
            return None
        return table_to_parquet(merged.rows, merged.file_metadata())

    store.update(key, change)
    return ManifestUpdate(
        merged,
        tuple(declared),
        tuple(undeclared),
        tuple(archived),
        tuple(_read_back(deployment, merged, declared)),
        time.perf_counter() - started,
    )


def _parsed(data: bytes, key: str) -> FusedManifest:
    return FusedManifest.from_table(parquet_to_table(data), key)


def _under(lock: SchemaLock, stored: FusedManifest | None, key: str) -> FusedManifest:
    """What there is under the lock: nothing yet where the stored manifest is of an earlier one."""
    if stored is None:
        return FusedManifest.empty(lock.lock_version)
    if stored.lock_version > lock.lock_version:
        msg = f"{key} was migrated to lock version {stored.lock_version} meanwhile: run again"
        raise ObjectChanged(msg)
    if stored.lock_version < lock.lock_version:
        return replace(FusedManifest.empty(lock.lock_version), shards=stored.shards)
    return stored


def _read_back(
    deployment: Deployment, manifest: FusedManifest, new: Mapping[str, pa.Table]
) -> Iterator[str]:
    """Follow the first, the middle and the last pointer of what is new, or else of everything."""
    rows = pl.DataFrame(manifest.rows)
    fresh = rows.filter(pl.col("fused_key").is_in(list(new)))
    rows = fresh if len(fresh) else rows
    if not len(rows):
        return
    picked = rows[sorted({0, len(rows) // 2, len(rows) - 1})[:POINTERS_READ_BACK]]
    shards = shards_of(deployment, picked["fused_key"].unique(maintain_order=True).to_list())
    verdict = checks.pointers_resolve(picked, shards)
    if not verdict.holds:
        msg = (
            f"pointers read back from the manifest lead elsewhere: {verdict.summary()}; restore "
            "the shards, or materialise clips/fused_shards with verify_objects: true"
        )
        raise DanglingPointer(msg)
    for row in picked.iter_rows(named=True):
        yield f"{row['video_id']} -> {row['fused_key']}[{row['shard_idx']}]"


def shards_of(deployment: Deployment, keys: list[str]) -> Iterator[tuple[str, FusedShard | str]]:
    """Every shard once, in order, or the sentence that says why it can't be had."""
    for key, data in deployment.store.get_many(keys, workers=2):
        if not isinstance(data, bytes):
            yield key, f"{key} does not exist"
            continue
        try:
            yield key, FusedShard.from_npz(data, key)
        except BadShard as error:
            yield key, str(error)


def embedding_manifest(deployment: Deployment, index: pa.Table) -> pa.Table:
    """One row a clip of the index and modality, with what the ledger knows of it.

    Returns:
        Table of `clip_tables.EMBEDDING_MANIFEST`, sorted by (video_id, modality). A clip without a
        ledger row in a stage has no row here: the check `index_rows_have_status` names it.
    """
    models = deployment.models_lock()
    adopted = models.adopted()
    ids = index["video_id"].to_pylist()
    captured = dict(zip(ids, index["captured_at"].to_pylist(), strict=True))
    records = []
    versions: dict[str, EmbeddingVersion | None] = {}
    for modality in MODALITIES:
        rows = deployment.ledger.rows(statuses.embedding_stage(modality), ids)
        for video_id, item in rows.items():
            version_id = resolve(item.version, modality, adopted)
            if version_id not in versions:
                versions[version_id] = models.version(version_id)
            records.append(_record(item, modality, captured[video_id], versions[version_id]))
    records.sort(key=lambda record: (record["video_id"], record["modality"]))
    return pa.Table.from_pylist(records, schema=EMBEDDING_MANIFEST)


def _record(
    item: Item, modality: str, captured_at: str, version: EmbeddingVersion | None
) -> dict[str, str | int | datetime | None]:
    stored = item.status == statuses.SUCCESS
    # No model has seen a clip that waits for its raw object.
    seen = stored or item.version is not None
    unknown = OLDER_DEPLOYMENT if seen else None
    if not seen:
        version = None
    return {
        "video_id": item.video_id,
        "source_hash": item.source_hash,
        "captured_at": captured_at,
        "modality": modality,
        "embedding_key": item.artifact_key if stored else None,
        "embedding_dim": version.dim if stored and version else None,
        "model_name": version.model_name if version else unknown,
        "model_version": version.model_revision if version else unknown,
        "preprocess_version": version.preprocess_version if version else unknown,
        "status": item.status,
        "processed_at": parse_captured_at(item.processed_at),
    }
