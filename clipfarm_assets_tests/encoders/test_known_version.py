"""The version of an encoder, known without loading it."""

import subprocess
import sys

import pytest

from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.open import known_version, open_encoder
from clipfarm_assets.storage.objects import ObjectStore

CASES = [
    ("video", VideoConfig(), VideoConfig(pooling="mean")),
    ("audio", AudioConfig(), AudioConfig(max_audio_seconds=30)),
    ("text", TextConfig(), TextConfig(long_text="chunk_mean")),
]
KEY = "clipfarm/state/models_lock.json"


@pytest.mark.parametrize(("modality", "config", "other"), CASES)
def test_it_is_what_opening_gives_once_that_is_on_record(tmp_path, modality, config, other):
    lock = ModelsLock(ObjectStore.open(str(tmp_path / "store")), KEY)
    options = {"profile": "demo", "cache_dir": tmp_path / "cache", "models_lock": lock}
    assert known_version(modality, config, **options) is None
    opened = open_encoder(modality, config, **options)
    lock.admit(opened.version, is_stand_in=opened.is_stand_in)
    assert known_version(modality, config, **options) == opened.version
    assert known_version(modality, other, **options) is None, "other parameters, other version"


def test_it_loads_no_model_library(tmp_path):
    lock = ModelsLock(ObjectStore.open(str(tmp_path / "store")), KEY)
    options = {"profile": "demo", "cache_dir": tmp_path / "cache", "models_lock": lock}
    opened = {}
    for modality, config, _ in CASES:
        version = open_encoder(modality, config, **options).version
        lock.record_version(version)
        opened[modality] = version.id
    code = f"""
import sys
from pathlib import Path
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.open import known_version
from clipfarm_assets.storage.objects import ObjectStore
lock = ModelsLock(ObjectStore.open({str(tmp_path / "store")!r}), {KEY!r})
configs = {{"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}}
for modality, config in configs.items():
    cache = Path({str(tmp_path / "cache")!r})
    found = known_version(modality, config, profile="demo", cache_dir=cache, models_lock=lock)
    assert found.id == {opened!r}[modality]
heavy = ("torch", "transformers", "sentence_transformers", "librosa")
print([m for m in heavy if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
