"""Reading snapshots: every byte is compared with the manifest before anything parses it."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, cast

import polars as pl
import pyarrow as pa

from clipfarm_assets.contracts.horizons import Horizon, as_horizon
from clipfarm_assets.contracts.statuses import Strategy
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import BadTable, parquet_to_table
from clipfarm_assets.training.families import FamilyName, Model, open_family
from clipfarm_assets.training.metadata_encoder import MetadataEncoder
from clipfarm_assets.training.snapshot import (
    CONFIG,
    MANIFEST,
    BadSnapshot,
    Manifest,
    SnapshotId,
)
from clipfarm_assets.training.snapshot_files import SnapshotFiles

METRICS: Final = "metrics_summary.json"
METADATA_ENCODER: Final = "models/metadata_encoder.json"
INTERVALS: Final = "models/intervals.json"
SPLIT_MANIFEST: Final = "split_manifest.parquet"

_SHOWN_RUNS: Final = 5


class NoSnapshot(FileNotFoundError):  # noqa: N818 - a state of the store
    """There is no such snapshot."""


class NoSuchModel(ValueError):  # noqa: N818
    """The snapshot has no model of that family."""


@dataclass(frozen=True)
class Snapshot(SnapshotFiles):
    """A published snapshot of the clip pipeline."""

    layout: Layout
    id: SnapshotId

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """``config_used.json``."""
        return self.json(CONFIG)

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """``metrics_summary.json``."""
        return self.json(METRICS)

    @property
    def families(self) -> tuple[FamilyName, ...]:
        """The families it has models of."""
        return tuple(self._models())

    def scores(self, family: str, part: str) -> Mapping[str, float | None]:
        """Metric -> value of a family on the part ``val`` or ``test``.

        Raises:
            NoSuchModel: It has no model of the family.
            BadSnapshot: Its metrics lack the part.
        """
        try:
            return cast("Mapping[str, float | None]", self._model_metrics(family)[part])
        except KeyError:
            msg = f"snapshot {self.id}: {METRICS} has no {part} metrics of {family}"
            raise BadSnapshot(msg) from None

    def interval(self, family: str) -> Mapping[str, Any]:
        """Fields of a family's prediction interval, see `intervals.SplitConformal.from_fields`.

        Raises:
            BadSnapshot: There is none.
        """
        try:
            return cast("Mapping[str, Any]", self.json(INTERVALS)[family])
        except KeyError:
            msg = f"snapshot {self.id}: {INTERVALS} has no interval of {family}"
            raise BadSnapshot(msg) from None

    def split_manifest(self) -> pl.DataFrame:
        """``video_id, split, text_present, target_log, target_raw`` of every row."""
        schema = pa.schema(
            [
                ("video_id", pa.string()),
                ("split", pa.string()),
                ("text_present", pa.int64()),
                ("target_log", pa.float64()),
                ("target_raw", pa.float64()),
            ]
        )
        try:
            table = parquet_to_table(self.read(SPLIT_MANIFEST), schema)
        except BadTable as error:
            msg = f"snapshot {self.id}: {SPLIT_MANIFEST}: {error}"
            raise BadSnapshot(msg) from error
        return cast("pl.DataFrame", pl.from_arrow(table))

    def model(self, family: str) -> Model:
        """A family's model, ready to predict.

        Raises:
            NoSuchModel: It has no model of the family.
            BadSnapshot: A file is not what was published.
        """
        return self.load(family)[0]

    def load(self, family: str) -> tuple[Model, Mapping[str, str]]:
        """A family's model, and the sha256 of every artifact that it was loaded from, by name.

        Raises:
            NoSuchModel: It has no model of the family.
            BadSnapshot: A file is not what was published.
        """
        self._model_metrics(family)
        used: dict[str, str] = {}

        def read(name: str) -> bytes:
            used[name] = self.manifest.artifacts[name].sha256 if self._has(name) else ""
            return self.read(name)

        encoder = self._encoder(read)
        opened = open_family(cast("FamilyName", family))
        model = opened.load(lambda name: read(f"models/{name}"), encoder)
        return model, dict(sorted(used.items()))

    def encoder(self) -> MetadataEncoder:
        """What was fitted of the metadata, which all its models share.

        Raises:
            BadSnapshot: The file is not what was published, or of another version of this code.
        """
        return self._encoder(self.read)

    def _encoder(self, read: Callable[[str], bytes]) -> MetadataEncoder:
        try:
            return MetadataEncoder.from_json(read(METADATA_ENCODER))
        except BadSnapshot:
            raise
        except ValueError as error:
            msg = f"snapshot {self.id}: {METADATA_ENCODER}: {error}; train again with this code"
            raise BadSnapshot(msg) from None

    def _has(self, name: str) -> bool:
        return name in self.manifest.artifacts

    def _models(self) -> Mapping[FamilyName, Mapping[str, Any]]:
        models = self.metrics.get("models")
        if (
            not isinstance(models, dict)
            or not models
            or not all(isinstance(model, dict) for model in models.values())
        ):
            msg = f"snapshot {self.id}: {METRICS} must hold the models' metrics by family"
            raise BadSnapshot(msg)
        return models

    def _model_metrics(self, family: str) -> Mapping[str, Any]:
        models = self._models()
        if family not in models:
            msg = (
                f"snapshot {self.id} has no model of family {family!r}: "
                f"expected one of {', '.join(models)}"
            )
            raise NoSuchModel(msg)
        return models[cast("FamilyName", family)]


def open_snapshot(store: ObjectStore, layout: Layout, snapshot_id: SnapshotId) -> Snapshot:
    """A published snapshot; its artifacts are verified as they are read.

    Raises:
        NoSnapshot: It is not there, or was never finished.
        BadSnapshot: Its manifest is malformed.
    """
    try:
        data = store.get(snapshot_id.root(layout) + MANIFEST)
    except FileNotFoundError:
        msg = f"there is no snapshot {snapshot_id} in {store.url}{_runs(store, layout)}"
        raise NoSnapshot(msg) from None
    return Snapshot(store, layout, snapshot_id, Manifest.from_json(data, snapshot_id))


def list_snapshots(
    store: ObjectStore, layout: Layout, run_id: str | None = None
) -> list[SnapshotId]:
    """All published snapshots, of one run or of all, by key.

    Folders without a manifest are attempts in progress or killed ones, and none of these.
    """
    prefix = layout.snapshots_prefix(run_id)
    return [
        found
        for info in store.list(prefix)
        if info.key.endswith(f"/{MANIFEST}")
        and (found := snapshot_of(layout, info.key)) is not None
    ]


_KEY: Final = re.compile(
    r"run_id=([^/]+)/(?:model=([^/]+)/)?strategy=([^/]+)/horizon=([^/]+)/" + re.escape(MANIFEST)
)


def snapshot_of(layout: Layout, key: str) -> SnapshotId | None:
    """The snapshot whose manifest's key this is; None if it is that of none."""
    match = _KEY.fullmatch(key.removeprefix(layout.snapshots_prefix()))
    if match is None:
        return None
    run_id, family, strategy, horizon = match.groups()
    try:
        found = SnapshotId(run_id, cast("Strategy", strategy), as_horizon(horizon), family)
        return found if found.root(layout) + MANIFEST == key else None
    except ValueError:
        return None


def snapshots_of_run(
    store: ObjectStore, layout: Layout, run_id: str, horizon: Horizon | None = None
) -> list[Snapshot]:
    """All snapshots of a run, or those of one horizon.

    Raises:
        NoSnapshot: There is none; names runs that there are.
        BadSnapshot: The manifest of one is malformed.
    """
    found = list(_of(list_snapshots(store, layout, run_id), horizon))
    if not found:
        of = "" if horizon is None else f" of horizon {horizon}"
        msg = f"run_id {run_id!r} has no snapshot{of} in {store.url}{_runs(store, layout)}"
        raise NoSnapshot(msg)
    return [open_snapshot(store, layout, snapshot_id) for snapshot_id in found]


def latest_run(store: ObjectStore, layout: Layout, horizon: Horizon | None = None) -> str:
    """The run of the snapshot that was published last, of one horizon or of any.

    Raises:
        NoSnapshot: There is none.
        BadSnapshot: The manifest of one is malformed.
    """
    found = list(_of(list_snapshots(store, layout), horizon))
    if not found:
        of = "" if horizon is None else f" of horizon {horizon}"
        msg = f"there is no snapshot{of} in {store.url}: materialise clips/model_snapshots first"
        raise NoSnapshot(msg)
    opened = (open_snapshot(store, layout, snapshot_id) for snapshot_id in found)
    return max(opened, key=lambda s: (s.manifest.created_at, s.id.run_id)).id.run_id


def _of(ids: list[SnapshotId], horizon: Horizon | None) -> Iterator[SnapshotId]:
    return (found for found in ids if horizon in {None, found.horizon})


def _runs(store: ObjectStore, layout: Layout) -> str:
    """The end of a sentence about a run that isn't there."""
    runs = sorted({found.run_id for found in list_snapshots(store, layout)})
    if not runs:
        return ": no run has published one yet, materialise clips/model_snapshots first"
    more = f" and {len(runs) - _SHOWN_RUNS} more" if len(runs) > _SHOWN_RUNS else ""
    return f": there are those of run_id {', '.join(runs[:_SHOWN_RUNS])}{more}"
