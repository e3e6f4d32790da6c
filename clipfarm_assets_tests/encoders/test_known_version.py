"""The version of an encoder, known without loading it."""

import subprocess
import sys
from dataclasses import replace

import pytest

from clipfarm_assets.encoders.base import Equivalence, ModelMismatch
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.demo_models import stand_in_dir
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.open import known_version, open_encoder
from clipfarm_assets.encoders.precision.build import build_fingerprint
from clipfarm_assets.encoders.precision.canary import CANARY_VERSION
from clipfarm_assets.encoders.precision.equivalence import LEAST_COSINE
from clipfarm_assets.encoders.precision.verdicts import Verdict, Verdicts
from clipfarm_assets.storage.objects import ObjectStore

CASES = [
    ("video", VideoConfig(), VideoConfig(pooling="mean")),
    ("audio", AudioConfig(), AudioConfig(max_audio_seconds=30)),
    ("text", TextConfig(), TextConfig(long_text="chunk_mean")),
]
KEY = "clipfarm/state/models_lock.json"
HEAVY = ("torch", "transformers", "sentence_transformers", "librosa")
VERDICTS = "clipfarm/state/equivalence.json"


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
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def gated(tmp_path, stand_ins):
    """Where to open encoders whose verdicts are recorded."""
    store = ObjectStore.open(str(tmp_path / "store"))
    lock = ModelsLock(store, KEY, Verdicts(store, VERDICTS))
    return {"profile": "demo", "cache_dir": stand_ins, "models_lock": lock}


def asking_for_bf16(modality, stand_ins):
    settings = {m: type(config) for m, config, _ in CASES}[modality]
    model = str(stand_in_dir(modality, stand_ins))
    return settings(model=model, precision="bf16", device="cpu")


@pytest.mark.parametrize("modality", ["video", "audio", "text"])
def test_a_gated_precision_is_known_by_its_verdict(gated, modality, stand_ins, monkeypatch):
    config = asking_for_bf16(modality, stand_ins)
    exact = open_encoder(modality, config.model_copy(update={"precision": "exact"}), **gated)
    assert exact.equivalence is None
    gated["models_lock"].record_version(exact.version)
    assert known_version(modality, config, **gated) is None, "no verdict yet"

    opened = open_encoder(modality, config, **gated)
    assert opened.equivalence.precision == "bf16"
    assert opened.equivalence.holds or modality == "text", "whose stand-in's vectors are all alike"
    assert opened.version.params.get("precision") == ("bf16" if opened.equivalence.holds else None)
    gated["models_lock"].admit(opened.version, is_stand_in=True)
    assert known_version(modality, config, **gated) == opened.version

    monkeypatch.setattr("clipfarm_assets.encoders.open.build_fingerprint", lambda _: "elsewhere")
    assert known_version(modality, config, **gated) is None, "no verdict of that build"


@pytest.fixture
def passed(gated, stand_ins):
    """A configuration whose verdict is on record, made up: bf16 passes on this build."""
    config = asking_for_bf16("audio", stand_ins)
    exact = open_encoder("audio", config.model_copy(update={"precision": "exact"}), **gated).version
    fast = replace(exact, params=config.version_params())
    lock = gated["models_lock"]
    lock.record_version(fast)
    found = Equivalence("bf16", True, 12, 1.0, LEAST_COSINE, 0, build_fingerprint("cpu"))
    lock.verdicts.record(Verdict(exact.id, CANARY_VERSION, found, "2026-01-01"))
    return config, exact, fast


def test_a_verdict_that_parts_two_machines_is_refused_without_loading(gated, passed, monkeypatch):
    config, exact, fast = passed
    assert known_version("audio", config, **gated) == fast
    failed = Equivalence("bf16", False, 12, 0.5, LEAST_COSINE, 0, "elsewhere")
    gated["models_lock"].verdicts.record(Verdict(exact.id, CANARY_VERSION, failed, "2026-01-01"))
    assert known_version("audio", config, **gated) == fast, "what others find changes nothing here"
    monkeypatch.setattr("clipfarm_assets.encoders.open.build_fingerprint", lambda _: "elsewhere")
    with pytest.raises(ModelMismatch, match=f"vectors of precision bf16 \\({fast.id}\\)"):
        known_version("audio", config, **gated)


def test_a_gated_precision_is_known_without_a_model_library(tmp_path, stand_ins, passed):
    config, _, fast = passed
    code = f"""
import sys
from pathlib import Path
from clipfarm_assets.encoders.config import AudioConfig
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.open import known_version
from clipfarm_assets.encoders.precision.verdicts import Verdicts
from clipfarm_assets.storage.objects import ObjectStore
store = ObjectStore.open({str(tmp_path / "store")!r})
lock = ModelsLock(store, {KEY!r}, Verdicts(store, {VERDICTS!r}))
config = AudioConfig(model={config.model!r}, precision="bf16", device="cpu")
cache = Path({str(stand_ins)!r})
found = known_version("audio", config, profile="demo", cache_dir=cache, models_lock=lock)
assert found.id == {fast.id!r}, found
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
