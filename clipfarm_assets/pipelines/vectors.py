"""The stored vectors that fusion reads: what the ledger says of them, and what they are."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.checks import vector_problem
from clipfarm_assets.contracts.schema_lock import (
    Difference,
    SchemaLock,
    mismatch,
    resolve,
    verify_dims,
)
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.ledger.schema import microseconds
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import archived_versions
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

NO_EMBEDDING = "no embedding"

# The fields of a ledger row that say whether its vector may be read.
_RECORDED = ("source_hash", "status", "version", "content_sha256", "processed_at")


@dataclass(slots=True)
class Availability:
    """One clip's vector of one modality.

    Attributes:
        key: Where it is if it exists.
        known: Whether the ledger knows the clip in that stage; if not, the store decides.
        version: Embedding version, None if nobody recorded one.
        problem: Why it may not be used now, or empty.
        content_sha256: Of the object when it was stored; None if nobody recorded it.
        processed_at: When it was embedded, as the ledger says it.
        outdated: Whether the problem is that an earlier lock named its version.
    """

    key: str
    known: bool
    version: str | None = None
    problem: str = ""
    content_sha256: str | None = None
    processed_at: str = ""
    outdated: bool = False


@dataclass(frozen=True, slots=True)
class ClipVectors:
    """What reading one clip's vectors gave: each modality is in one of the three.

    Attributes:
        usable: float32 vectors of the locked lengths.
        missing: Why there is none, or none that may be used now.
        broken: Sentences about objects that are there and are no embeddings.
    """

    usable: dict[Modality, NDArray[np.float32]] = field(default_factory=dict)
    missing: dict[Modality, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


def available(
    deployment: Deployment, by_date: Mapping[str, pa.Table]
) -> dict[str, dict[str, dict[Modality, Availability]]]:
    """What is known of every indexed clip's three vectors, by date and video_id.

    A vector of another source (the clip's url changed, the new one isn't embedded yet) doesn't
    count: the object still there belongs to what the clip used to be. Nor does one that the ledger
    doesn't know, unless nothing in the stage has a version, as in an older deployment whose state
    was lost: a run was killed between storing and recording it, and nobody knows its encoder.

    Args:
        deployment: Whose ledger.
        by_date: Tables of `clip_tables.CLIP_INDEX`.
    """
    hashes: dict[str, dict[str, str]] = {
        date: dict(zip(*(index[n].to_pylist() for n in ("video_id", "source_hash")), strict=True))
        for date, index in by_date.items()
    }
    out: dict[str, dict[str, dict[Modality, Availability]]] = {
        date: {video_id: {} for video_id in of_date} for date, of_date in hashes.items()
    }
    for modality in MODALITIES:
        stage = statuses.embedding_stage(modality)
        latest = deployment.ledger.latest(stage, statuses.SUCCESS)
        unrecorded = "not embedded yet" if latest and latest.version else ""
        for date, of_date in hashes.items():
            rows = deployment.ledger.columns(stage, of_date, *_RECORDED)
            for video_id, source_hash in of_date.items():
                key = deployment.layout.embedding(modality, video_id)
                row = rows.get(video_id)
                out[date][video_id][modality] = (
                    Availability(key, known=False, problem=unrecorded)
                    if row is None
                    else _recorded(key, source_hash, *row)
                )
    return out


def _recorded(
    key: str,
    source_hash: str,
    embedded: str,
    status: str,
    version: str | None,
    content_sha256: str | None,
    processed_at: str,
) -> Availability:
    """What the ledger row of `_RECORDED` says of the vector of a clip with that source."""
    problem = ""
    if embedded != source_hash:
        problem = f"embedding is of another source ({embedded})"
    elif status != statuses.SUCCESS:
        problem = f"embedding status {status}"
    return Availability(key, True, version, problem, content_sha256, processed_at)


def parse(
    availability: Mapping[Modality, Availability], objects: Mapping[str, object], lock: SchemaLock
) -> ClipVectors:
    """One clip's vectors, of the objects fetched by key.

    An object that isn't what the ledger recorded is broken too: bits flipped in it, or a run was
    killed between storing it and recording it, and its encoder may be another than the locked one.

    Raises:
        LockMismatch: A vector is of another length than the locked one.
    """
    found = ClipVectors()
    for modality, vector in availability.items():
        data = objects.get(vector.key)
        if vector.problem:
            found.missing[modality] = vector.problem
            continue
        if not isinstance(data, bytes):
            found.missing[modality] = NO_EMBEDDING
            continue
        try:
            values = npy_to_vector(data)
        except BadVector as error:
            found.broken.append(f"{modality} embedding {vector.key}: {error}")
            continue
        if vector.content_sha256 not in {None, hashlib.sha256(data).hexdigest()}:
            found.broken.append(
                f"{modality} embedding {vector.key}: is not what the ledger recorded, by its "
                "sha256: finish the embedding run that was interrupted, or restore the object"
            )
            continue
        verify_dims(lock, modality, len(values))
        problem = vector_problem(values, None)
        if problem:
            found.broken.append(f"{modality} embedding {vector.key}: {problem}")
        else:
            found.usable[modality] = values
    return found


def version_gate(
    deployment: Deployment,
    lock: SchemaLock,
    availabilities: Iterable[Mapping[Modality, Availability]],
) -> None:
    """Compare the versions of all vectors about to be read with the lock.

    A vector of a version that an earlier lock named, and from before the migration, is outdated:
    its clip waits until it is embedded again. Any other version than the locked one is a structural
    fault, also an earlier one that is made again: somebody runs the encoder that was left behind.

    Raises:
        LockMismatch: A vector is of a version that the lock doesn't name, and not merely outdated.
    """
    adopted = deployment.models_lock().adopted()
    locked_by = {m: resolve(lock.embedding_versions[m], m, adopted) for m in MODALITIES}
    found_by: dict[tuple[Modality, str | None], str] = {}  # few versions, many vectors
    outdated: dict[Modality, set[str]] | None = None
    for by_modality in availabilities:
        for modality, vector in by_modality.items():
            if vector.problem or not vector.known:
                continue
            named = (modality, vector.version)
            if named not in found_by:
                found_by[named] = resolve(vector.version, modality, adopted)
            found, locked = found_by[named], locked_by[modality]
            if found == locked:
                continue
            if outdated is None:
                outdated = archived_versions(deployment, lock)
            is_left_over = microseconds(vector.processed_at) < microseconds(lock.updated_at)
            archived = {resolve(v, modality, adopted) for v in outdated[modality]}
            if found not in archived or not is_left_over:
                field = f"embedding_versions.{modality}"
                raise mismatch(lock, Difference(field, locked, found))
            vector.problem = f"embedding is of version {found}, which the lock has left behind"
            vector.outdated = True
