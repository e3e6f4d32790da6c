import pytest

from clipfarm_assets.serving.predictor import load_predictor
from clipfarm_assets.training.snapshot import SnapshotId
from clipfarm_assets_tests.serving.kit import lock_of, promoted, publish_snapshot, put_lock
from clipfarm_assets_tests.stores import folder, s3, store  # noqa: F401 - fixtures


@pytest.fixture
def filled(folder):  # noqa: F811 - the fixture imported above
    """A run of two strategies, and their locks."""
    for strategy in ("concat", "sum_pool"):
        put_lock(folder, lock_of(strategy))
        publish_snapshot(folder, SnapshotId("r1", strategy, 7))
    return folder


@pytest.fixture
def predictor(folder):  # noqa: F811 - the fixture imported above
    """Of the ridge that `promoted` promotes."""
    promoted(folder)
    return load_predictor(folder, 7)
