"""Small experts, and texts and images to show them."""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.expert_config import ExpertConfig
from clipfarm_assets.training.experts.stand_ins import StandInSize, stand_in_text, stand_in_vision
from clipfarm_assets.training.experts.text import TextExpert
from clipfarm_assets.training.experts.vision import VisionExpert

SMALL = StandInSize(hidden=32, layers=3, heads=4, inner=48, image=32, patch=16)
CLASSES = ("calm", "angry")
WORDS = (
    "red", "green", "blue", "cat", "dog", "bird", "runs", "sleeps", "sings", "over", "under", "near"
)  # fmt: skip


def some_texts(count: int, seed: int = 0, most_words: int = 30) -> list[str]:
    random = np.random.default_rng(seed)
    return [
        " ".join(random.choice(WORDS, random.integers(1, most_words + 1))) for _ in range(count)
    ]


def some_image(seed: int, size: tuple[int, int] = (40, 28)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def some_images(count: int, seed: int = 0) -> list[bytes]:
    return [encoded(some_image(seed * 1000 + index)) for index in range(count)]


def text_folder(folder: Path) -> Path:
    return stand_in_text(folder, WORDS, SMALL)


def vision_folder(folder: Path) -> Path:
    return stand_in_vision(folder, SMALL)


def quick_config(**changes) -> ExpertConfig:
    fit = FitConfig(learning_rate=3e-3, batch_size=16, max_epochs=3, patience=3)
    return ExpertConfig(
        **{"fit": fit, "layers_learning_rate": 1e-3, "shuffle_buffer": 64} | changes
    )


def rows_of(pairs: Iterable[tuple[object, int]]):
    kept = list(pairs)

    def rows(_order: torch.Generator) -> Iterator[tuple[object, int]]:
        return iter(kept)

    return rows


def angry_texts(count: int, seed: int = 1) -> list[tuple[str, int]]:
    """A text is angry if it says dog, and says cat if not."""
    random = np.random.default_rng(seed)
    pairs = []
    for text in some_texts(count, seed, most_words=6):
        angry = int(random.integers(2))
        rest = [word for word in text.split() if word not in {"cat", "dog"}]
        pairs.append((" ".join([("cat", "dog")[angry], *rest]), angry))
    return pairs


def start_text(folder: Path, seed: int = 5, **settings) -> TextExpert:
    return TextExpert.start(folder, CLASSES, seed, **settings)


def start_vision(folder: Path, seed: int = 5, **settings) -> VisionExpert:
    return VisionExpert.start(folder, CLASSES, seed, **settings)
