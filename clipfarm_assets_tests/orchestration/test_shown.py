"""What the UI shows: metadata, plots, the console line."""

import io
import logging

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.orchestration import checks, metadata, plots
from clipfarm_assets.orchestration.console import short_console
from clipfarm_assets.pipelines.report import SAMPLE_IDS, StageReport


def unit(rows, dim=16, seed=7):
    vectors = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_the_plane_keeps_the_largest_distances_a_plane_can():
    vectors = unit(50)
    plane = plots.principal_plane(vectors)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    kept = np.linalg.eigvalsh(centred.T @ centred)[::-1][:2].sum()
    assert (plane**2).sum() == pytest.approx(kept)


def test_the_plane_does_not_depend_on_a_solvers_choice_of_sign():
    vectors = unit(20)
    order = np.random.default_rng(1).permutation(20)
    shuffled = plots.principal_plane(vectors[order])
    assert np.allclose(shuffled, plots.principal_plane(vectors)[order])


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_few_clips_have_a_plane_too(rows):
    assert plots.principal_plane(unit(rows)).shape == (rows, 2)


def test_the_map_is_a_png_and_the_same_each_time():
    vectors, labels = unit(30), ["sport", "music", ""] * 10
    png = plots.embedding_map(vectors, labels, "video embeddings", "c0ffee")
    assert png == plots.embedding_map(vectors, labels, "video embeddings", "c0ffee")
    assert Image.open(io.BytesIO(png)).size > (400, 200)
    assert plots.inline_png(png, "map").md_str.startswith("![map](data:image/png;base64,iVBOR")


def test_a_map_knows_what_it_was_drawn_from():
    png = plots.embedding_map(unit(12), ["music"] * 12, "video embeddings", "c0ffee")
    assert plots.clips_drawn(png, "c0ffee") == 12
    assert plots.clips_drawn(png, "c0ffe") is None
    assert plots.clips_drawn(b"", "c0ffee") is None


def test_a_range_checks_counts_are_the_sums_of_its_partitions():
    verdicts = {
        "concat": Verdict((), 3, {"dimension": 9, "placeholders": 2}),
        "max_pool": Verdict((Finding("clip1", "gone"),), 4, {"dimension": 5, "placeholders": 3}),
    }
    shown = checks.verdict_metadata(verdicts)
    assert shown["examined"].value == 7
    assert shown["findings"].value == 1
    assert shown["placeholders"].value == 5
    assert shown["dimension"].value == 9, "a size, not a count"
    (finding,) = shown["first_findings"].records
    assert finding.data == {"partition": "max_pool", "subject": "clip1", "problem": "gone"}


def test_stage_metadata_counts_and_shows_samples():
    report = StageReport("video_embedding", "2026-02-05", considered=9, seconds=2.0)
    report.reasons.update({"new": 7, "unfinished": 1})
    for i in range(7):
        report.count(f"clip{i}", "success")
    report.count("bad", "fail", "x" * 500)
    report.totals["tokens_cut"] = 12
    shown = metadata.stage_metadata(report, {"success": 8, "fail": 1})
    assert shown["clips"] == 9
    assert shown["all_clips/success"] == 8
    assert shown["all_clips/fail"] == 1
    assert shown["worked_on"] == 8
    assert shown["unchanged"] == 1
    assert shown["clips_per_second"] == 4.0
    assert shown["this_run/success"] == 7
    assert shown["this_run/fail"] == 1
    assert shown["delta/new"] == 7
    assert shown["total/tokens_cut"] == 12
    rows = [record.data for record in shown["samples"].records]
    assert [row["video_id"] for row in rows if row["status"] == "success"] == [
        f"clip{i}" for i in range(SAMPLE_IDS)
    ]
    (bad,) = [row for row in rows if row["status"] == "fail"]
    assert bad["why"].endswith("x…")
    assert len(bad["why"]) == 80


def test_a_console_line_has_time_step_and_message(capsys):
    logger = short_console.logger_fn(
        dg.build_init_logger_context(logger_config={"log_level": "INFO"})
    )
    record = logging.LogRecord("dagster", logging.INFO, "", 0, "long text", (), None)
    record.dagster_meta = {"orig_message": "video: 3/9", "step_key": "clips__video_embeddings"}
    logger.handle(record)
    logger.debug("not shown")
    line = capsys.readouterr().err
    assert line.endswith("clips__video_embeddings  video: 3/9\n")
    assert line.count("\n") == 1
