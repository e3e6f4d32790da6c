import pytest

from clipfarm_assets_tests.training import kit


@pytest.fixture(scope="module")
def planted():
    return kit.planted(400)
