"""One door to the encoders: a modality and its settings in, a loaded encoder out."""

from pathlib import Path

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import EmbeddingVersion, Encoder
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models import Profile, embedding_version, resolve_model
from clipfarm_assets.encoders.models_lock import ModelsLock


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
    hash. So a run with nothing to do needs no torch to know it.

    Raises:
        ModelUnavailable: The model cannot be found or downloaded.
        ModelMismatch: The lock recorded other weights for this model.
    """
    resolved = resolve_model(modality, config, profile, cache_dir, models_lock=models_lock)
    for version in models_lock.versions().values():
        preprocess = _preprocess_version(modality)
        if version == embedding_version(modality, resolved, preprocess, config, version.dim):
            return version
    return None


def _preprocess_version(modality: Modality) -> str:
    from clipfarm_assets.encoders import audio, text, video

    versions: dict[Modality, str] = {
        "video": video.PREPROCESS_VERSION,
        "audio": audio.PREPROCESS_VERSION,
        "text": text.PREPROCESS_VERSION,
    }
    return versions[modality]


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

    Opening is what costs (imports, download, weights): do it once a process.

    Args:
        modality: What to embed.
        config: The modality's settings, e.g. a `VideoConfig` for video.
        profile: Which default models, see `models.encoder_profile`.
        cache_dir: Folder for the stand-ins of the demo profile; made if absent.
        models_lock: Where to pin what is opened, or None to pin nothing.

    Raises:
        ModelUnavailable: The model cannot be found, downloaded or loaded.
        ModelMismatch: The lock recorded other weights for this model.
        TypeError: `config` is not of the modality.
    """
    resolved = resolve_model(modality, config, profile, cache_dir, models_lock=models_lock)
    encoder: Encoder
    if modality == "video" and isinstance(config, VideoConfig):
        from clipfarm_assets.encoders.video import VideoEncoder

        encoder = VideoEncoder(resolved, config)
    elif modality == "audio" and isinstance(config, AudioConfig):
        from clipfarm_assets.encoders.audio import AudioEncoder

        encoder = AudioEncoder(resolved, config)
    elif modality == "text" and isinstance(config, TextConfig):
        from clipfarm_assets.encoders.text import TextEncoder

        encoder = TextEncoder(resolved, config)
    else:
        msg = f"expected the settings of a {modality} encoder, found {type(config).__name__}"
        raise TypeError(msg)
    return encoder
