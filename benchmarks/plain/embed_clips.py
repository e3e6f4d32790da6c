"""Embedding clips the plain way: one after the other, from files to files.

Decode from the start, transformers' own processor and a full forward a clip with torch's default
threads; `librosa.load`; two calls of sentence-transformers; `np.save`; an SQLite commit an item.
"""

# ruff: noqa: TID253 - only a benchmark's child imports this
import csv
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from transformers import (
    VideoMAEImageProcessor,
    VideoMAEModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
)

from benchmarks.plain.decode_frames import decode_frames

SAMPLE_RATE = 16_000
MAX_SECONDS = 90.0
FRAMES = 16


@dataclass
class PlainEncoders:
    """The models, loaded."""

    models: Mapping[str, Path]

    def __post_init__(self) -> None:
        if "video" in self.models:
            self._processor = VideoMAEImageProcessor.from_pretrained(self.models["video"])
            self._video = VideoMAEModel.from_pretrained(self.models["video"]).eval()
        if "audio" in self.models:
            self._extractor = Wav2Vec2FeatureExtractor.from_pretrained(self.models["audio"])
            self._audio = Wav2Vec2Model.from_pretrained(self.models["audio"]).eval()
        if "text" in self.models:
            self._text = SentenceTransformer(str(self.models["text"]), device="cpu")

    @torch.inference_mode()
    def video(self, path: Path, _row: Mapping[str, str]) -> NDArray[np.float32]:
        """The first token of VideoMAE's last layer."""
        frames = decode_frames(path.read_bytes(), FRAMES)
        pixels = self._processor(frames, return_tensors="pt")["pixel_values"]
        return _unit(self._video(pixel_values=pixels).last_hidden_state[0, 0])

    @torch.inference_mode()
    def audio(self, path: Path, _row: Mapping[str, str]) -> NDArray[np.float32]:
        """The mean over time of wav2vec 2.0's last layer."""
        wave, _ = librosa.load(path, sr=SAMPLE_RATE, mono=True, duration=MAX_SECONDS)
        values = self._extractor(wave, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_values
        return _unit(self._audio(values).last_hidden_state[0].mean(dim=0))

    def text(self, path: Path, row: Mapping[str, str]) -> NDArray[np.float32]:
        """Metadata's and transcript's vectors side by side."""
        metadata = f"{row['title']} [SEP] {row['description']} [SEP] {row['query']}"
        transcript = json.loads(path.read_bytes())["transcript"]
        both = [self._text.encode([text])[0] for text in (metadata, transcript)]
        return _unit(torch.from_numpy(np.concatenate(both)))


def embed_clips(
    raw: Mapping[str, Path],
    metadata: Path,
    encoders: PlainEncoders,
    out: Path,
    modalities: Sequence[str],
) -> int:
    """Embed every clip of the metadata CSV; returns how many vectors were written.

    Args:
        raw: Modality -> folder of ``<video_id>.<suffix>`` files.
        metadata: The CSV.
        encoders: Loaded for these modalities.
        out: Gets ``<modality>/<video_id>.npy`` and ``state.sqlite``.
        modalities: Which ones.
    """
    written = 0
    out.mkdir(parents=True)
    with closing(sqlite3.connect(out / "state.sqlite")) as state:
        state.execute("CREATE TABLE done (modality TEXT, video_id TEXT, path TEXT)")
        for modality in modalities:
            (out / modality).mkdir()
            for row in _rows(metadata):
                source = next(raw[modality].glob(f"{row['video_id']}.*"))
                vector = getattr(encoders, modality)(source, row)
                target = out / modality / f"{row['video_id']}.npy"
                np.save(target, vector)
                with state:
                    state.execute(
                        "INSERT INTO done VALUES (?, ?, ?)",
                        (modality, row["video_id"], str(target)),
                    )
                written += 1
    return written


def _rows(metadata: Path) -> Iterator[dict[str, Any]]:
    with metadata.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _unit(vector: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = (vector / vector.norm()).numpy()
    return values
