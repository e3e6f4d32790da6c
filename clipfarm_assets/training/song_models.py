"""Which pretrained models songs use: from settings, environment and profile to files here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from clipfarm_assets.contracts.song_columns import Modality
from clipfarm_assets.encoders.models import (
    PRETRAINED,
    Profile,
    ResolvedModel,
    resolve_reference,
    resolved_directory,
)
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import DebertaText, PretrainedAudio

SongModelKind = Literal["deberta", "wav2vec2", "clap"]

SONG_MODEL_VARIABLES: Final[Mapping[Modality, str]] = {
    "text": "CLIPFARM_SONG_TEXT_MODEL",
    "audio": "CLIPFARM_SONG_AUDIO_MODEL",
}

# Commits of the hub's repositories, so that a change there cannot change a model here.
PRETRAINED_SONG_MODELS: Final[Mapping[SongModelKind, str]] = {
    "deberta": "microsoft/deberta-v3-base@8ccc9b6f36199bec6961081d44eb72fb3f7353f3",
    "wav2vec2": "@".join(PRETRAINED["audio"]),
    "clap": "laion/clap-htsat-unfused@8fa0f1c6d0433df6e97c127f64b2a1d6c0dcda8a",
}


def network_models(
    config: SongConfig, *, profile: Profile, cache_dir: Path
) -> dict[Modality, ResolvedModel]:
    """The pretrained models that run in a network, by modality; none for what is precomputed.

    Args:
        config: Says which encoders.
        profile: Whose models are taken where neither settings nor environment name one.
        cache_dir: Folder for the stand-ins of the demo profile; made if absent.

    Raises:
        ModelUnavailable: One cannot be found or downloaded.
    """
    found: dict[Modality, ResolvedModel] = {}
    text, audio = config.model.text_encoder, config.model.audio_encoder
    if isinstance(text, DebertaText):
        found["text"] = text_model(config, profile=profile, cache_dir=cache_dir)
    if isinstance(audio, PretrainedAudio) and not audio.precomputed:
        found["audio"] = audio_model(config, profile=profile, cache_dir=cache_dir)
    return found


def text_model(config: SongConfig, *, profile: Profile, cache_dir: Path) -> ResolvedModel:
    """The DeBERTa of the settings, wherever it runs: in a network, or before training.

    Raises:
        ModelUnavailable: It cannot be found or downloaded.
    """
    named = config.model.text_encoder.model
    return _resolved("text", "deberta", named, profile=profile, cache_dir=cache_dir)


def audio_model(config: SongConfig, *, profile: Profile, cache_dir: Path) -> ResolvedModel:
    """The wav2vec 2.0 or CLAP of the settings, wherever it runs.

    Raises:
        ModelUnavailable: It cannot be found or downloaded.
        ValueError: The audio encoder is none that is pretrained.
    """
    encoder = config.model.audio_encoder
    if encoder.type == "cnn":
        msg = "the audio encoder 'cnn' has no pretrained model: expected 'wav2vec2' or 'clap'"
        raise ValueError(msg)
    return _resolved("audio", encoder.type, encoder.model, profile=profile, cache_dir=cache_dir)


def _resolved(
    modality: Modality,
    kind: SongModelKind,
    named: str | None,
    *,
    profile: Profile,
    cache_dir: Path,
) -> ResolvedModel:
    """The first of these that is set: the settings, the environment, the profile's."""
    variable = SONG_MODEL_VARIABLES[modality]
    if named:
        origin = f"config.model.{modality}_encoder.model"
        return resolve_reference(named, origin, variable=variable)
    if told := os.environ.get(variable):
        return resolve_reference(told, variable, variable=variable)
    if profile == "demo":
        folder = _stand_in(kind, cache_dir)
        return resolved_directory(folder, folder.name)
    pinned = PRETRAINED_SONG_MODELS[kind]
    return resolve_reference(pinned, "the pinned model", variable=variable)


def _stand_in(kind: SongModelKind, cache_dir: Path) -> Path:
    if kind == "wav2vec2":
        from clipfarm_assets.encoders.demo_models import stand_in_dir

        return stand_in_dir("audio", cache_dir)
    from clipfarm_assets.training.song_encoders.stand_ins import stand_in_clap, stand_in_deberta

    return stand_in_clap(cache_dir) if kind == "clap" else stand_in_deberta(cache_dir)
