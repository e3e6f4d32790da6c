"""What a deployment's memes are: the labels that are partitions, and where files lie.

``CLIPFARM_MEMES_CONFIG`` holds a JSON object of the fields of `MemeSettings`, e.g.
``{"labels": ["abuse_hate", "sarcasm"]}``; what it leaves out has its default.
"""

import os
from collections.abc import Mapping
from typing import Final

from pydantic import Field, field_validator

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_LABEL, check_label
from clipfarm_assets.orchestration.pipeline_settings import PipelineSettings, settings_from
from clipfarm_assets.storage.meme_layout import MemeLayout

VARIABLE: Final = "CLIPFARM_MEMES_CONFIG"

_LAYOUT: Final = MemeLayout()


class MemeSettings(PipelineSettings):
    """The deployment's setting.

    Attributes:
        labels: Each a partition of experts, fusion model and evaluation; the store's taxonomy must
            have them.
        prefix: First part of every key.
        manifest_key, ocr_key, images_prefix, taxonomy_key: See `MemeLayout`.
    """

    labels: tuple[str, ...] = Field(default=(DEFAULT_LABEL,), min_length=1)
    prefix: str = _LAYOUT.prefix
    manifest_key: str = _LAYOUT.manifest_key
    ocr_key: str = _LAYOUT.ocr_key
    images_prefix: str = _LAYOUT.images_prefix
    taxonomy_key: str = _LAYOUT.taxonomy_key

    @field_validator("labels")
    @classmethod
    def _check_labels(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            check_label(label)
        if len(set(labels)) < len(labels):
            msg = "must name each label once"
            raise ValueError(msg)
        return labels

    @property
    def layout(self) -> MemeLayout:
        """Where files lie.

        Raises:
            OutsideStore: A key can't be one.
        """
        return MemeLayout(
            prefix=self.prefix,
            manifest_key=self.manifest_key,
            ocr_key=self.ocr_key,
            images_prefix=self.images_prefix,
            taxonomy_key=self.taxonomy_key,
        )


def meme_settings(environ: Mapping[str, str] = os.environ) -> MemeSettings:
    """The setting that the environment holds.

    Raises:
        ValueError: It is no JSON object, a field doesn't exist, or a value isn't the field's; one
            sentence says what was expected and found.
    """
    return settings_from(environ, VARIABLE, MemeSettings)
