"""A clip is forgotten while a run works on it, on a machine whose ledger is another one.

Leases don't reach it. What does: who forgets buries the clip in the store first and looks for it
last, and who writes of clips looks afterwards who was buried.
"""

from dataclasses import replace

import pytest

from clipfarm_assets.ledger.leases import LeaseLost, Place
from clipfarm_assets.ledger.published import sqlite_to_items
from clipfarm_assets.pipelines.fuse import FusionStage
from clipfarm_assets.pipelines.upkeep.forget import find_clip, forget_clip
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, World, clips
from clipfarm_assets_tests.pipelines.upkeep.kit import base_ids, disturbed


@pytest.fixture
def root(tmp_path):
    """Two clips of a day are in the manifest, and two of the next day are embedded only."""
    with World(tmp_path, "one") as world:
        world.fill(clips(2, prefix="a"))
        world.all_of_it(DAY_1)
        world.fill([*clips(2, prefix="a"), *clips(2, DAY_2, "b")])
        world.embed_all(DAY_2)
    return tmp_path


def forgetting(root, video_id, machine="other"):
    """Has another machine forget the clip."""

    def act():
        with World(root, machine) as world:
            forget_clip(world.deployment, video_id)

    return act


def resolving(world):
    for row in world.manifest_rows().values():
        world.fused_vector(row)


def test_a_shard_that_comes_after_it_leads_the_manifest_to_nothing_of_the_clip(root):
    with World(root, "one") as world:
        disturbed(world, 1, forgetting(root, "b-000"))  # the first write is the shard
        assert world.fuse(DAY_2)[DAY_2].statuses == {"success_full": 2}
        assert find_clip(world.deployment, "b-000").shards, "it was at work, and knew of nothing"
    with World(root, "third") as world:
        update = world.merge()
        assert update.forgotten == ("b-000",)
        assert "clipfarm forget --yes removes them too, e.g. of b-000" in "".join(world.said)
        assert base_ids(world) == ["a-000", "a-001", "b-001"]
        forget_clip(world.deployment, "b-000")
        assert find_clip(world.deployment, "b-000").shards == ()
        assert base_ids(world) == ["a-000", "a-001", "b-001"]
        resolving(world)
        assert world.merge().forgotten == ()


def test_the_machine_that_was_at_work_does_not_lead_the_manifest_to_it_either(root):
    with World(root, "one") as world:
        disturbed(world, 1, forgetting(root, "b-000"))
        world.fuse(DAY_2)
        world.merge()
        assert base_ids(world) == ["a-000", "a-001", "b-001"]
        resolving(world)


@pytest.mark.parametrize("machine", ["one", "other"])
def test_a_run_that_had_read_its_index_before_writes_no_state_of_it(root, machine):
    """Not fused yet, it had no state in the fusion stage that a tombstone could replace."""
    with World(root, "one") as world:
        index = world.index(DAY_1, DAY_2)
        forgetting(root, "b-000", machine)()
        report = FusionStage(world.deployment, "concat").run(index)[DAY_2]
        assert (report.worked_on, report.totals["forgotten"]) == (1, 1)
        assert world.statuses("fusion_concat")["b-000"] == "forgotten"
        published = world.store.get(world.layout.state("fusion_concat"))
        assert sqlite_to_items(published, "state")["b-000"].status == "forgotten"


def test_a_state_that_comes_after_it_is_not_published(root):
    """The machine at work doesn't know of the tombstone yet, but its state gives way to it."""
    with World(root, "one") as world:
        disturbed(world, 1, forgetting(root, "b-000"))
        world.fuse(DAY_2)
        assert world.statuses("fusion_concat")["b-000"] == "success_full"
        published = world.store.get(world.layout.state("fusion_concat"))
        assert sqlite_to_items(published, "state")["b-000"].status == "forgotten"


def at_the_new_shard(world, act):
    """Has it happen when the rest of a shard is about to be stored, right before it is."""
    put = world.store.put_if_absent

    class Watched(ObjectStore):
        def put_if_absent(self, key, data):
            if "part-" in key:
                act()
            put(key, data)

    world.deployment = replace(world.deployment, store=Watched(str(world.root / "store")))


def test_a_state_that_came_meanwhile_stays(root):
    """A clip of the shard was captured again, and is fused under the lease of the later date."""
    with World(root, "one") as world, World(root, "one") as rival:
        like = world.states("fusion_concat")["a-001"]
        moved = replace(like, artifact_key="clipfarm/fused/concat/shards/later.npz")
        at_the_new_shard(world, lambda: rival.ledger.commit("fusion_concat", [moved]))
        forget_clip(world.deployment, "a-000")
        assert world.states("fusion_concat")["a-001"] == moved
        assert find_clip(world.deployment, "a-000").shards == ()
        resolving(world)


def test_one_that_was_overtaken_leads_and_removes_nothing(root):
    """Suspended for so long that a run has taken its date."""
    scope = f"fusion_concat/{DAY_1}"
    with World(root, "one") as world:
        states, shards = world.states("fusion_concat"), world.shards()

        def overtake():
            (held,) = (lease for lease in world.ledger.held_leases() if lease.scope == scope)
            place = Place(world.ledger._begin, world.store.url, scope)
            assert place.take("a rival", 60_000_000, over=held.token)

        at_the_new_shard(world, overtake)
        with pytest.raises(LeaseLost, match=f"{scope} was taken by a rival"):
            forget_clip(world.deployment, "a-000")
        now = world.states("fusion_concat")
        assert now.pop("a-000").status == "forgotten"
        assert now == {i: item for i, item in states.items() if i != "a-000"}
        assert set(shards) < set(world.shards())
        resolving(world)
        (held,) = world.ledger.held_leases()
        Place(world.ledger._begin, world.store.url, scope).release(held.token)
        forget_clip(world.deployment, "a-000")
        assert base_ids(world) == ["a-001"]
        resolving(world)
