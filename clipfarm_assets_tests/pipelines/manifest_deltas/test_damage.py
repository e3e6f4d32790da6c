"""Damaged bases and deltas, and bases of older deployments."""

import hashlib

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.contracts.fused_manifest import BadManifest
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import BASE, LAYOUT


@pytest.mark.parametrize("damage", ["junk", "cut", "bit", "renamed", "columns", "empty"])
def test_a_delta_that_is_none_is_named(grown, damage):
    (key,) = grown.deltas()
    good = grown.store.get(key)
    bit = bytearray(good)
    bit[40] ^= 1
    columns = table_to_parquet(grown.manifest().rows.drop_columns(["shard_n"]), {})
    bad = {
        "junk": b"junk",
        "cut": good[:-40],
        "bit": bytes(bit),
        "renamed": manifest_file.to_bytes(grown.manifest()),
        "columns": columns,
        "empty": b"",
    }[damage]
    if damage == "columns":  # content as its name says, and no manifest
        grown.store.delete(key)
        key = LAYOUT.manifest_delta("concat", hashlib.sha256(bad).hexdigest())
    grown.store.put(key, bad)
    before = grown.base()

    with pytest.raises(BadManifest, match=key):
        grown.manifest()
    with pytest.raises(BadManifest, match=key):
        grown.update("always")
    assert grown.base() == before

    # As the message says: without it, its rows are made again from their shards.
    grown.store.delete(key)
    grown.update()
    assert grown.manifest() == grown.plainly()


def test_a_base_that_is_none_is_named(grown):
    grown.store.put(BASE, b"junk")
    for act in (grown.manifest, grown.update):
        with pytest.raises(BadManifest, match=f"{BASE}: not a readable parquet file"):
            act()


def test_an_older_deployments_base_is_merged_whole_once(bench):
    """Its file doesn't say which shards it was made of: rows have to, and are in no order."""
    bench.put(0, "b", "a")
    rows = bench.plainly().rows
    older = table_to_parquet(rows.take([1, 0]))
    bench.store.put(BASE, older)
    assert bench.update().new_shards == ()
    assert bench.base() == older

    bench.put(1, "c")
    assert bench.update().rows == 3
    assert bench.base() == manifest_file.to_bytes(bench.plainly())
    bench.put(2, "d")
    assert bench.update().delta
    bench.check()
