"""The table of what a run reached and what held it back."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from clipfarm_assets.orchestration import metadata
from clipfarm_assets.pipelines.meters import Meters, StepUse
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.roofline import LARGE_OBJECT, roofline
from clipfarm_assets.pipelines.workers import Machine, WorkerOptions, plan_work

MIB = 2**20
CPU = plan_work(WorkerOptions(fetch_workers=4, put_workers=2), "video", Machine(2, 64 * 2**30))
GPU = plan_work(WorkerOptions(fetch_workers=4), "video", Machine(16, 64 * 2**30), "cuda")

# Ten clips: 0.1 s a request, 1 CPU second to decode, 3 to encode, 0.05 s to store.
USES = {
    "fetch": StepUse(10, busy_seconds=1.0, cpu_seconds=0.1, bytes=10 * LARGE_OBJECT, requests=10),
    "decode": StepUse(10, busy_seconds=16.0, cpu_seconds=10.0, bytes=10 * LARGE_OBJECT),
    "encode": StepUse(10, busy_seconds=40.0, cpu_seconds=30.0),
    "put": StepUse(10, busy_seconds=0.5, cpu_seconds=0.1, bytes=31_280, requests=10),
}


def lines(table):
    return {line.stage: line for line in (*table.steps, table.whole)}


def test_each_step_has_the_ceiling_that_its_costs_and_workers_give():
    found = lines(roofline(USES, CPU, items=10, seconds=25.0))

    assert list(found) == ["fetch", "decode", "encode", "put", "whole"]
    assert {line.achieved for line in found.values()} == {0.4}
    limits = {stage: line.limit for stage, line in found.items()}
    assert limits == pytest.approx(
        {
            "fetch": 4 / 0.1,
            "decode": 2 / 1.0,
            "encode": 2 / 3.0,
            "put": 2 / 0.05,
            "whole": 2 / (1.0 + 3.0),
        }
    )
    assert found["whole"].ratio == pytest.approx(0.8)
    assert [line.bound_by for line in found.values()] == [
        "requests", "decode", "compute", "requests", "compute"
    ]  # fmt: skip


def test_the_whole_is_bound_by_the_larger_of_what_shares_the_cores():
    uses = {**USES, "decode": replace(USES["decode"], cpu_seconds=31.0)}
    whole = roofline(uses, CPU, items=10, seconds=40.0).whole
    assert (whole.bound_by, whole.limit) == ("decode", pytest.approx(20 / 61))


def test_an_accelerator_is_a_ceiling_of_its_own():
    uses = {**USES, "encode": replace(USES["encode"], busy_seconds=0.5, cpu_seconds=0.4)}
    table = roofline(uses, GPU, items=10, seconds=1.0)
    assert lines(table)["encode"].limit == pytest.approx(1 / 0.05)
    assert (table.whole.bound_by, table.whole.limit) == ("decode", pytest.approx(16.0))
    assert table.sentence() == "10 items/s of at most 16 (62%), limited by decoding on the CPU"


def test_a_slow_store_and_one_of_large_objects_are_told_apart():
    slow = replace(USES["fetch"], busy_seconds=100.0)
    small = roofline({**USES, "fetch": slow}, CPU, items=10, seconds=25.0)
    assert (small.whole.bound_by, small.whole.limit) == ("requests", pytest.approx(0.4))
    large = {**USES, "fetch": replace(slow, bytes=10 * LARGE_OBJECT + 1)}
    assert roofline(large, CPU, items=10, seconds=25.0).whole.bound_by == "bytes"


def test_clips_that_end_early_cost_the_whole_less():
    """Half of them have no object: twenty clips in the time of ten."""
    uses = {**USES, "fetch": StepUse(20, busy_seconds=2.0, requests=20)}
    found = lines(roofline(uses, CPU, items=20, seconds=25.0))
    assert found["encode"].limit == pytest.approx(2 / 3)
    assert found["encode"].achieved == 0.4
    assert found["whole"].limit == pytest.approx(20 * 2 / 40)
    assert found["whole"].ratio == pytest.approx(0.8)


def test_nothing_measured_divides_by_nothing():
    assert roofline({}, CPU, items=0, seconds=1.0) is None
    assert roofline(USES, CPU, items=10, seconds=0.0) is None
    free = roofline({"fetch": StepUse(3, requests=3)}, CPU, items=3, seconds=2.0)
    assert (free.whole.limit, free.whole.ratio) == (None, None)
    assert free.sentence() == "3 items in 2.0 s; no step cost anything measurable"
    assert free.records()[0]["limit_per_s"] == "n/a"


def test_the_ui_shows_the_table_and_says_what_limits():
    report = StageReport("video_embedding", "2026-02-05", considered=10, seconds=25.0)
    assert {"roofline", "bound_by", "precision"}.isdisjoint(metadata.stage_metadata(report, {}))
    report.roofline = roofline(USES, CPU, items=10, seconds=25.0)
    report.equivalence = "bf16 is used: said the gate"
    report.computed = "the first 16 rows of the last layer"

    shown = metadata.stage_metadata(report, {})

    assert (shown["precision"], shown["computed"]) == (report.equivalence, report.computed)
    rows = [record.data for record in shown["roofline"].records]
    assert rows[-1] == {
        "stage": "whole",
        "items": 10,
        "achieved_per_s": 0.4,
        "limit_per_s": 0.5,
        "ratio": 0.8,
        "bound_by": "compute",
    }
    assert [row["stage"] for row in rows[:-1]] == ["fetch", "decode", "encode", "put"]
    assert shown["bound_by"] == (
        "0.4 items/s of at most 0.5 (80%), limited by the model's computation"
    )
    assert shown["precision"] == "bf16 is used: said the gate"


def test_meters_count_this_threads_processor_time_and_all_that_is_told():
    meters = Meters()
    with meters.measured("decode") as tally:
        total = sum(i * i for i in range(200_000))
        tally.items, tally.bytes = 1, total % 7
    with suppress(FileNotFoundError), meters.measured("fetch"):
        Path("no such file").read_bytes()

    uses = meters.uses()
    assert 0 < uses["decode"].cpu_seconds <= uses["decode"].busy_seconds * 1.5
    assert uses["decode"].items == 1
    assert uses["fetch"].items == 0
    assert uses["fetch"].busy_seconds > 0
    assert meters.counts() == {"fetched": 0, "decoded": 1, "encoded": 0, "stored": 0}
