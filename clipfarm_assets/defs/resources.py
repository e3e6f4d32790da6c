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

Credentials are never read here: the S3 client finds them as any AWS client does.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster_aws.s3 import S3Resource

from clipfarm_assets.encoders.models import encoder_profile
from clipfarm_assets.orchestration.io_managers import ParquetByPartition, TrainingDataIO
from clipfarm_assets.orchestration.meme_settings import meme_settings
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.orchestration.song_settings import song_settings

LEDGER_VARIABLE: Final = "CLIPFARM_LEDGER"


def home(environ: Mapping[str, str]) -> Path:
    """The folder for what is neither the store's nor Dagster's."""
    if environ.get("CLIPFARM_HOME"):
        return Path(environ["CLIPFARM_HOME"]).expanduser().absolute()
    if environ.get("DAGSTER_HOME"):
        return Path(environ["DAGSTER_HOME"]).expanduser().absolute() / "clipfarm"
    return Path("~/.clipfarm").expanduser()


def resources_from(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """The resources of the definitions.

    Raises:
        ValueError: A variable has a value it can't have; says which it can.
    """
    here = home(environ)
    s3 = S3Resource(
        endpoint_url=environ.get("CLIPFARM_S3_ENDPOINT")
        or environ.get("AWS_ENDPOINT_URL_S3")
        or environ.get("AWS_ENDPOINT_URL"),
        region_name=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION"),
        profile_name=environ.get("AWS_PROFILE"),
    )
    memes = meme_settings(environ)
    songs = song_settings(environ)
    deployment = DeploymentResource(
        store=environ.get("CLIPFARM_STORE") or str(here / "store"),
        # By name: the UI shows a resource's settings, and this one may hold a password.
        ledger=dg.EnvVar(LEDGER_VARIABLE)
        if environ.get(LEDGER_VARIABLE)
        else f"sqlite:///{here / 'ledger.sqlite'}",
        metadata_key=environ.get("CLIPFARM_METADATA_KEY") or "metadata/shorts_metadata_horizon.csv",
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
        s3=s3,
    )
    return {
        "s3": s3,
        "deployment": deployment,
        "encoders": EncodersResource(
            profile=encoder_profile(environ), cache_dir=str(here / "stand-ins")
        ),
        "parquet_by_partition": ParquetByPartition(deployment=deployment),
        "training_data": TrainingDataIO(deployment=deployment),
    }
