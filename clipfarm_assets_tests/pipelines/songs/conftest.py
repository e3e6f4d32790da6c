"""Stores that segments of songs are put into."""

import pytest

from clipfarm_assets_tests.pipelines.songs import fusion_kit
from clipfarm_assets_tests.pipelines.songs.segment_kit import counting_store
from clipfarm_assets_tests.stores import folder, s3, store  # noqa: F401 - fixtures


@pytest.fixture
def counting(tmp_path):
    return counting_store(tmp_path)


@pytest.fixture(scope="session")
def compared(tmp_path_factory):
    """A store of fitted and compared models, the comparison, and what was said; not to change."""
    return fusion_kit.compared(tmp_path_factory.mktemp("compared"))
