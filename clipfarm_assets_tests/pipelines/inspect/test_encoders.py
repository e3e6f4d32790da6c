"""Which version vectors would be made with, told without loading, building or recording any."""

import pytest

from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.pipelines.inspect.encoders import planned_encoders
from clipfarm_assets.pipelines.inspect.run_settings import run_settings
from clipfarm_assets_tests.cli.kit import as_deployed, pretrained, record_models
from clipfarm_assets_tests.pipelines.inspect.kit import Template, files
from clipfarm_assets_tests.pipelines.kit import DAY_1, clips

CONFIGS = {"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}


def one_clip(made):
    record_models(made)
    made.fill(clips(1))
    made.embed("video", DAY_1, by=pretrained("video"))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    return Template(tmp_path_factory.mktemp("recorded"), one_clip)


@pytest.fixture
def deployed(recorded, monkeypatch):
    with recorded.opened() as opened:
        yield as_deployed(opened, monkeypatch.setenv, monkeypatch.delenv)


def planned(world, profile="pretrained", **configs):
    before = files(world.root)
    found = planned_encoders(
        world.deployment, CONFIGS | configs, profile, world.root / "home" / "stand-ins"
    )
    assert {k: v for k, v in files(world.root).items() if "sqlite-" not in k} == {
        k: v for k, v in before.items() if "sqlite-" not in k
    }
    return found


def test_a_version_on_record_is_that_of_the_stored_vectors(deployed):
    video = planned(deployed)["video"]
    assert video.version.id == deployed.states("video_embedding")["clip-000"].version
    assert video.note == ""


def test_other_parameters_are_another_version(deployed):
    recorded = planned(deployed)["video"].version.id
    video = planned(deployed, video=VideoConfig(pooling="mean"))["video"]
    assert video.version.id != recorded
    assert "no vector here was made with" in video.note


def test_a_stand_in_that_was_not_built_is_taken_to_be_the_one_of_before(deployed):
    recorded = planned(deployed)["video"].version.id
    found = planned(deployed, profile="demo")
    assert found["video"].version.id == recorded
    assert f"taken to be {recorded}, as before" in found["video"].note
    assert "was not built yet" in found["audio"].note


def test_a_faster_precision_without_a_verdict_is_not_guessed(deployed):
    video = planned(deployed, video=VideoConfig(precision="bf16", device="cpu"))["video"]
    assert "the next run finds out" in video.note


def test_settings_that_contradict_each_other_are_refused(deployed):
    with pytest.raises(ValueError, match="set without a model"):
        planned(deployed, video=VideoConfig(revision="main"))


def test_the_settings_of_a_run_come_from_the_environment():
    found = run_settings(
        {
            "CLIPFARM_START_DATE": "2026-02-01",
            "CLIPFARM_END_DATE": "2026-02-07",
            "CLIPFARM_AUDIO_CONFIG": '{"max_audio_seconds": 30, "retry_terminal": true}',
            "CLIPFARM_FUSION_CONFIG": '{"terminal_text_statuses": ["gone"], "shard_rows": 9}',
            "CLIPFARM_INDEX_CONFIG": '{"include_captured_at_in_hash": true}',
        }
    )
    assert (found.first_date, found.last_date) == ("2026-02-01", "2026-02-07")
    assert found.encoders["audio"].max_audio_seconds == 30
    assert found.encoders["video"] == VideoConfig()
    assert found.embedding["audio"].retry_terminal
    assert not found.embedding["video"].retry_terminal
    assert found.fusion.terminal_text_statuses == {"gone"}
    assert found.fusion.shard_rows == 9
    assert found.include_captured_at_in_hash
    with pytest.raises(ValueError, match="CLIPFARM_TEXT_CONFIG must be a JSON object"):
        run_settings({"CLIPFARM_TEXT_CONFIG": "[]"})
