"""The audit of a deployment of clips: whatever is referred to is there, and is what was recorded.

What is read: every ledger row and published state, every vector and shard that they or a manifest
name, every row of every manifest, the dated tables. What nothing refers to is for `clipfarm gc`.
"""

import pyarrow.compute as pc

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, STRATEGIES
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.audit.findings import Audit, Findings
from clipfarm_assets.pipelines.inspect.audit.fused import audit_strategy
from clipfarm_assets.pipelines.inspect.audit.states import StageRows
from clipfarm_assets.pipelines.inspect.audit.vectors import audit_vectors, forgotten_clips
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.pipelines.upkeep.collect import refuse_at_work
from clipfarm_assets.pipelines.upkeep.dated_tables import mentions
from clipfarm_assets.pipelines.upkeep.places import is_kept
from clipfarm_assets.storage.tables import BadTable, parquet_to_table

_TABLES = ("index", "embeddings/manifests", "predictions")


def audit(deployment: Deployment, say: Say = silent) -> Audit:
    """Look at a deployment while no run is at work on it; nothing is written.

    In memory are the published state of one stage at a time (as in a restore), 32 bytes a manifest
    row, and one object.

    Args:
        deployment: Whose store and ledger.
        say: Told how far it is.

    Raises:
        RunsAtWork: A run holds a lease: what it has half done is no finding.
        StoreUnavailable, sqlalchemy.exc.SQLAlchemyError: Store or ledger can't be asked.
    """
    refuse_at_work(deployment)
    findings = Findings()
    stages = {m: statuses.embedding_stage(m) for m in MODALITIES}
    forgotten: frozenset[str] = frozenset()
    for modality, stage in stages.items():
        rows = StageRows.of(deployment, stage, findings)
        audit_vectors(deployment, modality, rows, findings, say)
        forgotten |= forgotten_clips(rows)
    unmerged = 0
    for strategy in STRATEGIES:
        rows = StageRows.of(deployment, statuses.fusion_stage(strategy), findings)
        unmerged += audit_strategy(deployment, strategy, rows, forgotten, findings, say)
    _audit_tables(deployment, forgotten, findings, say)
    return Audit(
        dict(sorted(findings.examined.items())),
        dict(sorted(findings.counts.items())),
        tuple(findings.kept),
        unmerged,
    )


def _audit_tables(
    deployment: Deployment, forgotten: frozenset[str], findings: Findings, say: Say
) -> None:
    """The dated tables: each can be read, and has no row of a clip that was removed for good."""
    prefix = deployment.layout.prefix
    infos = [info for name in _TABLES for info in deployment.store.list(f"{prefix}/{name}")]
    keys = [info.key for info in infos if is_kept(deployment.layout, info.key)]
    progress = Progress("audit tables", len(keys), say)
    for key, data in deployment.store.get_many(keys, workers=4):
        progress.step()
        if not isinstance(data, bytes):
            continue  # removed meanwhile
        findings.examined["tables"] += 1
        try:
            table = parquet_to_table(data)
            ids = table["video_id"]
        except (BadTable, KeyError) as error:
            findings.add("bad_table", key, str(error))
            continue
        remains = {i for i in pc.unique(ids).to_pylist() if i in forgotten}
        remains |= {video_id for video_id in forgotten if mentions(table, video_id)}
        for video_id in sorted(remains):
            findings.add("forgotten_remains", key, f"has a row of {video_id}")
