"""What refers to shards, embeddings and datasets, beside the ledger."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from clipfarm_assets.contracts.fused_manifest import BadManifest, checked_rows
from clipfarm_assets.contracts.manifest_file import ManifestFooter, shards_of_file
from clipfarm_assets.contracts.schema_lock import LockMismatch
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.tables import BadTable, parquet_to_chunks
from clipfarm_assets.training.dataset_file import BadDataset
from clipfarm_assets.training.snapshot import CONFIG, BadSnapshot

_EMBEDDING_COLUMNS = ("video_emb_key", "audio_emb_key", "text_emb_key")


@dataclass(frozen=True)
class FusedReferences:
    """What a strategy's manifests refer to: base, deltas and archives.

    Attributes:
        lock_version: In force.
        archived: Lock versions whose manifest is kept as an archive.
        recorded: Shards that base or deltas were made of: somebody has looked at them.
        pointed: Shards that a row of any of them points to.
        embeddings: Keys of embeddings that a row of any of them names.
        superseded: Deltas of which the base has every shard.
    """

    lock_version: int
    archived: frozenset[int]
    recorded: frozenset[str]
    pointed: frozenset[str]
    embeddings: frozenset[str]
    superseded: frozenset[str]


def manifest_rows(data: bytes, key: str) -> Iterator[pa.Table]:
    """A manifest's rows, piece by piece.

    Raises:
        BadManifest: It is none; names `key`. Possibly after some pieces.
    """
    try:
        for chunk in parquet_to_chunks(data):
            yield checked_rows(chunk, key)
    except BadTable as error:
        msg = f"{key}: {error}"
        raise BadManifest(msg) from error


def archives(layout: Layout, strategy: Strategy, keys: Iterable[str]) -> dict[int, str]:
    """The archived manifests among `keys`, by the version of their lock."""
    folder = layout.schema_lock(strategy).rpartition("/")[0]
    pattern = re.compile(re.escape(folder) + r"/fused_manifest\.v([1-9][0-9]{0,8})\.parquet")
    return {int(match[1]): key for key in keys if (match := pattern.fullmatch(key))}


def fused_references(
    deployment: Deployment, strategy: Strategy, keys: Collection[str]
) -> FusedReferences | None:
    """What the strategy's manifests refer to; None if nothing of the strategy is there.

    Args:
        deployment: Whose store.
        strategy: Which.
        keys: All keys of the store below the prefix.

    Raises:
        NoLock: There are objects of the strategy and no lock.
        LockMismatch: The manifest is not of the lock in force: a migration was interrupted.
        BadManifest: A manifest can't be read; names its key.
    """
    layout, store = deployment.layout, deployment.store
    base_key = layout.fused_manifest(strategy)
    folder = base_key.rpartition("/")[0] + "/"
    if not any(key.startswith(folder) for key in keys):
        return None
    lock = load_lock(deployment, strategy)
    deltas = manifest_store.read_deltas(deployment, strategy)  # before the base: they vanish there
    archived = archives(layout, strategy, keys)
    files = {key: store.get(key) for key in archived.values()}
    in_base: frozenset[str] = frozenset()
    base_version = 0
    try:
        files[base_key] = store.get(base_key)
    except FileNotFoundError:
        pass  # nothing was merged yet
    else:
        base_version = ManifestFooter.of(files[base_key], base_key).lock_version
        in_base = shards_of_file(files[base_key], base_key)
        if base_version != lock.lock_version:
            msg = (
                f"{base_key} is of lock version {base_version} but version {lock.lock_version} is "
                "in force, so a migration was interrupted: materialise clips/fused_manifest for "
                f"{strategy!r} first"
            )
            raise LockMismatch(msg)
    pointed: set[str] = set()
    embeddings: set[str] = set()
    for key, data in files.items():
        for rows in manifest_rows(data, key):
            _add_references(rows, pointed, embeddings)
    for delta in deltas.values():
        _add_references(delta.rows, pointed, embeddings)
    superseded = {
        key
        for key, delta in deltas.items()
        if delta.shards <= in_base and delta.lock_version <= base_version
    }
    return FusedReferences(
        lock.lock_version,
        frozenset(archived),
        in_base.union(*(delta.shards for delta in deltas.values())),
        frozenset(pointed),
        frozenset(embeddings),
        frozenset(superseded),
    )


def _add_references(rows: pa.Table, pointed: set[str], embeddings: set[str]) -> None:
    pointed.update(rows["fused_key"].unique().to_pylist())
    for name in _EMBEDDING_COLUMNS:
        embeddings.update(key for key in rows[name].unique().to_pylist() if key)


def trained_datasets(deployment: Deployment, keys: Iterable[str]) -> frozenset[str]:
    """The sha256 of every dataset that a snapshot, or an attempt at one, was trained on.

    Raises:
        BadSnapshot: What an attempt was made of can't be read.
    """
    found = set()
    prefixes = tuple(f"{deployment.layout.prefix}/models/{name}/" for name in _ATTEMPTS)
    wanted = (k for k in keys if k.startswith(prefixes) and k.endswith(f"/{CONFIG}"))
    for key, data in deployment.store.get_many(wanted, workers=4):
        if not isinstance(data, bytes):
            continue  # an attempt that has ended meanwhile: its snapshot has the same
        body = _json_object(data)
        if body is None:
            msg = f"{key} must be a JSON object, and is none: restore it from a backup"
            raise BadSnapshot(msg)
        found.add(str(body.get("dataset_sha256", "")))
    return frozenset(found)


_ATTEMPTS = ("snapshots", "staging")


def current_dataset(deployment: Deployment, folder: str) -> str | None:
    """The sha256 of the dataset that is current in a folder of a strategy and horizon.

    Raises:
        BadDataset: The object that names it can't be read.
    """
    key = f"{folder}dataset.json"
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        return None
    body = _json_object(data)
    sha256 = None if body is None else body.get("sha256")
    if not isinstance(sha256, str):
        msg = f"{key} must be a JSON object with a sha256: materialise clips/training_dataset again"
        raise BadDataset(msg)
    return sha256


def _json_object(data: bytes) -> Mapping[str, object] | None:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
