"""What a worker does with one block after the other; without a cluster."""

import pytest

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets.pipelines.cluster import rows, stations
from clipfarm_assets.pipelines.cluster.plan import ClusterOptions, Node, process_plan, share_out
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.embed_steps import Clip
from clipfarm_assets_tests.pipelines.kit import REFUSED, HashEncoder, door, version_of
from clipfarm_assets_tests.pipelines.test_killable_decoding import (
    PLANTED,
    REPOSITORY,
    DecodingEncoder,
)

pytest.importorskip("ray", reason="needs the extra: pip install '.[ray]'")
pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\..*"),
    pytest.mark.filterwarnings(r"ignore::FutureWarning:ray\..*"),
]


def recipe_of(world, opens, prepares, token="a"):
    options = EmbedOptions(item_deadline_seconds=20.0)
    shares = share_out(ClusterOptions(), "video", [Node(4)])
    return stations.Recipe(
        world.store,
        world.layout,
        "video",
        options,
        process_plan(shares, options),
        opens,
        prepares,
        token,
        lambda _: DecodeWorkers(256 * 2**20, PLANTED),
    )


@pytest.fixture(autouse=True)
def _processes_end():
    yield
    while stations._STATIONS:
        stations._STATIONS.popitem()[1].close()


@pytest.fixture
def _jobs_are_found(monkeypatch):
    monkeypatch.syspath_prepend(str(REPOSITORY))


@pytest.fixture
def block(world):
    """Stores raw objects, and makes a block of their clips."""

    def make(first, *raws):
        clips = [Clip(f"v{first + i}", "", "", {"title": "t"}) for i in range(len(raws))]
        for clip, raw in zip(clips, raws, strict=True):
            world.store.put(world.layout.raw("video", clip.video_id), raw)
        return rows.clips_table(clips, first)

    return make


@pytest.mark.usefixtures("_jobs_are_found")
def test_a_process_decodes_block_after_block_and_ends_what_another_recipe_left(world, block):
    opened = []

    def prepares():
        opened.append(DecodingEncoder(version_of("video")))
        return opened[-1]

    recipe = recipe_of(world, door("video"), prepares)
    first = stations.decode_block(block(0, b"give 1", b"crash 2", b"give 3"), recipe)
    station = stations._STATIONS["a"]
    second = stations.decode_block(block(3, b"give 4", b"give 5"), recipe)
    assert list(stations._STATIONS.values()) == [station]
    assert len(opened) == 1
    assert first["fault"].to_pylist() + second["fault"].to_pylist() == [""] * 5
    errors = first["error"].to_pylist() + second["error"].to_pylist()
    assert [error is None for error in errors] == [True, False, True, True, True]
    assert "crashed" in errors[1]
    uses = rows.uses_of(second["uses"][0].as_py())
    assert (uses["fetch"].items, uses["decode"].items) == (2, 2), "of this block alone"

    stations.decode_block(block(5, b"give 6"), recipe_of(world, door("video"), prepares, "b"))
    assert list(stations._STATIONS) == ["b"]
    assert station._decoding._is_closed


def test_a_fault_ends_its_block_in_its_place_and_the_next_block_is_done(world, block):
    class OnceBroken(HashEncoder):
        def prepare(self, source, deadline):
            if source.raw.startswith(b"broken"):
                msg = "not these weights"
                raise ModelMismatch(msg)
            return super().prepare(source, deadline)

    recipe = recipe_of(world, door("video"), lambda: OnceBroken(version_of("video")))
    found = stations.decode_block(block(0, b"1", b"broken", b"3"), recipe)
    assert found["number"].to_pylist() == [0, 1]
    assert not stations._STATIONS, "its decoders were given up"
    with pytest.raises(ModelMismatch, match="not these weights"):
        rows.raise_fault(found.to_pylist()[1])
    encoded = stations.EncodeStation(recipe)(found)
    assert [bool(fault) for fault in encoded["fault"].to_pylist()] == [False, True]
    assert len(encoded["vector"][0].as_py()) == 4 * version_of("video").dim

    again = stations.decode_block(block(3, b"4"), recipe)
    assert again["fault"].to_pylist() == [""]


def test_an_encoder_that_cannot_be_opened_is_a_fault_of_the_first_that_needs_it(world, block):
    def opens():
        msg = "no such weights"
        raise ModelMismatch(msg)

    recipe = recipe_of(world, opens, lambda: HashEncoder(version_of("video")))
    ready = stations.decode_block(block(0, b"empty", b"corrupt", b"3", b"4"), recipe)
    found = stations.EncodeStation(recipe)(ready).to_pylist()
    assert [row["number"] for row in found] == [0, 1, 2]
    assert found[0]["waits"] == "nothing to embed yet"
    assert found[1]["error"] == "corrupt on purpose"
    assert "no such weights" in found[2]["fault"]


def test_one_item_that_the_model_refuses_fails_alone(world, block):
    by = door("video", group_size=2)
    recipe = recipe_of(world, by, by)
    ready = stations.decode_block(block(0, b"1", REFUSED, b"3"), recipe)
    found = stations.EncodeStation(recipe)(ready).to_pylist()
    assert [row["error"] for row in found] == [None, "the model refused an item", None]
    assert [bool(row["vector"]) for row in found] == [True, False, True]
    assert max(by.encoder.batches) == 2
    assert {row["version"] for row in found} == {version_of("video").id}
