"""Small locks, shards and manifest rows for the tests of this folder."""

from dataclasses import replace

import numpy as np
import pyarrow as pa

from clipfarm_assets.contracts import fused_manifest
from clipfarm_assets.contracts.fused_shard import Declaration, FusedShard, strings
from clipfarm_assets.contracts.schema_lock import SchemaLock

DIMS = {"video": 3, "audio": 2, "text": 2}
VERSIONS = {"video": "video-a", "audio": "audio-a", "text": "text-a"}
KEY = "clipfarm/fused/concat/shards/date=2026-02-05/part-0000.npz"


def make_lock(strategy="concat", **changes):
    lock = SchemaLock.of(strategy, DIMS, VERSIONS)
    return replace(lock, updated_at="2026-02-05T00:00:00+00:00", **changes)


def make_shard(ids=("aaa", "-bb", "_cc"), placeholders=("_cc",), **declared):
    """A shard of the concat lock above, one row an id; `declared` replaces what it declares."""
    n = len(ids)
    present = np.array([video_id not in placeholders for video_id in ids], dtype=np.int64)
    full = present.astype(bool).tolist()
    lock = make_lock()
    fields = {
        "source_hash": strings([f"hash-of-{video_id}" for video_id in ids]),
        "video_emb_key": strings([f"clipfarm/embeddings/video/{i}.npy" for i in ids]),
        "audio_emb_key": strings([f"clipfarm/embeddings/audio/{i}.npy" for i in ids]),
        "text_emb_key": strings(
            [
                f"clipfarm/embeddings/text/{i}.npy" if f else ""
                for i, f in zip(ids, full, strict=True)
            ]
        ),
        "text_present": present,
        "text_state_status": strings(["" if f else "no_captions" for f in full]),
        "text_missing_reason": strings(["" if f else "no_captions" for f in full]),
        "fusion_status": strings(
            ["success_full" if f else "success_text_placeholder" for f in full]
        ),
        "retry_count_at_write": np.arange(n, dtype=np.int64),
        "fusion_strategy": "concat",
        "lock_version": 1,
        "embedding_versions": strings(list(VERSIONS.values())),
    }
    vectors = np.arange(n * lock.fused_dim, dtype=np.float32).reshape(n, lock.fused_dim)
    return FusedShard(
        strings(list(ids)),
        vectors,
        strings([f"2026-02-05T17:34:4{k}+00:00" for k in range(n)]),
        Declaration(**{**fields, **declared}),
    )


def make_row(video_id="aaa", **changes):
    """A full row of the manifest."""
    row = {
        "video_id": video_id,
        "captured_at": "2026-02-05T17:34:41+00:00",
        "source_hash": f"hash-of-{video_id}",
        "fusion_strategy": "concat",
        "fused_dim": 8,
        "fused_key": KEY,
        "shard_idx": 0,
        "shard_n": 3,
        "video_emb_key": f"clipfarm/embeddings/video/{video_id}.npy",
        "audio_emb_key": f"clipfarm/embeddings/audio/{video_id}.npy",
        "text_emb_key": f"clipfarm/embeddings/text/{video_id}.npy",
        "text_present": 1,
        "text_source": "full",
        "text_state_status": None,
        "text_missing_reason": None,
        "fusion_status": "success_full",
        "retry_count_at_write": 0,
    }
    assert set(changes) <= set(row)
    return {**row, **changes}


def make_placeholder(video_id="ppp", **changes):
    """A row fused without text."""
    without = {
        "text_emb_key": None,
        "text_present": 0,
        "text_source": "placeholder",
        "text_state_status": "no_captions",
        "text_missing_reason": "no_captions",
        "fusion_status": "success_text_placeholder",
    }
    return make_row(video_id, **{**without, **changes})


def to_table(*rows):
    return pa.Table.from_pylist(list(rows), schema=fused_manifest.SCHEMA)
