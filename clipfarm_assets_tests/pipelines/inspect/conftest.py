import pytest

from clipfarm_assets_tests.pipelines.conftest import open_world, world  # noqa: F401 - fixtures
from clipfarm_assets_tests.pipelines.inspect.kit import Template
from clipfarm_assets_tests.pipelines.kit import DAY_1, clips


def five_clips(made):
    made.fill(clips(5))
    made.all_of_it(DAY_1)


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("fused"), five_clips)


@pytest.fixture
def fused(template):
    """Five clips, fused and in the manifest."""
    with template.opened() as opened:
        yield opened
