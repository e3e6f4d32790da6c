"""What every path may cost, counted. A cost that grows fails here before anyone feels it.

A cost that shrinks fails too: write the smaller number down, so that it stays.
"""

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets_tests.costs.counting import CountedWorld, growth
from clipfarm_assets_tests.pipelines.kit import DAY_1, clips, door

N = 16  # a whole number of batches and shards
BATCH = 8
SHARD = 8


@pytest.fixture
def world(tmp_path):
    """Makes a counted world with so many clips; each in a folder of its own."""
    made = []

    def make(n):
        world = CountedWorld(tmp_path / str(len(made)))
        made.append(world)
        world.fill(clips(n))
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
    }
    assert run == {}


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
    assert run == {}


def test_the_index_reads_the_csv_once(world):
    def measure(n):
        one = world(n)
        with one.counted() as costs:
            one.index()
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    assert run == {"get metadata": 1}


def test_fusion_reads_a_vector_once_and_writes_a_shard_once(world):
    def measure(n):
        one = locked(world, n)
        index = one.index()
        with one.counted() as costs:
            one.fuse(shard_rows=SHARD)
        del index
        return costs

    clip, run = growth(measure, N)
    assert clip == {"get embeddings": 3 * N, "put fused": N // SHARD}
    assert run == {}


def test_fusing_what_is_fused_reads_no_vector(world):
    def measure(n):
        one = fused(world, n)
        with one.counted() as costs:
            one.fuse(shard_rows=SHARD)
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    assert run == {}


def test_a_manifest_update_reads_new_shards_once(world):
    def measure(n):
        one = fused(world, n)
        with one.counted() as costs:
            one.merge()
        return costs

    clip, run = growth(measure, N)
    assert clip == {}
    assert run == {}


def test_states_are_published_once_a_stage(world):
    one = fused(world, N)
    one.merge()
    assert one.states(statuses.fusion_stage("concat")).keys() == {c.video_id for c in clips(N)}
    assert DAY_1
