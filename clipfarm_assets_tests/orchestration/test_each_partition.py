"""Every partition of a run over a range has its own data version, as in a run of its own."""

import re

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.loader import LoadingContextForTest

from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.each_partition import Made, PartitionGone, materialise_each

SNAPSHOT = dg.AssetKey("snapshot")
KEYS = partitions.strategy_by_horizon.get_partition_keys()
RANGE = {
    "dagster/asset_partition_range_start": "7|concat",
    "dagster/asset_partition_range_end": "30|max_pool",
}


@dg.asset(partitions_def=partitions.strategy_by_horizon, code_version="1")
def dataset() -> None:
    pass


class Suite:
    """An asset whose partitions are made by a function, a check on it, and one after it."""

    def __init__(self):
        self.bad, self.gone = set(), set()
        self.version = "v1"

        @dg.asset(
            name="snapshot",
            partitions_def=partitions.strategy_by_horizon,
            code_version="1",
            deps=[dg.AssetDep(dataset, partition_mapping=partitions.same_job)],
        )
        def snapshot(context: dg.AssetExecutionContext):
            def make(key):
                if key in self.bad:
                    raise dg.Failure(f"{key} is bad")
                if key in self.gone:
                    raise PartitionGone(f"{key} is gone")
                return Made(f"{self.version} of {key}", {"made": key})

            yield from materialise_each(context, make)

        @dg.asset_check(asset=SNAPSHOT, blocking=True)
        def looked_at() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=True)

        @dg.asset(
            deps=[dg.AssetDep(SNAPSHOT, partition_mapping=partitions.all_partitions)],
            code_version="1",
        )
        def after() -> None:
            pass

        self.defs = dg.Definitions(
            assets=[dataset, snapshot, after],
            asset_checks=[looked_at],
            jobs=[
                dg.define_asset_job("train", selection=["dataset", "snapshot"]),
                dg.define_asset_job("compare", selection=["after"]),
            ],
        )

    def status(self, instance):
        """Of the asset after the snapshots, as the UI shows it."""
        graph = self.defs.resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        return resolver.get_status(dg.AssetKey("after"))

    def run(self, instance, job="train", **options):
        run = self.defs.resolve_job_def(job).execute_in_process
        return run(instance=instance, run_config={"loggers": QUIET}, **options)


QUIET = {"console": {"config": {"log_level": "CRITICAL"}}}


def latest(instance, key):
    wanted = dg.AssetRecordsFilter(SNAPSHOT, asset_partitions=[key])
    return instance.fetch_materializations(wanted, limit=1).records[0]


def shown(instance, key):
    found = latest(instance, key).asset_materialization
    version = instance.get_latest_data_version_record(SNAPSHOT, partition_key=key)
    assert version.storage_id == latest(instance, key).storage_id
    return found.tags["dagster/data_version"], found.metadata["made"].value


def made(instance):
    wanted = {key: dg.AssetRecordsFilter(SNAPSHOT, asset_partitions=[key]) for key in KEYS}
    found = {k: instance.fetch_materializations(each, limit=1) for k, each in wanted.items()}
    return {key for key, each in found.items() if each.records}


def test_a_range_gives_each_partition_what_a_run_of_its_own_gives(instance):
    suite = Suite()
    result = suite.run(instance, tags=RANGE)
    of_range = {key: shown(instance, key) for key in KEYS}
    tags = {key: latest(instance, key).asset_materialization.tags for key in KEYS}
    with dg.DagsterInstance.ephemeral() as other:
        for key in KEYS:
            suite.run(other, partition_key=key)
        assert {key: shown(other, key) for key in KEYS} == of_range
        single = latest(other, "7|concat").asset_materialization.tags
    assert of_range["7|concat"] == ("v1 of 7|concat", "7|concat")
    # What staleness goes by, and what the UI filters by, is there as well.
    assert set(single) - set(tags["7|concat"]) == set()
    assert tags["7|concat"]["dagster/partition/strategy"] == "concat"
    ran = {e.step_key for e in result.all_events if e.event_type_value == "STEP_SUCCESS"}
    assert any("looked_at" in step for step in ran), "blocking checks run after a range, too"


def test_what_comes_after_sees_which_partition_changed(instance):
    suite = Suite()
    suite.run(instance, tags=RANGE)
    suite.run(instance, "compare")
    before = {key: shown(instance, key)[0] for key in KEYS}
    only = {"asset_selection": [SNAPSHOT]}
    suite.run(instance, tags=RANGE, **only)
    assert {key: shown(instance, key)[0] for key in KEYS} == before, "same inputs, same version"
    assert suite.status(instance) == StaleStatus.FRESH
    suite.version = "v2"
    suite.run(instance, partition_key="7|concat", **only)
    after = {key: shown(instance, key)[0] for key in KEYS}
    assert [key for key in KEYS if after[key] != before[key]] == ["7|concat"]
    assert suite.status(instance) == StaleStatus.STALE


def test_what_was_made_before_a_failure_counts(instance):
    suite = Suite()
    suite.bad = {"7|max_pool"}
    with pytest.raises(dg.Failure, match=r"7\|max_pool is bad"):
        suite.run(instance, tags=RANGE)
    assert made(instance) == {"30|concat", "30|max_pool", "30|sum_pool", "7|concat"}
    assert shown(instance, "7|concat") == ("v1 of 7|concat", "7|concat")


def test_what_is_gone_keeps_nothing_else_from_being_made(instance):
    suite = Suite()
    suite.gone = {"30|concat", "7|max_pool"}
    says = "30|concat is gone; 2 in all: '30|concat', '7|max_pool'; the other partitions are made"
    with pytest.raises(PartitionGone, match=rf"^{re.escape(says)}$"):
        suite.run(instance, tags=RANGE)
    assert made(instance) == set(KEYS) - suite.gone
    with pytest.raises(PartitionGone, match=r"^7\|max_pool is gone$"):
        suite.run(instance, partition_key="7|max_pool")


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral
