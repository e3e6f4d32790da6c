"""The promises about clips, shown a partition: the same functions that the loaders refuse by."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts import checks, statuses
from clipfarm_assets.contracts.checks import Verdict
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.defs.clips import common
from clipfarm_assets.defs.clips.fusion import FuseConfig
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.checks import Evaluate, promise_check
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.lock import load_lock
from clipfarm_assets.pipelines.manifest import load_manifest, shards_of
from clipfarm_assets.storage.npy import BadVector, npy_to_vector
from clipfarm_assets.storage.tables import parquet_to_table


def _index_ids(deployment: Deployment, date: str) -> list[str]:
    table = parquet_to_table(deployment.store.get(deployment.layout.clip_index(date)))
    ids: list[str] = table["video_id"].to_pylist()
    return ids


def _embeddings_valid(modality: Modality) -> Evaluate:
    stage = statuses.embedding_stage(modality)

    def vectors(
        deployment: Deployment, items: Sequence[Item]
    ) -> Iterator[tuple[str, NDArray[np.float32] | str]]:
        keys = [deployment.layout.embedding(modality, item.video_id) for item in items]
        for key, data in deployment.store.get_many(keys):
            if not isinstance(data, bytes):
                yield key, "the ledger says success, but the object does not exist"
                continue
            try:
                yield key, npy_to_vector(data)
            except BadVector as error:
                yield key, str(error)

    def evaluate(deployment: Deployment, dates: Sequence[str]) -> Mapping[str, Verdict]:
        models = deployment.models_lock()
        verdicts = {}
        for date in dates:
            rows = deployment.ledger.rows(stage, _index_ids(deployment, date))
            done = [item for item in rows.values() if item.status == statuses.SUCCESS]
            declared = {
                version.dim
                for version_id in {item.version for item in done if item.version}
                if (version := models.version(version_id))
            }
            dim = declared.pop() if len(declared) == 1 else None
            verdicts[date] = checks.embeddings_valid(vectors(deployment, done), dim)
        return verdicts

    return evaluate


def _index_rows_have_status(deployment: Deployment, dates: Sequence[str]) -> Mapping[str, Verdict]:
    verdicts = {}
    for date in dates:
        ids = _index_ids(deployment, date)
        stages = [statuses.embedding_stage(modality) for modality in statuses.MODALITIES]
        known = {stage: deployment.ledger.rows(stage, ids).keys() for stage in stages}
        verdicts[date] = checks.index_rows_have_status(ids, known)
    return verdicts


def _lock_matches_shards(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
    adopted = deployment.models_lock().adopted()
    verdicts = {}
    for name, dates in partitions.by_strategy(list(keys)).items():
        strategy = partitions.as_strategy(name)
        lock = load_lock(deployment, strategy)
        for date in dates:
            infos = deployment.store.list(deployment.layout.shards_prefix(strategy, date))
            found = shards_of(deployment, [info.key for info in infos])
            verdicts[partitions.key_of(date, name)] = checks.lock_matches_shards(
                lock, found, adopted
            )
    return verdicts


def _manifest_rows(deployment: Deployment, name: str) -> pl.DataFrame:
    return pl.DataFrame(load_manifest(deployment, partitions.as_strategy(name)).rows)


def _pointers_resolve(deployment: Deployment, names: Sequence[str]) -> Mapping[str, Verdict]:
    verdicts = {}
    for name in names:
        rows = _manifest_rows(deployment, name)
        shards = shards_of(deployment, rows["fused_key"].unique().sort().to_list())
        verdicts[name] = checks.pointers_resolve(rows, shards)
    return verdicts


def _placeholders_approved(deployment: Deployment, names: Sequence[str]) -> Mapping[str, Verdict]:
    approved = FuseConfig().terminal_text_statuses
    return {
        name: checks.placeholders_approved(_manifest_rows(deployment, name), approved)
        for name in names
    }


def _required_modalities_present(
    deployment: Deployment, names: Sequence[str]
) -> Mapping[str, Verdict]:
    existing: set[str] = set()
    for modality in statuses.MODALITIES:
        prefix = deployment.layout.embeddings_prefix(modality)
        existing.update(info.key for info in deployment.store.list(prefix))
    return {
        name: checks.required_modalities_present(_manifest_rows(deployment, name), existing)
        for name in names
    }


def _manifest_unique(deployment: Deployment, names: Sequence[str]) -> Mapping[str, Verdict]:
    return {name: checks.manifest_unique(_manifest_rows(deployment, name)) for name in names}


def _on_dates(asset: Any, name: str, promise: str, evaluate: Evaluate, *, blocking: bool) -> Any:
    return promise_check(asset, name, promise, partitions.dates, evaluate, blocking=blocking)


def _on_manifest(name: str, promise: str, evaluate: Evaluate, *, blocking: bool = False) -> Any:
    return promise_check(
        common.MANIFEST, name, promise, partitions.strategies, evaluate, blocking=blocking
    )


ALL = [
    *(
        _on_dates(
            common.EMBEDDINGS[modality],
            "embeddings_valid",
            "Embeddings are finite, of unit norm and of the declared dimension.",
            _embeddings_valid(modality),
            blocking=True,
        )
        for modality in statuses.MODALITIES
    ),
    _on_dates(
        common.EMBEDDING_MANIFEST,
        "index_rows_have_status",
        "Every clip of the index has a ledger status in every embedding stage.",
        _index_rows_have_status,
        blocking=False,
    ),
    promise_check(
        common.SHARDS,
        "lock_matches_shards",
        "Every shard has the shape and the embedding versions of the schema lock.",
        partitions.dates_by_strategy,
        _lock_matches_shards,
        blocking=True,
    ),
    _on_manifest(
        "pointers_resolve",
        "Every pointer leads to the vector of its own video_id.",
        _pointers_resolve,
        blocking=True,
    ),
    _on_manifest(
        "placeholders_approved",
        "Only clips with an approved terminal text status have a text placeholder.",
        _placeholders_approved,
    ),
    _on_manifest(
        "required_modalities_present",
        "Every fused clip has its video and audio embedding, and its text unless a placeholder.",
        _required_modalities_present,
    ),
    _on_manifest(
        "manifest_unique",
        "One row a (video_id, source_hash).",
        _manifest_unique,
    ),
]
