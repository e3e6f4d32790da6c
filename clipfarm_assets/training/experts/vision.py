"""The expert of a meme's image."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.storage.images import PACKED, decode_rgb
from clipfarm_assets.training.expert_config import ImageRepresentation
from clipfarm_assets.training.experts.expert import BLOCK_ROWS, Expert
from clipfarm_assets.training.experts.representations import Represented, pool_image, to_arrays

_PIXELS: Final = "pixel_values"
_TRIED_SIZES: Final = ((37, 53), (64, 40))


class VisionExpert(Expert[Tensor, ImageRepresentation]):
    """An image classifier with its image processor, Pillow's one: torchvision is not needed."""

    modality: Literal["vision"] = "vision"
    settings = ImageRepresentation
    raw = "png"
    chunk_items = BLOCK_ROWS

    def __init__(
        self,
        folder: Path,
        model: Any,
        representation: ImageRepresentation,
        name: str | None = None,
    ) -> None:
        """Take a loaded model; see `load` and `start`."""
        self._processor = _load_processor(folder)
        shapes = {tuple(self._processed(Image.new("RGB", size)).shape) for size in _TRIED_SIZES}
        if len(shapes) != 1:
            msg = (
                f"the image processor in {folder} must make all images of one size: found "
                f"{sorted(shapes)}; set `size` to a height and a width, or `do_center_crop`"
            )
            raise ModelUnavailable(msg)
        self.shape: tuple[int, int, int] = shapes.pop()
        super().__init__(folder, model, representation, name)

    def prepare(self, raw: bytes) -> Tensor:
        """An image as shards have it, as the model takes it: float32 ``[3, H, W]``, on the CPU.

        Of whatever size: the limits of images are those of packing, and whoever has a file of
        another origin packs it first, as was done with those the model was fitted on.

        Raises:
            BadImage: It is none that can be decoded.
        """
        image, _ = decode_rgb(raw, PACKED)
        return self._processed(image)

    def collate(self, raw: Sequence[bytes]) -> dict[str, Tensor]:
        """Image files prepared and stacked, on the CPU."""
        return {_PIXELS: torch.stack([self.prepare(image) for image in raw])}

    def stacked(self, images: Sequence[Tensor]) -> dict[str, Tensor]:
        """Prepared images as the model's arguments, on its device."""
        return {_PIXELS: torch.stack(list(images)).to(self.device)}

    def _processed(self, image: Image.Image) -> Tensor:
        pixels = self._processor(images=[image], return_tensors="np")[_PIXELS][0]
        return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32))

    def _example(self) -> dict[str, Tensor]:
        return {_PIXELS: torch.zeros((1, *self.shape))}

    def _pooled(self, output: Any, _batch: Mapping[str, Tensor]) -> Tensor:
        return pool_image(output)

    def _represented(self, items: Sequence[Tensor]) -> Represented:
        hidden, logits = [], []
        for start in range(0, len(items), BLOCK_ROWS):
            images = torch.stack(list(items[start : start + BLOCK_ROWS]))
            rows = len(images)
            filling = images.new_zeros((BLOCK_ROWS - rows, *self.shape))
            output = self({_PIXELS: torch.cat([images, filling]).to(self.device)})
            hidden.append(output.hidden[:rows])
            logits.append(output.logits[:rows])
        return to_arrays(hidden, logits, self.dim, len(self.classes))


def _load_processor(folder: Path) -> Any:
    """The directory's image processor over Pillow.

    Raises:
        ModelUnavailable: There is none that can be loaded, or none without torchvision.
    """
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            folder, backend="pil", local_files_only=True
        )
    except Exception as error:
        # Foreign files: what reading them raises is of any type.
        reason = " ".join(str(error).split())[:500]
        msg = f"cannot load the image processor from {folder}: {type(error).__name__}: {reason}"
        raise ModelUnavailable(msg) from error
    backend = getattr(processor, "backend", "pil")
    if backend != "pil":
        msg = (
            f"the image processor in {folder}, {type(processor).__name__}, works over {backend}, "
            "which is not used here: use a model whose processor works over Pillow"
        )
        raise ModelUnavailable(msg)
    return processor
