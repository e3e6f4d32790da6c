"""What every path may cost, counted. A cost that grows fails here before anyone feels it.

What items cost must be exactly what is written here: a smaller cost is to be written down, so that
it stays. What a run costs beside its items is an upper bound.
"""

from collections import Counter

import numpy as np
import pytest

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.video.frames import choose_frames, pick_frames
from clipfarm_assets.pipelines.manifest import ManifestOptions, load_manifest, update_manifest
from clipfarm_assets_tests.costs.counting import CountedWorld, growth
from clipfarm_assets_tests.encoders.media import video
from clipfarm_assets_tests.pipelines.kit import clips, door

# The states of four stages are restored and one is published; the lock and the CSV are read, and
# which clips were removed for good; a lease of the date is taken and given back, and nobody removes
# objects meanwhile.
FUSION_RUN = Counter(
    {
        "get fused": 1,
        "get metadata": 1,
        "get state": 3,
        "head state": 6,
        "put state": 1,
        "list fused": 2,
        "tail fused": 1,
        "ledger select": 17,
        "ledger insert": 3,
        "ledger update": 1,
    }
)
# The lock, the footer, the manifest to be swapped, three pointers that are read back, and which of
# the clips were removed for good, by the ledger once it has what was published.
MANIFEST_RUN = Counter(
    {
        "get fused": 6,
        "tail fused": 1,
        "get state": 1,
        "put fused": 1,
        "list fused": 3,
        "head state": 1,
        "ledger select": 2,
    }
)

N = 16  # a whole number of batches and shards
BATCH = 8
SHARD = 4


@pytest.fixture
def world(tmp_path):
    """Makes a counted world with so many clips; each in a folder of its own."""
    made = []

    def make(n):
        world = CountedWorld(tmp_path / str(len(made)))
        made.append(world)
        world.fill(clips(n))
        world.ledger.stages()  # opens it: the tables of a new one are no cost of what is measured
        return world

    yield make
    for one in made:
        one.close()


def embedded(world, n):
    one = world(n)
    one.embed_all()
    return one


def locked(world, n):
    one = embedded(world, n)
    one.lock()
    return one


def fused(world, n):
    one = locked(world, n)
    one.fuse(shard_rows=SHARD)
    return one


@pytest.mark.parametrize("modality", MODALITIES)
def test_embedding_reads_and_writes_a_clip_once(world, modality):
    by = door(modality)

    def measure(n):
        one = world(n)
        index = one.index()
        by.encoder.prepared.clear()
        by.encoder.batches.clear()
        with one.counted() as costs:
            one.embed(modality, by=by, index=index, batch_size=BATCH)
        costs["prepared"] = len(by.encoder.prepared)
        costs["forwards"] = sum(by.encoder.batches)
        return costs

    clip, run = growth(measure, N)
    assert clip == {
        "get raw": N,
        "prepared": N,
        "forwards": N,
        "put embeddings": N,
        "ledger insert": N // BATCH,
        "ledger update": N // BATCH,  # that the lease is still held
    }
    # The state is restored and published, the models lock read and written; a lease of the date is
    # taken and given back.
    assert run <= Counter(
        {
            "get state": 5,
            "head state": 2,
            "put state": 2,
            "ledger select": 7,
            "ledger insert": 3,
            "ledger update": 1,
        }
    )


@pytest.mark.parametrize("modality", MODALITIES)
def test_embedding_what_is_embedded_costs_nothing_a_clip(world, modality):
    def measure(n):
        one = embedded(world, n)
        index = one.index()
        by = door(modality)
        with one.counted() as costs:
            one.embed(modality, by=by, index=index, known=by.encoder.version)
        assert by.opened == 0
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    lease = {"ledger insert": 1, "ledger update": 1}
    assert run <= Counter({"get state": 1, "head state": 2, "ledger select": 6, **lease})


def test_the_index_reads_the_csv_once(world):
    def measure(n):
        one = world(n)
        with one.counted() as costs:
            one.index()
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    # Which clips were removed for good is asked of the ledger, once it has what was published.
    assert run <= Counter({"get metadata": 1, "head state": 1, "ledger select": 2})


def test_fusion_reads_a_vector_once_and_writes_a_shard_once(world):
    def measure(n):
        one = locked(world, n)
        with one.counted() as costs:
            one.fuse(shard_rows=SHARD)
        return costs

    clip, run = growth(measure, N)
    shards = N // SHARD
    assert clip == {
        "get embeddings": 3 * N,
        "put fused": shards,
        "list fused": shards,
        "ledger select": shards,
        "ledger insert": shards,
        "ledger update": shards,  # that the lease is still held
    }
    assert run <= FUSION_RUN


def test_fusing_what_is_fused_reads_no_vector(world):
    def measure(n):
        one = fused(world, n)
        with one.counted() as costs:
            one.fuse(shard_rows=SHARD)
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    assert run <= FUSION_RUN


def test_a_manifest_update_reads_new_shards_once(world):
    def measure(n):
        one = fused(world, n)
        with one.counted() as costs:
            one.merge()
        return costs

    clip, run = growth(measure, N)
    assert clip == {"get fused": N // SHARD}
    assert run <= MANIFEST_RUN


def test_a_manifest_update_without_new_shards_reads_none(world):
    def measure(n):
        one = fused(world, n)
        one.merge()
        with one.counted() as costs:
            one.merge()
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    assert run <= MANIFEST_RUN


def test_a_small_update_of_a_large_manifest_rewrites_no_row_of_it(world):
    one = fused(world, N)
    one.merge()
    key = one.layout.fused_manifest("concat")
    before = one.store.get(key)
    one.fill(clips(N) + clips(SHARD, prefix="new"))
    one.embed_all()
    one.fuse(shard_rows=SHARD)
    with one.counted() as costs:
        update_manifest(one.deployment, "concat", options=ManifestOptions(compact="never"))
    assert one.store.get(key) == before
    assert costs["put fused"] == 1, "one delta"
    assert load_manifest(one.deployment, "concat").rows.num_rows == N + SHARD


@pytest.mark.parametrize("every", [10, 40])
def test_picking_frames_decodes_no_more_than_leads_to_them(every):
    frames, wanted = 120, 16
    options = {"x264-params": f"scenecut=0:keyint={every}:min-keyint={every}:bframes=0"}
    raw = video(frames, gop=every, options=options)
    picked = pick_frames(raw, wanted, wanted, np.copy, Deadline.after(60))
    indices = {int(index) for index in choose_frames(frames, wanted)}
    furthest = {}
    for index in indices:
        furthest[index // every] = max(furthest.get(index // every, 0), index % every + 1)
    assert picked.packets_decoded == sum(furthest.values())
