"""Which pretrained models songs use."""

import pytest

from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.training.song_config import SongConfig, song_config
from clipfarm_assets.training.song_models import (
    PRETRAINED_SONG_MODELS,
    SONG_MODEL_VARIABLES,
    audio_model,
    network_models,
    text_model,
)
from clipfarm_assets_tests.training.song_encoders import kit

PRETRAINED = {
    "text_encoder": {"type": "deberta"},
    "audio_encoder": {"type": "wav2vec2"},
}


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for variable in SONG_MODEL_VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_a_network_of_precomputed_vectors_and_encoders_from_scratch_needs_none(tmp_path):
    assert network_models(SongConfig(), profile="pretrained", cache_dir=tmp_path) == {}
    stored = {"audio_encoder": {"type": "wav2vec2", "precomputed": True}}
    config = song_config({"model": stored})
    assert network_models(config, profile="pretrained", cache_dir=tmp_path) == {}


def test_the_demo_profile_has_stand_ins_that_are_known_as_such(tmp_path):
    config = song_config({"model": PRETRAINED})
    found = network_models(config, profile="demo", cache_dir=tmp_path)
    assert list(found) == ["text", "audio"]
    for model in found.values():
        assert model.is_stand_in
        assert "stand-in" in model.name
    assert network_models(config, profile="demo", cache_dir=tmp_path) == found


def test_settings_count_before_the_environment_and_that_before_the_profile(tmp_path, monkeypatch):
    deberta_dir, clap_dir = kit.deberta_folder(tmp_path), kit.clap_folder(tmp_path)
    config = song_config({"model": PRETRAINED})
    monkeypatch.setenv("CLIPFARM_SONG_TEXT_MODEL", str(deberta_dir))
    assert text_model(config, profile="demo", cache_dir=tmp_path).path == deberta_dir
    named = {**PRETRAINED, "text_encoder": {"type": "deberta", "model": str(clap_dir)}}
    config = song_config({"model": named})
    assert text_model(config, profile="demo", cache_dir=tmp_path).path == clap_dir


def test_pinned_models_are_pinned_by_commit():
    for name in PRETRAINED_SONG_MODELS.values():
        revision = name.partition("@")[2]
        assert len(revision) == 40
        assert set(revision) <= set("0123456789abcdef")


def test_a_model_that_is_nowhere_is_named_with_where_it_was_said(tmp_path):
    config = song_config({"model": {"text_encoder": {"type": "deberta", "model": "./nowhere"}}})
    with pytest.raises(
        ModelUnavailable, match=r"config\.model\.text_encoder\.model is './nowhere'"
    ):
        text_model(config, profile="demo", cache_dir=tmp_path)


def test_a_cnn_has_no_pretrained_model(tmp_path):
    with pytest.raises(ValueError, match="expected 'wav2vec2' or 'clap'"):
        audio_model(SongConfig(), profile="demo", cache_dir=tmp_path)
