"""IO managers: thin over the store, ranged outputs and inputs included, never a pickle."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import dagster as dg
import pyarrow as pa

from clipfarm_assets.orchestration.faults import one_sentence
from clipfarm_assets.orchestration.partitions import training_job
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.turns import LeaseOptions, at_work
from clipfarm_assets.pipelines.upkeep.dated_tables import store_tables
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.tables import parquet_to_table
from clipfarm_assets.training.data import TrainingData
from clipfarm_assets.training.dataset_file import read_dataset, write_dataset

Tables = dict[str, pa.Table]


class ParquetByPartition(dg.ConfigurableIOManager):
    """A parquet object of clips a partition.

    Assets give and take ``{partition key: pyarrow.Table}``, for one partition as for a range. The
    object's key is what the layout's method of the asset's name says: ``clips/clip_index`` lies at
    ``layout.clip_index(date)``. It has no row of a clip that was removed for good, not even if that
    was after the asset had made the table.
    """

    deployment: dg.ResourceDependency[DeploymentResource]

    @one_sentence()
    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, pa.Table]) -> None:
        """Store one object a partition.

        Raises:
            ValueError: The tables given are not those of the run's partitions.
        """
        _check_partitions(context, obj, "table")
        key_of = self._keys(context.asset_key)
        with self.deployment.open() as opened:
            store_tables(opened, {key_of(partition): table for partition, table in obj.items()})

    @one_sentence()
    def load_input(self, context: dg.InputContext) -> Tables:
        """Load the upstream partitions, always as a mapping in the order of their keys.

        Raises:
            FileNotFoundError: A partition was never materialised; names it.
        """
        store, key_of = self.deployment.open_store(), self._keys(context.asset_key)
        tables: Tables = {}
        for partition in sorted(context.asset_partition_keys):
            try:
                tables[partition] = parquet_to_table(store.get(key_of(partition)))
            except FileNotFoundError:
                name = context.asset_key.to_user_string()
                msg = f"{name} has no partition {partition} yet: materialise it first"
                raise FileNotFoundError(msg) from None
        return tables

    def _keys(self, asset_key: dg.AssetKey) -> Callable[[str], str]:
        keys: dict[str, Callable[[Layout, str], str]] = {
            "clip_index": Layout.clip_index,
            "embedding_manifest": Layout.embedding_manifest,
            "clip_predictions": Layout.clip_predictions,
        }
        name = asset_key.path[-1]
        if name not in keys:
            msg = f"the layout has no dated parquet key for {asset_key.to_user_string()}"
            raise dg.DagsterInvariantViolationError(msg)
        layout = self.deployment.layout
        return lambda partition: keys[name](layout, partition)


class LazyDatasets(Mapping[str, TrainingData]):
    """Training datasets by partition, each read from the store when it is asked for.

    Nothing is kept: of a range, one dataset is in memory at a time.
    """

    def __init__(self, read: Callable[[str], TrainingData], partitions: Sequence[str]) -> None:
        """Datasets of `partitions`, in this order, by `read`."""
        self._read = read
        self._partitions = tuple(partitions)

    def __getitem__(self, partition: str) -> TrainingData:
        """Read one.

        Raises:
            KeyError: It is no partition of the run.
            NoDataset, BadDataset: See `training.dataset_file.read_dataset`.
        """
        if partition not in self._partitions:
            raise KeyError(partition)
        return self._read(partition)

    def __iter__(self) -> Iterator[str]:
        """The partitions."""
        return iter(self._partitions)

    def __len__(self) -> int:
        """Number of partitions."""
        return len(self._partitions)


class TrainingDataIO(dg.ConfigurableIOManager):
    """A training dataset a strategy x horizon partition, in the files of `training.dataset_file`.

    Assets give ``{partition key: TrainingData}`` and take `LazyDatasets`, for one partition as for
    a range.
    """

    deployment: dg.ResourceDependency[DeploymentResource]

    @one_sentence()
    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, TrainingData]) -> None:
        """Store one dataset a partition; a reader never sees half of one.

        Raises:
            ValueError: The datasets given are not those of the run's partitions.
        """
        _check_partitions(context, obj, "dataset")
        leases, say = LeaseOptions(run_id=context.run_id), context.log.info
        with self.deployment.open() as opened:
            for partition, data in obj.items():
                made_of = data.provenance
                if training_job(partition) != (made_of.strategy, made_of.horizon):
                    found = f"{made_of.strategy}, {made_of.horizon} days"
                    msg = f"partition {partition} was given the dataset of {found}"
                    raise ValueError(msg)
                scope = f"training_dataset/{made_of.strategy}/{made_of.horizon}"
                with at_work(opened.ledger, scope, leases, say):
                    write_dataset(opened.store, opened.layout, data)

    def load_input(self, context: dg.InputContext) -> LazyDatasets:
        """The upstream partitions, in the order of their keys; read when they are asked for."""
        store, layout = self.deployment.open_store(), self.deployment.layout
        return LazyDatasets(
            lambda partition: read_dataset(store, layout, *training_job(partition)),
            sorted(context.asset_partition_keys),
        )


def _check_partitions(context: dg.OutputContext, obj: Mapping[str, object], what: str) -> None:
    expected = sorted(context.asset_partition_keys)
    if sorted(obj) != expected:
        name = context.asset_key.to_user_string()
        msg = f"{name} must give a {what} for each of {expected}: found {sorted(obj)}"
        raise ValueError(msg)
