"""When deltas become one file with the base."""

import pytest

from clipfarm_assets.contracts import manifest_file
from clipfarm_assets.pipelines.manifest import NoFusedManifest, update_manifest
from clipfarm_assets_tests.pipelines.manifest_deltas.kit import BASE


def test_up_to_a_number_of_rows_the_manifest_is_one_file(bench):
    bench.put(0, "a", "b")
    bench.update()
    bench.put(1, "c")
    assert bench.update(whole_rows=3).rows == 3
    bench.put(2, "d")
    assert bench.update(whole_rows=3).delta
    bench.put(3, "e")
    # The delta counts too.
    assert bench.update(whole_rows=4).delta
    bench.put(4, "f")
    assert bench.update(whole_rows=6).rows == 6
    bench.check()


def test_the_default_keeps_a_small_manifest_in_one_file(bench):
    for part in range(3):
        bench.put(part, f"id{part}")
        assert update_manifest(bench.deployment, "concat").rows == part + 1
    assert bench.base() == manifest_file.to_bytes(bench.plainly())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_deltas": 2}, [1, 2, 0, 1]),
        ({"max_deltas": 0}, [0, 0, 0, 0]),
        ({"delta_share": 0.5}, [1, 2, 0, 1]),  # of 4 rows 2, then of 7
        ({"compact": "always"}, [0, 0, 0, 0]),
        ({"compact": "never", "max_deltas": 0, "whole_rows": 100}, [1, 2, 3, 4]),
    ],
)
def test_deltas_are_compacted_when_there_are_many(bench, options, expected):
    bench.put(0, "a", "b", "c", "d")
    bench.update(**options)
    found = []
    for part in range(1, 5):
        bench.put(part, f"id{part}")
        update = bench.update(**options)
        assert update.deltas == len(bench.deltas())
        found.append(update.deltas)
    assert found == expected
    bench.check()


def test_deltas_left_over_are_compacted_by_an_update_without_new_shards(grown):
    assert grown.update("always").rows == 4
    assert grown.deltas() == []
    assert grown.base() == manifest_file.to_bytes(grown.plainly())


@pytest.mark.parametrize("compact", ["auto", "never"])
def test_without_a_base_one_is_made(bench, compact):
    bench.put(0, "a")
    update = bench.update(compact)
    assert (update.rows, bench.deltas()) == (1, [])


def test_a_base_that_was_lost_is_made_again_from_deltas_and_shards(grown):
    grown.store.delete(BASE)
    with pytest.raises(NoFusedManifest):
        grown.manifest()
    grown.update("never")
    assert grown.base() == manifest_file.to_bytes(grown.plainly())
