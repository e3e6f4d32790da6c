"""Clips to vectors, by VideoMAE."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from clipfarm_assets.encoders.accelerator import batch_size, run_batches
from clipfarm_assets.encoders.base import Deadline, Encoded, MediaError, Source
from clipfarm_assets.encoders.config import VideoConfig
from clipfarm_assets.encoders.guard import unit_vector
from clipfarm_assets.encoders.loading import choose_device, load_model, use_threads
from clipfarm_assets.encoders.models import ModelUnavailable, ResolvedModel
from clipfarm_assets.encoders.torch_encoder import OncePerPrecision, TorchEncoder
from clipfarm_assets.encoders.video.forward import VideoForward

PREPROCESS_VERSION: Final = "video-1"
MAX_ASPECT: Final = 64
"""Longer to shorter side. Beyond, resizing the shorter side would blow up the longer one."""

_BILINEAR: Final = 2  # PIL's number, as in preprocessor_config.json


@dataclass(frozen=True, slots=True)
class FramePreprocess:
    """A checkpoint's preprocessing: shorter side to `edge`, centre crop, rescale, normalise.

    Attributes:
        edge: Pixels of the shorter side after resizing.
        crop: Height and width of the centre crop, in pixels.
        rescale: Factor from uint8 levels to the range that `mean` and `std` are in.
        mean: Per channel, RGB.
        std: Per channel, RGB.
    """

    edge: int
    crop: tuple[int, int]
    rescale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def from_checkpoint(cls, path: Path) -> "FramePreprocess":
        """Read ``preprocessor_config.json``; values differ between checkpoints.

        Raises:
            ModelUnavailable: It is absent, malformed, or asks for something else than these steps.
        """
        file = path / "preprocessor_config.json"
        try:
            data = json.loads(file.read_bytes())
            size, crop = data["size"], data["crop_size"]
            edge = size if isinstance(size, int) else size["shortest_edge"]
            preprocess = cls(
                edge=int(edge),
                crop=(crop, crop) if isinstance(crop, int) else (crop["height"], crop["width"]),
                rescale=float(data.get("rescale_factor", 1 / 255)),
                mean=_three(data["image_mean"]),
                std=_three(data["image_std"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            msg = (
                f"cannot read the preprocessing in {file} ({type(error).__name__}: {error}); "
                "expected size, crop_size, image_mean and image_std of a VideoMAE checkpoint"
            )
            raise ModelUnavailable(msg) from error
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        skipped = [step for step in steps if data.get(step, True) is not True]
        if skipped or data.get("resample", _BILINEAR) != _BILINEAR:
            msg = f"{file} asks for another preprocessing than bilinear resize, crop and normalise"
            raise ModelUnavailable(msg)
        return preprocess

    def reduce(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """One RGB frame (height, width, 3) resized and cropped to (*crop, 3), still uint8.

        Bilinear with antialias, the longer side truncated and the crop's corner rounded, in torch's
        channels-last uint8 kernel: the same levels as transformers' torchvision processor. Its
        Pillow variant has other levels in under 1% of the places (fixed-point rounding), and
        crops one pixel further to the left or top where the margin is odd. Normalising waits until
        the model's turn, so that what travels between workers is a quarter of the size.
        """
        import torch
        from torch.nn.functional import interpolate

        height, width = frame.shape[:2]
        if max(height, width) > MAX_ASPECT * min(height, width):
            msg = f"cannot embed frames of {width}x{height} pixels: longer than {MAX_ASPECT}:1"
            raise MediaError(msg)
        if height <= width:
            target = (self.edge, int(self.edge * width / height))
        else:
            target = (int(self.edge * height / width), self.edge)
        channels_first = torch.from_numpy(frame).permute(2, 0, 1).unsqueeze(0)
        resized = interpolate(
            channels_first, size=target, mode="bilinear", antialias=True, align_corners=False
        )
        top, left = (round((target[i] - self.crop[i]) / 2) for i in (0, 1))
        cropped = resized[0, :, top : top + self.crop[0], left : left + self.crop[1]]
        return np.ascontiguousarray(cropped.permute(1, 2, 0).numpy())


@dataclass(frozen=True, slots=True)
class PreparedVideo:
    """Frames as the model takes them, uint8 of shape (frames, height, width, 3), and notes."""

    pixels: NDArray[np.uint8]
    notes: Mapping[str, int]


class VideoEncoder(TorchEncoder[VideoConfig]):
    """VideoMAE's last layer, pooled and L2-normalised.

    One clip a forward on CPU, where batching gains nothing. On CUDA batches of one fixed size, see
    `accelerator`.

    Attributes:
        group_size: Clips that `encode` runs in one forward.
        forward: What is computed; see its `rows` and `note`.
    """

    def __init__(self, resolved: ResolvedModel, config: VideoConfig) -> None:
        """Load the model; see `open_encoder` for errors."""
        from transformers import VideoMAEModel

        self._device = choose_device(config)
        self._model = load_model(VideoMAEModel, resolved.path, self._device)
        self._preprocess = FramePreprocess.from_checkpoint(resolved.path)
        size = self._model.config.image_size
        expected = (size, size) if isinstance(size, int) else tuple(size)
        if self._preprocess.crop != expected or self._preprocess.edge < max(expected):
            msg = (
                f"the model in {resolved.path} takes frames of {expected} pixels, but its "
                f"preprocessing resizes to {self._preprocess.edge} and crops "
                f"{self._preprocess.crop}"
            )
            raise ModelUnavailable(msg)
        self._forwards: OncePerPrecision[tuple[VideoForward, int]] = OncePerPrecision()
        dim = self._model.config.hidden_size
        super().__init__("video", resolved, PREPROCESS_VERSION, config, dim)

    @property
    def note(self) -> str:
        """See `base.Encoder`."""
        return self.forward.note

    def _open(self, config: VideoConfig) -> None:
        def make() -> tuple[VideoForward, int]:
            forward = VideoForward(self._model, config.precision, config.pooling)
            return forward, self._batch_size(forward)

        self.forward, self.group_size = self._forwards.get(config.precision, make)

    def _batch_size(self, forward: VideoForward) -> int:
        shape = (self._model.config.num_frames, *self._preprocess.crop, 3)
        levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return batch_size(lambda pixels: forward(self._values(pixels)), levels, self._device)

    def prepare(self, source: Source, deadline: Deadline) -> PreparedVideo:
        """Decode, pick, resize and crop; notes count what was decodable and what was not.

        Raises:
            MediaError: See `video.frames.pick_frames`.
        """
        picked = self.decoding.pick_frames(
            source.raw,
            self._config.num_frames,
            self._model.config.num_frames,
            self._preprocess.reduce,
            deadline,
            self._config.rotation,
        )
        notes = {
            "decoded_frames": picked.decoded_frames,
            "decode_errors": picked.decode_errors,
            "decoded_from_start": int(bool(picked.from_start_because)),
        }
        return PreparedVideo(np.stack(picked.frames), notes)

    def encode(self, prepared: Sequence[PreparedVideo]) -> list[Encoded]:
        """One forward for `group_size` clips.

        Raises:
            MediaError: The model's output has no direction.
        """
        use_threads(self._config)
        vectors = run_batches(
            [item.pixels for item in prepared],
            lambda pixels: self.forward(self._values(pixels)),
            device=self._device,
            size=self.group_size,
        )
        return [
            Encoded(unit_vector(vector, "video"), item.notes)
            for vector, item in zip(vectors, prepared, strict=True)
        ]

    def _values(self, pixels: Any) -> Any:
        """Pixels, uint8 of shape (clips, frames, height, width, 3), as the model takes them."""
        import torch

        with torch.inference_mode():
            levels = pixels.permute(0, 1, 4, 2, 3).float()
            mean, std = (
                torch.tensor(values, device=pixels.device).view(3, 1, 1)
                for values in (self._preprocess.mean, self._preprocess.std)
            )
            return (levels * self._preprocess.rescale - mean) / std


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)
