"""Killed before any write and repeated, forgetting ends in the same state."""

import itertools
import shutil
from dataclasses import replace

import pytest

from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.manifest import load_manifest
from clipfarm_assets.pipelines.upkeep.forget import forget_clip
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import DAY_1, Clip, World, clips, timeless
from clipfarm_assets_tests.pipelines.upkeep.kit import disturbed
from clipfarm_assets_tests.training.stores import Killed, kill

pytestmark = pytest.mark.kills

STAGES = ("video_embedding", "audio_embedding", "text_embedding", "fusion_concat")


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    """Two shards of the clip's date, one with it; half of the manifest is a delta."""
    root = tmp_path_factory.mktemp("ready") / "world"
    beside = {"whole_rows": 0, "delta_share": 1e9}
    with World(root) as world:
        world.fill(clips(2))
        world.all_of_it(DAY_1, shard_rows=2)
        world.fill([*clips(2), Clip("target"), Clip("witness")])
        world.all_of_it(DAY_1, shard_rows=2)
        world.store.delete(world.layout.fused_manifest("concat"))
        world.store.put(world.layout.embedding("video", "target"), b"x")
        world.embed("video", DAY_1, verify_objects=True)
        (key,) = (k for k in world.shards() if k.endswith("part-0001.npz"))
        data = world.store.get(key)
        world.store.delete(key)
        world.merge()
        world.store.put(key, data)
        world.merge(**beside)
        assert len(manifest_store.list_deltas(world.deployment, "concat")) == 1
    return root


def copy(ready, root):
    """The world again at its very place: its ledger's rows are of that store."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(ready, root)
    return root


def outcome(world):
    return world.comparable(), {stage: timeless(world.states(stage)) for stage in STAGES}


def killed(world):
    """Forget, until dead; whether it died."""
    try:
        forget_clip(world.deployment, "target", raw=True)
    except Killed:
        return True
    return False


@pytest.fixture
def place(ready, tmp_path):
    """The world at its very place: what the ledger knows is known of that place."""
    kept = tmp_path / "kept"
    shutil.copytree(ready, kept)
    yield ready
    copy(kept, ready)


@pytest.fixture(scope="module")
def expected(ready, tmp_path_factory):
    """What is left by one that nobody disturbs."""
    kept = tmp_path_factory.mktemp("expected") / "kept"
    shutil.copytree(ready, kept)
    with World(ready) as world:
        forget_clip(world.deployment, "target", raw=True)
        left = outcome(world)
    copy(kept, ready)
    return left


def dies(place, deadly):
    """One attempt; every pointer resolves after it. Whether it died."""
    with World(place) as world:
        died = killed(deadly(world))
        resolve(world)
        return died


def resolve(world):
    """Every pointer of the manifest leads to its clip."""
    for row in load_manifest(world.deployment, "concat").rows.to_pylist():
        world.fused_vector(row)


def test_killed_after_each_write_and_begun_again_it_ends_the_same(place, expected):
    """One write further each time; between any two of them every pointer resolves."""
    kills = 0
    while dies(place, lambda world: disturbed(world, 2, kill)):
        kills += 1
        assert kills < 30, "it gets nowhere"
    with World(place) as world:
        assert outcome(world) == expected
    # 4 states, the shard, its state again, the manifest twice, its delta, the old shard, 3 vectors
    # and 3 raw objects.
    assert kills == 15


@pytest.mark.parametrize("nth", [7, 9, 10])
def test_killed_once_it_is_completed_at_once(nth, place, expected):
    """Before the new shard, before the manifest leads to it, before the old one is removed."""
    with World(place) as world:
        assert killed(disturbed(world, nth, kill))
        resolve(world)
    with World(place) as world:
        forget_clip(world.deployment, "target", raw=True)
        assert outcome(world) == expected


def test_killed_after_each_commit_it_ends_the_same(place, expected, monkeypatch):
    execute = Ledger._execute
    calls = itertools.count()

    def deadly(*arguments):
        if next(calls):
            raise Killed
        return execute(*arguments)

    def patched(world):
        nonlocal calls
        calls = itertools.count()
        return world

    kills = 0
    monkeypatch.setattr(Ledger, "_execute", deadly)
    while dies(place, patched):
        kills += 1
        assert kills < 30, "it gets nowhere"
    monkeypatch.undo()
    with World(place) as world:
        assert outcome(world) == expected
    assert kills == 4, "four tombstones, and the shard's other row"


def test_the_pipeline_may_run_before_it_is_repeated(place):
    """Killed when the new shard was there and nothing led to it."""
    with World(place) as world:
        put = world.store.put_if_absent

        class Deadly(ObjectStore):
            def put_if_absent(self, key, data):
                put(key, data)
                raise Killed

        store = Deadly(str(place / "store"))
        world.deployment = replace(world.deployment, store=store)
        assert killed(world)
    with World(place) as world:
        world.all_of_it(DAY_1, shard_rows=2)
        forget_clip(world.deployment, "target", raw=True)
        rows = load_manifest(world.deployment, "concat").rows.to_pylist()
        assert sorted(row["video_id"] for row in rows) == ["clip-000", "clip-001", "witness"]
        resolve(world)
        assert len(world.shards()) == 2
        before = outcome(world)
        world.all_of_it(DAY_1, shard_rows=2)
        assert outcome(world) == before
