"""Sharing out a cluster: nobody waits for a core that an encoder keeps."""

import itertools

import pytest

from clipfarm_assets.pipelines.cluster.engine import RayEngine
from clipfarm_assets.pipelines.cluster.plan import (
    ClusterOptions,
    ClusterTooSmall,
    Node,
    process_plan,
    share_out,
    work_plan,
)
from clipfarm_assets.pipelines.cluster.session import Session
from clipfarm_assets.pipelines.embed_local import Work
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.workers import Machine
from clipfarm_assets_tests.pipelines.kit import door


def shares(*nodes, modality="video", **options):
    return share_out(ClusterOptions(**options), modality, nodes)


def test_cores_alone_are_shared_between_encoders_and_decoding():
    found = shares(Node(16), Node(16))
    assert (found.decode_cpus, found.encode_cpus, found.encoders) == (4, 1, 18)
    assert (found.block_clips, shares(Node(8), modality="text").block_clips) == (16, 256)


def test_accelerators_have_an_encoder_each_or_several():
    assert shares(Node(16, 4), Node(16), encode_gpus=1).encoders == 4
    assert shares(Node(16, 4), Node(16), encode_gpus=0.5).encoders == 8
    assert shares(Node(16, 4), Node(16), encode_gpus=1, encoders=3).encoders == 3
    assert shares(Node(16, 4), encode_gpus=2).encoders == 2
    # None lies on parts of two.
    assert shares(Node(16, 4), encode_gpus=0.6).encoders == 4
    assert shares(Node(16, 4), encode_gpus=0.4).encoders == 8
    assert shares(Node(16, 2), Node(16, 2), encode_gpus=1 / 3).encoders == 12
    assert work_plan(shares(Node(16, 4), encode_gpus=1), EmbedOptions()).on_accelerator


@pytest.mark.parametrize(
    ("nodes", "options", "found"),
    [
        ((), {}, "found no node"),
        ((Node(0),), {}, "found nodes of 0 cores"),
        ((Node(0), Node(0)), {"encode_cpus": 1}, "expected a node with cores"),
        ((Node(8, 4),), {"encode_gpus": 1.5}, "whole ones for an encoder, .* found 1.5"),
        ((Node(8),), {"encode_gpus": 1}, "found nodes of 8 cores and 0 accelerators"),
        ((Node(2), Node(2)), {"encode_cpus": 4}, "a node with 4 cores"),
        ((Node(4),), {"decode_cpus": 4}, "lower ray_encode_cpus or ray_decode_cpus"),
        ((Node(1), Node(1)), {"decode_cpus": 2}, "beside a decoding process of 2"),
    ],
)
def test_what_fits_nowhere_is_refused(nodes, options, found):
    with pytest.raises(ClusterTooSmall, match=found):
        shares(*nodes, **options)


CLUSTERS = [
    nodes
    for count in (1, 2, 3)
    for nodes in itertools.combinations_with_replacement([Node(c) for c in (1, 2, 3, 5, 8)], count)
]


@pytest.mark.parametrize("asked", [None, 1, 2, 50])
@pytest.mark.parametrize("encode", [None, 0.3, 1, 2])
@pytest.mark.parametrize("decode", [None, 0.25, 1, 3])
def test_wherever_encoders_lie_decoding_has_room(decode, encode, asked):
    """By trying every way in which they may lie."""
    for nodes in CLUSTERS:
        try:
            found = shares(*nodes, decode_cpus=decode, encode_cpus=encode, encoders=asked)
        except ClusterTooSmall:
            continue
        assert found.encoders >= 1
        assert asked is None or found.encoders <= asked
        if found.encoders == 1:
            continue  # that there is a place with room beside it is what `share_out` asks
        room = [int(node.cpus / found.encode_cpus + 1e-9) for node in nodes]
        for lie in itertools.product(*(range(most + 1) for most in room)):
            if sum(lie) == found.encoders:
                left = [n.cpus - k * found.encode_cpus for n, k in zip(nodes, lie, strict=True)]
                assert max(left) >= found.decode_cpus - 1e-6, (nodes, found, lie)


def test_a_process_decodes_as_many_at_a_time_as_it_has_cores():
    found = shares(Node(16), Node(16))
    assert process_plan(found, EmbedOptions()).decode_workers == 4
    assert process_plan(found, EmbedOptions(workers=7)).decode_workers == 7
    plan = work_plan(found, EmbedOptions())
    assert (plan.cores, plan.encode_workers, plan.decode_workers) == (32, 18, 12)
    assert not plan.on_accelerator


@pytest.mark.parametrize(("asked", "found"), [(None, 32), (5, 5)])
def test_the_driver_stores_by_many_threads_from_the_start(world, asked, found):
    """Its plan is asked before it knows of any cluster."""
    options = EmbedOptions(put_workers=asked)
    opened = EncoderOnDemand(world.deployment, door("video"), lambda: None, lambda _: None)
    work = Work(
        world.deployment, "video", opened, options, Machine(2, 2**32), lambda: "cpu", 1, Meters()
    )
    engine = RayEngine(work, Session(), ClusterOptions(), door("video"), door("video"))
    assert engine.plan.put_workers == found
    assert work_plan(shares(Node(4)), options).put_workers == found
    assert engine.note == "ray: nothing to do, no cluster was asked"
