"""Modality vectors out of their npy objects, verified against the lock and the ledger."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.schema_lock import (
    Difference,
    SchemaLock,
    mismatch,
    resolve,
    verify_dims,
)
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.progress import Progress, Say
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

BATCH: Final = 512
"""Clips that the ledger is asked for together."""

# Why a vector can't be had, as the counts name it.
MISSING: Final = "missing"
BROKEN: Final = "broken"
FOREIGN: Final = "foreign"


@dataclass(frozen=True)
class ObjectVectors:
    """N clips' vectors; see `modality_vectors.ClipVectors`."""

    by_modality: Mapping[Modality, NDArray[np.float32]]
    text_present: NDArray[np.bool_]
    usable: NDArray[np.bool_]


def read_objects(
    deployment: Deployment, lock: SchemaLock, rows: pl.DataFrame, counts: Counter[str], say: Say
) -> ObjectVectors:
    """Read the objects that manifest rows name.

    A clip without a video or audio vector is not usable; one without its text vector becomes one
    without text; a text vector of another length is padded with zeros or cut to the locked one.
    Each is counted (source: the training contract, section 10). A vector can't be had if its
    object is ``missing``; is ``broken``: no vector, or not what the ledger recorded by its
    sha256; or is ``foreign``: of another source than was fused, or of an encoder nobody recorded
    although the stage's others are recorded.

    Args:
        deployment: Whose store and ledger; the stages' published states are restored first.
        lock: The strategy's lock.
        rows: N manifest rows, each clip once.
        counts: Counted into.
        say: Told how far it is.

    Raises:
        LockMismatch: A vector is of another version, or video or audio of another length, than the
            lock says.
    """
    adopted = deployment.models_lock().adopted()
    recorded: dict[Modality, bool] = {}
    for modality in MODALITIES:
        stage = statuses.embedding_stage(modality)
        deployment.restore(stage)
        latest = deployment.ledger.latest(stage, statuses.SUCCESS)
        recorded[modality] = bool(latest and latest.version)
    by_modality = {
        modality: np.zeros((len(rows), lock.dim(modality)), dtype=np.float32)
        for modality in MODALITIES
    }
    present = rows["text_present"].to_numpy() == 1
    usable = np.ones(len(rows), dtype=np.bool_)
    progress = Progress(f"read {lock.fusion_strategy} vectors", len(rows), say)
    # One stream of requests for all batches: it goes on while the ledger is asked.
    with closing(deployment.store.get_many(_keys(rows))) as fetched:
        for batch in batched(enumerate(rows.iter_rows(named=True)), BATCH):
            ids = [row["video_id"] for _, row in batch]
            for modality in MODALITIES:
                items = deployment.ledger.rows(statuses.embedding_stage(modality), ids)
                for position, row in batch:
                    if not _is_wanted(row["text_present"], modality):
                        continue
                    data = next(fetched)[1] if row[f"{modality}_emb_key"] else None
                    item = items.get(row["video_id"])
                    problem = _standing(item, row, modality, lock, adopted, recorded[modality])
                    vector = problem or _vector(data, item)
                    if isinstance(vector, str):
                        counts[f"{modality}_{vector}"] += 1
                        if modality == "text":
                            present[position] = False
                        else:
                            usable[position] = False
                        continue
                    if modality == "text":
                        counts["text_resized"] += len(vector) != lock.text_dim
                        vector = vector[: lock.text_dim]
                    else:
                        verify_dims(lock, modality, len(vector))
                    by_modality[modality][position, : len(vector)] = vector
            progress.step(len(batch))
    return ObjectVectors(by_modality, present, usable)


def _keys(rows: pl.DataFrame) -> Iterator[str]:
    """The keys of the objects that are wanted, in the order in which batches use them."""
    for batch in rows.iter_slices(BATCH):
        texts = batch["text_present"].to_list()
        for modality in MODALITIES:
            keys = batch[f"{modality}_emb_key"].to_list()
            for key, text_present in zip(keys, texts, strict=True):
                if key and _is_wanted(text_present, modality):
                    yield key


def _is_wanted(text_present: int, modality: Modality) -> bool:
    return modality != "text" or text_present == 1


def _standing(
    item: Item | None,
    row: Mapping[str, Any],
    modality: Modality,
    lock: SchemaLock,
    adopted: Mapping[Modality, str],
    recorded: bool,
) -> str | None:
    """Why the ledger says that the object isn't the vector that was fused; None if it doesn't."""
    if item is None:
        return FOREIGN if recorded else None
    if item.source_hash != row["source_hash"] or item.status != statuses.SUCCESS:
        return FOREIGN
    found = resolve(item.version, modality, adopted)
    locked = resolve(lock.embedding_versions[modality], modality, adopted)
    if found != locked:
        raise mismatch(lock, Difference(f"embedding_versions.{modality}", locked, found))
    return None


def _vector(data: object, item: Item | None) -> NDArray[np.float32] | str:
    if not isinstance(data, bytes):
        return MISSING
    expected = item.content_sha256 if item else None
    if expected not in {None, hashlib.sha256(data).hexdigest()}:
        return BROKEN
    try:
        return npy_to_vector(data)
    except BadVector:
        return BROKEN
