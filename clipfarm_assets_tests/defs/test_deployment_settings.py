"""Settings that are a part of identity come from the environment, so that every run agrees."""

import json
import runpy

import dagster as dg
import pytest

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.defs.clips import embeddings
from clipfarm_assets_tests.defs import kit
from clipfarm_assets_tests.processes import call

VARIABLES = {
    "CLIPFARM_VIDEO_CONFIG": {"pooling": "mean"},
    "CLIPFARM_AUDIO_CONFIG": {"max_audio_seconds": 30},
    "CLIPFARM_TEXT_CONFIG": {"long_text": "chunk_mean"},
    "CLIPFARM_INDEX_CONFIG": {"include_captured_at_in_hash": True},
}
LAUNCHPAD = {
    "ops": {
        "clips__video_embeddings": {"config": {"pooling": "mean"}},
        "clips__audio_embeddings": {"config": {"max_audio_seconds": 30.0}},
        "clips__text_embeddings": {"config": {"long_text": "chunk_mean"}},
        "clips__clip_index": {"config": {"include_captured_at_in_hash": True}},
    }
}


def worked_on(folder, config):
    """Clips that a run works on, by modality."""
    bench = kit.Bench(folder)
    with dg.DagsterInstance.ephemeral() as instance:
        bench.run(instance, "clips_daily", "2026-02-05", config=config)
        shown = [kit.materialised(instance, f"{modality}_embeddings") for modality in MODALITIES]
        return [by_date["2026-02-05"]["worked_on"].value for by_date in shown]


def worked_on_by_both(folder):
    """What a schedule does: a run with an empty run config, after one from the launchpad."""
    kit.Bench(folder).add_clips(("a", "2026-02-05"), ("b", "2026-02-05"))
    return worked_on(folder, LAUNCHPAD), worked_on(folder, None)


def test_a_scheduled_run_keeps_what_the_deployment_sets(tmp_path, monkeypatch):
    """In a process of its own, because the definitions read the environment once."""
    for name, fields in VARIABLES.items():
        monkeypatch.setenv(name, json.dumps(fields))
    assert call(worked_on_by_both, tmp_path) == ([2, 2, 2], [0, 0, 0])


def test_a_wrong_field_stops_loading_with_a_sentence(monkeypatch):
    name = "CLIPFARM_VIDEO_CONFIG"
    monkeypatch.setenv(name, '{"pool": "mean"}')
    with pytest.raises(ValueError, match=f"^{name} has no field 'pool': expected some of "):
        runpy.run_path(embeddings.__file__)  # as loading the definitions runs it
