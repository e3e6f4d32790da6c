"""The tree of settings: what it defaults to, how it is read, and what its errors say."""

import pytest
import yaml

from clipfarm_assets.encoders.midi.augment import MidiAugment
from clipfarm_assets.encoders.midi.tokens import MidiLikeSettings, RemiSettings
from clipfarm_assets.encoders.waveforms.augment import AudioAugment
from clipfarm_assets.encoders.waveforms.mel import MelSettings
from clipfarm_assets.encoders.waveforms.prepare import WaveformSettings
from clipfarm_assets.fusion.options import STRATEGIES, FusionOptions
from clipfarm_assets.training.song_config import SongConfig, song_config
from clipfarm_assets.training.song_config_errors import BadSongConfig

ALL_CHOICES = """
model:
  text_encoder: {type: deberta, model: microsoft/deberta-v3-base, max_tokens: 64, top_layers: 2}
  audio_encoder: {type: clap, window_seconds: 5, top_layers: all}
  midi_encoder: {type: music_transformer, max_events: 256, layers: 1, heads: 2}
  fusion: {strategy: cross_attention, heads: 8, hidden: [64, 32]}
  hidden_dim: 64
preprocessing:
  audio:
    sample_rate: 48000
    seconds: 10
    augment: {enabled: true, time_stretch: 0.2, noise_snr_db: null}
  midi: {frames_per_second: 50, augment: {enabled: true, transpose: 3}}
  alignment: {tolerance_seconds: 0.1, exclude_misaligned: true}
data:
  columns: {song: track_id}
  classes: [calm, tense]
  split_by: album
  ratios: [0.6, 0.2, 0.2]
  declared: {midi: 0.43, audio: 0.85}
training:
  fit: {learning_rate: 3e-4, batch_size: 8}
  modality_dropout: 0.3
  encoder_learning_rates: {audio: 1e-5}
evaluation: {resamples: 100}
"""


def test_without_a_word_it_is_late_fusion_of_encoders_that_need_no_pretrained_model():
    config = song_config("")
    assert config == SongConfig() == song_config({})
    assert config.model.fusion.strategy == "late"
    types = [config.model.text_encoder, config.model.audio_encoder, config.model.midi_encoder]
    assert [each.type for each in types] == ["precomputed", "cnn", "piano_roll"]


def test_what_yaml_says_is_what_a_run_configuration_says():
    config = song_config(ALL_CHOICES)
    assert config == song_config(yaml.safe_load(ALL_CHOICES))
    assert config.model.midi_encoder.vocabulary == "remi"
    assert config.training.fit.learning_rate == 3e-4
    assert config.data.columns.song == "track_id"


@pytest.mark.parametrize("text", ["", ALL_CHOICES])
def test_its_yaml_reads_back_as_the_same_tree(text):
    config = song_config(text)
    again = song_config(config.to_yaml())
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert song_config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            {"model": {"fusion": {"strategy": "lat"}}},
            (
                "config.model.fusion.strategy must be one of 'late', 'early', 'cross_attention', "
                "'gated': found 'lat'"
            ),
        ),
        (
            {"model": {"audio_encoder": {"type": "wav2vec"}}},
            (
                "config.model.audio_encoder.type must be one of 'wav2vec2', 'clap', 'cnn': "
                "found 'wav2vec'"
            ),
        ),
        (
            {"model": {"midi_encoder": {"layers": 3}}},
            (
                "config.model.midi_encoder.type must be one of 'piano_roll', 'event_based', "
                "'music_transformer': found nothing"
            ),
        ),
        (
            {"model": {"audio_encoder": {"type": "cnn", "hop": 4}}},
            (
                "config.model.audio_encoder.hop is no setting: expected some of type, channels, "
                "dropout, tokens"
            ),
        ),
        (
            {"model": {"midi_encoder": {"type": "event_based", "layers": 0}}},
            "config.model.midi_encoder.layers must be greater than or equal to 1: found 0",
        ),
        (
            {"model": {"audio_encoder": {"type": "cnn", "channels": [8, 0]}}},
            "config.model.audio_encoder.channels.1 must be greater than or equal to 1: found 0",
        ),
        (
            {"modell": {}},
            (
                "config.modell is no setting: expected some of model, preprocessing, data, "
                "training, evaluation"
            ),
        ),
        (
            {"training": {"fit": {"learning_rate": -1}}},
            "config.training.fit.learning_rate must be greater than 0: found -1",
        ),
        (
            {"model": {"hidden_dim": 30}},
            "config.model.fusion.heads must divide hidden_dim, 30: found 4",
        ),
        (
            {
                "model": {
                    "hidden_dim": 8,
                    "midi_encoder": {"type": "event_based", "heads": 3},
                }
            },
            "config.model.midi_encoder.heads must divide hidden_dim, 8: found 3",
        ),
        (
            {
                "model": {"audio_encoder": {"type": "clap"}},
                "preprocessing": {"audio": {"sample_rate": 16_000}},
            },
            (
                "config.preprocessing.audio.sample_rate must be 48000 with the audio encoder "
                "'clap': found 16000"
            ),
        ),
        (
            {"model": {"audio_encoder": {"type": "wav2vec2", "precomputed": 1, "top_layers": 2}}},
            "config.model.audio_encoder.top_layers must be 0 where tokens are precomputed: found 2",
        ),
        (
            {
                "model": {"audio_encoder": {"type": "wav2vec2", "precomputed": True}},
                "preprocessing": {"audio": {"augment": {"enabled": True}}},
            },
            (
                "config.preprocessing.audio.augment.enabled must be false where the audio "
                "encoder's tokens are precomputed: found true"
            ),
        ),
        (
            {"data": {"ratios": [0.5, 0.2, 0.2]}},
            "config.data.ratios must be positive, for train, val and test, and add up to 1: found",
        ),
        (
            {"data": {"ratios": [0.8, 0.2, 0.0]}},
            "config.data.ratios must be positive, for train, val and test, and add up to 1: found",
        ),
        (
            {"data": {"classes": ["calm", "calm"]}},
            "config.data.classes must be two or more, each another one: found ['calm', 'calm']",
        ),
        (
            {"preprocessing": {"audio": {"mel": {"n_mels": 400}}}},
            "config.preprocessing.audio.mel has bands that are empty: ",
        ),
        (
            {"preprocessing": {"midi": {"frames_per_second": 0.02}}},
            (
                "config.preprocessing.midi.frames_per_second must give a frame at least in "
                "preprocessing.audio.seconds, 15: found 0.02"
            ),
        ),
        (
            {"preprocessing": {"audio": {"mel": {"fmax": 9000}}}},
            "config.preprocessing.audio.mel and seconds do not go with sample_rate: ",
        ),
        (
            {"preprocessing": {"audio": {"augment": {"noise_snr_db": [40, 15]}}}},
            (
                "config.preprocessing.audio.augment.noise_snr_db must be lowest and highest: "
                "found [40.0, 15.0]"
            ),
        ),
        (
            {"preprocessing": {"midi": {"lowest_pitch": 100}}},
            (
                "config.preprocessing.midi.highest_pitch must be 11 above lowest_pitch, 100, at "
                "least: found 108"
            ),
        ),
        ({"model": 3}, "config.model "),
    ],
)
def test_an_error_names_the_dotted_field_what_it_can_be_and_what_was_found(told, says):
    for each in (told, yaml.safe_dump(told)):
        with pytest.raises(BadSongConfig) as error:
            song_config(each)
        assert str(error.value).startswith(says)
        assert "\n" not in str(error.value)


def test_a_field_that_can_be_a_number_or_a_word_is_named_without_pydantics_own_path():
    told = {"model": {"text_encoder": {"type": "deberta", "top_layers": "some"}}}
    with pytest.raises(BadSongConfig) as error:
        song_config(told)
    parts = str(error.value).split("; ")
    assert len(parts) == 2
    assert all(each.startswith("config.model.text_encoder.top_layers must be ") for each in parts)
    assert parts[1].endswith("one of 'all': found 'some'")


def test_all_problems_are_told_or_counted_and_the_root_is_named_as_the_caller_does():
    told = {"training": dict.fromkeys(("a", "b", "c", "d", "e", "f", "g"), 1)}
    with pytest.raises(BadSongConfig) as error:
        song_config(told, "songs.yaml")
    parts = str(error.value).split("; ")
    assert [part.split(" ")[0] for part in parts[:5]] == [
        f"songs.yaml.training.{name}" for name in "abcde"
    ]
    assert parts[5:] == ["and 2 more"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("model: [", "config must be YAML: "),
        ("- model", "config must be a mapping of settings: found ['model']"),
        ("late", "config must be a mapping of settings: found 'late'"),
        ("model: {hidden_dim: 8, hidden_dim: 16}", "found 'hidden_dim' a second time"),
        ("model: !!python/object:os.system {}", "config must be YAML: "),
        ("{[1]: 2}", "config must be YAML: "),
    ],
)
def test_what_is_no_yaml_of_settings_is_refused(text, says):
    with pytest.raises(BadSongConfig) as error:
        song_config(text)
    assert says in str(error.value)
    assert str(error.value).startswith("config must be ")


def test_what_a_merge_overrides_is_not_given_twice():
    text = """
    preprocessing:
      audio: {augment: &change {probability: 0.1}}
      midi: {augment: {<<: *change, probability: 0.2, transpose: 1}}
    """
    preprocessing = song_config(text).preprocessing
    assert preprocessing.audio.augment.probability == 0.1
    assert preprocessing.midi.augment.probability == 0.2


def test_settings_become_those_of_the_rooms_that_do_the_work():
    config = song_config(ALL_CHOICES)
    audio, midi = config.preprocessing.audio, config.preprocessing.midi
    assert audio.waveform_settings == WaveformSettings(48_000, 10.0, "float32")
    assert audio.mel_settings == MelSettings(48_000, 1024, 512, 64, 0.0, None)
    assert audio.augmentation == AudioAugment(0.2, 2.0, None, 0.5)
    assert midi.augmentation == MidiAugment(transpose=3)
    assert midi.token_settings("remi") == RemiSettings()
    assert midi.token_settings("midi_like") == MidiLikeSettings()
    assert midi.pitches == (21, 109)
    plain = SongConfig().preprocessing
    assert (plain.audio.augmentation, plain.midi.augmentation) == (None, None)


def test_fusion_options_are_the_models_with_what_training_decides():
    config = song_config(ALL_CHOICES)
    assert config.fusion_options() == FusionOptions(
        strategy="cross_attention",
        dim=64,
        hidden=(64, 32),
        heads=8,
        modality_dropout=0.3,
        auxiliary=True,
    )
    assert [config.fusion_options(name).strategy for name in STRATEGIES] == list(STRATEGIES)
    plain = {"auxiliary_weight": 0, "warm_start_epochs": 0}
    assert not song_config({"training": plain}).fusion_options().auxiliary
    for own in ("auxiliary_weight", "warm_start_epochs"):
        alone = song_config({"training": {**plain, own: 1}})
        assert alone.fusion_options().auxiliary, own


def test_pretrained_encoders_learn_slowly_unless_told_otherwise():
    config = song_config(ALL_CHOICES)
    assert config.encoder_rates() == {"text": 2e-5, "audio": 1e-5, "midi": 3e-4}
    assert SongConfig().encoder_rates() == dict.fromkeys(("text", "audio", "midi"), 1e-3)


def test_what_comes_after_a_frozen_encoder_learns_as_fast_as_the_rest():
    told = {
        "model": {
            "text_encoder": {"type": "deberta"},
            "audio_encoder": {"type": "wav2vec2", "precomputed": True},
        },
        "training": {"encoder_learning_rates": {"audio": 1e-4}},
    }
    assert song_config(told).encoder_rates() == {"text": 1e-3, "audio": 1e-4, "midi": 1e-3}


def test_a_networks_inputs_are_those_of_its_encoders():
    assert SongConfig().inputs() == {
        "text": ("text.values",),
        "audio": ("audio.mel",),
        "midi": ("midi.roll",),
    }
    assert song_config(ALL_CHOICES).inputs() == {
        "text": ("text.input_ids", "text.attention_mask"),
        "audio": ("audio.samples",),
        "midi": ("midi.tokens", "midi.mask", "midi.bars", "midi.positions"),
    }
    stored = {"model": {"audio_encoder": {"type": "wav2vec2", "precomputed": True}}}
    assert song_config(stored).inputs()["audio"] == ("audio.values",)


@pytest.mark.parametrize(
    ("encoder", "rate"), [("cnn", 16_000), ("wav2vec2", 16_000), ("clap", 48_000)]
)
def test_an_audio_encoder_by_its_type_alone_has_the_rate_that_it_takes(encoder, rate):
    told = {
        "model": {"audio_encoder": {"type": encoder}},
        "preprocessing": {"audio": {"seconds": 10}},
    }
    config = song_config(told)
    assert config.model.audio_encoder.type == encoder
    audio = config.preprocessing.audio
    assert (audio.sample_rate, audio.seconds) == (rate, 10)
    assert song_config(config.to_yaml()) == config
    assert "sample_rate" not in told["preprocessing"]["audio"]
