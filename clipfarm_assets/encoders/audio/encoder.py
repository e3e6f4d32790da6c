"""Sound to vectors, by wav2vec 2.0."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.audio.forward import AudioForward
from clipfarm_assets.encoders.base import Deadline, Encoded, MediaError, Source
from clipfarm_assets.encoders.config import AudioConfig
from clipfarm_assets.encoders.guard import unit_vector
from clipfarm_assets.encoders.loading import choose_device, load_model, use_threads
from clipfarm_assets.encoders.models import ModelUnavailable, ResolvedModel
from clipfarm_assets.encoders.torch_encoder import OncePerPrecision, TorchEncoder

PREPROCESS_VERSION: Final = "audio-1"

# A training-time parameter; the published 960h checkpoint lacks it and inference never reads it.
_MAY_MISS: Final = ("masked_spec_embed",)


@dataclass(frozen=True, slots=True)
class PreparedAudio:
    """Normalised samples as the model takes them, float32 of shape (samples,), and notes."""

    values: NDArray[np.float32]
    notes: Mapping[str, float]


class AudioEncoder(TorchEncoder[AudioConfig]):
    """wav2vec 2.0's last layer, averaged over time and L2-normalised.

    One clip a forward and never padded: the first layer's group norm sees padding, and a vector
    would depend on its neighbours' lengths (cosine 0.5 to the true one was seen).

    Attributes:
        group_size: 1, on every device.
        forward: What is computed; see its `note`.
    """

    group_size = 1

    def __init__(self, resolved: ResolvedModel, config: AudioConfig) -> None:
        """Load the model; see `open_encoder` for errors."""
        from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Model

        self._device = choose_device(config)
        self._model = load_model(Wav2Vec2Model, resolved.path, self._device, may_miss=_MAY_MISS)
        try:
            self._extractor = Wav2Vec2FeatureExtractor.from_pretrained(
                resolved.path, local_files_only=True
            )
        except (OSError, ValueError) as error:
            msg = f"cannot read the preprocessing in {resolved.path}: {error}"
            raise ModelUnavailable(msg) from error
        if self._extractor.sampling_rate != config.sample_rate:
            msg = (
                f"model {resolved.name} was trained at {self._extractor.sampling_rate} Hz, but "
                f"sample_rate is {config.sample_rate}; set sample_rate to the model's"
            )
            raise ValueError(msg)
        self._min_samples = _receptive_field(self._model.config)
        self._forwards: OncePerPrecision[AudioForward] = OncePerPrecision()
        dim = self._model.config.hidden_size
        super().__init__("audio", resolved, PREPROCESS_VERSION, config, dim)

    @property
    def note(self) -> str:
        """See `base.Encoder`."""
        return self.forward.note

    def _open(self, config: AudioConfig) -> None:
        self.forward = self._forwards.get(
            config.precision, lambda: AudioForward(self._model, config.precision)
        )

    def prepare(self, source: Source, deadline: Deadline) -> PreparedAudio:
        """Decode, mix to mono, resample, trim and normalise to zero mean and unit variance.

        Notes: ``audio_seconds`` used, and ``audio_seconds_cut`` beyond the maximum.

        Raises:
            MediaError: Not decodable, not finite, or too short for the model.
        """
        wave, seconds = self.decoding.load_audio(
            source.raw, self._config.sample_rate, self._config.max_audio_seconds, deadline
        )
        if len(wave) < self._min_samples:
            msg = (
                f"cannot embed the audio: {len(wave)} samples at {self._config.sample_rate} Hz, "
                f"the model needs at least {self._min_samples}"
            )
            raise MediaError(msg)
        if not np.isfinite(wave).all():
            msg = "cannot embed the audio: it has samples that are not finite numbers"
            raise MediaError(msg)
        values = self._extractor(
            wave, sampling_rate=self._config.sample_rate, return_tensors="np"
        ).input_values[0]
        notes = {
            "audio_seconds": len(wave) / self._config.sample_rate,
            "audio_seconds_cut": max(0.0, seconds - self._config.max_audio_seconds),
        }
        return PreparedAudio(np.asarray(values, dtype=np.float32), notes)

    def encode(self, prepared: Sequence[PreparedAudio]) -> list[Encoded]:
        """One forward a clip.

        Raises:
            MediaError: The model's output has no direction.
        """
        use_threads(self._config)
        return [Encoded(self._embed(item.values), item.notes) for item in prepared]

    def _embed(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        import torch

        samples = torch.from_numpy(values).to(self._device).unsqueeze(0)
        return unit_vector(self.forward(samples)[0].cpu().numpy(), "audio")


def _receptive_field(config: Any) -> int:
    """Samples that one output frame of the convolutions sees: 400 for wav2vec 2.0."""
    length = 1
    for kernel, stride in zip(
        reversed(config.conv_kernel), reversed(config.conv_stride), strict=True
    ):
        length = (length - 1) * stride + kernel
    return length
