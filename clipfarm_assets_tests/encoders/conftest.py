import pytest

from clipfarm_assets.encoders.base import Deadline, Source
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.models import MODEL_VARIABLES
from clipfarm_assets.encoders.open import open_encoder

CONFIGS = {"video": VideoConfig, "audio": AudioConfig, "text": TextConfig}
METADATA = {"title": "A cat", "description": "jumps, far.\nTwice", "query": "cats"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for variable in MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """A folder with the three stand-in model directories."""
    cache = tmp_path_factory.mktemp("models")
    for modality in CONFIGS:
        stand_in_dir(modality, cache)
    return cache


@pytest.fixture(scope="session")
def opened(stand_ins):
    """Open an encoder over its stand-in, once for each setting."""
    encoders = {}

    def get(modality, **settings):
        key = (modality, *sorted(settings.items()))
        if key not in encoders:
            config = CONFIGS[modality](model=str(stand_in_dir(modality, stand_ins)), **settings)
            encoders[key] = open_encoder(
                modality, config, profile="demo", cache_dir=stand_ins, models_lock=None
            )
        return encoders[key]

    return get


@pytest.fixture(scope="session")
def encode():
    """One item's raw bytes through an encoder."""

    def run(encoder, raw, metadata=None):
        source = Source("clip", raw, METADATA if metadata is None else metadata)
        prepared = encoder.prepare(source, Deadline.after(60))
        return encoder.encode([prepared])[0]

    return run


@pytest.fixture(scope="session")
def prepare():
    """One item's raw bytes prepared, within `seconds`."""

    def run(encoder, raw, seconds=60.0, metadata=None):
        source = Source("clip", raw, METADATA if metadata is None else metadata)
        return encoder.prepare(source, Deadline.after(seconds))

    return run
