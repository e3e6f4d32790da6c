"""What a deployment's songs are: where their files lie, and how they are prepared and learned.

``CLIPFARM_SONGS_CONFIG`` holds a JSON object of the fields of `SongSettings`, e.g.
``{"config": {"model": {"midi_encoder": {"type": "music_transformer"}}}}``; what it leaves out has
its default. It is the deployment's and not a run's, because alignment, features, models and checks
must go by the same one.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from pydantic import Field

from clipfarm_assets.orchestration.pipeline_settings import PipelineSettings, settings_from
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import SAMPLE_RATES, SongConfig, song_config

VARIABLE: Final = "CLIPFARM_SONGS_CONFIG"

_LAYOUT: Final = SongLayout()
_KIND: Final = "type"


class SongSettings(PipelineSettings):
    """The deployment's setting.

    Attributes:
        prefix: First part of every key.
        metadata_key, media_key, files_prefix: See `SongLayout`.
        config: What differs from the defaults of `SongConfig`, at whatever depth.
    """

    prefix: str = _LAYOUT.prefix
    metadata_key: str = _LAYOUT.metadata_key
    media_key: str = _LAYOUT.media_key
    files_prefix: str = _LAYOUT.files_prefix
    config: dict[str, Any] = Field(default_factory=dict)

    @property
    def layout(self) -> SongLayout:
        """Where files lie.

        Raises:
            OutsideStore: A key can't be one.
        """
        return SongLayout(
            prefix=self.prefix,
            metadata_key=self.metadata_key,
            media_key=self.media_key,
            files_prefix=self.files_prefix,
        )

    @property
    def config_json(self) -> str:
        """`config` as text, as resources have it."""
        return json.dumps(self.config, sort_keys=True)


def song_settings(environ: Mapping[str, str] = os.environ) -> SongSettings:
    """The setting that the environment holds.

    Raises:
        ValueError: It is no JSON object, a field doesn't exist, or a value isn't the field's; one
            sentence says what was expected and found.
    """
    settings = settings_from(environ, VARIABLE, SongSettings)
    song_config(settings.config, f"{VARIABLE}.config")
    return settings


def config_of_run(
    deployment: SongConfig, told: Mapping[str, Any], where: str = "config"
) -> SongConfig:
    """The deployment's settings with what a run is told in their place.

    An encoder that is told another ``type`` has that one's defaults, and nothing of the
    deployment's, whose settings are those of another kind; nor has the audio the sample rate that
    the deployment's encoder alone can have.

    Args:
        deployment: Its settings.
        told: Fields that differ from them, at whatever depth.
        where: What the fields' names begin with in errors.

    Raises:
        BadSongConfig: See `song_config`.
    """
    if not told:
        return deployment
    base = deployment.model_dump(mode="json", exclude_unset=True)
    own, other = deployment.model.audio_encoder.type, _told(told, "model", "audio_encoder", _KIND)
    if other not in (None, own) and own in SAMPLE_RATES:
        del base["preprocessing"]["audio"]["sample_rate"]
    return song_config(_merged(base, told), where)


def _told(told: Any, *names: str) -> Any:
    """What is told of a field; None for nothing, or for what is told of no field."""
    for name in names:
        told = told.get(name) if isinstance(told, Mapping) else None
    return told


def _merged(base: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for name, value in told.items():
        before = found.get(name)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            is_other = _KIND in value and value[_KIND] != before.get(_KIND, value[_KIND])
            found[name] = dict(value) if is_other else _merged(before, value)
        else:
            found[name] = value
    return found
