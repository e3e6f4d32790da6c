import pytest
from dagster import Config
from pydantic import ValidationError

from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig


def test_defaults_are_the_contracts():
    video, audio, text = VideoConfig(), AudioConfig(), TextConfig()
    assert (video.num_frames, video.pooling, video.rotation) == (16, "first_token", "as_stored")
    assert (audio.sample_rate, audio.max_audio_seconds) == (16_000, 90.0)
    assert text.template == "{title} [SEP] {description} [SEP] {query}"
    assert text.long_text == "truncate"
    assert (video.model, video.revision, video.device, video.threads) == (None, None, "auto", 1)


@pytest.mark.parametrize("config", [VideoConfig, AudioConfig, TextConfig])
def test_every_field_is_described(config):
    assert issubclass(config, EncoderConfig)
    assert all(field.description for field in config.model_fields.values())


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (VideoConfig, {"num_frames": 0}),
        (VideoConfig, {"num_frames": 10_000}),
        (VideoConfig, {"pooling": "max"}),
        (VideoConfig, {"item_deadline_seconds": 0}),
        (VideoConfig, {"item_deadline_seconds": float("nan")}),
        (VideoConfig, {"threads": 0}),
        (VideoConfig, {"device": "tpu"}),
        (AudioConfig, {"max_audio_seconds": -1}),
        (AudioConfig, {"sample_rate": 0}),
        (TextConfig, {"long_text": "skip"}),
    ],
)
def test_values_out_of_bounds_are_refused(config, settings):
    with pytest.raises(ValidationError):
        config(**settings)


@pytest.mark.parametrize("template", ["{query}", "{title}: {title}", "a {{b}} {description}"])
def test_templates_of_plain_fields(template):
    assert TextConfig(template=template).template == template


@pytest.mark.parametrize(
    "template",
    [
        "{url}",
        "{title.__class__}",
        "{title[0]}",
        "{title!r}",
        "{title:>{query}}",
        "{title:100}",
        "{}",
        "{0}",
        "{title",
        "title}",
        "no field",
        "",
    ],
)
def test_templates_that_reach_further_are_refused(template):
    with pytest.raises(ValidationError, match="template"):
        TextConfig(template=template)


def test_they_mix_into_an_orchestrators_config():
    class Mixed(VideoConfig, Config):
        batch_size: int = 8

    class MixedText(TextConfig, Config):
        pass

    assert Mixed(num_frames=4, model="a").num_frames == 4
    assert "num_frames" in Mixed.to_fields_dict()
    with pytest.raises(ValidationError):
        Mixed(num_frames=0)
    with pytest.raises(ValidationError, match="not allowed"):
        MixedText(template="{url}")
