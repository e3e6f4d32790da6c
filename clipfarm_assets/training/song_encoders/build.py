"""From settings to encoders, and to the network that fuses them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from clipfarm_assets.contracts.song_columns import MODALITIES, Modality
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.fusion.learned.tokens import StoredEncoder, Tokens, masked_mean
from clipfarm_assets.fusion.options import StrategyName
from clipfarm_assets.training.networks.reproducible import reproducible
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import (
    ClapAudio,
    CnnAudio,
    DebertaText,
    MusicTransformerMidi,
    PianoRollMidi,
    PrecomputedText,
    Wav2Vec2Audio,
)
from clipfarm_assets.training.song_encoders.audio import ClapEncoder, MelCnn, Wav2Vec2Encoder
from clipfarm_assets.training.song_encoders.midi import EventTransformer, PianoRollCnn
from clipfarm_assets.training.song_encoders.text import DebertaEncoder


class PrecomputedEncoder(StoredEncoder):
    """Vectors that were encoded before training."""

    def pooled(self, **inputs: Tensor) -> Tensor:
        """As `SongEncoder.pooled`."""
        return masked_mean(self(**inputs))


def build_encoders(
    config: SongConfig, folders: Mapping[Modality, Path] | None = None
) -> dict[str, nn.Module]:
    """An encoder a modality, in the order of `MODALITIES`.

    Those from scratch are drawn from torch's generator as it stands; see `reproducible`.

    Args:
        config: Says which.
        folders: Model directories of the pretrained ones that run in the network, see
            `network_models`.

    Raises:
        ModelUnavailable: A pretrained model's files cannot be loaded, or don't go with `config`.
        NoLayers: More of its layers are to be trained than there are.
        ValueError: A directory is needed and not given.
    """
    given = folders or {}
    return {
        "text": _text(config, given),
        "audio": _audio(config, given),
        "midi": _midi(config),
    }


def build_network(
    config: SongConfig,
    classes: int,
    folders: Mapping[Modality, Path] | None = None,
    *,
    strategy: StrategyName | None = None,
    modalities: Sequence[Modality] = MODALITIES,
) -> FusionNetwork:
    """Encoders, fusion and heads, drawn from ``config.training.seed``.

    Args:
        config: What it is made of.
        classes: Width of the logits.
        folders: As in `build_encoders`.
        strategy: In place of the configuration's.
        modalities: Those that it has.

    Raises:
        ModelUnavailable: As in `build_encoders`.
        NoLayers: As there.
        ValueError: As there; or the strategy needs two modalities.
    """
    with reproducible(config.training.seed):
        encoders = build_encoders(config, folders)
        return FusionNetwork(
            {name: encoders[name] for name in modalities},
            config.fusion_options(strategy),
            classes=classes,
        )


def embedding(network: FusionNetwork, modality: Modality, **inputs: Tensor) -> Tensor:
    """What a network makes of one modality before it is fused, ``[B, hidden_dim]``.

    Encoders of any width come to the same one here: the mean of the projected tokens.

    Args:
        network: Of `build_network`.
        modality: Which.
        **inputs: Its encoder's arguments.
    """
    tokens: Tokens = network.encoders[modality](**inputs)
    values = torch.where(tokens.mask.unsqueeze(2), tokens.values, 0)
    return masked_mean(Tokens(network.projections[modality](values), tokens.mask))


def _text(config: SongConfig, folders: Mapping[Modality, Path]) -> nn.Module:
    encoder = config.model.text_encoder
    if isinstance(encoder, PrecomputedText):
        return PrecomputedEncoder(encoder.dim)
    return DebertaEncoder.load(_folder(folders, "text", encoder), encoder)


def _audio(config: SongConfig, folders: Mapping[Modality, Path]) -> nn.Module:
    encoder, audio = config.model.audio_encoder, config.preprocessing.audio
    if isinstance(encoder, CnnAudio):
        return MelCnn(audio.mel_settings, config.model.hidden_dim, encoder)
    if encoder.precomputed:
        return PrecomputedEncoder(encoder.stored_dim)
    folder = _folder(folders, "audio", encoder)
    if isinstance(encoder, Wav2Vec2Audio):
        return Wav2Vec2Encoder.load(folder, encoder, audio.sample_rate)
    return ClapEncoder.load(folder, encoder, audio.sample_rate)


def _midi(config: SongConfig) -> nn.Module:
    encoder, dim = config.model.midi_encoder, config.model.hidden_dim
    midi = config.preprocessing.midi
    if isinstance(encoder, PianoRollMidi):
        low, high = midi.pitches
        return PianoRollCnn(high - low, dim, encoder)
    settings = midi.token_settings(encoder.vocabulary)
    return EventTransformer(
        settings.vocabulary().size,
        dim,
        encoder,
        bar_positions=settings.longest_bar if isinstance(encoder, MusicTransformerMidi) else None,
    )


def _folder(
    folders: Mapping[Modality, Path],
    modality: Modality,
    encoder: DebertaText | Wav2Vec2Audio | ClapAudio,
) -> Path:
    if modality not in folders:
        msg = (
            f"the {modality} encoder {encoder.type!r} needs a model directory: expected one of "
            f"{modality} in `folders`, found {sorted(folders)}; see `network_models`"
        )
        raise ValueError(msg)
    return folders[modality]
