"""Slots of a pool that a killed run still holds are found, and freed for the next one."""

import dagster as dg
import pytest
from dagster import DagsterInstance

from clipfarm_assets.orchestration import release


@pytest.fixture
def instance(tmp_path):
    settings = {"concurrency": {"pools": {"default_limit": 1, "granularity": "op"}}}
    with dg.instance_for_test(temp_dir=str(tmp_path), overrides=settings) as found:
        found.event_log_storage.set_concurrency_slots("encoders", 1)
        yield found


def claim(instance: DagsterInstance, run_id: str):
    return instance.event_log_storage.claim_concurrency_slot("encoders", run_id, "step")


def test_a_killed_runs_slot_is_listed_and_freed(instance, capsys):
    @dg.job
    def nothing():
        pass

    run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)
    assert claim(instance, run.run_id).is_claimed
    assert not claim(instance, "another").is_claimed

    assert release.main([], instance) == 0
    assert f"{run.run_id}  holds a slot of the pool encoders" in capsys.readouterr().out
    assert release.main([run.run_id[:8]], instance) == 0

    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.FAILURE
    assert claim(instance, "another").is_claimed


def test_a_run_that_holds_nothing_is_not_touched(instance, capsys):
    assert release.main(["f00"], instance) == 1
    assert "f00: 0 runs of that id hold a slot; held by no run" in capsys.readouterr().out
    assert release.main([], instance) == 0
    assert capsys.readouterr().out == "no run holds a slot\n"
