"""The bucket of an older deployment, made with plain sqlite3, numpy and pyarrow.

Its state files have no retry_count and none of our tables, its shards hold three arrays, its
manifest 17 columns and no key-values of ours, its lock 7 fields.
"""

import io
import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipfarm_assets_tests.pipelines.kit import (
    DAY_1,
    DAY_2,
    DIMS,
    FUSED_DIM,
    TERMINAL_TEXT,
    World,
    clips,
    hash_vector,
    processed_items,
    version_of,
)

OLD = [*clips(5, DAY_1, "old"), *clips(1, DAY_1, "mute", text=None, text_state=TERMINAL_TEXT)]
NEW = clips(3, DAY_2, "new")
MODALITIES = tuple(DIMS)
WRITTEN = "2026-02-05T20:00:00.000000+00:00"


def old_vector(modality, video_id):
    """What the encoder of that time gave, which is the first one here, on other hardware."""
    (clip,) = (clip for clip in OLD if clip.video_id == video_id)
    vector = hash_vector(version_of(modality), clip.raw(modality), f"title of {video_id}")
    return vector + np.float32(1e-6)


def npy(vector):
    file = io.BytesIO()
    np.save(file, vector)
    return file.getvalue()


def write_state(world: World, stage: str, rows):
    columns = ("video_id", "source_hash", "processed_at", "status", "error", "artifact_key")
    if stage.startswith("fusion"):
        columns += ("vector_id",)
    world.store.put(f"clipfarm/state/{stage}.sqlite", processed_items(columns, rows))


def write_shard(world: World, run_date: str):
    """Two rows a shard, so that pointers have something to point into."""
    rows = []
    for start in range(0, len(OLD), 2):
        key = f"clipfarm/fused/concat/shards/date={run_date}/part-{start // 2:04d}.npz"
        part = OLD[start : start + 2]
        vectors = []
        for i, clip in enumerate(part):
            full = clip.text is not None
            text = old_vector("text", clip.video_id) if full else np.zeros(4, np.float32)
            parts = [old_vector("video", clip.video_id), old_vector("audio", clip.video_id), text]
            vectors.append(np.concatenate([*parts, [np.float32(full)]]).astype(np.float32))
            rows.append(
                {
                    "video_id": clip.video_id,
                    "captured_at": clip.captured_at,
                    "source_hash": clip.source_hash,
                    "fusion_strategy": "concat",
                    "fused_dim": FUSED_DIM,
                    "fused_key": key,
                    "shard_idx": i,
                    "shard_n": len(part),
                    "video_emb_key": f"clipfarm/embeddings/video/{clip.video_id}.npy",
                    "audio_emb_key": f"clipfarm/embeddings/audio/{clip.video_id}.npy",
                    "text_emb_key": f"clipfarm/embeddings/text/{clip.video_id}.npy" * full,
                    "text_present": int(full),
                    "text_source": "full" if full else "placeholder",
                    "text_state_status": "success" if full else TERMINAL_TEXT,
                    "text_missing_reason": "" if full else TERMINAL_TEXT,
                    "fusion_status": "success_full" if full else "success_text_placeholder",
                    "retry_count_at_write": 0,
                }
            )
        file = io.BytesIO()
        np.savez(
            file,
            video_ids=np.array([c.video_id for c in part]),
            vectors=np.stack(vectors),
            captured_at=np.array([c.captured_at for c in part]),
        )
        world.store.put(key, file.getvalue())
    return rows


@dataclass(frozen=True)
class Kept:
    """What the older deployment left, as it must stay."""

    vectors: dict[str, bytes]
    shards: dict[str, bytes]


def leave(world: World, run_date: str = DAY_1) -> Kept:
    """What the older deployment wrote; its shards lie under the day of the run."""
    world.fill(OLD)
    for modality in MODALITIES:
        states = []
        for clip in OLD:
            if getattr(clip, modality) is None:
                states.append(
                    (clip.video_id, clip.source_hash, WRITTEN, "missing_raw_object", "x", None)
                )
                continue
            key = f"clipfarm/embeddings/{modality}/{clip.video_id}.npy"
            world.store.put(key, npy(old_vector(modality, clip.video_id)))
            states.append((clip.video_id, clip.source_hash, WRITTEN, "success", None, key))
        write_state(world, f"{modality}_embedding", states)
    rows = write_shard(world, run_date)
    write_state(
        world,
        "fusion_concat",
        [
            (
                row["video_id"],
                row["source_hash"],
                WRITTEN,
                row["fusion_status"],
                None,
                row["fused_key"],
                f"fused:concat:{row['video_id']}",
            )
            for row in rows
        ],
    )
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    world.store.put("clipfarm/fused/concat/fused_manifest.parquet", file.getvalue())
    lock = {
        "fusion_strategy": "concat",
        **{f"{modality}_dim": dim for modality, dim in DIMS.items()},
        "fused_dim": FUSED_DIM,
        "mask_appended": True,
        "updated_at": "2026-02-05T20:00:00Z",
    }
    world.store.put("clipfarm/fused/concat/schema.json", json.dumps(lock).encode())
    return Kept(world.objects("clipfarm/embeddings"), world.objects("clipfarm/fused/concat/shards"))
