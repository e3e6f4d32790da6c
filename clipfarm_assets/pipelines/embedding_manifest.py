"""The embedding manifest: what is known of every clip's embeddings."""

from datetime import datetime

import pyarrow as pa

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.clip_tables import EMBEDDING_MANIFEST, OLDER_DEPLOYMENT
from clipfarm_assets.contracts.horizon_csv import parse_captured_at
from clipfarm_assets.contracts.schema_lock import resolve
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.deployment import Deployment


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
