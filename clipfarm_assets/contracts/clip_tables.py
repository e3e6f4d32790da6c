"""The dated tables of the clip pipeline: clip index, embedding manifest, predictions."""

from typing import Final

import pyarrow as pa

# One row a clip whose latest capture falls on the partition's date.
CLIP_INDEX: Final = pa.schema(
    [
        ("video_id", pa.string()),
        ("source_hash", pa.string()),
        ("captured_at", pa.string()),
        ("date", pa.string()),
        ("url", pa.string()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("query", pa.string()),
        ("csv_row", pa.int64()),
    ]
)

# One row a clip and modality. Source: the embedding contract, section 6.3.
EMBEDDING_MANIFEST: Final = pa.schema(
    [
        ("video_id", pa.string()),
        ("source_hash", pa.string()),
        ("captured_at", pa.string()),
        ("modality", pa.string()),
        ("embedding_key", pa.string()),
        ("embedding_dim", pa.int32()),
        ("model_name", pa.string()),
        ("model_version", pa.string()),
        ("preprocess_version", pa.string()),
        ("status", pa.string()),
        ("processed_at", pa.timestamp("us", tz="UTC")),
    ]
)

# What the manifest says of vectors whose encoder nobody recorded.
OLDER_DEPLOYMENT: Final = "not recorded (older deployment)"

# One row a clip of the partition's date and promoted horizon: what serving predicts of it.
CLIP_PREDICTIONS: Final = pa.schema(
    [
        ("video_id", pa.string()),
        ("horizon_days", pa.int64()),
        ("model_version", pa.string()),
        ("prediction_log", pa.float64()),
        ("prediction_raw", pa.float64()),
        ("interval_low_raw", pa.float64()),
        ("interval_high_raw", pa.float64()),
        ("text_present", pa.int64()),
        # train, val or test where the model's split had the clip there, else empty: the interval's
        # coverage is promised for clips that are not of train.
        ("split", pa.string()),
    ]
)
