import shutil

import dagster as dg
import pytest

from clipfarm_assets.training import artifacts
from clipfarm_assets_tests.defs import kit


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def bench(tmp_path):
    kit.OPENED.clear()
    return kit.nine_clips(tmp_path)


@pytest.fixture(scope="module")
def _everything(tmp_path_factory):
    folder = tmp_path_factory.mktemp("everything")
    bench = kit.nine_clips(folder / "bench")
    kit.OPENED.clear()
    with dg.DagsterInstance.ephemeral() as instance:
        bench.everything(instance)
        opened = tuple(kit.OPENED)
        shutil.copytree(bench.root, folder / "kept")
        yield folder, instance, opened


@pytest.fixture
def finished(_everything):
    """`bench` after runs of everything, the instance of these, and the models they opened."""
    folder, instance, opened = _everything
    # At the same place for each test: a ledger's rows are those of a store's url.
    shutil.rmtree(folder / "bench")
    shutil.copytree(folder / "kept", folder / "bench")
    kit.OPENED.clear()
    return kit.Bench(folder / "bench"), instance, opened


@pytest.fixture
def done(finished):
    """`bench` after runs of everything."""
    return finished[0]


@pytest.fixture(scope="module")
def undrawn():
    """Plots are most of what a small suite costs, and decide nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifacts, "_plots", lambda *_: {})
        yield
