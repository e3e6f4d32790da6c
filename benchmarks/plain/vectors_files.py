"""Vectors to and from a folder the plain way: a file a vector, one after another."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np


def put_vectors(folder: Path, keys: Iterable[str], vectors: np.ndarray) -> None:
    for key, vector in zip(keys, vectors, strict=True):
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, vector)


def get_vectors(folder: Path, keys: Iterable[str]) -> np.ndarray:
    return np.stack([np.load(folder / key) for key in keys])
