"""What the commands print, for people and for programs."""

import json
from dataclasses import replace

import pytest

from clipfarm_assets.ledger.head import HEAD
from clipfarm_assets.serving.registry import ModelVersion, Registry
from clipfarm_assets_tests.cli.kit import pretrained, put_indexes
from clipfarm_assets_tests.pipelines.inspect.kit import files
from clipfarm_assets_tests.pipelines.kit import CORRUPT, DAY_1, DAY_2, Clip, World, clips


@pytest.fixture
def given_up(deployed):
    deployed.fill([*clips(2), Clip("bad", video=CORRUPT)])
    deployed.embed("video", DAY_1, by=pretrained("video"), max_fail_retries=0)
    return deployed


def document(clipfarm, *line):
    code, out, error = clipfarm(*line, "--json")
    assert (code, error) == (0, "")
    return json.loads(out)


def lines(clipfarm, *line):
    code, out, error = clipfarm(*line)
    assert (code, error) == (0, "")
    return out.splitlines()


def cells(line):
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_status(ran, clipfarm):
    told = document(clipfarm, "status")
    stages = {s["stage"]: s for s in told["stages"]}
    assert stages["video_embedding"]["statuses"] == {"success": 5}
    assert stages["audio_embedding"]["statuses"] == {"missing_raw_object": 1, "success": 4}
    assert stages["fusion_concat"]["items"] == 5
    assert stages["video_embedding"]["changed_at"] == max(
        item.processed_at for item in ran.states("video_embedding").values()
    )
    by_date = {(d["date"], d["stage"]): d["statuses"] for d in told["dates"]}
    assert by_date[DAY_1, "audio_embedding"] == {"missing_raw_object": 1, "success": 4}
    assert by_date[DAY_1, "fusion_sum_pool"] == {"(none)": 5}
    assert {date for date, _ in by_date} == {DAY_1}
    concat = {s["strategy"]: s for s in told["strategies"]}["concat"]
    assert (concat["lock_version"], concat["manifest_rows"], concat["deltas"]) == (1, 4, 0)
    assert [m["model_version"] for m in told["models"]] == ["", ""]
    assert told["at_work"] == []
    shown = lines(clipfarm, "status", "--stage", "audio_embedding", "--date", DAY_1)
    row = shown[shown.index("Stages") + 2]
    assert cells(row)[:3] == ["audio_embedding", "5", "missing_raw_object 1, success 4"]
    assert not any("video_embedding" in line for line in shown)


def test_status_tells_how_the_published_states_compare(ran, clipfarm):
    def published():
        found = document(clipfarm, "status")["stages"]
        return {s["stage"]: s["published"] for s in found}["video_embedding"]

    assert published() == "current"
    item = ran.states("video_embedding")["clip-000"]
    later = replace(item, processed_at="2027-01-01T00:00:00.000000+00:00", error="x")
    ran.ledger.commit("video_embedding", [later])
    assert published() == "behind"
    with World(ran.root, "second") as other:
        other.deployment.restore("video_embedding")
        other.ledger.commit("video_embedding", [replace(item, video_id="theirs")])
        other.deployment.publish("video_embedding")
    assert published() == "behind and ahead"
    ran.deployment.restore("video_embedding")
    ran.deployment.publish("video_embedding")
    assert published() == "current"


def test_status_counts_a_clip_that_moved_on_its_new_date(ran, clipfarm):
    moved = Clip("clip-000", DAY_2)
    ran.fill([*clips(4)[1:], moved])
    put_indexes(ran, DAY_2)
    by_date = {
        (d["date"], d["stage"]): d["statuses"] for d in document(clipfarm, "status")["dates"]
    }
    assert by_date[DAY_1, "video_embedding"] == {"success": 5}, "its source is the same"
    ran.embed("video", DAY_2, by=pretrained("video"), verify_objects=True)
    ran.ledger.commit(
        "video_embedding",
        [
            replace(
                ran.states("video_embedding")["clip-000"],
                details={"captured_at": moved.captured_at},
            )
        ],
    )
    by_date = {
        (d["date"], d["stage"]): d["statuses"] for d in document(clipfarm, "status")["dates"]
    }
    assert by_date[DAY_1, "video_embedding"] == {"(outdated)": 1, "success": 4}
    assert by_date[DAY_2, "video_embedding"] == {"success": 1}


def test_status_names_models_and_work_in_progress(ran, clipfarm):
    model = ModelVersion(
        "h7-v1", "run1", "concat", 7, "ridge", None, "v2", "0", 1, "0", {}, {}, {}, {}, "2026"
    )
    registry = Registry(7, "h7-v1", (model,))
    ran.store.put(ran.layout.model_registry(7), registry.to_json())
    with ran.ledger.lease("video_embedding/2026-02-05"):
        told = document(clipfarm, "status")
        shown = "\n".join(lines(clipfarm, "status"))
    assert told["models"][0] == {
        "horizon": 7,
        "model_version": "h7-v1",
        "family": "ridge",
        "strategy": "concat",
        "run_id": "run1",
        "promoted_at": "2026",
    }
    assert [work["scope"] for work in told["at_work"]] == ["video_embedding/2026-02-05"]
    assert "At work" in shown
    assert document(clipfarm, "status")["at_work"] == []


def test_status_of_dates_without_an_index_is_refused(ran, clipfarm):
    code, _, error = clipfarm("status", "--from", "2026-03-01")
    assert code == 1
    assert f"there are those of {DAY_1} to {DAY_1}" in error


def test_why(ran, clipfarm):
    told = document(clipfarm, "why", "-odd_id")
    stages = {s["stage"]: s for s in told["stages"]}
    assert told["video_id"] == "-odd_id"
    assert stages["audio_embedding"]["row"]["status"] == "missing_raw_object"
    assert stages["fusion_concat"]["next_run"].endswith("expected missing_required_modality")
    shown = "\n".join(lines(clipfarm, "why", "clip-001"))
    assert "6 values, sha256 as recorded" in shown
    assert "resolves, 15 values" in shown
    assert "leaves it alone: it is done" in shown


def test_why_of_nobody(ran, clipfarm):
    code, out, error = clipfarm("why", "clip-01")
    assert (code, out) == (1, "")
    assert "nothing is known of clip-01" in error
    assert "clip-001" in error


def test_plan(ran, clipfarm):
    told = document(clipfarm, "plan", "--date", DAY_2)
    assert [i["stored"] for i in told["indexes"]] == ["missing"]
    parts = {(p["stage"], p["date"]): p for p in told["parts"]}
    assert parts["video_embedding", DAY_2]["reasons"] == {"new": 2}
    assert parts["video_embedding", DAY_2]["samples"] == {"new": ["new-000", "new-001"]}
    assert told["notes"][0].startswith("sum_pool: has no schema lock yet")
    shown = "\n".join(lines(clipfarm, "plan"))
    assert "new 2" in shown
    assert "unfinished 1" in shown
    assert "unknown: the ledger names no run" in shown


def test_plan_by_the_settings_of_the_environment(ran, clipfarm, monkeypatch):
    def reasons():
        return {
            p["stage"]: p["reasons"] for p in document(clipfarm, "plan", "--date", DAY_1)["parts"]
        }

    assert reasons()["video_embedding"] == {}
    monkeypatch.setenv("CLIPFARM_VIDEO_CONFIG", '{"pooling": "mean", "batch_size": 4}')
    assert reasons()["video_embedding"] == {"version_changed": 5}
    monkeypatch.setenv("CLIPFARM_INDEX_CONFIG", '{"include_captured_at_in_hash": true}')
    assert reasons()["text_embedding"] == {"source_changed": 5}
    monkeypatch.setenv("CLIPFARM_VIDEO_MODEL", "someone/else@main")
    assert "no vector here was made with" in document(clipfarm, "plan")["notes"][0]


def test_plan_without_metadata_is_refused(deployed, clipfarm):
    code, _, error = clipfarm("plan")
    assert code == 1
    assert "must hold the metadata CSV" in error


def test_retry(given_up, clipfarm):
    before = files(given_up.root)
    told = document(clipfarm, "retry", "--dry-run")
    assert told == {
        "dry_run": True,
        "clips": {"video_embedding": ["bad"]},
        "marked": {"video_embedding": 0},
    }
    assert {k: v for k, v in files(given_up.root).items() if "sqlite-" not in k} == {
        k: v for k, v in before.items() if "sqlite-" not in k
    }
    shown = lines(clipfarm, "retry", "--stage", "video_embedding")
    assert cells(shown[1]) == ["video_embedding", "1", "1", "bad"]
    assert given_up.statuses("video_embedding")["bad"] == "fail"
    code, _, error = clipfarm("retry")
    assert code == 1
    assert "no clip is fail_terminal in any stage: there are 1 fail, 2 success" in error
    code, _, error = clipfarm("retry", "bad", "clip-000")
    assert code == 1
    assert "clip-000 is fail_terminal in no stage asked for: it is success" in error


def test_retry_on_a_machine_that_never_ran(given_up, clipfarm, monkeypatch):
    monkeypatch.setenv("CLIPFARM_LEDGER", f"sqlite:///{given_up.root}/new.sqlite")
    assert document(clipfarm, "retry")["marked"] == {"video_embedding": 1}
    report = given_up.embed("video", DAY_1, by=pretrained("video"))[DAY_1]
    assert report.reasons == {"unfinished": 1}


def test_migrate(tmp_path, monkeypatch, clipfarm):
    monkeypatch.setenv("CLIPFARM_LEDGER", f"sqlite:///{tmp_path}/ledger.sqlite")
    assert document(clipfarm, "migrate") == {"before": None, "after": HEAD}
    assert lines(clipfarm, "migrate") == [f"before  {HEAD}", f"after   {HEAD}"]
