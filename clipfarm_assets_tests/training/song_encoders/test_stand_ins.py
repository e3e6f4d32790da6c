"""Seeded models in the place of pretrained ones."""

import transformers

from clipfarm_assets.encoders.models import hash_model_dir, resolved_directory
from clipfarm_assets.training.song_encoder_config import ClapAudio
from clipfarm_assets.training.song_encoders.audio import ClapEncoder
from clipfarm_assets.training.song_encoders.stand_ins import (
    CLAP_STAND_IN,
    DEBERTA_STAND_IN,
    stand_in_clap,
    stand_in_deberta,
)
from clipfarm_assets_tests.training.song_encoders import kit


def test_they_are_built_again_byte_for_byte(tmp_path, deberta_dir, clap_dir):
    """In other processes too: see the same of experts, which share how weights are drawn."""
    again = kit.deberta_folder(tmp_path), kit.clap_folder(tmp_path)
    assert [hash_model_dir(each) for each in again] == [
        hash_model_dir(each) for each in (deberta_dir, clap_dir)
    ]


def test_they_are_named_and_marked_as_what_they_are(deberta_dir, clap_dir):
    assert deberta_dir.name.startswith(DEBERTA_STAND_IN)
    assert clap_dir.name == CLAP_STAND_IN
    for folder in (deberta_dir, clap_dir):
        assert "stand-in" in folder.name
        assert resolved_directory(folder, folder.name).is_stand_in


def test_other_words_are_another_directory_and_the_same_ones_are_not_built_again(tmp_path):
    first = stand_in_deberta(tmp_path, ["love rain"], kit.SMALL_DEBERTA)
    stamp = (first / "config.json").stat().st_mtime_ns
    assert stand_in_deberta(tmp_path, ["rain", "love"], kit.SMALL_DEBERTA) == first
    assert (first / "config.json").stat().st_mtime_ns == stamp
    assert stand_in_deberta(tmp_path, ["stone"], kit.SMALL_DEBERTA) != first


def test_full_size_is_that_of_the_published_models(tmp_path):
    folder = stand_in_clap(tmp_path)
    encoder = ClapEncoder.load(folder, ClapAudio(), 48_000)
    assert encoder.dim == 512
    published = transformers.ClapAudioConfig()
    config = encoder.model.config
    for name in ("hidden_size", "spec_size", "num_mel_bins", "window_size", "projection_dim"):
        assert getattr(config, name) == getattr(published, name), name
    assert encoder.longest == 480_000
