"""From the environment to resources: names and addresses only, no I/O.

* ``CLIPFARM_STORE``: folder or ``s3://bucket[/prefix]``; default ``<home>/store``
* ``CLIPFARM_HOME``: ledger and stand-in models; default ``$DAGSTER_HOME/clipfarm``, else
  ``~/.clipfarm``
* ``CLIPFARM_LEDGER``: SQLAlchemy URL of the ledger; default ``sqlite:///<home>/ledger.sqlite``
* ``CLIPFARM_METADATA_KEY``: key of the CSV, below the prefix ``clipfarm/``
* ``CLIPFARM_ENCODERS``: ``pretrained`` (the default) or ``demo``
* ``CLIPFARM_MEMES_CONFIG``: labels of memes, and where their files lie; see `meme_settings`
* ``CLIPFARM_SONGS_CONFIG``: where songs' files lie, and how they are learned; see `song_settings`
* ``CLIPFARM_S3_ENDPOINT``: another S3 server than AWS; default ``AWS_ENDPOINT_URL``
* ``CLIPFARM_S3_RETRIES``, ``CLIPFARM_S3_RETRY_SECONDS``, ``CLIPFARM_S3_TIMEOUT_SECONDS``: how often
  and how long a request is repeated, and what one may take; see `S3Settings`

Credentials are never read here: the S3 client finds them as any AWS client does.
"""

import os
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from clipfarm_assets.orchestration.io_managers import ParquetByPartition, TrainingDataIO
from clipfarm_assets.orchestration.meme_settings import meme_settings
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.orchestration.song_settings import song_settings
from clipfarm_assets.pipelines.environment import LEDGER_VARIABLE, deployment_settings


def resources_from(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The resources of the definitions.

    Raises:
        ValueError: A variable has a value it can't have; says which it can.
    """
    settings = deployment_settings(environ)
    s3 = S3Resource(
        endpoint_url=settings.s3.endpoint_url,
        region_name=settings.s3.region_name,
        profile_name=settings.s3.profile_name,
        max_attempts=settings.s3.retries,
    )
    memes = meme_settings(environ)
    songs = song_settings(environ)
    deployment = DeploymentResource(
        store=settings.store,
        # By name: the UI shows a resource's settings, and this one may hold a password.
        ledger=dg.EnvVar(LEDGER_VARIABLE) if environ.get(LEDGER_VARIABLE) else settings.ledger,
        metadata_key=settings.layout.metadata_key,
        memes_prefix=memes.prefix,
        memes_manifest_key=memes.manifest_key,
        memes_ocr_key=memes.ocr_key,
        memes_images_prefix=memes.images_prefix,
        memes_taxonomy_key=memes.taxonomy_key,
        songs_prefix=songs.prefix,
        songs_metadata_key=songs.metadata_key,
        songs_media_key=songs.media_key,
        songs_files_prefix=songs.files_prefix,
        songs_config=songs.config_json,
        s3_timeout_seconds=settings.s3.timeout_seconds,
        s3_retry_seconds=settings.s3.retry_seconds,
        s3=s3,
    )
    return {
        "s3": s3,
        "deployment": deployment,
        "encoders": EncodersResource(profile=settings.profile, cache_dir=str(settings.stand_ins)),
        "parquet_by_partition": ParquetByPartition(deployment=deployment),
        "training_data": TrainingDataIO(deployment=deployment),
    }
