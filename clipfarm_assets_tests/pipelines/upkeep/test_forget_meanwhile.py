"""A clip is forgotten while a manifest update, which has read its shard, is about to write."""

import pytest

from clipfarm_assets.pipelines import manifest_store
from clipfarm_assets.pipelines.inspect.audit.run import audit
from clipfarm_assets.pipelines.manifest import DanglingPointer, load_manifest
from clipfarm_assets.pipelines.upkeep.forget import forget_clip
from clipfarm_assets_tests.pipelines.kit import DAY_1, MANIFEST, Clip, World, clips
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import hooked
from clipfarm_assets_tests.pipelines.upkeep.kit import disturbed
from clipfarm_assets_tests.training.stores import Killed, kill

BESIDE = {"whole_rows": 0, "delta_share": 1e9, "max_deltas": 10**6}
SOME = [*clips(2), Clip("target"), Clip("witness")]


@pytest.fixture
def fused_late(tmp_path):
    """Two clips in the manifest; target and witness share a shard that is in none yet."""
    root = tmp_path / "world"
    with World(root) as world:
        world.fill(clips(2))
        world.all_of_it(DAY_1)
        world.fill(SOME)
        world.embed_all(DAY_1)
        world.fuse(DAY_1)
    return root


def forgets(root):
    def act():
        with World(root) as world:
            forget_clip(world.deployment, "target")

    return act


def named(world):
    rows = load_manifest(world.deployment, "concat").rows.to_pylist()
    for row in rows:
        world.fused_vector(row)
    return [row["video_id"] for row in rows]


@pytest.mark.parametrize("options", [{}, BESIDE])
def test_the_update_leads_nobody_to_the_shard_that_is_gone(fused_late, options):
    with World(fused_late) as world:
        disturbed(world, 1, forgets(fused_late))
        with pytest.raises(DanglingPointer):  # what it had read is gone: it is to be started again
            world.merge(**options)
    with World(fused_late) as world:
        assert named(world) == ["clip-000", "clip-001"], "whoever reads now gets what resolves"
        assert manifest_store.list_deltas(world.deployment, "concat") == []
        assert audit(world.deployment).findings == ()
        world.merge(**options)
        assert named(world) == ["clip-000", "clip-001", "witness"]
        assert audit(world.deployment).is_sound


def test_the_first_update_of_all_does_not_either(fused_late):
    with World(fused_late) as world:
        world.store.delete(MANIFEST)
        disturbed(world, 1, forgets(fused_late))
        with pytest.raises(DanglingPointer):
            world.merge()
    with World(fused_late) as world:
        world.merge()
        assert named(world) == ["clip-000", "clip-001", "witness"]
        assert audit(world.deployment).is_sound


def test_a_delta_of_an_update_that_was_killed_says_nothing(fused_late):
    """Between the delta and a look at what it was made of: nobody withdraws it."""
    with World(fused_late) as world:
        survey, read = manifest_store.survey(world.deployment, "concat"), world.manifest_rows()
        world.merge(**BESIDE)
        (delta,) = manifest_store.list_deltas(world.deployment, "concat")
        data = world.store.get(delta)
        forget_clip(world.deployment, "target")
        world.store.put(delta, data)
        assert survey.base is not None
        assert read
        assert named(world) == ["clip-000", "clip-001", "witness"]
        forget_clip(world.deployment, "target")
        assert audit(world.deployment).is_sound
        assert manifest_store.list_deltas(world.deployment, "concat") == []


def test_forgetting_that_is_killed_once_it_has_the_shard_on_record_loses_no_other_clip(fused_late):
    """The new shard is merged by the next update, though the old one counts as looked at."""
    with World(fused_late) as world:
        # 4 states, the new shard, its state; the manifest is the seventh write.
        disturbed(world, 7, kill, "after")
        with pytest.raises(Killed):
            forget_clip(world.deployment, "target")
    with World(fused_late) as world:
        forget_clip(world.deployment, "target")
        world.merge()
        assert named(world) == ["clip-000", "clip-001", "witness"]
        assert audit(world.deployment).is_sound


def test_two_clips_of_one_shard_forgotten_at_once(fused_late, monkeypatch):
    """Before it is read the shard is rewritten without the other one: it is looked for there."""

    def act():
        with World(fused_late) as world:
            forget_clip(world.deployment, "witness")

    done = hooked(monkeypatch, "get_many", "part-", act)
    with World(fused_late) as world:
        forget_clip(world.deployment, "target")
        assert done
        world.merge()
        assert named(world) == ["clip-000", "clip-001"]
        assert audit(world.deployment).findings == ()
