"""Audit of a strategy's manifest files: each one by itself, and what they say of shards."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.contracts.manifest_file import ManifestFooter, unseen
from clipfarm_assets.contracts.manifest_merge import KEY
from clipfarm_assets.contracts.schema_lock import SchemaLock
from clipfarm_assets.contracts.statuses import MODALITIES, Strategy
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.audit.findings import Findings
from clipfarm_assets.pipelines.inspect.audit.pointers import Hashes, Pointers, key_hashes
from clipfarm_assets.pipelines.upkeep.references import archives, manifest_rows


@dataclass
class Manifests:
    """What a strategy's manifest files say.

    Attributes:
        pointers: Of all files: base, deltas, archives.
        recorded: Shards that base and deltas were made of.
        files: Keys of the files that could be read.
        present: Sorted hashes of the (video_id, source_hash) that base and deltas have.
    """

    pointers: Pointers = field(default_factory=Pointers)
    recorded: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    present: Hashes = field(default_factory=lambda: np.empty(0, np.uint64))


def audit_manifests(
    deployment: Deployment,
    strategy: Strategy,
    lock: SchemaLock,
    forgotten: frozenset[str],
    findings: Findings,
) -> Manifests:
    """Look at every row of every manifest file; a file and a piece of its rows are in memory."""
    layout, store = deployment.layout, deployment.store
    found = Manifests()
    hashes: list[Hashes] = []
    folder = layout.schema_lock(strategy).rpartition("/")[0]
    base = layout.fused_manifest(strategy)
    old = archives(layout, strategy, [info.key for info in store.list(folder)]).values()
    in_base = _looked_at(deployment, base)
    # The base after the deltas: these vanish into it.
    for key in (*manifest_store.list_deltas(deployment, strategy), base, *old):
        try:
            data = store.get(key)
        except FileNotFoundError:
            continue
        findings.examined["manifest files"] += 1
        is_in_force = key not in old
        try:
            _check_file(deployment, strategy, lock, key, data, findings, is_in_force)
            seen = frozenset[str]() if key in {base, *old} else in_base
            own = _look_at_rows(deployment, key, data, seen, forgotten, found, findings)
            if is_in_force:
                footer = ManifestFooter.of(data, key)
                found.recorded |= footer.shards or frozenset()
        except BadManifest as error:
            findings.add("bad_manifest", key, str(error))
            continue
        found.files.append(key)
        if is_in_force:
            hashes.append(own)
    if hashes:
        found.present = np.unique(np.concatenate(hashes))
    return found


def _looked_at(deployment: Deployment, base: str) -> frozenset[str]:
    """The shards that the base has looked at: of these a delta has no say."""
    try:
        tail = partial(deployment.store.get_tail, base)
        return ManifestFooter.read(tail, base).shards or frozenset()
    except (FileNotFoundError, BadManifest):  # the latter is told when its rows are looked at
        return frozenset()


def rows_into(
    deployment: Deployment, files: Iterable[str], shards: list[str]
) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows of manifest files that point into some shards, with their file, in pieces."""
    for key in files:
        for chunk in manifest_rows(deployment.store.get(key), key):
            rows = pl.DataFrame(chunk).filter(pl.col("fused_key").is_in(shards))
            if rows.height:
                yield key, rows


def _check_file(
    deployment: Deployment,
    strategy: Strategy,
    lock: SchemaLock,
    key: str,
    data: bytes,
    findings: Findings,
    is_in_force: bool,
) -> None:
    """Whether a file is of the lock in force, and a delta of the content that it is named by."""
    version = ManifestFooter.of(data, key).lock_version
    if is_in_force and version != lock.lock_version:
        told = f"expected lock version {lock.lock_version}, found {version}: a migration stopped"
        findings.add("bad_manifest", key, told)
    name = deployment.layout.manifest_delta_sha256(strategy, key)
    if name is not None and name != (digest := hashlib.sha256(data).hexdigest()):
        told = f"expected the content that its name is the hash of, found {digest:.12}…"
        findings.add("bad_manifest", key, told)


def _look_at_rows(
    deployment: Deployment,
    key: str,
    data: bytes,
    seen: frozenset[str],
    forgotten: frozenset[str],
    found: Manifests,
    findings: Findings,
) -> Hashes:
    """Take a file's pointers, and look for rows that may not be there; hashes of its keys.

    Args:
        deployment: Whose.
        key: The file.
        data: Its bytes.
        seen: Shards of which the file has no say.
        forgotten: Clips that it must have no row of.
        found: Takes the pointers.
        findings: Take what is wrong.
    """
    pieces: list[Hashes] = [np.empty(0, np.uint64)]
    for chunk in manifest_rows(data, key):
        frame = pl.DataFrame(chunk)
        findings.examined["manifest rows"] += chunk.num_rows
        pieces.append(key_hashes(frame))
        for video_id in frame.filter(pl.col("video_id").is_in(list(forgotten)))["video_id"]:
            findings.add("forgotten_remains", key, f"has a row of {video_id}")
        rows = unseen(chunk, seen)
        found.pointers.add(rows)
        _look_for_vectors(deployment, key, rows, findings)
    hashes = np.concatenate(pieces)
    values, times = np.unique(hashes, return_counts=True)
    if len(values) < len(hashes):
        _name_repeated(key, data, values[times > 1], findings)
    return values


def _look_for_vectors(deployment: Deployment, key: str, rows: pa.Table, findings: Findings) -> None:
    """The vectors that rows were fused from, where the ledger doesn't vouch for them."""
    ids = rows["video_id"].to_pylist()
    for modality in MODALITIES:
        stage = statuses.embedding_stage(modality)
        known = deployment.ledger.columns(stage, ids, "status")
        named = rows[f"{modality}_emb_key"].to_pylist()
        present = rows["text_present"].to_pylist()
        for video_id, vector, has_text in zip(ids, named, present, strict=True):
            if known.get(video_id) == (statuses.SUCCESS,) or (modality == "text" and not has_text):
                continue  # looked at with the ledger's rows; or there is none
            if not vector or not deployment.store.exists(vector):
                told = f"a row of {video_id} names the {modality} vector {vector}: it is not there"
                findings.add("missing_object", key, told)


def _name_repeated(key: str, data: bytes, repeated: Hashes, findings: Findings) -> None:
    """Find the rows whose key occurs more than once."""
    parts = []
    for chunk in manifest_rows(data, key):
        frame = pl.DataFrame(chunk)
        parts.append(frame.filter(pl.Series(np.isin(key_hashes(frame), repeated))).select(KEY))
    counted = pl.concat(parts).group_by(KEY).len().sort(KEY)
    for row in counted.iter_rows(named=True):
        told = f"{row['len']} rows of {row['video_id']} with source_hash {row['source_hash']:.12}…"
        findings.add("duplicate_row", key, told)
