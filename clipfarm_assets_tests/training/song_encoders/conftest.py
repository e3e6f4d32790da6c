import pytest

from clipfarm_assets_tests.training.song_encoders import kit


@pytest.fixture(scope="session")
def deberta_dir(tmp_path_factory):
    return kit.deberta_folder(tmp_path_factory.mktemp("deberta"))


@pytest.fixture(scope="session")
def clap_dir(tmp_path_factory):
    return kit.clap_folder(tmp_path_factory.mktemp("clap"))


@pytest.fixture(scope="session")
def wav2vec2_dir(tmp_path_factory):
    return kit.wav2vec2_folder(tmp_path_factory.mktemp("wav2vec2"))
