"""Fusing the clips of a date the plain way: one clip after another, as the contract tells it.

Each clip's three vectors are loaded one by one, joined and kept until a shard is full; the shard is
a `numpy.savez`. The state is a SQLite file with a commit a clip, the manifest a pandas table that
is concatenated, sorted and freed of duplicates, and both are put into the store at the end.
"""

import io
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

STRATEGY = "concat"
FUSED = f"clipfarm/fused/{STRATEGY}"
STATE = f"clipfarm/state/fusion_{STRATEGY}.sqlite"
TEXT_STATE = "clipfarm/state/text_downloader.sqlite"
SHARD_ROWS = 2048
TERMINAL = ("no_captions", "fail_empty_transcript_terminal")
MODALITIES = ("video", "audio", "text")


class Place(Protocol):
    """Where objects are. Reading an absent one raises `FileNotFoundError`."""

    def get(self, key: str) -> bytes: ...
    def put(self, key: str, data: bytes) -> None: ...
    def load(self, key: str) -> np.ndarray: ...
    def savez(self, key: str, **arrays: np.ndarray) -> None: ...


class Folder:
    """Plain files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> bytes:
        return (self.root / key).read_bytes()

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def load(self, key: str) -> np.ndarray:
        return np.load(self.root / key)

    def savez(self, key: str, **arrays: np.ndarray) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)


class Bucket:
    """A bucket, by a boto3 client."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket

    def get(self, key: str) -> bytes:
        try:
            return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        except self.client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(key) from error

    def put(self, key: str, data: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=data)

    def load(self, key: str) -> np.ndarray:
        return np.load(io.BytesIO(self.get(key)))

    def savez(self, key: str, **arrays: np.ndarray) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        self.put(key, buffer.getvalue())


def fuse_clips(
    place: Place, clips: Sequence[tuple[str, str, str]], date: str, scratch: Path
) -> dict[str, float]:
    """Fuse clips, given as video_id, source_hash and captured_at; seconds by part of the work."""
    seconds: Counter[str] = Counter()

    @contextmanager
    def part(name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        seconds[name] += time.perf_counter() - started

    with part("publish"):
        states = _state(place, scratch / "fusion.sqlite")
        texts = _text_states(place, scratch / "text.sqlite")
        lock = json.loads(place.get(f"{FUSED}/schema.json"))
    done = dict(states.execute("SELECT video_id, source_hash FROM processed_items"))
    rows: list[dict[str, Any]] = []
    waiting: list[dict[str, Any]] = []
    vectors: list[np.ndarray] = []

    def write_shard() -> None:
        key = f"{FUSED}/shards/date={date}/part-{len(rows) // SHARD_ROWS:04d}.npz"
        with part("write"):
            place.savez(
                key,
                video_ids=np.array([row["video_id"] for row in waiting]),
                vectors=np.stack(vectors),
                captured_at=np.array([row["captured_at"] for row in waiting]),
            )
        for index, row in enumerate(waiting):
            row |= {"fused_key": key, "shard_idx": index, "shard_n": len(waiting)}
            with part("ledger"):
                _upsert(states, row)
        rows.extend(waiting)
        waiting.clear()
        vectors.clear()

    for video_id, source_hash, captured_at in clips:
        if done.get(video_id) == source_hash:
            continue
        keys = {m: f"clipfarm/embeddings/{m}/{video_id}.npy" for m in MODALITIES}
        status, reason = "success_full", ""
        with part("read"):
            try:
                video, audio = place.load(keys["video"]), place.load(keys["audio"])
                text = place.load(keys["text"])
            except FileNotFoundError:
                if texts.get(video_id) not in TERMINAL:
                    continue  # this data has no such clip, so neither way has a row for one
                text, reason = np.zeros(lock["text_dim"], dtype=np.float32), texts[video_id]
                status = "success_text_placeholder"
        with part("fuse"):
            found = (len(video), len(audio), len(text))
            if found != (lock["video_dim"], lock["audio_dim"], lock["text_dim"]):
                msg = f"{video_id} has vectors of lengths {found}, which the lock does not name"
                raise ValueError(msg)
            present = float(status == "success_full")
            vectors.append(np.concatenate([video, audio, text, [present]]).astype(np.float32))
        waiting.append(
            {
                "video_id": video_id,
                "captured_at": captured_at,
                "source_hash": source_hash,
                "fusion_strategy": STRATEGY,
                "fused_dim": len(vectors[-1]),
                "video_emb_key": keys["video"],
                "audio_emb_key": keys["audio"],
                "text_emb_key": keys["text"] if present else None,
                "text_present": int(present),
                "text_source": "full" if present else "placeholder",
                "text_state_status": texts.get(video_id),
                "text_missing_reason": reason or None,
                "fusion_status": status,
                "retry_count_at_write": 0,
            }
        )
        if len(waiting) == SHARD_ROWS:
            write_shard()
    if waiting:
        write_shard()
    with part("manifest"):
        _merge_manifest(place, rows)
    with part("publish"):
        states.close()
        place.put(STATE, (scratch / "fusion.sqlite").read_bytes())
    return dict(seconds)


def _state(place: Place, path: Path) -> sqlite3.Connection:
    try:
        path.write_bytes(place.get(STATE))
    except FileNotFoundError:
        path.unlink(missing_ok=True)
    states = sqlite3.connect(path)
    states.execute(
        "CREATE TABLE IF NOT EXISTS processed_items (video_id TEXT PRIMARY KEY, source_hash TEXT, "
        "processed_at TEXT, status TEXT, error TEXT, artifact_key TEXT, vector_id TEXT, "
        "retry_count INTEGER NOT NULL DEFAULT 0)"
    )
    states.commit()
    return states


def _upsert(states: sqlite3.Connection, row: dict[str, Any]) -> None:
    states.execute(
        "INSERT OR REPLACE INTO processed_items VALUES (?, ?, ?, ?, NULL, ?, ?, 0)",
        (
            row["video_id"],
            row["source_hash"],
            datetime.now(UTC).isoformat(),
            row["fusion_status"],
            row["fused_key"],
            f"fused:{STRATEGY}:{row['video_id']}",
        ),
    )
    states.commit()


def _text_states(place: Place, path: Path) -> dict[str, str]:
    path.write_bytes(place.get(TEXT_STATE))
    texts = sqlite3.connect(path)
    found = dict(texts.execute("SELECT video_id, status FROM processed_items"))
    texts.close()
    return found


def _merge_manifest(place: Place, rows: list[dict[str, Any]]) -> None:
    key = f"{FUSED}/fused_manifest.parquet"
    new = pd.DataFrame(rows)
    with suppress(FileNotFoundError):
        new = pd.concat([pd.read_parquet(io.BytesIO(place.get(key))), new])
    merged = new.sort_values(["video_id", "source_hash", "captured_at", "fused_key"])
    merged = merged.drop_duplicates(["video_id", "source_hash"], keep="last")
    place.put(key, merged.to_parquet(index=False))
