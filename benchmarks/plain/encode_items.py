"""Embedding prepared items the plain way: one forward an item by the transformers model.

Float32, torch's default threads, the whole of every layer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def load_video(folder: Path) -> Any:
    """VideoMAE of a model directory."""
    from transformers import VideoMAEModel

    return VideoMAEModel.from_pretrained(folder).eval()


def encode_clips(model: Any, clips: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.float32]]:
    """Unit vectors of clips, uint8 of shape (frames, height, width, 3): the last layer's first."""
    import torch

    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    vectors = []
    for clip in clips:
        with torch.inference_mode():
            levels = torch.from_numpy(clip).permute(0, 3, 1, 2).float()
            pixels = (levels * (1 / 255) - mean) / std
            hidden = model(pixel_values=pixels.unsqueeze(0)).last_hidden_state
        vector = hidden[0, 0].numpy().astype(np.float64)
        vectors.append((vector / np.sqrt((vector * vector).sum())).astype(np.float32))
    return vectors
