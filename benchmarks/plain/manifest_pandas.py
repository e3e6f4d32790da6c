"""Updating the manifest the plain way: read all of it, append, sort, drop duplicates, write all.

As the fusion contract's section 8.2 says it, with pandas. The new rows come from the shards' own
members, of which only those are read that the manifest needs.
"""

from pathlib import Path

import numpy as np
import pandas as pd

_ORDER = ["video_id", "source_hash", "captured_at", "text_present", "fused_key"]


def update(store: Path, manifest: str, shards: list[str], target: Path) -> pd.DataFrame:
    """Merge the shards of these keys into the manifest of that key; write it to `target`."""
    old = pd.read_parquet(store / manifest)
    everything = pd.concat([old, *(rows_of(store, key) for key in shards)], ignore_index=True)
    merged = everything.sort_values(_ORDER).drop_duplicates(_ORDER[:2], keep="last")
    merged.to_parquet(target, index=False)
    return merged


def rows_of(store: Path, key: str) -> pd.DataFrame:
    """What a shard declares, a row a vector."""
    with np.load(store / key) as shard:
        n, dim = shard["vectors"].shape
        present = shard["text_present"]
        return pd.DataFrame(
            {
                "video_id": shard["video_ids"],
                "captured_at": shard["captured_at"],
                "source_hash": shard["source_hash"],
                "fusion_strategy": str(shard["fusion_strategy"]),
                "fused_dim": dim,
                "fused_key": key,
                "shard_idx": np.arange(n),
                "shard_n": n,
                "video_emb_key": shard["video_emb_key"],
                "audio_emb_key": shard["audio_emb_key"],
                "text_emb_key": [value or None for value in shard["text_emb_key"]],
                "text_present": present,
                "text_source": np.where(present == 1, "full", "placeholder"),
                "text_state_status": [value or None for value in shard["text_state_status"]],
                "text_missing_reason": [value or None for value in shard["text_missing_reason"]],
                "fusion_status": shard["fusion_status"],
                "retry_count_at_write": shard["retry_count_at_write"],
            }
        )
