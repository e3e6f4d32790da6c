"""Builds asset checks from the promises in `contracts.checks`, one result a partition.

A check that carries its asset's partitions shows a result for each. In a run over a range Dagster
stores the check's own result without a partition, so there one evaluation a key is logged beside
it, as an event of the run: reported without a run, the second evaluation of a key violates a unique
index of Dagster's. The result of the whole range is what blocks.
"""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

# The one part of an evaluation that Dagster does not export.
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)

from clipfarm_assets.contracts.checks import Verdict
from clipfarm_assets.orchestration.metadata import Metadata
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.deployment import Deployment

Evaluate = Callable[[Deployment, Sequence[str]], Mapping[str, Verdict]]

_SHOWN = 20
# Facts that are no counts: their sum over partitions would mean nothing.
_SIZES = frozenset({"dimension"})


def promise_check(
    asset: dg.AssetKey,
    name: str,
    description: str,
    partitions_def: dg.PartitionsDefinition[str],
    evaluate: Evaluate,
    *,
    blocking: bool = False,
) -> dg.AssetChecksDefinition:
    """An asset check, partitioned like its asset.

    Args:
        asset: The asset it is about.
        name: Its name, unique for the asset.
        description: The promise, for the UI.
        partitions_def: The asset's partitions.
        evaluate: From a deployment and partition keys to a verdict for each key.
        blocking: Whether a broken promise stops downstream assets of the same run.
    """

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
        keys = list(context.op_execution_context.partition_keys)
        with deployment.open() as opened:
            verdicts = evaluate(opened, keys)
        # A range is a range even with one key: so are all runs of a backfill.
        if not context.op_execution_context.has_partition_key:
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
                context.op_execution_context.log_event(evaluation)  # type: ignore[arg-type]
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
    """The partition's latest materialisation, if Dagster knows of one."""
    filters = dg.AssetRecordsFilter(asset, asset_partitions=[partition])
    records = instance.fetch_materializations(filters, limit=1).records
    if not records:
        return None
    return AssetCheckEvaluationTargetMaterializationData(
        storage_id=records[0].storage_id,
        run_id=records[0].run_id,
        timestamp=records[0].timestamp,
    )


def verdict_metadata(verdicts: Mapping[str, Verdict]) -> Metadata:
    """Counts summed over the partitions, sizes at their largest, and the first findings."""
    findings = [
        {"partition": key, "subject": finding.subject, "problem": finding.problem}
        for key, verdict in verdicts.items()
        for finding in verdict.findings
    ]
    facts: dict[str, int] = {}
    for verdict in verdicts.values():
        for fact, value in verdict.facts.items():
            before = facts.get(fact, 0)
            facts[fact] = max(before, int(value)) if fact in _SIZES else before + int(value)
    metadata: Metadata = {
        "examined": dg.MetadataValue.int(sum(v.examined for v in verdicts.values())),
        "findings": dg.MetadataValue.int(len(findings)),
        **{fact: dg.MetadataValue.int(value) for fact, value in facts.items()},
    }
    if findings:
        records = [dg.TableRecord(finding) for finding in findings[:_SHOWN]]
        metadata["first_findings"] = dg.MetadataValue.table(records)
    return metadata
