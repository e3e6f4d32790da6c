"""What was made with one clip: datasets, snapshots of models, predictions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from clipfarm_assets.contracts.clip_tables import CLIP_PREDICTIONS
from clipfarm_assets.contracts.horizons import HORIZONS, Horizon
from clipfarm_assets.contracts.statuses import STRATEGIES, Strategy
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.tables import BadTable, parquet_to_table
from clipfarm_assets.training.dataset_file import ROWS_PART
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets.training.snapshot_reader import list_snapshots, open_snapshot

_IDS = pa.schema([("video_id", pa.string())])


@dataclass(frozen=True)
class DatasetUse:
    """A current training dataset that holds the clip."""

    strategy: Strategy
    horizon: Horizon
    sha256: str


@dataclass(frozen=True)
class SnapshotUse:
    """A published snapshot whose split has the clip, and in which part."""

    snapshot: str
    split: str


@dataclass(frozen=True)
class ClipUses:
    """What was made with the clip.

    Attributes:
        datasets: That hold it.
        snapshots: Of models that were fitted or judged with it.
        predictions: Of the clip, as stored with its date.
        unreadable: What couldn't be looked into, and why.
    """

    datasets: Sequence[DatasetUse] = ()
    snapshots: Sequence[SnapshotUse] = ()
    predictions: Sequence[Mapping[str, object]] = ()
    unreadable: Sequence[str] = field(default=())


def uses_of(deployment: Deployment, video_id: str, date: str) -> ClipUses:
    """Look for the clip in everything downstream.

    Args:
        deployment: Whose.
        video_id: The clip.
        date: Its partition; empty if it has none, and then no predictions are looked for.
    """
    unreadable: list[str] = []
    return ClipUses(
        datasets=_datasets(deployment, video_id, unreadable),
        snapshots=_snapshots(deployment, video_id, unreadable),
        predictions=_predictions(deployment, video_id, date, unreadable) if date else (),
        unreadable=tuple(unreadable),
    )


def _datasets(
    deployment: Deployment, video_id: str, unreadable: list[str]
) -> tuple[DatasetUse, ...]:
    store, layout, found = deployment.store, deployment.layout, []
    for strategy in STRATEGIES:
        for horizon in HORIZONS:
            key = layout.training_dataset(strategy, horizon)
            try:
                sha256 = str(json.loads(store.get(key))["sha256"])
                part = layout.training_dataset_part(strategy, horizon, sha256, ROWS_PART)
                rows = parquet_to_table(store.get(part), _IDS)
            except FileNotFoundError:
                continue
            except (BadTable, ValueError, KeyError, TypeError, RecursionError) as error:
                unreadable.append(f"{key}: {error}")
                continue
            if pc.any(pc.equal(rows["video_id"], video_id)).as_py():
                found.append(DatasetUse(strategy, horizon, sha256))
    return tuple(found)


def _snapshots(
    deployment: Deployment, video_id: str, unreadable: list[str]
) -> tuple[SnapshotUse, ...]:
    found = []
    for snapshot_id in list_snapshots(deployment.store, deployment.layout):
        try:
            opened = open_snapshot(deployment.store, deployment.layout, snapshot_id)
            rows = opened.split_manifest().filter(pl.col("video_id") == video_id)
        except (BadSnapshot, FileNotFoundError) as error:
            unreadable.append(str(error))
            continue
        found += [SnapshotUse(str(snapshot_id), split) for split in rows["split"].to_list()]
    return tuple(found)


def _predictions(
    deployment: Deployment, video_id: str, date: str, unreadable: list[str]
) -> tuple[Mapping[str, object], ...]:
    key = deployment.layout.clip_predictions(date)
    try:
        rows = parquet_to_table(deployment.store.get(key), CLIP_PREDICTIONS)
    except FileNotFoundError:
        return ()
    except BadTable as error:
        unreadable.append(f"{key}: {error}")
        return ()
    return tuple(rows.filter(pc.equal(rows["video_id"], video_id)).to_pylist())
