import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from dagster_aws.s3 import S3Resource

from clipfarm_assets.demo.planted_vectors import make_planted_store
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.orchestration import io_managers, partitions
from clipfarm_assets.orchestration.io_managers import (
    LazyDatasets,
    ParquetByPartition,
    TrainingDataIO,
)
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.assemble import assemble
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.upkeep.collect import RunsAtWork, refuse_at_work
from clipfarm_assets.pipelines.upkeep.forget import find_clip, forget_clip
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets.training import dataset_file
from clipfarm_assets_tests.pipelines.kit import DAY_1, World, clips

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


@pytest.mark.parametrize("moment", ["once it is made", "before it is put", "once it is put"])
def test_a_clip_forgotten_since_the_table_was_made_is_in_none(tmp_path, monkeypatch, moment):
    """By another machine."""
    with World(tmp_path) as world:
        world.fill(clips(3))
        world.embed_all(DAY_1)
        key = world.layout.clip_index(DAY_1)
        world.store.put(key, table_to_parquet(world.index()[DAY_1]))
    put, puts = ObjectStore.put, []

    def forget():
        with World(tmp_path, "other") as other:
            forget_clip(other.deployment, "clip-001")

    def at_that_moment(store, where, data):
        puts.append(where)
        is_first = puts == [key]
        if is_first and moment == "before it is put":
            forget()
        put(store, where, data)
        if is_first and moment == "once it is put":
            forget()

    @dg.asset(key=INDEX, partitions_def=partitions.dates, io_manager_key="manager")
    def clip_index():
        with World(tmp_path) as world:
            made = world.index()
        if moment == "once it is made":
            forget()
        monkeypatch.setattr(ObjectStore, "put", at_that_moment)
        return made

    deployment = DeploymentResource(
        store=f"{tmp_path}/store", ledger=f"sqlite:///{tmp_path}/machine.sqlite", s3=S3Resource()
    )
    run([clip_index], ParquetByPartition(deployment=deployment), partition_key=DAY_1)
    assert puts[0] == key
    with World(tmp_path, "other") as other:
        found = parquet_to_table(other.store.get(key))
        assert found["video_id"].to_pylist() == ["clip-000", "clip-002"]
        assert find_clip(other.deployment, "clip-001").tables == {}


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


JOB_RANGE = {
    "dagster/asset_partition_range_start": "7|concat",
    "dagster/asset_partition_range_end": "30|concat",
}


@pytest.fixture(scope="module")
def assembled(tmp_path_factory):
    """Two small datasets, and the deployment they were assembled from."""
    root = tmp_path_factory.mktemp("planted")
    store, layout = ObjectStore.open(str(root)), Layout()
    dims = {"video": 6, "audio": 6, "text": 6}
    make_planted_store(store, layout, clips=40, dims=dims, strategies=["concat"])
    with Ledger.open(f"sqlite:///{root}/l.sqlite", store.url) as ledger:
        deployment = Deployment(store, layout, ledger)
        return {f"{horizon}|concat": assemble(deployment, "concat", horizon) for horizon in (7, 30)}


@pytest.fixture
def training_data(manager):
    return TrainingDataIO(deployment=manager.deployment)


def dataset_asset(datasets):
    @dg.asset(
        key=dg.AssetKey(["clips", "training_dataset"]),
        partitions_def=partitions.strategy_by_horizon,
        io_manager_key="manager",
    )
    def training_dataset():
        return datasets

    return training_dataset


def reader_of(seen):
    @dg.asset(
        partitions_def=partitions.strategy_by_horizon,
        ins={
            "data": dg.AssetIn(
                dg.AssetKey(["clips", "training_dataset"]), partition_mapping=partitions.same_job
            )
        },
    )
    def reader(data: LazyDatasets) -> None:
        seen(data)

    return reader


def test_datasets_of_a_range_come_back_one_at_a_time(assembled, training_data, monkeypatch):
    read = []
    monkeypatch.setattr(
        io_managers,
        "read_dataset",
        lambda *a: (read.append(a[2:]), dataset_file.read_dataset(*a))[1],
    )

    def seen(data):
        assert list(data) == ["30|concat", "7|concat"]
        assert len(data) == 2
        assert read == [], "nothing is read before it is asked for"
        for key in data:
            found, made = data[key], assembled[key]
            assert np.array_equal(found.clips.fused, made.clips.fused)
            assert np.array_equal(found.target_raw, made.target_raw)
            assert found.clips.metadata.equals(made.clips.metadata)
        assert read == [("concat", 30), ("concat", 7)]
        with pytest.raises(KeyError):
            data["7|max_pool"]

    run([dataset_asset(assembled), reader_of(seen)], training_data, tags=JOB_RANGE)


def test_one_dataset_is_a_mapping_too(assembled, training_data):
    def seen(data):
        assert list(data) == ["7|concat"]
        assert len(data["7|concat"]) == len(assembled["7|concat"])

    given = {"7|concat": assembled["7|concat"]}
    run([dataset_asset(given), reader_of(seen)], training_data, partition_key="7|concat")


def test_nothing_is_removed_while_a_dataset_is_written(
    assembled, training_data, tmp_path, monkeypatch
):
    refused, put = [], ObjectStore.put_if_absent

    def removing(store, key, data):
        with (
            Ledger.open(f"sqlite:///{tmp_path}/l.sqlite", store.url) as ledger,
            pytest.raises(RunsAtWork, match="training_dataset/concat/7"),
        ):
            refuse_at_work(Deployment(store, Layout(), ledger))
        refused.append(key)
        put(store, key, data)

    monkeypatch.setattr(ObjectStore, "put_if_absent", removing)
    given = {"7|concat": assembled["7|concat"]}
    run([dataset_asset(given)], training_data, partition_key="7|concat")
    assert len(refused) == 2


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["30|concat"], r"training_dataset must give a dataset for each of \['7\|concat'\]: found"),
        ([], r"found \[\]"),
        (["7|concat", "30|concat"], "found"),
    ],
)
def test_datasets_of_other_partitions_are_refused(assembled, training_data, given, says):
    datasets = {key: assembled[key] for key in given}
    with pytest.raises(ValueError, match=says):
        run([dataset_asset(datasets)], training_data, partition_key="7|concat")


def test_a_dataset_under_another_jobs_name_is_refused(assembled, training_data, tmp_path):
    swapped = {"7|concat": assembled["30|concat"]}
    with pytest.raises(ValueError, match=r"7\|concat was given the dataset of concat, 30 days"):
        run([dataset_asset(swapped)], training_data, partition_key="7|concat")
    assert not list(ObjectStore.open(str(tmp_path)).list("clipfarm/training/"))


def test_a_dataset_never_assembled_says_what_to_do(training_data):
    def seen(data):
        with pytest.raises(dataset_file.NoDataset, match="materialise clips/training_dataset"):
            data["7|concat"]

    spec = dg.AssetSpec(
        dg.AssetKey(["clips", "training_dataset"]), partitions_def=partitions.strategy_by_horizon
    ).with_io_manager_key("manager")
    reader = reader_of(seen)
    run([spec, reader], training_data, partition_key="7|concat", selection=[reader])
