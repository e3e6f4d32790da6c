import dagster as dg
import pyarrow as pa
import pytest
from dagster_aws.s3 import S3Resource

from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.io_managers import ParquetByPartition
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table

INDEX = dg.AssetKey(["clips", "clip_index"])
RANGE = {
    "dagster/asset_partition_range_start": "2026-02-05",
    "dagster/asset_partition_range_end": "2026-02-06",
}


@pytest.fixture
def manager(tmp_path):
    deployment = DeploymentResource(
        store=str(tmp_path), ledger=f"sqlite:///{tmp_path}/l.sqlite", s3=S3Resource()
    )
    return ParquetByPartition(deployment=deployment)


def table(*values):
    return pa.table({"video_id": list(values)}).replace_schema_metadata({"clipfarm.note": "kept"})


def upstream(tables):
    @dg.asset(
        key=INDEX,
        partitions_def=partitions.dates,
        io_manager_key="manager",
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def clip_index():
        return tables

    return clip_index


def run(assets, manager, **options):
    return dg.materialize(assets, resources={"manager": manager}, **options)


def test_a_range_is_an_object_a_date_and_comes_back_as_it_was(manager, tmp_path):
    seen = {}

    @dg.asset(
        partitions_def=partitions.dates,
        ins={"index": dg.AssetIn(INDEX, partition_mapping=partitions.same_date)},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def reader(index: dict) -> None:
        seen.update(index)

    made = {"2026-02-05": table("a", "b"), "2026-02-06": table()}
    made["2026-02-06"] = made["2026-02-06"].cast(pa.schema([("video_id", pa.string())]))
    made["2026-02-05"] = made["2026-02-05"].cast(pa.schema([("video_id", pa.string())]))
    run([upstream(made), reader], manager, tags=RANGE)
    assert {date: t.to_pydict() for date, t in seen.items()} == {
        date: t.to_pydict() for date, t in made.items()
    }
    store = ObjectStore.open(str(tmp_path))
    key = "clipfarm/index/date=2026-02-05/clip_index.parquet"
    assert parquet_to_table(store.get(key)).to_pydict() == {"video_id": ["a", "b"]}


def test_one_partition_is_a_mapping_too(manager):
    @dg.asset(
        partitions_def=partitions.dates,
        ins={"index": dg.AssetIn(INDEX, partition_mapping=partitions.same_date)},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def reader(index: dict) -> None:
        assert list(index) == ["2026-02-05"]

    run([upstream({"2026-02-05": table("a")}), reader], manager, partition_key="2026-02-05")


def test_the_files_own_metadata_is_kept(manager, tmp_path):
    run([upstream({"2026-02-05": table("a")})], manager, partition_key="2026-02-05")
    data = ObjectStore.open(str(tmp_path)).get("clipfarm/index/date=2026-02-05/clip_index.parquet")
    assert parquet_to_table(data).schema.metadata[b"clipfarm.note"] == b"kept"


@pytest.mark.parametrize("tables", [{}, {"2026-02-05": table("a"), "2026-02-07": table("b")}])
def test_tables_of_other_partitions_are_refused(manager, tables):
    with pytest.raises(ValueError, match=r"must give a table for each of \['2026-02-05'\]: found"):
        run([upstream(tables)], manager, partition_key="2026-02-05")


def test_a_partition_never_made_is_named(manager):
    @dg.asset(
        partitions_def=partitions.dates,
        ins={"index": dg.AssetIn(INDEX, partition_mapping=partitions.same_date)},
    )
    def reader(index: dict) -> None:
        raise AssertionError

    spec = dg.AssetSpec(INDEX, partitions_def=partitions.dates, metadata={})
    external = spec.with_io_manager_key("manager")
    with pytest.raises(FileNotFoundError, match="clip_index has no partition 2026-02-05 yet"):
        run([external, reader], manager, partition_key="2026-02-05", selection=[reader])
