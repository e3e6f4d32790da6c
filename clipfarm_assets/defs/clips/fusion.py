"""Schema lock, fused shards, fused manifest."""

from typing import Any, Literal

import dagster as dg
import polars as pl
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.contracts import statuses
from clipfarm_assets.defs.clips import common
from clipfarm_assets.orchestration import automation, freshness, metadata, partitions
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.fuse import SHARD_ROWS, FuseOptions, FusionStage
from clipfarm_assets.pipelines.lock import settle_lock
from clipfarm_assets.pipelines.manifest import ManifestOptions, ManifestUpdate, update_manifest


class LockConfig(dg.Config):
    """Whether a change of shape or encoder is meant."""

    migrate: bool = Field(
        default=False,
        description="Archive the lock and the manifest, and open a new lock version for the "
        "vectors as they are now. Everything is fused again under the new lock.",
    )
    append_mask: bool | None = Field(
        default=None,
        description="Whether fused vectors end in the text mask. Unset, a new lock has it and an "
        "older one keeps its choice.",
    )


@dg.asset(
    **common.asset_options(
        "schema_lock",
        kinds={"json"},
        code_version="1",
        writes="clipfarm/fused/<strategy>/schema.json",
    ),
    partitions_def=partitions.strategies,
    deps=[
        dg.AssetDep(asset, partition_mapping=partitions.all_dates)
        for asset in common.EMBEDDINGS.values()
    ],
    automation_condition=automation.once_after_first_dates(*common.EMBEDDINGS.values()),
    description="The one shape, and the one embedding version a modality, of a strategy's fused "
    "vectors. Made from the first vectors, verified ever after, changed by migration alone.",
)
def schema_lock(
    context: dg.AssetExecutionContext, config: LockConfig, deployment: DeploymentResource
) -> None:
    """Create, verify or migrate the lock of each strategy."""
    with deployment.open() as opened:
        for strategy in context.partition_keys:
            outcome = settle_lock(
                opened,
                partitions.as_strategy(strategy),
                migrate=config.migrate,
                append_mask=config.append_mask,
            )
            lock = outcome.lock
            context.log.info(
                "lock %s: %s, version %d, %d values%s",
                strategy,
                outcome.what,
                lock.lock_version,
                lock.fused_dim,
                f"; archived {', '.join(outcome.archived)}" if outcome.archived else "",
            )
            context.add_asset_metadata(
                {
                    "outcome": outcome.what,
                    "key": opened.layout.schema_lock(lock.fusion_strategy),
                    "lock": dg.MetadataValue.json(_lock_fields(lock.to_json())),
                    "diff": metadata.records(
                        [
                            {"field": c.name, "locked": str(c.locked), "found": str(c.found)}
                            for c in outcome.changes
                        ]
                    ),
                    "archived": ", ".join(outcome.archived) or "nothing",
                },
                partition_key=strategy,
            )


@defaults_from("CLIPFARM_FUSION_CONFIG")
class FuseConfig(common.RetryOptions):
    """How a fusion run works."""

    verify_objects: bool = Field(
        default=False, description="Fuse clips again whose shard is gone from the store."
    )

    shard_rows: int = Field(default=SHARD_ROWS, ge=1, le=65536, description="Most rows of a shard.")
    terminal_text_statuses: list[str] = Field(
        default=sorted(statuses.DEFAULT_TERMINAL_TEXT_STATUSES),
        description="Text downloader statuses after which a clip is fused without text.",
    )


@dg.asset(
    **common.asset_options(
        "fused_shards",
        kinds={"numpy"},
        code_version="1",
        writes="clipfarm/fused/<strategy>/shards/date=<date>/part-<number>.npz",
    ),
    partitions_def=partitions.dates_by_strategy,
    ins={"clip_index": dg.AssetIn(common.INDEX, partition_mapping=partitions.date_of)},
    deps=[
        *(
            dg.AssetDep(asset, partition_mapping=partitions.date_of)
            for asset in common.EMBEDDINGS.values()
        ),
        dg.AssetDep(common.SCHEMA_LOCK, partition_mapping=partitions.strategy_of),
    ],
    automation_condition=automation.when_upstream_is_good(),
    description="The date's clips fused into one vector each: immutable .npz shards. Clips without "
    "video or audio wait; clips without text wait until their text state is terminal.",
)
def fused_shards(
    context: dg.AssetExecutionContext,
    config: FuseConfig,
    clip_index: dict[str, pa.Table],
    deployment: DeploymentResource,
) -> None:
    """Fuse what changed, strategy by strategy."""
    options = FuseOptions(
        shard_rows=config.shard_rows,
        max_fail_retries=config.max_fail_retries,
        terminal_text_statuses=frozenset(config.terminal_text_statuses),
        retry_terminal=config.retry_terminal,
        verify_objects=config.verify_objects,
    )
    with deployment.open() as opened:
        for name, dates in partitions.by_strategy(list(context.partition_keys)).items():
            strategy = partitions.as_strategy(name)
            stage = FusionStage(
                opened, strategy, options, common.say(context), config.leases(context)
            )
            reports = stage.run({date: clip_index[date] for date in dates})
            for date, report in reports.items():
                shards = list(opened.store.list(opened.layout.shards_prefix(strategy, date)))
                context.add_asset_metadata(
                    {
                        **metadata.stage_metadata(
                            report,
                            opened.standing(report.stage, clip_index[date]["video_id"].to_pylist()),
                        ),
                        "shards_of_the_date": len(shards),
                        "shard_bytes": sum(info.size for info in shards),
                    },
                    partition_key=partitions.key_of(date, strategy),
                )


@defaults_from("CLIPFARM_MANIFEST_CONFIG")
class ManifestConfig(dg.Config):
    """When new rows are merged into `fused_manifest.parquet`."""

    compact: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="auto: a manifest of up to whole_rows rows is one file; a larger one gets new "
        "rows as small files beside it, merged into it when they are many. always: one file after "
        "every run, for other programs that read fused_manifest.parquet alone. never: new rows "
        "stay beside it, for a nightly run with always.",
    )
    whole_rows: int = Field(
        default=ManifestOptions.whole_rows,
        ge=0,
        description="auto: up to so many rows the manifest is one file.",
    )
    delta_share: float = Field(
        default=ManifestOptions.delta_share,
        gt=0,
        description="auto: merge when the rows beside the file would be more than this share of "
        "those in it.",
    )
    max_deltas: int = Field(
        default=ManifestOptions.max_deltas,
        ge=0,
        description="auto: merge when there would be more files beside it than this.",
    )


@dg.asset(
    **common.asset_options(
        "fused_manifest",
        kinds={"parquet", "polars"},
        code_version="1",
        writes="clipfarm/fused/<strategy>/fused_manifest.parquet, manifest_deltas/<sha256>.parquet",
    ),
    partitions_def=partitions.strategies,
    deps=[dg.AssetDep(common.SHARDS, partition_mapping=partitions.strategy_of)],
    automation_condition=automation.after_new_dates(common.SHARDS),
    freshness_policy=freshness.made_every_night(),
    description="The pointers to every clip's fused vector, 17 columns, one row a "
    "(video_id, source_hash): what training and serving read first.",
)
def fused_manifest(
    context: dg.AssetExecutionContext, config: ManifestConfig, deployment: DeploymentResource
) -> None:
    """Merge the shards that the manifest doesn't know yet."""
    options = ManifestOptions(
        compact=config.compact,
        whole_rows=config.whole_rows,
        delta_share=config.delta_share,
        max_deltas=config.max_deltas,
    )
    with deployment.open() as opened:
        for name in context.partition_keys:
            update = update_manifest(
                opened, partitions.as_strategy(name), common.say(context), options
            )
            context.log.info(
                "manifest %s: %d rows, %d more in %d deltas; %d new shards",
                name,
                update.base_rows,
                update.delta_rows,
                update.deltas,
                len(update.new_shards),
            )
            context.add_asset_metadata(_shown(update, options), partition_key=name)


def _shown(update: ManifestUpdate, options: ManifestOptions) -> metadata.Metadata:
    """Of a manifest in one file and of moderate size everything, else what is new."""
    whole = update.rows is not None and update.rows <= options.whole_rows
    table = update.manifest.rows if whole else update.fresh
    rows = pl.DataFrame(table)
    counts = rows.group_by("fusion_status").len("clips").sort("fusion_status")
    shown: metadata.Metadata = {
        "new_shards": len(update.new_shards),
        "new_rows": update.fresh.num_rows,
        "rows_in_file": update.base_rows,
        "rows_in_deltas": update.delta_rows,
        "deltas": update.deltas,
        "published_delta": update.delta or "none",
        "undeclared_shards": metadata.records([{"key": key} for key in update.undeclared]),
        "new_shards_of_archived_locks": len(update.archived),
        "forgotten_clips_passed_over": ", ".join(update.forgotten[:20]) or "none",
        "shards" if whole else "new_shards_with_rows": rows["fused_key"].n_unique(),
        "counts" if whole else "new_counts": metadata.records(counts.to_dicts()),
        "read_back": metadata.records([{"pointer": pointer} for pointer in update.read_back]),
        "preview" if whole else "new_preview": metadata.preview(
            table, ["video_id", "fused_key", "shard_idx", "text_source", "fusion_status"]
        ),
        "seconds": round(update.seconds, 3),
    }
    if update.rows is not None:
        shown["dagster/row_count"] = update.rows
    return shown


def _lock_fields(data: bytes) -> dict[str, Any]:
    import json

    fields: dict[str, Any] = json.loads(data)
    return fields
