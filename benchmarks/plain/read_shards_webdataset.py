"""Reading shards of memes the plain way: a webdataset loop, its images decoded by PIL."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image


def read_files(shards: Sequence[Path]) -> Iterator[tuple[str, str, bytes, dict[str, Any]]]:
    """Key, text, image file and fields of every sample; one that lacks something raises."""
    data = webdataset.WebDataset([str(path) for path in shards], shardshuffle=False)
    data = data.decode(only=["txt", "json"])
    yield from data.to_tuple("__key__", "txt", "png", "json", missing_is_error=True)


def read_images(shards: Sequence[Path]) -> Iterator[tuple[str, str, Image.Image, dict[str, Any]]]:
    """The same with images in RGB; webdataset's own ``pil`` would convert each twice."""
    for key, txt, png, fields in read_files(shards):
        yield key, txt, Image.open(io.BytesIO(png)).convert("RGB"), fields
