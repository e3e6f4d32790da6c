"""IO managers: thin over the store, ranged outputs and inputs included, never a pickle."""

from collections.abc import Callable, Mapping

import dagster as dg
import pyarrow as pa

from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet

Tables = dict[str, pa.Table]


class ParquetByPartition(dg.ConfigurableIOManager):
    """A parquet object a partition.

    Assets give and take ``{partition key: pyarrow.Table}``, for one partition as for a range. The
    object's key is what the layout's method of the asset's name says: ``clips/clip_index`` lies at
    ``layout.clip_index(date)``.
    """

    deployment: dg.ResourceDependency[DeploymentResource]

    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, pa.Table]) -> None:
        """Store one object a partition.

        Raises:
            ValueError: The tables given are not those of the run's partitions.
        """
        expected = sorted(context.asset_partition_keys)
        if sorted(obj) != expected:
            name = context.asset_key.to_user_string()
            msg = f"{name} must give a table for each of {expected}: found {sorted(obj)}"
            raise ValueError(msg)
        store, key_of = self.deployment.open_store(), self._keys(context.asset_key)
        for partition, table in obj.items():
            store.put(key_of(partition), table_to_parquet(table))

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
        }
        name = asset_key.path[-1]
        if name not in keys:
            msg = f"the layout has no dated parquet key for {asset_key.to_user_string()}"
            raise dg.DagsterInvariantViolationError(msg)
        layout = self.deployment.layout
        return lambda partition: keys[name](layout, partition)
