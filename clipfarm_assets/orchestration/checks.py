"""Builds asset checks from the promises in `contracts.checks`, one result a partition.

A check that carries its asset's partitions shows a result for each. In a run over a range Dagster
stores the check's own result without a partition, so there one evaluation a key is logged beside
it, as an event of the run: reported without a run, the second evaluation of a key violates a unique
index of Dagster's. The result of the whole range is what blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import dagster as dg
import numpy as np

# The one part of an evaluation that Dagster does not export.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from clipfarm_assets.contracts.checks import Verdict
from clipfarm_assets.orchestration.metadata import Metadata, rounded
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.deployment import Deployment

Evaluate = Callable[[Deployment, Sequence[str]], Mapping[str, Verdict]]

Latest = Mapping[str, dg.AssetMaterialization | None]
"""Partition -> its latest materialisation, None where there is none."""

EvaluateLatest = Callable[[Deployment, Latest], Mapping[str, Verdict]]

WHOLE: Final = "all"
"""Stands for the partition of an asset without partitions."""

_SHOWN = 20
# Facts that are no counts: their sum over partitions would mean nothing.
_SIZES = frozenset({"dimension"})


def promise_check(
    asset: dg.AssetKey,
    name: str,
    description: str,
    partitions_def: dg.PartitionsDefinition[str] | None,
    evaluate: Evaluate,
    *,
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """An asset check, partitioned like its asset.

    Args:
        asset: The asset it is about.
        name: Its name, unique for the asset.
        description: The promise, for the UI.
        partitions_def: The asset's partitions; None if it has none.
        evaluate: From a deployment and partition keys to a verdict for each key; of an asset
            without partitions the one key is `WHOLE`.
        blocking: Whether a broken promise stops downstream assets of the same run.
    """
    return _check(
        asset,
        name,
        description,
        partitions_def,
        lambda _, opened, keys: evaluate(opened, keys),
        blocking=blocking,
    )


def latest_promise_check(
    asset: dg.AssetKey,
    name: str,
    description: str,
    partitions_def: dg.PartitionsDefinition[str] | None,
    evaluate: EvaluateLatest,
    *,
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """As `promise_check`, for assets whose materialisations lie beside each other in the store.

    `evaluate` is given each partition's latest materialisation, whose metadata says which it is.
    """

    def of_latest(
        instance: dg.DagsterInstance, opened: Deployment, keys: Sequence[str]
    ) -> Mapping[str, Verdict]:
        records = {key: _latest(instance, asset, key) for key in keys}
        return evaluate(opened, {k: r and r.asset_materialization for k, r in records.items()})

    return _check(asset, name, description, partitions_def, of_latest, blocking=blocking)


def _check(
    asset: dg.AssetKey,
    name: str,
    description: str,
    partitions_def: dg.PartitionsDefinition[str] | None,
    evaluate: Callable[[dg.DagsterInstance, Deployment, Sequence[str]], Mapping[str, Verdict]],
    *,
    blocking: bool,
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=name,
        description=description,
        blocking=blocking,
        partitions_def=partitions_def,
    )
    def check(
        context: dg.AssetCheckExecutionContext, deployment: DeploymentResource
    ) -> dg.AssetCheckResult:
        run = context.op_execution_context
        keys = [WHOLE] if partitions_def is None else list(run.partition_keys)
        with deployment.open() as opened:
            verdicts = evaluate(context.instance, opened, keys)
        # A range is a range even with one key: so are all runs of a backfill.
        if partitions_def is not None and not run.has_partition_key:
            for key in keys:
                evaluation = dg.AssetCheckEvaluation(
                    asset_key=asset,
                    check_name=name,
                    passed=verdicts[key].holds,
                    metadata=verdict_metadata({key: verdicts[key]}),
                    blocking=blocking,
                    partition=key,
                    target_materialization_data=_examined(context.instance, asset, key),
                )
                # It takes evaluations too; only its annotation doesn't say so.
                run.log_event(evaluation)  # type: ignore[arg-type]
        return dg.AssetCheckResult(
            passed=all(verdict.holds for verdict in verdicts.values()),
            description="; ".join(
                f"{key}: {verdict.summary()}" for key, verdict in verdicts.items()
            )[:2000],
            metadata=verdict_metadata(verdicts),
        )

    return check


def _examined(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> AssetCheckEvaluationTargetMaterializationData | None:
    record = _latest(instance, asset, partition)
    if record is None:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=record.storage_id,
        run_id=record.run_id,
        timestamp=record.timestamp,
    )


def _latest(
    instance: dg.DagsterInstance, asset: dg.AssetKey, partition: str
) -> dg.EventLogRecord | None:
    """The partition's latest materialisation, if Dagster knows of one."""
    filters = dg.AssetRecordsFilter(asset, asset_partitions=[partition])
    records = instance.fetch_materializations(filters, limit=1).records
    return records[0] if records else None


def verdict_metadata(verdicts: Mapping[str, Verdict]) -> Metadata:
    """Counts summed over the partitions, sizes at their largest, and the first findings.

    Facts that are no numbers are shown as text, each different one once.
    """
    findings = [
        {"partition": key, "subject": finding.subject, "problem": finding.problem}
        for key, verdict in verdicts.items()
        for finding in verdict.findings
    ]
    facts: dict[str, int] = {}
    texts: dict[str, dict[str, None]] = {}
    for verdict in verdicts.values():
        for fact, value in verdict.facts.items():
            if not isinstance(value, (int, np.integer)):
                texts.setdefault(fact, {})[str(rounded(value))] = None
                continue
            before = facts.get(fact, 0)
            facts[fact] = max(before, int(value)) if fact in _SIZES else before + int(value)
    metadata: Metadata = {
        "examined": dg.MetadataValue.int(sum(v.examined for v in verdicts.values())),
        "findings": dg.MetadataValue.int(len(findings)),
        **{fact: dg.MetadataValue.int(value) for fact, value in facts.items()},
        **{fact: dg.MetadataValue.text(", ".join(found)) for fact, found in texts.items()},
    }
    if findings:
        records = [dg.TableRecord(finding) for finding in findings[:_SHOWN]]
        metadata["first_findings"] = dg.MetadataValue.table(records)
    return metadata
