"""Clips as models see them, put together the same way for training and for scoring."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from clipfarm_assets.contracts.features import FeatureContract
from clipfarm_assets.contracts.fused_shard import strings
from clipfarm_assets.pipelines.modality_vectors import ClipVectors, FusedRows
from clipfarm_assets.training.data import ClipBatch, Moments
from clipfarm_assets.training.features import metadata_features, published_at


def clip_batch(
    rows: pl.DataFrame,
    video_ids: Sequence[str],
    fused: FusedRows,
    vectors: ClipVectors,
    contract: FeatureContract,
) -> tuple[ClipBatch, Mapping[str, int]]:
    """N clips of their metadata rows and stored vectors.

    Args:
        rows: N rows of the metadata CSV, as text.
        video_ids: N ids: a row's own may be empty.
        fused: Their fused vectors as stored.
        vectors: Their vectors of each modality.
        contract: The metadata features wanted.

    Returns:
        The clips, and by column how many values could not be read and count as missing.

    Raises:
        MissingColumns: The rows lack a column that a feature is made of.
    """
    parsed = metadata_features(rows, contract)
    clips = ClipBatch(
        video_ids=strings(video_ids),
        fused=fused.vectors,
        video=vectors.by_modality["video"],
        audio=vectors.by_modality["audio"],
        text=vectors.by_modality["text"],
        text_present=vectors.text_present,
        metadata=parsed.metadata,
        channel_id=strings(_channel_ids(rows)),
        published_at=_published_at(rows),
    )
    return clips, parsed.unparsable


def _channel_ids(rows: pl.DataFrame) -> list[str]:
    """Empty where an older file lacks them."""
    if "channel_id" not in rows.columns:
        return [""] * len(rows)
    return rows["channel_id"].fill_null("").str.strip_chars().to_list()


def _published_at(rows: pl.DataFrame) -> Moments:
    if "published_at" not in rows.columns:
        return np.full(len(rows), np.datetime64("NaT"), dtype="datetime64[us]")
    return published_at(rows)
