"""Which embedding version each encoder would make, as far as it can be told without loading it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.encoders.config import EncoderConfig
from clipfarm_assets.encoders.models import ModelUnavailable, Profile
from clipfarm_assets.encoders.open import version_on_record
from clipfarm_assets.pipelines.deployment import Deployment


@dataclass(frozen=True)
class PlannedEncoder:
    """What a modality's vectors would be made with.

    Attributes:
        version: On record, or a stand-in for one that no vector was made with yet.
        note: What is supposed of it; empty where it is on record.
    """

    version: EmbeddingVersion
    note: str = ""


def planned_encoders(
    deployment: Deployment,
    configs: Mapping[Modality, EncoderConfig],
    profile: Profile,
    stand_ins: Path,
) -> dict[Modality, PlannedEncoder]:
    """The encoders that the deployment's settings name.

    Raises:
        ModelMismatch: One of them must not be used here.
        ValueError: The settings contradict each other, or the models lock is malformed.
    """
    return {
        modality: _planned(deployment, modality, configs[modality], profile, stand_ins)
        for modality in MODALITIES
    }


def _planned(
    deployment: Deployment,
    modality: Modality,
    config: EncoderConfig,
    profile: Profile,
    stand_ins: Path,
) -> PlannedEncoder:
    lock = deployment.models_lock()
    try:
        version = version_on_record(
            modality, config, profile=profile, cache_dir=stand_ins, models_lock=lock
        )
    except ModelUnavailable as unknown:
        latest = deployment.ledger.latest(statuses.embedding_stage(modality), statuses.SUCCESS)
        made_with = lock.version(latest.version) if latest and latest.version else None
        if made_with is None:
            return PlannedEncoder(_unmade(modality), f"{modality} encoder: {unknown}")
        note = f"{modality} encoder: taken to be {made_with.id}, as before; {unknown}"
        return PlannedEncoder(made_with, note)
    if version is not None:
        return PlannedEncoder(version)
    note = f"{modality} encoder: no vector here was made with the model and parameters that are set"
    return PlannedEncoder(_unmade(modality), note)


def _unmade(modality: Modality) -> EmbeddingVersion:
    """A version that differs from any that made a vector."""
    return EmbeddingVersion(modality, "(not loaded yet)", "", "", "", {}, 0)
