import dagster as dg
import pytest

from clipfarm_assets_tests.defs import kit


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def bench(tmp_path):
    kit.OPENED.clear()
    made = kit.Bench(tmp_path)
    made.add_clips(
        *((f"clip5-{i}", "2026-02-05") for i in range(4)),
        *((f"clip6-{i}", "2026-02-06") for i in range(3)),
        *((f"clip7-{i}", "2026-02-07") for i in range(2)),
    )
    return made
