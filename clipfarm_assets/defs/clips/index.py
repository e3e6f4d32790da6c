"""The metadata CSV, observed, and the index made of it."""

import hashlib
from collections.abc import Mapping

import dagster as dg
import pyarrow as pa
from pydantic import Field

from clipfarm_assets.defs.clips import common
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.index import build_index, read_metadata


@dg.multi_observable_source_asset(
    specs=[
        dg.AssetSpec(
            common.METADATA,
            group_name=common.GROUP,
            owners=common.OWNERS,
            kinds={"csv"},
            code_version="1",
            metadata={"reads": "clipfarm/metadata/shorts_metadata_horizon.csv (configurable)"},
            description="The horizon CSV: one row a (video, horizon) observation. Written by the "
            "collector, only observed here: its data version is the hash of its content.",
        )
    ]
)
def metadata_horizon(deployment: DeploymentResource) -> dg.ObserveResult:
    """Hash the CSV."""
    with deployment.open() as opened:
        data = read_metadata(opened)
    name, digest = deployment.layout.metadata(), hashlib.sha256(data).hexdigest()
    return dg.ObserveResult(
        asset_key=common.METADATA,
        data_version=dg.DataVersion(digest),
        metadata={"key": name, "bytes": len(data), "sha256": digest},
    )


@defaults_from("CLIPFARM_INDEX_CONFIG")
class IndexConfig(dg.Config):
    """What counts as a clip's identity."""

    include_captured_at_in_hash: bool = Field(
        default=False,
        description="Make the capture time a part of source_hash: every recapture is then a new "
        "source, and its clip is embedded again.",
    )


@dg.asset(
    **common.asset_options(
        "clip_index",
        kinds={"polars", "parquet"},
        code_version="1",
        writes="clipfarm/index/date=<date>/clip_index.parquet",
    ),
    partitions_def=partitions.dates,
    deps=[common.METADATA],
    io_manager_key="parquet_by_partition",
    description="The clips whose latest capture falls on the date: one row each, with the hash of "
    "their source; and what was skipped in the CSV, and why.",
)
def clip_index(
    context: dg.AssetExecutionContext, config: IndexConfig, deployment: DeploymentResource
) -> Mapping[str, pa.Table]:
    """Read the CSV once for all dates of the run."""
    with deployment.open() as opened:
        index = build_index(
            opened,
            context.partition_keys,
            first_date=partitions.dates.get_first_partition_key(),
            last_date=partitions.dates.get_last_partition_key(),
            include_captured_at_in_hash=config.include_captured_at_in_hash,
        )
    if index.before_first:
        context.log.warning(
            "%d clips were captured before the first partition and are in no index; to take them "
            "in, set %s to %s or earlier and materialise their dates",
            len(index.before_first),
            partitions.START_DATE_VARIABLE,
            index.earliest,
        )
    file_facts = {
        "csv_rows": index.csv.rows.height,
        "clips_of_all_dates": index.latest.rows.height,
        "superseded_rows": index.latest.superseded,
        "timestamps_without_zone": index.latest.naive_timestamps,
        "missing_columns": ", ".join(index.csv.missing_columns) or "none",
        "undeclared_columns": ", ".join(index.csv.undeclared_columns) or "none",
        **{f"skipped/{reason}": n for reason, n in index.skip_counts().items()},
        "skipped_rows": metadata.records(index.skipped_rows()),
    }
    for date, table in index.by_date.items():
        context.add_asset_metadata(
            {
                "dagster/row_count": table.num_rows,
                "preview": metadata.preview(table, ["video_id", "captured_at", "title", "query"]),
                **file_facts,
            },
            partition_key=date,
        )
    return index.by_date
