"""The Definitions, and nothing else."""

from collections.abc import Mapping

import dagster as dg

from clipfarm_assets.defs.clips import (
    checks,
    embeddings,
    fusion,
    index,
    jobs,
    sensors,
    serving,
    training,
    training_checks,
)
from clipfarm_assets.defs.memes import checks as meme_checks
from clipfarm_assets.defs.memes import data as meme_data
from clipfarm_assets.defs.memes import jobs as meme_jobs
from clipfarm_assets.defs.memes import models as meme_models
from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.defs.songs import checks as song_checks
from clipfarm_assets.defs.songs import data as song_data
from clipfarm_assets.defs.songs import jobs as song_jobs
from clipfarm_assets.defs.songs import models as song_models
from clipfarm_assets.defs.songs import prepared as song_prepared
from clipfarm_assets.orchestration import alert_sensors
from clipfarm_assets.orchestration.console import short_console
from clipfarm_assets.orchestration.executor import executor


def definitions(resources: Mapping[str, object]) -> dg.Definitions:
    """All assets, checks, jobs, schedules and sensors over these resources."""
    return dg.Definitions(
        assets=dg.load_assets_from_modules(
            [
                index,
                embeddings,
                fusion,
                training,
                serving,
                meme_data,
                meme_models,
                song_data,
                song_prepared,
                song_models,
            ]
        ),
        asset_checks=[
            *checks.ALL,
            *training_checks.ALL,
            *meme_checks.ALL,
            *song_checks.ALL,
        ],
        jobs=[*jobs.ALL_JOBS, *meme_jobs.ALL_JOBS, *song_jobs.ALL_JOBS],
        schedules=[jobs.clips_nightly],
        sensors=[jobs.clips_automation, *sensors.ALL, *alert_sensors.ALL],
        resources=resources,
        executor=executor,
        loggers={"console": short_console},
    )


defs = definitions(resources_from())
