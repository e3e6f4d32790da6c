"""The deployment's setting of songs: where files lie, and how they are prepared and learned."""

import json

import pytest

from clipfarm_assets.defs.resources import resources_from
from clipfarm_assets.orchestration.song_settings import (
    VARIABLE,
    SongSettings,
    config_of_run,
    song_settings,
)
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import BadSongConfig, SongConfig, song_config

TOLD = {
    "prefix": "of/songs",
    "media_key": "media.parquet",
    "config": {"model": {"audio_encoder": {"type": "wav2vec2"}, "hidden_dim": 64}},
}


def settings(told):
    return song_settings({VARIABLE: told if isinstance(told, str) else json.dumps(told)})


@pytest.mark.parametrize("told", [None, ""])
def test_unset_it_is_the_documented_layout_and_all_defaults(told, tmp_path):
    environ = {"CLIPFARM_HOME": str(tmp_path)} | ({} if told is None else {VARIABLE: told})
    assert song_settings(environ) == SongSettings()
    deployment = resources_from(environ)["deployment"]
    assert deployment.songs == SongLayout()
    assert deployment.song_config == SongConfig()


def test_it_sets_keys_and_settings(tmp_path):
    environ = {VARIABLE: json.dumps(TOLD), "CLIPFARM_HOME": str(tmp_path)}
    deployment = resources_from(environ)["deployment"]
    assert deployment.songs == settings(TOLD).layout
    assert deployment.songs.media() == "of/songs/media.parquet"
    assert deployment.songs.metadata() == "of/songs/raw/training_segments_metadata.parquet"
    assert deployment.song_config == song_config(TOLD["config"])
    assert deployment.song_config.model.audio_encoder.type == "wav2vec2"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ("[1]", "must be a JSON object of fields: found '[1]'"),
        ({"prefx": "a"}, f"{VARIABLE}.prefx is no setting: expected some of prefix"),
        ({"prefix": "../elsewhere"}, f"{VARIABLE}: bad object key"),
        ({"files_prefix": 7}, f"{VARIABLE}.files_prefix must be a valid string: found 7"),
        ({"config": {"model": {"fusion": {"strategy": "lat"}}}},
         f"{VARIABLE}.config.model.fusion.strategy must be one of 'late', 'early'"),
        ({"config": {"modle": {}}}, f"{VARIABLE}.config.modle is no setting"),
    ],
)  # fmt: skip
def test_what_it_cannot_be_is_one_sentence(told, says):
    with pytest.raises(ValueError, match=VARIABLE) as refused:
        settings(told)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_overrides_some_and_keeps_the_rest():
    deployment = song_config({"training": {"seed": 7, "fit": {"max_epochs": 9, "patience": 3}}})
    assert config_of_run(deployment, {}) is deployment
    found = config_of_run(deployment, {"training": {"fit": {"max_epochs": 2}}})
    assert found.training.fit.max_epochs == 2
    assert (found.training.seed, found.training.fit.patience) == (7, 3)
    assert found.model == deployment.model


def test_an_encoder_of_another_type_has_its_own_defaults():
    deployment = song_config({"model": {"midi_encoder": {"type": "piano_roll", "channels": [8]}}})
    same = config_of_run(
        deployment, {"model": {"midi_encoder": {"type": "piano_roll", "dropout": 0.0}}}
    )
    assert same.model.midi_encoder.channels == (8,)
    other = config_of_run(deployment, {"model": {"midi_encoder": {"type": "event_based"}}})
    assert other == song_config({"model": {"midi_encoder": {"type": "event_based"}}})


@pytest.mark.parametrize(
    ("own", "other"), [("wav2vec2", "clap"), ("clap", "wav2vec2"), ("clap", "cnn"), ("cnn", "clap")]
)
def test_an_audio_encoder_of_another_type_has_its_own_sample_rate(own, other):
    """Nobody has told one: it was the deployment's encoder's."""
    deployment = song_config({"model": {"audio_encoder": {"type": own}}})
    found = config_of_run(deployment, {"model": {"audio_encoder": {"type": other}}})
    assert found == song_config({"model": {"audio_encoder": {"type": other}}})
    rate = {"preprocessing": {"audio": {"sample_rate": 22_050}}}
    told = config_of_run(deployment, {"model": {"audio_encoder": {"type": "cnn"}}, **rate})
    assert told.preprocessing.audio.sample_rate == 22_050
    kept = config_of_run(song_config(rate), {"model": {"audio_encoder": {"type": "cnn"}}})
    assert kept.preprocessing.audio.sample_rate == 22_050


def test_a_wrong_setting_of_a_run_names_the_field():
    with pytest.raises(BadSongConfig, match=r"features\.config\.model\.midi_encoder\.type must be"):
        config_of_run(
            SongConfig(), {"model": {"midi_encoder": {"type": "organ"}}}, "features.config"
        )
