"""Audio: wav2vec 2.0, CLAP's audio half, or convolutions over log-mel spectrograms.

All take waveforms of one length, which preprocessing gives, and no mask: wav2vec 2.0's first layer
normalises over time and CLAP repeats what is short, so that a row padded to its neighbours' length
would get other tokens.
"""

from pathlib import Path
from typing import Any, Final, Self

import torch
import transformers
from torch import Tensor

from clipfarm_assets.encoders.loading import load_model
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.encoders.waveforms.mel import MelSettings, log_mel_torch
from clipfarm_assets.fusion.learned.tokens import Tokens
from clipfarm_assets.training.song_encoder_config import ClapAudio, CnnAudio, Wav2Vec2Audio
from clipfarm_assets.training.song_encoders.base import (
    PretrainedEncoder,
    SongEncoder,
    all_real,
    averaged,
    check_model_type,
)
from clipfarm_assets.training.song_encoders.convolutions import ConvTokens

_VARIANCE_FLOOR: Final = 1e-7  # transformers' Wav2Vec2FeatureExtractor
_POWER_FLOOR: Final = 1e-10  # transformers' ClapFeatureExtractor

# -100 to 20 decibels, silence to loud, as about -1.5 to 1.5.
_DECIBELS_CENTRE: Final = -40.0
_DECIBELS_SCALE: Final = 40.0


class Wav2Vec2Encoder(PretrainedEncoder):
    """wav2vec 2.0's last hidden states, averaged over windows of time."""

    def __init__(self, model: Any, config: Wav2Vec2Audio, *, normalises: bool = True) -> None:
        """Take a loaded ``Wav2Vec2Model``; see `load`.

        Args:
            model: The model.
            config: Its settings.
            normalises: Whether it was trained on samples of zero mean and unit variance.
        """
        super().__init__(model, config.top_layers)
        self.dim: int = model.config.hidden_size
        self.tokens = config.tokens
        self.normalises = normalises

    @classmethod
    def load(cls, folder: Path, config: Wav2Vec2Audio, sample_rate: int) -> Self:
        """From a model directory, on the CPU.

        Raises:
            ModelUnavailable: The files cannot be loaded, do not fill the model, or it was trained
                at another sample rate.
            NoLayers: More layers are to be trained than there are.
        """
        check_model_type(folder, "wav2vec2")
        extractor = _extractor(transformers.Wav2Vec2FeatureExtractor, folder, sample_rate)
        # A training-time parameter, which the published 960h checkpoint lacks.
        model = load_model(
            transformers.Wav2Vec2Model,
            folder,
            torch.device("cpu"),
            may_miss=("masked_spec_embed",),
        )
        return cls(model, config, normalises=extractor.do_normalize)

    def forward(self, samples: Tensor) -> Tokens:  # type: ignore[override]
        """Encode B waveforms.

        Args:
            samples: float32 ``[B, n]``.

        Returns:
            Tokens ``[B, T, dim]``, all of them real.

        Raises:
            ValueError: They are shorter than what one vector is made of.
        """
        if self._vectors(samples.shape[1]) < 1:
            msg = f"{samples.shape[1]} samples are too few for one vector of wav2vec 2.0"
            raise ValueError(msg)
        return averaged(all_real(self._in_blocks(self._states, samples)), self.tokens)

    def _vectors(self, samples: int) -> int:
        return int(self.model._get_feat_extract_output_lengths(torch.tensor(samples)))

    def _states(self, samples: Tensor) -> Tensor:
        if self.normalises:
            mean = samples.mean(dim=1, keepdim=True)
            variance = samples.var(dim=1, keepdim=True, correction=0)
            samples = (samples - mean) / torch.sqrt(variance + _VARIANCE_FLOOR)
        states: Tensor = self.model(samples).last_hidden_state
        return states


class ClapEncoder(PretrainedEncoder):
    """CLAP's audio embeddings, in the space of its texts: one a window of time.

    A window is what the extractor makes of a clip that is not longer than its maximum: repeated as
    often as it fits, padded with zeros, and its log-mel spectrogram taken in decibels. The
    extractor's own ways with longer clips draw at random, so longer windows are refused.
    """

    def __init__(self, model: Any, extractor: Any, config: ClapAudio) -> None:
        """Take a loaded ``ClapAudioModelWithProjection`` and its extractor; see `load`.

        Raises:
            ModelUnavailable: The model fuses crops of long clips, or it or its extractor does not
                go with `config`.
        """
        super().__init__(model, config.top_layers)
        if model.config.enable_fusion or extractor.padding != "repeatpad":
            msg = (
                "CLAP must be of the unfused kind, whose extractor pads by 'repeatpad': found "
                f"enable_fusion {model.config.enable_fusion} and padding {extractor.padding!r}; "
                "use laion/clap-htsat-unfused or one like it"
            )
            raise ModelUnavailable(msg)
        self.dim: int = model.config.projection_dim
        self.window = round(config.window_seconds * extractor.sampling_rate)
        self.longest = int(extractor.nb_max_samples)
        if self.window > self.longest:
            msg = (
                f"this CLAP takes {extractor.max_length_s} s at most: set `window_seconds`, "
                f"{config.window_seconds:g}, to that or less"
            )
            raise ModelUnavailable(msg)
        self.hop = int(extractor.hop_length)
        self.fft = int(extractor.fft_window_size)
        filters = torch.from_numpy(extractor.mel_filters_slaney.T.copy()).double()
        self.register_buffer("filters", filters, persistent=False)

    @classmethod
    def load(cls, folder: Path, config: ClapAudio, sample_rate: int) -> Self:
        """From a model directory, on the CPU.

        Raises:
            ModelUnavailable: The files cannot be loaded, do not fill the model, or are of a CLAP
                of another kind or another sample rate.
            NoLayers: More layers are to be trained than there are.
        """
        check_model_type(folder, "clap", "clap_audio_model")
        extractor = _extractor(transformers.ClapFeatureExtractor, folder, sample_rate)
        model = load_model(
            transformers.ClapAudioModelWithProjection,
            folder,
            torch.device("cpu"),
            attention="eager",
        )
        return cls(model, extractor, config)

    def forward(self, samples: Tensor) -> Tokens:  # type: ignore[override]
        """Encode B waveforms.

        Args:
            samples: float32 ``[B, n]``.

        Returns:
            Tokens ``[B, ceil(n / window), dim]``, all of them real.
        """
        windows = [
            self._in_blocks(self._embeddings, window) for window in samples.split(self.window, 1)
        ]
        return all_real(torch.stack(windows, dim=1))

    def features(self, window: Tensor) -> Tensor:
        """What the model is called with, as the extractor makes it.

        Args:
            window: float32 ``[B, n]``, not longer than the extractor's maximum.

        Returns:
            float32 ``[B, 1, frames, mels]``.
        """
        repeated = window.double().repeat(1, self.longest // window.shape[1])
        padded = torch.nn.functional.pad(repeated, (0, self.longest - repeated.shape[1]))
        # In double, as the extractor: at the floor of decibels float32 rounds audibly.
        hann = torch.hann_window(self.fft, dtype=torch.float64, device=window.device)
        spectrum = torch.stft(
            padded, self.fft, self.hop, window=hann, pad_mode="reflect", return_complex=True
        )
        power = self.filters @ (spectrum.real.square() + spectrum.imag.square())
        decibels = 10 * power.clamp(min=_POWER_FLOOR).log10()
        return decibels.transpose(1, 2).unsqueeze(1).float()

    def _embeddings(self, window: Tensor) -> Tensor:
        embeds: Tensor = self.model(input_features=self.features(window)).audio_embeds
        return embeds


class MelCnn(SongEncoder):
    """Convolutions over log-mel spectrograms, trained from scratch."""

    def __init__(self, settings: MelSettings, dim: int, config: CnnAudio) -> None:
        """Draw the weights.

        Args:
            settings: What spectrograms are made with.
            dim: Width of the tokens.
            config: Settings of the convolutions.
        """
        super().__init__()
        self.dim = dim
        self.settings = settings
        self.convolutions = ConvTokens(
            1, settings.n_mels, config.channels, dim, dropout=config.dropout, tokens=config.tokens
        )

    def forward(self, mel: Tensor | None = None, samples: Tensor | None = None) -> Tokens:  # type: ignore[override]
        """Encode B spectrograms, or the waveforms that they are made of.

        Args:
            mel: float32 ``[B, n_mels, frames]``, decibels of `log_mel`.
            samples: float32 ``[B, n]``, instead.

        Returns:
            Tokens ``[B, T, dim]``, all of them real.

        Raises:
            ValueError: There are both, neither, or spectrograms of other bands.
        """
        if (mel is None) == (samples is None):
            msg = "a spectrogram is needed, or samples: found both or neither"
            raise ValueError(msg)
        if mel is None:
            mel = log_mel_torch(samples, self.settings)
        if mel.ndim != 3 or mel.shape[1] != self.settings.n_mels:
            msg = f"expected mel [B, {self.settings.n_mels}, frames]: found {list(mel.shape)}"
            raise ValueError(msg)
        scaled = (mel - _DECIBELS_CENTRE) / _DECIBELS_SCALE
        tokens: Tokens = self.convolutions(scaled.unsqueeze(1))
        return tokens


def _extractor(kind: Any, folder: Path, sample_rate: int) -> Any:
    """A model directory's preprocessing.

    Raises:
        ModelUnavailable: It cannot be read, or is for another sample rate.
    """
    try:
        extractor = kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        msg = f"cannot read the preprocessing in {folder}: {error}"
        raise ModelUnavailable(msg) from error
    if extractor.sampling_rate != sample_rate:
        msg = (
            f"the model in {folder} was trained at {extractor.sampling_rate} Hz: set "
            f"preprocessing.audio.sample_rate, {sample_rate}, to that"
        )
        raise ModelUnavailable(msg)
    return extractor
