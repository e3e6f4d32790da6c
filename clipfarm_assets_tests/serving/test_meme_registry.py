"""The registry names the system that the verdict is for, and only files that are as promoted."""

import json
import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from clipfarm_assets.serving.meme_artifacts import artifacts_resolve, read_artifact
from clipfarm_assets.serving.meme_registry import (
    MemeRegistry,
    NotServable,
    find_version,
    load_registry,
    promote,
    rollback,
)
from clipfarm_assets.serving.version_list import BadRegistry, NoModel
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets_tests.serving.meme_kit import (
    CLASSES,
    KEY,
    LABEL,
    LAYOUT,
    candidate,
    candidates,
    verdict,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)


def promoted(store, *, fusion_wins=True, label=LABEL, **options):
    return promote(
        store,
        LAYOUT,
        label,
        classes=CLASSES,
        verdict=verdict(fusion_wins=fusion_wins),
        candidates=candidates(store, label=label, **options),
        clock=lambda: NOW,
    )


@pytest.mark.parametrize(("fusion_wins", "system"), [(True, "fusion"), (False, "text")])
def test_the_verdict_decides_what_serves_and_is_kept(store, fusion_wins, system):
    done = promoted(store, fusion_wins=fusion_wins)
    assert (done.what, done.previous) == ("promoted", "")
    body = json.loads(store.get(KEY))
    assert body["format"] == 1
    found = body["labels"][LABEL]
    assert found["current"] == "abuse_hate-v1"
    (entry,) = found["versions"]
    assert entry["system"] == system
    assert set(entry["artifacts"]) == {
        f"memes/models/abuse_hate/{system}/config.json",
        f"memes/models/abuse_hate/{system}/model.bin",
    }
    assert (entry["temperature"], entry["threshold"]) == (1.5, 0.4)
    assert entry["metrics"]["val"] == {"macro_f1": 0.9, "auroc": None}
    assert entry["facts"] == {"stand_ins": ["text"]}
    assert entry["promoted_at"] == "2026-02-03T00:00:00+00:00"
    assert entry["verdict"]["best_unimodal"] == "text"
    version = find_version(store, LAYOUT, LABEL)
    assert version == done.version
    assert version.verdict == verdict(fusion_wins=fusion_wins)
    assert version.verdict.fusion_wins == fusion_wins
    assert find_version(store, LAYOUT, model_version="abuse_hate-v1") == version
    assert artifacts_resolve(store, version).holds
    registry = load_registry(store, LAYOUT)
    assert registry.to_json() == store.get(KEY), "comes back as it was written"


def test_promoting_again_changes_nothing_and_older_ones_come_back(folder):
    first = promoted(folder)
    before = folder.get(KEY)
    assert promoted(folder).what == "unchanged"
    assert folder.get(KEY) == before
    second = promoted(folder, fusion_wins=False)
    assert (second.what, second.previous) == ("promoted", "abuse_hate-v1")
    back = rollback(folder, LAYOUT, "abuse_hate-v1")
    assert (back.what, back.version, back.previous) == ("back", first.version, "abuse_hate-v2")
    assert promoted(folder, fusion_wins=False).what == "back"
    versions = load_registry(folder, LAYOUT).of(LABEL).versions
    assert versions == (first.version, second.version)


def test_labels_do_not_disturb_each_other(folder):
    promoted(folder)
    other = promoted(folder, label="sarcasm", fusion_wins=False)
    assert other.version.model_version == "sarcasm-v1"
    assert find_version(folder, LAYOUT, LABEL).system == "fusion"
    assert find_version(folder, LAYOUT, "sarcasm").system == "text"
    with pytest.raises(NoModel, match="no model was promoted for label other yet: materialise"):
        find_version(folder, LAYOUT, "other")


def test_writers_at_once_lose_nothing(store):
    """Two of each of two labels, each with its own model."""
    jobs = [(label, n) for label in ("abuse_hate", "sarcasm") for n in range(2)]
    found = verdict(fusion_wins=True)
    made = {job: candidate(store, f"fusion{job[1]}", job[0]) for job in jobs}
    barrier = threading.Barrier(len(jobs))
    failed = []

    def work(label, n):
        own = ObjectStore.open(store._address, store._s3)
        barrier.wait()
        try:
            promote(
                own,
                LAYOUT,
                label,
                classes=CLASSES,
                verdict=found,
                candidates={"fusion": made[label, n]},
            )
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    registry = load_registry(store, LAYOUT)
    for label in ("abuse_hate", "sarcasm"):
        versions = registry.of(label).versions
        assert [v.model_version for v in versions] == [f"{label}-v1", f"{label}-v2"]
        promoted_files = sorted(tuple(v.artifacts) for v in versions)
        assert promoted_files == sorted(tuple(made[label, n].artifacts) for n in range(2))
        assert registry.of(label).serving in versions


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_tampered_artifacts_are_refused(folder, what):
    version = promoted(folder).version
    key = "memes/models/abuse_hate/fusion/model.bin"
    intact = folder.get(key)
    if what == "gone":
        folder.delete(key)
    else:
        folder.put(key, intact[:-1] + b"!")
    reason = "is gone" if what == "gone" else "was changed since: expected sha256"
    with pytest.raises(BadSnapshot, match=rf"abuse_hate-v1: {key} {reason}"):
        read_artifact(folder, version, key)
    found = artifacts_resolve(folder, version)
    assert [finding.subject for finding in found.findings] == [key]
    assert found.examined == 2
    before = folder.get(KEY)
    with pytest.raises(NotServable, match=rf"abuse_hate-v1 can't serve again: .*{key}"):
        rollback(folder, LAYOUT, "abuse_hate-v1")
    assert folder.get(KEY) == before
    folder.put(key, intact)
    assert read_artifact(folder, version, key) == intact


def test_files_that_are_none_of_the_version_are_not_read(folder):
    version = promoted(folder).version
    with pytest.raises(BadSnapshot, match=r"text/model\.bin is none of the artifacts"):
        read_artifact(folder, version, "memes/models/abuse_hate/text/model.bin")


def test_a_candidate_whose_files_changed_since_is_not_promoted(folder):
    made = candidates(folder)
    folder.put("memes/models/abuse_hate/fusion/model.bin", b"retrained")
    with pytest.raises(NotServable, match=r"fusion can't serve abuse_hate: 1 findings in 2"):
        promote(
            folder,
            LAYOUT,
            LABEL,
            classes=CLASSES,
            verdict=verdict(fusion_wins=True),
            candidates=made,
        )
    assert not folder.exists(KEY)


def test_a_system_that_was_not_evaluated_does_not_serve(folder):
    made = candidates(folder)
    del made["text"]
    with pytest.raises(NotServable, match=r"text is to serve abuse_hate \(fusion is not shown"):
        promote(
            folder,
            LAYOUT,
            LABEL,
            classes=CLASSES,
            verdict=verdict(fusion_wins=False),
            candidates=made,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"threshold": None}, "a threshold is for two classes: found None"),
        ({"threshold": 1.5}, "from 0 to 1"),
        ({"artifacts": {}}, "no artifacts"),
        ({"fusion_version": ""}, "fusion has the fusion_version ''"),
        ({"metrics": {"val": {"nll": float("nan")}}}, "Out of range float values"),
    ],
)
def test_a_candidate_of_wrong_numbers_is_refused(folder, change, message):
    made = replace(candidate(folder, "fusion"), **change)
    with pytest.raises(ValueError, match=message):
        promote(
            folder,
            LAYOUT,
            LABEL,
            classes=CLASSES,
            verdict=verdict(fusion_wins=True),
            candidates={"fusion": made},
        )
    assert not folder.exists(KEY)


def test_a_threshold_of_three_classes_is_refused(folder):
    with pytest.raises(ValueError, match=r"two classes: found 0\.4"):
        promote(
            folder,
            LAYOUT,
            LABEL,
            classes=("a", "b", "c"),
            verdict=verdict(fusion_wins=True),
            candidates=candidates(folder),
        )


def loses(body):
    body["verdict"]["differences"]["text"]["low"] = -0.1


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.update(format=2),
        lambda body: body.update(labels=[]),
        lambda body: body["labels"][LABEL].update(current="abuse_hate-v2"),
        lambda body: body["labels"][LABEL].update(current=None),
        lambda body: body["labels"][LABEL].update(versions=[{}]),
        lambda body: body["labels"][LABEL].update(versions=[]),
        lambda body: body["labels"].update(sarcasm=body["labels"][LABEL]),
        lambda body: body["labels"][LABEL]["versions"][0].update(system="best"),
        lambda body: body["labels"][LABEL]["versions"][0].update(label="sarcasm"),
        lambda body: body["labels"][LABEL]["versions"][0].update(system="text"),
        lambda body: body["labels"][LABEL]["versions"][0].update(artifacts={}),
        lambda body: body["labels"][LABEL]["versions"][0].update(temperature=-1),
        lambda body: loses(body["labels"][LABEL]["versions"][0]),
    ],
)
def test_a_registry_that_contradicts_itself_is_refused_and_kept(folder, change):
    promoted(folder)
    body = json.loads(folder.get(KEY))
    change(body)
    data = json.dumps(body).encode()
    folder.put(KEY, data)
    with pytest.raises(BadRegistry, match=r"registry.json is no model registry.*backup"):
        load_registry(folder, LAYOUT)
    with pytest.raises(BadRegistry):
        promoted(folder)
    assert folder.get(KEY) == data


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_registry_is_refused(folder, data):
    folder.put(KEY, data)
    with pytest.raises(BadRegistry):
        load_registry(folder, LAYOUT)


def test_names_of_versions_are_looked_at(folder):
    promoted(folder)
    with pytest.raises(NoModel, match="no model version 'abuse_hate-v2': there are abuse_hate-v1"):
        find_version(folder, LAYOUT, model_version="abuse_hate-v2")
    for name in ("", "abuse_hate", "abuse_hate-v0", "../x-v1", "Abuse-v1"):
        with pytest.raises(ValueError, match="bad model version"):
            find_version(folder, LAYOUT, model_version=name)
    with pytest.raises(ValueError, match="found neither"):
        find_version(folder, LAYOUT)
    with pytest.raises(ValueError, match="found abuse_hate and abuse_hate-v1"):
        find_version(folder, LAYOUT, LABEL, "abuse_hate-v1")


def test_an_empty_registry_has_no_labels(folder):
    assert load_registry(folder, LAYOUT) == MemeRegistry({})
    assert not load_registry(folder, LAYOUT).of(LABEL).versions
