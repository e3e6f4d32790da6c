"""``clipfarm gc`` and ``clipfarm forget``: told first, done only if said so."""

import json

import pytest

from clipfarm_assets_tests.cli.kit import as_deployed
from clipfarm_assets_tests.pipelines.kit import DAY_1
from clipfarm_assets_tests.pipelines.upkeep.kit import (
    DATES,
    GHOST,
    age,
    files,
    made,
    plant,
    superseded_shard,
    whole,
)

assert made
assert whole  # fixtures


@pytest.fixture
def store(whole, monkeypatch):
    """A complete store that this process's environment names, with an old orphan in it."""
    as_deployed(whole, monkeypatch.setenv, monkeypatch.delenv)
    whole.store.put(GHOST, b"ghost")
    for key in (GHOST, superseded_shard(whole)):
        age(whole, key)
    return whole


def test_gc_lists_what_it_would_remove_and_removes_nothing(store, clipfarm):
    before = files(store)
    code, out, err = clipfarm("gc")
    assert (code, err) == (0, "")
    assert GHOST in out
    assert "1 object, 5 bytes, would be removed: run it with --delete" in out
    assert "clipfarm/state/text_downloader.sqlite" in out
    assert files(store) == before

    code, out, err = clipfarm("gc", "--json")
    document = json.loads(out)
    assert [orphan["key"] for orphan in document["orphans"]] == [GHOST]
    assert document["spared"] == {
        "replaced too lately: a reader may still have the old pointers": 1
    }
    assert files(store) == before


def test_gc_removes_what_is_old_enough(store, clipfarm):
    before, shard = files(store), superseded_shard(store)
    code, out, err = clipfarm("gc", "--delete")
    assert (code, err) == (0, "")
    assert "1 object, 5 bytes, removed; listed in clipfarm/state/upkeep/gc-" in out
    assert before.keys() - files(store).keys() == {GHOST}
    code, out, err = clipfarm("gc", "--delete")
    assert "0 objects, 0 bytes, removed\n" in out

    code, out, err = clipfarm("gc", "--delete", "--older-than", "0", "--json")
    assert json.loads(out)["deleted"] == [shard]
    assert "nothing would be removed" in clipfarm("gc", "--older-than", "0")[1]


def test_gc_refuses_in_one_sentence(store, clipfarm):
    before = files(store)
    with store.ledger.lease(f"audio_embedding/{DAY_1}"):
        code, out, err = clipfarm("gc", "--delete")
    assert (code, out) == (1, "")
    assert "runs are at work on 1 parts" in err
    for stage in ("video_embedding", "audio_embedding", "text_embedding"):
        store.store.delete(store.layout.state(stage))
    (store.root / "machine.sqlite").unlink()
    before = files(store)
    for arguments in (("gc",), ("gc", "--delete")):
        code, out, err = clipfarm(*arguments)
        assert (code, out, err.count("\n")) == (1, "", 1)
        assert "the ledger must know" in err
    assert files(store) == before
    assert clipfarm("gc", "--older-than", "-1")[0] == 2


def test_forget_tells_first_and_then_does_it(store, clipfarm):
    before = files(store)
    code, out, err = clipfarm("forget", "a-001")
    assert (code, err) == (0, "")
    assert files(store) == before
    for told in (
        "to be removed of a-001:",
        "video_embedding",
        "clipfarm/embeddings/text/a-001.npy",
        "fused_manifest.parquet",
        "stay, unless --raw is given: 3 raw objects",
        "its rows of the metadata CSV",
        "nothing was removed: run it with --yes",
    ):
        assert told in out, told

    code, out, err = clipfarm("forget", "a-001", "--yes", "--raw")
    assert (code, err) == (0, "")
    assert "a-001 is forgotten" in out
    assert not any("a-001" in key for key in files(store))
    code, out, err = clipfarm("forget", "a-001")
    assert "a-001 is forgotten already" in out
    document = json.loads(clipfarm("forget", "a-001", "--yes", "--json")[1])
    assert document["after"]["states"] == {
        "video_embedding": "forgotten",
        "audio_embedding": "forgotten",
        "text_embedding": "forgotten",
        "fusion_concat": "forgotten",
    }
    store.all_of_it(*DATES)
    assert "a-001" not in store.manifest_rows()


def test_why_tells_of_a_clips_tombstone(store, clipfarm):
    clipfarm("forget", "a-001", "--yes", "--raw")
    code, out, err = clipfarm("why", "a-001")
    assert (code, err) == (0, "")
    assert "removed for good at 20" in out
    assert "in no partition: it was removed for good" in out
    rows = [line.split() for line in out.splitlines()]
    stages = [row[0] for row in rows if row[1:2] == ["forgotten"]]
    assert stages == ["video_embedding", "audio_embedding", "text_embedding", "fusion_concat"]
    document = json.loads(clipfarm("why", "a-001", "--json")[1])
    assert document["forgotten_at"] == document["stages"][0]["row"]["processed_at"]
    assert {stage["next_run"] for stage in document["stages"]} == {
        "leaves it alone: it was removed for good"
    }
    assert document["pointers"] == []
    assert {found["verdict"] for found in document["objects"]} == {"absent"}
    store.store.delete("clipfarm/metadata/shorts_metadata_horizon.csv")
    assert "removed for good at 20" in clipfarm("why", "a-001")[1], "also without the CSV"
    assert json.loads(clipfarm("why", "a-000", "--json")[1])["forgotten_at"] == ""


def test_forget_refuses_what_is_no_clip(store, clipfarm):
    before = files(store)
    for yes in ((), ("--yes",)):
        code, out, err = clipfarm("forget", "a-0o1", *yes)
        assert (code, out) == (1, "")
        assert err == (
            "clipfarm: nothing is known of a-0o1: neither store nor ledger nor the metadata CSV "
            "has it; is the id right?\n"
        )
        assert clipfarm("forget", "../a", *yes)[0] == 2
    assert files(store) == before


def test_what_gc_may_remove_depends_on_what_is_planted(store, clipfarm):
    """Everything planted, and old: each of it is told in the table and in the report."""
    planted = plant(store)
    for key in planted:
        age(store, key)
    age(store, "clipfarm/training/strategy=concat/horizon=7/dataset.json")
    document = json.loads(clipfarm("gc", "--delete", "--json")[1])
    assert set(document["deleted"]) == planted - {superseded_shard(store)}
    report = json.loads(store.store.get(document["report"]))
    assert [record["key"] for record in report["deleted"]] == document["deleted"]


def test_audit_of_a_sound_store_and_of_a_damaged_one(store, clipfarm):
    before = files(store)
    code, out, err = clipfarm("audit")
    assert (code, err) == (0, "")
    assert "nothing is wrong" in out
    assert files(store) == before
    key = "clipfarm/embeddings/video/a-001.npy"
    store.store.delete(key)
    code, out, err = clipfarm("audit")
    assert (code, err) == (1, "")
    assert "1 finding:" in out
    assert "materialise its embedding asset" in out
    assert f"missing_object  {key}: the ledger says that a-001 is done" in out
    code, out, err = clipfarm("audit", "--json")
    document = json.loads(out)
    assert (code, err) == (1, "")
    assert document["counts"] == {"missing_object": 1}
    assert document["findings"][0]["subject"] == key
    with store.ledger.lease(f"audio_embedding/{DAY_1}"):
        code, out, err = clipfarm("audit")
    assert (code, out) == (1, "")
    assert "runs are at work" in err
