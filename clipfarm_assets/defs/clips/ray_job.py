"""The job that `ray_jobs.submit` starts on a cluster: ``python -m …``, with Dagster Pipes."""

import json
import os
from typing import Any

import dagster as dg
from dagster_pipes import PipesContext, open_dagster_pipes

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.defs.clips.embeddings import RUNS, EmbedConfig, embed_dates
from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.encoders.config import EncoderConfig
from clipfarm_assets.orchestration.ray_jobs import report_fields
from clipfarm_assets.pipelines.turns import LeaseOptions
from clipfarm_assets.storage.tables import parquet_to_table


def work(pipes: PipesContext) -> dict[str, Any]:
    """Embed what the extras name; reports by date, or the fault that ended it."""
    modality: Modality = pipes.extras["modality"]
    config = RUNS[modality](**{**json.loads(pipes.extras["config"]), "ray_address": "auto"})
    assert isinstance(config, EmbedConfig)  # noqa: S101 - both of each run's parents
    assert isinstance(config, EncoderConfig)  # noqa: S101
    resources = resources_from(os.environ)
    deployment, encoders = resources["deployment"], resources["encoders"]
    leases = LeaseOptions(wait_seconds=config.lease_wait_seconds, run_id=pipes.extras["run_id"])
    store, layout = deployment.open_store(), deployment.layout
    try:
        index = {
            date: parquet_to_table(store.get(layout.clip_index(date)))
            for date in pipes.extras["dates"]
        }
        with deployment.open() as opened:
            reports = embed_dates(
                opened, encoders, modality, config, config, index, pipes.log.info, leases
            )
    except dg.Failure as failure:
        return {"fault": failure.description}
    return {"reports": {date: report_fields(report) for date, report in reports.items()}}


if __name__ == "__main__":
    with open_dagster_pipes() as pipes:
        pipes.report_custom_message(work(pipes))
