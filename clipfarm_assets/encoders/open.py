"""One door to the encoders: a modality and its settings in, a loaded encoder out."""

from pathlib import Path

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoder
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models import (
    ModelUnavailable,
    Profile,
    ResolvedModel,
    embedding_version,
    model_on_record,
    resolve_model,
)
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.precision.build import build_fingerprint
from clipfarm_assets.encoders.precision.equivalence import (
    PreciseEncoder,
    gate,
    recorded_verdict,
    refuse_two_versions,
)


def known_version(
    modality: Modality,
    config: EncoderConfig,
    *,
    profile: Profile,
    cache_dir: Path,
    models_lock: ModelsLock,
) -> EmbeddingVersion | None:
    """The version that `open_encoder` would give, if the models lock has it; loads no model.

    What only a loaded model tells, its dimension, follows from its files, and these are compared by
    hash. So a run with nothing to do needs no torch to know it. Where a faster precision was asked
    for, the verdict on record for this build decides; without one the version is not known.

    Raises:
        ModelUnavailable: The model cannot be found or downloaded.
        ModelMismatch: The lock recorded other weights for this model, or the verdict would part
            this machine from the deployment's others.
    """
    resolved = resolve_model(modality, config, profile, cache_dir, models_lock=models_lock)
    return _recorded_version(modality, resolved, config, models_lock)


def version_on_record(
    modality: Modality,
    config: EncoderConfig,
    *,
    profile: Profile,
    cache_dir: Path,
    models_lock: ModelsLock,
) -> EmbeddingVersion | None:
    """As `known_version`, for whoever only looks: nothing is downloaded, built or recorded.

    None also means a version that made no vector here yet.

    Raises:
        ModelUnavailable: Only building or loading the model would tell.
    """
    resolved = model_on_record(modality, config, profile, cache_dir, models_lock)
    if resolved is None:
        return None
    version = _recorded_version(modality, resolved, config, models_lock)
    if version is None and config.precision != "exact":
        msg = (
            f"whether {modality} vectors are made at {config.precision} or exactly, the next run "
            "finds out: no verdict is on record for this machine"
        )
        raise ModelUnavailable(msg)
    return version


def _recorded_version(
    modality: Modality, resolved: ResolvedModel, config: EncoderConfig, models_lock: ModelsLock
) -> EmbeddingVersion | None:
    versions = models_lock.versions()
    for dim in sorted({version.dim for version in versions.values()}):
        version = _version_of(modality, resolved, config, dim, models_lock)
        if version is not None and version.id in versions:
            return version
    return None


def _version_of(
    modality: Modality,
    resolved: ResolvedModel,
    config: EncoderConfig,
    dim: int,
    models_lock: ModelsLock,
) -> EmbeddingVersion | None:
    """The version if the model has `dim` dimensions; None if no verdict is on record for it."""
    preprocess = _preprocess_version(modality)
    asked = embedding_version(modality, resolved, preprocess, config, dim)
    if config.precision == "exact":
        return asked
    settings = config.model_copy(update={"precision": "exact"})
    exact = embedding_version(modality, resolved, preprocess, settings, dim)
    build = build_fingerprint(config.device)
    if build is None:
        return None
    verdict = recorded_verdict(exact, config.precision, build, models_lock)
    if verdict is None:
        return None
    refuse_two_versions(exact, asked, verdict, models_lock)
    return asked if verdict.holds else exact


def _preprocess_version(modality: Modality) -> str:
    if modality == "video":
        from clipfarm_assets.encoders.video import encoder as video

        return video.PREPROCESS_VERSION
    if modality == "audio":
        from clipfarm_assets.encoders.audio import encoder as audio

        return audio.PREPROCESS_VERSION
    from clipfarm_assets.encoders.text import encoder as text

    return text.PREPROCESS_VERSION


def open_encoder(
    modality: Modality,
    config: EncoderConfig,
    *,
    profile: Profile,
    cache_dir: Path,
    models_lock: ModelsLock | None,
) -> Encoder:
    """Resolve the model, verify and record it in the models lock, load it.

    Its version is the caller's to `ModelsLock.admit`, when vectors are about to be made.

    Where a faster precision was asked for, it comes at that one only if the canaries show it to be
    equivalent, see `gate`; ``equivalence`` says what was found.

    Opening is what costs (imports, download, weights): do it once a process.

    Args:
        modality: What to embed.
        config: The modality's settings, e.g. a `VideoConfig` for video.
        profile: Which default models, see `models.encoder_profile`.
        cache_dir: Folder for the stand-ins of the demo profile; made if absent.
        models_lock: Where to pin what is opened, or None to pin nothing.

    Raises:
        ModelUnavailable: The model cannot be found, downloaded or loaded.
        ModelMismatch: The lock recorded other weights for this model, or the gate's verdict would
            part this machine from the deployment's others.
        TypeError: `config` is not of the modality.
    """
    resolved = resolve_model(modality, config, profile, cache_dir, models_lock=models_lock)
    encoder = _load(modality, resolved, config)
    if config.precision == "exact":
        return encoder
    build = build_fingerprint(config.device)
    if build is None:  # torch is loaded by now
        msg = f"expected torch to tell the device {config.device}, found nothing"
        raise RuntimeError(msg)
    return gate(encoder, config.precision, build, models_lock)


def _load(modality: Modality, resolved: ResolvedModel, config: EncoderConfig) -> PreciseEncoder:
    if modality == "video" and isinstance(config, VideoConfig):
        from clipfarm_assets.encoders.video.encoder import VideoEncoder

        return VideoEncoder(resolved, config)
    if modality == "audio" and isinstance(config, AudioConfig):
        from clipfarm_assets.encoders.audio.encoder import AudioEncoder

        return AudioEncoder(resolved, config)
    if modality == "text" and isinstance(config, TextConfig):
        from clipfarm_assets.encoders.text.encoder import TextEncoder

        return TextEncoder(resolved, config)
    msg = f"expected the settings of a {modality} encoder, found {type(config).__name__}"
    raise TypeError(msg)
