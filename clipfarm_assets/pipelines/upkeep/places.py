"""What a key of the store is, by the layout that it was made by.

A key is ours only if the layout could have made it, letter by letter. Everything else below the
prefix is somebody's, raw media and metadata first of all, and never removed.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal, get_args

from clipfarm_assets.contracts.horizons import HORIZONS
from clipfarm_assets.contracts.statuses import (
    MODALITIES,
    STRATEGIES,
    Modality,
    Strategy,
    embedding_stage,
    fusion_stage,
)
from clipfarm_assets.storage.layout import Layout

Kind = Literal[
    "embedding", "shard", "manifest_delta", "training_dataset", "snapshot_staging", "probe"
]
"""What may be collected once nothing refers to it."""
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

_ID: Final = "[A-Za-z0-9_-]{1,64}"
_DATE: Final = r"date=\d{4}-\d\d-\d\d"
_SHA256: Final = "[0-9a-f]{64}"
_RUN: Final = r"run_id=[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_ANY_STRATEGY: Final = f"(?:{'|'.join(STRATEGIES)})"
_STRATEGY: Final = f"strategy={_ANY_STRATEGY}"
_ARCHIVE: Final = r"(?:\.v[1-9][0-9]*)?"
_HORIZON: Final = f"horizon=(?:{'|'.join(map(str, HORIZONS))})"
_STAGES: Final = "|".join(
    [*map(embedding_stage, MODALITIES), *map(fusion_stage, STRATEGIES)]  # not text_downloader
)

_EMBEDDING: Final = re.compile(f"embeddings/({'|'.join(MODALITIES)})/({_ID})" + r"\.npy")
_DATASET: Final = re.compile(
    f"(training/{_STRATEGY}/{_HORIZON}/)({_SHA256})/(?:rows\\.parquet|vectors-[0-9]{{4,9}}\\.npz)"
)
_STAGING: Final = re.compile(
    f"models/staging/{_RUN}/(?:model=[a-z][a-z0-9_]{{0,63}}/)?{_STRATEGY}/{_HORIZON}/{_SHA256}/.+"
)
_PROBE: Final = re.compile(r"state/\.probe-[0-9a-f]{32}")
# What is kept whatever refers to it: it is what everything else is judged by, or for people.
_KEPT: Final = tuple(
    re.compile(pattern)
    for pattern in (
        f"index/{_DATE}/clip_index\\.parquet",
        f"embeddings/manifests/{_DATE}/embedding_manifest\\.parquet",
        f"state/(?:(?:{_STAGES})\\.sqlite|models_lock\\.json|equivalence\\.json)",
        r"state/upkeep/[A-Za-z0-9_.-]+\.json",
        f"fused/{_ANY_STRATEGY}/(?:schema{_ARCHIVE}\\.json|fused_manifest{_ARCHIVE}\\.parquet)",
        f"training/{_STRATEGY}/{_HORIZON}/dataset\\.json",
        f"models/snapshots/{_RUN}/.+",
        f"models/registry/{_HORIZON}/registry\\.json",
        f"predictions/{_DATE}/clip_predictions\\.parquet",
        f"reports/[a-z0-9_]+/{_DATE}/[^/]+",
    )
)


@dataclass(frozen=True, slots=True)
class Place:
    """What a key names.

    Attributes:
        kind: What it is.
        modality: Of an embedding.
        video_id: Of an embedding.
        strategy: Of a shard or a delta.
        date: Of a shard.
        part: Of a shard, its number.
        dataset: Of a part of a dataset, the folder of its strategy and horizon, as a key prefix.
        sha256: Of a part of a dataset, that of the dataset.
    """

    kind: Kind
    modality: Modality | None = None
    video_id: str = ""
    strategy: Strategy | None = None
    date: str = ""
    part: int = 0
    dataset: str = ""
    sha256: str = ""


def place_of(layout: Layout, key: str) -> Place | None:
    """What may be collected under `key`; None if nothing that may."""
    if key == layout.metadata():  # it may be configured to lie anywhere
        return None
    ref = layout.shard_ref(key)
    if ref is not None:
        return Place("shard", strategy=ref.strategy, date=ref.date, part=ref.part)
    for strategy in STRATEGIES:
        if layout.manifest_delta_sha256(strategy, key):
            return Place("manifest_delta", strategy=strategy)
    name = _name(layout, key)
    if match := _EMBEDDING.fullmatch(name):
        for modality in MODALITIES:
            if modality == match[1]:
                return Place("embedding", modality=modality, video_id=match[2])
    if match := _DATASET.fullmatch(name):
        folder = f"{layout.prefix}/{match[1]}"
        return Place("training_dataset", dataset=folder, sha256=match[2])
    if _STAGING.fullmatch(name):
        return Place("snapshot_staging")
    if _PROBE.fullmatch(name):
        return Place("probe")
    return None


def is_kept(layout: Layout, key: str) -> bool:
    """Whether `key` is ours and of what is never collected."""
    name = _name(layout, key)
    return key != layout.metadata() and any(p.fullmatch(name) for p in _KEPT)


def _name(layout: Layout, key: str) -> str:
    """The key below the prefix; empty if it lies elsewhere."""
    prefix = f"{layout.prefix}/"
    return key.removeprefix(prefix) if key.startswith(prefix) else ""
