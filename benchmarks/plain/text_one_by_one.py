"""Embedding text the plain way: one clip after the other, two calls of sentence-transformers each.

What one writes first, with torch's default threads.
"""

# ruff: noqa: TID253 - only a benchmark's child imports this
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer


class PlainText:
    """A sentence transformer, loaded."""

    def __init__(self, path: Path) -> None:
        self._model = SentenceTransformer(str(path), device="cpu")

    def embed(self, clips: Iterable[tuple[Mapping[str, str], bytes]]) -> NDArray[np.float32]:
        """Unit vectors ``(clips, dim)`` of pairs of metadata fields and a transcript object."""
        return np.stack([self._embed(metadata, raw) for metadata, raw in clips])

    def _embed(self, metadata: Mapping[str, str], raw: bytes) -> NDArray[np.float32]:
        about = "{title} [SEP] {description} [SEP] {query}".format(**metadata)
        said = json.loads(raw)["transcript"]
        parts = [
            self._model.encode([text], show_progress_bar=False)[0].astype(np.float64)
            for text in (about, said)
        ]
        vector = np.concatenate([part / np.linalg.norm(part) for part in parts])
        unit: NDArray[np.float32] = (vector / np.linalg.norm(vector)).astype(np.float32)
        return unit
