"""How features of each kind are computed, and the versions that follow from that.

A segment's features are computed by themselves, one segment a forward: so they do not depend on its
neighbours, bit for bit.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.models import Profile, ResolvedModel, encoder_profile
from clipfarm_assets.encoders.waveforms.mel import MEL_VERSION, log_mel
from clipfarm_assets.encoders.waveforms.prepare import PREPROCESS_VERSION
from clipfarm_assets.storage.song_layout import FeatureKind
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_encoder_config import (
    ClapAudio,
    CnnAudio,
    DebertaText,
    PrecomputedText,
    Wav2Vec2Audio,
)
from clipfarm_assets.training.song_models import audio_model, text_model

if TYPE_CHECKING:
    from clipfarm_assets.training.song_encoders.base import SongEncoder

_TEXT_VERSION: Final = "song-text-1"
_AUDIO_VERSION: Final = "song-audio-1"
_ELSEWHERE: Final = {"model", "top_layers", "precomputed", "stored_dim"}
"""Settings of an encoder that decide nothing of what it gives."""


class WrongWidth(ValueError):  # noqa: N818
    """A model's vectors are not as wide as the settings say: a structural fault."""


class Maker(Protocol):
    """Computes one kind of features."""

    kind: FeatureKind
    version: str
    model: ResolvedModel | None

    def make(self, prepared: Any) -> NDArray[np.float32]:
        """Of one segment: of its waveform ``[samples]`` as preprocessed, or of its words."""
        ...


def kinds_of(config: SongConfig) -> tuple[FeatureKind, ...]:
    """What a network of these settings can read instead of computing it."""
    kinds: list[FeatureKind] = []
    text, audio = config.model.text_encoder, config.model.audio_encoder
    if isinstance(text, PrecomputedText):
        kinds.append("text")
    if isinstance(audio, CnnAudio):
        kinds.append("spectrogram")
    elif audio.precomputed:
        kinds.append("audio")
    return tuple(kinds)


def feature_version(
    kind: FeatureKind,
    config: SongConfig,
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> str:
    """Names all that features follow from beside the segment, e.g. ``text-3f5c0a9d1b22e4f7``.

    Loads no model; of one, its files are hashed.

    Args:
        kind: Which.
        config: Says how they are made.
        cache_dir: Folder for stand-ins of models; needed if the profile is ``demo``.
        profile: Whose models are taken; by default the environment's.

    Raises:
        ModelUnavailable: The model cannot be found or downloaded.
        ValueError: The settings have none.
    """
    return _version(kind, config, _model(kind, config, cache_dir, profile))


def open_maker(
    kind: FeatureKind,
    config: SongConfig,
    *,
    cache_dir: Path | None = None,
    profile: Profile | None = None,
) -> Maker:
    """What computes a kind; loads its model when it is first called.

    Raises:
        ModelUnavailable, ValueError: See `feature_version`.
    """
    model = _model(kind, config, cache_dir, profile)
    version = _version(kind, config, model)
    if model is None:
        return SpectrogramMaker(config, version)
    if kind == "text":
        return TextMaker(config, version, model)
    return AudioMaker(config, version, model)


class SpectrogramMaker:
    """Log-mel spectrograms, ``[n_mels, frames]``."""

    kind: FeatureKind = "spectrogram"
    model: ResolvedModel | None = None

    def __init__(self, config: SongConfig, version: str) -> None:
        """See `open_maker`."""
        self.version = version
        self._settings = config.preprocessing.audio.mel_settings

    def make(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of a waveform ``[samples]``."""
        return log_mel(prepared, self._settings)


class AudioMaker:
    """Tokens of a pretrained audio encoder, ``[T, dim]``, all of them real."""

    kind: FeatureKind = "audio"

    def __init__(self, config: SongConfig, version: str, model: ResolvedModel) -> None:
        """See `open_maker`."""
        self.version = version
        self.model: ResolvedModel | None = model
        self._config, self._folder = config, model.path
        self._encoder: SongEncoder | None = None

    def make(self, prepared: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of a waveform ``[samples]``."""
        import torch

        if self._encoder is None:
            self._encoder = self._load()
        with torch.inference_mode():
            tokens = self._encoder(samples=torch.from_numpy(prepared).unsqueeze(0))
        values: NDArray[np.float32] = tokens.values[0].float().numpy()
        return values

    def _load(self) -> "SongEncoder":
        from clipfarm_assets.training.song_encoders.audio import ClapEncoder, Wav2Vec2Encoder

        settings = self._config.model.audio_encoder
        rate = self._config.preprocessing.audio.sample_rate
        encoder: SongEncoder
        if isinstance(settings, Wav2Vec2Audio):
            encoder = Wav2Vec2Encoder.load(self._folder, settings, rate)
        elif isinstance(settings, ClapAudio):
            encoder = ClapEncoder.load(self._folder, settings, rate)
        else:  # `audio_model` refused it
            msg = f"expected a pretrained audio encoder, found {settings.type!r}"
            raise TypeError(msg)
        _check_width("audio_encoder.stored_dim", encoder.dim, settings.stored_dim)
        return encoder


class TextMaker:
    """The mean of DeBERTa's last hidden states over a text's tokens, ``[dim]``.

    Attributes:
        tokens_cut: Tokens beyond the maximum, of all texts so far.
        texts_cut: Texts that had such.
    """

    kind: FeatureKind = "text"

    def __init__(self, config: SongConfig, version: str, model: ResolvedModel) -> None:
        """See `open_maker`."""
        self.version = version
        self.model: ResolvedModel | None = model
        self.tokens_cut = self.texts_cut = 0
        self._config, self._folder = config, model.path
        self._opened: tuple[Any, SongEncoder] | None = None

    def make(self, prepared: str) -> NDArray[np.float32]:
        """Of a text."""
        import torch

        if self._opened is None:
            self._opened = self._load()
        tokenizer, encoder = self._opened
        found = tokenizer([prepared])
        cut = sum(found.cut)
        self.tokens_cut += cut
        self.texts_cut += cut > 0
        with torch.inference_mode():
            pooled = encoder.pooled(**found.inputs)
        values: NDArray[np.float32] = pooled[0].float().numpy()
        return values

    def _load(self) -> "tuple[Any, SongEncoder]":
        from clipfarm_assets.training.song_encoders.text import DebertaEncoder, LyricTokenizer

        settings = self._config.model.text_encoder
        encoder = DebertaEncoder.load(self._folder, DebertaText(max_tokens=settings.max_tokens))
        if isinstance(settings, PrecomputedText):
            _check_width("text_encoder.dim", encoder.dim, settings.dim)
        return LyricTokenizer(self._folder, settings.max_tokens), encoder


def _model(
    kind: FeatureKind, config: SongConfig, cache_dir: Path | None, profile: Profile | None
) -> ResolvedModel | None:
    if kind == "spectrogram":
        return None
    profile = profile or encoder_profile()
    if cache_dir is None:
        if profile == "demo":
            msg = f"{kind} features need a folder for the demo profile's models: give cache_dir"
            raise ValueError(msg)
        cache_dir = Path()  # only stand-ins are kept there
    find = text_model if kind == "text" else audio_model
    return find(config, profile=profile, cache_dir=cache_dir)


def _version(kind: FeatureKind, config: SongConfig, model: ResolvedModel | None) -> str:
    audio = config.preprocessing.audio
    fields: dict[str, Any] = {"kind": kind}
    if model is not None:
        fields["weights_sha256"] = model.weights_sha256
    if kind == "text":
        encoder = config.model.text_encoder
        fields |= {"made": _TEXT_VERSION, "max_tokens": encoder.max_tokens, "pooling": "mean"}
    else:
        fields["waveform"] = [PREPROCESS_VERSION, asdict(audio.waveform_settings)]
    if kind == "spectrogram":
        fields["mel"] = [MEL_VERSION, asdict(audio.mel_settings)]
    if kind == "audio":
        settings = config.model.audio_encoder.model_dump(mode="json", exclude=_ELSEWHERE)
        fields |= {"made": _AUDIO_VERSION, "encoder": settings}
    return f"{kind}-{_short_hash(fields)}"


def _short_hash(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _check_width(field: str, found: int, told: int) -> None:
    if found != told:
        what = "the width of the model's vectors"
        msg = f"config.model.{field} must be {what}, {found}: found {told}"
        raise WrongWidth(msg)
