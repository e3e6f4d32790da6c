"""Assembling a dataset the plain way: for each metadata row, open what it points at.

What one writes first: a table for the labels, a table for the pointers, and a loop that loads the
row's shard, picks the vector, and loads its modality vectors. No splits, no features, no checks:
less work than `clipfarm_assets.pipelines.assemble` does.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl


@dataclass(frozen=True)
class PlainData:
    """Rows sorted by video_id; vectors float32 ``(N, dim)``."""

    video_ids: list[str]
    fused: np.ndarray
    video: np.ndarray
    audio: np.ndarray
    text: np.ndarray
    target_log: np.ndarray


def assemble_rows(store: Path, strategy: str, horizon: int, limit: int | None = None) -> PlainData:
    """The first `limit` rows by video_id, or all."""
    metadata = (
        pl.read_csv(store / "clipfarm/metadata/shorts_metadata_horizon.csv", infer_schema=False)
        .filter(pl.col("horizon_days").cast(pl.Float64) == horizon)
        .sort("captured_at", maintain_order=True)
        .unique("video_id", keep="last", maintain_order=True)
    )
    manifest = (
        pl.read_parquet(store / f"clipfarm/fused/{strategy}/fused_manifest.parquet")
        .filter(pl.col("fusion_strategy") == strategy)
        .sort("captured_at", maintain_order=True)
        .unique("video_id", keep="last", maintain_order=True)
    )
    joined = metadata.select("video_id", "horizon_view_count").join(manifest, on="video_id")
    joined = joined.sort("video_id")
    if limit is not None:
        joined = joined.head(limit)
    fused, vectors = [], {"video": [], "audio": [], "text": []}
    for row in joined.iter_rows(named=True):
        with np.load(store / row["fused_key"]) as shard:
            # A copy: a view would keep the whole shard in memory.
            fused.append(shard["vectors"][row["shard_idx"]].copy())
        for modality, found in vectors.items():
            if modality == "text" and not row["text_present"]:
                found.append(np.zeros_like(vectors["video"][-1]))
            else:
                found.append(np.load(store / row[f"{modality}_emb_key"]))
    views = joined["horizon_view_count"].cast(pl.Float64).fill_null(0.0).to_numpy()
    return PlainData(
        joined["video_id"].to_list(),
        np.stack(fused),
        **{modality: np.stack(found) for modality, found in vectors.items()},
        target_log=np.log1p(views),
    )
