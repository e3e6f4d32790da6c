"""What all assets of the song pipeline have in common."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final

import dagster as dg
from pydantic import Field

from clipfarm_assets.defs import options
from clipfarm_assets.defs.options import OWNERS, TRAINING_POOL, say
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.each_partition import PartitionGone
from clipfarm_assets.orchestration.settings import BadSettings
from clipfarm_assets.orchestration.song_settings import config_of_run
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs.segments import read_segments
from clipfarm_assets.training.song_config import SongConfig

__all__ = ["OWNERS", "TRAINING_POOL", "say"]

GROUP: Final = "songs"

key: Final = partial(options.asset_key, GROUP)
asset_options: Final = partial(options.asset_options, GROUP)

METADATA: Final = key("segments_metadata")
MEDIA: Final = key("segments_media")
SPLITS: Final = key("splits")
ALIGNMENT: Final = key("alignment")
FEATURES: Final = key("features")
FUSION_MODELS: Final = key("fusion_models")
COMPARISON: Final = key("strategy_comparison")

IS_STAND_IN: Final = (
    "is a stand-in with random weights: it shows that everything runs, and understands nothing"
)


class SongRun(dg.Config):
    """Settings of one run."""

    config: dict[str, Any] = Field(
        default={},
        description="Settings in place of the deployment's, for this run alone, e.g. "
        '{"training": {"fit": {"max_epochs": 3}}}: see training/song_config.py. What runs and '
        "checks are to agree on belongs into CLIPFARM_SONGS_CONFIG.",
    )

    def over(self, deployment: Deployment, asset: dg.AssetKey) -> SongConfig:
        """All settings of the run.

        Raises:
            BadSongConfig: One doesn't exist, or hasn't a value that it can have.
        """
        return config_of_run(deployment.song_config, self.config, f"{asset.path[-1]}.config")


def albums_by_key(albums: Iterable[str]) -> dict[str, str]:
    """Partition -> album.

    Raises:
        BadSettings: Two albums would be one partition.
    """
    found: dict[str, str] = {}
    for album in albums:
        other = found.setdefault(partitions.album_key(album), album)
        if other != album:
            msg = (
                f"albums {other!r} and {album!r} would be one partition, as Dagster allows no "
                "'...' in partitions' names: rename one"
            )
            raise BadSettings(msg)
    return found


def album_of(deployment: Deployment, partition: str) -> str:
    """The album that a partition stands for.

    Raises:
        PartitionGone: The metadata has no such album (any more).
        BadSettings: Two albums would be one partition.
        NoSegments, BadSegments, BadTable: See `read_segments`.
    """
    columns = deployment.song_config.data.columns
    albums = read_segments(deployment.store, deployment.songs, columns).albums
    return _known(albums_by_key(albums), partition, deployment)


def _known(albums: Mapping[str, str], partition: str, deployment: Deployment) -> str:
    if partition not in albums:
        msg = (
            f"partition {partition!r} is no album of {deployment.songs.metadata()} (any more), "
            f"which has {', '.join(sorted(albums)) or 'none'}: run the job songs_observe, which "
            "adds the albums there are"
        )
        raise PartitionGone(msg)
    return albums[partition]
