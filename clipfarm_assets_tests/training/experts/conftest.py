import pytest

from clipfarm_assets_tests.training.experts import kit


@pytest.fixture(scope="session")
def text_dir(tmp_path_factory):
    return kit.text_folder(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def vision_dir(tmp_path_factory):
    return kit.vision_folder(tmp_path_factory.mktemp("vision"))
