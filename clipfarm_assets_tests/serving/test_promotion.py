"""The registry names only models that are whole, of use, and fit the vectors in force."""

import json
import threading
from datetime import UTC, datetime

import pytest

from clipfarm_assets.encoders.base import EmbeddingVersion
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.serving.promotion import NotPromotable, binding_resolves, promote, rollback
from clipfarm_assets.serving.registry import NoModel, horizon_of, load_registry
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.training.snapshot import BadSnapshot, SnapshotId, publish
from clipfarm_assets.training.snapshot_reader import NoSnapshot
from clipfarm_assets_tests.serving.kit import (
    CONTRACT,
    LAYOUT,
    REGISTRY_KEY,
    VERSIONS,
    lock_of,
    publish_snapshot,
    put_lock,
    snapshot_files,
)

NOW = datetime(2026, 2, 3, tzinfo=UTC)


def test_the_best_model_of_a_run_is_promoted_with_all_it_is_bound_to(store):
    put_lock(store, lock_of())
    publish_snapshot(store)
    done = promote(store, LAYOUT, 7, run_id="r1", clock=lambda: NOW)
    assert (done.what, done.previous) == ("promoted", "")
    body = json.loads(store.get(REGISTRY_KEY))
    assert body["current"] == "h7-v1"
    entry = body["versions"][0]
    assert entry["artifacts"].keys() == {
        "config_used.json",
        "data_summary.json",
        "metrics_summary.json",
        "models/intervals.json",
        "models/metadata_encoder.json",
        "models/ridge.skops",
    }
    assert entry["metrics"]["val"]["rmse_log"] < 1
    assert entry["interval"]["nominal"] == 0.9
    for name in ("artifacts", "metrics", "interval"):
        del entry[name]
    assert entry == {
        "model_version": "h7-v1",
        "run_id": "r1",
        "fusion_strategy": "concat",
        "horizon_days": 7,
        "family": "ridge",
        "snapshot_family": None,
        "feature_set_version": "v2",
        "feature_contract_sha256": CONTRACT.sha256,
        "lock_version": 1,
        "lock_sha256": lock_of().sha256,
        "embedding_versions": VERSIONS,
        "promoted_at": "2026-02-03T00:00:00+00:00",
    }
    assert load_registry(store, LAYOUT, 7).serving == done.version
    assert binding_resolves(store, LAYOUT, done.version).holds


def test_the_metric_the_strategy_and_the_family_choose(filled):
    def chosen(**how):
        version = promote(filled, LAYOUT, 7, run_id="r1", **how).version
        return version.fusion_strategy, version.family

    assert chosen()[1] == "ridge"
    assert chosen(strategy="sum_pool") == ("sum_pool", "ridge")
    assert chosen(family="gbdt", strategy="concat") == ("concat", "gbdt")
    values = {}
    for strategy in ("concat", "sum_pool"):
        for family in ("ridge", "gbdt", "pca_gbdt"):
            version = promote(
                filled, LAYOUT, 7, run_id="r1", strategy=strategy, family=family
            ).version
            values[strategy, family] = version.metrics["val"]
    for metric, better in (("rmse_log", min), ("mae_raw", min), ("r2_log", max)):
        best = better(values, key=lambda model, metric=metric: values[model][metric])
        assert chosen(metric=metric) == best


def test_promoting_again_changes_nothing_and_an_older_one_comes_back(filled):
    first = promote(filled, LAYOUT, 7, run_id="r1")
    before = filled.get(REGISTRY_KEY)
    again = promote(filled, LAYOUT, 7, run_id="r1")
    assert (again.what, again.version) == ("unchanged", first.version)
    assert filled.get(REGISTRY_KEY) == before

    second = promote(filled, LAYOUT, 7, run_id="r1", family="gbdt")
    assert (second.what, second.version.model_version) == ("promoted", "h7-v2")
    assert second.previous == "h7-v1"

    back = rollback(filled, LAYOUT, "h7-v1")
    assert (back.what, back.previous, back.version) == ("back", "h7-v2", first.version)
    assert rollback(filled, LAYOUT, "h7-v1").what == "unchanged"
    forth = promote(filled, LAYOUT, 7, run_id="r1", family="gbdt")
    assert (forth.what, forth.version) == ("back", second.version)
    registry = load_registry(filled, LAYOUT, 7)
    assert [v.model_version for v in registry.versions] == ["h7-v1", "h7-v2"]
    assert registry.versions == (first.version, second.version)


def runs(store, **errors):
    """A run a name, whose ridge has this val rmse_log (and mae_log, the other way round)."""
    put_lock(store, lock_of())
    for run_id, error in errors.items():
        values = {"rmse_log": error, "mae_log": 1 - error, "r2_log": 1 - error}
        publish_snapshot(
            store, SnapshotId(run_id, "concat", 7), families=("ridge",), val={"ridge": values}
        )
    return store


def test_only_a_better_model_takes_the_place_of_the_one_that_serves(folder):
    runs(folder, r1=0.50, worse=0.51, equal=0.50, better=0.49)

    def better(run_id, **how):
        return promote(folder, LAYOUT, 7, run_id=run_id, only_if_better=True, **how)

    first = better("r1")
    assert (first.what, first.version.run_id, first.why) == ("promoted", "r1", "")
    before = folder.get(REGISTRY_KEY)
    for run_id, value in (("worse", 0.51), ("equal", 0.5)):
        kept = better(run_id)
        assert (kept.what, kept.version) == ("kept", first.version)
        assert kept.previous == "h7-v1"
        assert kept.why == (
            f"ridge of snapshot {SnapshotId(run_id, 'concat', 7)} has val rmse_log {value}, "
            "h7-v1 that serves (ridge of run r1) has 0.5"
        )
        assert folder.get(REGISTRY_KEY) == before
    done = better("better")
    assert (done.what, done.previous, done.why) == ("promoted", "h7-v1", "")
    assert done.version.run_id == "better"
    assert better("r1").what == "kept"
    assert load_registry(folder, LAYOUT, 7).serving == done.version


def test_better_is_by_the_metric_that_ranks(folder):
    runs(folder, r1=0.5, other=0.6)
    promote(folder, LAYOUT, 7, run_id="r1")
    how = {"run_id": "other", "only_if_better": True}
    assert promote(folder, LAYOUT, 7, metric="r2_log", **how).what == "kept", "higher is better"
    assert promote(folder, LAYOUT, 7, metric="rmse_log", **how).what == "kept"
    assert promote(folder, LAYOUT, 7, metric="mae_log", **how).what == "promoted"


def test_the_model_that_serves_is_not_kept_but_unchanged(folder):
    runs(folder, r1=0.5)
    promote(folder, LAYOUT, 7, run_id="r1")
    again = promote(folder, LAYOUT, 7, run_id="r1", only_if_better=True)
    assert (again.what, again.why) == ("unchanged", "")


def test_unless_asked_a_worse_model_is_promoted(folder):
    runs(folder, r1=0.5, worse=0.6)
    promote(folder, LAYOUT, 7, run_id="r1")
    assert promote(folder, LAYOUT, 7, run_id="worse").what == "promoted"
    assert load_registry(folder, LAYOUT, 7).serving.run_id == "worse"


def test_a_model_no_better_than_the_mean_is_refused_also_where_one_serves(folder):
    runs(folder, r1=0.5, worse=50.0)
    promote(folder, LAYOUT, 7, run_id="r1")
    with pytest.raises(NotPromotable, match="does not beat the mean"):
        promote(folder, LAYOUT, 7, run_id="worse", only_if_better=True)


def test_models_that_were_given_a_part_of_the_outcome_are_not_promoted_unless_asked_for(folder):
    put_lock(folder, lock_of())
    publish_snapshot(folder, SnapshotId("old", "concat", 7), feature_set="v1")
    with pytest.raises(NotPromotable) as refused:
        promote(folder, LAYOUT, 7, run_id="old")
    assert str(refused.value) == (
        "run_id 'old' has models of feature set v1 for horizon 7, expected v2: v1 holds a part of "
        "the outcome and is for comparison; promote another run, or ask for the other feature_set"
    )
    assert not folder.exists(REGISTRY_KEY)
    done = promote(folder, LAYOUT, 7, run_id="old", feature_set="v1")
    assert (done.what, done.version.feature_set_version) == ("promoted", "v1")
    publish_snapshot(folder, SnapshotId("new", "concat", 7))
    with pytest.raises(NotPromotable, match=r"has models of feature set v2 .* expected v1"):
        promote(folder, LAYOUT, 7, run_id="new", feature_set="v1")


def test_of_a_run_of_both_feature_sets_the_one_asked_for_is_promoted(folder):
    low = {family: {"rmse_log": 0.01} for family in ("ridge", "gbdt", "pca_gbdt")}
    for strategy, how in (("concat", {}), ("sum_pool", {"feature_set": "v1", "val": low})):
        put_lock(folder, lock_of(strategy))
        publish_snapshot(folder, SnapshotId("r1", strategy, 7), **how)
    honest = promote(folder, LAYOUT, 7, run_id="r1").version
    assert (honest.fusion_strategy, honest.feature_set_version) == ("concat", "v2")
    with pytest.raises(NotPromotable, match=r"no model of sum_pool for horizon 7.*of concat"):
        promote(folder, LAYOUT, 7, run_id="r1", strategy="sum_pool")
    told = promote(folder, LAYOUT, 7, run_id="r1", feature_set="v1").version
    assert (told.fusion_strategy, told.feature_set_version) == ("sum_pool", "v1")


def test_single_model_snapshots_take_part(folder):
    put_lock(folder, lock_of())
    publish_snapshot(folder, SnapshotId("r1", "concat", 7, "gbdt"), families=("gbdt",))
    version = promote(folder, LAYOUT, 7, run_id="r1").version
    assert (version.family, version.snapshot_family) == ("gbdt", "gbdt")
    publish_snapshot(folder, SnapshotId("r1", "concat", 7))
    assert promote(folder, LAYOUT, 7, run_id="r1").version.snapshot_family is None


def test_a_model_no_better_than_the_mean_is_refused(folder):
    put_lock(folder, lock_of())
    publish_snapshot(folder, shuffled=True)
    with pytest.raises(NotPromotable, match=r"ridge.*does not beat the mean.*val rmse_log is 1"):
        promote(folder, LAYOUT, 7, run_id="r1")
    with pytest.raises(NotPromotable, match=r"does not beat the mean.*val r2_log is -"):
        promote(folder, LAYOUT, 7, run_id="r1", metric="r2_log")
    assert not folder.exists(REGISTRY_KEY)


def test_the_floor_is_no_model(folder):
    put_lock(folder, lock_of())
    publish_snapshot(folder, families=("mean",))
    with pytest.raises(NotPromotable, match=r"'r1' has no model .*found mean of concat"):
        promote(folder, LAYOUT, 7, run_id="r1")


def test_what_is_not_there_is_named(filled):
    with pytest.raises(NotPromotable, match=r"no model of max_pool for horizon 7.*ridge of concat"):
        promote(filled, LAYOUT, 7, run_id="r1", strategy="max_pool")
    with pytest.raises(NoSnapshot, match=r"run_id 'r1' has no snapshot of horizon 30"):
        promote(filled, LAYOUT, 30, run_id="r1")
    with pytest.raises(NoSnapshot, match=r"'r2' has no snapshot of horizon 7.*run_id r1"):
        promote(filled, LAYOUT, 7, run_id="r2")
    assert not filled.exists(REGISTRY_KEY)
    with pytest.raises(NoModel, match="no model was promoted for horizon 7 yet"):
        load_registry(filled, LAYOUT, 7).serving  # noqa: B018
    with pytest.raises(NoModel, match=r"no model version 'h7-v1': there are none"):
        rollback(filled, LAYOUT, "h7-v1")
    for wrong in ("h8-v1", "7", "h7-v0", "h7-v01", "h7-v1 ", ""):
        with pytest.raises(ValueError, match=r"h7-v3|horizon"):
            rollback(filled, LAYOUT, wrong)
    assert horizon_of("h30-v12") == 30


@pytest.mark.parametrize("name", ["models/ridge.skops", "models/gbdt.joblib", "config_used.json"])
def test_a_snapshot_with_a_changed_file_is_refused(filled, name):
    promote(filled, LAYOUT, 7, run_id="r1", strategy="concat")
    key = SnapshotId("r1", "concat", 7).root(LAYOUT) + name
    filled.put(key, filled.get(key)[:-1] + b"~")
    with pytest.raises((NotPromotable, ValueError), match=name):
        promote(filled, LAYOUT, 7, run_id="r1", strategy="concat")
    with pytest.raises(NotPromotable, match=rf"h7-v1 can't serve again.*{name}"):
        rollback(filled, LAYOUT, "h7-v1")


def test_a_snapshot_that_was_exchanged_as_a_whole_is_refused(filled):
    version = promote(filled, LAYOUT, 7, run_id="r1", strategy="concat").version
    root = SnapshotId("r1", "concat", 7).root(LAYOUT)
    for info in list(filled.list(root)):
        filled.delete(info.key)
    publish_snapshot(filled, shuffled=True)
    with pytest.raises(NotPromotable, match=r"models/ridge.skops is not the file"):
        rollback(filled, LAYOUT, version.model_version)


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        (lock_of(version=2), "version 2"),
        (lock_of(dims=7), "bound to version 1"),
        (lock_of(versions={**VERSIONS, "audio": "audio-b"}), "'audio-a', found 'audio-b'"),
        (None, "no object clipfarm/fused/concat/schema.json"),
    ],
)
def test_a_model_of_another_lock_is_refused(filled, lock, told):
    version = promote(filled, LAYOUT, 7, run_id="r1", strategy="concat").version
    key = LAYOUT.schema_lock("concat")
    filled.put(key, lock.to_json()) if lock else filled.delete(key)
    for again in (
        lambda: promote(filled, LAYOUT, 7, run_id="r1", strategy="concat"),
        lambda: rollback(filled, LAYOUT, version.model_version),
    ):
        with pytest.raises(NotPromotable, match=told):
            again()


def test_a_lock_that_only_names_adopted_versions_is_the_same(folder):
    unversioned = dict.fromkeys(VERSIONS, "unversioned")
    put_lock(folder, lock_of(versions=unversioned))
    publish_snapshot(folder, versions=unversioned)
    adopted = {m: EmbeddingVersion(m, "x", "1", "0", "p", {}, 6) for m in VERSIONS}
    put_lock(folder, lock_of(versions={m: v.id for m, v in adopted.items()}, updated_at="later"))
    with pytest.raises(NotPromotable, match="bound to version 'unversioned'"):
        promote(folder, LAYOUT, 7, run_id="r1")
    for modality, version in adopted.items():
        ModelsLock(folder, LAYOUT.models_lock()).adopt(modality, version, is_stand_in=False)
    assert promote(folder, LAYOUT, 7, run_id="r1").what == "promoted"


def test_promoters_at_once_lose_nothing(filled):
    families = ("ridge", "gbdt", "pca_gbdt")
    jobs = [(family, strategy) for family in families for strategy in ("concat", "sum_pool")]
    barrier = threading.Barrier(len(jobs))

    def work(family, strategy):
        own = ObjectStore.open(filled.url)
        barrier.wait()
        for _ in range(2):
            promote(own, LAYOUT, 7, run_id="r1", family=family, strategy=strategy)

    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    registry = load_registry(filled, LAYOUT, 7)
    assert sorted((v.family, v.fusion_strategy) for v in registry.versions) == sorted(jobs)
    assert registry.serving in registry.versions


def test_a_snapshot_of_another_version_of_the_code_is_refused_in_one_sentence(folder):
    """Its encoder knows no range of the train values, as those made before it was kept."""
    name = "models/metadata_encoder.json"
    snapshot_id = SnapshotId("older", "concat", 7)
    made = snapshot_files("older", "concat", 7)
    fields = json.loads(made[name])
    for scaling in fields["numeric"].values():
        del scaling["low"], scaling["high"]
    put_lock(folder, lock_of("concat"))
    publish(folder, LAYOUT, snapshot_id, {**made, name: json.dumps(fields).encode()}, {})
    with pytest.raises(BadSnapshot, match=rf"{name}: not a metadata encoder.*; train again"):
        promote(folder, LAYOUT, 7, run_id="older", family="ridge")
