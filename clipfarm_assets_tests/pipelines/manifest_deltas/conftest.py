import pytest

from clipfarm_assets_tests.pipelines.manifest_deltas.kit import Bench


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


@pytest.fixture
def grown(bench):
    """A base of three clips, and one delta: a new clip, and a later row of one."""
    bench.put(0, "a", "b", "c")
    bench.update()
    bench.put(1, "b", "d", captured="2026-02-07")
    bench.update()
    assert len(bench.deltas()) == 1
    return bench
