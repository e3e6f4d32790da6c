"""A snapshot is complete and immutable, or it is not there."""

import json
import threading
from datetime import UTC, datetime

import pytest

from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import (
    MANIFEST,
    BadSnapshot,
    SnapshotConflict,
    SnapshotExists,
    SnapshotId,
    check_free,
    data_version,
    publish,
)
from clipfarm_assets.training.snapshot_reader import (
    NoSnapshot,
    NoSuchModel,
    latest_run,
    list_snapshots,
    open_snapshot,
    snapshots_of_run,
)
from clipfarm_assets_tests.training.stores import DisturbedStore, Killed, kill

LAYOUT = Layout()
ALL = SnapshotId("r1", "concat", 7)
SINGLE = SnapshotId("r1", "concat", 7, "ridge")
EARLY = datetime(2026, 1, 1, tzinfo=UTC)
LATE = datetime(2026, 1, 2, tzinfo=UTC)
SCORES = {"rmse_log": 1.0, "r2_log": None}


def files(seed=42, **more):
    """A few artifacts that are a function of the seed."""
    metrics = {"models": {"ridge": {"val": SCORES, "test": SCORES}}}
    return {
        "config_used.json": json.dumps({"run_id": "r1", "seed": seed}).encode(),
        "metrics_summary.json": json.dumps(metrics).encode(),
        "models/ridge.skops": f"weights of seed {seed}".encode(),
        "predictions/val.parquet": b"the same for every seed",
        **more,
    }


# 4 staged, 4 final, the manifest, 4 staged ones removed.
WRITES = 13
MANIFEST_WRITE = 9


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "store")


@pytest.fixture
def store(folder):
    return ObjectStore.open(folder)


def put(store, snapshot_id=ALL, seed=42, at=EARLY, **more):
    return publish(store, LAYOUT, snapshot_id, files(seed, **more), {"seconds": 3}, lambda: at)


def contents(store):
    return {info.key: store.get(info.key) for info in store.list()}


def timeless(objects):
    """Without what tells when a snapshot was published."""
    out = dict(objects)
    for key in objects:
        if key.endswith(MANIFEST):
            out[key] = {k: v for k, v in json.loads(objects[key]).items() if k != "created_at"}
    return out


def test_a_snapshot_lies_where_the_contract_says_and_says_what_it_holds(store):
    manifest = put(store)
    root = "clipfarm/models/snapshots/run_id=r1/strategy=concat/horizon=7/"
    assert contents(store).keys() == {root + name for name in [*files(), "snapshot.json"]}
    assert SINGLE.root(LAYOUT) == (
        "clipfarm/models/snapshots/run_id=r1/model=ridge/strategy=concat/horizon=7/"
    )
    body = json.loads(store.get(root + "snapshot.json"))
    assert body["artifacts"]["predictions/val.parquet"] == {
        "sha256": "d093b9a59caa43f885135f45ee8025d6e0eeb3ba8380d52448da02e3b90e5c3f",
        "bytes": 23,
    }
    del body["artifacts"]
    assert body == {
        "format": 1,
        "run_id": "r1",
        "strategy": "concat",
        "horizon": 7,
        "family": None,
        "data_version": manifest.data_version,
        "created_at": "2026-01-01T00:00:00+00:00",
        "facts": {"seconds": 3},
    }
    opened = open_snapshot(store, LAYOUT, ALL)
    assert opened.manifest == manifest
    assert {name: opened.read(name) for name in files()} == files()
    assert opened.verify_all().holds
    assert opened.verify_all().examined == 4
    assert opened.config["seed"] == 42
    assert opened.families == ("ridge",)
    assert opened.scores("ridge", "val") == SCORES


def test_a_published_snapshot_is_immutable(store):
    put(store)
    before = contents(store)
    for seed in (42, 43):
        with pytest.raises(SnapshotExists, match=r"r1.*immutable.*another run_id"):
            put(store, seed=seed)
    with pytest.raises(SnapshotExists):
        check_free(store, LAYOUT, ALL)
    assert contents(store) == before
    check_free(store, LAYOUT, SINGLE)
    put(store, SINGLE)


def test_other_inputs_of_a_begun_attempt_are_refused_before_training(store):
    config = files()["config_used.json"]
    store.put_if_absent(ALL.root(LAYOUT) + "config_used.json", config)
    check_free(store, LAYOUT, ALL, config)
    check_free(store, LAYOUT, ALL)
    with pytest.raises(SnapshotConflict, match=r"'r1'.*other inputs.*another run_id"):
        check_free(store, LAYOUT, ALL, files(43)["config_used.json"])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, WRITES + 1))
def test_a_killed_publisher_leaves_no_half_snapshot(folder, store, tmp_path, nth, when):
    disturbed = DisturbedStore(folder, nth, kill, when)
    with pytest.raises(Killed):
        put(disturbed)
    is_published = nth - (when == "before") >= MANIFEST_WRITE
    undisturbed = ObjectStore.open(str(tmp_path / "undisturbed"))
    put(undisturbed, at=LATE)

    if is_published:
        assert open_snapshot(store, LAYOUT, ALL).verify_all().holds
        with pytest.raises(SnapshotExists):
            put(store)
    else:
        assert list_snapshots(store, LAYOUT) == []
        with pytest.raises(NoSnapshot):
            open_snapshot(store, LAYOUT, ALL)
        put(store)
    assert timeless(contents(store)) == timeless(contents(undisturbed))


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, MANIFEST_WRITE + 1))
def test_other_inputs_never_mix_with_a_killed_attempt(folder, store, nth, when):
    with pytest.raises(Killed):
        put(DisturbedStore(folder, nth, kill, when))
    begun = contents(store)
    if any(key.startswith(ALL.root(LAYOUT)) for key in begun):
        with pytest.raises((SnapshotConflict, SnapshotExists)):
            put(store, seed=43)
        left = contents(store)
        assert left.items() <= begun.items()
        assert set(begun) - set(left) <= {key for key in begun if "/staging/" in key}
    else:
        put(store, seed=43)
        opened = open_snapshot(store, LAYOUT, ALL)
        assert opened.verify_all().holds
        assert opened.config["seed"] == 43
        assert not list(store.list("clipfarm/models/staging"))


@pytest.mark.parametrize("nth", range(1, WRITES + 1))
@pytest.mark.parametrize("other_seed", [42, 43])
def test_of_two_publishers_one_wins_or_both_agree(folder, store, nth, other_seed):
    """The other one publishes as a whole right before one of the first one's writes."""
    outcomes = {}

    def attempt(name, used, seed, at):
        try:
            outcomes[name] = put(used, seed=seed, at=at)
        except (SnapshotConflict, SnapshotExists):
            outcomes[name] = None

    disturbed = DisturbedStore(
        folder, nth, lambda: attempt("other", store, other_seed, LATE), "before"
    )
    attempt("first", disturbed, 42, EARLY)
    assert "other" in outcomes or disturbed.writes < nth
    opened = open_snapshot(store, LAYOUT, ALL)
    assert opened.verify_all().holds
    winners = [manifest for manifest in outcomes.values() if manifest]
    assert winners
    assert all(manifest == opened.manifest for manifest in winners)
    if other_seed != 42:
        assert len(winners) == 1
    assert {name: opened.read(name) for name in files()} == files(opened.config["seed"])


def test_publishers_at_once_never_mix(folder):
    for turn in range(5):
        snapshot_id = SnapshotId(f"r{turn}", "concat", 7)
        barrier = threading.Barrier(4)
        won = []

        def work(seed, barrier=barrier, won=won, snapshot_id=snapshot_id):
            own = ObjectStore.open(folder)
            barrier.wait()
            try:
                put(own, snapshot_id, seed)
            except (SnapshotConflict, SnapshotExists):
                return
            won.append(seed)

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        opened = open_snapshot(ObjectStore.open(folder), LAYOUT, snapshot_id)
        assert {name: opened.read(name) for name in files()} == files(won[0])


def test_the_same_inputs_with_other_bytes_are_refused(folder, store):
    with pytest.raises(Killed):
        put(DisturbedStore(folder, MANIFEST_WRITE, kill))
    with pytest.raises(SnapshotConflict, match=r"another models/ridge.skops.*another run_id"):
        put(store, **{"models/ridge.skops": b"nondeterministic"})
    assert not list(store.list("clipfarm/models/staging"))


def test_a_file_of_another_attempt_is_not_taken_in(folder, store):
    with pytest.raises(Killed):
        put(DisturbedStore(folder, 11, kill), **{"models/old.pt": b"of an older code"})
    with pytest.raises(SnapshotConflict, match=r"models/old.pt.*another run_id"):
        put(store)
    assert list_snapshots(store, LAYOUT) == []


@pytest.mark.parametrize(
    ("artifacts", "told"),
    [
        ({"models/x": b""}, "needs config_used.json: found models/x"),
        (files() | {"snapshot.json": b""}, "another name"),
        (files() | {"config_used.json": b"[]"}, "must be a JSON object"),
        (files() | {"../outside": b""}, "segment '..'"),
    ],
)
def test_what_can_be_no_snapshot_is_refused(store, artifacts, told):
    with pytest.raises(ValueError, match=told):
        publish(store, LAYOUT, ALL, artifacts, {})
    assert not contents(store)


@pytest.mark.parametrize("facts", [{"x": float("nan")}, {"x": object()}])
def test_facts_that_are_no_json_are_refused_before_the_first_write(store, facts):
    with pytest.raises((ValueError, TypeError)):
        publish(store, LAYOUT, ALL, files(), facts)
    assert not contents(store)


def test_the_data_version_is_that_of_the_inputs(store):
    config = {"run_id": "a", "seed": 1, "versions": {"numpy": "2"}, "lock_sha256": "x"}
    assert data_version(config) == data_version(dict(reversed(config.items())) | {"run_id": "b"})
    versions = [data_version(config | change) for change in ({}, {"seed": 2}, {"lock_sha256": "y"})]
    assert len(set(versions)) == 3
    assert put(store).data_version == put(store, SINGLE).data_version


@pytest.mark.parametrize(
    "tamper",
    [lambda data: data[:-1] + b"!", lambda data: data + b"\n", bytes.upper],
)
def test_a_changed_artifact_is_refused(store, tamper):
    put(store)
    key = ALL.root(LAYOUT) + "metrics_summary.json"
    store.put(key, tamper(store.get(key)))
    opened = open_snapshot(store, LAYOUT, ALL)
    with pytest.raises(BadSnapshot, match=r"metrics_summary.json was changed since"):
        opened.metrics  # noqa: B018
    verdict = opened.verify_all()
    assert [str(finding).split(": ")[1] for finding in verdict.findings] == ["metrics_summary.json"]


def test_a_lost_and_a_strange_file_are_found(store):
    put(store)
    store.delete(ALL.root(LAYOUT) + "models/ridge.skops")
    store.put(ALL.root(LAYOUT) + "models/gbdt.joblib", b"planted")
    opened = open_snapshot(store, LAYOUT, ALL)
    with pytest.raises(BadSnapshot, match=r"models/ridge.skops is gone"):
        opened.read("models/ridge.skops")
    with pytest.raises(BadSnapshot, match=r"has no artifact 'models/gbdt.joblib'"):
        opened.read("models/gbdt.joblib")
    problems = [finding.problem for finding in opened.verify_all().findings]
    assert problems == ["is gone", "is none of the snapshot's artifacts"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 2}',
        b'{"format": 1, "run_id": "r1", "strategy": "concat", "horizon": 7, "family": null}',
    ],
)
def test_a_malformed_manifest_is_refused(store, data):
    store.put(ALL.root(LAYOUT) + MANIFEST, data)
    with pytest.raises(BadSnapshot, match="malformed"):
        open_snapshot(store, LAYOUT, ALL)


def test_a_manifest_of_another_snapshot_is_refused(store):
    put(store)
    store.put(SINGLE.root(LAYOUT) + MANIFEST, store.get(ALL.root(LAYOUT) + MANIFEST))
    with pytest.raises(BadSnapshot, match="is that of"):
        open_snapshot(store, LAYOUT, SINGLE)


def test_a_family_that_is_not_there_is_named(store):
    put(store)
    with pytest.raises(NoSuchModel, match="no model of family 'gbdt': expected one of ridge"):
        open_snapshot(store, LAYOUT, ALL).model("gbdt")


def test_published_snapshots_are_found_by_both_patterns_and_nothing_else_is(folder, store):
    with pytest.raises(NoSnapshot, match="no run has published one yet"):
        open_snapshot(store, LAYOUT, ALL)
    with pytest.raises(NoSnapshot, match="materialise clips/model_snapshots first"):
        latest_run(store, LAYOUT)
    ids = [ALL, SINGLE, SnapshotId("r2", "sum_pool", 30), SnapshotId("r10", "concat", 7)]
    for number, snapshot_id in enumerate(ids):
        put(store, snapshot_id, at=LATE if number == 2 else EARLY)
    with pytest.raises(Killed):
        put(DisturbedStore(folder, 8, kill), SnapshotId("killed", "concat", 7))
    for key in ("run_id=r1/comparison", "run_id=x/strategy=mean/horizon=7", "run_id=.x"):
        store.put(f"clipfarm/models/snapshots/{key}/snapshot.json", b"{}")
    assert set(list_snapshots(store, LAYOUT)) == set(ids)
    assert set(list_snapshots(store, LAYOUT, "r1")) == {ALL, SINGLE}
    assert [s.id for s in snapshots_of_run(store, LAYOUT, "r2")] == [ids[2]]
    assert latest_run(store, LAYOUT) == "r2"
    assert latest_run(store, LAYOUT, 7) == "r10"
    with pytest.raises(NoSnapshot, match=r"'r2' has no snapshot of horizon 7.*run_id r1, r10, r2"):
        snapshots_of_run(store, LAYOUT, "r2", 7)


def test_of_many_runs_the_first_are_named(store):
    for number in range(7):
        put(store, SnapshotId(f"r{number}", "concat", 7))
    with pytest.raises(NoSnapshot, match="r0, r1, r2, r3, r4 and 2 more"):
        snapshots_of_run(store, LAYOUT, "none")
