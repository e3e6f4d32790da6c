"""What the automation sensor would request, tick by tick, without waiting for daemons."""

import dagster as dg
import numpy as np
import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.definitions import defs
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets_tests.defs import kit

DAYS = ("2026-02-05", "2026-02-06")
STRATEGIES = set(statuses.STRATEGIES)


def shards_of(*days):
    return {f"{day}|{strategy}" for day in days for strategy in STRATEGIES}


class Sensor:
    """The sensor of one instance, with what it remembers between its ticks."""

    def __init__(self, instance) -> None:
        self.instance, self.cursor = instance, None

    def tick(self):
        """Asset -> partitions requested; nothing is run."""
        result = dg.evaluate_automation_conditions(
            defs=defs, instance=self.instance, cursor=self.cursor
        )
        self.cursor = result.cursor
        out = {}
        for name in ("schema_lock", "fused_shards", "fused_manifest"):
            found = result.get_requested_partitions(dg.AssetKey(["clips", name]))
            if found:
                out[name] = set(found)
        return out


@pytest.fixture
def bench(tmp_path):
    made = kit.Bench(tmp_path)
    made.add_clips(("clip5-0", DAYS[0]), ("clip5-1", DAYS[0]), ("clip6-0", DAYS[1]))
    return made


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


def fuse(bench, instance):
    bench.run(instance, "clips_fuse", span=(f"{DAYS[0]}|concat", f"{DAYS[1]}|max_pool"))


def break_vector(bench, video_id):
    key = bench.layout.embedding("audio", video_id)
    whole = vector_to_npy(np.ones(kit.DIM, dtype=np.float32))
    bad = np.full(kit.DIM, np.nan, dtype=np.float32).tobytes()
    bench.store.put(key, whole[: -len(bad)] + bad)


def test_turned_on_after_embedding_it_carries_on_from_there(bench, instance):
    sensor = Sensor(instance)
    assert sensor.tick() == {}, "nothing is embedded yet"
    bench.run(instance, "clips_daily", span=DAYS)
    late = Sensor(instance)  # this one saw no update happen
    for one in (sensor, late):
        assert one.tick() == {"schema_lock": STRATEGIES}
    bench.run(instance, "clips_lock", span=("concat", "max_pool"))
    for one in (sensor, late):
        assert one.tick() == {"fused_shards": shards_of(*DAYS)}
    fuse(bench, instance)
    for one in (sensor, late):
        assert one.tick() == {"fused_manifest": STRATEGIES}
    bench.run(instance, "clips_publish", span=("concat", "max_pool"))
    for one in (sensor, late):
        assert one.tick() == {}


def test_a_date_embedded_again_is_fused_again_and_then_published(bench, instance):
    bench.everything(instance, *DAYS)
    sensor = Sensor(instance)
    assert sensor.tick() == {}
    bench.run(instance, "clips_daily", DAYS[1])
    assert sensor.tick() == {"fused_shards": shards_of(DAYS[1])}
    assert sensor.tick() == {}, "requested once, not at every tick"
    bench.run(instance, "clips_fuse", f"{DAYS[1]}|concat")
    assert sensor.tick() == {"fused_manifest": {"concat"}}


def test_one_modality_alone_makes_no_lock(bench, instance):
    sensor = Sensor(instance)
    sensor.tick()
    some = [dg.AssetKey(["clips", name]) for name in ("clip_index", "video_embeddings")]
    bench.run(instance, "clips_daily", DAYS[0], selection=some)
    assert sensor.tick() == {}


@pytest.mark.parametrize("passed_before", [False, True])
def test_a_date_whose_embeddings_are_broken_is_not_fused(bench, instance, passed_before):
    bench.run(instance, "clips_daily", span=DAYS)
    bench.run(instance, "clips_lock", span=("concat", "max_pool"))
    sensor = Sensor(instance)
    if passed_before:
        assert sensor.tick() == {"fused_shards": shards_of(*DAYS)}
    break_vector(bench, "clip6-0")
    assert not bench.run(instance, "clips_daily", span=DAYS, check=False).success
    assert sensor.tick() == {"fused_shards": shards_of(DAYS[0])}


def test_what_failed_waits_for_an_update_upstream(bench, instance):
    bench.run(instance, "clips_daily", span=DAYS)
    bench.run(instance, "clips_lock", span=("concat", "max_pool"))
    bench.revision = "r2"  # the lock refuses what this one makes
    bench.run(instance, "clips_daily", span=DAYS)
    sensor = Sensor(instance)
    assert sensor.tick() == {"fused_shards": shards_of(*DAYS)}
    span = (f"{DAYS[0]}|concat", f"{DAYS[1]}|max_pool")
    assert not bench.run(instance, "clips_fuse", span=span, check=False).success
    assert sensor.tick() == {}
    assert sensor.tick() == {}
    bench.run(instance, "clips_daily", DAYS[1])
    assert sensor.tick() == {"fused_shards": shards_of(DAYS[1])}
