"""The map of a date's embeddings, drawn again only if they changed."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.orchestration import plots
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.npy import BadVector, npy_to_vector

# Points of the 2-D map: more would only hide each other.
_MAP_CLIPS = 2000


def embedding_map(
    deployment: Deployment, modality: Modality, date: str, index: pa.Table, *, redraw: bool
) -> dict[str, Any]:
    """Norm histogram and 2-D map of the date's embeddings, whenever they were made.

    The stored picture is shown if it was drawn from these very embeddings: reading one picture
    instead of every vector keeps a run with nothing to do cheap.

    Args:
        deployment: Where the vectors and the picture are.
        modality: Whose embeddings.
        date: The partition.
        index: Its table of `clip_tables.CLIP_INDEX`.
        redraw: Draw whatever is stored.

    Returns:
        Metadata: counts, and the map if there are two embeddings or more.
    """
    rows = deployment.ledger.rows(statuses.embedding_stage(modality), index["video_id"].to_pylist())
    queries = dict(zip(index["video_id"].to_pylist(), index["query"].to_pylist(), strict=True))
    there = [i for i in sorted(rows) if rows[i].status == statuses.SUCCESS]
    shown = there[:_MAP_CLIPS]
    facts: dict[str, Any] = {"embeddings": len(there), "embeddings_on_the_map": 0}
    if len(shown) < 2:
        return facts
    key = deployment.layout.report(f"{modality}_embeddings", date, "map.png")
    content = _content((rows[i] for i in shown), queries)
    png = b"" if redraw else _stored(deployment, key)
    drawn = plots.clips_drawn(png, content)
    if drawn is None:
        vectors = _vectors(deployment, modality, shown)
        drawn = len(vectors)
        if drawn < 2:
            return facts
        png = plots.embedding_map(
            np.stack(list(vectors.values())),
            [queries[video_id] for video_id in vectors],
            f"{modality} embeddings of {date}",
            content,
        )
        deployment.store.put(key, png)
    return {
        **facts,
        "embeddings_on_the_map": drawn,
        "map": plots.inline_png(png, f"map of the {modality} embeddings of {date}"),
        "map_file": key,
    }


def _content(items: Iterable[Item], queries: Mapping[str, str]) -> str:
    """A hash of what the picture shows. Rows of older deployments know no hash of their vector."""
    digest = hashlib.sha256()
    for item in items:
        vector = item.content_sha256 or item.processed_at
        digest.update(f"{item.video_id}\t{vector}\t{queries[item.video_id]}\n".encode())
    return digest.hexdigest()


def _stored(deployment: Deployment, key: str) -> bytes:
    try:
        return deployment.store.get(key)
    except FileNotFoundError:
        return b""


def _vectors(
    deployment: Deployment, modality: Modality, video_ids: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """What can be drawn; what can't is the check's to name, and shows as a difference in counts."""
    keys = {deployment.layout.embedding(modality, video_id): video_id for video_id in video_ids}
    vectors = {}
    for key, data in deployment.store.get_many(keys):
        if isinstance(data, bytes):
            with suppress(BadVector):
                vectors[keys[key]] = npy_to_vector(data)
    return vectors
