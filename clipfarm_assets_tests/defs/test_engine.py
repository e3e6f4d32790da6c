"""The engine of an embedding asset: what is asked of a machine without Ray, and what travels."""

import json
import pickle

import dagster as dg
import pytest

from clipfarm_assets.defs.clips import embeddings
from clipfarm_assets.defs.clips.engine import ADDRESS_VARIABLE
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.ray_jobs import report_fields, report_of
from clipfarm_assets.pipelines.cluster import session
from clipfarm_assets.pipelines.report import StageReport
from clipfarm_assets.pipelines.roofline import Ceiling, Roofline
from clipfarm_assets_tests.defs import kit

DATE = "2026-02-05"
TEXT = dg.AssetKey(["clips", "text_embeddings"])


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:1"])
def test_without_ray_the_run_stops_at_the_start_and_says_what_to_install(
    bench, instance, monkeypatch, address
):
    monkeypatch.setattr(session, "_PACKAGES", ("no_such_ray",))
    wanted = session.require_ray
    monkeypatch.setattr(
        "clipfarm_assets.orchestration.ray_jobs.require_ray", lambda *_: wanted("no_such_ray")
    )
    bench.run(instance, "clips_daily", DATE, selection=[dg.AssetKey(["clips", "clip_index"])])
    config = {
        "ops": {"clips__text_embeddings": {"config": {"engine": "ray", "ray_address": address}}}
    }
    with pytest.raises(
        dg.Failure, match=r"no_such_ray, not installed here: .*pip install .*\[ray\]"
    ):
        bench.run(instance, "clips_daily", DATE, selection=[TEXT], config=config)
    assert kit.OPENED == []


def test_the_address_is_the_deployments_unless_the_run_names_another(monkeypatch):
    monkeypatch.delenv(ADDRESS_VARIABLE, raising=False)
    assert embeddings.TextRun(engine="ray").address == ""
    monkeypatch.setenv(ADDRESS_VARIABLE, "http://head:8265")
    run = embeddings.TextRun(engine="ray")
    assert (run.address, run.is_submitted) == ("http://head:8265", True)
    assert not embeddings.TextRun(engine="ray", ray_address="auto").is_submitted
    assert not embeddings.TextRun().is_submitted


@pytest.mark.parametrize(
    ("modality", "kind"), [("video", VideoConfig), ("audio", AudioConfig), ("text", TextConfig)]
)
def test_what_opens_an_encoder_elsewhere_can_be_sent_there(bench, modality, kind):
    """Also where the class of the configuration was made by this process."""
    made = defaults_from("VARIABLE", {"VARIABLE": json.dumps({"threads": 3})})
    config = made(embeddings.RUNS[modality])(device="cpu")
    encoders = kit.HashEncoders(cache_dir=str(bench.root))
    with bench.resource().open() as opened:
        opener = encoders.opener(modality, config, opened.models_lock())
    # Our own pickle, of this very line: how Ray sends it to its workers.
    (of, settings) = pickle.loads(pickle.dumps(opener)).args
    assert (of, type(settings)) == (modality, kind)
    assert (settings.threads, settings.device) == (3, "cpu")
    assert settings.version_params() == config.version_params()


def test_a_report_comes_back_from_a_job_as_it_was():
    report = StageReport(
        "video_embedding", DATE, 3, seconds=1.5, version="video-1", engine="ray: 2"
    )
    report.take_up("one", "new")
    report.count("one", "fail", "why")
    report.totals["frames"] += 16
    lines = (Ceiling("decode", 1, 0.5, None, "decode"), Ceiling("whole", 1, 0.5, 2.0, "compute"))
    report.roofline = Roofline(lines[:1], lines[1], 1.5, 2, on_accelerator=False)
    back = report_of(json.loads(json.dumps(report_fields(report))))
    assert back == report
    assert back.totals["absent"] == 0, "its counts count on"
