"""One clip's objects in the store, and where its fused vectors are."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.contracts.checks import vector_problem
from clipfarm_assets.contracts.fused_manifest import BadManifest, checked_rows
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_file import ManifestFooter, unseen
from clipfarm_assets.contracts.manifest_merge import latest
from clipfarm_assets.contracts.statuses import Modality, Strategy
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.npy import BadVector, npy_to_vector
from clipfarm_assets.storage.npz import BadShard
from clipfarm_assets.storage.tables import BadTable, parquet_to_chunks

MANIFEST: Final = "manifest"
LEDGER: Final = "ledger"


@dataclass(frozen=True)
class ObjectFacts:
    """An object of the clip.

    Attributes:
        what: E.g. ``raw video``.
        key: Where it is, or would be.
        size: In bytes; None if it isn't there.
        verdict: What it is found to be.
    """

    what: str
    key: str
    size: int | None
    verdict: str


@dataclass(frozen=True)
class PointerFacts:
    """Where a fused vector of the clip is said to be.

    Attributes:
        strategy: Of which fusion.
        named_by: `MANIFEST` or `LEDGER`.
        key: The shard.
        row: In it; None if nothing tells.
        source_hash: What it was fused from.
        status: How, e.g. ``success_full``.
        verdict: Whether the vector is there.
    """

    strategy: Strategy
    named_by: str
    key: str
    row: int | None
    source_hash: str
    status: str
    verdict: str


def raw_object(deployment: Deployment, modality: Modality, video_id: str) -> ObjectFacts:
    """The clip's raw object of a modality; it isn't read."""
    key = deployment.layout.raw(modality, video_id)
    try:
        size = deployment.store.head(key).size
    except FileNotFoundError:
        return ObjectFacts(f"raw {modality}", key, None, "absent")
    return ObjectFacts(f"raw {modality}", key, size, "there")


def embedding_object(
    deployment: Deployment, modality: Modality, video_id: str, item: Item | None
) -> ObjectFacts:
    """The clip's stored vector, compared with what the ledger recorded of it."""
    key = deployment.layout.embedding(modality, video_id)
    what = f"{modality} embedding"
    try:
        data = deployment.store.get(key)
    except FileNotFoundError:
        lost = item is not None and item.artifact_key == key
        return ObjectFacts(what, key, None, "absent, though recorded" if lost else "absent")
    recorded = item.content_sha256 if item else None
    if recorded is None:
        told = "nothing recorded its sha256"
    elif recorded == hashlib.sha256(data).hexdigest():
        told = "sha256 as recorded"
    else:
        told = "sha256 is not the one recorded"
    return ObjectFacts(what, key, len(data), f"{_vector(data)}, {told}")


def _vector(data: bytes) -> str:
    try:
        vector = npy_to_vector(data)
    except BadVector as error:
        return f"no vector ({error})"
    return vector_problem(vector, None) or f"{len(vector)} values"


def pointers(
    deployment: Deployment, strategy: Strategy, video_id: str, item: Item | None
) -> Iterator[PointerFacts]:
    """Where manifest and ledger say that the clip's vectors are, and whether they are there."""
    try:
        rows: Sequence[dict[str, object]] = _manifest_rows(deployment, strategy, video_id)
    except BadManifest as error:
        key = deployment.layout.fused_manifest(strategy)
        yield PointerFacts(strategy, MANIFEST, key, None, "", "", str(error))
        rows = []
    for row in rows:
        key, number = str(row["fused_key"]), int(str(row["shard_idx"]))
        verdict = _at(deployment, key, video_id, number)[1]
        yield PointerFacts(
            strategy,
            MANIFEST,
            key,
            number,
            str(row["source_hash"]),
            str(row["fusion_status"]),
            verdict,
        )
    if item is not None and item.artifact_key not in {None, *(row["fused_key"] for row in rows)}:
        key = str(item.artifact_key)
        found, verdict = _at(deployment, key, video_id, None)
        yield PointerFacts(strategy, LEDGER, key, found, item.source_hash, item.status, verdict)


def _manifest_rows(
    deployment: Deployment, strategy: Strategy, video_id: str
) -> list[dict[str, object]]:
    """The clip's rows of base and deltas, merged; a piece of a file is in memory at a time."""
    # Deltas first: one that vanishes meanwhile is in the base that is read after it.
    keys = manifest_store.list_deltas(deployment, strategy)
    base = deployment.layout.fused_manifest(strategy)
    found: list[pa.Table] = []
    for key in (*keys, base):
        try:
            data = deployment.store.get(key)
            if key == base:
                recorded = ManifestFooter.of(data, key).shards
                found = [unseen(rows, recorded) for rows in found]
            for chunk in parquet_to_chunks(data):
                rows = checked_rows(chunk, key)
                found.append(rows.filter(pc.equal(rows["video_id"], video_id)))
        except FileNotFoundError:
            continue
        except BadTable as error:
            msg = f"{key}: {error}"
            raise BadManifest(msg) from error
    merged: list[dict[str, object]] = latest(found).to_pylist() if found else []
    return merged


def _at(deployment: Deployment, key: str, video_id: str, row: int | None) -> tuple[int | None, str]:
    """The row of the clip's vector in a shard, and whether it is what it should be.

    Args:
        deployment: Whose.
        key: The shard.
        video_id: The clip.
        row: Where it should be; None to look for it.
    """
    try:
        shard = FusedShard.from_npz(deployment.store.get(key), key, views=True)
    except FileNotFoundError:
        return row, "the shard does not exist"
    except BadShard as error:
        return row, str(error)
    if row is None:
        places = np.flatnonzero(shard.video_ids == video_id)
        if not len(places):
            return None, "the shard has no row of the clip"
        row = int(places[-1])
    if not 0 <= row < len(shard):
        return row, f"the shard has {len(shard)} rows"
    if str(shard.video_ids[row]) != video_id:
        return row, f"the row is that of {shard.video_ids[row]}"
    vector = shard.vectors[row]
    if not np.isfinite(vector).all():
        return row, "its vector has values that are no numbers"
    return row, f"resolves, {len(vector)} values"
